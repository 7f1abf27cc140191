"""Which models a scan fits, told by guards that were fitted on other scans of its kind."""

import json
from dataclasses import asdict

import numpy as np
import pytest
import torch
from monai.data.meta_tensor import MetaTensor
from scipy.ndimage import gaussian_filter

from medrl.bundles import Guard, Training
from medrl.bundles.fit import fit_of
from medrl.volume.appearance import appearance


def ball(length_mm: float, seed: int = 0, *, bright: str = "inside") -> MetaTensor:
    """A ball with noise in air, bright inside or at its surface."""
    rng = np.random.default_rng(seed)
    side = 48
    grid = np.stack(np.meshgrid(*[np.linspace(-1.3, 1.3, side)] * 3, indexing="ij"))
    radius = np.sqrt((grid**2).sum(0))
    slope = rng.uniform(200, 500)
    value = 600 - slope * radius if bright == "inside" else 100 + 500 * radius**4
    volume = gaussian_filter(np.where(radius < 1, value, 0), 1) + rng.uniform(0, 20, radius.shape)
    spacing = length_mm * rng.uniform(0.97, 1.03) / (side / 1.3)
    affine = torch.diag(torch.tensor([spacing, spacing, spacing, 1.0], dtype=torch.float64))
    return MetaTensor(torch.from_numpy(volume.astype(np.float32))[None], affine=affine)


@pytest.fixture(scope="module")
def manifest():
    seen = [appearance(ball(180, seed)) for seed in range(16)]
    guard = Guard((Training.fit(seen),))
    content = {"name": "toy", "card": {"contrasts": ["T1w"]}, "guard": asdict(guard)}
    return json.loads(json.dumps(content))


def test_a_scan_like_those_of_training_fits(manifest):
    assert fit_of(manifest, ball(180, 20)).fits is True


def test_another_size_does_not_and_both_sizes_are_told(manifest):
    fit = fit_of(manifest, ball(22, 20))
    assert fit.fits is False
    assert any("22 mm" in reason or "28 mm" in reason for reason in fit.reasons)


def test_what_a_name_says_of_contrast_counts(manifest):
    scan = ball(180, 20)
    assert fit_of(manifest, scan, contrast="T1w").fits is True
    fit = fit_of(manifest, scan, contrast="FLAIR")
    assert (fit.fits, "FLAIR" in fit.reasons[0], "T1w" in fit.reasons[0]) == (False, True, True)


def test_what_a_header_says_of_modality_counts(manifest):
    known = {**manifest, "settings": {"modality": "MR"}}
    assert fit_of(known, ball(180, 20), modality="MR").fits is True
    fit = fit_of(known, ball(180, 20), modality="PT")
    assert (fit.fits, fit.reasons[0].startswith("modality: it is PT")) == (False, True)
    assert fit_of(manifest, ball(180, 20), modality="PT").fits is True


def test_another_brightness_leaves_it_open(manifest):
    fit = fit_of(manifest, ball(180, 20, bright="outside"))
    assert fit.fits is None
    assert "brightness" in fit.reasons[0]


def test_label_maps_and_frames_do_not_fit(manifest):
    scan = ball(180, 20)
    assert fit_of(manifest, scan, labels=True).fits is False
    frames = MetaTensor(torch.cat([scan.as_tensor()] * 3), affine=scan.affine)
    fit = fit_of(manifest, frames)
    assert (fit.fits, "3 channels" in fit.reasons[0]) == (False, True)


def test_without_a_guard_nobody_knows(manifest):
    fit = fit_of({**manifest, "guard": None}, ball(180, 20))
    assert fit.fits is None
    assert fit.reasons


def test_a_blank_scan_does_not_fit(manifest):
    blank = MetaTensor(torch.zeros(1, 40, 40, 40), affine=torch.diag(torch.tensor([5.0, 5, 5, 1])))
    assert fit_of(manifest, blank).fits is False


def test_the_channel_that_a_scan_may_be_is_named():
    ct, pet = (
        MetaTensor(ball(180, n).as_tensor() + add, affine=ball(180, n).affine)
        for n, add in ((1, -1000.0), (2, 0.0))
    )
    guard = Guard(
        (
            Training.fit([appearance(pet)], channel="PET", bounded=False),
            Training.fit([appearance(ct)], channel="CT", bounded=False),
        )
    )
    manifest = {"name": "toy", "card": {}, "guard": json.loads(json.dumps(asdict(guard)))}
    assert fit_of(manifest, ct).channels == ("CT",)
    assert fit_of(manifest, pet).channels == ("PET",)
