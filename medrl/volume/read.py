"""Reading scans of every common format into one shape, and writing them back."""

from __future__ import annotations

import os
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import torch
from monai.data.meta_tensor import MetaTensor
from numpy.typing import DTypeLike, NDArray

from medrl.errors import MedrlError
from medrl.files import SCAN_ENDINGS, absence, atomic_path
from medrl.volume._archive import unpack
from medrl.volume._dicom import LoadedDicom, load_dicom
from medrl.volume._metaimage import load_metaimage
from medrl.volume._nifti import load_nifti
from medrl.volume._nrrd import load_nrrd
from medrl.volume.dicom_origin import DicomOrigin
from medrl.volume.log_filter import libraries_muted
from medrl.volume.space import as_affine

_Loaded = tuple[NDArray[np.generic], NDArray[np.float64], list[str]]
_Loader = Callable[[Path], _Loaded | LoadedDicom]

_LOADERS: dict[str, tuple[str, _Loader]] = {
    ".nii": ("NIfTI", load_nifti),
    ".nii.gz": ("NIfTI", load_nifti),
    ".nrrd": ("NRRD", load_nrrd),
    ".nhdr": ("NRRD", load_nrrd),
    ".mha": ("MetaImage", load_metaimage),
    ".mhd": ("MetaImage", load_metaimage),
}

#: File name endings that `read` knows besides DICOM folders.
SUFFIXES = SCAN_ENDINGS


def read(
    path: str | os.PathLike[str], *, series: str | None = None, allow_constant: bool = False
) -> MetaTensor:
    """Read a scan: NIfTI, NRRD, MHA/MHD, or a DICOM series (folder, .zip or multi-frame file).

    Nothing is resampled or reordered: oblique, anisotropic and flipped scans come as they are
    stored, with the affine that says so. Of a 4D scan the fourth axis becomes the channels.

    Args:
        path: File, or folder with one DICOM series.
        series: SeriesInstanceUID of the series to read where a folder holds several.
        allow_constant: Accept a scan whose voxels are all equal, such as an empty mask.

    Returns:
        MetaTensor (C, I, J, K), float32, with `affine` (float64, 4x4, voxel to RAS mm). Its
        `meta` holds "filename_or_obj"; "remarks", a tuple of what the user should know about
        the file, each also issued as a UserWarning; and of DICOM "dicom", the images that it was
        read from (:class:`medrl.volume.dicom_origin.DicomOrigin`).

    Raises:
        MedrlError: If the file is missing, empty, truncated, damaged, not a 3D scan, or holds
            values that are no intensities; the message names the file and what to do.
    """
    source = Path(path)
    kind, load = _loader(source, series)
    try:
        with libraries_muted():
            array, affine, remarks, *origin = load(source)
        return _finish(source, array, affine, remarks, allow_constant, *origin)
    except MedrlError:
        raise
    except MemoryError as error:
        raise MedrlError(f"{source}: does not fit in memory; crop or downsample it") from error
    except Exception as error:
        # Parsers of damaged files fail in every way there is.
        reason = " ".join(str(error).split())[-160:]
        if not reason or "DICOM" in kind:
            reason = type(error).__name__  # pydicom's words quote values, such as names
        raise MedrlError(
            f"{source}: cannot be read as {kind}: it is truncated, damaged or of an unknown "
            f"variant ({reason}); copy or export it again"
        ) from error


def scan_of(scan: MetaTensor | str | os.PathLike[str]) -> MetaTensor:
    """A scan that is in memory already, or that is read now.

    Raises:
        MedrlError: If it cannot be read.
    """
    return scan if isinstance(scan, MetaTensor) else read(scan)


def write_nifti(
    path: str | os.PathLike[str], scan: MetaTensor, *, dtype: DTypeLike = np.float32
) -> None:
    """Write a scan as NIfTI, whole or not at all.

    Args:
        path: File to write, .nii or .nii.gz.
        scan: MetaTensor (C, I, J, K) with its affine (voxel to RAS mm); several channels become
            the fourth axis.
        dtype: Voxel type in the file; an integer type rounds.

    Raises:
        MedrlError: If the name has another ending or the file cannot be written.
    """
    if not str(path).lower().endswith((".nii", ".nii.gz")):
        raise MedrlError(f"cannot write {path}: its name must end in .nii or .nii.gz")
    array = np.moveaxis(scan.detach().cpu().numpy(), 0, -1)
    array = array[..., 0] if array.shape[-1] == 1 else array
    if np.issubdtype(dtype, np.integer):
        array = np.rint(array)
    image = nib.Nifti1Image(array.astype(dtype), as_affine(scan.affine.cpu()))
    image.header.set_xyzt_units("mm")
    with atomic_path(path) as temporary:
        nib.save(image, temporary)


def _loader(path: Path, series: str | None) -> tuple[str, _Loader]:
    """The format's name and its reader."""
    if reason := absence(path):
        raise MedrlError(f"{path}: {reason}")
    if os.path.isdir(path):
        return "DICOM", lambda folder: load_dicom(folder, sorted(folder.rglob("*")), series=series)
    if not os.path.isfile(path):
        raise MedrlError(f"{path}: is not a regular file")
    try:
        with path.open("rb") as stream:
            start = stream.read(132)
    except OSError as error:
        raise MedrlError(f"{path}: cannot be opened: {error.strerror}") from error
    if not start:
        raise MedrlError(f"{path}: is empty (0 bytes); copy or export it again")
    name = path.name.lower()
    for suffix, loader in _LOADERS.items():
        if name.endswith(suffix):
            return loader
    if name.endswith(".zip"):
        return "zipped DICOM", lambda archive: _load_zip(archive, series)
    if name.endswith(".dcm") or start[128:] == b"DICM":
        return "DICOM", lambda file: load_dicom(file, [file], series=series)
    raise MedrlError(
        f"{path}: is of an unknown format; medrl reads {', '.join(_LOADERS)}, and DICOM series "
        "(a folder or .zip)"
    )


def _load_zip(path: Path, series: str | None) -> LoadedDicom:
    with tempfile.TemporaryDirectory(prefix="medrl-") as folder:
        return load_dicom(path, unpack(path, Path(folder)), series=series)


def _finish(
    path: Path,
    array: NDArray[np.generic],
    affine: NDArray[np.float64],
    remarks: list[str],
    allow_constant: bool,
    origin: DicomOrigin | None = None,
) -> MetaTensor:
    """Check voxels and affine, and wrap them."""
    with np.errstate(over="ignore"):
        voxels = np.ascontiguousarray(array, dtype=np.float32)
    low, high = float(voxels.min()), float(voxels.max())
    if not (np.isfinite(low) and np.isfinite(high)):
        bad = voxels.size - int(np.isfinite(voxels).sum())
        raise MedrlError(
            f"{path}: {bad} of its {voxels.size} voxels are NaN or infinite; replace them, "
            "for example by the background value"
        )
    if low == high and not allow_constant:
        raise MedrlError(f"{path}: every voxel is {low:g}: the scan is blank; export it again")
    try:
        affine = as_affine(affine)
    except MedrlError as error:
        raise MedrlError(f"{path}: {error}; mend its header") from error
    for remark in remarks:
        warnings.warn(f"{path}: {remark}", UserWarning, stacklevel=3)
    meta = {
        "filename_or_obj": str(path),
        "space": "RAS",
        "original_channel_dim": 0,
        "original_affine": affine.copy(),
        "spatial_shape": np.array(voxels.shape[1:]),
        "remarks": tuple(remarks),
    }
    if origin is not None:
        meta["dicom"] = origin
    return MetaTensor(torch.from_numpy(voxels), affine=torch.from_numpy(affine), meta=meta)
