"""Boxes and targets of the data sets, against the masks."""

import csv
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
from scipy.ndimage import label as connected

from medrl.errors import MedrlError
from medrl_datasets import ixi_brain_t1
from medrl_datasets import spine_mr_lumbar as spine


def outer_faces(path: Path, value: int) -> np.ndarray:
    """Box of a label as SimpleITK has it: of whole voxels, (2, 3) RAS mm."""
    image = sitk.ReadImage(str(path))
    shape = sitk.LabelShapeStatisticsImageFilter()
    shape.Execute(sitk.Cast(image, sitk.sitkUInt16))
    start, size = np.array(shape.GetBoundingBox(value), dtype=float).reshape(2, 3)
    corners = [
        image.TransformContinuousIndexToPhysicalPoint(tuple(start - 0.5 + size * np.array(at)))
        for at in np.ndindex(2, 2, 2)
    ]
    world = np.array(corners) * (-1, -1, 1)
    return np.array([world.min(axis=0), world.max(axis=0)])


@pytest.mark.parametrize("split", ["train", "val", "holdout"])
def test_spine_boxes_are_the_outer_faces_of_the_masks(split: str, data_root: Path) -> None:
    root = data_root / "spine_mr_lumbar"
    boxes = spine.DATASET.boxes(root)
    for subject in spine.DATASET.splits(root)[split]:
        mask = root / "labels" / f"{subject}.nii.gz"
        assert list(boxes[subject]) == ["L1", "L2", "L3", "L4", "L5"] == list(spine.TARGETS)
        for name, (value,) in spine.TARGETS.items():
            np.testing.assert_allclose(
                boxes[subject][name], outer_faces(mask, value), atol=1e-3, err_msg=name
            )


def test_spines_run_down_the_world_and_touch_as_the_card_says(data_root: Path) -> None:
    root = data_root / "spine_mr_lumbar"
    boxes = spine.DATASET.boxes(root)
    assert len(boxes) == 40
    for named in boxes.values():
        middles = np.array([box.mean(axis=0) for box in named.values()])
        assert (np.diff(middles[:, 2]) < -20).all()  # the next one is below
    with (root / "boxes.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert sum(int(row["k0"]) == 0 or int(row["k1"]) == 38 for row in rows) == 26
    stray = connected(nib.load(root / "labels" / "28.nii.gz").get_fdata() == 3)[0]
    sizes = np.bincount(stray.ravel())[1:]
    assert len(sizes) == 2
    assert sizes.min() == 4
    front = [np.argwhere(stray == part)[:, 1].min() for part in np.argsort(sizes) + 1]
    assert front[1] - front[0] == 1  # a voxel, 2 mm; axis 1 runs backwards


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("01,6,1,1,1,2,2,2", "label 6 of 01"),
        ("01,1,one,1,1,2,2,2", "label 1 of 01"),
        ("99,1,1,1,1,2,2,2", r"cannot read .*99\.nii\.gz"),
    ],
)
def test_a_broken_table_of_boxes_is_refused(
    line: str, message: str, data_root: Path, tmp_path: Path
) -> None:
    (tmp_path / "labels").symlink_to(data_root / "spine_mr_lumbar" / "labels")
    (tmp_path / "boxes.csv").write_text(f"subject,label,i0,j0,k0,i1,j1,k1\n{line}\n")
    with pytest.raises(MedrlError, match=message):
        spine.DATASET.boxes(tmp_path)


def test_brain_targets_are_the_regions_of_the_table(data_root: Path) -> None:
    with (data_root / "ixi_brain_t1" / "labels.csv").open(newline="") as stream:
        value = {row["Name"]: int(row["Index"]) for row in csv.DictReader(stream)}
    targets = dict(ixi_brain_t1.TARGETS)
    brain = targets.pop("Brain")
    assert targets == {
        name.removesuffix("_centroid"): (value[region],)
        for name, region in ixi_brain_t1.CENTROIDS.items()
    }
    assert set(value.values()) | {1, 46, 69} <= set(brain)
