"""The preprocessing chain of a model: MONAI transforms, described by what is stored with it."""

from __future__ import annotations

from dataclasses import dataclass

from monai.data.meta_tensor import MetaTensor
from monai.transforms.compose import Compose
from monai.transforms.transform import Transform

from medrl.errors import MedrlError
from medrl.volume.channels import Channel
from medrl.volume.intensity import NormalizeChannels, NormalizeForeground
from medrl.volume.resample import resample_isotropic


class ResampleIsotropic(Transform):
    """:func:`medrl.volume.resample.resample_isotropic` as a MONAI array transform."""

    def __init__(self, *, spacing: float) -> None:
        """Set the voxel size in mm."""
        self.spacing = spacing

    def __call__(self, scan: MetaTensor) -> MetaTensor:
        """Bring a scan (C, I, J, K) onto the grid where agents walk; the background is its minimum.

        Raises:
            MedrlError: If the affine is unusable or the result would be too large.
        """
        background = float(scan.as_tensor().min())
        return resample_isotropic(scan, spacing=self.spacing, background=background)


@dataclass(frozen=True)
class Preprocessing:
    """What is done to a scan before agents see it.

    Attributes:
        spacing: Voxel size of the finest grid, mm.
        upper: Quantile of the foreground that is mapped to 1.
        clip: Largest normalised intensity.
        channels: What the channels of a scan are; none have units if left out.
        window_hu: Hounsfield units between which a CT is looked at, for models of any contrast.
    """

    spacing: float = 2.0
    upper: float = 0.98
    clip: float = 1.5
    channels: tuple[Channel, ...] = ()
    window_hu: tuple[float, float] | None = None

    def __call__(self, scan: MetaTensor) -> MetaTensor:
        """Prepare a scan.

        Args:
            scan: MetaTensor (C, I, J, K) with its voxel-to-world affine (RAS mm).

        Returns:
            The scan on the isotropic grid, normalised, with its affine.

        Raises:
            MedrlError: If the scan is constant or its geometry unusable.
        """
        try:
            prepared: MetaTensor = self.chain()(scan)
        except RuntimeError as error:  # MONAI wraps whatever a transform raises
            if isinstance(error.__cause__, MedrlError):
                raise error.__cause__ from None
            raise
        return prepared

    def chain(self) -> Compose:
        """The MONAI transforms, in order; takes and returns a MetaTensor (C, I, J, K)."""
        return Compose([ResampleIsotropic(spacing=self.spacing), self.normalize()])

    def normalize(self) -> NormalizeChannels | NormalizeForeground:
        """The last of them, that brings intensities to a common scale."""
        if self.channels:
            return NormalizeChannels(self.channels, upper=self.upper, clip=self.clip)
        return NormalizeForeground(upper=self.upper, clip=self.clip, window_hu=self.window_hu)
