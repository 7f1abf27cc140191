"""Looking through transforms, against SimpleITK, and steps, against matrix products."""

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from numpy.typing import NDArray
from scipy import ndimage
from scipy.spatial.transform import Rotation

from medrl.registration.dynamics import (
    UNSEEN,
    FieldOfView,
    RegistrationDynamics,
    Rules,
    View,
    windows_of,
)
from medrl.registration.transforms import compose, decompose
from medrl.volume.pyramid import Pyramid

SIZE, SIDE = 6.0, 11
LPS = np.diag([-1.0, -1.0, 1.0, 1.0])
RNG = np.random.default_rng(0)

Matrix = NDArray[np.float64]


def oblique(
    shape: tuple[int, int, int], center: list[float], *, left_handed: bool = False
) -> Matrix:
    """Voxels to world (RAS mm): turned, flipped, 3 x 5 x 4 mm, with its middle somewhere."""
    affine = np.eye(4)
    turn = Rotation.from_rotvec([25, -40, 70], degrees=True).as_matrix()
    affine[:3, :3] = turn @ np.diag([-3.0 if left_handed else 3.0, 5.0, 4.0])
    affine[:3, 3] = center - affine[:3, :3] @ (np.array(shape) - 1) / 2
    return affine


def smooth(shape: tuple[int, int, int], seed: int = 0) -> NDArray[np.float32]:
    noise = np.random.default_rng(seed).normal(size=shape)
    volume = ndimage.gaussian_filter(noise, 1.0)
    return ((volume - volume.min()) / np.ptp(volume)).astype(np.float32)


def pyramid(volume: NDArray[np.float32], affine: Matrix) -> Pyramid:
    return Pyramid((torch.from_numpy(volume)[None],), (SIZE,), (affine,), UNSEEN)


def transforms(count: int, *, shift: float = 30.0, turn: float = 90.0) -> torch.Tensor:
    """Affine transforms of all sorts."""
    drawn = RNG.uniform(-1, 1, (count, 12)) * ([shift] * 3 + [turn] * 3 + [15] * 6)
    return compose(torch.from_numpy(drawn))


def by_simpleitk(
    volume: NDArray[np.float32], affine: Matrix, transform: Matrix, pivot: NDArray[np.float64]
) -> NDArray[np.float32]:
    """The volume seen through a transform on the window's grid; RAS in, LPS inside."""

    def place(image: sitk.Image, to_world: Matrix) -> None:
        lps = LPS @ to_world
        spacing = np.linalg.norm(lps[:3, :3], axis=0)
        image.SetSpacing(spacing.tolist())
        image.SetDirection((lps[:3, :3] / spacing).ravel().tolist())
        image.SetOrigin(lps[:3, 3].tolist())

    image = sitk.GetImageFromArray(volume.transpose(2, 1, 0))
    place(image, affine)
    side = SIDE
    grid = np.diag([SIZE] * 3 + [1.0])
    grid[:3, 3] = pivot - SIZE * (side // 2)
    reference = sitk.Image([side] * 3, sitk.sitkFloat32)
    place(reference, grid)
    lps = LPS @ transform @ LPS
    mapping = sitk.AffineTransform(lps[:3, :3].ravel().tolist(), lps[:3, 3].tolist())
    seen = sitk.Resample(image, reference, mapping, sitk.sitkLinear, UNSEEN, sitk.sitkFloat32)
    return sitk.GetArrayFromImage(seen).transpose(2, 1, 0)


def assert_seen(found: torch.Tensor, expected: NDArray[np.float32]) -> None:
    """The same, but for voxels that rounding puts on the other side of the border."""
    apart = np.abs(found.numpy() - expected) > 1e-4
    assert apart.mean() < 0.005
    assert 0.1 < (expected >= 0).mean() < 1 or (expected >= 0).all()


@pytest.mark.parametrize("left_handed", [False, True])
def test_agents_see_what_simpleitk_resamples(left_handed: bool) -> None:
    fixed_shape, moving_shape = (20, 14, 17), (18, 16, 13)
    pivot = np.array([15.0, -42.0, 108.0])
    # Moving scans lie about where the transforms put the pivot.
    looking = transforms(6)
    fixed, moving = smooth(fixed_shape), smooth(moving_shape, seed=1)
    fixed_affine = oblique(fixed_shape, np.array([12.0, -40.0, 100.0]), left_handed=left_handed)
    for n in range(6):
        matrix = looking[n].numpy()
        center = (matrix @ [*pivot, 1])[:3] + np.array([4.0, 0.0, -5.0])
        moving_affine = oblique(moving_shape, center, left_handed=not left_handed)
        to_fixed, to_moving = (
            torch.from_numpy(np.linalg.inv(affine))[None]
            for affine in (fixed_affine, moving_affine)
        )
        where = torch.from_numpy(pivot)[None]
        window = windows_of((pyramid(fixed, fixed_affine),), to_fixed, where, SIZE, SIDE)
        view = View(SIZE, window, (pyramid(moving, moving_affine),), to_moving)
        dynamics = RegistrationDynamics([view], where)
        seen = dynamics.look(0, torch.zeros(1, dtype=torch.int64), looking[n : n + 1])[0]
        expected = [
            by_simpleitk(fixed, fixed_affine, np.eye(4), pivot),
            by_simpleitk(moving, moving_affine, matrix, pivot),
        ]
        both = (expected[0] >= 0) & (expected[1] >= 0)
        for channel in range(2):
            assert_seen(seen[channel], expected[channel].clip(min=0))
        assert (seen[2].numpy() != both).mean() < 0.005
        assert 0.2 < both.mean() < 1


def scene(count: int = 4, *, kind: str = "rigid", **options: object) -> RegistrationDynamics:
    """Pairs with pivots and scans of their own."""
    shapes = [(20, 14, 17), (12, 18, 15)]
    scans = [pyramid(smooth(shape, seed), np.eye(4)) for seed, shape in enumerate(shapes)]
    to_voxel = np.linalg.inv([oblique(shapes[n % 2], np.zeros(3)) for n in range(count)])
    pivot = torch.from_numpy(np.random.default_rng(1).uniform(-15, 15, (count, 3)))
    window = torch.rand((count, 1, 11, 11, 11), generator=torch.Generator().manual_seed(0))
    which = torch.arange(count) % 2
    view = View(SIZE, window, scans, torch.from_numpy(to_voxel), scan=which, **options)
    return RegistrationDynamics([view], pivot, Rules(kind=kind))


EACH = torch.arange(4)


def test_a_batch_sees_what_each_agent_sees_alone() -> None:
    dynamics = scene()
    (view,) = dynamics.views
    looking = transforms(4, shift=10.0)
    together = dynamics.look(0, EACH, looking)
    for n in range(4):
        one = slice(n, n + 1)
        own = View(SIZE, view.fixed[one], [view.moving[n % 2]], view.to_voxel[one])
        single = RegistrationDynamics([own], dynamics.pivot[one])
        alone = single.look(0, EACH[:1], looking[one])[0]
        assert float(((together[n] - alone).abs() > 1e-5).float().mean()) < 0.005
        assert float(together[n, 1].std()) > 0.01


def test_out_of_view_is_dark_and_told() -> None:
    dynamics = scene()
    dynamics.views[0].fixed[:, :, :3] = UNSEEN
    away = torch.eye(4, dtype=torch.float64).repeat(4, 1, 1)
    away[1, :3, 3] = 1e4
    seen = dynamics.look(0, EACH, away)
    assert (seen[:, 0, :3] == 0).all()
    assert (seen[:, 2, :3] == 0).all()
    assert (seen[1, 1:] == 0).all()
    assert float(seen[0, 2, 3:].mean()) > 0.3
    assert float(seen.min()) >= 0


def test_a_smaller_field_of_view_hides_more() -> None:
    planes = torch.full((4, 1, 4), torch.inf, dtype=torch.float64)
    planes[:2] = torch.tensor([0.0, 0, 1, 6.0])
    fov = FieldOfView(planes, torch.tensor([False, True, False, True]))
    still = torch.eye(4, dtype=torch.float64).expand(4, 4, 4)
    whole, cut = (scene(fov=one).look_moving(0, EACH, still) for one in (None, fov))
    assert (cut[:2, ..., 7:] == UNSEEN).all()
    torch.testing.assert_close(cut[2], whole[2])
    # There is air beyond the borders of dark scans, but not beyond the cut.
    torch.testing.assert_close(cut[3], whole[3].clamp(min=0))


def test_steps_are_products_of_matrices() -> None:
    dynamics = scene(kind="affine")
    start, steps = transforms(4), torch.from_numpy(RNG.uniform(-25, 25, (4, 12)))
    found = dynamics.step(dynamics.reset(EACH, start), steps).transform.numpy()
    for n in range(4):
        row, pivot = steps[n].numpy(), dynamics.pivot[n].numpy()
        linear = np.diag(np.exp(row[6:9] / 100))
        linear[0, 1], linear[0, 2], linear[1, 2] = row[9:] / 100
        linear = Rotation.from_rotvec(row[3:6], degrees=True).as_matrix() @ linear
        step = np.eye(4)
        step[:3, :3] = linear
        step[:3, 3] = pivot + row[:3] - linear @ pivot
        np.testing.assert_allclose(found[n], start[n].numpy() @ step, atol=1e-9)


def test_other_steps_are_not_made() -> None:
    steps = torch.from_numpy(RNG.uniform(-25, 25, (4, 12)))
    begin = torch.eye(4, dtype=torch.float64).expand(4, 4, 4)
    made = {
        kind: decompose(scene(kind=kind).moved(EACH, begin, steps))
        for kind in ("rigid", "similarity")
    }
    for changed in made.values():
        torch.testing.assert_close(changed[:, 3:6], steps[:, 3:6])
        assert float(changed[:, 9:].abs().max()) < 1e-9
    assert float(made["rigid"][:, 6:].abs().max()) < 1e-9
    mean = steps[:, 6:9].mean(dim=1, keepdim=True).expand(4, 3)
    torch.testing.assert_close(made["similarity"][:, 6:9], mean)


def test_a_step_moves_what_is_seen() -> None:
    """A step of one voxel along x shows the moving scan one voxel further along x."""
    dynamics = scene()
    state = dynamics.reset(EACH, transforms(4, shift=5.0, turn=30.0))
    step = torch.zeros((4, 12), dtype=torch.float64)
    step[:, 0] = SIZE
    before, after = (
        dynamics.observe(one)["windows"][:, 1] for one in (state, dynamics.step(state, step))
    )
    assert float(((after[:, :-1] - before[:, 1:]).abs() > 1e-4).float().mean()) < 0.01
