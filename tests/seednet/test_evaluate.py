"""Measuring seed models, against overlaps that are worked out apart."""

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from numpy.typing import NDArray

from medrl.seednet.clicked import click_into
from medrl.seednet.data import Sample
from medrl.seednet.evaluate import AGENT, evaluate, figures, tables
from medrl.seednet.segment import SeedSegmenter


@pytest.fixture
def sample(make_scan, tmp_path: Path) -> Sample:
    """A ball in an oblique, anisotropic scan, whose mask has the grid of the scan."""
    scan = make_scan("oblique")
    affine = np.asarray(scan.affine)
    grid = np.stack(np.meshgrid(*[np.arange(n) for n in scan.shape[1:]], indexing="ij"), -1)
    world = grid @ affine[:3, :3].T + affine[:3, 3]
    truth = np.linalg.norm(world - make_scan.center, axis=-1) <= make_scan.radius
    for name, volume in (("scan", scan[0].numpy()), ("mask", truth.astype(np.uint8))):
        nib.save(nib.Nifti1Image(volume, affine), tmp_path / f"{name}.nii.gz")
    return Sample({"CT": tmp_path / "scan.nii.gz"}, tmp_path / "mask.nii.gz")


def overlap(a: NDArray[np.bool_], b: NDArray[np.bool_]) -> float:
    return 2 * (a & b).sum() / (a.sum() + b.sum())


def test_everything_is_measured_on_the_scans_own_grid(model, sample: Sample) -> None:
    segmenter = SeedSegmenter(model)
    measured = evaluate(segmenter, [sample], clicks=2, targets=[0], repeats=2)
    assert measured.unique("case") == ("mask", "mask click 2")
    assert set(measured.subjects) == {"mask"}
    case = click_into(sample, segmenter, target=0, seed=0, channels=["CT"])
    assert case is not None
    truth = np.asarray(nib.load(sample.mask).dataobj) > 0
    np.testing.assert_array_equal(case.truth, truth)
    found = segmenter.segment(case.images, [case.click], target="ball")
    expected = overlap(found.mask[0].numpy() > 0, truth)
    one = measured.select(case="mask", metric="dice", method=AGENT).values
    assert one.tolist() == pytest.approx([expected])
    summary = figures(measured)["ball"]
    assert summary["cases"] == 2
    assert len(summary["dice_by_fixed_seeds"]) == model.settings.max_seeds + 1
    curves = summary["dice_by_corrections"]
    assert {len(curve) for curve in curves.values()} == {3}
    assert summary["one_click"][AGENT]["mean_dice"] > 0.8
    assert summary["one_click"]["one-click threshold"]["mean_dice"] < expected


def test_clicks_on_the_border_are_told_apart(model, sample: Sample) -> None:
    segmenter = SeedSegmenter(model)
    truth = np.pad(np.asarray(nib.load(sample.mask).dataobj) > 0, 1)
    for seed in range(5):
        case = click_into(sample, segmenter, target=0, seed=seed, channels=["CT"], border=True)
        assert case is not None
        world = case.click.position_world
        i, j, k = np.rint(nib.affines.apply_affine(np.linalg.inv(case.affine), world)).astype(int)
        around = truth[i : i + 3, j : j + 3, k : k + 3]
        assert around[1, 1, 1]
        assert not (around[:, 1, 1].all() and around[1, :, 1].all() and around[1, 1].all())
    measured = evaluate(segmenter, [sample], clicks=0, border_clicks=2, targets=[0])
    summary = figures(measured)["ball"]
    assert summary["cases"] == 1
    apart = summary["border_clicks"]
    assert apart["clicks"] == 2
    expected = []
    for seed in (0, 10_000_000):
        case = click_into(sample, segmenter, target=0, seed=seed, channels=["CT"], border=True)
        assert case is not None
        found = segmenter.segment(case.images, [case.click], target="ball").mask[0].numpy() > 0
        expected.append(overlap(found, case.truth))
    assert apart["one_click"][AGENT] == pytest.approx(
        {"mean_dice": np.mean(expected), "worst_dice": min(expected)}
    )
    shown = [table.title for table in tables(figures(measured))]
    assert "ball: Dice from one click on the border, 2 clicks" in shown


def test_what_lies_outside_the_window_counts(make_model, sample: Sample) -> None:
    # Neither window nor mask reaches as far as the ball does.
    segmenter = SeedSegmenter(make_model(half_width=3, max_seeds=1))
    case = click_into(sample, segmenter, target=0, seed=3, channels=["CT"])
    assert case is not None
    mask = segmenter.segment(case.images, [case.click], target="ball").mask[0].numpy() > 0
    missed = case.truth & ~mask
    assert missed.any()
    dice = evaluate(segmenter, [sample], clicks=0, targets=[0], seed=3).select(
        metric="dice", method=AGENT
    )
    assert dice.values.tolist() == pytest.approx([overlap(mask, case.truth)])


def test_objects_that_are_not_there_are_left_out(model, sample: Sample) -> None:
    segmenter = SeedSegmenter(model)
    nib.save(nib.Nifti1Image(np.zeros((34, 38, 30), np.uint8), np.eye(4)), sample.mask)
    assert click_into(sample, segmenter, target=0, seed=0, channels=["CT"]) is None
    assert not evaluate(segmenter, [sample], targets=[0]).rows
