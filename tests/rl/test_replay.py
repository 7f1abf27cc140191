"""Replays: what is kept, what gives way, what is drawn, and that they go on from a checkpoint."""

from pathlib import Path

import pytest
import torch
from torch import Generator, Tensor

from medrl.rl.checkpoint import load_checkpoint, save_checkpoint
from medrl.rl.replay import Fields, Replay, SequenceReplay
from tests.rl.resume import assert_same


def replay(capacity: int = 100, seed: int = 0) -> Replay:
    return Replay(capacity, generator=Generator().manual_seed(seed))


def add(buffer: Replay, numbers: range) -> None:
    """Transitions that can be told apart."""
    number = torch.tensor(list(numbers))
    place = number[:, None].expand(-1, 3)
    buffer.extend({"place": place, "action": number % 6, "reward": number.half() / 4})


def test_transitions_come_back_whole() -> None:
    buffer = replay()
    add(buffer, range(50))
    assert len(buffer) == 50
    drawn = buffer.sample(2000)
    number = drawn["place"][:, 0]
    counts = torch.bincount(number, minlength=50)
    assert 15 < int(counts.min()) <= int(counts.max()) < 70, "uniform over all that is held"
    assert (drawn["place"] == number[:, None]).all()
    assert (drawn["action"] == number % 6).all()
    assert drawn["reward"].dtype == torch.float16
    assert (drawn["reward"] == number / 4).all()


@pytest.mark.parametrize("at_once", [1, 7, 10, 20, 60])
def test_the_oldest_give_way(at_once: int) -> None:
    buffer = replay(capacity=20)
    for start in range(0, 60, at_once):
        add(buffer, range(start, min(60, start + at_once)))
    assert len(buffer) == 20
    assert set(buffer.sample(400)["place"][:, 0].tolist()) == set(range(40, 60))


def test_what_holds_no_more_is_left_out() -> None:
    buffer = replay()
    add(buffer, range(60))
    drawn = buffer.sample(400, valid=lambda drawn: drawn["action"] != 2)
    assert set(drawn["action"].tolist()) == {0, 1, 3, 4, 5}
    assert 300 < len(drawn["action"]) == len(drawn["place"]) < 370
    assert len(buffer.sample(9, valid=lambda drawn: drawn["action"] > 9)["place"]) == 0


def test_seeds_reproduce() -> None:
    draws = []
    for seed in (1, 1, 2):
        buffer = replay(seed=seed)
        add(buffer, range(50))
        draws.append(buffer.sample(30)["place"])
    assert torch.equal(draws[0], draws[1])
    assert not torch.equal(draws[0], draws[2])


@pytest.mark.parametrize("held", [3, 13, 20, 33])
def test_a_replay_goes_on_from_a_checkpoint(tmp_path: Path, held: int) -> None:
    whole, parts = replay(20), replay(20)
    for buffer in (whole, parts):
        add(buffer, range(held))
    save_checkpoint(tmp_path / "r.safetensors", parts.state_dict(), signature={})
    again = replay(20)
    add(again, range(500, 507))  # what it held before is gone
    again.load_state_dict(load_checkpoint(tmp_path / "r.safetensors", signature={}))
    for buffer in (whole, again):
        add(buffer, range(held, held + 9))
    assert len(again) == len(whole)
    assert_same(again.state_dict(), whole.state_dict())
    assert_same(again.sample(50), whole.sample(50))


# Sequences ------------------------------------------------------------------------------------

#: Lengths of the episodes of each agent, one after the other; the last goes on.
EPISODES = ((3, 1, 4, 2, 9), (5, 5, 9), (2, 2, 2, 2, 2, 9))


def walk(buffer: SequenceReplay, steps: range) -> None:
    """Each agent's steps: which agent, which episode, how far into it, and when."""
    for time in steps:
        rows = []
        for agent, lengths in enumerate(EPISODES):
            episode = within = 0
            left = time
            while left >= lengths[episode]:
                left, episode = left - lengths[episode], episode + 1
            within = left
            rows.append((agent, episode, within, time))
        agent, episode, within, when = torch.tensor(rows).T
        fields = {"agent": agent, "episode": episode, "within": within, "time": when}
        buffer.extend(fields, begins=within == 0)


def check(fields: Fields, mask: Tensor) -> None:
    same = fields["episode"] == fields["episode"][:, :1]
    assert torch.equal(mask, same)
    assert (fields["agent"] == fields["agent"][:, :1]).all()
    length = mask.shape[1]
    assert torch.equal(fields["time"] - fields["time"][:, :1], torch.arange(length).expand_as(mask))


@pytest.mark.parametrize(
    ("capacity", "held"), [(20, range(10)), (7, range(3, 10)), (5, range(5, 10))]
)
def test_sequences_are_steps_of_one_agent_in_a_row(capacity: int, held: range) -> None:
    buffer = SequenceReplay(capacity, generator=Generator().manual_seed(0))
    walk(buffer, range(10))
    assert len(buffer) == len(held)
    fields, mask = buffer.sample(3000, 4)
    check(fields, mask)
    starts = set(zip(*(fields[key][:, 0].tolist() for key in ("agent", "time")), strict=True))
    assert starts == {(agent, time) for agent in range(3) for time in held[:-3]}
    counts = torch.bincount(fields["agent"][:, 0] * 10 + fields["time"][:, 0])
    counts = counts[counts > 0]
    assert float(counts.max()) < 2 * float(counts.min()), "uniform"


def test_agents_that_wait_are_left_out() -> None:
    buffer = SequenceReplay(20, generator=Generator().manual_seed(0))
    for time in range(8):
        # Both begin together at 0 and 4; the second takes two steps of each episode only.
        active = torch.tensor([True, time % 4 < 2])
        begins = torch.tensor([time % 4 == 0] * 2)
        buffer.extend({"time": torch.tensor([time, 10 + time])}, begins=begins, active=active)
    fields, mask = buffer.sample(500, 3)
    found = {tuple(t[m].tolist()) for t, m in zip(fields["time"], mask, strict=True)}
    assert found == {
        (0, 1, 2), (1, 2, 3), (2, 3), (3,), (4, 5, 6), (5, 6, 7),
        (10, 11), (11,), (14, 15), (15,),
    }  # fmt: skip


@pytest.mark.parametrize("held", [2, 7, 9])
def test_sequences_go_on_from_a_checkpoint(tmp_path: Path, held: int) -> None:
    whole, parts, again = (
        SequenceReplay(7, generator=Generator().manual_seed(0)) for _ in range(3)
    )
    for buffer in (whole, parts):
        walk(buffer, range(held))
    save_checkpoint(tmp_path / "r.safetensors", parts.state_dict(), signature={})
    again.load_state_dict(load_checkpoint(tmp_path / "r.safetensors", signature={}))
    for buffer in (whole, again):
        walk(buffer, range(held, held + 4))
    assert_same(again.state_dict(), whole.state_dict())
    assert_same(again.sample(50, 3), whole.sample(50, 3))
