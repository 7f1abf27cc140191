"""A guard measures a scan and says what is unlike training, with what is measured and allowed."""

import json
import re
from dataclasses import asdict

import numpy as np
import pytest
import torch
from monai.data.meta_tensor import MetaTensor

from medrl.bundles import (
    Guard,
    Training,
    doubted,
    guard_of,
    load_weights,
    new_manifest,
    not_made_for,
    read_manifest,
    save,
    save_guard,
)
from medrl.errors import MedrlError
from medrl.volume.appearance import appearance


def ellipsoid(half_axes_mm, *, spacing=(2.0, 3.0, 2.5), room=1.25, gain=1.0, offset=0.0):
    """A scan of an ellipsoid that is bright inside, its middle in the middle of the grid."""
    spacing, half = np.array(spacing), np.array(half_axes_mm)
    shape = np.ceil(2 * room * half / spacing).astype(int)
    grid = np.stack(np.meshgrid(*[np.arange(n) - (n - 1) / 2 for n in shape], indexing="ij"), -1)
    radius = np.linalg.norm(grid * spacing / half, axis=-1)
    values = np.where(radius < 1, 400 + 300 * (1 - radius), 0) * gain + offset
    affine = torch.diag(torch.tensor([*spacing, 1.0], dtype=torch.float64))
    return MetaTensor(torch.from_numpy(values)[None].float(), affine=affine)


@pytest.fixture
def guard():
    heads = [ellipsoid((75 + n, 95 + 2 * n, 85)) for n in range(6)]
    return Guard((Training.fit([appearance(head) for head in heads]),))


@pytest.mark.parametrize("half_axes", [(75, 95, 85), (40, 42, 90)])
def test_lengths_are_those_of_the_object(half_axes):
    seen = appearance(ellipsoid(half_axes))
    assert seen.length_mm == pytest.approx(2 * max(half_axes), rel=0.06)
    assert not seen.cut
    assert seen.narrowest_mm == pytest.approx(2.5 * min(half_axes), rel=0.06)
    assert appearance(ellipsoid(half_axes, room=0.7)).cut


def test_the_unit_of_the_values_does_not_matter():
    one = appearance(ellipsoid((75, 95, 85)))
    other = appearance(ellipsoid((75, 95, 85), gain=17, offset=-40))
    np.testing.assert_allclose(one.contrast, other.contrast, atol=1e-3)
    assert one.length_mm == other.length_mm


def test_a_scan_like_those_of_training_gives_no_reason(guard):
    assert guard.reasons(ellipsoid((78, 99, 85))) == ()
    # Turned in the array, at another resolution, stored in other units.
    assert guard.reasons(ellipsoid((85, 78, 99), spacing=(1.5, 4, 1.5), gain=0.01)) == ()


def test_size_is_told_in_millimetres(guard):
    (small,) = guard.reasons(ellipsoid((7.5, 9.5, 8.5), spacing=(0.2, 0.3, 0.2)))[:1]
    assert small.startswith("size: the scan is 19 mm across; those it was trained on are at least ")
    (large,) = guard.reasons(ellipsoid((150, 190, 170), spacing=(4, 4, 4)))
    assert large.startswith("size: what the scan shows is ")
    measured, low, high = (float(n) for n in re.findall(r"[0-9]+", large))
    # A two-hundredth of the volume at either end does not count: 0.92 of an ellipsoid is left.
    expected = 0.92 * np.array([380, 190 / 1.4, 210 * 1.2])
    np.testing.assert_allclose([measured, low, high], expected, rtol=0.05)


def test_a_ct_is_not_what_a_model_of_mri_was_trained_on(guard):
    (line,) = guard.reasons(ellipsoid((75, 95, 85), gain=2, offset=-1000))
    assert line.startswith("modality: its values are in Hounsfield units, as of a CT; those it was")
    ct = appearance(ellipsoid((75, 95, 85), gain=2, offset=-1000))
    assert Training.fit([ct]).unit == "hounsfield"
    assert Guard((Training.fit([ct], unit="any"),)).reasons(ellipsoid((75, 95, 85))) == ()


def test_of_several_channels_the_best_fitting_counts_unless_one_is_named(guard):
    ct = ellipsoid((75, 95, 85), gain=2, offset=-1000)
    both = Guard((guard.scans[0], Training.fit([appearance(ct)], channel="CT")))
    assert both.reasons(ct) == ()
    assert len(both.reasons(ct, channel="")) == 1
    assert len(both.reasons(ellipsoid((75, 95, 85)), channel="CT")) == 1


def test_another_contrast_is_named_as_such(guard):
    assert guard.unfamiliar(ellipsoid((78, 99, 85)), 1.5).startswith("pose or anatomy: ")
    scan = ellipsoid((78, 99, 85))
    values = scan.as_tensor()
    dark = MetaTensor(torch.where(values > 0, 1100 - values, values), affine=scan.affine)
    assert guard.unfamiliar(dark, 1.5).startswith("contrast or anatomy: ")


def test_what_is_left_of_a_confidence_is_far_below_the_threshold():
    assert doubted(0.99) == pytest.approx(0.1)
    assert doubted(0.03) == 0.03
    assert doubted(0.99, threshold=0.2) == pytest.approx(0.04)
    line = not_made_for("brain-t1", ["size: a", "modality: b"])
    assert line == "brain-t1 was not made for this scan, do not rely on it: size: a; modality: b"


def test_a_guard_is_read_without_the_weights_and_replaced_without_changing_them(guard, tmp_path):
    manifest = new_manifest(name="tiny", task="landmark", settings={}, card={})
    weights = {"a": torch.randn(3000), "familiarity.old": torch.ones(2)}
    folder = save(tmp_path / "tiny", weights, manifest, licence="Free.\n", card="# Mine\n")
    assert guard_of(read_manifest(folder)) is None
    before = load_weights(folder)
    save_guard(folder, guard, {"familiarity.means": torch.ones(1, 2)})
    (folder / "model.safetensors").rename(tmp_path / "away")
    assert guard_of(read_manifest(folder)) == guard
    (tmp_path / "away").rename(folder / "model.safetensors")
    after = load_weights(folder)
    assert torch.equal(after["a"], before["a"])
    assert set(after) == {"a", "familiarity.means"}
    assert (folder / "README.md").read_text() == "# Mine\n"
    assert (folder / "LICENSE").read_text() == "Free.\n"


def test_a_damaged_guard_is_refused_in_one_line(guard):
    content = json.loads(json.dumps({"guard": asdict(guard)}))
    assert guard_of(content) == guard
    content["guard"]["scans"][0]["longest_mm"] = "long"
    with pytest.raises(MedrlError, match="damaged"):
        guard_of(content)
