"""Reading scans of every common format into one shape, and writing them back."""

from __future__ import annotations

import os
import tempfile
import warnings
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import torch
from monai.data.meta_tensor import MetaTensor
from numpy.typing import DTypeLike, NDArray

from medrl.errors import MedrlError
from medrl.files import SCAN_ENDINGS, atomic_path
from medrl.memory import DOES_NOT_FIT, ran_out_of_memory
from medrl.volume._archive import unpack
from medrl.volume._checks import SHEARED, Loaded
from medrl.volume._content import DICOM, METAIMAGE, NIFTI, NRRD, ZIP, look
from medrl.volume._dicom import load_dicom
from medrl.volume._metaimage import load_metaimage
from medrl.volume._nifti import load_nifti
from medrl.volume._nifti_place import header_with
from medrl.volume._nrrd import load_nrrd
from medrl.volume._stored import whole
from medrl.volume.log_filter import libraries_muted
from medrl.volume.space import as_affine, is_sheared, spacing_of

#: Takes a path and the type that voxels are wanted in.
_Loader = Callable[[Path, DTypeLike], Loaded]

_LOADERS: dict[str, _Loader] = {NIFTI: load_nifti, NRRD: load_nrrd, METAIMAGE: load_metaimage}
#: What files of a name ought to be.
_NAMED = {
    **dict.fromkeys((".nii", ".nii.gz"), NIFTI),
    **dict.fromkeys((".nrrd", ".nhdr"), NRRD),
    **dict.fromkeys((".mha", ".mhd"), METAIMAGE),
    ".zip": ZIP,
}

#: As many files of a zip tell what it holds.
_SOME_FILES = 16
#: No scan of a body is longer than this along two axes.
_MOST_MM = 1000.0
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
        the file, each also issued as a UserWarning; of DICOM "dicom", the images that it was
        read from (:class:`medrl.volume.dicom_origin.DicomOrigin`); and of NIfTI "nifti", what its
        header says of its place, which goes into files on the same grid.

    Raises:
        MedrlError: If the file is missing, empty, truncated, damaged, not a 3D scan, or holds
            values that are no intensities; the message names the file and what to do.
    """
    return _read(Path(path), series, np.float32, allow_constant)


def read_labels(path: str | os.PathLike[str], *, series: str | None = None) -> MetaTensor:
    """Read a label map without loss: ids above 2^24, which float32 does not hold, come as they are.

    Args:
        path: As for :func:`read`; a map of one label only, or of none, is one, too.
        series: As for :func:`read`.

    Returns:
        MetaTensor (C, I, J, K), int64, with `affine` and `meta` as of :func:`read`.

    Raises:
        MedrlError: Also if the voxels are no whole numbers.
    """
    return _read(Path(path), series, np.int64, allow_constant=True)


def scan_of(scan: MetaTensor | str | os.PathLike[str]) -> MetaTensor:
    """A scan that is in memory already, or that is read now.

    Raises:
        MedrlError: If it cannot be read.
    """
    return scan if isinstance(scan, MetaTensor) else read(scan)


def write_nifti(
    path: str | os.PathLike[str], scan: MetaTensor, *, dtype: DTypeLike | None = None
) -> None:
    """Write a scan as NIfTI, whole or not at all.

    Args:
        path: File to write, .nii or .nii.gz.
        scan: MetaTensor (C, I, J, K) with its affine (voxel to RAS mm); several channels become
            the fourth axis.
        dtype: Voxel type in the file; an integer type rounds. If left out: of whole numbers int32,
            or int64 where ids are larger, and float32 of all others.

    Raises:
        MedrlError: If the name has another ending, the values do not fit the type, or the file
            cannot be written.
    """
    if not str(path).lower().endswith((".nii", ".nii.gz")):
        raise MedrlError(f"cannot write {path}: its name must end in .nii or .nii.gz")
    array = np.moveaxis(scan.detach().cpu().numpy(), 0, -1)
    array = array[..., 0] if array.shape[-1] == 1 else array
    if dtype is None:
        dtype = _label_type(array) if array.dtype.kind in "biu" else np.float32
    if np.issubdtype(dtype, np.integer):
        array = np.rint(array) if array.dtype.kind == "f" else array
        known = np.iinfo(np.dtype(dtype))
        if array.min(initial=0) < known.min or array.max(initial=0) > known.max:
            raise MedrlError(f"cannot write {path}: its values do not fit {np.dtype(dtype)}")
    image = _image(array.astype(dtype), as_affine(scan.affine.cpu()), scan.meta.get("nifti"))
    with atomic_path(path) as temporary:
        nib.save(image, temporary)


def _image(
    array: NDArray[Any], affine: NDArray[np.float64], known: dict[str, Any] | None
) -> nib.Nifti1Image:
    """An image that lies on its scan for every program: both forms are its affine.

    Where the scan's header says more, or two things, it says what that one does.
    """
    header = header_with(known, affine, array.shape) if known else None
    if header is None:
        image = nib.Nifti1Image(array, affine, dtype=array.dtype)
        image.set_sform(affine, code="scanner")
        if not is_sheared(affine):
            image.set_qform(affine, code="scanner")
        image.header.set_xyzt_units("mm")
        return image
    header.set_data_dtype(array.dtype)
    return nib.Nifti1Image(array, header.get_best_affine(), header, dtype=array.dtype)


def _label_type(array: NDArray[np.generic]) -> DTypeLike:
    """The type of a label map: what other programs read, if it holds the ids."""
    known = np.iinfo(np.int32)
    fits = known.min <= array.min(initial=0) and array.max(initial=0) <= known.max
    return np.int32 if fits else np.int64


def _read(source: Path, series: str | None, dtype: DTypeLike, allow_constant: bool) -> MetaTensor:
    """Read voxels as float32, or as int64 without loss."""
    kind, load = _loader(source, series)
    try:
        with libraries_muted():
            loaded = load(source, dtype)
        return _finish(source, loaded, dtype, allow_constant)
    except MedrlError:
        raise
    except Exception as error:
        if ran_out_of_memory(error):
            raise MedrlError(f"{source}: {DOES_NOT_FIT}") from error
        # Parsers of damaged files fail in every way there is.
        reason = " ".join(str(error).split())[-160:]
        if not reason or "DICOM" in kind:
            reason = type(error).__name__  # pydicom's words quote values, such as names
        raise MedrlError(
            f"{source}: cannot be read as {kind}: it is truncated, damaged or of an unknown "
            f"variant ({reason}); copy or export it again"
        ) from error


def _loader(path: Path, series: str | None) -> tuple[str, _Loader]:
    """The format's name and its reader."""
    if not os.path.exists(path):
        raise MedrlError(f"{path}: no such file or folder")
    if os.path.isdir(path):
        return DICOM, lambda folder, _: _dicom(folder, sorted(folder.rglob("*")), series)
    if not os.path.isfile(path):
        raise MedrlError(f"{path}: is not a regular file")
    try:
        if not path.stat().st_size:
            raise MedrlError(f"{path}: is empty (0 bytes); copy or export it again")
        content = look(path)
    except OSError as error:
        raise MedrlError(f"{path}: cannot be opened: {error.strerror}") from error
    name = path.name.lower()
    named = next((kind for ending, kind in _NAMED.items() if name.endswith(ending)), None)
    kind = content.kind or named or (DICOM if name.endswith(".dcm") else None)
    if kind is None:
        raise MedrlError(
            f"{path}: is of an unknown format; medrl reads .nii, .nii.gz, .nrrd, .nhdr, .mha, "
            ".mhd, and DICOM series (a folder or .zip)"
        )
    if content.advice:
        raise MedrlError(f"{path}: is {content.kind}; {content.advice}")
    if content.gzips and kind != NIFTI:
        raise MedrlError(f"{path}: is {kind} that is gzipped as a whole; unpack it first")
    if kind == ZIP:
        return "zipped DICOM", lambda archive, _: _load_zip(archive, series)
    if kind == DICOM:
        return DICOM, lambda file, _: _dicom(file, [file], series)
    return kind, _LOADERS[kind]


def _load_zip(path: Path, series: str | None) -> Loaded:
    with tempfile.TemporaryDirectory(prefix="medrl-") as folder:
        files = unpack(path, Path(folder))
        try:
            return _dicom(path, files, series)
        except MedrlError:
            _name_what_is_zipped(path, files)
            raise


def _name_what_is_zipped(path: Path, files: list[Path]) -> None:
    """Refuse a zip of scans that are no DICOM by what they are."""
    kinds = set()
    for file in files[:_SOME_FILES]:
        with suppress(MedrlError, OSError):
            kinds.add(look(file).kind)
    others = [kind for kind in _LOADERS if kind in kinds]
    if others and DICOM not in kinds:
        raise MedrlError(f"{path}: is a zip file with {others[0]} in it; unpack it first") from None


def _dicom(path: Path, files: Iterable[Path], series: str | None) -> Loaded:
    voxels, affine, remarks, origin = load_dicom(path, files, series=series)
    return Loaded(voxels, affine, remarks, {"dicom": origin})


def _finish(path: Path, loaded: Loaded, dtype: DTypeLike, allow_constant: bool) -> MetaTensor:
    """Check voxels and affine, and wrap them."""
    try:
        with np.errstate(over="ignore"):
            values = loaded.voxels if dtype == np.float32 else whole(loaded.voxels)
            voxels = np.ascontiguousarray(values, dtype)
    except MedrlError as error:
        raise MedrlError(f"{path}: {error}") from error
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
        affine = as_affine(loaded.affine)
    except MedrlError as error:
        raise MedrlError(f"{path}: {error}; mend its header") from error
    remarks = list(dict.fromkeys(loaded.remarks))
    extent = spacing_of(affine) * voxels.shape[1:]
    if np.median(extent) > _MOST_MM:
        lengths = " x ".join(f"{length:.0f}" for length in extent)
        remarks.append(
            f"it spans {lengths} mm, more than a body: its header may give a wrong voxel size"
        )
    if is_sheared(affine) and "nifti" not in loaded.facts:
        remarks.append(SHEARED)
    for remark in remarks:
        warnings.warn(f"{path}: {remark}", UserWarning, stacklevel=4)
    meta = {
        "filename_or_obj": str(path),
        "space": "RAS",
        "original_channel_dim": 0,
        "original_affine": affine.copy(),
        "spatial_shape": np.array(voxels.shape[1:]),
        "remarks": tuple(remarks),
        **loaded.facts,
    }
    return MetaTensor(torch.from_numpy(voxels), affine=torch.from_numpy(affine), meta=meta)
