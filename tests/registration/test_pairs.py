"""Training situations: what is looked at, what is left to be done, what is cut away."""

from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from monai.data.meta_tensor import MetaTensor
from scipy import ndimage
from torch import Generator
from torch.nn import functional as F

from medrl.registration.dynamics import UNSEEN, FieldOfView, RegistrationState, Rules
from medrl.registration.network import LevelSettings
from medrl.registration.pairs import PairSampler, PoseDistribution, halve
from medrl.registration.synthesis import Source, Synthesis, make_pair
from medrl.registration.task import AlignTask
from medrl.registration.transforms import compose
from medrl.volume.pyramid import build_pyramid
from medrl.volume.rotations import rotation_vector

LEVEL = LevelSettings(spacing=8.0, window=12)
SHAPE = (22, 26, 18)
PLAIN = Synthesis(difference=0.0, bias=0.0, noise=0.0, thickest=1.0, same=1.0)
UNCUT = PoseDistribution(cut=0.0, dark=1.0)


def dots() -> torch.Tensor:
    """Places in voxels, apart from each other and from the border."""
    found: list[np.ndarray] = []
    rng = np.random.default_rng(3)
    while len(found) < 8:
        place = rng.uniform(6, np.array(SHAPE) - 7)
        if all(np.linalg.norm(place - other) > 3.5 for other in found):
            found.append(place)
    return torch.from_numpy(np.stack(found)).float()


def source(*, spots: bool = False) -> Source:
    """A body of smooth texture, or one with a bright spot at each of its points."""
    fine = tuple(2 * n for n in SHAPE)
    grid = np.stack(np.meshgrid(*[np.arange(n) for n in fine], indexing="ij"), axis=-1)
    grid = (grid - 0.5) / 2  # voxels of the working grid
    points = dots()
    if spots:
        volume = np.full(fine, 0.1)
        for point in points.numpy():
            volume += 0.9 * np.exp(-((grid - point) ** 2).sum(axis=-1) / 2 / 1.2**2)
    else:
        noise = np.random.default_rng(0).normal(size=fine)
        smooth = ndimage.gaussian_filter(noise, 3.0)
        volume = 0.5 + 0.4 * smooth / np.abs(smooth).max()
    stored = torch.from_numpy((volume * 255 / 1.5).clip(0, 255).astype(np.uint8))[None]
    return Source(stored, torch.ones((1, *SHAPE)), points)


@dataclass(frozen=True)
class Agents:
    """Agents of a sampler, and what the truth says of them."""

    task: AlignTask
    state: RegistrationState

    @property
    def transforms(self) -> torch.Tensor:
        return self.state.transform

    def windows(self) -> torch.Tensor:
        return self.task.dynamics.observe(self.state)["windows"]

    def error(self) -> torch.Tensor:
        return self.task.distance(self.state)

    def wanted(self) -> torch.Tensor:
        return self.task.left(self.state)

    def at(self, transforms: torch.Tensor) -> "Agents":
        return Agents(self.task, replace(self.state, transform=transforms))

    def after(self, steps: torch.Tensor) -> "Agents":
        return Agents(self.task, self.task.dynamics.step(self.state, steps))

    def seen(self) -> torch.Tensor:
        """Where the moving scan is in view."""
        return self.task.dynamics.look_moving(0, self.state.pair, self.state.transform) >= 0


def sampler(
    synthesis: Synthesis = PLAIN,
    poses: PoseDistribution = UNCUT,
    *,
    seed: int = 0,
    working: float = 8.0,
) -> PairSampler:
    return PairSampler(
        [source()],
        LEVEL,
        working=working,
        synthesis=synthesis,
        poses=poses,
        size=3,
        generator=Generator().manual_seed(seed),
    )


def draw(
    synthesis: Synthesis = PLAIN,
    poses: PoseDistribution = UNCUT,
    *,
    count: int = 16,
    seed: int = 0,
    working: float = 8.0,
) -> Agents:
    pairs = sampler(synthesis, poses, seed=seed, working=working)
    env, task = pairs.begin(count, seed=seed, rules=Rules(kind="affine"))
    return Agents(task, env.state)


def home(agents: Agents) -> Agents:
    return agents.at(torch.eye(4, dtype=torch.float64).expand_as(agents.transforms))


def correlation(windows: torch.Tensor) -> torch.Tensor:
    """Of what the two scans show where both are in view, (N,)."""
    found = []
    for fixed, moving, seen in windows:
        inside = seen > 0
        found.append(torch.corrcoef(torch.stack([fixed[inside], moving[inside]]))[0, 1])
    return torch.stack(found)


# Agents ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("working", [8.0, 4.0])
def test_at_the_identity_both_windows_are_the_same(working: float) -> None:
    agents = draw(working=working)
    fixed, moving = home(agents).windows()[:, :2].unbind(dim=1)
    for one, other in zip(fixed, moving, strict=True):
        # But for how bright the scanner made them.
        factor = float((one * other).sum() / (one * one).sum())
        assert 0.7 < factor < 1.4
        torch.testing.assert_close(other, factor * one, atol=2e-3, rtol=0)
    assert float(fixed.std()) > 0.05
    away = agents.windows()
    assert float(correlation(home(agents).windows()).min()) > 0.999
    assert float(correlation(away).mean()) < 0.9


def test_without_same_contrasts_differ_but_the_place_stays() -> None:
    other = home(draw(replace(PLAIN, same=0.0), count=30)).windows()
    fixed, moving = other[:, 0], other[:, 1]
    factor = (fixed * moving).sum(dim=(1, 2, 3)) / fixed.square().sum(dim=(1, 2, 3))
    assert float((moving - factor[:, None, None, None] * fixed).abs().max()) > 0.1


def test_what_is_wanted_undoes_the_misalignment() -> None:
    agents = draw(poses=replace(UNCUT, resize=0.7, far=0.3), count=40)
    assert float(agents.error().mean()) > 20
    after = agents.after(agents.wanted())
    assert float(after.error().max()) < 1e-9
    np.testing.assert_allclose(after.transforms, home(agents).transforms, atol=1e-9)
    # Half of it is not enough.
    assert float(agents.after(agents.wanted() / 2).error().min()) > 0.1


def test_error_is_the_mean_distance_of_the_points() -> None:
    agents = draw(count=2)
    parameters = torch.zeros((2, 12), dtype=torch.float64)
    parameters[0, :3] = torch.tensor([3.0, -4.0, 12.0])
    parameters[1, 5] = 40.0
    moved = agents.at(compose(parameters))
    radius = agents.task.points_world[1, :, :2].norm(dim=1)
    expected = [13.0, float((2 * np.sin(np.radians(20)) * radius).mean())]
    assert moved.error().tolist() == pytest.approx(expected)


def test_misalignments_are_as_large_as_they_may_be() -> None:
    usual = PoseDistribution(turn=40.0, shift=30.0, near=0.0, far=0.0, resize=0.0)
    left = torch.linalg.inv(draw(poses=usual, count=400).transforms)
    angle = rotation_vector(left[:, :3, :3]).norm(dim=1)
    assert 36 < float(angle.max()) <= 40 + 1e-9
    shift = left[:, :3, 3]
    assert 27 < float(shift.abs().max()) <= 30 + 1e-9
    linear = left[:, :3, :3]
    torch.testing.assert_close(linear @ linear.mT, torch.eye(3).double().expand_as(linear))
    near = torch.linalg.inv(draw(poses=replace(usual, near=1.0), count=100).transforms)
    assert float(rotation_vector(near[:, :3, :3]).norm(dim=1).max()) <= 8 + 1e-9
    assert float(near[:, :3, 3].abs().max()) <= 6 + 1e-9
    far = torch.linalg.inv(draw(poses=replace(usual, far=1.0), count=100).transforms)
    assert float(rotation_vector(far[:, :3, :3]).norm(dim=1).max()) > 150
    resized = draw(poses=replace(usual, resize=1.0), count=100)
    size = torch.linalg.det(resized.transforms[:, :3, :3])
    assert float(size.std()) > 0.1


def test_the_points_lie_in_the_window() -> None:
    agents = draw(count=60)
    assert agents.task.points_world.shape == (60, 8, 3)
    middle = agents.task.points_world.mean(dim=1)
    assert float(middle.norm(dim=1).max()) < 60
    assert float(middle.std()) == pytest.approx(12, rel=0.3)


def test_same_seed_same_agents() -> None:
    one, other, third = draw(seed=1), draw(seed=1), draw(seed=2)
    assert (one.windows() == other.windows()).all()
    assert (one.task.points_world == other.task.points_world).all()
    assert not torch.equal(one.transforms, third.transforms)


def test_the_oldest_pairs_are_renewed() -> None:
    pairs = sampler()

    def looks(seed: int) -> torch.Tensor:
        env, _ = pairs.begin(12, seed=seed, rules=Rules())
        return env.dynamics.observe(env.state)["windows"]

    before = looks(1)
    assert torch.equal(looks(1), before)
    pairs.renew()
    same = [torch.equal(one, other) for one, other in zip(looks(1), before, strict=True)]
    # A third of the pairs is new.
    assert 3 <= sum(same) < 12
    pairs.renew(2)
    assert not any(torch.equal(*both) for both in zip(looks(1), before, strict=True))


def test_a_sampler_goes_on_from_a_few_numbers() -> None:
    one, other = sampler(seed=1), sampler(seed=2)
    one.renew(2)
    other.load_state_dict(one.state_dict())
    states = [pairs.begin(8, seed=3, rules=Rules())[0] for pairs in (one, other)]
    first, second = (env.dynamics.observe(env.state)["windows"] for env in states)
    assert torch.equal(first, second)
    assert len(str(one.state_dict())) < 500


# Pairs ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(6))
def test_points_follow_the_anatomy(seed: int) -> None:
    """The spots that points mark are where the points are said to be in the new anatomy."""
    g = Generator().manual_seed(seed)
    synthesis = replace(PLAIN, warp=6.0, zoom=0.1)
    fixed, moving, points = make_pair(source(spots=True), synthesis, 8.0, generator=g)
    inside = ((points > 1) & (points < torch.tensor(SHAPE) - 2)).all(dim=1)
    assert int(inside.sum()) >= 5
    for volume in (fixed[0].numpy(), moving[0].numpy()):
        at = ndimage.map_coordinates(volume, points[inside].T.numpy(), order=1)
        assert np.median(at) > 0.7 * volume.max()
        assert at.min() > 0.4 * volume.max()
        assert float(np.median(volume)) < 0.35 * volume.max()


def test_anatomy_is_new_and_differs_between_the_scans_if_it_should() -> None:
    def pair(synthesis: Synthesis) -> tuple[torch.Tensor, torch.Tensor]:
        g = Generator().manual_seed(0)
        fixed, moving, _ = make_pair(source(), synthesis, 8.0, generator=g)
        return fixed, moving * (fixed.mean() / moving.mean())

    fixed, moving = pair(PLAIN)
    torch.testing.assert_close(fixed, moving, atol=2e-3, rtol=0)
    original = F.avg_pool3d(source().volume.float(), 2)
    assert float(torch.corrcoef(torch.stack([fixed.flatten(), original.flatten()]))[0, 1]) < 0.9
    fixed, moving = pair(replace(PLAIN, difference=8.0))
    assert float((fixed - moving).abs().max()) > 0.05


def test_halving_is_what_pyramids_do() -> None:
    volume = torch.rand((1, 21, 18, 24), generator=Generator().manual_seed(0))
    scan = MetaTensor(volume, affine=torch.diag(torch.tensor([4.0, 4.0, 4.0, 1.0])).double())
    pyramid = build_pyramid(scan, spacings=(4.0, 8.0))
    # Its kernel is cut at two sigma, theirs at three.
    torch.testing.assert_close(halve(volume), pyramid.levels[1], atol=1e-5, rtol=0)


# Fields of view ---------------------------------------------------------------------------------


def test_faces_cut_what_lies_beyond_them() -> None:
    rng = np.random.default_rng(0)
    planes = rng.normal(size=(5, 2, 4))
    planes[..., :3] /= np.linalg.norm(planes[..., :3], axis=-1, keepdims=True)
    planes[..., 3] = rng.uniform(-5, 30, (5, 2))
    planes[1, 0, 3] = planes[2, :, 3] = np.inf
    transforms = compose(torch.from_numpy(rng.uniform(-15, 15, (5, 12))))
    view = FieldOfView(torch.from_numpy(planes), torch.zeros(5, dtype=torch.bool))
    windows = torch.rand((5, 1, 12, 12, 12), generator=Generator().manual_seed(0))
    cut = windows.clone()
    view.cut(cut, transforms, LEVEL.spacing)
    voxels = np.stack(np.meshgrid(*[np.arange(12)] * 3, indexing="ij"), axis=-1)
    offsets = (voxels - 6) * 8.0
    for n in range(5):
        matrix = transforms[n].numpy()
        world = offsets @ matrix[:3, :3].T + matrix[:3, 3]
        beyond = (world[..., None, :] * planes[n, :, :3]).sum(axis=-1) > planes[n, :, 3]
        expected = np.where(beyond.any(axis=-1), UNSEEN, windows[n, 0].numpy())
        assert (np.abs(cut[n, 0].numpy() - expected) > 1e-6).mean() < 0.002
        assert (n == 2) == (not beyond.any())


def test_dark_scans_have_air_beyond_their_border_but_not_beyond_their_faces() -> None:
    planes = torch.tensor([[[1.0, 0, 0, 8.0]], [[1.0, 0, 0, 8.0]]], dtype=torch.float64)
    windows = torch.full((2, 1, 12, 12, 12), 0.5)
    windows[:, :, 0] = UNSEEN
    still = torch.eye(4, dtype=torch.float64).expand(2, 4, 4)
    FieldOfView(planes, torch.tensor([True, False])).cut(windows, still, LEVEL.spacing)
    assert (windows[0, :, 0] == 0).all()
    assert (windows[1, :, 0] == UNSEEN).all()
    assert (windows[:, :, 8:] == UNSEEN).all()
    assert (windows[:, :, 1:8] == 0.5).all()


def test_cut_scans_are_seen_in_part() -> None:
    whole = home(draw(poses=replace(UNCUT, cut=0.0), count=40)).windows()[:, 2]
    cut = home(draw(poses=replace(UNCUT, cut=1.0), count=40)).windows()[:, 2]
    assert float(whole.mean()) == 1
    assert 0.3 < float(cut.mean()) < 0.95


def test_a_cut_of_the_moving_scan_moves_with_it() -> None:
    agents = draw(poses=PoseDistribution(cut=1.0, dark=1.0, far=0.0), count=20)
    shift = torch.zeros((20, 12), dtype=torch.float64)
    shift[:, 1] = LEVEL.spacing
    for one in (home(agents), agents):
        before, after = one.seen(), one.after(shift).seen()
        assert float((after[:, :, :, :-1] != before[:, :, :, 1:]).float().mean()) < 0.01
    assert float(agents.error().mean()) > 5
