"""Refinement of a start that is off by a known change."""

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from monai.data.meta_tensor import MetaTensor
from scipy import ndimage

from medrl.errors import MedrlError
from medrl.registration.refine import refine
from medrl.registration.transforms import about, compose
from medrl.volume.resample import resample_onto
from medrl.volume.space import apply_affine

SIDE = 48
AFFINE = np.array([[0, -2.0, 0, 40], [2.0, 0, 0, -50], [0, 0, 2.0, 7], [0, 0, 0, 1]])


def blob(seed: int = 0) -> MetaTensor:
    """Smooth structure inside an ellipsoid."""
    rng = np.random.default_rng(seed)
    texture = ndimage.gaussian_filter(rng.normal(size=(SIDE,) * 3), 3)
    grid = (np.indices((SIDE,) * 3) - SIDE / 2) / np.array([18, 15, 20])[:, None, None, None]
    inside = ndimage.gaussian_filter(((grid**2).sum(axis=0) < 1).astype(float), 1)
    volume = inside * (2 + texture / texture.std())
    return MetaTensor(torch.from_numpy(volume[None]).float(), affine=torch.from_numpy(AFFINE))


def change(*parameters: float) -> np.ndarray:
    """A transform about the middle of the scan."""
    middle = torch.from_numpy(apply_affine(AFFINE, (SIDE / 2,) * 3))
    full = torch.tensor([*parameters, *[0.0] * (12 - len(parameters))], dtype=torch.float64)
    return about(compose(full), middle).numpy()


def moved(scan: MetaTensor, truth: np.ndarray) -> MetaTensor:
    """The scan where the transform brings it, in another contrast."""
    other = MetaTensor(3 - scan.as_tensor(), affine=torch.from_numpy(truth @ AFFINE))
    return resample_onto(other, affine=AFFINE, shape=(SIDE,) * 3, background=3.0)


def error(found: np.ndarray, truth: np.ndarray) -> float:
    points = apply_affine(AFFINE, np.random.default_rng(1).uniform(10, SIDE - 10, (50, 3)))
    apart = apply_affine(found, points) - apply_affine(truth, points)
    return float(np.linalg.norm(apart, axis=1).mean())


@pytest.mark.parametrize(
    ("kind", "extra"),
    [("rigid", ()), ("similarity", (5.0, 5.0, 5.0)), ("affine", (6.0, -4.0, 2.0, 3.0, 0.0, -3.0))],
)
def test_a_near_start_becomes_right_in_another_contrast(kind: str, extra: tuple) -> None:
    fixed = blob()
    truth = change(5.0, -3.0, 4.0, 12.0, -8.0, 20.0, *extra)
    start = truth @ change(2.0, 1.0, -2.0, 3.0, -3.0, 2.0)
    found = refine(fixed, moved(fixed, truth), start, kind=kind)
    assert error(start, truth) > 2
    assert error(found, truth) < 0.4


def test_the_answer_is_the_same_every_time() -> None:
    fixed = blob()
    moving = moved(fixed, change(2.0, 0, 0, 4.0))
    first, second = (refine(fixed, moving, np.eye(4)) for _ in range(2))
    assert np.array_equal(first, second)


def test_masks_keep_a_bright_intruder_out() -> None:
    fixed, truth = blob(), change(2.0, 1.0, 0.0, 3.0)
    moving = moved(fixed, truth)
    spoilt = fixed.clone()
    spoilt[:, :20] = blob(5)[:, :20] * 4
    mask = MetaTensor(torch.ones(fixed.shape), affine=torch.from_numpy(AFFINE))
    mask[:, :22] = 0
    without = refine(spoilt, moving, np.eye(4))
    found = refine(spoilt, moving, np.eye(4), fixed_mask=mask)
    assert error(found, truth) < min(0.5, error(without, truth))


def test_scans_that_do_not_meet_are_one_clear_line() -> None:
    fixed = blob()
    with pytest.raises(MedrlError, match="overlap"):
        refine(fixed, fixed, change(500.0))


def test_the_number_of_threads_is_left_as_it_was() -> None:
    before = sitk.ProcessObject.GetGlobalDefaultNumberOfThreads()
    refine(blob(), blob(), np.eye(4))
    assert sitk.ProcessObject.GetGlobalDefaultNumberOfThreads() == before
