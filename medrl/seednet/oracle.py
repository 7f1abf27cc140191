"""Who knows the truth and places seeds like a person correcting: in the middle of what is wrong."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from scipy import ndimage
from torch import Generator, Tensor

from medrl.seednet.dynamics import SeedDynamics, SeedState
from medrl.walker.segmenter import BACKGROUND, FOREGROUND, NONE

#: A voxel (i, j, k) and the label that it should have.
VoxelSeed = tuple[tuple[int, int, int], int]


def oracle_seed(
    mask: ArrayLike,
    truth: ArrayLike,
    *,
    forbidden: ArrayLike | None = None,
    generator: Generator | None = None,
) -> VoxelSeed | None:
    """Innermost voxel of the largest error; None if there is none that can be corrected.

    Errors are the 6-connected components of what is missing and of what is too much, each on its
    own. The innermost voxel is the one farthest from the outside of its component; outside the
    window counts as outside.

    Args:
        mask: (I, J, K) bool.
        truth: (I, J, K) bool.
        forbidden: (2, I, J, K) bool, where no background (0) or foreground (1) seed may go. The
            voxel is the innermost of the others; components without any are passed over.
        generator: Draws among equally good voxels, on the CPU; the first in C order if None.
    """
    masked, true = _array(mask), _array(truth)
    excluded = None if forbidden is None else _array(forbidden)
    errors = [
        (size, label, component, corner)
        for label, wrong in ((BACKGROUND, masked & ~true), (FOREGROUND, true & ~masked))
        for size, component, corner in _components(wrong)
    ]
    for _, label, component, corner in sorted(errors, key=lambda error: -error[0]):
        usable = component
        if excluded is not None:
            box = tuple(slice(c, c + s) for c, s in zip(corner, component.shape, strict=True))
            usable = component & ~excluded[label][box]
        if not usable.any():
            continue
        depth = ndimage.distance_transform_edt(np.pad(component, 1))[1:-1, 1:-1, 1:-1] * usable
        best = np.argwhere(depth >= depth.max() - 1e-9)
        draw = 0
        if generator is not None:
            draw = int(torch.randint(len(best), (), generator=generator))
        i, j, k = (int(x) for x in best[draw] + corner)
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

    Returns:
        Voxels (N, 3) int64 and labels (N,) int64; -1 and NONE where there is nothing to correct.
    """
    voxels = torch.full((len(mask), 3), -1, dtype=torch.int64)
    labels = torch.full((len(mask),), NONE, dtype=torch.int64)
    for n in range(len(mask)):
        excluded = None if forbidden is None else forbidden[n]
        seed = oracle_seed(mask[n], truth[n], forbidden=excluded, generator=generator)
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
    """Actions (N,) of agents that know the truth (N, I, J, K); STOP where nothing is wrong."""
    seeds = oracle_seeds(state.mask, truth, forbidden=~state.free, generator=generator)
    return dynamics.action_at(*seeds, truth.shape)


def _components(
    wrong: NDArray[np.bool_],
) -> Iterator[tuple[int, NDArray[np.bool_], tuple[int, ...]]]:
    """Size of every component, the component in its bounding box, and the box's first corner."""
    boxes = ndimage.find_objects(wrong.view(np.uint8))
    if not boxes:
        return
    outer = boxes[0]
    numbers, _ = ndimage.label(wrong[outer])
    sizes = np.bincount(numbers.ravel())
    for number, box in enumerate(ndimage.find_objects(numbers), start=1):
        corner = tuple(int(a.start + b.start) for a, b in zip(outer, box, strict=True))
        yield int(sizes[number]), numbers[box] == number, corner


def _array(values: Any) -> NDArray[np.bool_]:
    return np.asarray(values.cpu() if isinstance(values, Tensor) else values, dtype=bool)
