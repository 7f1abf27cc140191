"""Series on disk."""

import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
from pydicom.uid import generate_uid

sys.path.insert(0, str(Path(__file__).parent / "helpers"))

from series_files import ORIGIN, PATIENT, PLANES, SPACING, Series, base, frames, save


@pytest.fixture
def make_series(tmp_path):
    """Write voxels (slices, rows, columns) as a series; files lie in no order."""

    def make(
        voxels: np.ndarray,
        plane: str = "oblique",
        *,
        how: str = "folder",
        where="series",
        spacing=SPACING,
        **tags,
    ) -> Series:
        cosines, step = PLANES[plane]
        uids = {
            name: generate_uid(prefix=None)
            for name in ("StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID")
        }
        said = {**PATIENT, **uids, **tags}
        folder = tmp_path / where
        folder.mkdir(parents=True)
        positions = [(ORIGIN + k * step).round(9).tolist() for k in range(len(voxels))]
        orientation = cosines.ravel().round(12).tolist()
        series = Series(folder)
        # In which files, and in what order, the slices lie as frames.
        layout = {
            "frames": [range(len(voxels))],
            "shuffled frames": [np.random.default_rng(4).permutation(len(voxels))],
            "a frame a file": [[k] for k in reversed(range(len(voxels)))],
            "several files of frames": [range(0, len(voxels), 2), range(1, len(voxels), 2)],
        }.get(how, ())
        for number, order in enumerate(layout):
            chosen = [positions[k] for k in order]
            path = folder / f"frames{number}.dcm"
            dataset = frames(path, voxels[list(order)], chosen, orientation, said)
            series.files[dataset.SOPInstanceUID] = dataset
            series.path = path if len(layout) == 1 else folder
        if layout:
            return series
        for k in np.random.default_rng(3).permutation(len(voxels)):
            dataset = base(**said, SOPInstanceUID=generate_uid(prefix=None))
            dataset.InstanceNumber = 100 - int(k)
            dataset.Rows, dataset.Columns = voxels[k].shape
            dataset.ImageOrientationPatient, dataset.PixelSpacing = orientation, list(spacing)
            dataset.ImagePositionPatient = positions[k]
            dataset.PixelData = voxels[k].astype(np.uint16).tobytes()
            save(dataset, folder / f"{len(series.files):03d}.dcm")
            series.files[dataset.SOPInstanceUID] = dataset
        if how == "zip":
            archive = folder.with_suffix(".zip")
            with zipfile.ZipFile(archive, "w") as out:
                for file in sorted(folder.iterdir()):
                    out.write(file, f"disc/{file.name}")
            series.path = archive
        return series

    return make


@pytest.fixture(scope="session")
def voxels() -> np.ndarray:
    """(slices, rows, columns): two blobs of no symmetry in noise; above 500 and 1500."""
    k, j, i = np.mgrid[:9, :22, :17]
    out = np.random.default_rng(0).integers(0, 100, k.shape)
    out[(k - 3) ** 2 * 4 + (j - 8) ** 2 + (i - 11) ** 2 * 1.5 < 30] = 1000
    out[(k - 6) ** 2 * 4 + (j - 16) ** 2 + (i - 4) ** 2 < 9] = 2000
    out[8, 0, 16] = 1000
    return out.astype(np.uint16)
