"""Linear transforms between scans: reading and writing what other programs use.

Convention: a *world transform* is a 4x4 matrix that maps fixed world points to moving world points
(RAS mm), as an ITK transform does that resamples the moving scan onto the fixed one. ITK's files
are LPS; FSL's map voxels times voxel sizes, moving to fixed; FreeSurfer's (LTA) map RAS, moving
to fixed.
"""

from __future__ import annotations

import math
import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, get_args

import nibabel as nib
import numpy as np
import SimpleITK as sitk
from monai.data.meta_tensor import MetaTensor
from numpy.typing import ArrayLike, NDArray

from medrl.errors import MedrlError
from medrl.files import atomic_path
from medrl.volume import _subprocess_io
from medrl.volume.itk import write_itk
from medrl.volume.space import (
    LPS_FROM_RAS,
    apply_affine,
    as_affine,
    as_transform,
    ras_to_lps,
    voxel_to_world,
)

Matrix = NDArray[np.float64]
Kind = Literal["rigid", "similarity", "affine"]
Form = Literal["itk", "matrix", "ants", "fsl", "lta"]

#: A matrix is taken for rigid (or a similarity) if its scales differ by no more than this.
_TOLERANCE = 1e-4
_ITK_ENDINGS = (".tfm", ".h5", ".hdf5")
_ITK_BANNER = "#Insight Transform File"
_NOT_ITK = "cannot be read as a transform of ITK: it is damaged or of another kind"
#: A B-spline has many; a linear transform, composites included, does not.
_MOST_PARAMETERS = 10_000
_NOTE = "fixed world (RAS mm) to moving world (RAS mm)"


def kind_of(transform_world: ArrayLike) -> Kind:
    """The narrowest kind that a transform is of, to a ten-thousandth of its scales.

    Args:
        transform_world: 4x4 matrix.

    Returns:
        ``rigid``, ``similarity``, or ``affine``, which includes whatever mirrors.

    Raises:
        MedrlError: If the matrix is no transform.
    """
    linear = as_transform(transform_world)[:3, :3]
    scales = np.linalg.svd(linear, compute_uv=False)
    if np.linalg.det(linear) < 0 or scales[0] / scales[2] > 1 + _TOLERANCE:
        return "affine"
    return "rigid" if np.abs(scales - 1).max() <= _TOLERANCE else "similarity"


def to_itk(
    transform_world: ArrayLike, *, kind: Kind = "affine", center_world: ArrayLike = (0, 0, 0)
) -> sitk.Transform:
    """A world transform as ITK's transform of a kind.

    Args:
        transform_world: 4x4 matrix, fixed to moving, RAS mm.
        kind: Makes it an ``Euler3DTransform``, ``Similarity3DTransform`` or ``AffineTransform``.
        center_world: Centre of rotation (3,), RAS mm; changes the parameters, not the mapping.

    Returns:
        The transform, fixed to moving, LPS mm.

    Raises:
        MedrlError: If the matrix is no transform or not of that kind.
    """
    matrix = as_transform(transform_world)
    found = kind_of(matrix)
    kinds = get_args(Kind)
    if kinds.index(found) > kinds.index(kind):
        raise MedrlError(f"the transform is not {kind} but {found}")
    lps = LPS_FROM_RAS @ matrix @ LPS_FROM_RAS
    linear = lps[:3, :3]
    if kind != "affine":
        # The nearest one to the last digit: ITK takes no other.
        left, scales, right = np.linalg.svd(linear)
        linear = left @ right * (scales.mean() if kind == "similarity" else 1.0)
    center = ras_to_lps(center_world)
    transform = {
        "rigid": sitk.Euler3DTransform,
        "similarity": sitk.Similarity3DTransform,
        "affine": lambda: sitk.AffineTransform(3),
    }[kind]()
    transform.SetCenter(center.tolist())
    transform.SetMatrix(linear.ravel().tolist())
    transform.SetTranslation((apply_affine(lps, center) - center).tolist())
    return transform


def from_itk(transform: sitk.Transform) -> Matrix:
    """The world transform that a linear ITK transform, composites included, stands for.

    Args:
        transform: Of ITK, 3D, LPS mm.

    Returns:
        4x4 matrix, RAS mm.

    Raises:
        MedrlError: If it is not 3D, not linear or not invertible.
    """
    if transform.GetDimension() != 3:
        raise MedrlError(f"is a transform of {transform.GetDimension()}D points; medrl takes 3D")
    if not transform.IsLinear():
        raise MedrlError("bends space (not linear); medrl takes rigid, similarity and affine")
    origin, *ends = (transform.TransformPoint(p) for p in np.eye(4, 3, k=-1).tolist())
    lps = np.eye(4)
    lps[:3, 3] = origin
    lps[:3, :3] = (np.array(ends) - origin).T
    return as_transform(LPS_FROM_RAS @ lps @ LPS_FROM_RAS)


def write_transform(
    path: str | os.PathLike[str],
    transform_world: ArrayLike,
    *,
    form: Form | None = None,
    kind: Kind = "affine",
    fixed: MetaTensor | None = None,
    moving: MetaTensor | None = None,
) -> None:
    """Write a world transform, whole or not at all.

    Args:
        path: File to write.
        transform_world: 4x4 matrix, fixed to moving, RAS mm.
        form: ``itk`` (.tfm, .h5), ``matrix`` (.txt: the 4x4 itself), ``ants`` (.mat), ``fsl``
            (.mat) or ``lta`` (.lta, FreeSurfer); by the name's ending if left out.
        kind: What ITK's file calls it: an Euler, similarity or affine transform.
        fixed: The fixed scan; needed for ``fsl`` and ``lta``. ITK's transforms turn about its
            centre, if it is given.
        moving: The moving scan; needed for ``fsl`` and ``lta``.

    Raises:
        MedrlError: If the ending says nothing, a scan or the package nitransforms is missing, the
            transform is not of that kind, or the file cannot be written.
    """
    matrix = as_transform(transform_world)
    form = form or _form_of_name(Path(path))
    if form == "matrix":
        rows = [" ".join(repr(float(value)) for value in row) for row in matrix]
        with atomic_path(path) as draft:
            draft.write_text("\n".join([f"# {_NOTE}", *rows, ""]), encoding="utf-8")
    elif form in ("itk", "ants"):
        center = (0.0, 0.0, 0.0) if fixed is None else _center(fixed)
        # ANTs names no kinds but affine in its .mat files.
        transform = to_itk(matrix, kind="affine" if form == "ants" else kind, center_world=center)
        with atomic_path(path) as draft, _no_itk_errors(f"cannot write {path}"):
            write_itk(transform, draft)
    else:
        if fixed is None or moving is None:
            raise MedrlError(f"cannot write {path}: {form.upper()} needs both scans")
        text = _with_nitransforms(form).from_ras(matrix, **_grids(form, fixed, moving)).to_string()
        with atomic_path(path) as draft:
            draft.write_text(text, encoding="utf-8")


def read_transform(
    path: str | os.PathLike[str],
    *,
    fixed: MetaTensor | None = None,
    moving: MetaTensor | None = None,
) -> Matrix:
    """Read a linear transform of any form that `write_transform` knows.

    What a file is, its content says: .txt is ITK's or a 4x4 world matrix, .mat of ANTs or of FSL.

    Args:
        path: File to read.
        fixed: The fixed scan, which only FSL's files need.
        moving: The moving scan, likewise.

    Returns:
        4x4 matrix, fixed to moving, RAS mm.

    Raises:
        MedrlError: If the file is missing, damaged or of another form, holds a transform that is
            not linear, or needs the scans or the package nitransforms, which are not there.
    """
    file = Path(path)
    if not file.is_file():
        raise MedrlError(f"{file}: no such file")
    try:
        content = file.read_bytes()
    except OSError as error:
        raise MedrlError(f"{file}: cannot be opened: {error.strerror}") from error
    text = content.decode("utf-8", errors="replace").lstrip("\ufeff \t\r\n")
    if not text:
        raise MedrlError(f"{file}: is empty")
    ending = file.suffix.lower()
    try:
        if ending == ".lta":
            return _from_nitransforms("lta", text, None, None)
        if text.startswith(_ITK_BANNER) or ending in _ITK_ENDINGS or b"\0" in content[:512]:
            if not text.startswith(_ITK_BANNER):
                text = _subprocess_io.transform_text(file)
            return from_itk(_parse_itk(text))
        rows = _rows(text)
        if ending != ".mat":
            return as_transform(rows)
        if fixed is None or moving is None:
            raise MedrlError("is a matrix of FSL, which means nothing without the two scans")
        return _from_nitransforms("fsl", text, fixed, moving)
    except MedrlError as error:
        raise MedrlError(f"{file}: {error}") from error


def check_form(form: Form) -> None:
    """Find out before any work whether a form can be written and read here.

    Raises:
        MedrlError: If it takes the package nitransforms, which is not installed.
    """
    if form in ("fsl", "lta"):
        _with_nitransforms(form)


def _form_of_name(path: Path) -> Form:
    ending = path.suffix.lower()
    if ending in _ITK_ENDINGS:
        return "itk"
    if ending == ".txt":
        return "matrix"
    if ending == ".lta":
        return "lta"
    raise MedrlError(
        f"cannot write {path}: its name must end in .tfm, .h5, .txt or .lta, or the form be named"
    )


def _rows(text: str) -> Matrix:
    """The numbers of a text file, 4 x 4; what follows # is a remark."""
    lines = [line.partition("#")[0].replace(",", " ").split() for line in text.splitlines()]
    try:
        rows = np.array([[float(word) for word in line] for line in lines if line])
    except ValueError:
        rows = np.empty(0)
    if rows.shape != (4, 4):
        raise MedrlError(
            "is no transform that medrl knows: ITK (.tfm, .h5, .mat, .txt), a 4x4 matrix in text, "
            "FSL (.mat) or LTA"
        )
    return rows


def _center(scan: MetaTensor) -> Matrix:
    """Middle of a scan's grid, RAS mm."""
    return voxel_to_world((np.array(scan.shape[1:]) - 1) / 2, scan.affine)


@contextmanager
def _no_itk_errors(line: str) -> Iterator[None]:
    """Say in one line what ITK says in a page, addresses in memory included."""
    try:
        yield
    except RuntimeError as error:
        raise MedrlError(line) from error


def _parse_itk(text: str) -> sitk.Transform:
    """A transform of ITK's text files; what would end the process in C++ is refused."""
    named = numbered = False
    for line in text.splitlines():
        key, _, value = (part.strip() for part in line.partition(":"))
        if line.startswith("#") or not line.strip():
            continue
        if key == "Transform":
            named, numbered = True, False
            known = bool(re.fullmatch(r"[A-Za-z]\w{1,60}_(double|float)_\d_\d", value))
        elif key in ("Parameters", "FixedParameters"):
            known = named and not (key == "Parameters" and numbered) and _are_numbers(value)
            numbered = numbered or key == "Parameters"
        else:
            known = False
        if not known:
            raise MedrlError(_NOT_ITK)
    with tempfile.TemporaryDirectory(prefix="medrl-") as folder, _no_itk_errors(_NOT_ITK):
        copy = Path(folder) / "transform.tfm"
        copy.write_text(text, encoding="utf-8")
        return sitk.ReadTransform(str(copy))


def _are_numbers(text: str) -> bool:
    words = text.split()
    try:
        return len(words) <= _MOST_PARAMETERS and all(map(math.isfinite, map(float, words)))
    except ValueError:
        return False


def _with_nitransforms(form: Form) -> Any:
    """The class of nitransforms for a form."""
    try:
        from nitransforms.io import get_linear_factory
    except ModuleNotFoundError:
        raise MedrlError(
            f"{form.upper()} transforms need the package nitransforms: "
            "pip install 'medrl[transforms]'"
        ) from None
    return get_linear_factory(form, is_array=False)


def _grids(form: Form, fixed: MetaTensor, moving: MetaTensor) -> dict[str, nib.Nifti1Image]:
    """Both scans as nitransforms wants them.

    It writes into an LTA the reference as source and the moving scan as destination, next to a
    matrix from moving to reference; FreeSurfer maps source to destination. So they change places.
    """
    grids = {"reference": _grid(fixed), "moving": _grid(moving)}
    return dict(zip(grids, reversed(grids.values()), strict=True)) if form == "lta" else grids


def _grid(scan: MetaTensor) -> nib.Nifti1Image:
    """An image without voxels in a scan's place, with its name."""
    empty = np.broadcast_to(np.zeros((), np.uint8), scan.shape[1:])
    image = nib.Nifti1Image(empty, as_affine(scan.affine))
    name = Path(str(scan.meta.get("filename_or_obj") or "unknown")).name
    # No spaces: they would end the name.
    image.file_map["image"].filename = "_".join(name.replace("#", "_").replace("=", "_").split())
    return image


def _from_nitransforms(
    form: Form, text: str, fixed: MetaTensor | None, moving: MetaTensor | None
) -> Matrix:
    reader = _with_nitransforms(form)
    grids = {} if fixed is None or moving is None else _grids(form, fixed, moving)
    try:
        return as_transform(reader.from_string(text).to_ras(**grids))
    except Exception as error:
        # Its parsers use assertions and whatever NumPy raises.
        raise MedrlError(f"cannot be read as {form.upper()}: it is damaged or unknown") from error
