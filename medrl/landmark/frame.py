"""Searching scans that are turned in any way: they are laid straight first."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch
from monai.data.meta_tensor import MetaTensor
from numpy.typing import NDArray
from torch import Tensor

from medrl.errors import MedrlError
from medrl.landmark.data import Sample, points_array
from medrl.volume.pose import PoseTemplate
from medrl.volume.procrustes import fit_points, lay_straight, mirror_partners
from medrl.volume.resample import resample_onto
from medrl.volume.space import apply_affine, as_affine

Array = NDArray[np.float64]

#: Fewer landmarks do not say how a scan lies.
_LEAST_POINTS = 3
#: How far around the landmarks scans that are laid straight are seen, voxels of the coarsest scale:
#: agents look further than maps.
_MARGIN = {"agents": 9, "parts": 3}

PoseHandling = Literal["given", "any"]
Kind = Literal["agents", "parts"]


@dataclass(frozen=True, eq=False)
class Frame:
    """The straight world, and what of a scan agents see there.

    Attributes:
        expected: (K, 3) where landmarks are on average, mm; there agents start.
        spacing: Voxel size of what is seen, mm.
        margin_mm: How far around the landmarks it is seen.
        template: What straight scans look like; None if the networks say how a scan lies
            (:mod:`medrl.landmark.turning`), or the landmarks, while training.
    """

    expected: Array
    spacing: float
    margin_mm: float
    template: PoseTemplate | None = None

    def seen(self, scan: MetaTensor, straight: Array) -> MetaTensor:
        """What agents see of a scan.

        Args:
            scan: (C, I, J, K) with its affine (RAS mm).
            straight: (4, 4), from its world to the straight one.

        Returns:
            The scan on a grid along the straight axes, with the affine to the straight world;
            outside the scan its lowest value.
        """
        low = self.expected.min(axis=0) - self.margin_mm
        high = self.expected.max(axis=0) + self.margin_mm
        i, j, k = (int(count) for count in np.ceil((high - low) / self.spacing) + 1)
        affine = np.diag([self.spacing] * 3 + [1.0])
        affine[:3, 3] = low
        laid = torch.from_numpy(straight @ as_affine(scan.affine))
        return resample_onto(
            MetaTensor(scan.as_tensor(), affine=laid),
            affine=affine,
            shape=(i, j, k),
            background=float(scan.as_tensor().min()),
        )

    def tensors(self) -> dict[str, Tensor]:
        """What to store of it."""
        return ({} if self.template is None else self.template.tensors()) | {
            "frame.expected": torch.from_numpy(self.expected).float(),
            "frame.margin": torch.tensor([self.margin_mm]),
        }

    @staticmethod
    def from_tensors(tensors: Mapping[str, Tensor], *, spacing: float) -> Frame | None:
        """Read what :meth:`tensors` gave; None if there is none."""
        if "frame.expected" not in tensors:
            return None
        expected = tensors["frame.expected"].double().numpy()
        margin = float(tensors["frame.margin"][0])
        return Frame(expected, spacing, margin, PoseTemplate.from_tensors(tensors))


def laid_straight(samples: Sequence[Sample], names: Sequence[str]) -> tuple[list[Sample], Array]:
    """Scans laid straight by their landmarks, however they are turned.

    Args:
        samples: Each with three landmarks at least.
        names: Landmarks, in the model's order.

    Returns:
        The samples, and the mean landmarks (K, 3) in the straight world, mm.

    Raises:
        MedrlError: If a sample has too few landmarks.
    """
    shapes = np.stack([points_array(sample, names) for sample in samples])
    for sample, shape in zip(samples, shapes, strict=True):
        if (~np.isnan(shape).any(axis=1)).sum() < _LEAST_POINTS:
            raise MedrlError(
                f"{sample.image} has fewer than {_LEAST_POINTS} landmarks: how does it lie?"
            )
    matrices, mean = lay_straight(shapes)
    return [replace(s, straight=m) for s, m in zip(samples, matrices, strict=True)], mean


def mirrored(samples: Sequence[Sample], names: Sequence[str], expected: Array) -> list[Sample]:
    """Mirror images of scans that lie straight; left and right landmarks take each other's names.

    Args:
        samples: As of :func:`laid_straight`.
        names: Landmarks, in the model's order.
        expected: (K, 3), their mean in the straight world.

    Returns:
        As many; landmarks that have no partner are left out.
    """
    mirror, partner = mirror_partners(expected)
    partners = {names[k]: names[p] for k, p in enumerate(partner) if p >= 0}
    out = []
    for sample in samples:
        points = {partners[n]: p for n, p in sample.points_world.items() if n in partners}
        copy = replace(sample, points_world=points, straight=mirror @ sample.straight)
        places = apply_affine(copy.straight, points_array(copy, names))
        known = ~np.isnan(places).any(axis=1)
        again = fit_points(places[known], expected[known], scale=False)
        out.append(replace(copy, straight=again @ copy.straight))
    return out


def frame_around(expected: Array, spacings: Sequence[float], kind: Kind) -> Frame:
    """A frame by where landmarks are (K, 3), of a model with such scales (mm, finest first)."""
    return Frame(expected, spacings[0], _MARGIN[kind] * spacings[-1])


def learned_on(
    samples: Sequence[Sample],
    names: Sequence[str],
    *,
    pose: PoseHandling,
    mirror: bool,
    spacings: Sequence[float],
    kind: Kind,
) -> tuple[list[Sample], Frame | None]:
    """What is learned on: scans as they lie, or laid straight, and perhaps mirrored.

    Args:
        samples: Training scans.
        names: Landmarks, in the model's order.
        pose: Whether scans lie alike or in any way.
        mirror: Whether their mirror images are learned on, too.
        spacings: Of the model's scales, mm.
        kind: What learns.

    Returns:
        The scans, and what is seen of those that are laid straight.
    """
    if pose == "given":
        return list(samples), None
    straight, expected = laid_straight(samples, names)
    frame = frame_around(expected, spacings, kind)
    return [*straight, *(mirrored(straight, names, expected) if mirror else ())], frame
