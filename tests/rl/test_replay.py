"""Replay of places: what is kept, what gives way, what is outdated."""

import torch

from medrl.rl.replay import PositionReplay


def replay(capacity: int = 100, seed: int = 0) -> PositionReplay:
    return PositionReplay(capacity, generator=torch.Generator().manual_seed(seed))


def add(buffer: PositionReplay, numbers: range, *, slot: int = 0, version: int = 1) -> None:
    """Transitions that can be told apart: number n went from (n, n, n) to (n + 1, n, n)."""
    number = torch.tensor(list(numbers))
    place = number[:, None].expand(-1, 3)
    buffer.extend(
        slot=torch.full_like(number, slot),
        version=torch.full_like(number, version),
        position=place,
        action=number % 6,
        after=place + torch.tensor([1, 0, 0]),
    )


def test_transitions_come_back_whole() -> None:
    buffer = replay()
    add(buffer, range(50))
    assert len(buffer) == 50
    drawn = buffer.sample(2000, torch.tensor([1]))
    assert len(drawn) == 2000
    number = drawn["position"][:, 0]
    counts = torch.bincount(number, minlength=50)
    assert 15 < int(counts.min()) <= int(counts.max()) < 70, "uniform over all that is held"
    assert (drawn["position"] == number[:, None]).all()
    assert (drawn["action"] == number % 6).all()
    assert (drawn["after"] - drawn["position"] == torch.tensor([1, 0, 0])).all()


def test_the_oldest_give_way() -> None:
    buffer = replay(capacity=20)
    for start in range(0, 60, 10):
        add(buffer, range(start, start + 10))
    assert len(buffer) == 20
    drawn = buffer.sample(300, torch.tensor([1]))
    assert set(drawn["position"][:, 0].tolist()) == set(range(40, 60))


def test_outdated_transitions_are_dropped() -> None:
    buffer = replay()
    add(buffer, range(0, 20), slot=0, version=1)
    add(buffer, range(20, 40), slot=1, version=1)
    add(buffer, range(40, 60), slot=1, version=2)
    both = buffer.sample(400, torch.tensor([1, 2]))
    assert set(both["position"][:, 0].tolist()) == {*range(0, 20), *range(40, 60)}
    assert 200 < len(both) < 330
    assert len(buffer.sample(50, torch.tensor([5, 5]))) == 0


def test_seeds_reproduce() -> None:
    draws = []
    for seed in (1, 1, 2):
        buffer = replay(seed=seed)
        add(buffer, range(50))
        draws.append(buffer.sample(30, torch.tensor([1]))["position"])
    assert torch.equal(draws[0], draws[1])
    assert not torch.equal(draws[0], draws[2])
