"""Skull-stripped copies: what they keep, what they drop, and who gets one."""

import json

import nibabel as nib
import numpy as np
from scipy.ndimage import label

from medrl_datasets.export import export
from medrl_datasets.skull_strip import brain_mask


def test_the_mask_is_the_region_map_without_holes():
    labels = np.zeros((30, 30, 30), dtype=np.int32)
    labels[8:22, 8:22, 8:22] = 5
    labels[14, 14, 14] = 0
    expected = np.zeros_like(labels, dtype=bool)
    expected[8:22, 8:22, 8:22] = True
    np.testing.assert_array_equal(brain_mask(labels, grow=0), expected)
    assert brain_mask(labels, grow=1).sum() == 14**3 + 6 * 14**2


def test_every_second_head_gets_a_copy_that_shows_only_the_brain(data_root, tmp_path):
    path = export("ixi_brain_t1", data_root / "ixi_brain_t1", tmp_path, brains=True)
    content = json.loads(path.read_text())
    assert [len(content[s]) for s in ("training", "validation", "test")] == [135, 15, 20]
    whole = {case["subject"]: case for case in content["training"][:90]}
    copy = content["training"][-1]
    original = whole[copy["subject"]]
    assert copy["landmarks"] == original["landmarks"]
    brain = nib.load(tmp_path / copy["image"])
    head = nib.load(tmp_path / original["image"])
    np.testing.assert_allclose(brain.affine, head.affine)
    kept = brain.get_fdata() > 0
    np.testing.assert_allclose(brain.get_fdata()[kept], head.get_fdata()[kept], atol=1.0)
    regions = nib.load(tmp_path / original["label"]).get_fdata() > 0
    assert kept[regions & (head.get_fdata() > 1)].all()
    assert kept.mean() < 0.3
    parts, _ = label(kept)
    assert (parts == np.argmax(np.bincount(parts.ravel())[1:]) + 1).sum() > 0.99 * kept.sum()
