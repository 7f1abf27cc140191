"""What the commands find in a DICOM series and in the same voxels as NIfTI lies in one place."""

import csv

import nibabel as nib
import numpy as np
import pydicom
import pytest
from read_back import frames_of, in_order, items, meaning, world_of
from series_files import ORIGIN, PLANES

from medrl.cli import main


def nifti(voxels, plane, path, *, spacing):
    """The same voxels in the same place, by way of PS3.3 C.7.6.2.1.1."""
    cosines, step = PLANES[plane]
    lps = np.eye(4)
    lps[:3, 0], lps[:3, 1] = cosines[0] * spacing[1], cosines[1] * spacing[0]
    lps[:3, 2], lps[:3, 3] = step, ORIGIN
    affine = np.diag([-1.0, -1.0, 1.0, 1.0]) @ lps
    nib.save(nib.Nifti1Image(voxels.transpose(2, 1, 0).astype(np.int32), affine), path)
    return affine


def sagittal(data, every):
    """Voxels along RAS axes as slices from right to left, rows from above, columns from the front.

    Of slices only each second or third, which comes near the way between those of the series.
    """
    return data[::-1, ::-1, ::-1].transpose(0, 2, 1)[::every]


@pytest.fixture(scope="module")
def head(tmp_path_factory):
    """A real head, in RAS order, and a voxel of its hippocampus."""
    pytest.importorskip("nilearn")
    from medrl.cli.demo import write_template

    path = tmp_path_factory.mktemp("template") / "head.nii.gz"
    write_template(path)
    image = nib.as_closest_canonical(nib.load(path))
    seed = nib.affines.apply_affine(np.linalg.inv(image.affine), (-25.5, -21.0, -14.0))
    data = np.asarray(image.dataobj, dtype=float)
    return np.rint(data * (1000 / data.max())).astype(np.uint16), np.rint(seed).astype(int)


def test_landmarks(make_series, head, tmp_path):
    voxels = sagittal(head[0][:, ::2, ::2], 3)
    series = make_series(voxels, "sagittal", spacing=(2.0, 2.0))
    nifti(voxels, "sagittal", tmp_path / "same.nii", spacing=(2.0, 2.0))
    scans = [str(series.path), str(tmp_path / "same.nii")]
    out = tmp_path / "out"
    assert main(["detect", *scans, "-o", str(out), "--no-picture"]) == 0
    with (out / "same.csv").open() as stream:
        rows = [row for row in csv.DictReader(stream) if row["status"] != "absent"]
    assert len(rows) > 20
    report = pydicom.dcmread(out / "series.sr.dcm")
    names = [i.TextValue for i in items(report, "TEXT") if meaning(i) == "Tracking Identifier"]
    assert names == [row["name"] for row in rows]
    lps = np.array([item.GraphicData for item in items(report, "SCOORD3D")], dtype=float)
    ras = np.array([[row["x"], row["y"], row["z"]] for row in rows], dtype=float)
    np.testing.assert_allclose(lps * (-1, -1, 1), ras, atol=0.01)
    sure = [float(i.MeasuredValueSequence[0].NumericValue) for i in items(report, "NUM")]
    np.testing.assert_allclose(sure, [100 * float(row["confidence"]) for row in rows], atol=0.01)
    assert not (out / "same.sr.dcm").exists()


def test_a_mask(make_series, head, tmp_path):
    data, seed = head
    part = data[tuple(slice(v - 40, v + 40) for v in seed)]
    voxels, k, j, i = sagittal(part, 2), 19, 39, 39
    series = make_series(voxels, "sagittal", spacing=(1.0, 1.0))
    affine = nifti(voxels, "sagittal", tmp_path / "same.nii", spacing=(1.0, 1.0))
    seed = "fg:" + ",".join(f"{v:.3f}" for v in (affine @ (i, j, k, 1))[:3])
    for scan in (series.path, tmp_path / "same.nii"):
        line = ["segment", str(scan), "-o", str(tmp_path / "out"), "--seed", seed]
        assert main([*line, "--no-picture"]) == 0
    image = nib.load(tmp_path / "out" / "same.seg.nii.gz")
    inside = np.argwhere(np.asarray(image.dataobj) == 1)
    want = nib.affines.apply_affine(image.affine, inside) * (-1, -1, 1)
    assert len(want) > 100
    dataset = pydicom.dcmread(tmp_path / "out" / "series.seg.dcm")
    shared = dataset.SharedFunctionalGroupsSequence[0]
    orientation = shared.PlaneOrientationSequence[0].ImageOrientationPatient
    spacing = shared.PixelMeasuresSequence[0].PixelSpacing
    found = [world_of(p, orientation, spacing, pixels) for _, _, p, pixels in frames_of(dataset)]
    np.testing.assert_allclose(in_order(np.concatenate(found)), in_order(want), atol=0.01)
    assert not (tmp_path / "out" / "same.seg.dcm").exists()
