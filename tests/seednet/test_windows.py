"""Grids and windows: against NiBabel's and SimpleITK's idea of where a voxel is."""

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
import torch
from monai.data.meta_tensor import MetaTensor
from numpy.typing import NDArray

from medrl.errors import MedrlError
from medrl.seednet.windows import normalize, pasted, to_grid
from medrl.volume.channels import Channel, parse_channel

CT = Channel("CT", "hounsfield")
PET = Channel("PET", "suv")
MR = Channel("MR")


def oblique(spacing: tuple[float, float, float], *, flip: bool = True) -> NDArray[np.float64]:
    """An affine turned about all axes, with its first axis running to the left."""
    angles = np.radians([20.0, -15.0, 25.0])
    turn = np.eye(3)
    for axis, angle in enumerate(angles):
        a, b = (axis + 1) % 3, (axis + 2) % 3
        one = np.eye(3)
        one[[a, b], [a, b]] = np.cos(angle)
        one[a, b], one[b, a] = -np.sin(angle), np.sin(angle)
        turn = turn @ one
    affine = np.eye(4)
    affine[:3, :3] = turn @ np.diag(spacing) @ np.diag([-1.0 if flip else 1.0, 1, 1])
    affine[:3, 3] = (17.0, -40.0, 8.0)
    return affine


RAMP = np.array([1.5, -0.8, 0.6])


def ramp(shape: tuple[int, int, int], affine: NDArray[np.float64]) -> MetaTensor:
    """A scan whose intensity is a linear function of the world: interpolation makes no error."""
    places = np.stack(np.meshgrid(*[np.arange(n) for n in shape], indexing="ij"), -1)
    volume = nib.affines.apply_affine(affine, places) @ RAMP
    return MetaTensor(torch.from_numpy(volume[None]).float(), affine=torch.from_numpy(affine))


@pytest.mark.parametrize("spacing", [(1.5, 1.0, 3.0), (0.8, 0.8, 0.8)])
def test_windows_of_an_oblique_scan_know_where_they_are(
    spacing: tuple[float, float, float],
) -> None:
    affine = oblique(spacing)
    shape = (40, 44, 24) if spacing[2] > 1 else (60, 60, 60)
    grid = to_grid({"CT": ramp(shape, affine)}, (CT,), 1.0)
    middle = nib.affines.apply_affine(affine, (np.array(shape) - 1) / 2)
    voxel = grid.voxel_of(middle)
    window = grid.window((voxel - 7).tolist(), (voxel + 6).tolist())
    assert window.shape == (16, 16, 16)
    rng = np.random.default_rng(0)
    for place in rng.integers(1, 14, (40, 3)):
        world = nib.affines.apply_affine(window.affine, place)
        np.testing.assert_array_equal(grid.voxel_of(world), window.corner + place)
        i, j, k = (int(n) for n in place)
        if window.inside[i, j, k]:
            # What is seen there is what the scan has at that place in the world.
            found = float(window.image[0, i, j, k]) * 150 + 40
            assert found == pytest.approx(float(world @ RAMP), abs=0.02)


def test_the_grid_is_what_simpleitk_resamples() -> None:
    rng = np.random.default_rng(1)
    volume = rng.normal(size=(22, 26, 18)).astype(np.float32) * 100
    affine = oblique((2.0, 1.5, 2.5))
    scan = MetaTensor(torch.from_numpy(volume[None]), affine=torch.from_numpy(affine))
    grid = to_grid({"CT": scan}, (CT,), 1.0)

    lps = np.diag([-1.0, -1.0, 1.0])

    def place(image: sitk.Image, a: NDArray[np.float64]) -> sitk.Image:
        size = np.linalg.norm(a[:3, :3], axis=0)
        image.SetSpacing(size.tolist())
        image.SetOrigin((lps @ a[:3, 3]).tolist())
        image.SetDirection((lps @ a[:3, :3] / size).ravel().tolist())
        return image

    image = place(sitk.GetImageFromArray(volume.transpose(2, 1, 0)), affine)
    onto = place(sitk.Image(list(grid.shape), sitk.sitkFloat32), grid.affine)
    expected = sitk.GetArrayFromImage(
        sitk.Resample(image, onto, sitk.Transform(), sitk.sitkLinear, -9999.0)
    ).transpose(2, 1, 0)
    found = grid.volumes[0]
    assert found is not None
    both = expected > -9000
    assert both.mean() > 0.3
    # The grid's own border blends with the background; SimpleITK's does not.
    inner = torch.nn.functional.avg_pool3d(
        torch.from_numpy(both).float()[None, None], 5, 1, 2
    )[0, 0].numpy() > 0.999  # fmt: skip
    np.testing.assert_allclose(found.numpy()[inner], expected[inner], atol=0.05)


def test_a_window_is_cut_to_the_scan_and_padded_to_eights() -> None:
    volume = torch.arange(20.0 * 21 * 22).reshape(1, 20, 21, 22) / 30 - 150
    grid = to_grid({"CT": MetaTensor(volume, affine=torch.eye(4))}, (CT,), 1.0)
    window = grid.window((-5, 10, 3), (7, 40, 16))
    assert window.shape == (8, 16, 16)
    assert int(window.inside.sum()) == 7 * 11 * 13
    assert not window.image[0][~window.inside].any()
    # Voxel (0, 10, 3) of the scan is the first inside.
    low = window.inside.nonzero().amin(dim=0).tolist()
    np.testing.assert_allclose(nib.affines.apply_affine(window.affine, low), (0, 10, 3))
    expected = ((volume[0, :7, 10:21, 3:16] - 40) / 150).clamp(-2, 2)
    torch.testing.assert_close(window.image[0][window.inside], expected.flatten())
    np.testing.assert_array_equal(window.corner + low, (0, 10, 3))


def test_a_part_of_a_grid_is_pasted_where_it_belongs() -> None:
    rng = np.random.default_rng(2)
    whole = np.zeros((30, 30, 30))
    for _ in range(20):
        corners, sizes = rng.integers(0, 20, (2, 3)), rng.integers(1, 10, (2, 3))
        (a, b), (i, j) = [
            [tuple(map(slice, c, c + n)) for c, n in zip(corners, sizes, strict=True)],
            [torch.from_numpy(rng.random(n)) for n in sizes],
        ]
        whole[b], whole[a] = j.numpy(), i.numpy()
        found = pasted(i, corners[0], j, corners[1])
        np.testing.assert_array_equal(found.numpy(), whole[b])


def test_images_of_several_modalities_meet_in_the_world() -> None:
    ct = ramp((30, 30, 30), np.diag([2.0, 2, 2, 1]))
    pet = ramp((20, 18, 16), np.diag([3.0, 3, 4, 1]))
    pet = MetaTensor(pet.as_tensor() / 20 + 4, affine=pet.affine)
    grid = to_grid({"CT": ct, "PET": pet}, (PET, CT), 2.0)
    assert grid.shape == (30, 30, 30)
    window = grid.window((4, 4, 4), (20, 20, 20))
    suv = torch.expm1(window.image[0] + 0.5)
    hounsfield = window.image[1] * 150 + 40
    torch.testing.assert_close(suv, hounsfield / 20 + 4, atol=1e-3, rtol=0)

    alone = to_grid({"CT": ct}, (PET, CT), 2.0).window((4, 4, 4), (20, 20, 20))
    assert not alone.image[0].any()
    torch.testing.assert_close(alone.image[1], window.image[1])


def test_relative_intensities_do_not_depend_on_the_scanner() -> None:
    generator = torch.Generator().manual_seed(0)
    volume = torch.randn((20, 20, 20), generator=generator) * 30 + 300
    volume[:5] = 0
    out = normalize(volume, MR)
    torch.testing.assert_close(normalize(volume * 7.5 + 11, MR), out, atol=1e-4, rtol=0)
    tissue = out[5:]
    assert float(tissue.median()) == pytest.approx(0, abs=0.02)
    assert float(tissue.quantile(0.98) - tissue.quantile(0.02)) == pytest.approx(2, abs=0.05)
    # Any amount of padding changes nothing but itself.
    padded = torch.nn.functional.pad(volume, (9, 9, 9, 9, 9, 9))
    torch.testing.assert_close(normalize(padded, MR)[14:-9, 9:-9, 9:-9], tissue)


def test_units_are_kept() -> None:
    hounsfield = torch.tensor([[[-1000.0, -110.0, 40.0, 190.0, 2000.0]]])
    torch.testing.assert_close(normalize(hounsfield, CT), torch.tensor([[[-2.0, -1, 0, 1, 2]]]))
    suv = torch.tensor([[[-1.0, 0.0, 5.0, 100.0]]])
    expected = np.log1p([0, 0, 5, 50]) - 0.5
    np.testing.assert_allclose(normalize(suv, PET)[0, 0].numpy(), expected, rtol=1e-6)


def test_an_empty_window_is_refused() -> None:
    volume = torch.zeros(1, 30, 30, 30)
    volume[:, 20:] = torch.rand(1, 10, 30, 30)
    grid = to_grid({"MR": MetaTensor(volume, affine=torch.eye(4))}, (MR,), 1.0)
    with pytest.raises(MedrlError, match="nothing to see"):
        grid.window((0, 0, 0), (10, 10, 10))
    assert grid.window((15, 0, 0), (30, 10, 10)).image.any()


def test_images_that_a_model_cannot_look_at_are_refused() -> None:
    scan = ramp((10, 10, 10), np.eye(4))
    for images, words in (
        ({}, "nothing"),
        ({"US": scan}, "US"),
        ({"CT": MetaTensor(torch.zeros(2, 5, 5, 5), affine=torch.eye(4))}, "2 channels"),
    ):
        with pytest.raises(MedrlError, match=words):
            to_grid(images, (PET, CT), 1.0)


def test_channels_are_read_from_text() -> None:
    assert parse_channel("T1") == Channel("T1", "relative")
    assert parse_channel("PET:suv") == PET
    for text in ("", ":suv", "CT:bright"):
        with pytest.raises(MedrlError, match="INTENSITY"):
            parse_channel(text)
