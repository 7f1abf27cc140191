"""Learning where to put seeds: worth and returns by hand, and a few steps on blobs."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Generator, Tensor

from medrl.seednet.data import LabelledGrid
from medrl.seednet.learner import AgentLearner, AgentSettings, expected_gains
from medrl.seednet.model import ModelSettings, SeedModel
from medrl.seednet.rewards import RewardSettings
from medrl.seednet.sampling import Sampler, Sampling

WINDOWS = Sampling(window=(16, 16, 16), shift=2.0, scanner_probability=0.0)
SMALL = AgentSettings(
    imitation_steps=6, dqn_steps=4, windows=3, batch=4, replay=24, returns=2, explore_among=20
)
MakeCases = Callable[..., list[LabelledGrid]]


def learner(
    make_cases: MakeCases, settings: ModelSettings, *, seed: int = 0, recipe: AgentSettings = SMALL
) -> AgentLearner:
    torch.manual_seed(seed)
    model = SeedModel(settings, settings.build_network().eval())
    generator = Generator().manual_seed(seed)
    sampler = Sampler(make_cases(3), WINDOWS, generator)
    return AgentLearner(model, sampler, recipe, generator=generator)


def worth_by_loops(
    mask: NDArray[np.bool_], truth: NDArray[np.bool_], radius: int
) -> NDArray[np.float64]:
    """What is gained by flipping, for each cell and label, around the best voxel to be flipped."""
    shape = mask.shape
    volume = (mask.sum() + truth.sum()) / 2 + 1
    out = []
    for label in (0, 1):

        def gain(voxel: tuple[int, ...], label: int = label) -> float:
            total = 0.0
            for offset in np.ndindex(*[2 * radius + 1] * 3):
                place = tuple(v + o - radius for v, o in zip(voxel, offset, strict=True))
                if any(not 0 <= c < n for c, n in zip(place, shape, strict=True)):
                    continue
                if mask[place] != label:
                    total += 1 if truth[place] == label else -1
            return total

        for cell in np.ndindex(*[n // 2 for n in shape]):
            inner = [
                tuple(2 * c + o for c, o in zip(cell, x, strict=True)) for x in np.ndindex(2, 2, 2)
            ]
            flipped = [gain(voxel) for voxel in inner if mask[voxel] != label]
            value = max(flipped) if flipped else min(0.0, float(np.mean([gain(v) for v in inner])))
            out.append(100 * value / volume)
    return np.array([*out, 0.0])


@pytest.mark.parametrize("radius", [1, 2])
def test_what_a_seed_is_worth_by_hand(radius: int) -> None:
    rng = np.random.default_rng(radius)
    mask, truth = rng.random((2, 6, 8, 6)) < 0.5
    truth[:2] = True
    mask[2:, 3:] = False
    both = torch.from_numpy(np.stack([mask, truth])), torch.from_numpy(np.stack([truth, mask]))
    found = expected_gains(*both, radii=(radius,)).numpy()
    np.testing.assert_allclose(found[0], worth_by_loops(mask, truth, radius), atol=1e-3)
    np.testing.assert_allclose(found[1], worth_by_loops(truth, mask, radius), atol=1e-3)


def test_a_right_mask_needs_nothing_and_a_large_wrong_seed_is_not_free() -> None:
    truth = torch.zeros(8, 8, 8, dtype=torch.bool)
    truth[1:7, 1:7, 1:7] = True
    worth = expected_gains(truth[None], truth[None], radii=(3,))
    assert float(worth.max()) == 0.0
    # In the middle, each cell has a voxel that would lose 5^3 of the 6^3.
    assert float(worth.min()) == pytest.approx(-100 * 125 / 217)


def flat(one: AgentLearner) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in one.network.state_dict().items()}


def test_only_the_value_head_learns_and_a_seed_reproduces_it(
    make_cases: MakeCases, settings: ModelSettings
) -> None:
    torch.set_num_threads(1)
    runs = []
    for seed in (0, 0, 1):
        one = learner(make_cases, settings, seed=seed)
        before = flat(one)
        runs.append([one.train_step() for _ in range(one.total_steps)])
        changed = {n for n, value in flat(one).items() if not torch.equal(value, before[n])}
        assert changed
        assert all(name.startswith("value_head.") for name in changed)
    assert one.total_steps == 10
    assert runs[0] == runs[1]
    assert runs[0] != runs[2]
    assert ["dqn" in figures for figures in runs[0]] == [False] * 6 + [True] * 4
    ends = [figures for figures in runs[0] if "dice_after" in figures]
    assert ends
    assert all(0 <= figures["seeds"] <= settings.max_seeds for figures in ends)


def test_imitation_learns_what_seeds_are_worth(
    make_cases: MakeCases, settings: ModelSettings
) -> None:
    recipe = replace(SMALL, imitation_steps=40, dqn_steps=0, learning_rate=1e-2, oracle=1.0)
    one = learner(make_cases, settings, recipe=recipe)
    for _ in range(40):
        one.train_step()
    steps, _ = one.replay.sample(50, 1)
    state = one._state(steps, torch.zeros(50, dtype=torch.int64))
    with torch.no_grad():
        values = one.network.value_head(state["half"], state["view"], state["target"])
    gains = steps["gains"][:, 0].float()
    # At the beginning nothing was expected of any seed.
    error, blind = ((x - gains).abs().mean() for x in (values, torch.zeros(1)))
    assert float(error) < 0.92 * float(blind)


@pytest.mark.parametrize(
    "changes",
    [
        {"imitation_steps": 0, "dqn_steps": 3},
        {"imitation_steps": 2, "dqn_steps": 0},
        {"imitation_steps": 1, "dqn_steps": 2, "double": False, "wrong_click": 1.0},
        {"imitation_steps": 1, "dqn_steps": 2, "reward": RewardSettings("regions")},
    ],
)
def test_every_variant_trains(
    make_cases: MakeCases, settings: ModelSettings, changes: dict[str, object]
) -> None:
    one = learner(make_cases, settings, recipe=replace(SMALL, **changes))  # type: ignore[arg-type]
    for _ in range(one.total_steps):
        figures = one.train_step()
        assert all(np.isfinite(value) for value in figures.values())


def test_the_memory_forgets_the_oldest(make_cases: MakeCases, settings: ModelSettings) -> None:
    one = learner(make_cases, settings, recipe=replace(SMALL, replay=15))
    for _ in range(10):
        one.train_step()
    assert len(one.replay) == 5
    # Of windows that no step is remembered of, the encoding is forgotten, too.
    held = set(one.replay.held("window").flatten().tolist())
    assert held <= set(one._windows)
    assert len(one._windows) <= len(held) + 3
