"""What a header says of a scan, as far as it goes."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from medrl.errors import MedrlError
from medrl.volume.space import as_affine


@dataclass(frozen=True, eq=False)
class Header:
    """What a header says.

    Attributes:
        shape: (I, J, K); empty if it does not say.
        channels: Channels or frames.
        affine: Voxel to world (RAS mm); None if it does not say, or says something impossible.
        stored: How a value is stored, such as ``int16``; empty if it does not say.
        frame_step_s: Time from one frame to the next; None if it does not say.
        modality: Such as ``CT``; empty if it does not say.
        facts: What else is worth knowing, in words.
        doubts: What it lacks or contradicts, that :func:`medrl.volume.read.read` does not remark.
    """

    shape: tuple[int, ...] = ()
    channels: int = 1
    affine: NDArray[np.float64] | None = None
    stored: str = ""
    frame_step_s: float | None = None
    modality: str = ""
    facts: dict[str, str] = field(default_factory=dict)
    doubts: tuple[str, ...] = ()


def usable(affine: NDArray[np.float64]) -> NDArray[np.float64] | None:
    """An affine, if it is one."""
    try:
        return as_affine(affine)
    except MedrlError:
        return None
