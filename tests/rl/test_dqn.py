"""The temporal-difference loss, against numbers worked out by hand on a linear network."""

import numpy as np
import pytest
import torch
from tensordict import TensorDict
from torch import Tensor, nn

from medrl.rl.dqn import ActionDQN, GoalDQN

GAMMA = 0.5


class Linear(nn.Module):
    """Values (N, 2 goals, 3 actions) = window's only voxel times weight."""

    def __init__(self) -> None:
        super().__init__()
        weight = [[1.0, 2.0, 3.0], [-1.0, 0.5, 0.0]]
        self.weight = nn.Parameter(torch.tensor(weight))

    def forward(self, window: Tensor) -> tuple[Tensor, str]:
        return window.reshape(-1, 1, 1) * self.weight, "something else the network says"


def build(*, double: bool = True, target_rate: float = 0.25) -> tuple[Linear, GoalDQN]:
    """Online weights that have moved on; the target network still has those of the start."""
    network = Linear()
    dqn = GoalDQN(
        network, values=lambda said: said[0], gamma=GAMMA, double=double, target_rate=target_rate
    )
    with torch.no_grad():
        network.weight.copy_(torch.tensor([[5.0, 2.0, 1.0], [0.0, 1.0, 4.0]]))
    return network, dqn


def voxel(*values: float) -> Tensor:
    return torch.tensor(values).view(-1, 1, 1, 1, 1)


def huber(error: float) -> float:
    return 0.5 * error**2 if abs(error) < 1 else abs(error) - 0.5


def test_double_dqn_by_hand() -> None:
    # Seen 1, action 1: values 2 and 1. Seen next 2: online chooses action 0 and action 2, which
    # the target network (start weights) values at 2 * 1 and 2 * 0.
    # Targets: 1 + 0.5 * 2 = 2 and -0.5 + 0.5 * 0 = -0.5; errors 0 and 1.5.
    _, dqn = build()
    loss = dqn(voxel(1.0), torch.tensor([1]), torch.tensor([[1.0, -0.5]]), voxel(2.0))
    assert loss.shape == (1, 2)
    assert loss[0].tolist() == pytest.approx([0.0, huber(1.5)])


def test_plain_dqn_by_hand() -> None:
    # The target network's own best: 2 * 3 and 2 * 0.5. Targets 4 and 0; errors 2 and 1.
    _, dqn = build(double=False)
    loss = dqn(voxel(1.0), torch.tensor([1]), torch.tensor([[1.0, -0.5]]), voxel(2.0))
    assert loss[0].tolist() == pytest.approx([huber(2.0), huber(1.0)])


@pytest.mark.parametrize("double", [True, False])
def test_a_batch_by_numpy(double: bool) -> None:
    rng = np.random.default_rng(0)
    seen, after = rng.normal(size=(2, 30))
    action, reward = rng.integers(0, 3, 30), rng.normal(size=(30, 2))
    network, dqn = build(double=double)
    online = network.weight.detach().numpy()
    target = Linear().weight.detach().numpy()
    expected = np.zeros((30, 2))
    for n in range(30):
        for goal in range(2):
            ahead = after[n] * target[goal]
            best = (after[n] * online[goal]).argmax() if double else ahead.argmax()
            error = reward[n, goal] + GAMMA * ahead[best] - seen[n] * online[goal, action[n]]
            expected[n, goal] = huber(error)
    loss = dqn(
        voxel(*seen),
        torch.from_numpy(action),
        torch.from_numpy(reward).float(),
        voxel(*after),
    )
    np.testing.assert_allclose(loss.detach().numpy(), expected, rtol=1e-4, atol=1e-5)


def test_gradients_reach_the_network_through_the_action_taken_only() -> None:
    network, dqn = build()
    dqn(voxel(1.0), torch.tensor([1]), torch.tensor([[3.0, 3.0]]), voxel(2.0)).sum().backward()
    gradient = network.weight.grad
    assert gradient is not None
    # Both errors are beyond the quadratic part: slope -1 for the action taken, 0 for the others.
    assert gradient.tolist() == [[0.0, -1.0, 0.0], [0.0, -1.0, 0.0]]


def test_the_target_network_follows() -> None:
    network, dqn = build(target_rate=0.25)
    start, now = Linear().weight.detach(), network.weight.detach()
    for step in (1, 2):
        dqn.update_target()
        expected = now + (start - now) * 0.75**step
        found = next(iter(dqn.loss.target_value_network_params.values(True, True)))
        torch.testing.assert_close(found.data, expected)


class TwoParts(nn.Module):
    """Values (N, 3 actions) of a state of two parts: a + scale * b times the weight."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor([1.0, 2.0, 3.0]))

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        return (a + 10 * b)[:, None] * self.weight


def build_parts(*, double: bool, target_rate: float = 0.25) -> tuple[TwoParts, ActionDQN]:
    network = TwoParts()
    dqn = ActionDQN(network, inputs=("a", "b"), gamma=GAMMA, double=double, target_rate=target_rate)
    with torch.no_grad():
        network.weight.copy_(torch.tensor([5.0, 2.0, 1.0]))
    return network, dqn


def transition(*, ended: bool) -> TensorDict:
    """Seen 1, action 1: value 2. Reward 1.5; seen next 2 + 10 * 0.1 = 3."""
    after = {
        "a": torch.tensor([2.0]),
        "b": torch.tensor([0.1]),
        "reward": torch.tensor([[1.5]]),
        "done": torch.tensor([[ended]]),
        "terminated": torch.tensor([[ended]]),
    }
    return TensorDict(
        {
            "a": torch.tensor([0.0]),
            "b": torch.tensor([0.1]),
            "action": torch.tensor([1]),
            "next": TensorDict(after, batch_size=[1]),
        },
        batch_size=[1],
    )


@pytest.mark.parametrize(
    ("double", "ended", "target"),
    [
        # Online chooses action 0, which the target network values at 3 * 1.
        (True, False, 1.5 + 0.5 * 3),
        # The target network's own best is action 2, 3 * 3.
        (False, False, 1.5 + 0.5 * 9),
        (True, True, 1.5),
    ],
)
def test_action_dqn_by_hand(double: bool, ended: bool, target: float) -> None:
    network, dqn = build_parts(double=double)
    loss = dqn(transition(ended=ended))
    assert loss.shape == (1,)
    assert loss.tolist() == pytest.approx([huber(target - 2.0)])
    loss.sum().backward()
    assert network.weight.grad is not None
    assert network.weight.grad[[0, 2]].tolist() == [0.0, 0.0]


def test_the_target_of_action_dqn_follows() -> None:
    network, dqn = build_parts(double=True, target_rate=0.25)
    now = network.weight.detach().clone()
    start = TwoParts().weight.detach()
    for step in (1, 2):
        dqn.update_target()
        found = next(iter(dqn.loss.target_value_network_params.values(True, True)))
        torch.testing.assert_close(found.data, now + (start - now) * 0.75**step)
