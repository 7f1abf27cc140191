"""What tells a CT by its values, on real scans."""

import numpy as np
import pytest
import torch
from monai.data.meta_tensor import MetaTensor

from medrl.volume.read import read
from medrl.volume.validation import in_hounsfield


@pytest.mark.parametrize(
    "name",
    [
        "cranium_ct/cranium_ct.nii.gz",
        "ct_lung_pair/3DCT_lung_baseline.mha",
        "body_ct_mr/example_ct.nii.gz",
        "body_ct_vendors/neck_ct.nii.gz",
    ],
)
def test_a_ct_is_one(data_root, name):
    assert in_hounsfield(read(data_root / name))


@pytest.mark.parametrize("sigma", [0, 100, 250, 400])
def test_a_noisy_mr_is_none(data_root, sigma):
    scan = read(next((data_root / "ixi_brain_t1" / "t1").glob("*.nii.gz")))
    noise = np.random.default_rng(0).normal(0, sigma, scan.shape)
    noisy = scan.as_tensor() + torch.from_numpy(noise)
    assert not in_hounsfield(MetaTensor(noisy, affine=scan.affine))
