"""Bringing scans onto other grids: isotropic ones that agents walk on, that of another scan."""

from __future__ import annotations

from typing import Any

import nibabel as nib
import numpy as np
import torch
from monai.data.meta_tensor import MetaTensor
from numpy.typing import ArrayLike, NDArray
from torch import Tensor
from torch.nn import functional as F

from medrl.errors import MedrlError
from medrl.memory import available_memory
from medrl.volume.grid import on_grid_of
from medrl.volume.space import apply_affine, as_affine, as_transform, same_grid, spacing_of

#: A grid that already has the wanted spacing and is tilted by less than this is left as it is.
_STRAIGHT_ENOUGH_DEG = 10.0
_SAME_SPACING = 0.01
_MOST_VOXELS = 2**30
#: No scan of a body is longer.
_LONGEST_MM = 5000.0
#: What a voxel of a resampled scan takes until agents walk on it: as float32, a few times over.
_BYTES_OF_A_VOXEL = 32
#: Grids count as parallel if no voxel is off by more than this share of one.
_SAME_PLACE = 1e-6
#: ... and as the same up to this share: headers are rounded in many ways.
_SAME_GRID = 0.01
#: Voxels that are sampled at a time.
_SLAB = 2**20


def smoothing_kernel(sigma: float) -> Tensor:
    """A Gaussian of the given sigma (voxels), cut at three sigma, sum 1, odd length, float32."""
    half = max(1, int(np.ceil(3 * sigma)))
    x = torch.arange(-half, half + 1, dtype=torch.float64)
    kernel = torch.exp(-0.5 * (x / sigma) ** 2)
    return (kernel / kernel.sum()).float()


def to_closest_axes(scan: MetaTensor) -> MetaTensor:
    """Permute and flip the array axes to the closest RAS order; no voxel value changes.

    Args:
        scan: MetaTensor (C, I, J, K) with its voxel-to-world affine.

    Returns:
        A view or copy whose affine has its largest entries on a positive diagonal.
    """
    affine = as_affine(scan.affine)
    orientation = nib.orientations.io_orientation(affine)
    array = scan.as_tensor()
    shape = array.shape[1:]
    source = [int(np.flatnonzero(orientation[:, 0] == axis)[0]) for axis in range(3)]
    array = array.permute(0, *(axis + 1 for axis in source))
    flipped = [t for t, s in enumerate(source) if orientation[s, 1] < 0]
    array = array.flip([t + 1 for t in flipped])
    new_affine = affine @ nib.orientations.inv_ornt_aff(orientation, shape)
    return MetaTensor(array.contiguous(), affine=torch.from_numpy(new_affine))


def resample_isotropic(scan: MetaTensor, *, spacing: float, background: float = 0.0) -> MetaTensor:
    """Bring a scan onto an isotropic grid along the world axes (RAS).

    A scan that has the spacing already and is tilted by less than 10 degrees is only permuted and
    flipped, so its voxels stay untouched. Anything else is smoothed along the axes that lose
    resolution and interpolated linearly onto a grid along the world axes that covers the whole
    scan; what lies outside the scan gets the background value.

    Args:
        scan: MetaTensor (C, I, J, K) with a voxel-to-world affine (RAS mm); oblique, anisotropic
            and flipped scans are ordinary input.
        spacing: Wanted voxel size in mm.
        background: Value outside the scan.

    Returns:
        MetaTensor (C, I', J', K'), float32, with its affine.

    Raises:
        MedrlError: If the affine is unusable or the resampled scan would be too large.
    """
    upright = to_closest_axes(scan)
    affine = as_affine(upright.affine)
    old_spacing = spacing_of(affine)
    tilt = np.degrees(np.arccos(np.clip(np.diag(affine[:3, :3]) / old_spacing, -1, 1)).max())
    if np.abs(old_spacing / spacing - 1).max() < _SAME_SPACING and tilt < _STRAIGHT_ENOUGH_DEG:
        return MetaTensor(upright.as_tensor().float(), affine=upright.affine)

    volume = upright.as_tensor().float()
    new_affine, shape = _covering_grid(affine, tuple(volume.shape[1:]), spacing)
    voxel = np.linalg.inv(affine) @ new_affine
    resampled = _resample(volume, spacing / old_spacing, voxel, shape, background)
    return MetaTensor(resampled, affine=torch.from_numpy(new_affine))


def resample_onto(
    scan: MetaTensor,
    *,
    affine: NDArray[np.float64],
    shape: tuple[int, int, int],
    background: float = 0.0,
) -> MetaTensor:
    """Bring a scan onto a given grid, smoothing along the axes that lose resolution.

    A grid that is the scan's own up to order and direction of the axes takes its voxels untouched.

    Args:
        scan: MetaTensor (C, I, J, K) with its voxel-to-world affine (RAS mm).
        affine: (4, 4), voxel of the wanted grid to world (RAS mm).
        shape: Size of the wanted grid.
        background: Value outside the scan.

    Returns:
        MetaTensor (C, I, J, K) on that grid, float32.

    Raises:
        MedrlError: If an affine is unusable.
    """
    upright = to_closest_axes(scan)
    wanted = torch.from_numpy(np.asarray(affine, dtype=np.float64))
    for own in (scan, upright):
        same = tuple(own.shape[1:]) == tuple(shape)
        if same and same_grid(as_affine(own.affine), affine, shape, within=_SAME_GRID):
            return MetaTensor(own.as_tensor().float(), affine=wanted)
    old, volume = as_affine(upright.affine), upright.as_tensor().float()
    # How many voxels of the scan a step along each of its axes takes on the new grid.
    steps = np.abs(np.linalg.inv(old)[:3, :3] @ affine[:3, :3]).max(axis=1)
    voxel = np.linalg.inv(old) @ affine
    sampled = _resample(volume, np.maximum(steps, 1.0), voxel, shape, background)
    return MetaTensor(sampled, affine=wanted)


def move_scan(
    moving: MetaTensor, transform_world: ArrayLike, onto: MetaTensor, *, nearest: bool = False
) -> MetaTensor:
    """Resample a moving scan onto the grid of the fixed one.

    Args:
        moving: MetaTensor (C, I, J, K).
        transform_world: 4x4 matrix, fixed to moving, RAS mm.
        onto: The fixed scan, of which only the grid matters.
        nearest: Take the nearest voxel, for label maps; otherwise interpolate linearly, after
            smoothing along axes that lose resolution.

    Returns:
        MetaTensor (C, I', J', K') on that grid: float32, outside the moving scan its lowest value;
        with ``nearest`` of the moving scan's own type, so that no label changes, and 0 outside.

    Raises:
        MedrlError: If the matrix is no transform or an affine is unusable.
    """
    matrix = as_transform(transform_world)
    source, target = as_affine(moving.affine), as_affine(onto.affine)
    i, j, k = onto.shape[1:]
    if not nearest:
        # In the fixed world the moving scan lies where the inverse brings it.
        there = place_scan(moving, matrix)
        low = float(moving.as_tensor().min())
        moved = resample_onto(there, affine=target, shape=(i, j, k), background=low)
        return on_grid_of(moved.as_tensor(), onto)
    voxel = np.linalg.inv(source) @ matrix @ target
    channels = moving.as_tensor().numpy(force=True)
    moved = np.stack([nearest_voxels(channel, voxel, (i, j, k)) for channel in channels])
    return on_grid_of(torch.from_numpy(moved), onto)


def nearest_voxels(
    volume: NDArray[Any], voxel_from_voxel: NDArray[np.float64], shape: tuple[int, int, int]
) -> NDArray[Any]:
    """Values of the nearest voxels on a new grid, of whatever type: nothing is calculated of them.

    The outermost voxels count to their outer faces, as everywhere in medrl.

    Args:
        volume: (I, J, K).
        voxel_from_voxel: (4, 4), voxel of the new grid to voxel of the volume.
        shape: The new grid.

    Returns:
        Array of that shape and of the volume's type; 0 outside the volume.
    """
    out = np.zeros(shape, dtype=volume.dtype)
    i, j, k = (np.arange(count, dtype=np.float64) for count in shape)
    rows = max(1, _SLAB // (shape[1] * shape[2]))
    for first in range(0, shape[0], rows):
        slab = slice(first, first + rows)
        indices, inside = [], np.True_
        for (x, y, z, shift), size in zip(voxel_from_voxel[:3], volume.shape, strict=True):
            place = x * i[slab, None, None] + (y * j[:, None] + z * k + shift)
            index = np.floor(place + 0.5)
            inside = inside & (index >= 0) & (index < size)
            indices.append(index)
        places = tuple(index[inside].astype(np.intp) for index in indices)
        out[slab][inside] = volume[places]
    return out


def check_size(extent_mm: ArrayLike, counts: ArrayLike, spacing: float) -> None:
    """Refuse a grid that no scan of a body needs, or that does not fit in memory.

    Args:
        extent_mm: (3,) of the scan.
        counts: (3,) voxels along each axis.
        spacing: Smallest voxel size, mm; for the message.

    Raises:
        MedrlError: If it is too large.
    """
    lengths = np.asarray(extent_mm, dtype=np.float64)
    voxels = float(np.prod(np.asarray(counts, dtype=np.float64)))
    most = min(_MOST_VOXELS, available_memory() / _BYTES_OF_A_VOXEL)
    if voxels > most or lengths.max() > _LONGEST_MM:
        extent = " x ".join(f"{length:.0f}" for length in lengths)
        memory = f": at {spacing:g} mm it would not fit in memory" if voxels > most else ""
        raise MedrlError(
            f"the scan spans {extent} mm{memory}; its header may give a wrong voxel size"
        )


def place_scan(scan: MetaTensor, transform_world: ArrayLike) -> MetaTensor:
    """The same voxels at another place in the world: nothing is resampled.

    Args:
        scan: The moving scan, MetaTensor (C, I, J, K).
        transform_world: 4x4 matrix, fixed to moving, RAS mm.

    Returns:
        MetaTensor (C, I, J, K) whose affine leads to the fixed world.

    Raises:
        MedrlError: If the matrix is no transform or the affine is unusable.
    """
    affine = np.linalg.inv(as_transform(transform_world)) @ as_affine(scan.affine)
    return MetaTensor(scan.as_tensor(), affine=torch.from_numpy(affine))


def _covering_grid(
    affine: NDArray[np.float64], shape: tuple[int, ...], spacing: float
) -> tuple[NDArray[np.float64], tuple[int, int, int]]:
    """World-aligned grid whose voxel centres span those of the scan."""
    corners = np.stack(np.meshgrid(*[(0, n - 1) for n in shape], indexing="ij"), -1).reshape(-1, 3)
    world = apply_affine(affine, corners)
    low, high = world.min(axis=0), world.max(axis=0)
    counts = np.maximum(np.floor((high - low) / spacing + 1e-6).astype(int) + 1, 1)
    check_size(high - low, counts, spacing)
    grid = np.diag([spacing, spacing, spacing, 1.0])
    grid[:3, 3] = low + ((high - low) - (counts - 1) * spacing) / 2
    return grid, (int(counts[0]), int(counts[1]), int(counts[2]))


def _resample(
    volume: Tensor,
    ratios: NDArray[np.float64],
    voxel_from_voxel: NDArray[np.float64],
    shape: tuple[int, int, int],
    background: float,
) -> Tensor:
    """Smooth (C, I, J, K) and interpolate it linearly on a new grid; background outside.

    Args:
        volume: What to resample.
        ratios: By how much each of its axes loses resolution.
        voxel_from_voxel: (4, 4), voxel of the new grid to voxel of the volume.
        shape: The new grid.
        background: Value outside.
    """
    linear = voxel_from_voxel[:3, :3]
    if np.abs(linear - np.diag(np.diag(linear))).max() * max(shape) > _SAME_PLACE:
        return _sample(_smooth(volume - background, ratios), voxel_from_voxel, shape) + background
    # Grids with the same axes: what happens along each of them is one small matrix.
    out = volume
    for axis, (count, ratio) in enumerate(zip(shape, ratios, strict=True)):
        places = linear[axis, axis] * np.arange(count) + voxel_from_voxel[axis, 3]
        matrix = _axis_matrix(volume.shape[1 + axis], places, float(ratio)).to(volume)
        if axis == 2:
            out = out @ matrix.T
        else:
            rows = out.flatten(2 + axis)
            out = (matrix @ rows).unflatten(-1, out.shape[2 + axis :])
        if axis == 0 and background:
            # As if it had been taken off before.
            out -= background * matrix.sum(dim=1)[:, None, None]
    return out.add_(background)


def _axis_matrix(size: int, places: NDArray[np.float64], ratio: float) -> Tensor:
    """(P, size): smoothing along an axis, then linear interpolation at some places of it."""
    lower = np.floor(places).astype(np.int64)
    weights = torch.zeros((len(places), size), dtype=torch.float64)
    for index, share in ((lower, 1 - (places - lower)), (lower + 1, places - lower)):
        row = np.flatnonzero((index >= 0) & (index < size))
        weights[row, index[row]] += torch.from_numpy(share[row])
    blurred = _smooth(torch.eye(size).view(1, size, size, 1), np.array([ratio, 1.0, 1.0]))
    return (weights @ blurred.view(size, size).double()).float()


def _smooth(volume: Tensor, ratios: NDArray[np.float64]) -> Tensor:
    """Smooth each axis of (C, I, J, K) that will lose resolution by the given ratio.

    Edge voxels stand for what was not scanned: no dark rim where the scan is cut.
    """
    out = volume
    for axis, ratio in enumerate(ratios, start=1):
        if ratio <= 1 + _SAME_SPACING:
            continue
        kernel = smoothing_kernel(0.5 * float(np.sqrt(ratio**2 - 1))).tolist()
        middle, count = len(kernel) // 2, out.shape[axis]
        # Shifted sums: several times as fast as a convolution of one channel on a CPU.
        total = out * kernel[middle]
        for distance, weight in enumerate(kernel[middle + 1 :], start=1):
            edge = min(distance, count)
            rest = count - edge
            for to, since, end, outermost in ((edge, 0, 0, 0), (0, edge, rest, count - 1)):
                total.narrow(axis, to, rest).add_(out.narrow(axis, since, rest), alpha=weight)
                rim = out.narrow(axis, outermost, 1)
                total.narrow(axis, end, edge).add_(rim, alpha=weight)
        out = total
    return out


def _sample(
    volume: Tensor, voxel_from_voxel: NDArray[np.float64], shape: tuple[int, int, int]
) -> Tensor:
    """Trilinear samples of (C, I, J, K) at an affine image of a new grid; 0 outside."""
    size = torch.tensor(volume.shape[1:], dtype=torch.float64)
    matrix = torch.from_numpy(voxel_from_voxel)
    axes = [torch.arange(n, dtype=torch.float64) for n in shape]
    out = volume.new_empty((volume.shape[0], *shape))
    # Slab by slab: the places alone take three times the memory of what is sampled there.
    for slab in torch.arange(shape[0]).split(max(1, _SLAB // (shape[1] * shape[2]))):
        parts = []
        for row in range(3):
            i, j, k = (matrix[row, column] * axes[column] for column in range(3))
            voxel = i[slab, None, None] + j[:, None] + k + matrix[row, 3]
            # grid_sample wants coordinates that run from -1 to 1 between voxel faces.
            parts.append(((2 * voxel + 1) / size[row] - 1).float())
        # ... and in the order (z, y, x).
        grid = torch.stack(parts[::-1], dim=-1).to(volume.device)
        out[:, slab] = F.grid_sample(
            volume.unsqueeze(0), grid.unsqueeze(0), padding_mode="zeros", align_corners=False
        ).squeeze(0)
    return out
