"""Intensity normalisation, as MONAI transforms."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from monai.data.meta_tensor import MetaTensor
from monai.transforms.transform import Transform
from torch import Tensor

from medrl.errors import MedrlError
from medrl.volume.channels import VALUES, Channel, in_units
from medrl.volume.validation import in_hounsfield

_SAMPLES = 50_000


class NormalizeChannels(Transform):
    """Bring every channel to 0 .. ``clip`` by its units; one without units by its foreground."""

    def __init__(
        self, channels: Sequence[Channel], *, upper: float = 0.98, clip: float = 1.5
    ) -> None:
        """Set up the transform; ``upper`` and ``clip`` as of :class:`NormalizeForeground`."""
        self.channels = tuple(channels)
        self.clip = clip
        self._relative = NormalizeForeground(upper=upper, clip=clip)

    def __call__(self, scan: MetaTensor) -> MetaTensor:
        """Normalise a scan (C, I, J, K).

        Raises:
            MedrlError: If a channel without units is constant.
        """
        parts = []
        for volume, channel in zip(scan.as_tensor().float(), self.channels, strict=True):
            known = in_units(volume, channel)
            if known is None:
                own = self._relative(MetaTensor(volume[None], affine=scan.affine))
                parts.append(own.as_tensor()[0])
            else:
                low, high = VALUES[channel.intensity]
                parts.append((known - low) * (self.clip / (high - low)))
        out = MetaTensor(torch.stack(parts), affine=scan.affine)
        out.meta |= {key: value for key, value in scan.meta.items() if key != "affine"}
        return out


class NormalizeForeground(Transform):
    """Scale each channel so that air is 0 and bright tissue is 1, then clip.

    MR intensities have no unit. The lower anchor is the 0.5th percentile of the scan; foreground
    is what lies above the midpoint between that and the mean of the brighter half; the upper
    anchor is a high percentile of the foreground. Cutting the field of view or adding air
    changes neither much.
    """

    def __init__(
        self,
        *,
        upper: float = 0.98,
        clip: float = 1.5,
        window_hu: tuple[float, float] | None = None,
    ) -> None:
        """Set up the transform.

        Args:
            upper: Quantile of the foreground that maps to 1.
            clip: Largest value returned.
            window_hu: Of a CT, values outside of these count as the nearest of them.
        """
        self.upper = upper
        self.clip = clip
        self.window_hu = window_hu

    def __call__(self, scan: MetaTensor) -> MetaTensor:
        """Normalise a scan (C, I, J, K).

        Raises:
            MedrlError: If a channel is constant.
        """
        volume = scan.as_tensor().float()
        if self.window_hu is not None and in_hounsfield(scan):
            volume = volume.clamp(*self.window_hu)
        channels = [self._normalize(channel) for channel in volume]
        return MetaTensor(torch.stack(channels), affine=scan.affine)

    def _normalize(self, volume: Tensor) -> Tensor:
        step = max(1, int((volume.numel() / _SAMPLES) ** (1 / 3)))
        sample = volume[::step, ::step, ::step].flatten().sort().values
        low = sample[int(0.005 * (len(sample) - 1))]
        bright = sample[sample > sample.mean()]
        foreground = sample[sample > (low + bright.mean()) / 2]
        # What is constant up to rounding has no foreground either.
        if len(foreground) == 0 or not sample[-1] > low:
            raise MedrlError("the scan is constant: there is nothing to see in it")
        high = foreground[int(self.upper * (len(foreground) - 1))]
        return ((volume - low) / (high - low)).clamp_(0.0, self.clip)
