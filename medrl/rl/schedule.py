"""How the learning rate goes during a training."""

from __future__ import annotations

import math


def one_cycle(step: int, steps: int, *, warmup: float = 0.05) -> float:
    """Share of the highest learning rate: a linear rise, then a cosine to zero (Smith 2018).

    Args:
        step: Steps done.
        steps: Steps in all.
        warmup: Share of the steps that the rise takes.
    """
    rise = warmup * steps
    if step < rise:
        return min(1.0, (step + 1) / rise)
    return 0.5 * (1 + math.cos(math.pi * (step - rise) / max(1.0, steps - rise)))
