"""A box in place of seeds: where the first seed goes, and what is left out."""

import csv
from pathlib import Path

import numpy as np
import pytest

import medrl
from medrl.errors import MedrlError
from medrl.seednet.data import dice
from medrl.seednet.segment import SeedSegmenter
from medrl.volume.boxes import box_of_mask
from medrl.volume.read import read, read_labels
from medrl.volume.space import voxel_to_world, voxels_in_box, world_to_voxel


@pytest.mark.parametrize("grid", ["straight", "oblique", "CT"])
def test_a_box_of_the_object_is_enough(model, make_scan, grid: str) -> None:
    """The mask is as good as that of a click in its middle, and its seed lies in the object."""
    scan, segmenter = make_scan(grid), SeedSegmenter(model)
    box = make_scan.center + np.array([[-18.0] * 3, [18.0] * 3])
    boxed = segmenter.segment(scan, box=box)
    clicked = segmenter.segment(scan, [f"fg:{','.join(map(str, make_scan.center))}"])
    truth = scan[0].numpy() > 50
    of_box, of_click = (dice(found.mask[0].numpy() > 0, truth) for found in (boxed, clicked))
    assert of_box > max(0.9, of_click - 0.03)
    (seed, *_) = boxed.seeds
    assert (seed.who, seed.label_name) == ("user", "foreground")
    ball = np.linalg.norm(seed.position_world - make_scan.center)
    assert ball < make_scan.radius


def test_nothing_is_object_outside_the_box(model, make_scan) -> None:
    """With seeds, too, and then no seed is added."""
    scan, segmenter = make_scan("oblique"), SeedSegmenter(model)
    box = make_scan.center + np.array([[-20.0, -20, -4], [20, 20, 20]])
    affine, shape = np.asarray(scan.affine), tuple(scan.shape[1:])
    point = ",".join(map(str, make_scan.center + np.array([0, 0, 3])))
    for seeds in ((), (f"fg:{point}",)):
        mask = segmenter.segment(scan, seeds, box=box, agent=False).mask[0].numpy() > 0
        assert mask.any()
        assert not mask[~voxels_in_box(box, affine, shape)].any()
    assert len(segmenter.segment(scan, seeds, box=box, agent=False).seeds) == 1


def test_bad_boxes(model, make_scan, session) -> None:
    scan, segmenter = make_scan(), SeedSegmenter(model)
    far = make_scan.center + 500
    wrong = {
        "outside the scan": [far, far + 1],
        "middle of no voxel": [make_scan.center + 0.7, make_scan.center + 0.9],
        "inverted": [make_scan.center, make_scan.center - 5],
        "not two corners": [1, 2, 3],
    }
    for message, box in wrong.items():
        with pytest.raises(MedrlError, match=message):
            segmenter.segment(scan, box=box)
    with pytest.raises(MedrlError, match="outside the limits"):
        segmenter.segment(scan, ["fg:9,-14,31"], box=[make_scan.center + 5, make_scan.center + 9])
    with pytest.raises(MedrlError, match="no limits yet"):
        session.add_seed_in_limits()
    assert session.objects == ()


def test_a_box_is_no_worse_than_a_click(data_root: Path) -> None:
    """Hippocampi of validation subjects, the experts' box against a click in their mask.

    The middle of the box lies outside the hippocampus in most of them; the seed does not.
    """
    segmenter = medrl.load("hippocampus-t1")
    rng = np.random.default_rng(0)
    boxed, clicked = [], []
    folder = data_root / "msd_hippocampus"
    with (folder / "splits.csv").open() as stream:
        names = [row["subject"] for row in csv.DictReader(stream) if row["split"] == "val"]
    for name in names[:8]:
        scan = read(folder / "images" / f"{name}.nii.gz")
        labels = read_labels(folder / "labels" / f"{name}.nii.gz")
        truth = labels[0].numpy() > 0
        box = box_of_mask(labels, (1, 2))
        found = segmenter.segment(scan, box=box)
        (seed,) = np.rint(world_to_voxel(found.seeds[0].points_world, scan.affine)).astype(int)
        assert truth[tuple(seed)]
        boxed.append(dice(found.mask[0].numpy() > 0, truth))
        voxels = np.argwhere(truth)
        voxel = voxels[rng.integers(len(voxels))]
        point = voxel_to_world(voxel, scan.affine)
        mask = segmenter.segment(scan, [f"fg:{','.join(map(str, point))}"]).mask
        clicked.append(dice(mask[0].numpy() > 0, truth))
    assert np.mean(boxed) > np.mean(clicked) - 0.003
    assert min(boxed) > 0.8
