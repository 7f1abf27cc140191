"""How targets lie relative to each other: a tree of displacements, and the best fit to candidates.

Five vertebrae look alike; which is which shows in what lies above and below. Pictorial structures
(Felzenszwalb and Huttenlocher 2005): the sum of what speaks for each candidate and of how well
neighbours lie to each other is maximised exactly, by passing messages along the tree.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse.csgraph import breadth_first_order, minimum_spanning_tree
from torch import Tensor

Array = NDArray[np.float64]

#: A displacement varies by this share of its length beyond what training has shown: people differ,
#: and lie at an angle.
_ROOM = 0.15
#: No displacement counts for more than this many standard deviations against a candidate.
_FARTHEST = 4.0
#: What speaks for it that a target is not there, where the best candidate has this probability.
_ABSENT = 0.1


@dataclass(frozen=True, eq=False)
class Layout:
    """Displacements along a tree over the targets.

    Attributes:
        parent: (K,) int64, of each target; -1 for the root.
        mean: (K, 3) mm, from the parent's middle to the target's.
        spread: (K,) mm, standard deviation along each axis.
        size: (K, 3) mm, mean size of a target's box; 0 if nothing is known of it.
    """

    parent: NDArray[np.int64]
    mean: Array
    spread: Array
    size: Array

    @staticmethod
    def fit(boxes: Array) -> Layout:
        """Choose the tree whose displacements vary least.

        Args:
            boxes: (S, K, 2, 3) mm, in S scans; NaN where one is not known.
        """
        centers = boxes.mean(axis=2)
        count = centers.shape[1]
        mean, spread = np.zeros((count, count, 3)), np.full((count, count), 1e6)
        for a in range(count):
            away = centers - centers[:, a : a + 1]
            known = np.asarray(np.isfinite(away).all(axis=2))
            for b in np.flatnonzero(known.sum(axis=0) >= 2):
                own = away[known[:, b], b]
                mean[a, b] = own.mean(axis=0)
                room = _ROOM * np.linalg.norm(mean[a, b])
                spread[a, b] = np.sqrt(own.var(axis=0).mean() + room**2 + 1.0)
        tree = minimum_spanning_tree(spread)
        _, parent = breadth_first_order(tree, _middle(tree.toarray()), directed=False)
        parent = np.maximum(np.asarray(parent), -1).astype(np.int64)
        rows = np.arange(count)
        sizes = np.ma.masked_invalid(boxes[:, :, 1] - boxes[:, :, 0])
        size = sizes.mean(axis=0).filled(0.0)
        return Layout(parent, mean[parent, rows], spread[parent, rows], size)

    def choose(self, scores: Sequence[Array], centers: Sequence[Array]) -> list[int | None]:
        """The best candidate of every target, all together; None for one that is not there.

        Args:
            scores: (C,) probability of every candidate, for each of K targets.
            centers: (C, 3) mm, their middles.
        """
        count = len(self.parent)
        own = [np.append(np.log(np.maximum(s, 1e-6)), np.log(_ABSENT)) for s in scores]
        best_of: list[NDArray[np.intp]] = [np.zeros(0, dtype=np.intp)] * count
        for child in reversed(self._order()):
            parent = self.parent[child]
            if parent < 0:
                continue
            fit = np.zeros((len(own[parent]), len(own[child])))
            away = centers[child][None] - centers[parent][:, None] - self.mean[child]
            off = np.linalg.norm(away, axis=2) / self.spread[child]
            fit[:-1, :-1] = -0.5 * np.minimum(off, _FARTHEST) ** 2
            fit[:-1, -1] = fit[-1, :-1] = -1.0
            total = fit + own[child][None]
            best_of[child] = total.argmax(axis=1)
            own[parent] = own[parent] + total.max(axis=1)
        chosen = [0] * count
        for target in self._order():
            parent = self.parent[target]
            row = best_of[target][chosen[parent]] if parent >= 0 else own[target].argmax()
            chosen[target] = int(row)
        return [
            row if row < len(found) else None for row, found in zip(chosen, scores, strict=True)
        ]

    def guess(self, centers: Array) -> Array:
        """Where targets must be, by those that were found.

        Args:
            centers: (K, 3) mm, middles of what was found; NaN of the others.

        Returns:
            (K, 3) mm, where each of the others is by the mean displacements from the nearest
            targets along the tree that were found; NaN if none was.
        """
        guess = centers.copy()
        for _ in range(len(guess)):
            before = guess.copy()
            for target in np.flatnonzero(np.isnan(before[:, 0])):
                children = np.flatnonzero(self.parent == target)
                says = [before[child] - self.mean[child] for child in children]
                if self.parent[target] >= 0:
                    says.append(before[self.parent[target]] + self.mean[target])
                known = [one for one in says if np.isfinite(one).all()]
                if known:
                    guess[target] = np.mean(known, axis=0)
        return guess

    def tensors(self) -> dict[str, Tensor]:
        """As stored with a model."""
        return {
            "layout.parent": torch.from_numpy(self.parent).float(),
            "layout.mean": torch.from_numpy(self.mean).float(),
            "layout.spread": torch.from_numpy(self.spread).float(),
            "layout.size": torch.from_numpy(self.size).float(),
        }

    @staticmethod
    def from_tensors(tensors: Mapping[str, Tensor]) -> Layout:
        """Take back what :meth:`tensors` gave."""
        parent, mean, spread, size = (
            tensors[f"layout.{name}"].double().numpy()
            for name in ("parent", "mean", "spread", "size")
        )
        return Layout(parent.astype(np.int64), mean, spread, size)

    def _order(self) -> list[int]:
        """Targets, parents before children."""
        depth = []
        for target in range(len(self.parent)):
            steps, at = 0, target
            while self.parent[at] >= 0:
                steps, at = steps + 1, int(self.parent[at])
            depth.append(steps)
        return [int(target) for target in np.argsort(depth, kind="stable")]


def _middle(tree: Array) -> int:
    """The node of a tree with most neighbours."""
    joined = np.asarray(tree + tree.T > 0)
    return int(joined.sum(axis=0).argmax())
