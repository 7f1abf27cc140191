"""What agents do, step by step, and the record that it adds up to."""

from dataclasses import replace

import numpy as np

from medrl.trajectory import Recording, Step


def step(moment: int, names: tuple[str, ...], starts: list[int]) -> Step:
    rows = len(names)
    return Step(
        names,
        np.array(starts),
        np.arange(3.0 * rows).reshape(rows, 3) + moment,
        np.full(rows, 4.0),
        np.stack([np.arange(rows), np.full(rows, moment)], axis=1),
        np.full(rows, 0.5),
        times=np.full(rows, moment / 2),
        boxes_world=np.zeros((rows, 2, 3)),
        extras={"memory": np.arange(2.0 * rows).reshape(rows, 2)},
        value_unit="mm",
    )


def test_steps_of_several_agents_become_their_paths() -> None:
    recording = Recording()
    recording.add(step(0, ("a", "b", "a"), [0, 0, 1]))
    recording.add(step(1, ("b", "a"), [0, 1]))
    record = recording.trajectory("boxes", {"seed": 3})
    assert (record.task, record.provenance["seed"]) == ("boxes", 3)
    assert [(p.name, p.start, len(p)) for p in record.agents] == [
        ("a", 0, 1), ("b", 0, 2), ("a", 1, 2),
    ]  # fmt: skip
    b = record.agents[1]
    assert b.times.tolist() == [0.0, 0.5]
    assert b.positions_world.tolist() == [[3, 4, 5], [1, 2, 3]]
    assert b.actions.tolist() == [[1, 0], [0, 1]]
    assert b.extras["memory"].tolist() == [[2, 3], [0, 1]]
    assert (b.value_unit, b.rewards, b.transforms) == ("mm", None, None)
    assert b.boxes_world is not None
    assert b.boxes_world.shape == (2, 2, 3)


def test_a_last_step_without_action_and_reward() -> None:
    recording = Recording()
    first = step(0, ("a",), [0])
    recording.add(replace(first, rewards=np.ones(1)))
    recording.add(replace(first, actions=np.array([-1]), extras={}))
    (path,) = recording.trajectory().agents
    assert path.actions.tolist() == [[0, 0], [-1, -1]]
    np.testing.assert_array_equal(path.rewards, [1.0, np.nan])
    np.testing.assert_array_equal(path.extras["memory"], [[0, 1], [np.nan, np.nan]])


def test_rows_of_a_step_are_chosen_by_a_mask_or_by_number() -> None:
    whole = step(2, ("a", "b", "c"), [0, 1, 2])
    for rows in (np.array([False, True, True]), [1, 2]):
        part = whole.select(rows)
        assert part.names == ("b", "c")
        assert part.starts.tolist() == [1, 2]
        assert part.actions.tolist() == [[1, 2], [2, 2]]
        assert part.extras["memory"].tolist() == [[2, 3], [4, 5]]
        assert part.times is not None
        assert part.times.tolist() == [1.0, 1.0]
        assert part.rewards is None


def test_one_action_a_step_may_come_without_an_axis() -> None:
    one = Step(("a", "b"), np.zeros(2, int), np.zeros((2, 3)), np.ones(2), np.arange(2), np.ones(2))
    assert one.actions.tolist() == [[0], [1]]
