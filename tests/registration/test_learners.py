"""Learners of registration agents on tasks small enough to be learned in seconds, and stages."""

import pickle
import random
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import ndimage
from torch import Generator, Tensor, nn
from torch.nn import functional as F

from medrl.registration.actor_critic import ActorCriticLearner, ActorCriticSettings
from medrl.registration.dynamics import Rules, step_sizes
from medrl.registration.imitation import (
    ImitationLearner,
    ImitationSettings,
    error_loss,
    policy_loss,
)
from medrl.registration.network import (
    LevelSettings,
    Outputs,
    RegistrationNetwork,
    expected_steps,
    target_distribution,
)
from medrl.registration.pairs import PairSampler, PoseDistribution
from medrl.registration.synthesis import Source, Synthesis
from medrl.rl.learner import Learner
from tests.rl.resume import assert_resumes, assert_survives_kill

LEVEL = LevelSettings(
    spacing=8.0, window=10, channels=(8, 16), strides=(2, 2), squeeze=8, features=48, memory=12
)
SHAPE = (16, 16, 16)
PLAIN = PoseDistribution(near=0.0, far=0.0, resize=0.0, tilt=0.0, cut=0.0, dark=1.0)
EASY = replace(PLAIN, turn=25.0, shift=16.0)
THERE = replace(PLAIN, turn=0.0, shift=0.0)
SAME = Synthesis(zoom=0.0, warp=0.0, difference=0.0, bias=0.0, noise=0.0, thickest=1.0, same=1.0)


def sampler(poses: PoseDistribution, *, generator: Generator, size: int = 2) -> PairSampler:
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
    return PairSampler(
        [Source(stored, body, points)],
        LEVEL,
        working=8.0,
        synthesis=SAME,
        poses=poses,
        size=size,
        generator=generator,
    )


def imitation(settings: ImitationSettings, level: LevelSettings = LEVEL) -> ImitationLearner:
    torch.manual_seed(0)
    generator = Generator().manual_seed(0)
    pairs = sampler(EASY, generator=generator)
    return ImitationLearner(RegistrationNetwork(level), pairs, settings, generator=generator)


def reinforcement(
    settings: ActorCriticSettings, poses: PoseDistribution = THERE
) -> ActorCriticLearner:
    torch.manual_seed(0)
    generator = Generator().manual_seed(0)
    pairs = sampler(poses, generator=generator)
    return ActorCriticLearner(RegistrationNetwork(LEVEL), pairs, settings, generator=generator)


# Imitation --------------------------------------------------------------------------------------


def test_imitation_overfits_a_few_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = ImitationSettings(
        steps=200, batch=12, renew=0, walk=1, learning_rate=3e-3, weight_decay=0.0
    )
    learner = imitation(settings, replace(LEVEL, squeeze=16, features=128))
    pairs = sampler(EASY, generator=Generator().manual_seed(1))
    same = pairs.begin(12, seed=1, rules=Rules(kind="affine"))
    monkeypatch.setattr(PairSampler, "begin", lambda *_, **__: same)
    figures = [learner.train_step() for _ in range(learner.total_steps)]
    for name, share in (("steps", 0.5), ("error", 0.1)):
        first, last = (np.mean([f[name] for f in part]) for part in (figures[:5], figures[-5:]))
        assert last < share * first, name
    # What it has learned are the steps that bring it home.
    env, task = same
    with torch.no_grad():
        outputs = learner.network.train()(env.dynamics.observe(env.state)["windows"])
    after = env.dynamics.step(env.state, expected_steps(outputs.logits, step_sizes(8.0)))
    assert float(task.distance(after).mean()) < 0.5 * float(task.distance(env.state).mean())


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
    settings = ImitationSettings(steps=3, batch=4, renew=0, weight_decay=0.0, pairs=2)
    learner = imitation(settings)
    before = {key: value.clone() for key, value in learner.network.named_parameters()}
    for _ in range(3):
        learner.train_step()
    for key, value in learner.network.named_parameters():
        still = torch.equal(value, before[key])
        assert still == key.startswith(("core", "recall")), key
    value_row = learner.network.estimates[-1].weight[1]
    assert torch.equal(value_row, before["estimates.2.weight"][1])


def test_agents_learn_on_their_own_walks(monkeypatch: pytest.MonkeyPatch) -> None:
    """An episode of two batches: the second is where the network's steps have led."""
    learner = imitation(ImitationSettings(steps=40, batch=6, renew=0, walk=2, pairs=2))
    seen: list[Tensor] = []
    encode = learner.network.encode

    def watched(windows: Tensor) -> Tensor:
        seen.append(windows)
        return encode(windows)

    monkeypatch.setattr(learner.network, "encode", watched)
    starts = []
    begin = PairSampler.begin

    def begun(*args: object, **options: object) -> object:
        env, task = begin(*args, **options)
        starts.append((len(seen), env.dynamics.observe(env.state)["windows"]))
        return env, task

    monkeypatch.setattr(PairSampler, "begin", begun)
    for _ in range(learner.total_steps):
        learner.train_step()
    begins = [index for index, _ in starts]
    assert set(np.diff(begins)) == {1, 2}
    for index, windows in starts:
        assert torch.equal(seen[index], windows)
        if index + 1 < len(seen) and index + 1 not in begins:
            # The fixed scan stays, the moving one has moved.
            assert torch.equal(seen[index + 1][:, 0], windows[:, 0])
            assert not torch.equal(seen[index + 1][:, 1], windows[:, 1])


def test_losses_of_an_oracle_are_least() -> None:
    env, task = sampler(EASY, generator=Generator().manual_seed(1)).begin(
        40, seed=0, rules=Rules(kind="affine")
    )
    wanted, distance = task.left(env.state), task.distance(env.state)
    target = target_distribution(wanted, step_sizes(8.0))

    def outputs(logits: Tensor, error: Tensor) -> Outputs:
        return Outputs(logits, error, error * 0, error[:, None])

    right = distance.log1p()
    best = outputs(target.clamp(min=1e-9).log(), right)
    assert float(error_loss(best, distance)) == pytest.approx(0, abs=1e-9)
    least = float(policy_loss(best, wanted, 8.0))
    rng = torch.Generator().manual_seed(0)
    for _ in range(5):
        noise = torch.randn(target.shape, generator=rng, dtype=torch.float64)
        other = outputs(best.logits + noise, right + 0.5)
        assert float(policy_loss(other, wanted, 8.0)) > least + 0.05
        # Smooth L1 with its corner at 0.3.
        assert float(error_loss(other, distance)) == pytest.approx(0.5 - 0.15)


# Actor-critic -----------------------------------------------------------------------------------


def test_actor_critic_learns_to_stay_where_it_is_right() -> None:
    """Agents begin where they belong: whatever they do but stay costs progress."""
    settings = ActorCriticSettings(
        steps=40,
        agents=48,
        horizon=2,
        learning_rate=1e-2,
        actor_weight=1.0,
        imitation_weight=0.0,
        error_weight=0.0,
        renew=0,
        pairs=2,
    )
    learner = reinforcement(settings)
    returns = [learner.train_step()["return"] for _ in range(learner.total_steps)]
    # Steps by chance lead off; log(1 + mm) of a few of them is near 3.
    assert np.mean(returns[:3]) < -2.5
    assert np.mean(returns[-5:]) > 0.65 * np.mean(returns[:3])


def test_actor_critic_trains_the_memory_and_imitates_on_the_way() -> None:
    settings = ActorCriticSettings(
        steps=25, agents=24, horizon=2, learning_rate=5e-3, actor_weight=0.0, renew=0, pairs=2
    )
    learner = reinforcement(settings, EASY)
    figures = [learner.train_step() for _ in range(learner.total_steps)]
    first, last = (np.mean([f["imitation"] for f in part]) for part in (figures[:4], figures[-8:]))
    assert last < 0.9 * first
    assert float(learner.network.recall.weight.detach().abs().max()) > 1e-3
    assert set(figures[0]) == {"return", "critic", "imitation", "error"}
    for module in learner.network.modules():
        if isinstance(module, nn.BatchNorm3d):
            assert int(module.num_batches_tracked) == 0


# Resuming ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("interrupt_at", [1, 2, 3, 4, 5])
def test_imitation_resumes_to_the_same_bits(tmp_path: Path, interrupt_at: int) -> None:
    settings = ImitationSettings(steps=6, batch=4, renew=1, pairs=3, walk=3)
    assert_resumes(lambda: imitation(settings), tmp_path, interrupt_at=interrupt_at)


@pytest.mark.parametrize("interrupt_at", [1, 3])
def test_reinforcement_resumes_to_the_same_bits(tmp_path: Path, interrupt_at: int) -> None:
    settings = ActorCriticSettings(steps=4, agents=4, horizon=2, renew=1, pairs=3)
    assert_resumes(lambda: reinforcement(settings, EASY), tmp_path, interrupt_at=interrupt_at)


IMITATED = ImitationSettings(steps=8, batch=4, renew=1, pairs=3, walk=3)
REINFORCED = ActorCriticSettings(steps=8, agents=4, horizon=2, renew=1, pairs=3)


@pytest.mark.parametrize(
    "maker", [partial(imitation, IMITATED), partial(reinforcement, REINFORCED, EASY)]
)
def test_a_stage_that_is_killed_ends_with_the_same_bits(
    tmp_path: Path, maker: Callable[[], Learner]
) -> None:
    assert_survives_kill(maker, tmp_path, kill_at=random.Random().randrange(1, 6))


def test_checkpoints_hold_no_scans(tmp_path: Path) -> None:
    learner = imitation(replace(IMITATED, pairs=64))
    for _ in range(3):
        learner.train_step()
    assert len(pickle.dumps(learner.extra_state())) < 20_000
