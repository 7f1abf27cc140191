"""Which candidate is meant, against trying all combinations."""

from __future__ import annotations

from itertools import product

import numpy as np

from medrl.localization.layout import Layout


def chain(random: np.random.Generator) -> np.ndarray:
    """Five middles in a row, 34 mm apart, somewhere."""
    return random.normal(0, 60, 3) + np.arange(5)[:, None] * [2.0, 5.0, -34.0]


def boxes(centers: np.ndarray) -> np.ndarray:
    """Boxes of 20 x 30 x 24 mm around middles (..., 3)."""
    half = np.array([10.0, 15.0, 12.0])
    return np.stack([centers - half, centers + half], axis=-2)


def test_a_row_of_look_alikes_is_named_by_how_they_lie():
    random = np.random.default_rng(0)
    training = np.stack([chain(random) + random.normal(0, 2, (5, 3)) for _ in range(20)])
    layout = Layout.fit(boxes(training))
    for _ in range(20):
        true = chain(random)
        sixth = true[-1:] + np.array([2.0, 5.0, -34.0])
        places = np.concatenate([true, sixth])
        # Each may be any of six look-alikes; which is which is known a little, at the ends only.
        scores = [np.full(6, 0.5) for _ in range(5)]
        scores[0][0] = scores[4][4] = 0.7
        chosen = layout.choose(scores, [places] * 5)
        assert chosen == [0, 1, 2, 3, 4]


def test_the_choice_is_the_best_of_all():
    random = np.random.default_rng(1)
    training = np.stack([random.normal(0, 30, (4, 3)) * 0 + np.eye(4, 3) * 40 for _ in range(5)])
    layout = Layout.fit(boxes(training + random.normal(0, 3, training.shape)))
    for _ in range(20):
        scores = [random.uniform(0.05, 1, 3) for _ in range(4)]
        centers = [random.normal(0, 40, (3, 3)) for _ in range(4)]

        def total(rows, scores=scores, centers=centers):
            value = sum(
                np.log(0.1) if row == 3 else np.log(own[row])
                for row, own in zip(rows, scores, strict=True)
            )
            for child, parent in enumerate(layout.parent):
                if parent < 0:
                    continue
                a, b = rows[child], rows[parent]
                if 3 in (a, b):
                    value += -1.0 if (a == 3) != (b == 3) else 0.0
                    continue
                off = centers[child][a] - centers[parent][b] - layout.mean[child]
                off = np.linalg.norm(off) / layout.spread[child]
                value += -0.5 * min(off, 4.0) ** 2
            return value

        best = max(product(range(4), repeat=4), key=total)
        chosen = layout.choose(scores, centers)
        assert [3 if row is None else row for row in chosen] == list(best)


def test_nothing_to_choose_from_is_absent():
    layout = Layout.fit(boxes(np.stack([chain(np.random.default_rng(n)) for n in range(5)])))
    empty = [np.zeros(0)] * 5
    assert layout.choose(empty, [np.zeros((0, 3))] * 5) == [None] * 5


def test_what_was_not_found_is_guessed_from_its_neighbours():
    random = np.random.default_rng(2)
    layout = Layout.fit(boxes(np.stack([chain(random) for _ in range(5)])))
    true = chain(random)
    for missing in ([2], [0, 1], [0, 4], [1, 2, 3, 4]):
        known = true.copy()
        known[missing] = np.nan
        np.testing.assert_allclose(layout.guess(known), true, atol=1e-6)
    assert np.isnan(layout.guess(np.full((5, 3), np.nan))).all()
    np.testing.assert_allclose(layout.size, [[20.0, 30.0, 24.0]] * 5)
