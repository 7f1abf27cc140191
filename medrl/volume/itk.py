"""Scans to SimpleITK and back, transforms to its files."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

import numpy as np
import SimpleITK as sitk
import torch
from monai.data.meta_tensor import MetaTensor

from medrl.errors import MedrlError
from medrl.files import printable
from medrl.volume.space import affine_to_lps, as_affine, spacing_of


def to_sitk(scan: MetaTensor) -> sitk.Image:
    """Convert a scan to a SimpleITK image of the same voxels in the same place.

    Args:
        scan: MetaTensor (C, I, J, K) with its affine (voxel to RAS mm).

    Returns:
        Image of size (I, J, K) in LPS, a vector image for several channels.

    Raises:
        MedrlError: If the affine is sheared: ITK images have perpendicular axes.
    """
    affine = affine_to_lps(as_affine(scan.affine.cpu()))
    spacing = spacing_of(affine)
    direction = affine[:3, :3] / spacing
    if not np.allclose(direction.T @ direction, np.eye(3), atol=1e-3):
        raise MedrlError("the scan's axes are not perpendicular (sheared): ITK cannot hold it")
    array = scan.detach().cpu().numpy()
    vector = len(array) > 1
    array = array.transpose(3, 2, 1, 0) if vector else array[0].transpose(2, 1, 0)
    image = sitk.GetImageFromArray(np.ascontiguousarray(array), isVector=vector)
    image.SetSpacing(spacing.tolist())
    image.SetOrigin(affine[:3, 3].tolist())
    image.SetDirection(direction.ravel().tolist())
    return image


def from_sitk(image: sitk.Image) -> MetaTensor:
    """Convert a 3D SimpleITK image to a scan of the same voxels in the same place.

    Args:
        image: Scalar or vector image in LPS.

    Returns:
        MetaTensor (C, I, J, K), float32, affine voxel to RAS mm (float64).

    Raises:
        MedrlError: If the image is not 3D.
    """
    if image.GetDimension() != 3:
        raise MedrlError(f"the image has {image.GetDimension()} dimensions; medrl takes 3D images")
    array = sitk.GetArrayFromImage(image)
    array = array[..., None] if array.ndim == 3 else array
    lps = np.eye(4)
    lps[:3, :3] = np.reshape(image.GetDirection(), (3, 3)) * np.array(image.GetSpacing())
    lps[:3, 3] = image.GetOrigin()
    voxels = np.ascontiguousarray(array.transpose(3, 2, 1, 0), dtype=np.float32)
    return MetaTensor(torch.from_numpy(voxels), affine=torch.from_numpy(affine_to_lps(lps)))


def write_itk(transform: sitk.Transform, path: Path) -> None:
    """Write a transform where ITK itself may not: it ends the process over names not in UTF-8.

    Args:
        transform: Any.
        path: File to write; its ending says the format.
    """
    if str(path) == printable(str(path)):
        sitk.WriteTransform(transform, str(path))
        return
    with tempfile.TemporaryDirectory(prefix="medrl-") as folder:
        copy = Path(folder) / f"transform{path.suffix}"
        sitk.WriteTransform(transform, str(copy))
        shutil.copyfile(copy, path)
