"""Which values of a scan are shown as black and as white: presets for CT, automatic for others."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from monai.data.meta_tensor import MetaTensor
from numpy.typing import NDArray

from medrl.volume.validation import in_hounsfield

#: Voxels that are looked at, at most, along each axis of a scan.
_SAMPLES = 64
#: Of the tissue, this share may be shown as black or as white.
_DARKEST, _BRIGHTEST = 0.005, 0.995


@dataclass(frozen=True)
class Window:
    """Which values are shown in shades of grey.

    Attributes:
        width: From black to white.
        level: What is shown mid-grey.
    """

    width: float
    level: float

    @property
    def limits(self) -> tuple[float, float]:
        """The values of black and white."""
        return self.level - self.width / 2, self.level + self.width / 2

    @classmethod
    def of(cls, limits: tuple[float, float]) -> Window:
        """The window of given values of black and white."""
        low, high = limits
        return cls(high - low, (low + high) / 2)


@dataclass(frozen=True)
class Preset:
    """A window that has a name and a key; in Hounsfield units."""

    name: str
    window: Window
    key: str


#: The usual ones for CT.
PRESETS = (
    Preset("brain", Window(80, 40), "F3"),
    Preset("subdural", Window(200, 75), "F4"),
    Preset("bone", Window(1800, 400), "F5"),
    Preset("lung", Window(1500, -600), "F6"),
    Preset("soft tissue", Window(400, 40), "F7"),
    Preset("mediastinum", Window(350, 50), "F8"),
)
_SOFT_TISSUE = PRESETS[4].window


def auto_limits(volume: Any) -> tuple[float, float]:
    """What to show as black and white if nobody says.

    Args:
        volume: Array of any shape; only a sample of it is looked at.

    Returns:
        Soft tissue if the values are those of a CT. Otherwise from the darkest of everything to
        the brightest of the foreground, both without outliers, so that neither air around the
        patient nor a bright vessel matters.
    """
    sample = _sample(volume)
    if not sample.size:
        return 0.0, 1.0
    if in_hounsfield(MetaTensor(torch.from_numpy(sample)[None, :, None, None])):
        return _SOFT_TISSUE.limits
    low = float(np.quantile(sample, _DARKEST))
    bright = sample[sample > sample.mean()]
    foreground = sample[sample > (low + bright.mean()) / 2] if bright.size else sample
    high = float(np.quantile(foreground, _BRIGHTEST)) if foreground.size else low
    return low, high if high > low else low + 1.0


def value_range(volume: Any) -> float:
    """How far the values of a volume spread, from a sample of it; more than 0."""
    sample = _sample(volume)
    spread = float(sample.max() - sample.min()) if sample.size else 0.0
    return spread or 1.0


def _sample(volume: Any) -> NDArray[np.float32]:
    """Some of the finite values of a volume."""
    steps = tuple(slice(None, None, max(1, n // _SAMPLES)) for n in volume.shape)
    sample = np.asarray(volume[steps], dtype=np.float32).ravel()
    return sample[np.isfinite(sample)]
