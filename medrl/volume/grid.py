"""The grid of a scan: what lies on it says so as the scan itself does."""

from __future__ import annotations

import torch
from monai.data.meta_tensor import MetaTensor
from torch import Tensor

from medrl.volume.space import as_affine

#: What a scan's `meta` says of its grid beyond the affine.
_OF_THE_GRID = ("nifti",)


def on_grid_of(voxels: Tensor, scan: MetaTensor) -> MetaTensor:
    """Voxels on the grid of a scan.

    A file that :func:`medrl.volume.read.write_nifti` makes of them lies on the scan's file in
    every program, even where the header of that one says two things of its place.

    Args:
        voxels: (C, I, J, K).
        scan: MetaTensor of that grid (I, J, K), with its affine (voxel to RAS mm).

    Returns:
        MetaTensor (C, I, J, K) with the scan's affine.
    """
    meta = {key: scan.meta[key] for key in _OF_THE_GRID if key in scan.meta}
    affine = torch.from_numpy(as_affine(scan.affine.cpu()).copy())
    return MetaTensor(voxels, affine=affine, meta=meta)
