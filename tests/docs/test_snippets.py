"""Every Python block of the README and the documentation runs, page by page, in order.

Blocks of another kind (`text`, `json`) are for reading only. A page that builds a package, with the
names of its files above blocks, runs in tests/systems.
"""

import re
import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from pydicom.uid import generate_uid

from medrl.trajectory import AgentPath, Trajectory, read_trajectory, write_trajectory
from tests.dicom.helpers.series_files import PATIENT, base, save

ROOT = Path(__file__).resolve().parents[2]
BLOCK = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)
FILE = re.compile(r"^```\w+ title=", re.MULTILINE)
TEXTS = {
    page.relative_to(ROOT).as_posix(): page.read_text(encoding="utf-8")
    for page in (ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")))
}
PAGES = [name for name, text in TEXTS.items() if BLOCK.search(text) and not FILE.search(text)]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a reader has: scans of a head, one of them moved, and what a command has written."""
    datasets = pytest.importorskip("nilearn.datasets")
    folder = tmp_path_factory.mktemp("files")
    head = datasets.load_mni152_template(resolution=2)
    for name in ("head", "fixed", "spine"):
        nib.save(head, folder / f"{name}.nii.gz")
    outlines = np.zeros(head.shape, dtype=np.uint8)
    for number, name in ((40, "middle"), (50, "middle-and-another")):
        outlines[40:60, 50:70, number] = 1
        nib.save(nib.Nifti1Image(outlines, head.affine), folder / f"{name}.nii.gz")
    moved = nib.Nifti1Image(head.get_fdata(), head.affine)
    moved.affine[:3, 3] += (8, -5, 3)
    nib.save(moved, folder / "moving.nii.gz")
    _write_series(head, folder / "study" / "head_t1")
    path = AgentPath("AC", 0, np.zeros((2, 3)), np.full(2, 8.0), np.array([5, -1]), np.zeros(2))
    write_trajectory(folder / "head.trajectory.json", Trajectory("landmark", (path,)))
    return folder


def _write_series(head: nib.Nifti1Image, folder: Path) -> None:
    """A scan along RAS as axial DICOM slices."""
    folder.mkdir(parents=True)
    names = ("StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID")
    said = {**PATIENT, **{name: generate_uid(prefix=None) for name in names}}
    voxels = np.rint(1000 * head.get_fdata()).astype(np.uint16)[::-1, ::-1]
    x, y, z = head.affine[:3, :3] @ [voxels.shape[0] - 1, voxels.shape[1] - 1, 0]
    for k in range(voxels.shape[2]):
        image = base(**said, SOPInstanceUID=generate_uid(prefix=None), InstanceNumber=k + 1)
        image.Columns, image.Rows = voxels.shape[:2]
        image.ImageOrientationPatient, image.PixelSpacing = [1, 0, 0, 0, 1, 0], [2, 2]
        corner = head.affine[:3, 3] + (x, y, z + 2 * k)
        image.ImagePositionPatient = (corner * (-1, -1, 1)).tolist()
        image.PixelData = np.ascontiguousarray(voxels[:, :, k].T).tobytes()
        save(image, folder / f"{k:03d}.dcm")


@pytest.mark.parametrize("page", PAGES)
def test_the_python_of_a_page_runs(
    page: str,
    files: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    request: pytest.FixtureRequest,
) -> None:
    blocks = BLOCK.findall(TEXTS[page])
    if "import napari\n" in "".join(blocks):
        request.getfixturevalue("screen")
    shutil.copytree(files, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {"__name__": "__main__"}
    for number, code in enumerate(blocks, 1):
        exec(compile(code, f"{page}, block {number}", "exec"), names)


@pytest.mark.parametrize("name", TEXTS)
def test_no_python_hides_in_blocks_that_do_not_run(name: str) -> None:
    texts = re.findall(r"^```text\n(.*?)^```$", TEXTS[name], re.MULTILINE | re.DOTALL)
    assert not [text for text in texts if re.search(r"^(import|from) \w", text, re.MULTILINE)]


def test_the_trajectory_that_the_documentation_shows_is_one(tmp_path: Path) -> None:
    text = TEXTS["docs/reference/trajectory.md"]
    (shown,) = re.findall(r"^```json\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    (tmp_path / "shown.trajectory.json").write_text(shown)
    (agent,) = read_trajectory(tmp_path / "shown.trajectory.json").agents
    assert len(agent) == 2
