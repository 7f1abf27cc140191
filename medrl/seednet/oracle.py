"""Who knows the truth and places seeds like a person correcting: in the middle of what is wrong."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from scipy import ndimage
from torch import Generator, Tensor

from medrl.seednet.dynamics import SeedDynamics, SeedState
from medrl.seednet.segmenter import BACKGROUND, FOREGROUND, NONE


def oracle_seed(
    mask: ArrayLike,
    truth: ArrayLike,
    *,
    forbidden: ArrayLike | None = None,
    generator: Generator | None = None,
) -> tuple[tuple[int, int, int], int] | None:
    """Innermost voxel of the largest error.

    Errors are the 6-connected components of what is missing and of what is too much, each on its
    own. The innermost voxel is the one farthest from the outside of its component; outside the
    window counts as outside.

    Args:
        mask: (I, J, K) bool.
        truth: (I, J, K) bool.
        forbidden: (2, I, J, K) bool, where no background (0) or foreground (1) seed may go. The
            voxel is the innermost of the others; components without any are passed over.
        generator: Draws among equally good voxels, on the CPU; the first in C order if None.

    Returns:
        The voxel (i, j, k) and the label that it should have; None if there is no error that can
        be corrected.
    """
    masked, true = _array(mask), _array(truth)
    barred = None if forbidden is None else _array(forbidden)
    found: list[tuple[int, int, NDArray[np.bool_], tuple[slice, ...]]] = []
    for label, wrong in ((BACKGROUND, masked & ~true), (FOREGROUND, true & ~masked)):
        components, count = ndimage.label(wrong)
        if count == 0:
            continue
        sizes = np.bincount(components.ravel())
        for number, box in enumerate(ndimage.find_objects(components), start=1):
            found.append((int(sizes[number]), label, components[box] == number, box))
    for _, label, component, box in sorted(found, key=lambda item: -item[0]):
        usable = component if barred is None else component & ~barred[label][box]
        if not usable.any():
            continue
        depth = ndimage.distance_transform_edt(np.pad(component, 1))[1:-1, 1:-1, 1:-1]
        depth = np.where(usable, depth, 0.0)
        best = np.argwhere(depth >= depth.max() - 1e-9)
        draw = 0
        if generator is not None:
            draw = int(torch.randint(len(best), (), generator=generator))
        i, j, k = (int(side.start + offset) for side, offset in zip(box, best[draw], strict=True))
        return (i, j, k), label
    return None


def oracle_seeds(
    mask: Tensor,
    truth: Tensor,
    *,
    forbidden: Tensor | None = None,
    generator: Generator | None = None,
) -> tuple[Tensor, Tensor]:
    """:func:`oracle_seed` for N windows.

    Args:
        mask: (N, I, J, K) bool.
        truth: (N, I, J, K) bool.
        forbidden: (N, 2, I, J, K) bool or None.
        generator: As there.

    Returns:
        Voxels (N, 3) int64 and labels (N,) int64; -1 and NONE where there is nothing to correct.
    """
    voxels = torch.full((len(mask), 3), -1, dtype=torch.int64)
    labels = torch.full((len(mask),), NONE, dtype=torch.int64)
    for n in range(len(mask)):
        barred = None if forbidden is None else forbidden[n]
        seed = oracle_seed(mask[n], truth[n], forbidden=barred, generator=generator)
        if seed is not None:
            voxels[n], labels[n] = torch.tensor(seed[0]), seed[1]
    return voxels.to(mask.device), labels.to(mask.device)


def oracle_actions(
    dynamics: SeedDynamics,
    state: SeedState,
    truth: Tensor,
    *,
    generator: Generator | None = None,
) -> Tensor:
    """Actions of the agent that knows the truth; all of them allowed.

    Args:
        dynamics: What the actions mean.
        state: N agents.
        truth: (N, I, J, K) bool.
        generator: As in :func:`oracle_seed`.

    Returns:
        (N,) int64, STOP where there is nothing to correct.
    """
    seeds = oracle_seeds(state.mask, truth, forbidden=~state.free, generator=generator)
    return dynamics.action_at(*seeds, truth.shape)


def _array(values: Any) -> NDArray[np.bool_]:
    return np.asarray(values.cpu() if isinstance(values, Tensor) else values, dtype=bool)


__all__ = ["oracle_actions", "oracle_seed", "oracle_seeds"]
