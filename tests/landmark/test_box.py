"""Search in a box: the shipped model on real heads, cut to their brains by the experts' labels."""

import csv

import numpy as np
import pytest
import torch
from monai.data.meta_tensor import MetaTensor

from medrl.errors import MedrlError
from medrl.landmark.detect import LandmarkDetector
from medrl.volume.boxes import box_of_mask
from medrl.volume.read import read, read_labels

SUBJECTS = 2


@pytest.fixture(scope="module")
def detector():
    return LandmarkDetector.load("brain-t1")


@pytest.fixture(scope="module")
def heads(data_root):
    """Validation subjects: scans, landmarks (RAS mm), boxes of the brain."""
    root = data_root / "ixi_brain_t1"
    with (root / "splits.csv").open() as file:
        names = [r["subject"] for r in csv.DictReader(file) if r["split"] == "val"][:SUBJECTS]
    truth = {name: {} for name in names}
    with (root / "landmarks.csv").open() as file:
        for row in csv.DictReader(file):
            if row["subject"] in truth:
                truth[row["subject"]][row["landmark"]] = [float(row[c]) for c in "xyz"]
    found = []
    for name in names:
        labels = read_labels(root / "labels" / f"{name}.nii.gz")
        regions = [int(value) for value in labels.unique() if value]
        scan = read(root / "t1" / f"{name}.nii.gz")
        found.append((scan, truth[name], box_of_mask(labels, regions)))
    return found


def errors(detection, truth):
    return np.array(
        [np.linalg.norm(lm.position_world - truth[lm.name]) for lm in detection.landmarks]
    )


def test_in_the_box_of_the_brain_they_are_found_as_in_the_head(detector, heads):
    for scan, truth, box in heads:
        found, whole = detector.detect(scan, box=box), detector.detect(scan)
        assert {lm.status for lm in found.landmarks} == {"found"}
        assert abs(errors(found, truth).mean() - errors(whole, truth).mean()) < 0.3
        assert (found.scan is scan, found.unfit, found.warnings) == (True, (), ())


def test_of_two_heads_the_one_in_the_box_is_meant(detector, heads):
    """Two heads side by side in one scan; agents start in the box of the one that is meant."""
    scan, truth, box = heads[0]
    both = torch.cat([scan.as_tensor(), scan.as_tensor()], dim=3)
    large = MetaTensor(both, affine=scan.affine)
    apart = scan.affine.numpy()[:3, 2] * scan.shape[3]
    for shift in (np.zeros(3), apart):
        found = detector.detect(large, box=box + shift)
        assert errors(found, {name: p + shift for name, p in truth.items()}).mean() < 1.5
        starts = np.array([path.positions_world[0] for path in found.trajectory.agents])
        assert (starts > box[0] + shift).all()
        assert (starts < box[1] + shift).all()


@pytest.mark.parametrize(("axis", "side"), [(0, 0), (1, 1), (2, 0)])
def test_outside_the_box_they_are_absent(detector, heads, axis, side):
    scan, truth, box = heads[1]
    half = box.copy()
    half[side, axis] = box[:, axis].mean()
    found = detector.detect(scan, box=half)
    for lm in found.landmarks:
        depth = np.minimum(truth[lm.name] - half[0], half[1] - truth[lm.name]).min()
        if abs(depth) > 4:
            assert (lm.status != "absent") == (depth > 0), lm
        if lm.status != "absent":
            assert (lm.position_world >= half[0]).all()
            assert (lm.position_world <= half[1]).all()
        else:
            assert lm.confidence == 0
    assert any(line.startswith("not in the box: ") for line in found.warnings)


def test_each_of_many_has_its_box(detector, heads):
    scans, boxes = [scan for scan, _, _ in heads], [heads[0][2], None]
    many = detector.detect_many(scans, boxes=boxes)
    for one, scan, box in zip(many, scans, boxes, strict=True):
        alone = detector.detect(scan, box=box)
        for a, b in zip(one.landmarks, alone.landmarks, strict=True):
            np.testing.assert_allclose(a.position_world, b.position_world, atol=1e-3)
    far = heads[0][2] + 1000
    refused, fine = detector.detect_many(scans, boxes=[far, None])
    assert isinstance(refused, MedrlError)
    assert fine.landmarks
    with pytest.raises(MedrlError, match="outside the scan, which covers"):
        detector.detect(scans[0], box=far)
    with pytest.raises(MedrlError, match="inverted or flat"):
        detector.detect(scans[0], box=heads[0][2][::-1])
    with pytest.raises(MedrlError, match="a box, or None, a scan: 1 for 2"):
        detector.detect_many(scans, boxes=[None])
