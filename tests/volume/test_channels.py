"""Several images of a patient as one scan: units, order, one grid."""

import math

import numpy as np
import pytest
import torch
from monai.data.meta_tensor import MetaTensor

from medrl.errors import MedrlError
from medrl.volume.channels import Channel, stacked
from medrl.volume.prepare import Preprocessing

PET, CT, MR = Channel("PET", "suv"), Channel("CT", "hounsfield"), Channel("MR")


def image(values: float | torch.Tensor, side: int = 12, spacing: float = 2.0) -> MetaTensor:
    affine = torch.diag(torch.tensor([spacing] * 3 + [1.0], dtype=torch.float64))
    volume = torch.full((1, side, side, side), values) if isinstance(values, float) else values
    return MetaTensor(volume, affine=affine)


def test_channels_lie_in_the_order_of_the_model_on_the_grid_of_the_first_image():
    # A coarse ramp along the first axis in world coordinates, on a grid of 4 mm.
    ramp = torch.arange(6.0)[:, None, None].expand(6, 6, 6)[None] * 4
    scan = stacked({"CT": image(7.0), "PET": image(ramp.clone(), spacing=4.0)}, [PET, CT], 2.0)
    assert scan.shape == (2, 12, 12, 12)
    assert (scan.as_tensor()[1] == 7).all()
    np.testing.assert_allclose(scan.as_tensor()[0, 1:9, 5, 5], 2.0 * np.arange(1, 9), atol=1e-4)


def test_a_missing_image_is_named():
    with pytest.raises(MedrlError, match="needs a CT image, too"):
        stacked({"PET": image(1.0)}, [PET, CT], 2.0)


def test_values_with_a_unit_do_not_depend_on_what_else_is_in_the_scan():
    chain = Preprocessing(channels=(PET, CT))
    pet = torch.zeros(12, 12, 12)
    pet[0, 0, 0], pet[1, 1, 1] = 50.0, math.e - 1
    ct = torch.full((12, 12, 12), -1000.0)
    ct[2, 2, 2], ct[3, 3, 3] = 40.0, 3000.0
    scan = image(torch.stack([pet, ct]))
    made = chain(scan).as_tensor()
    # The logarithm of uptake from 0 to 50, and -260 to 340 HU, both brought to 0 to 1.5.
    assert made[0, 1, 1, 1] == pytest.approx(1.5 / math.log(51), rel=1e-5)
    assert made[0, 0, 0, 0] == pytest.approx(1.5)
    assert made[1, 2, 2, 2] == pytest.approx(0.75)
    assert made[1, 3, 3, 3] == pytest.approx(1.5)
    assert made[1, 0, 0, 0] == 0


def test_a_channel_without_units_is_seen_as_alone():
    values = torch.rand(12, 12, 12, generator=torch.Generator().manual_seed(0))
    both = Preprocessing(channels=(MR, CT))(image(torch.stack([values, values * 1000])))
    alone = Preprocessing()(image(values[None]))
    torch.testing.assert_close(both.as_tensor()[0], alone.as_tensor()[0])
