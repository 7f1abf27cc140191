"""Whole searches with networks that know the truth, in scans whose voxels spell their place."""

import numpy as np
import pytest
import torch
from torch import nn

from medrl.landmark.dynamics import CAPPED, LEFT, LOOPED, SearchDynamics
from medrl.landmark.network import Prediction
from medrl.landmark.rewards import optimal_values
from medrl.landmark.search import SearchPolicy, search
from medrl.volume.pyramid import Pyramid

STRIDES = (1, 2, 4)
WINDOW = 5
POINTS = torch.tensor([[13.3, 22.7, 31.2], [40.5, 8.1, 5.9], [25.0, 25.0, 25.0]])


def spelling_pyramid(shape):
    """Every voxel of level 0 holds its own index; coarser levels are strided copies."""
    i, j, k = torch.meshgrid(*[torch.arange(n) for n in shape], indexing="ij")
    fine = (i + 200 * j + 40000 * k).float()[None]
    levels = tuple(fine[:, ::s, ::s, ::s].contiguous() for s in STRIDES)
    affines = tuple(np.diag([2.0 * s, 2.0 * s, 2.0 * s, 1.0]) for s in STRIDES)
    return Pyramid(levels, (2.0, 4.0, 8.0), affines, background=-1.0)


class Oracle(nn.Module):
    """Reads its place off the window's centre and answers in closed form."""

    def __init__(self, points, stride, blur=0.0):
        super().__init__()
        self.points = nn.Parameter(points.float())  # (K, 3)
        self.stride = stride
        self.blur = blur
        self.windows = 0

    def forward(self, windows):
        self.windows += len(windows)
        code = windows[:, 0, WINDOW // 2, WINDOW // 2, WINDOW // 2].round().long()
        place = torch.stack([code % 200, code // 200 % 200, code // 40000], dim=1)
        place[code < 0] = -100
        offset = (self.points - place[:, None]) / self.stride
        noise = self.blur * torch.sin(place.sum(dim=1) * 12.9)[:, None, None]
        return Prediction(
            optimal_values(offset, gamma=0.3), offset + noise, torch.zeros(offset.shape[:2])
        )


def oracles(points=POINTS, **options):
    return [Oracle(points, stride, **options) for stride in STRIDES]


def run(networks, scans, scan, landmark, start, *, max_steps=48, **options):
    """Result of a whole search, and how many windows it took."""
    dynamics = SearchDynamics(scans, landmarks=3, window=WINDOW, max_steps=max_steps)
    policy = SearchPolicy(networks)
    state = dynamics.reset(torch.tensor(scan), torch.tensor(landmark), torch.as_tensor(start))
    return search(dynamics, policy, state, **options), int(policy.windows.sum())


@pytest.mark.parametrize("start", [[24, 24, 24], [0, 0, 0], [44, 48, 40]])
def test_every_agent_ends_at_its_landmark_with_a_sub_voxel_answer(start):
    scans = [spelling_pyramid((48, 50, 44))]
    result, _ = run(oracles(), scans, [0, 0, 0], [0, 1, 2], [start] * 3)
    assert (result.state.status == LOOPED).all()
    assert (result.state.level == 0).all()
    torch.testing.assert_close(result.answer.position, POINTS.double(), atol=1e-4, rtol=0)


def test_a_batch_over_scans_of_different_shapes_equals_single_runs():
    scans = [spelling_pyramid((48, 50, 44)), spelling_pyramid((60, 33, 40))]
    scan, landmark = [0, 0, 0, 1, 1, 1], [0, 1, 2, 0, 1, 2]
    start = [[24, 24, 24]] * 3 + [[3, 30, 1]] * 3
    steps = []
    many, _ = run(oracles(), scans, scan, landmark, start, on_step=steps.append)
    for n in range(6):
        own = []
        alone, _ = run(
            oracles(), [scans[scan[n]]], [0], [landmark[n]], [start[n]], on_step=own.append
        )
        torch.testing.assert_close(alone.answer.position[0], many.answer.position[n])
        path = torch.cat([step.before.position[step.rows == n] for step in steps])
        torch.testing.assert_close(path, torch.cat([step.before.position for step in own]))


def test_agents_in_the_same_place_share_one_window():
    networks, scans = oracles(POINTS[:1].expand(3, 3)), [spelling_pyramid((48, 50, 44))]
    _, windows = run(networks, scans, [0, 0, 0], [0, 1, 2], [[24, 24, 24]] * 3)
    assert sum(network.windows for network in networks) == windows
    _, alone = run(networks, scans, [0], [0], [[24, 24, 24]])
    assert windows == alone


def test_the_spread_tells_noisy_estimates_from_clear_ones():
    spreads = []
    for blur in (0.0, 0.5):
        scans = [spelling_pyramid((48, 50, 44))]
        result, _ = run(oracles(blur=blur), scans, [0] * 3, [0, 1, 2], [[24, 24, 24]] * 3)
        spreads.append(float(result.answer.spread.mean()))
    assert spreads[0] < 1e-4
    assert spreads[1] > 0.2


class Wanderer(nn.Module):
    """Always goes the same way."""

    def __init__(self, action):
        super().__init__()
        self.action = nn.Parameter(torch.tensor(float(action)))

    def forward(self, windows):
        values = torch.zeros(len(windows), 1, 6)
        values[:, :, int(self.action)] = 1.0
        return Prediction(values, torch.zeros(len(windows), 1, 3), torch.zeros(len(windows), 1))


@pytest.mark.parametrize(("max_steps", "expected"), [(48, LEFT), (3, CAPPED)])
def test_agents_that_never_settle_are_stopped(max_steps, expected):
    scans = [spelling_pyramid((48, 50, 44))]
    networks = [Wanderer(1) for _ in STRIDES]
    result, _ = run(networks, scans, [0], [0], [[24, 24, 24]], max_steps=max_steps)
    assert result.state.status[0] == expected
    assert result.state.level[0] == (2 if expected == LEFT else 0)


def test_progress_counts_up_to_all_agents():
    seen = []
    scans = [spelling_pyramid((48, 50, 44))]
    start = [[24, 24, 24]] * 3
    run(oracles(), scans, [0] * 3, [0, 1, 2], start, progress=lambda *event: seen.append(event))
    assert seen[-1] == (3, 3)
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)
