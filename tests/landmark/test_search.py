"""Whole searches with networks that know the truth, in scans whose voxels spell their place."""

import numpy as np
import pytest
import torch
from torch import nn

from medrl.landmark.dynamics import CAPPED, LEFT, LOOPED
from medrl.landmark.network import Decision
from medrl.landmark.rewards import optimal_values
from medrl.landmark.search import Searcher
from medrl.volume.pyramid import Pyramid

STRIDES = (1, 2, 4)
WINDOW = 5


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
        return Decision(
            optimal_values(offset, gamma=0.3), offset + noise, torch.zeros(offset.shape[:2])
        )


def searcher(points, **options):
    networks = [Oracle(points, stride) for stride in STRIDES]
    return Searcher(networks, window=WINDOW, strides=STRIDES, **options), networks


POINTS = torch.tensor([[13.3, 22.7, 31.2], [40.5, 8.1, 5.9], [25.0, 25.0, 25.0]])


@pytest.mark.parametrize("start", [[24, 24, 24], [0, 0, 0], [44, 48, 40]])
def test_every_agent_ends_at_its_landmark_with_a_sub_voxel_answer(start):
    engine, _ = searcher(POINTS)
    result = engine.run(
        [spelling_pyramid((48, 50, 44))],
        scan=torch.zeros(3, dtype=torch.long),
        landmark=torch.arange(3),
        start=torch.tensor(start).expand(3, 3),
    )
    assert (result.status == LOOPED).all()
    assert (result.level == 0).all()
    torch.testing.assert_close(result.answer, POINTS.double(), atol=1e-4, rtol=0)


def test_a_batch_over_scans_of_different_shapes_equals_single_runs():
    scans = [spelling_pyramid((48, 50, 44)), spelling_pyramid((60, 33, 40))]
    engine, _ = searcher(POINTS)
    scan = torch.tensor([0, 0, 0, 1, 1, 1])
    landmark = torch.tensor([0, 1, 2, 0, 1, 2])
    start = torch.tensor([[24, 24, 24]] * 3 + [[3, 30, 1]] * 3)
    together = engine.run(scans, scan=scan, landmark=landmark, start=start)
    for n in range(6):
        alone = engine.run(
            [scans[scan[n]]],
            scan=torch.zeros(1, dtype=torch.long),
            landmark=landmark[n : n + 1],
            start=start[n : n + 1],
        )
        torch.testing.assert_close(alone.answer[0], together.answer[n])
        own = [r.position[r.agent == n] for r in together.records]
        path = torch.cat(own)
        torch.testing.assert_close(path, torch.cat([r.position for r in alone.records]))


def test_agents_in_the_same_place_share_one_window():
    engine, networks = searcher(POINTS[:1].expand(3, 3))
    options = {"start": torch.tensor([[24, 24, 24]] * 3), "scan": torch.zeros(3, dtype=torch.long)}
    pyramid = spelling_pyramid((48, 50, 44))
    result = engine.run([pyramid], landmark=torch.arange(3), **options)
    assert sum(n.windows for n in networks) == result.evaluated
    alone = engine.run(
        [pyramid],
        scan=torch.zeros(1, dtype=torch.long),
        landmark=torch.zeros(1, dtype=torch.long),
        start=options["start"][:1],
    )
    assert result.evaluated == alone.evaluated


def test_the_spread_tells_noisy_opinions_from_clear_ones():
    spreads = []
    for blur in (0.0, 0.5):
        networks = [Oracle(POINTS, stride, blur=blur) for stride in STRIDES]
        engine = Searcher(networks, window=WINDOW, strides=STRIDES)
        result = engine.run(
            [spelling_pyramid((48, 50, 44))],
            scan=torch.zeros(3, dtype=torch.long),
            landmark=torch.arange(3),
            start=torch.full((3, 3), 24),
        )
        spreads.append(float(result.spread.mean()))
    assert spreads[0] < 1e-4
    assert spreads[1] > 0.2


class Wanderer(nn.Module):
    """Always goes the same way, or round in a long circle."""

    def __init__(self, action):
        super().__init__()
        self.action = nn.Parameter(torch.tensor(float(action)))

    def forward(self, windows):
        values = torch.zeros(len(windows), 1, 6)
        values[:, :, int(self.action)] = 1.0
        return Decision(values, torch.zeros(len(windows), 1, 3), torch.zeros(len(windows), 1))


@pytest.mark.parametrize(("max_steps", "expected"), [(48, LEFT), (3, CAPPED)])
def test_agents_that_never_settle_are_stopped(max_steps, expected):
    engine = Searcher(
        [Wanderer(1) for _ in STRIDES], window=WINDOW, strides=STRIDES, max_steps=max_steps
    )
    result = engine.run(
        [spelling_pyramid((48, 50, 44))],
        scan=torch.zeros(1, dtype=torch.long),
        landmark=torch.zeros(1, dtype=torch.long),
        start=torch.full((1, 3), 24),
    )
    assert result.status[0] == expected
    assert result.level[0] == (2 if expected == LEFT else 0)


def test_progress_counts_up_to_all_agents():
    engine, _ = searcher(POINTS)
    seen = []
    engine.run(
        [spelling_pyramid((48, 50, 44))],
        scan=torch.zeros(3, dtype=torch.long),
        landmark=torch.arange(3),
        start=torch.full((3, 3), 24),
        progress=lambda done, total: seen.append((done, total)),
    )
    assert seen[-1] == (3, 3)
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)
