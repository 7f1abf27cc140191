"""The actor-critic loss, against numbers worked out by hand, and on tasks with a known answer."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from medrl.rl.a2c import FactoredCategorical, RecurrentA2C, sample

GAMMA, LMBDA = 0.9, 0.5


def loss(**options: float) -> RecurrentA2C:
    settings = {"gamma": GAMMA, "lmbda": LMBDA, "entropy_weight": 1e-6, "critic_weight": 1.0}
    return RecurrentA2C(**(settings | options))


def walks(count: int = 3, steps: int = 4, choices: int = 2, options: int = 5) -> dict[str, Tensor]:
    """Random walks: the second agent stops in its second step, the third in its last."""
    g = torch.Generator().manual_seed(0)
    done = torch.zeros((count, steps), dtype=torch.bool)
    done[1, 1] = done[2, -1] = True
    ended = torch.zeros_like(done)
    ended[1, 2:] = True
    return {
        "logits": torch.randn((count, steps, choices, options), generator=g).requires_grad_(),
        "values": torch.randn((count, steps + 1), generator=g).requires_grad_(),
        "actions": torch.randint(options, (count, steps, choices), generator=g),
        "rewards": torch.randn((count, steps), generator=g) * ~ended,
        "terminated": done,
        "mask": ~ended,
    }


def by_hand(data: dict[str, Tensor]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Advantages, value targets and log-probabilities of the steps that count, agent by agent."""
    advantages, targets, logs = [], [], []
    values, rewards = data["values"].detach().numpy(), data["rewards"].numpy()
    for n in range(len(values)):
        steps = [t for t in range(rewards.shape[1]) if data["mask"][n, t]]
        following = 0.0
        own = []
        for t in reversed(steps):
            goes_on = 0.0 if data["terminated"][n, t] else 1.0
            error = rewards[n, t] + GAMMA * goes_on * values[n, t + 1] - values[n, t]
            following = error + GAMMA * LMBDA * goes_on * following
            own.append((following, following + values[n, t]))
        for advantage, target in reversed(own):
            advantages.append(advantage)
            targets.append(target)
        for t in steps:
            log = data["logits"].detach()[n, t].log_softmax(dim=-1)
            logs.append(sum(float(log[p, a]) for p, a in enumerate(data["actions"][n, t])))
    return np.array(advantages), np.array(targets), np.array(logs)


def test_losses_by_hand() -> None:
    data = walks()
    advantage, target, log = by_hand(data)
    assert len(advantage) == 10
    standard = (advantage - advantage.mean()) / advantage.std()
    found = loss()(**data)
    assert float(found["loss_objective"]) == pytest.approx(-(log * standard).mean(), abs=1e-5)
    output = data["values"].detach().numpy()[:, :-1][data["mask"].numpy()]
    error = np.abs(output - target)
    huber = np.where(error < 1, 0.5 * error**2, error - 0.5)
    assert float(found["loss_critic"]) == pytest.approx(huber.mean(), abs=1e-5)


def test_weights_of_critic_and_entropy() -> None:
    data = walks()
    plain, weighted = loss()(**data), loss(critic_weight=0.25, entropy_weight=0.1)(**data)
    assert float(weighted["loss_critic"]) == pytest.approx(0.25 * float(plain["loss_critic"]))
    share = data["logits"].detach().softmax(dim=-1)[data["mask"]]
    entropy = -(share * share.log()).sum(dim=(-1, -2)).mean()
    assert float(weighted["loss_entropy"]) == pytest.approx(-0.1 * float(entropy), abs=1e-5)


def test_entropy_may_weigh_nothing() -> None:
    assert float(loss(entropy_weight=0.0)(**walks())["loss_entropy"]) == 0


def test_gradients_reach_what_counts_and_nothing_else() -> None:
    data = walks()
    found = loss()(**data)
    found["loss_objective"].backward(retain_graph=True)
    assert data["values"].grad is None or not data["values"].grad.any()
    moved = data["logits"].grad.abs().sum(dim=(-1, -2)) > 0
    assert (moved == data["mask"]).all()
    data["logits"].grad = None
    found["loss_critic"].backward()
    assert data["logits"].grad is None or not data["logits"].grad.any()
    moved = data["values"].grad != 0
    assert (moved[:, :-1] == data["mask"]).all()
    assert not moved[:, -1].any()


def test_what_comes_after_stopping_does_not_count() -> None:
    data = walks()
    before = {name: float(value) for name, value in loss()(**data).items()}
    with torch.no_grad():
        data["values"][1, 2:] = 50.0
        data["values"][2, -1] = 50.0
        data["logits"][1, 2:] = 9.0
    data["rewards"][1, 2:] = 7.0
    after = {name: float(value) for name, value in loss()(**data).items()}
    assert after == pytest.approx(before, abs=1e-5)


def test_factored_choices_are_independent() -> None:
    logits = torch.randn((6, 3, 4), generator=torch.Generator().manual_seed(0))
    choices = FactoredCategorical(logits)
    torch.manual_seed(0)
    drawn = choices.sample()
    assert drawn.shape == (6, 3)
    log = logits.log_softmax(dim=-1).gather(-1, drawn[..., None])[..., 0].sum(dim=-1)
    torch.testing.assert_close(choices.log_prob(drawn), log)


def test_samples_follow_the_logits() -> None:
    logits = torch.tensor([[0.0, 1.0, 2.0], [3.0, -30.0, 0.0]])
    g = torch.Generator().manual_seed(0)
    drawn = sample(logits.expand(20000, 2, 3), g)
    assert drawn.shape == (20000, 2)
    for choice in range(2):
        share = torch.bincount(drawn[:, choice], minlength=3) / 20000
        torch.testing.assert_close(share, logits[choice].softmax(dim=0), atol=0.015, rtol=0)
    again = sample(logits.expand(20000, 2, 3), torch.Generator().manual_seed(0))
    assert (again == drawn).all()


def test_a_bandit_is_learned() -> None:
    """Two levers with four positions each; the reward counts how many are right."""
    right = torch.tensor([2, 0])
    logits = nn.Parameter(torch.zeros(2, 4))
    value = nn.Parameter(torch.zeros(()))
    optimizer = torch.optim.Adam([logits, value], lr=0.1)
    learner, g = loss(entropy_weight=0.001), torch.Generator().manual_seed(0)
    mask = torch.ones((32, 1), dtype=torch.bool)
    for _ in range(80):
        output = logits.expand(32, 1, 2, 4)
        actions = sample(output, g)
        rewards = (actions == right).sum(dim=-1).float()
        values = value.expand(32, 2)
        losses = learner(output, values, actions, rewards, mask, mask)
        optimizer.zero_grad()
        sum(losses.values()).backward()
        optimizer.step()
    share = logits.detach().softmax(dim=-1)
    assert float(share[0, 2]) > 0.9
    assert float(share[1, 0]) > 0.9
    assert float(value) == pytest.approx(2, abs=0.3)


def test_memory_is_learned_through_the_walk() -> None:
    """The cue is shown in the first step only, and asked for in the last."""
    torch.manual_seed(0)
    core, policy, critic = nn.GRUCell(2, 8), nn.Linear(8, 2), nn.Linear(8, 1)
    parameters = [p for part in (core, policy, critic) for p in part.parameters()]
    optimizer = torch.optim.Adam(parameters, lr=0.02)
    learner, g = loss(gamma=1.0, lmbda=1.0), torch.Generator().manual_seed(0)
    count, steps = 64, 3
    won = []
    for _ in range(120):
        cue = torch.randint(2, (count,), generator=g)
        memory = torch.zeros(count, 8)
        output, values, actions = [], [], []
        for step in range(steps):
            seen = nn.functional.one_hot(cue, 2).float() * (step == 0)
            memory = core(seen, memory)
            output.append(policy(memory)[:, None])
            values.append(critic(memory)[:, 0])
            actions.append(sample(output[-1], g))
        rewards = torch.zeros(count, steps)
        rewards[:, -1] = (actions[-1][:, 0] == cue).float()
        done = torch.zeros((count, steps), dtype=torch.bool)
        done[:, -1] = True
        values.append(torch.zeros(count))
        losses = learner(
            torch.stack(output, dim=1),
            torch.stack(values, dim=1),
            torch.stack(actions, dim=1),
            rewards,
            done,
            torch.ones_like(done),
        )
        optimizer.zero_grad()
        sum(losses.values()).backward()
        optimizer.step()
        won.append(float(rewards[:, -1].mean()))
    assert np.mean(won[:10]) < 0.65
    assert np.mean(won[-10:]) > 0.9
