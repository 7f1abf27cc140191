"""Linear transforms between scans: reading and writing what other programs use.

Convention: a *world transform* is a 4x4 matrix that maps fixed world points to moving world points
(RAS mm), as an ITK transform does that resamples the moving scan onto the fixed one. Files go
either way and in other coordinates: :mod:`medrl.volume.transform_forms` says how.
"""

from __future__ import annotations

import os
import warnings
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import SimpleITK as sitk
from monai.data.meta_tensor import MetaTensor
from numpy.typing import ArrayLike, NDArray

from medrl.errors import MedrlError
from medrl.files import atomic_path
from medrl.volume import _itk_files, _linear_forms
from medrl.volume import _transform_guess as _guess
from medrl.volume.similarity import agreement
from medrl.volume.space import (
    LPS_FROM_RAS,
    apply_affine,
    as_affine,
    as_transform,
    box_corners,
    ras_to_lps,
    voxel_to_world,
)
from medrl.volume.transform_forms import FORMS, Form

Matrix = NDArray[np.float64]
Kind = Literal["rigid", "similarity", "affine"]

#: A matrix is taken for rigid (or a similarity) if its scales differ by no more than this.
_TOLERANCE = 1e-4
#: In files of these names 4x4 numbers may be FSL's or of the world.
_EITHER_ENDINGS = (".mat", ".xfm", "")
_EITHER = f"may be {FORMS['matrix']} (form matrix), or {FORMS['fsl']} (form fsl)"
_NOTE = "fixed world (RAS mm) to moving world (RAS mm)"
#: A matrix may be read in two ways: that is taken under which the scans share so much information
#: (normalised, less 1) and so many times more than under the other, or else overlap more.
_ALIKE, _MORE_ALIKE, _MORE_OVERLAP = 0.05, 1.15, 1.02
#: Readings that move no corner of the fixed scan further apart (mm) are one.
_SAME_PLACE = 0.01


@dataclass(frozen=True, eq=False)
class TransformFile:
    """A transform as it stands in a file.

    Attributes:
        matrix_world: 4x4, fixed to moving, RAS mm.
        form: What the file was taken for; `FORMS` says it in words.
        remarks: What the user should know, one line each.
    """

    matrix_world: Matrix
    form: Form
    remarks: tuple[str, ...] = ()


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
        MedrlError: If the ending says nothing, a scan is missing, the form is one that medrl only
            reads, the transform is not of that kind, or the file cannot be written.
    """
    matrix = as_transform(transform_world)
    form = form or _form_of_name(Path(path))
    if form in ("itk", "ants"):
        center = (0.0, 0.0, 0.0) if fixed is None else _center(fixed)
        # ANTs names no kinds but affine in its .mat files.
        transform = to_itk(matrix, kind="affine" if form == "ants" else kind, center_world=center)
        with atomic_path(path) as draft, _itk_files.no_itk_errors(f"cannot write {path}"):
            sitk.WriteTransform(transform, str(draft))
        return
    if form == "matrix":
        rows = [" ".join(repr(float(value)) for value in row) for row in matrix]
        text = "\n".join([f"# {_NOTE}", *rows, ""])
    elif form not in ("fsl", "lta"):
        raise MedrlError(f"cannot write {path}: medrl only reads the form {form}")
    elif fixed is None or moving is None:
        raise MedrlError(f"cannot write {path}: {form.upper()} needs both scans")
    elif form == "fsl":
        rows = [
            "  ".join(f"{value:.10f}" for value in row)
            for row in _linear_forms.to_fsl(matrix, fixed, moving)
        ]
        text = "\n".join([*rows, ""])
    else:
        text = _linear_forms.to_lta(matrix, fixed, moving)
    with atomic_path(path) as draft:
        draft.write_text(text, encoding="utf-8")


def read_transform(
    path: str | os.PathLike[str],
    *,
    form: Form | None = None,
    fixed: MetaTensor | None = None,
    moving: MetaTensor | None = None,
) -> Matrix:
    """Read a linear transform; :func:`open_transform` also says what the file was taken for.

    Each remark is issued as a UserWarning.

    Args:
        path: File to read.
        form: What it is, if its content is not to be asked.
        fixed: The fixed scan.
        moving: The moving scan.

    Returns:
        4x4 matrix, fixed to moving, RAS mm.

    Raises:
        MedrlError: As of `open_transform`.
    """
    found = open_transform(path, form=form, fixed=fixed, moving=moving)
    for remark in found.remarks:
        warnings.warn(f"{path}: {remark}", UserWarning, stacklevel=2)
    return found.matrix_world


def open_transform(
    path: str | os.PathLike[str],
    *,
    form: Form | None = None,
    fixed: MetaTensor | None = None,
    moving: MetaTensor | None = None,
) -> TransformFile:
    """Read a linear transform of one of the `FORMS`.

    What a file is, its content says. Only 4x4 numbers may be two things, a world matrix (greedy,
    c3d) or FSL's: in a .txt they are the first, in a .fsl.mat the second. In a .mat or a file
    without an ending both readings are tried on the scans, and the one is taken under which they
    look more alike (normalised mutual information), or else overlap more; if that does not decide,
    the world matrix. A remark says so.

    Args:
        path: File to read.
        form: What it is, if its content is not to be asked.
        fixed: The fixed scan, which FSL's files and register.dat need.
        moving: The moving scan, likewise.

    Raises:
        MedrlError: If the file is missing, damaged or of another form, holds a transform that is
            not linear, or needs the scans, which are not there.
    """
    file = Path(path)
    if form is not None and form not in FORMS:
        raise MedrlError(f"{file}: there is no form {form!r} of transforms: {', '.join(FORMS)}")
    if not file.is_file():
        raise MedrlError(f"{file}: no such file")
    try:
        content = file.read_bytes()
    except OSError as error:
        raise MedrlError(f"{file}: cannot be opened: {error.strerror}") from error
    text = content.decode("utf-8", errors="replace").lstrip("\ufeff \t\r\n")
    if not text:
        raise MedrlError(f"{file}: is empty")
    try:
        guessed = form is None
        form = form or _guess.form_of(file, content, text)
        matrix, remarks = _read_as(form, file, text, fixed, moving)
        if guessed and form == "matrix":
            return _world_or_fsl(file, matrix, fixed, moving)
        return TransformFile(matrix, form, remarks)
    except MedrlError as error:
        raise MedrlError(f"{file}: {error}") from error


# -------------------------------------------------------------------------------------------------


def _form_of_name(path: Path) -> Form:
    ending = path.suffix.lower()
    if ending in _guess.ITK_ENDINGS:
        return "itk"
    if ending == ".txt":
        return "matrix"
    if ending == ".lta":
        return "lta"
    raise MedrlError(
        f"cannot write {path}: its name must end in .tfm, .h5, .txt or .lta, or the form be named"
    )


def _numbers(text: str) -> Matrix:
    rows = _linear_forms.numbers(text)
    if rows is None:
        raise MedrlError("holds more than numbers")
    return rows


def _read_as(
    form: Form, file: Path, text: str, fixed: MetaTensor | None, moving: MetaTensor | None
) -> tuple[Matrix, tuple[str, ...]]:
    """The world transform that a file is as one of a form, and what to remark of it."""
    if form in ("itk", "ants"):
        return from_itk(_itk_files.read_itk(file, text)), ()
    if form == "elastix":
        return from_itk(_itk_files.read_elastix(file, text)), ()
    if form == "minc":
        return _linear_forms.from_minc(text), ()
    if form == "lta":
        return _linear_forms.from_lta(text, fixed=fixed, moving=moving)
    if form == "afni":
        return _linear_forms.from_afni(_numbers(text), fixed=fixed, moving=moving)
    if form == "matrix":
        return as_transform(_linear_forms.square(_numbers(text))), ()
    if fixed is None or moving is None:
        raise MedrlError(f"is {FORMS[form]}, which means nothing without the two scans")
    if form == "register-dat":
        return _linear_forms.from_register_dat(text, fixed, moving), ()
    matrix = _linear_forms.square(_numbers(text))
    remarks = ("FSL knows NIfTI only: of DICOM its voxels may have lain in another order",)
    dicom = any("dicom" in scan.meta for scan in (fixed, moving))
    return _linear_forms.from_fsl(matrix, fixed, moving), remarks if dicom else ()


def _world_or_fsl(
    file: Path, matrix: Matrix, fixed: MetaTensor | None, moving: MetaTensor | None
) -> TransformFile:
    """What 4x4 numbers are: in a .mat of the world or FSL's, by the scans; in .txt of the world."""
    may_be_fsl = file.suffix.lower() in _EITHER_ENDINGS
    world = TransformFile(matrix, "matrix")
    if fixed is None or moving is None:
        if may_be_fsl:
            raise MedrlError(f"{_EITHER}: name its form, or the two scans")
        return world
    fsl = TransformFile(_linear_forms.from_fsl(matrix, fixed, moving), "fsl")
    corners = box_corners((0, 0, 0), np.array(fixed.shape[1:]) - 1)
    ends = [apply_affine(m.matrix_world @ as_affine(fixed.affine), corners) for m in (world, fsl)]
    if np.abs(ends[0] - ends[1]).max() <= _SAME_PLACE:
        return world
    alike, overlap = np.transpose(
        [agreement(fixed, moving, reading.matrix_world) for reading in (world, fsl)]
    )
    best, why = 0, "the scans fit the other reading as well"
    if alike.max() >= _ALIKE and alike.max() > _MORE_ALIKE * alike.min():
        best = int(alike.argmax())
        why = f"so the scans look alike (NMI {1 + alike.max():.2f}, else {1 + alike.min():.2f})"
        if best and not may_be_fsl:
            remark = f"might be {FORMS['fsl']}: {why}; name its form if it is: fsl"
            return replace(world, remarks=(remark,))
    elif overlap.max() > _MORE_OVERLAP * overlap.min():
        best = int(overlap.argmax())
        why = f"so the scans overlap by {overlap.max():.0%}, else by {overlap.min():.0%}"
    elif may_be_fsl and not overlap.any():
        raise MedrlError(f"{_EITHER}; the scans overlap under neither: name its form")
    if not may_be_fsl:
        return world
    taken, other = (world, fsl) if best == 0 else (fsl, world)
    remark = f"taken as {FORMS[taken.form]}: {why}; name its form if that is wrong: {other.form}"
    return replace(taken, remarks=(remark,))


def _center(scan: MetaTensor) -> Matrix:
    """Middle of a scan's grid, RAS mm."""
    return voxel_to_world((np.array(scan.shape[1:]) - 1) / 2, scan.affine)
