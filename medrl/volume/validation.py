"""Whether a scan can be what a model was trained for."""

from __future__ import annotations

import numpy as np
import torch
from monai.data.meta_tensor import MetaTensor

from medrl.errors import MedrlError
from medrl.volume.space import spacing_of

_LEAST_MM = 10.0
_SAMPLE = 100_000


def check_volume(scan: MetaTensor) -> None:
    """Refuse what is no single 3D volume of numbers.

    Args:
        scan: MetaTensor with a voxel-to-world affine (RAS mm).

    Raises:
        MedrlError: If it has several channels, is a slice, or holds NaN or infinite voxels.
    """
    if scan.ndim != 4 or scan.shape[0] != 1:
        raise MedrlError(
            f"the model takes one 3D volume, not an image of shape {tuple(scan.shape)}: "
            "choose one channel or time point"
        )
    extent = np.array(scan.shape[1:]) * spacing_of(scan.affine)
    if min(scan.shape[1:]) < 2 or extent.min() < _LEAST_MM:
        small = extent.max() < _LEAST_MM
        why = "its header may give a wrong voxel size" if small else "not a slice"
        raise MedrlError(
            f"the scan spans only {' x '.join(f'{e:.3g}' for e in extent)} mm: "
            f"the model needs a volume{'; ' if small else ', '}{why}"
        )
    if not torch.isfinite(scan.as_tensor()).all():
        raise MedrlError("the scan holds voxels that are not numbers (NaN or infinite)")


def in_hounsfield(scan: MetaTensor) -> bool:
    """Tell whether the values look like those of a CT.

    That is the case if a share of them lies far below zero, as those of air do, which no MR or PET
    has. Noise that was added to an MR goes below zero, too, but most of it not as far as air.
    """
    sample = scan.as_tensor().flatten()[:: max(1, scan.numel() // _SAMPLE)].float()
    low = sample[sample < -300]
    return len(low) > 0.05 * len(sample) and float(low.median()) < -500
