"""The training points of `afids-t1`: how they are fused, and the table."""

import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import SimpleITK as sitk

from medrl_datasets import afids_templates, ixi_brain_t1
from medrl_datasets.afids_templates import HOLDOUT, LANDMARKS
from medrl_datasets.local import read_landmarks, read_table

RECIPE = Path(__file__).parents[2] / "recipes" / "afids-t1"


@pytest.fixture(scope="module")
def carry() -> ModuleType:
    spec = spec_from_file_location("carry", RECIPE / "carry.py")
    module = module_from_spec(spec)
    sys.modules["carry"] = module
    spec.loader.exec_module(module)
    return module


def test_templates_that_agree_are_averaged_by_weight(carry: ModuleType) -> None:
    candidates = np.zeros((3, 2, 1, 3))
    candidates[1, :, 0, 0] = 2
    candidates[2, :, 0, 0] = 40
    fused, spread, count = carry.fuse(candidates, np.array([1.0, 1.0, 0.5]))
    np.testing.assert_allclose(fused, [[1, 0, 0]])
    np.testing.assert_allclose(spread, [1])
    assert count.tolist() == [2]
    candidates[2, :, 0, 0] = 3.5
    fused, _, count = carry.fuse(candidates, np.array([1.0, 1.0, 0.5]))
    np.testing.assert_allclose(fused, [[3.75 / 2.5, 0, 0]])
    assert count.tolist() == [3]


def test_ways_that_lead_apart_count_for_nothing(carry: ModuleType) -> None:
    candidates = np.zeros((2, 2, 1, 3))
    candidates[:, 1, 0, 2] = 10
    fused, spread, count = carry.fuse(candidates, np.array([1.0, 0.3]))
    assert count.tolist() == [0]
    assert np.isnan(fused).all()
    assert np.isnan(spread).all()


def test_distance_to_a_surface_is_that_of_a_ball(carry: ModuleType) -> None:
    k, j, i = np.indices((40, 40, 40)) - 20
    ball = sitk.GetImageFromArray((7 * (i**2 + j**2 + k**2 <= 10**2)).astype(np.uint8))
    ball.SetSpacing([2.0] * 3)
    ball.SetOrigin([-40.0, -40.0, -40.0])
    ball.SetDirection([0, 1, 0, 0, 0, -1, -1, 0, 0])
    middle = np.array(ball.TransformIndexToPhysicalPoint((20, 20, 20))) * [-1, -1, 1]
    for radius in (0, 10, 30):
        distance = carry.surface_distance(ball, 7, middle + np.array([0, radius, 0]))
        np.testing.assert_allclose(distance, abs(radius - 20), atol=2)
    assert carry.surface_distance(ball, 3, middle) == np.inf


def test_points_are_carried_to_a_squeezed_brain(carry: ModuleType, data_root: Path) -> None:
    root = data_root / "afids_templates"
    fixed = carry.resample(sitk.ReadImage(str(root / "images" / f"{carry.BRAIN}.nii.gz")))
    fixed = sitk.Cast(sitk.Mask(fixed, fixed > 10), sitk.sitkFloat32)
    points = np.array(list(afids_templates.DATASET.landmarks(root)[carry.BRAIN].values()))
    middle, width = np.array([0.0, 20.0, 0.0]), 40.0

    def squeezed(places: np.ndarray) -> np.ndarray:  # LPS mm; where the voxel at a place came from
        offset = places - middle
        return places + 0.2 * offset * np.exp(-(offset**2).sum(-1, keepdims=True) / 2 / width**2)

    indices = np.indices(fixed.GetSize()[::-1])[::-1]
    places = np.moveaxis(indices, 0, -1) * carry.SPACING + np.array(fixed.GetOrigin())
    field = sitk.GetImageFromArray(squeezed(places) - places, isVector=True)
    field.CopyInformation(fixed)
    moving = sitk.Resample(fixed, sitk.DisplacementFieldTransform(field))
    transform = carry.register(fixed, moving, sitk.TranslationTransform(3))
    back = squeezed(carry.move(transform, points) * [-1, -1, 1]) * [-1, -1, 1]
    before = np.linalg.norm(squeezed(points * [-1, -1, 1]) * [-1, -1, 1] - points, axis=1)
    error = np.linalg.norm(back - points, axis=1)
    assert before.mean() > 3
    assert error.mean() < 0.6
    assert error.max() < 2


def test_the_table_names_heads_for_training_only(data_root: Path) -> None:
    splits = ixi_brain_t1.DATASET.splits(data_root / "ixi_brain_t1")
    subjects = set(read_landmarks(RECIPE / "points.csv"))
    assert not subjects & set(splits["holdout"])
    assert set(splits["val"]) <= subjects <= set(splits["train"]) | set(splits["val"])


def test_the_points_lie_as_anatomy_has_them(data_root: Path) -> None:
    regions = ixi_brain_t1.DATASET.landmarks(data_root / "ixi_brain_t1")
    for subject, points in read_landmarks(RECIPE / "points.csv").items():
        assert set(points) <= set(LANDMARKS)
        assert 20 < np.linalg.norm(points["AC"] - points["PC"]) < 34
        for name in points:
            if name.startswith("R ") and "L" + name[1:] in points:
                assert points[name][0] > points["L" + name[1:]][0], (subject, name)
        if "genu of CC" in points:
            genu = regions[subject]["CC_genu_anterior"]
            assert np.linalg.norm(points["genu of CC"] - genu) < 6, subject


def test_no_point_is_kept_that_templates_disagree_on() -> None:
    rows = read_table(RECIPE / "points.csv", ("subject", "landmark", "spread_mm", "templates"))
    assert all(float(row["spread_mm"]) <= 3 and int(row["templates"]) >= 2 for row in rows)


def test_the_holdout_template_is_not_carried(carry: ModuleType) -> None:
    assert not set(HOLDOUT) & set(carry.TEMPLATES)
