"""Cases as a user meets them: where clicks land, and how the score is kept."""

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Generator, Tensor

from medrl.agents import rollout
from medrl.seednet.data import LabelledGrid
from medrl.seednet.model import SeedModel, SeedPolicy
from medrl.seednet.oracle import VoxelSeed
from medrl.seednet.simulated_user import corrected, let_agent, starts
from medrl.seednet.windows import Grid
from medrl.volume.channels import Channel

MakeCases = Callable[..., list[LabelledGrid]]


def overlap(mask: Tensor, truth: Tensor) -> float:
    return float(2 * (mask & truth).sum() / (mask.sum() + truth.sum()))


def test_a_start_is_a_click_inside_its_target(make_cases: MakeCases) -> None:
    cases = make_cases(4, noise=0.0)
    every = starts(cases, half_width=9, seed=0)
    assert [(one.name, one.target) for one in every] == [
        (f"blob{n}", target) for n in range(4) for target in (0, 1)
    ]
    for one in every:
        case = cases[int(one.name.removeprefix("blob"))]
        assert one.image.shape[2:] == one.truth.shape[1:] == one.seeds.shape[1:]
        assert max(one.truth.shape[1:]) <= 24
        marked = (one.seeds == 1).nonzero()
        assert len(marked) == 1
        assert int((one.seeds >= 0).sum()) == 1
        assert bool(one.truth[tuple(marked[0])])
        # The truth lies where the image is bright; half of it is the front.
        bright = one.image[:, 0] > 2 / 3
        assert bool((one.truth <= bright).all())
        if one.target == 0:
            assert torch.equal(one.truth, bright)
        # The window reaches equally far from the click, unless the scan ends.
        size = min(18, *case.grid.shape)
        assert one.truth.shape[1] >= size // 2


def test_clicks_depend_on_the_seed_and_on_the_case_only(make_cases: MakeCases) -> None:
    cases = make_cases(3)
    both, first, again, other = (
        starts(cases, half_width=9, seed=seed, targets=targets)
        for seed, targets in ((0, None), (0, [0]), (0, [0]), (7, [0]))
    )
    assert len(first) == 3
    for a, b in zip(first, again, strict=True):
        assert torch.equal(a.seeds, b.seeds)
    for a, b in zip(first, both[::2], strict=True):
        assert torch.equal(a.image, b.image)
    assert any(
        a.truth.shape != b.truth.shape or not torch.equal(a.seeds, b.seeds)
        for a, b in zip(first, other, strict=True)
    )


def test_what_a_case_lacks_is_left_out(make_cases: MakeCases) -> None:
    case = make_cases(1)[0]
    volume = case.grid.volumes[0]
    channels = (Channel("CT", "hounsfield"), Channel("PET", "suv"))
    grid = Grid((volume, torch.full(case.grid.shape, 4.0)), channels, np.eye(4))
    truth = torch.stack([case.truth[0], torch.zeros_like(case.truth[0])])
    both = LabelledGrid("both", grid, truth)
    (all_seen,) = starts([both], half_width=8, seed=0)
    assert all_seen.target == 0
    assert all_seen.image[0, 0].any()


def test_the_agents_score_is_kept_seed_by_seed(make_cases: MakeCases, model: SeedModel) -> None:
    for start in starts(make_cases(2), half_width=12, seed=0):
        encoded = model.encode(start.image, torch.tensor([start.target]))
        prior = model.prior(encoded, start.seeds)
        every = let_agent(model, start, stop_threshold=-np.inf)
        assert len(every.gains) == 4
        assert len(every.dice) == 5
        assert int(every.state.steps[0]) == 4
        assert every.dice[-1] == pytest.approx(overlap(every.state.mask, start.truth))
        plain = model.dynamics.segmenter.solve(encoded.system, start.seeds, prior=prior)
        assert every.dice[0] == pytest.approx(overlap(plain > 0.5, start.truth))

        none = let_agent(model, start, stop_threshold=np.inf)
        assert (none.dice, len(none.gains)) == ((every.dice[0],), 1)
        assert none.gains[0] == pytest.approx(every.gains[0])

        # As by the model alone.
        level = sorted(every.gains)[1] + 1e-6
        own = SeedModel(replace(model.settings, stop_threshold=level), model.network)
        answer = let_agent(own, start)
        count = len(answer.dice) - 1
        assert answer.dice == pytest.approx(every.dice[: count + 1])
        assert len(answer.gains) == min(count + 1, 4)
        assert all(gain >= level for gain in answer.gains[:count])
        assert count == 4 or answer.gains[-1] < level
        dynamics = own.on(encoded, prior)
        ran = rollout(dynamics, SeedPolicy(own, encoded), dynamics.reset(start.seeds)).state
        assert torch.equal(ran.mask, answer.state.mask)
        assert int(ran.steps[0]) == count


@pytest.fixture
def half_right(make_cases: MakeCases):
    """The truth of a blob, and a method that finds half of it, and all after three corrections."""
    (start,) = starts(make_cases(1), half_width=12, seed=0, targets=[0])
    truth = start.truth[0].numpy()
    half = truth.copy()
    half[: len(truth) // 2] = False
    asked: list[list[VoxelSeed]] = []

    def segment(corrections: Sequence[VoxelSeed]) -> NDArray[np.bool_]:
        asked.append(list(corrections))
        return truth if len(corrections) >= 3 else half

    expected = overlap(torch.from_numpy(half), torch.from_numpy(truth))
    return truth, segment, asked, expected


def test_a_person_corrects_until_nothing_is_wrong(half_right) -> None:
    truth, segment, asked, half = half_right
    overlaps = corrected(segment, truth, clicks=5, generator=Generator().manual_seed(0))
    assert overlaps == pytest.approx([half] * 3 + [1.0] * 3)
    # It is asked again only where there is something new, and told the truth.
    assert [len(corrections) for corrections in asked] == [0, 1, 2, 3]
    for voxel, label in asked[-1]:
        assert truth[voxel] == label


def test_a_person_corrects_until_the_goal(half_right) -> None:
    truth, segment, asked, half = half_right
    generator = Generator().manual_seed(0)
    path = corrected(segment, truth, clicks=1, goal=0.95, most=9, generator=generator)
    assert path == pytest.approx([half, half, half, 1.0])
    assert len(asked) == 4
    assert len(corrected(segment, truth, clicks=1, goal=0.95, most=2)) == 3
