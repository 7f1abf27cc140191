"""What a call of :func:`medrl.roi.crop` asks for, checked once, the same for every device."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from medrl.errors import MedrlError
from medrl.roi.table import ScanStack

Integers = NDArray[np.int64]
Floats = NDArray[np.float64]

FAR = 2**40
"""Centers further out than this many voxels see nothing but background, and may not overflow."""

EDGE = 0.5 + 1e-9
"""A scan reaches half a voxel beyond its outermost voxel centers: -EDGE <= p < n - EDGE.

The rule of ITK's interpolators. The small surplus keeps positions that are half-integral but for
rounding on one side, whichever device computes them.
"""


@dataclass(frozen=True, eq=False)
class Request:
    """N windows, checked; all arrays are contiguous and on the host.

    Attributes:
        size: Window size (SI, SJ, SK) in voxels.
        copied: Agents (rows) whose windows are copied voxel by voxel.
        blended: The other agents, whose windows are interpolated.
        centers: int64 (N, 3), voxel nearest to each agent.
        positions: float64 (N, 3), or (0, 3) if nobody is blended.
        rotations: float64 (N, 3, 3), or (0, 3, 3) if there are none.
        scans: int64 (N,), or (1,) for all.
        levels: int64 (N,), or (1,) for all.
    """

    size: tuple[int, int, int]
    copied: Integers
    blended: Integers
    centers: Integers
    positions: Floats
    rotations: Floats
    scans: Integers
    levels: Integers


def check_request(
    stack: ScanStack,
    centers_voxel: Tensor | ArrayLike,
    size: int | Sequence[int],
    *,
    level: int | Tensor | ArrayLike,
    scan: int | Tensor | ArrayLike | None,
    rotation: Tensor | ArrayLike | None,
) -> Request:
    """Check the arguments of :func:`medrl.roi.crop` and bring them into one form.

    Raises:
        MedrlError: If a shape is wrong, a number is not finite, or a scan or level does not exist.
    """
    window = window_size(size)
    centers = _host(centers_voxel, "centers_voxel")
    count = len(centers) if centers.ndim else 0
    if centers.shape != (count, 3):
        raise MedrlError(f"centers_voxel must be of shape (N, 3), not {centers.shape}")
    scans = _per_agent(0 if scan is None else scan, count, "scan")
    levels = _per_agent(level, count, "level")
    if count:
        _check_rows(stack, scans, levels)
    if centers.dtype.kind in "iu" and rotation is None:
        whole = _plain(centers)
        return Request(window, _first(count), _first(0), whole, _NOWHERE, _UNTURNED, scans, levels)
    positions = np.array(centers, dtype=np.float64)
    _check_finite(positions, "centers_voxel")
    positions.clip(-FAR, FAR, out=positions)
    nearest = np.rint(positions)
    if rotation is None:
        rotations, whole_agents = _UNTURNED, (nearest == positions).all(axis=1)
    else:
        rotations, whole_agents = _rotations(rotation, count), np.zeros(count, dtype=bool)
    return Request(
        window,
        np.flatnonzero(whole_agents),
        np.flatnonzero(~whole_agents),
        nearest.astype(np.int64),
        positions,
        rotations,
        scans,
        levels,
    )


def window_size(size: int | Sequence[int]) -> tuple[int, int, int]:
    """One or three window sizes in voxels as three.

    Raises:
        MedrlError: If they are not one or three positive whole numbers.
    """
    if type(size) is int and size > 0:
        return (size, size, size)
    try:
        numbers = (int(size),) * 3 if np.ndim(size) == 0 else tuple(int(s) for s in size)  # type: ignore[arg-type, union-attr]
    except (TypeError, ValueError):
        numbers = ()
    if (
        len(numbers) != 3
        or min(numbers) < 1
        or not np.array_equal(np.broadcast_to(size, 3), numbers)
    ):
        raise MedrlError(f"size must be one or three positive whole numbers of voxels, not {size}")
    return numbers


def _host(values: Tensor | ArrayLike, name: str) -> NDArray[np.generic]:
    """A numeric array on the host; tensors on a device are waited for."""
    array = values.detach().cpu().numpy() if isinstance(values, Tensor) else np.asarray(values)
    if array.dtype.kind not in "iuf":
        raise MedrlError(f"{name} must hold numbers, not {array.dtype}")
    return array


def _plain(array: NDArray[np.generic]) -> Integers:
    """The one kind of array that the kernels are compiled for: int64, contiguous, writable."""
    if array.dtype == np.int64 and array.flags.carray:
        return array  # type: ignore[return-value]
    return np.require(array, np.int64, ["C", "W"])


def _per_agent(values: int | Tensor | ArrayLike, count: int, name: str) -> Integers:
    if isinstance(values, int):
        return _only(values)
    array = _host(values, name)
    if array.dtype.kind == "f" or array.shape not in ((), (count,)):
        raise MedrlError(
            f"{name} must be one whole number or {count}, one per center, "
            f"not {array.dtype} of shape {array.shape}"
        )
    return _plain(array.reshape(-1))


def _check_rows(stack: ScanStack, scans: Integers, levels: Integers) -> None:
    rows = stack.table.shape
    if len(scans) == len(levels) == 1:  # the common case, without array operations
        scan, level = int(scans[0]), int(levels[0])
        if 0 <= scan < rows[0] and 0 <= level < rows[1] and stack.table.item(scan, level, 0):
            return
    for name, values, limit in (("scan", scans, rows[0]), ("level", levels, rows[1])):
        if values.min() < 0 or values.max() >= limit:
            raise MedrlError(
                f"{name} must be between 0 and {limit - 1}, "
                f"not between {values.min()} and {values.max()}"
            )
    missing = stack.table[scans, levels, 0] == 0
    if missing.any():
        agent = int(missing.argmax())
        row = int(scans[agent % len(scans)])
        raise MedrlError(
            f"scan {row} has {len(stack.volumes[row])} levels: "
            f"level {int(levels[agent % len(levels)])} does not exist"
        )


def _rotations(rotation: Tensor | ArrayLike, count: int) -> Floats:
    matrices = _host(rotation, "rotation")
    if matrices.shape not in ((3, 3), (count, 3, 3)):
        raise MedrlError(
            f"rotation must be of shape (3, 3) or ({count}, 3, 3), not {matrices.shape}"
        )
    _check_finite(matrices, "rotation")
    return np.array(np.broadcast_to(matrices, (count, 3, 3)), dtype=np.float64, order="C")


def _check_finite(values: NDArray[np.generic], name: str) -> None:
    finite = np.isfinite(values)
    if not finite.all():
        first = tuple(int(i) for i in np.argwhere(~finite)[0])
        raise MedrlError(f"{name} must be finite: the value at {first} is {values[first]}")


@lru_cache(maxsize=64)
def _first(count: int) -> Integers:
    return np.arange(count)


@lru_cache(maxsize=64)
def _only(value: int) -> Integers:
    return np.array([value], dtype=np.int64)


_NOWHERE: Floats = np.empty((0, 3))
_UNTURNED: Floats = np.empty((0, 3, 3))
