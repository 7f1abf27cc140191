"""Objects without names of their own: ``vertebra 1`` and ``vertebra 2`` are of one kind.

Truth has a row for every object, networks a head for every target. A target is one object, or any
of a kind: then whichever is nearest is meant.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

_NUMBERED = re.compile(r"(.*\S)\s+\d+")


def kind_of(name: str) -> str:
    """What an object is called without its number; its name if it has none."""
    numbered = _NUMBERED.fullmatch(name)
    return numbered[1] if numbered else name


@dataclass(frozen=True)
class Objects:
    """Objects R and the targets K that they are.

    Attributes:
        names: Of the objects.
        targets: Names of the targets.
        kinds: Those of the targets that there may be several of.
    """

    names: tuple[str, ...]
    targets: tuple[str, ...]
    kinds: tuple[str, ...]

    @classmethod
    def of(cls, names: Sequence[str]) -> Objects:
        """Sort objects by their names: a number at the end makes it one of a kind."""
        targets = tuple(dict.fromkeys(kind_of(name) for name in names))
        kinds = tuple(dict.fromkeys(kind_of(name) for name in names if kind_of(name) != name))
        return cls(tuple(names), targets, kinds)

    @property
    def target(self) -> Tensor:
        """(R,) int64, index of each object's target."""
        return torch.tensor([self.targets.index(kind_of(name)) for name in self.names])


def nearest(truth: Tensor, target: Tensor, wanted: Tensor, box: Tensor) -> Tensor:
    """The object that each of N agents is to find: of a kind, the one that its box is nearest to.

    Args:
        truth: (N, R, 2, 3) boxes of the objects in each agent's scan; NaN of what is not there.
        target: (R,) int64, which target each object is.
        wanted: (N,) int64, which target each agent looks for.
        box: (N, 2, 3), its box.

    Returns:
        (N, 2, 3); NaN where there is none.
    """
    away = (truth - box[:, None]).mean(dim=2).square().sum(dim=-1).nan_to_num(nan=torch.inf)
    # An object that is not there is still nearer than one of another target.
    row = torch.where(target == wanted[:, None], away.clamp(max=1e30), torch.inf).argmin(dim=1)
    return truth[torch.arange(len(row), device=row.device), row]
