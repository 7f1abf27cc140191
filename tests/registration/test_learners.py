"""Learners of registration agents on tasks small enough to be learned in seconds, and stages."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from resume import assert_resumes
from scipy import ndimage
from torch import Generator, Tensor, nn
from torch.nn import functional as F

from medrl.registration.actor_critic import ActorCriticLearner, ActorCriticSettings, choices
from medrl.registration.imitation import (
    ImitationLearner,
    ImitationSettings,
    error_loss,
    policy_loss,
)
from medrl.registration.network import (
    ACTIONS,
    Decision,
    LevelSettings,
    RegistrationNetwork,
    expected_steps,
    target_distribution,
)
from medrl.registration.pairs import PairBank, Situations
from medrl.registration.rewards import RewardSettings
from medrl.registration.synthesis import Source, Synthesis

LEVEL = LevelSettings(
    spacing=8.0, window=10, channels=(8, 16), strides=(2, 2), squeeze=8, features=48, memory=12
)
SHAPE = (16, 16, 16)
EASY = Situations(turn=25.0, shift=16.0, near=0.0, far=0.0, resize=0.0, tilt=0.0, cut=0.0, dark=1.0)
THERE = Situations(turn=0.0, shift=0.0, near=0.0, far=0.0, resize=0.0, tilt=0.0, cut=0.0, dark=1.0)
SAME = Synthesis(zoom=0.0, warp=0.0, difference=0.0, bias=0.0, noise=0.0, thickest=1.0, same=1.0)


def bank(situations: Situations, *, generator: Generator, size: int = 2) -> PairBank:
    """A few pairs of one blob."""
    fine = np.zeros([2 * n for n in SHAPE])
    rng = np.random.default_rng(0)
    grid = np.stack(np.meshgrid(*[np.arange(n) for n in fine.shape], indexing="ij"), axis=-1)
    for center, value in zip(rng.uniform(9, 23, (6, 3)), rng.uniform(0.3, 1, 6), strict=True):
        fine[np.linalg.norm(grid - center, axis=-1) < 5] = value
    volume = ndimage.gaussian_filter(fine, 1.0)
    stored = torch.from_numpy((volume * 255 / 1.5).clip(0, 255).astype(np.uint8))[None]
    body = F.max_pool3d((stored > 20).float(), 2)
    points = body[0].nonzero().float()[::25]
    return PairBank(
        [Source(stored, body, points)],
        LEVEL,
        working=8.0,
        synthesis=SAME,
        situations=situations,
        size=size,
        generator=generator,
    )


def imitation(settings: ImitationSettings, level: LevelSettings = LEVEL) -> ImitationLearner:
    torch.manual_seed(0)
    generator = Generator().manual_seed(0)
    pairs = bank(EASY, generator=generator)
    return ImitationLearner(RegistrationNetwork(level), pairs, settings, generator=generator)


def reinforcement(
    settings: ActorCriticSettings, situations: Situations = THERE
) -> ActorCriticLearner:
    torch.manual_seed(0)
    generator = Generator().manual_seed(0)
    pairs = bank(situations, generator=generator)
    return ActorCriticLearner(RegistrationNetwork(LEVEL), pairs, settings, generator=generator)


# Imitation --------------------------------------------------------------------------------------


def test_imitation_overfits_a_few_situations(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = ImitationSettings(steps=200, renew=0, learning_rate=3e-3, weight_decay=0.0)
    learner = imitation(settings, replace(LEVEL, squeeze=16, features=128))
    batch = bank(EASY, generator=Generator().manual_seed(1)).draw(12)
    monkeypatch.setattr(learner, "_next", lambda: batch)
    figures = [learner.train_step() for _ in range(learner.total_steps)]
    for name, share in (("steps", 0.5), ("error", 0.1)):
        first, last = (np.mean([f[name] for f in part]) for part in (figures[:5], figures[-5:]))
        assert last < share * first, name
    # What it has learned are the steps that bring it home.
    with torch.no_grad():
        decision = learner.network.train()(batch.windows())
    after = batch.after(expected_steps(decision.logits, LEVEL.steps))
    assert float(after.error().mean()) < 0.5 * float(batch.error().mean())


def test_imitation_learns_how_far_off_agents_are() -> None:
    """Ever new poses of two pairs, on the agents' own walks."""
    settings = ImitationSettings(steps=60, batch=32, renew=0, walk=2, learning_rate=4e-3)
    learner = imitation(settings)
    figures = [learner.train_step() for _ in range(learner.total_steps)]
    assert learner.step == 60
    for name, share in (("steps", 0.9), ("error", 0.2)):
        first, last = (np.mean([f[name] for f in part]) for part in (figures[:5], figures[-10:]))
        assert last < share * first, name


def test_imitation_leaves_core_value_and_memory_alone() -> None:
    settings = ImitationSettings(steps=3, batch=4, renew=0, weight_decay=0.0, bank=2)
    learner = imitation(settings)
    before = {key: value.clone() for key, value in learner.network.named_parameters()}
    for _ in range(3):
        learner.train_step()
    for key, value in learner.network.named_parameters():
        still = torch.equal(value, before[key])
        assert still == key.startswith(("core", "recall")), key
    value_row = learner.network.judge[-1].weight[1]
    assert torch.equal(value_row, before["judge.2.weight"][1])


def test_agents_learn_on_their_own_walks() -> None:
    learner = imitation(ImitationSettings(steps=4, batch=6, renew=0, walk=1, bank=2))
    learner.train_step()
    assert learner._batch is not None
    walked = learner._batch
    learner._left = 1
    assert learner._next() is walked
    fresh = learner._next()
    assert not torch.equal(fresh.transforms, walked.transforms)


def test_losses_of_an_oracle_are_least() -> None:
    batch = bank(EASY, generator=Generator().manual_seed(1)).draw(40)
    target = target_distribution(batch.wanted(), LEVEL.steps)
    there = torch.where(batch.error() < 2.0, 9.0, -9.0)

    def decision(logits: Tensor, error: Tensor) -> Decision:
        return Decision(logits, there, error, error * 0, error[:, None])

    right = batch.error().log1p()
    best = decision(target.clamp(min=1e-9).log(), right)
    assert float(error_loss(best, batch)) == pytest.approx(0, abs=1e-9)
    least = float(policy_loss(best, batch, LEVEL))
    rng = torch.Generator().manual_seed(0)
    for _ in range(5):
        noise = torch.randn(target.shape, generator=rng, dtype=torch.float64)
        other = decision(best.logits + noise, right + 0.5)
        assert float(policy_loss(other, batch, LEVEL)) > least + 0.05
        # Smooth L1 with its corner at 0.3.
        assert float(error_loss(other, batch)) == pytest.approx(0.5 - 0.15)


# Actor-critic -----------------------------------------------------------------------------------


def test_actor_critic_learns_to_stop_where_it_is_right() -> None:
    """Agents begin where they belong: the only thing to win is the bonus for stopping at once."""
    settings = ActorCriticSettings(
        steps=25,
        agents=24,
        horizon=2,
        learning_rate=1e-2,
        actor_weight=1.0,
        imitation_weight=0.0,
        error_weight=0.0,
        renew=0,
        bank=2,
        reward=RewardSettings(bonus=3.0, threshold=2.0),
    )
    learner = reinforcement(settings)
    returns = [learner.train_step()["return"] for _ in range(learner.total_steps)]
    # Half of the agents stop at random; the others go off.
    assert np.mean(returns[:3]) < 1.5
    assert np.mean(returns[-10:]) > 2.5


def test_actor_critic_trains_the_memory_and_imitates_on_the_way() -> None:
    settings = ActorCriticSettings(
        steps=25, agents=24, horizon=2, learning_rate=5e-3, actor_weight=0.0, renew=0, bank=2
    )
    learner = reinforcement(settings, EASY)
    figures = [learner.train_step() for _ in range(learner.total_steps)]
    first, last = (np.mean([f["imitation"] for f in part]) for part in (figures[:4], figures[-8:]))
    assert last < 0.9 * first
    assert float(learner.network.recall.weight.abs().max()) > 1e-3
    assert set(figures[0]) == {"return", "critic", "imitation", "error"}
    for module in learner.network.modules():
        if isinstance(module, nn.BatchNorm3d):
            assert int(module.num_batches_tracked) == 0


def test_ended_agents_go_nowhere_and_earn_nothing() -> None:
    settings = ActorCriticSettings(agents=64, horizon=5, renew=0, bank=2)
    learner = reinforcement(settings, EASY)
    learner.network.eval()
    with torch.no_grad():
        walk = learner._walk()
    stops = walk.actions[..., -1] == 1
    for n in range(64):
        asked = stops[n].nonzero()[:, 0].tolist()
        first = asked[0] if asked else 5
        assert walk.done[n].tolist() == [t == first for t in range(5)]
        assert walk.ended[n].tolist() == [t > first for t in range(5)]
        assert (walk.rewards[n, first + 1 :] == 0).all()
    assert 0 < int(walk.done.sum()) < 64 * 5
    assert walk.values.shape == (64, 6)


def test_choices_are_six_steps_and_whether_to_stop() -> None:
    g = torch.Generator().manual_seed(0)
    logits = torch.randn((5, 12, ACTIONS), generator=g)
    stop = torch.randn(5, generator=g)
    found = choices(Decision(logits, stop, stop, stop, stop[:, None]))
    assert found.shape == (5, 7, ACTIONS)
    assert (found[:, :6] == logits[:, :6]).all()
    share = found[:, 6].softmax(dim=-1)
    torch.testing.assert_close(share[:, 1], stop.sigmoid())
    torch.testing.assert_close(share[:, 0], 1 - stop.sigmoid())


# Resuming ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("interrupt_at", [1, 2, 3, 4, 5])
def test_imitation_resumes_to_the_same_bits(tmp_path: Path, interrupt_at: int) -> None:
    settings = ImitationSettings(steps=6, batch=4, renew=1, bank=3, walk=3)
    assert_resumes(lambda: imitation(settings), tmp_path, interrupt_at=interrupt_at)


@pytest.mark.parametrize("interrupt_at", [1, 3])
def test_reinforcement_resumes_to_the_same_bits(tmp_path: Path, interrupt_at: int) -> None:
    settings = ActorCriticSettings(steps=4, agents=4, horizon=2, renew=1, bank=3)
    assert_resumes(lambda: reinforcement(settings, EASY), tmp_path, interrupt_at=interrupt_at)
