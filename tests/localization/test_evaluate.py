"""Measures of boxes against cases worked by hand, and against errors known beforehand."""

from types import SimpleNamespace

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.data.meta_tensor import MetaTensor

from medrl.errors import MedrlError
from medrl.localization.answer import Box
from medrl.localization.baselines import BoxAtlas, ConstantBox
from medrl.localization.data import Sample
from medrl.localization.evaluate import (
    AGENTS,
    METRICS,
    Labelled,
    average_precision,
    evaluate,
)


def box(low, high) -> np.ndarray:
    return np.array([low, high], dtype=float)


def cube(x: float, side: float = 10.0) -> np.ndarray:
    """A cube with its low corner at (x, 0, 0)."""
    return box([x, 0, 0], [x + side, side, side])


def scan(affine=None, shape=(20, 20, 20)) -> MetaTensor:
    """Voxels of 2 mm, faces at -1 and 39 mm, if no affine is given."""
    matrix = np.diag([2.0, 2, 2, 1]) if affine is None else affine
    return MetaTensor(torch.zeros(1, *shape), affine=torch.from_numpy(np.asarray(matrix)))


def answer(**corners) -> dict[str, Box]:
    return {name: Box(name, own, "found", 0.7) for name, own in corners.items()}


def measured(metric: str, labelled: Labelled, answers) -> dict[str, float]:
    return METRICS[metric](labelled, answers)


# Truth: cubes at 0 and 100 in the first scan, at 0 in the second. In order of confidence: hit, the
# same object again, a miss, hit. Precision there is 1, 1/2, 1/3, 2/4 at recall 1/3, 1/3, 1/3, 2/3,
# so the area is 1/3 * 1 + 1/3 * 2/4 = 1/2 (all points interpolated).
FOUND = [
    [(0.9, cube(0)), (0.8, cube(1)), (0.7, cube(50))],
    [(0.6, cube(1))],
]
TRUTH = [[cube(0), cube(100)], [cube(0)]]


def test_average_precision_worked_by_hand():
    assert average_precision(FOUND, TRUTH, least_iou=0.5) == pytest.approx(1 / 2)


def test_average_precision_interpolates_over_a_dip():
    # Hit, miss, hit, hit of four objects: 1, 1/2, 2/3, 3/4, and the envelope is 1, 3/4, 3/4, 3/4.
    truth = [[cube(0), cube(100), cube(200), cube(300)]]
    found = [[(0.9, cube(0)), (0.8, cube(50)), (0.7, cube(100)), (0.6, cube(200))]]
    assert average_precision(found, truth, least_iou=0.5) == pytest.approx((1 + 0.75 + 0.75) / 4)


def test_average_precision_at_a_stricter_overlap():
    # A cube that is 1 of 10 mm off has IoU 9/11: no more a hit, so only the first one is left.
    assert average_precision(FOUND, TRUTH, least_iou=0.81) == pytest.approx(1 / 2)
    assert average_precision(FOUND, TRUTH, least_iou=0.82) == pytest.approx(1 / 3)


@pytest.mark.parametrize(
    ("found", "truth"), [([[]], [[cube(0)]]), ([[(0.9, cube(0))]], [[]]), ([], [])]
)
def test_average_precision_of_nothing(found, truth):
    assert average_precision(found, truth, least_iou=0.5) == 0


def test_truth_of_a_cut_box_is_what_is_in_view():
    labelled = Labelled("a", scan(), {"cut": box([30, 10, 10], [46, 20, 20])})
    np.testing.assert_allclose(labelled.present["cut"], box([30, 10, 10], [39, 20, 20]))


@pytest.mark.parametrize(("low", "there"), [(30.9, True), (31.1, False)])
def test_present_is_where_the_middle_is(low, there):
    # The middle of the whole box, 8 mm in, against the face at 39 mm.
    labelled = Labelled("a", scan(), {"x": box([low, 10, 10], [low + 16, 20, 20])})
    assert ("x" in labelled.present) == there


def test_middle_beside_a_scan_that_lies_askew_is_not_in_it():
    turned = np.eye(4)
    c = np.sqrt(0.5)
    turned[:2, :2] = [[c, -c], [c, c]]
    # A diamond about (0, 13.4): the corner (-12, 3) of the box around it is outside.
    corner = box([-13, 2, 8], [-11, 4, 12])
    middle = box([-1, 12, 8], [1, 14, 12])
    labelled = Labelled("a", scan(turned), {"corner": corner, "middle": middle})
    assert list(labelled.present) == ["middle"]


def test_figures_of_a_box_that_is_off():
    labelled = Labelled("a", scan(), {"x": cube(10)})
    found = answer(x=cube(12))
    assert measured("iou", labelled, found) == {"x": pytest.approx(8 / 12)}
    assert measured("wall_mm", labelled, found) == {"x": pytest.approx(2 * 2 / 6)}
    assert measured("center_mm", labelled, found) == {"x": pytest.approx(2)}
    assert measured("confidence", labelled, found) == {"x": pytest.approx(0.7)}


def test_answers_are_cut_to_the_view_as_the_truth_is():
    labelled = Labelled("a", scan(), {"x": box([30, 10, 10], [46, 20, 20])})
    found = answer(x=box([30, 10, 10], [60, 20, 20]))
    assert measured("iou", labelled, found) == {"x": pytest.approx(1)}
    assert measured("center_mm", labelled, found) == {"x": pytest.approx(0)}


def test_right_name_is_that_of_the_box_overlapped_most():
    labelled = Labelled("a", scan(), {"one": cube(0), "next": cube(10), "last": cube(25)})
    found = answer(one=cube(2), next=cube(3), last=cube(-40))
    assert measured("right_name", labelled, found) == {"one": 1, "next": 0, "last": 0}


def test_absent_and_left_out_are_misses():
    truth = {"gone": cube(0), "out": cube(10), "seen": cube(25)}
    labelled = Labelled("a", scan(), truth)
    found = {**answer(seen=cube(25)), "gone": Box("gone", cube(0), "absent", 0.0)}
    assert measured("said_present", labelled, found) == {"gone": 0, "out": 0, "seen": 1}
    assert measured("iou", labelled, found) == {"seen": pytest.approx(1)}


class FakeLocalizer:
    """Answers that are off by a known vector."""

    target_names = ("A", "B")

    def __init__(self, truth, offset):
        self.truth, self.offset = truth, np.asarray(offset, dtype=float)

    def localize(self, scan):
        return SimpleNamespace(
            boxes=tuple(Box(n, b + self.offset, "found", 0.9) for n, b in self.truth.items())
        )

    def find(self, scan):
        proposed = np.stack(list(self.truth.values()))
        there = np.array([True, False])
        return SimpleNamespace(names=tuple(self.truth), proposed_world=proposed, there=there)

    def looked_at(self, scan):
        return scan


@pytest.fixture
def samples(tmp_path) -> list[Sample]:
    affine = np.diag([2.0, 2, 2, 1])
    labels = np.zeros((20, 20, 20), np.uint8)
    labels[2:7, 3:8, 4:9], labels[12:17, 3:8, 4:9] = 1, 2
    made = []
    for name in ("s1", "s2"):
        files = tmp_path / f"{name}.nii.gz", tmp_path / f"{name}_mask.nii.gz"
        noise = np.random.default_rng(0).random(labels.shape, np.float32)
        for file, values in zip(files, (noise, labels), strict=True):
            nib.save(nib.Nifti1Image(values, affine), file)
        made.append(Sample(*files, {"A": (1,), "B": (2,)}))
    return made


TRUTH_OF_SAMPLES = {"A": box([3, 5, 7], [13, 15, 17]), "B": box([23, 5, 7], [33, 15, 17])}


def test_evaluate_counts_known_errors(samples):
    localizer = FakeLocalizer(TRUTH_OF_SAMPLES, [3, 0, 0])
    constant = ConstantBox(samples, localizer.target_names)
    found = evaluate(localizer, samples, baselines={constant.name: constant})
    methods = found.summary["methods"]
    assert methods[AGENTS]["iou"]["mean"] == pytest.approx(7 / 13)
    assert methods[AGENTS]["wall_mm"]["median"] == pytest.approx(1)
    assert methods[AGENTS]["right_name"] == 1
    assert methods["one shot"]["presence"]["false_negative"] == 2
    # Scans that are all alike: the mean box is the true one.
    assert methods[constant.name]["iou"]["mean"] == pytest.approx(1)
    assert {row["metric"] for row in found.files["rows.csv"]} >= {"iou", "center_mm", "confidence"}


def test_evaluate_says_when_no_scan_can_be_used(samples):
    broken = Sample(samples[0].image.with_name("none.nii.gz"), samples[0].mask, samples[0].targets)
    with pytest.raises(MedrlError, match="no scan could be used"):
        evaluate(FakeLocalizer(TRUTH_OF_SAMPLES, [0, 0, 0]), [broken])


def test_an_atlas_is_carried_to_a_scan_that_has_moved(tmp_path):
    affine = np.diag([2.0, 2, 2, 1])
    place = np.indices((40, 40, 40))
    head = sum((place[n] - 20.0) ** 2 / (16 - 2 * n) ** 2 for n in range(3)) < 1
    block = (slice(12, 20), slice(16, 26), slice(18, 25))
    values = (head * 1.0 + 0.1 * np.random.default_rng(0).random(head.shape)).astype(np.float32)
    values[block] = 2
    mask = np.zeros(head.shape, np.uint8)
    mask[block] = 1
    for file, what in (("a.nii.gz", values), ("a_mask.nii.gz", mask)):
        nib.save(nib.Nifti1Image(what, affine), tmp_path / file)
    sample = Sample(tmp_path / "a.nii.gz", tmp_path / "a_mask.nii.gz", {"A": (1,)})
    atlas = BoxAtlas([sample], ["A"], count=1, spacing=2.0)
    shift = np.array([11.0, -7, 5])
    moved = affine.copy()
    moved[:3, 3] += shift
    labelled = Labelled("a", scan(moved, head.shape), {"A": sample.boxes_world()["A"] + shift})
    labelled.scan.copy_(torch.from_numpy(values)[None])
    np.testing.assert_allclose(
        atlas(labelled)["A"].corners_world, labelled.boxes_world["A"], atol=1.0
    )
