"""Whole registrations with a known answer, made from single scans, to measure on."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from monai.data.meta_tensor import MetaTensor
from numpy.typing import NDArray
from torch import Generator

from medrl.errors import MedrlError
from medrl.registration.data import body_mask, body_points
from medrl.registration.synthesis import remap
from medrl.registration.transforms import about, compose, random_rotations
from medrl.volume.augment import bias_field
from medrl.volume.intensity import NormalizeForeground
from medrl.volume.read import read
from medrl.volume.resample import resample_onto
from medrl.volume.space import apply_affine, as_affine

_CURVE_TOP = 1.5
_BIAS = 0.3
_NOISE = 0.03
#: Share of the points that must stay in view; poses with fewer are drawn again, so many times.
_IN_VIEW = 0.6
_DRAWS = 1000


@dataclass(frozen=True, eq=False)
class PosedCase:
    """A scan and a copy of it in another pose and contrast.

    Attributes:
        name: Of the scan.
        fixed: (1, I, J, K).
        moving: (1, I, J, K) on the same grid, what left it cut off.
        truth_world: (4, 4) fixed to moving, RAS mm.
        points_world: (P, 3) points of the object in the fixed scan, RAS mm.
    """

    name: str
    fixed: MetaTensor
    moving: MetaTensor
    truth_world: NDArray[np.float64]
    points_world: NDArray[np.float64]

    def error_mm(self, transform_world: NDArray[np.float64]) -> float:
        """Mean distance of the points from where they belong, mm."""
        apart = apply_affine(transform_world, self.points_world)
        apart = apart - apply_affine(self.truth_world, self.points_world)
        return float(np.linalg.norm(apart, axis=1).mean())


def make_case(path: Path, *, turn: float | None, shift: float, generator: Generator) -> PosedCase:
    """Pose a copy of a scan at random.

    Args:
        path: The scan.
        turn: Largest angle about each axis, degrees; None for any orientation.
        shift: Largest shift along each axis, mm.
        generator: Source of randomness.

    Raises:
        MedrlError: If the scan cannot be read, is constant, or hardly ever stays in view.
    """
    fixed = read(path)[:1]
    affine = as_affine(fixed.affine)
    shape = (fixed.shape[1], fixed.shape[2], fixed.shape[3])
    normal = NormalizeForeground()(fixed).as_tensor()
    body = body_mask(normal)
    voxels = body_points(normal, body, generator=generator)
    points = apply_affine(affine, voxels.numpy())
    pivot = torch.from_numpy(apply_affine(affine, (np.asarray(shape) - 1) / 2))
    for _ in range(_DRAWS):
        truth = _pose(turn, shift, pivot, generator).numpy()
        moved = apply_affine(np.linalg.inv(affine) @ truth, points)
        inside = (moved >= 0) & (moved <= np.asarray(shape) - 1)
        if inside.all(axis=1).mean() >= _IN_VIEW:
            break
    else:
        raise MedrlError("the scan shows too little to be turned and shifted that far")
    kind = 0.6 * float(torch.rand((), generator=generator))
    curve = remap(kind, generator)
    look = curve[(normal * (255 / _CURVE_TOP)).round().int()] * body
    look = look * bias_field(look.shape[1:], _BIAS, generator)
    copy = MetaTensor(look, affine=torch.from_numpy(truth @ affine))
    moving = resample_onto(copy, affine=affine, shape=shape).as_tensor()
    noise = _NOISE * torch.randn((2, *moving.shape), generator=generator)
    moving = ((moving + noise[0]).square() + noise[1].square()).sqrt()
    posed = MetaTensor(1000 * moving, affine=torch.from_numpy(affine))
    return PosedCase(path.name.split(".")[0], fixed, posed, truth, points)


def _pose(
    turn: float | None, shift: float, pivot: torch.Tensor, generator: Generator
) -> torch.Tensor:
    """A random rigid transform about a pivot, (4, 4)."""
    draw = 2 * torch.rand(12, generator=generator, dtype=torch.float64) - 1
    parameters = torch.zeros(12, dtype=torch.float64)
    parameters[:3] = shift * draw[:3]
    if turn is not None:
        parameters[3:6] = turn * draw[3:6]
    matrix = compose(parameters)
    if turn is None:
        matrix[:3, :3] = random_rotations(1, generator=generator)[0]
    return about(matrix, pivot)
