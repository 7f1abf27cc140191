"""The temporal-difference loss, against numbers worked out by hand on a linear network."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from medrl.rl.dqn import DQN, MASKED, n_step_returns

GAMMA = 0.5


class Linear(nn.Module):
    """Values (N, 2 goals, 3 actions) = window's only voxel times weight."""

    def __init__(self) -> None:
        super().__init__()
        weight = [[1.0, 2.0, 3.0], [-1.0, 0.5, 0.0]]
        self.weight = nn.Parameter(torch.tensor(weight))

    def forward(self, window: Tensor) -> tuple[Tensor, str]:
        return window.reshape(-1, 1, 1) * self.weight, "something else the network says"


def build(*, double: bool = True, target_rate: float = 0.25) -> tuple[Linear, DQN]:
    """Online weights that have moved on; the target network still has those of the start."""
    network = Linear()
    dqn = DQN(
        network,
        inputs=["window"],
        values=lambda output: output[0],
        gamma=GAMMA,
        double=double,
        target_rate=target_rate,
    )
    with torch.no_grad():
        network.weight.copy_(torch.tensor([[5.0, 2.0, 1.0], [0.0, 1.0, 4.0]]))
    return network, dqn


def loss_of(
    dqn: DQN,
    window: Tensor,
    action: Tensor,
    reward: Tensor,
    after: Tensor,
    terminated: Tensor | None = None,
) -> Tensor:
    """Of transitions that have not terminated, if nothing else is said."""
    if terminated is None:
        terminated = torch.zeros_like(reward, dtype=torch.bool)
    return dqn({"window": window}, action, reward, {"window": after}, terminated)


def voxel(*values: float) -> Tensor:
    return torch.tensor(values).view(-1, 1, 1, 1, 1)


def huber(error: float) -> float:
    return 0.5 * error**2 if abs(error) < 1 else abs(error) - 0.5


def test_double_dqn_by_hand() -> None:
    # Seen 1, action 1: values 2 and 1. Seen next 2: online chooses action 0 and action 2, which
    # the target network (start weights) values at 2 * 1 and 2 * 0.
    # Targets: 1 + 0.5 * 2 = 2 and -0.5 + 0.5 * 0 = -0.5; errors 0 and 1.5.
    _, dqn = build()
    loss = loss_of(dqn, voxel(1.0), torch.tensor([1]), torch.tensor([[1.0, -0.5]]), voxel(2.0))
    assert loss.shape == (1, 2)
    assert loss[0].tolist() == pytest.approx([0.0, huber(1.5)])


def test_plain_dqn_by_hand() -> None:
    # The target network's own best: 2 * 3 and 2 * 0.5. Targets 4 and 0; errors 2 and 1.
    _, dqn = build(double=False)
    loss = loss_of(dqn, voxel(1.0), torch.tensor([1]), torch.tensor([[1.0, -0.5]]), voxel(2.0))
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
    loss = loss_of(
        dqn,
        voxel(*seen),
        torch.from_numpy(action),
        torch.from_numpy(reward).float(),
        voxel(*after),
    )
    np.testing.assert_allclose(loss.detach().numpy(), expected, rtol=1e-4, atol=1e-5)


def test_gradients_reach_the_network_through_the_action_taken_only() -> None:
    network, dqn = build()
    reward = torch.tensor([[3.0, 3.0]])
    loss_of(dqn, voxel(1.0), torch.tensor([1]), reward, voxel(2.0)).sum().backward()
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
        (found,) = dqn.state_dict().values()
        torch.testing.assert_close(found, expected)
    dqn.copy_to_target()
    (found,) = dqn.state_dict().values()
    assert torch.equal(found, now)


def test_each_goal_ends_by_itself() -> None:
    # As in the first test; the second goal's episode has terminated: target -0.5 anyway.
    _, dqn = build()
    reward = torch.tensor([[1.0, 2.0]])
    for ends, errors in (((False, False), (0.0, 1.0)), ((True, True), (1.0, 1.0))):
        loss = loss_of(dqn, voxel(1.0), torch.tensor([1]), reward, voxel(2.0), torch.tensor([ends]))
        assert loss[0].tolist() == pytest.approx([huber(error) for error in errors])


def test_the_target_network_is_saved() -> None:
    _, dqn = build()
    saved = {name: value.clone() for name, value in dqn.state_dict().items()}
    transition = voxel(1.0), torch.tensor([1]), torch.tensor([[1.0, -0.5]]), voxel(2.0)
    before = loss_of(dqn, *transition)
    dqn.copy_to_target()
    assert not torch.equal(loss_of(dqn, *transition), before)
    dqn.load_state_dict(saved)
    assert torch.equal(loss_of(dqn, *transition), before)


class TwoParts(nn.Module):
    """Values (N, 3 actions) of a state of two parts: a + scale * b times the weight."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor([1.0, 2.0, 3.0]))

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        return (a + 10 * b)[:, None] * self.weight


def build_parts(*, double: bool, target_rate: float = 0.25) -> tuple[TwoParts, DQN]:
    network = TwoParts()
    dqn = DQN(network, inputs=("a", "b"), gamma=GAMMA, double=double, target_rate=target_rate)
    with torch.no_grad():
        network.weight.copy_(torch.tensor([5.0, 2.0, 1.0]))
    return network, dqn


def loss_of_parts(dqn: DQN, *, ended: bool, steps: int | None = None) -> Tensor:
    """Seen 1, action 1: value 2. Reward 1.5; seen next 2 + 10 * 0.1 = 3."""
    return dqn(
        {"a": torch.tensor([0.0]), "b": torch.tensor([0.1])},
        torch.tensor([1]),
        torch.tensor([1.5]),
        {"a": torch.tensor([2.0]), "b": torch.tensor([0.1])},
        torch.tensor([ended]),
        steps=None if steps is None else torch.tensor([steps]),
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
def test_states_of_several_parts_by_hand(double: bool, ended: bool, target: float) -> None:
    network, dqn = build_parts(double=double)
    loss = loss_of_parts(dqn, ended=ended)
    assert loss.shape == (1,)
    assert loss.tolist() == pytest.approx([huber(target - 2.0)])
    loss.sum().backward()
    assert network.weight.grad is not None
    assert network.weight.grad[[0, 2]].tolist() == [0.0, 0.0]


@pytest.mark.parametrize("steps", [1, 2, 3])
def test_returns_of_several_steps_are_discounted_as_often(steps: int) -> None:
    _, dqn = build_parts(double=True)
    loss = loss_of_parts(dqn, ended=False, steps=steps)
    assert loss.tolist() == pytest.approx([huber(1.5 + 0.5**steps * 3 - 2.0)])


def test_what_is_not_allowed_is_not_chosen() -> None:
    network = TwoParts()
    dqn = DQN(network, inputs=("a", "b"), gamma=GAMMA, masked=True)
    state = {"a": torch.tensor([1.0]), "b": torch.tensor([0.0])}
    for allowed, best in (([True] * 3, 3.0), ([True, True, False], 2.0), ([True] + [False] * 2, 1)):
        after = {**state, "allowed": torch.tensor([allowed])}
        start = {**state, "allowed": torch.tensor([[True] * 3])}
        loss = dqn(start, torch.tensor([0]), torch.zeros(1), after, torch.tensor([False]))
        assert loss.tolist() == pytest.approx([huber(GAMMA * best - 1.0)])
    assert MASKED < -1000


def test_returns_of_several_steps_by_hand() -> None:
    rewards = torch.tensor([[1.0, 2.0, 4.0], [5.0, 6.0, 100.0], [7.0, 100.0, 100.0]])
    mask = torch.tensor([[True, True, True], [True, True, False], [True, False, False]])
    returns, steps = n_step_returns(rewards, mask, gamma=0.5)
    assert returns.tolist() == [1 + 1 + 1, 5 + 3, 7]
    assert steps.tolist() == [3, 2, 1]
