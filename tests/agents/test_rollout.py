"""The one loop, against walks that can be worked out by hand."""

import numpy as np
import pytest
import torch

from medrl.agents import (
    DROPPED,
    Decision,
    EpsilonGreedy,
    Greedy,
    LookAhead,
    Recorder,
    Rows,
    Sampled,
    rollout,
)
from medrl.agents.groups import all_ended, mean_of_others, shared_reward
from tests.agents.line import CAPPED, LEFT, REACHED, FindPlace, Line, LineState


def start(line: Line, position: list[int], goal: list[int]) -> LineState:
    return line.reset(torch.tensor(position), torch.tensor(goal))


def upwards(seen: dict[str, torch.Tensor]) -> torch.Tensor:
    return torch.tensor([1.0, 0.0]).expand(len(seen["position"]), 2)


def test_agents_walk_until_each_has_ended() -> None:
    line = Line(20, max_steps=8)
    found = rollout(
        line, Greedy(upwards), start(line, [0, 5, 15], [3, 19, 2]), task=FindPlace(line)
    )
    assert found.state.status.tolist() == [REACHED, CAPPED, LEFT]
    assert found.steps.tolist() == [3, 8, 5]
    assert found.returns is not None
    assert found.returns.tolist() == [3.0, 8.0, -5.0]


def test_without_a_task_nobody_knows_the_goal() -> None:
    line = Line(20)
    found = rollout(line, Greedy(upwards), start(line, [17], [18]))
    assert found.state.status.tolist() == [LEFT]
    assert found.returns is None


def test_max_steps_leaves_agents_active() -> None:
    line = Line(20)
    found = rollout(line, Greedy(upwards), start(line, [0, 19], [9, 9]), max_steps=2)
    assert found.state.active.tolist() == [True, False]
    assert found.steps.tolist() == [2, 1]


def test_only_active_agents_are_asked() -> None:
    line, asked = Line(5), []

    def policy(dynamics: Line, state: LineState, memory: None) -> Decision:
        asked.append(state.position.tolist())
        return Decision(torch.zeros(len(state), dtype=torch.int64))

    rollout(line, policy, start(line, [3, 1], [0, 0]))
    assert asked == [[3, 1], [4, 2], [3], [4]]


def test_closed_choices_are_not_taken() -> None:
    line = Line(3, max_steps=2, walls=True)
    found = rollout(line, Greedy(upwards), start(line, [2], [9]))
    assert found.state.position.tolist() == [2]  # down, as up is closed, and up again


def test_look_ahead_takes_the_best_place() -> None:
    line = Line(20)
    both = torch.tensor([[0], [1]])
    policy = LookAhead(
        lambda _, state: both.expand(2, len(state)),
        lambda _, state: -(state.position - 7.0).abs().double(),
    )
    found = rollout(line, policy, start(line, [2, 12], [7, 7]), task=FindPlace(line))
    assert found.steps.tolist() == [5, 5]
    assert found.score.tolist() == [0.0, 0.0]


def test_a_beam_keeps_the_best() -> None:
    line = Line(20, max_steps=4)

    def policy(dynamics: Line, state: LineState, memory: None) -> Decision:
        action = torch.zeros(len(state), dtype=torch.int64)
        return Decision(action, score=dynamics.step(state, action).position.double())

    found = rollout(
        line,
        policy,
        start(line, [1, 4, 2, 3], [9] * 4),
        beam=lambda index, count: max(1, count // 2),
    )
    assert found.state.status.tolist() == [DROPPED, CAPPED, DROPPED, DROPPED]
    assert found.steps.tolist() == [1, 4, 1, 2]


def test_memory_is_carried_row_by_row() -> None:
    class Counting:
        def blank(self, count: int) -> torch.Tensor:
            return torch.zeros(count, 1)

        def __call__(self, dynamics: Line, state: LineState, memory: torch.Tensor) -> Decision:
            assert torch.equal(memory[:, 0].long(), state.steps)
            return Decision(torch.zeros(len(state), dtype=torch.int64), memory=memory + 1)

    line = Line(9)
    found = rollout(line, Counting(), start(line, [0, 5, 8], [0] * 3))
    assert found.memory is not None
    assert found.memory[:, 0].tolist() == [9, 4, 1]


def test_extras_reach_the_dynamics() -> None:
    def policy(dynamics: Line, state: LineState, memory: None) -> Decision:
        none = torch.zeros(len(state), dtype=torch.int64)
        return Decision(none, extras={"stride": none + 5})

    line = Line(20)
    found = rollout(line, policy, start(line, [0], [0]))
    assert (found.state.position.tolist(), found.steps.tolist()) == ([20], [4])


def test_exploration_and_sampling_follow_their_chances() -> None:
    line, count = Line(3), 4000
    state = start(line, [1] * count, [0] * count)
    explorer = EpsilonGreedy(upwards, epsilon=0.4, generator=torch.Generator().manual_seed(0))
    assert float(explorer(line, state, None).action.float().mean()) == pytest.approx(0.2, abs=0.03)
    uneven = torch.tensor([0.75, 0.25]).log()
    sampler = Sampled(
        lambda seen: uneven.expand(len(seen["position"]), 2),
        generator=torch.Generator().manual_seed(0),
    )
    assert float(sampler(line, state, None).action.float().mean()) == pytest.approx(0.25, abs=0.03)


def test_a_recorder_takes_down_every_step() -> None:
    line, seen = Line(20), []
    recorder = Recorder(line, ["a", "b"], value_unit="steps", watch=seen.append)
    state = start(line, [0, 4], [2, 5])
    found = rollout(line, Greedy(upwards), state, task=FindPlace(line), on_step=recorder)
    recorder.end(found.state, rows=torch.tensor([0]))
    first, second = recorder.trajectory(
        "line", {"scan": "", "model": "", "version": "", "seed": 0}
    ).agents
    assert first.positions_world[:, 0].tolist() == [0, 1, 2]
    assert first.actions[:, 0].tolist() == [0, 0, -1]
    assert second.positions_world[:, 0].tolist() == [4]
    assert second.rewards is not None
    assert second.rewards.tolist() == [1.0]
    assert [step.names for step in seen] == [("a", "b"), ("a",), ("a",)]
    assert (np.diff(first.times) >= 0).all()


def test_what_a_watcher_raises_ends_the_rollout() -> None:
    line = Line(20)

    def stop(_: object) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        rollout(line, Greedy(upwards), start(line, [0], [5]), on_step=stop)


# Rows -------------------------------------------------------------------------------------------


def test_rows_are_selected_put_and_stored() -> None:
    line = Line(20)
    state = start(line, [1, 2, 3], [4, 5, 6])
    part = state.select(torch.tensor([2, 0]))
    assert part.position.tolist() == [3, 1]
    assert state.put(torch.tensor([1, 2]), part).position.tolist() == [1, 3, 1]
    mask = torch.tensor([True, False, True])
    other = start(line, [7, 8, 9], [0] * 3)
    assert state.where(mask, other).position.tolist() == [1, 8, 3]
    assert LineState.cat([part, other]).position.tolist() == [3, 1, 7, 8, 9]
    again = LineState.from_state_dict(state.state_dict())
    assert again.goal.tolist() == [4, 5, 6]
    decision = Decision(torch.zeros(2), extras={"a": torch.tensor([1.0, 2.0])})
    assert decision.select(torch.tensor([1])).extras == {"a": torch.tensor([2.0])}
    assert isinstance(Decision.from_state_dict(decision.state_dict()), Rows)


# Groups -----------------------------------------------------------------------------------------


def test_groups_share_what_they_say_and_get() -> None:
    group = torch.tensor([0, 0, 0, 1, 1, 2])
    messages = torch.arange(6.0)[:, None]
    assert mean_of_others(messages, group)[:, 0].tolist() == [1.5, 1.0, 0.5, 4.0, 3.0, 0.0]
    assert shared_reward(messages[:, 0], group).tolist() == [1, 1, 1, 3.5, 3.5, 5]
    ended = torch.tensor([True, True, False, True, True, False])
    assert all_ended(ended, group).tolist() == [False, False, False, True, True, False]
