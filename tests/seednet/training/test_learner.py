"""Learning where to put seeds: worth and returns by hand, and a few steps on blobs."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from tensordict import TensorDict
from torch import Generator, Tensor

from medrl.seednet.data import LabelledGrid
from medrl.seednet.learner import AgentLearner, AgentSettings, _Episode, expected_gains
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
    found = expected_gains(torch.from_numpy(mask), torch.from_numpy(truth), radii=(radius,))
    np.testing.assert_allclose(found.numpy(), worth_by_loops(mask, truth, radius), atol=1e-3)


def test_a_right_mask_needs_nothing_and_a_large_wrong_seed_is_not_free() -> None:
    truth = torch.zeros(8, 8, 8, dtype=torch.bool)
    truth[1:7, 1:7, 1:7] = True
    worth = expected_gains(truth, truth, radii=(3,))
    assert float(worth.max()) == 0.0
    # In the middle, each cell has a voxel that would lose 5^3 of the 6^3.
    assert float(worth.min()) == pytest.approx(-100 * 125 / 217)


class _Ended:
    """What an episode asks of a state when it is made."""

    mask = torch.zeros(2, 1, 1, 1, dtype=torch.bool)


def test_returns_of_several_steps_by_hand() -> None:
    rewards = torch.tensor([[1.0, 5.0], [2.0, 6.0], [4.0, 0.0], [8.0, 0.0]])
    # The second agent ends with its second action.
    acted = torch.tensor([[True, True], [True, True], [True, False], [True, False]])
    ended = torch.tensor([[False, False], [False, True], [False, True], [True, True]])
    mask = torch.zeros(2, 1, 1, 1, dtype=torch.bool)
    episode = _Episode(None, mask, None, _Ended(), None)  # type: ignore[arg-type]
    for t in range(4):
        state = torch.tensor([[10.0 * t], [10.0 * t + 100]])
        episode.note(
            TensorDict(
                {
                    **{key: state.clone() for key in ("half", "view", "target", "allowed")},
                    "worth": state.clone(),
                    "action": torch.tensor([t, t + 7]),
                    "reward": rewards[t],
                    "acted": acted[t],
                    "ended": ended[t],
                },
                batch_size=[2],
            )
        )
    found = [
        (
            int(t["action"]),
            float(t["half"]),
            float(t["next", "reward"]),
            bool(t["next", "done"]),
            bool(t["next", "terminated"]),
            float(t["next", "view"]),
        )
        for t in episode.transitions(2, 0.5)
    ]
    assert [one[:5] for one in found] == [
        (0, 0.0, 1 + 0.5 * 2, False, False),
        (1, 10.0, 2 + 0.5 * 4, False, False),
        (2, 20.0, 4 + 0.5 * 8, True, True),
        (3, 30.0, 8.0, True, True),
        (7, 100.0, 5 + 0.5 * 6, True, True),
        (8, 110.0, 6.0, True, True),
    ]
    # The state two steps later is what the rest is worth from.
    assert [one[5] for one in found if not one[3]] == [20.0, 30.0]


def flat(model: SeedModel) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in model.network.state_dict().items()}


def test_only_the_value_head_learns_and_a_seed_reproduces_it(
    make_cases: MakeCases, settings: ModelSettings
) -> None:
    torch.set_num_threads(1)
    runs = []
    for seed in (0, 0, 1):
        one = learner(make_cases, settings, seed=seed)
        before = flat(one.model)
        runs.append([one.train_step() for _ in range(one.total_steps)])
        changed = {n for n, value in flat(one.model).items() if not torch.equal(value, before[n])}
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
    state = one._recall()
    with torch.no_grad():
        values = one.network.value_head(state["half"], state["view"], state["target"])
    # At the beginning nothing was expected of any seed.
    error, blind = ((x - state["worth"]).abs().mean() for x in (values, torch.zeros(1)))
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
    one = learner(make_cases, settings, recipe=replace(SMALL, replay=5))
    for _ in range(10):
        one.train_step()
    assert len(one._memory) == 5
