"""Sources take turns; items of a pool are made once, of seeds, and made again from its state."""

from pathlib import Path

import pytest
import torch
from torch import Generator

from medrl.rl.checkpoint import load_checkpoint, save_checkpoint
from medrl.rl.pool import Pool, Shuffle


class Maker:
    """Makes items that say what they are made of, and counts."""

    def __init__(self) -> None:
        self.made: list[int] = []

    def __call__(self, source: int, generator: Generator) -> tuple[int, float]:
        self.made.append(source)
        return source, float(torch.rand((), generator=generator))


Item = tuple[int, float]


def pool(maker: Maker, *, size: int = 4, sources: int = 3, seed: int = 0) -> Pool[Item]:
    generator = Generator().manual_seed(seed)
    return Pool(maker, size=size, sources=sources, generator=generator)


def items(one: Pool[Item]) -> list[Item]:
    return [one[slot] for slot in range(len(one))]


def test_each_round_has_every_number_once() -> None:
    shuffle = Shuffle(5, generator=Generator().manual_seed(0))
    rounds = [[shuffle.draw() for _ in range(5)] for _ in range(6)]
    assert all(sorted(one) == [0, 1, 2, 3, 4] for one in rounds)
    assert len({tuple(one) for one in rounds}) > 3


def test_items_are_made_when_looked_at_and_once() -> None:
    maker = Maker()
    one = pool(maker)
    assert maker.made == []
    first = one[2]
    assert one[2] is first
    assert len(maker.made) == 1
    assert len({value for _, value in items(one)}) == 4
    assert set(maker.made) == {0, 1, 2}


def test_the_oldest_are_replaced() -> None:
    one = pool(Maker())
    before = items(one)
    assert one.renew() == [0]
    assert [a is b for a, b in zip(before, items(one), strict=True)] == [False, True, True, True]
    assert one.renew(4) == [1, 2, 3, 0]
    assert not {value for _, value in before} & {value for _, value in items(one)}
    assert [one.version(slot) for slot in range(4)] == [2, 1, 1, 1]


@pytest.mark.parametrize("renewals", [0, 1, 6])
def test_a_pool_is_made_again_from_its_state(tmp_path: Path, renewals: int) -> None:
    whole, other = pool(Maker()), pool(Maker(), seed=5)
    items(other)
    for one in (whole, other):
        one.renew(renewals)
    save_checkpoint(tmp_path / "p.safetensors", whole.state_dict(), signature={})
    other.load_state_dict(load_checkpoint(tmp_path / "p.safetensors", signature={}))
    assert items(other) == items(whole)
    assert [other.version(slot) for slot in range(4)] == [whole.version(slot) for slot in range(4)]


def test_states_of_other_data_are_refused() -> None:
    with pytest.raises(ValueError, match="a state of 3 samples, not 7"):
        pool(Maker(), sources=7).load_state_dict(pool(Maker()).state_dict())
    with pytest.raises(ValueError, match="a state of 4 items, not 6"):
        pool(Maker(), size=6).load_state_dict(pool(Maker()).state_dict())
