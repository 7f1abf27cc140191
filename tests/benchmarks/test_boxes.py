"""Scans for measuring boxes: everything keeps its place in the world but for the known shift."""

import localization_accuracy
import numpy as np
import pytest
import torch
from evaluation.boxes import halved, shifted_and_cropped
from evaluation.images import LabelledImage, half
from monai.data.meta_tensor import MetaTensor

from medrl.evaluation import measure
from medrl.localization.answer import Box
from medrl.localization.evaluate import AGENTS, METRICS, Labelled
from medrl.volume.itk import from_sitk, to_sitk
from medrl.volume.space import as_affine, inside, voxel_to_world


def scan() -> MetaTensor:
    """Every voxel has a value of its own, from 1; an anisotropic grid in another order."""
    values = torch.arange(1.0, 1 + 20 * 24 * 30).reshape(1, 20, 24, 30)
    affine = np.array([[0, 0, -2.0, 5], [1.5, 0, 0, -7], [0, 3.0, 0, 11], [0, 0, 0, 1]])
    return MetaTensor(values, affine=torch.from_numpy(affine))


def places(of: MetaTensor, floor: float) -> dict[float, np.ndarray]:
    """World positions by value, of voxels above a floor."""
    array = of.as_tensor()[0].numpy()
    index = np.argwhere(array > floor)
    world = voxel_to_world(index, as_affine(of.affine))
    return dict(zip(array[array > floor].tolist(), world, strict=True))


@pytest.mark.parametrize("seed", range(5))
def test_what_is_left_has_moved_by_the_shift(seed):
    whole = scan()
    cut, moved, (affine, shape) = shifted_and_cropped(whole, np.random.default_rng(seed))
    before, after = places(whole, 1), places(cut, 1)
    assert len(after) >= 0.5**3 * len(before)
    for value, place in after.items():
        np.testing.assert_allclose(place, before[value] + moved, atol=1e-6)
    # What is told to be scanned holds all that is not air, and nothing else.
    assert inside(np.array(list(after.values())), affine, shape).all()
    assert 0 <= np.prod(shape) - len(after) <= 1


@pytest.mark.parametrize("axis", range(3))
@pytest.mark.parametrize("keep_low", [True, False])
def test_halves_are_those_of_the_landmarks(axis, keep_low):
    ours = halved(scan(), np.random.default_rng(3), axis=axis, keep_low=keep_low)
    case = LabelledImage("a", "a", to_sitk(scan()), {})
    rng = np.random.default_rng(3)
    theirs = from_sitk(half(case, rng, axis=axis, keep_low=keep_low).image)
    torch.testing.assert_close(ours.as_tensor(), theirs.as_tensor())
    np.testing.assert_allclose(as_affine(ours.affine), as_affine(theirs.affine), atol=1e-6)


def test_what_was_cut_away_is_not_there_even_if_air_was_added_in_its_place():
    affine = torch.eye(4, dtype=torch.float64)
    boxes = {"seen": np.array([[1.0] * 3, [5.0] * 3]), "air": np.array([[10.0] * 3, [14.0] * 3])}
    content = (np.eye(4), (10, 10, 10))
    scan = MetaTensor(torch.zeros(1, 20, 20, 20), affine=affine)
    assert set(Labelled("a", scan, boxes).present) == {"seen", "air"}
    assert set(Labelled("a", scan, boxes, content=content).present) == {"seen"}


def test_figures_by_size():
    affine = torch.eye(4, dtype=torch.float64)
    boxes = {"big": np.array([[0.0] * 3, [10.0] * 3]), "small": np.array([[12.0] * 3, [16.0] * 3])}
    labelled = Labelled("a", MetaTensor(torch.zeros(1, 20, 20, 20), affine=affine), boxes, "a")
    off = {"big": np.zeros(3), "small": np.array([2.0, 0, 0])}
    answer = {name: Box(name, boxes[name] + off[name], "found", 0.9) for name in boxes}
    measured = measure(
        [labelled], {AGENTS: lambda _: answer}, METRICS, groups=lambda one: [*one.present]
    )
    found = localization_accuracy.by_size(measured, {"big"})
    assert found["20 ml and more"]["iou"]["mean"] == pytest.approx(1)
    assert found["smaller"]["iou"]["mean"] == pytest.approx(2 / 6)
    assert found["smaller"]["presence"]["true_positive"] == 1


def test_large_structures_of_a_head(data_root, monkeypatch):
    monkeypatch.setenv("MEDRL_DATA", str(data_root.resolve()))
    training = localization_accuracy.samples("ixi_brain_t1", "training")[:2]
    found = localization_accuracy.large(training)
    assert {"Brain", "BrainStem"} >= found >= {"Brain"}
    assert localization_accuracy._number(training[0]) == 13
