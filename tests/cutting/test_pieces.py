"""What agents are to carry, and how it is put together."""

from __future__ import annotations

import numpy as np
import torch

from medrl.cutting.pieces import Cuts, joined, pieces_of


def _mask(rows: slice) -> np.ndarray:
    mask = np.zeros((8, 8), dtype=bool)
    mask[rows, 2:6] = True
    return mask


def test_one_outline_is_carried_both_ways() -> None:
    pieces = pieces_of({(0, 1): {3: _mask(slice(2, 5))}}, [10])
    assert [(p.begin, p.direction, p.last, p.bound) for p in pieces] == [
        (3, 1, 9, False),
        (3, -1, 0, False),
    ]


def test_between_two_outlines_both_ends_carry() -> None:
    outlines = {3: _mask(slice(2, 5)), 7: _mask(slice(3, 6))}
    pieces = pieces_of({(0, 1): outlines}, [10])
    assert [(p.begin, p.direction, p.last, p.bound) for p in pieces] == [
        (3, 1, 6, True),
        (7, 1, 9, False),
        (7, -1, 4, True),
        (3, -1, 0, False),
    ]


def test_a_correction_leaves_the_pieces_that_it_does_not_touch() -> None:
    outlines = {3: _mask(slice(2, 5)), 7: _mask(slice(3, 6))}
    before = {p.key for p in pieces_of({(0, 1): outlines}, [10])}
    after = {p.key for p in pieces_of({(0, 1): {**outlines, 5: _mask(slice(1, 6))}}, [10])}
    kept = before & after
    assert len(kept) == 2, "the ends beyond 3 and 7 are as they were"
    changed = {p.key for p in pieces_of({(0, 1): {**outlines, 7: _mask(slice(3, 7))}}, [10])}
    assert len(before & changed) == 1, "only the end before 3 does not know of picture 7"


def test_the_nearer_outline_counts_more() -> None:
    outlines = {0: _mask(slice(2, 5)), 4: _mask(slice(2, 5))}
    forward, back = (p for p in pieces_of({(0, 1): outlines}, [5]) if p.bound)
    whole = torch.tensor([[-0.5, -0.5], [7.5, 7.5]])
    carried = []
    for piece, value in ((forward, 1.0), (back, 0.0)):
        cuts = Cuts()
        for picture in (1, 2, 3):
            cuts.add(picture, torch.full((8, 8), value), whole, 0.9)
        carried.append((piece, cuts))
    chance = joined(outlines, carried, (8, 8)).chance
    means = [float(chance[n].mean()) for n in (1, 2, 3)]
    assert np.allclose(means, [0.75, 0.5, 0.25], atol=1e-3)
