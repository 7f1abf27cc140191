"""A film with its detections, ready for agents: boxes in mm, and what each of them looks like."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from medrl.errors import MedrlError
from medrl.tracking.objects.detections import Detections
from medrl.tracking.objects.patches import look, samples

#: What is known of a frame of an identity before agents decide.
FREE, GONE, COASTS = -3, -2, -1


@dataclass(frozen=True, eq=False)
class Pins:
    """What a person, or an earlier run, has decided: agents have no choice there.

    Attributes:
        tracks: (P,) int64, identities.
        rows: (T, P) int64, for each frame the row of the detection that an identity has,
            :data:`COASTS`, :data:`GONE`, or :data:`FREE` where its agent decides.
    """

    tracks: Tensor
    rows: Tensor


@dataclass(frozen=True, eq=False)
class Scene:
    """One film.

    Attributes:
        frames: (T, I, J, K) float32, grey values, or None.
        length: T.
        spacing: (3,) float64, mm between voxels.
        extent: (3,) float64, sides of the film in mm; infinite where no frames are there.
        flat: (3,) bool, axes along which the film has one voxel.
        frame: (D,) int64, of each detection.
        box: (D, 2, 3) float64, in mm: voxel coordinates times the spacing.
        score: (D,) float64.
        patch: (D, P) float32; P is 0 without frames.
        level: (D, 2) float32, mean and standard deviation of grey values there, in standard
            deviations of the film.
        affine: (4, 4) float64, voxel to world.
        pins: What agents do not decide.
    """

    frames: Tensor | None
    length: int
    spacing: Tensor
    extent: Tensor
    flat: Tensor
    frame: Tensor
    box: Tensor
    score: Tensor
    patch: Tensor
    level: Tensor
    affine: Tensor
    pins: Pins = field(
        default_factory=lambda: Pins(torch.zeros(0, dtype=torch.int64), torch.zeros(0, 0).long())
    )

    @classmethod
    def of(
        cls,
        detections: Detections,
        *,
        frames: Tensor | None = None,
        spacing: tuple[float, float, float] = (1.0, 1.0, 1.0),
        length: int | None = None,
        affine: Tensor | None = None,
        pins: Pins | None = None,
        images: bool = True,
    ) -> Scene:
        """Prepare a film.

        Args:
            detections: In voxel coordinates.
            frames: (T, C, I, J, K) float32; channels are averaged.
            spacing: Between voxels, in mm.
            length: T where there are no frames; up to the last detection if left out.
            affine: (4, 4), voxel to world; from the spacing alone if left out.
            pins: What agents do not decide.
            images: Look at the frames; else only at boxes.

        Raises:
            MedrlError: If the frames have another shape, or detections do not fit them.
        """
        if frames is not None and frames.dim() != 5:
            raise MedrlError(f"frames must be (T, C, I, J, K), not of {frames.dim()} dimensions")
        steps = torch.tensor(spacing, dtype=torch.float64)
        if not bool((steps > 0).all()) or not bool(steps.isfinite().all()):
            raise MedrlError(f"spacing must be three numbers above 0, not {tuple(spacing)}")
        box = torch.from_numpy(detections.box)
        if frames is None:
            last = int(detections.frame.max()) + 1 if len(detections) else 0
            count = last if length is None else length
            flat = (box == box[:1]).all(dim=0).all(dim=0) if len(box) else torch.zeros(3).bool()
            flat = flat & torch.tensor([False, False, True])
            extent = torch.full((3,), torch.inf, dtype=torch.float64)
            grey = None
        else:
            shape = (len(frames), *frames.shape[2:])
            detections.check_fits(shape)
            count, flat = shape[0], torch.tensor(shape[1:]) == 1
            extent = torch.tensor(shape[1:], dtype=torch.float64) * steps
            grey = _grey(frames) if images else None
        frame = torch.from_numpy(detections.frame)
        patch, level = _looks(grey, frame, box)
        return cls(
            frames=grey,
            length=count,
            spacing=steps,
            extent=extent,
            flat=flat,
            frame=frame,
            box=box * steps,
            score=torch.from_numpy(detections.score),
            patch=patch,
            level=level,
            affine=_affine(steps) if affine is None else affine.double(),
            **({} if pins is None else {"pins": pins}),
        )


def _affine(steps: Tensor) -> Tensor:
    return torch.diag(torch.cat([steps, torch.ones(1, dtype=torch.float64)]))


def _grey(frames: Tensor) -> Tensor:
    """(T, I, J, K) float32, the mean of the channels; no copy where there is one."""
    return (frames[:, 0] if frames.shape[1] == 1 else frames.mean(dim=1)).float()


def _looks(grey: Tensor | None, frame: Tensor, box: Tensor) -> tuple[Tensor, Tensor]:
    """Patches (D, P) and levels (D, 2) of detections sorted by frame."""
    if grey is None:
        return torch.zeros((len(box), 0)), torch.zeros((len(box), 2))
    patch = torch.zeros((len(box), samples(grey.shape[3] == 1)))
    level = torch.zeros((len(box), 2))
    numbers, counts = np.unique(frame.numpy(), return_counts=True)
    first = 0
    for number, count in zip(numbers, counts, strict=True):
        part = slice(first, first + int(count))
        patch[part], level[part] = look(grey[int(number)], box[part])
        first += int(count)
    some = grey.flatten()[:: max(1, grey.numel() // 200_000)]
    spread = float(some.std().clamp(min=1e-6))
    return patch, (level - torch.stack([some.median(), some.new_zeros(())])) / spread
