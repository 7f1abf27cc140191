"""Linear transforms in the text files of other programs than ITK.

Convention: whichever way a file goes, functions here take and return the *world transform*: 4x4,
fixed world points to moving world points, RAS mm.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from monai.data.meta_tensor import MetaTensor
from numpy.typing import NDArray

from medrl.errors import MedrlError
from medrl.volume.space import LPS_FROM_RAS, as_affine, as_transform, spacing_of

Matrix = NDArray[np.float64]

MINC_BANNER = "MNI Transform File"
#: What an LTA says its matrix maps: voxels, or world points.
_LTA_VOXELS, _LTA_WORLD = 0, 1
_LTA_ROWS = re.compile(r"^\s*1\s+4\s+4\s*\n((?:[^\n]*\n){4})", re.MULTILINE)
_LTA_VOLUME = re.compile(r"^\s*(src|dst) volume info\s*\n((?:\s*\w+\s*=[^\n]*(?:\n|$))+)", re.M)
_LTA_KEYS = ("type", "nxforms")
_SIZES_DIFFER = 0.01
#: An axis whose cosine with the nearest one of the body is less lies obliquely.
_STRAIGHT = 1 - 1e-6


def numbers(text: str) -> Matrix | None:
    """The rows of numbers that a text is, whatever follows # left out; None if it is another."""
    lines = [line.partition("#")[0].replace(",", " ").split() for line in text.splitlines()]
    try:
        rows = np.array([[float(word) for word in line] for line in lines if line])
    except ValueError:
        return None
    return rows if rows.ndim == 2 and rows.size else None


def square(rows: Matrix) -> Matrix:
    """A 4x4 matrix of 4 x 4 numbers, or of 12 or 16 in one line or 3 x 4.

    Raises:
        MedrlError: If there are more or fewer.
    """
    if rows.shape not in ((4, 4), (3, 4), (1, 12), (1, 16)):
        raise MedrlError(f"holds {rows.shape[0]} x {rows.shape[1]} numbers, not 4 x 4")
    matrix = np.eye(4)
    matrix.flat[: rows.size] = rows.ravel()
    return matrix


def from_fsl(matrix: Matrix, fixed: MetaTensor, moving: MetaTensor) -> Matrix:
    """Of FSL's FLIRT: moving to fixed, in voxels times their sizes, x turned round if det > 0."""
    ahead, behind = _fsl_from_world(fixed), np.linalg.inv(_fsl_from_world(moving))
    return as_transform(behind @ np.linalg.inv(as_transform(matrix)) @ ahead)


def to_fsl(transform_world: Matrix, fixed: MetaTensor, moving: MetaTensor) -> Matrix:
    """The matrix of FLIRT for a world transform."""
    ahead, behind = _fsl_from_world(fixed), np.linalg.inv(_fsl_from_world(moving))
    return as_transform(ahead @ np.linalg.inv(transform_world) @ behind)


def from_lta(
    text: str, *, fixed: MetaTensor | None, moving: MetaTensor | None
) -> tuple[Matrix, tuple[str, ...]]:
    """Of FreeSurfer's LTA: source, the moving scan, to destination, in the world or in voxels.

    Returns:
        The matrix, and what to remark: where the file's source is the fixed scan and its
        destination the moving one, it is taken so.

    Raises:
        MedrlError: If it is damaged or of another type.
    """
    plain = "\n".join(line for line in text.splitlines() if not line.lstrip().startswith("#"))
    kind, count = (re.search(rf"^\s*{key}\s*=\s*(-?\d+)", plain, re.M) for key in _LTA_KEYS)
    found = _LTA_ROWS.search(plain + "\n")
    rows = None if found is None else numbers(found[1])
    if kind is None or rows is None or rows.shape != (4, 4):
        raise MedrlError("cannot be read as LTA: it is damaged or unknown")
    if count is not None and int(count[1]) != 1:
        raise MedrlError(f"holds {count[1]} transforms; give one by one")
    volumes = {key: _lta_volume(lines) for key, lines in _LTA_VOLUME.findall(plain)}
    matrix = as_transform(rows)
    if int(kind[1]) == _LTA_VOXELS:
        source, target = volumes.get("src"), volumes.get("dst")
        if source is None or target is None:
            raise MedrlError("maps voxels, but does not say where its two volumes lie")
        matrix = target[0] @ matrix @ np.linalg.inv(source[0])
    elif int(kind[1]) != _LTA_WORLD:
        raise MedrlError(
            f"is an LTA of type {kind[1]}; medrl reads 0 (voxels) and 1 (RAS): convert it with "
            "FreeSurfer's lta_convert"
        )
    matrix = as_transform(matrix)
    if _is_turned_round(volumes, fixed, moving):
        return matrix, ("by the volumes it names it maps the fixed scan to the moving one",)
    return as_transform(np.linalg.inv(matrix)), ()


def to_lta(transform_world: Matrix, fixed: MetaTensor, moving: MetaTensor) -> str:
    """The text of an LTA for a world transform."""
    matrix = np.linalg.inv(transform_world)
    lines = ["type      = 1 # LINEAR_RAS_TO_RAS", "nxforms   = 1"]
    lines += ["mean      = 0.0000 0.0000 0.0000", "sigma     = 1.0000", "1 4 4"]
    lines += [" ".join(f"{value:.15e}" for value in row) for row in matrix]
    for key, scan in (("src", moving), ("dst", fixed)):
        affine, shape = as_affine(scan.affine), np.array(scan.shape[1:])
        sizes = spacing_of(affine)
        name = Path(str(scan.meta.get("filename_or_obj") or "unknown")).name
        lines += [f"{key} volume info", "valid = 1  # volume info valid"]
        # No spaces: other readers end the name there.
        lines.append("filename = " + "_".join(name.replace("#", "_").replace("=", "_").split()))
        lines.append("volume = " + " ".join(map(str, shape)))
        lines.append("voxelsize = " + " ".join(f"{size:.15e}" for size in sizes))
        directions = [*(affine[:3, :3] / sizes).T, affine[:3, 3] + affine[:3, :3] @ shape / 2]
        for label, vector in zip(("xras", "yras", "zras", "cras"), directions, strict=True):
            lines.append(f"{label}   = " + " ".join(f"{value:.15e}" for value in vector))
    return "\n".join([*lines, ""])


def is_register_dat(text: str) -> bool:
    """Whether a text is FreeSurfer's register.dat."""
    return _register_dat(text) is not None


def from_register_dat(text: str, fixed: MetaTensor, moving: MetaTensor) -> Matrix:
    """Of FreeSurfer's register.dat: fixed (anatomy) to moving, in the space of tkregister.

    Raises:
        MedrlError: If it is damaged, or its voxel sizes are not those of the moving scan.
    """
    found = _register_dat(text)
    if found is None:
        raise MedrlError("cannot be read as register.dat: it is damaged or of another kind")
    sizes, matrix = found
    own = spacing_of(moving.affine)[[0, 2]]
    if np.abs(own / sizes - 1).max() > _SIZES_DIFFER:
        raise MedrlError(
            f"is for a moving scan with voxels of {sizes[0]:g} mm and slices of {sizes[1]:g} mm; "
            f"this one has {own[0]:g} and {own[1]:g}"
        )
    ahead, behind = _tk_from_world(fixed), np.linalg.inv(_tk_from_world(moving))
    return as_transform(behind @ as_transform(matrix) @ ahead)


def from_afni(
    rows: Matrix, *, fixed: MetaTensor | None, moving: MetaTensor | None
) -> tuple[Matrix, tuple[str, ...]]:
    """Of AFNI (.aff12.1D): base, the fixed scan, to source, in LPS (DICOM order).

    Returns:
        The matrix, and what to remark of scans whose obliquity AFNI leaves out of account.
    """
    if rows.shape[1] == 12 and rows.shape[0] > 1:
        raise MedrlError(f"holds {rows.shape[0]} transforms, one for each volume; give one of them")
    matrix = as_transform(LPS_FROM_RAS @ square(rows) @ LPS_FROM_RAS)
    for scan in (fixed, moving):
        axes = np.eye(3) if scan is None else as_affine(scan.affine)[:3, :3]
        if (np.abs(axes) / np.linalg.norm(axes, axis=0)).max(axis=0).min() < _STRAIGHT:
            told = "AFNI's matrices are for scans straightened first, and one here lies obliquely"
            return matrix, (told,)
    return matrix, ()


def from_minc(text: str) -> Matrix:
    """Of MINC (.xfm): moving to fixed in the world; what it concatenates comes one after the other.

    Raises:
        MedrlError: If it is damaged or not linear.
    """
    matrix = np.eye(4)
    plain = "\n".join(line.partition("%")[0] for line in text.splitlines()[1:])
    kinds = re.findall(r"Transform_Type\s*=\s*(\w+)\s*;", plain)
    if any(kind != "Linear" for kind in kinds):
        raise MedrlError("bends space (not linear); medrl takes rigid, similarity and affine")
    blocks = re.split(r"Transform_Type\s*=\s*Linear\s*;", plain)[1:]
    for block in blocks:
        found = re.search(r"Linear_Transform\s*=([^;]*);", block)
        values = None if found is None else numbers(" ".join(found[1].split()))
        if values is None or values.size != 12:
            raise MedrlError("cannot be read as a transform of MINC: it is damaged")
        step = as_transform(square(values))
        if re.search(r"Invert_Flag\s*=\s*True\s*;", block):
            step = as_transform(np.linalg.inv(step))
        matrix = step @ matrix
    if not blocks:
        raise MedrlError("cannot be read as a transform of MINC: it is damaged")
    return as_transform(np.linalg.inv(as_transform(matrix)))


# -------------------------------------------------------------------------------------------------


def _fsl_from_world(scan: MetaTensor) -> Matrix:
    """World (RAS mm) to FSL's scaled voxels."""
    affine = as_affine(scan.affine)
    sizes = spacing_of(affine)
    scaled = np.diag([*sizes, 1.0])
    if np.linalg.det(affine) > 0:
        scaled[0, 0], scaled[0, 3] = -sizes[0], (scan.shape[1] - 1) * sizes[0]
    return scaled @ np.linalg.inv(affine)


def _tk_from_world(scan: MetaTensor) -> Matrix:
    """World (RAS mm) to tkregister's: a coronal scan of the same size around the origin."""
    sizes = spacing_of(scan.affine)
    x, y, z = sizes * np.array(scan.shape[1:]) / 2
    dx, dy, dz = sizes
    tk = np.array([[-dx, 0, 0, x], [0, 0, dz, -z], [0, -dy, 0, y], [0, 0, 0, 1.0]])
    return tk @ np.linalg.inv(as_affine(scan.affine))


def _register_dat(text: str) -> tuple[Matrix, Matrix] | None:
    """In-plane voxel size and slice distance, and the matrix; None if the text is another."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    rows = numbers("\n".join(lines[4:8])) if len(lines) >= 8 else None
    try:
        sizes = np.array([float(line) for line in lines[1:3]])
    except ValueError:
        return None
    known = rows is not None and rows.shape == (4, 4) and bool((sizes > 0).all())
    return (sizes, rows) if known and rows is not None else None


def _lta_volume(lines: str) -> tuple[Matrix, tuple[int, ...]] | None:
    """Voxel to world, and size of a volume of an LTA; None if it says that it does not know."""
    values: dict[str, Sequence[float]] = {}
    for line in lines.splitlines():
        key, _, value = line.partition("=")
        if key.strip() == "filename":  # which may hold anything
            continue
        row = numbers(value)
        values[key.strip()] = [] if row is None else row.ravel().tolist()
    if values.get("valid", [1])[:1] != [1]:
        return None
    try:
        columns = np.array([values[key] for key in ("xras", "yras", "zras")]).T
        linear = columns * np.array(values["voxelsize"])
        affine = np.eye(4)
        affine[:3, :3] = linear
        affine[:3, 3] = np.array(values["cras"]) - linear @ np.array(values["volume"]) / 2
        return as_affine(affine), tuple(int(n) for n in values["volume"])
    except (KeyError, ValueError, OverflowError) as error:
        raise MedrlError("cannot be read as LTA: it is damaged or unknown") from error


def _is_turned_round(
    volumes: dict[str, tuple[Matrix, tuple[int, ...]] | None],
    fixed: MetaTensor | None,
    moving: MetaTensor | None,
) -> bool:
    """Whether the source of an LTA is the fixed scan, and its destination the moving one."""
    source, target = volumes.get("src"), volumes.get("dst")
    if _lies_as(source, moving) or _lies_as(target, fixed):
        return False
    return _lies_as(source, fixed) and _lies_as(target, moving)


def _lies_as(volume: tuple[Matrix, tuple[int, ...]] | None, scan: MetaTensor | None) -> bool:
    if volume is None or scan is None or volume[1] != tuple(scan.shape[1:]):
        return False
    return bool(np.allclose(volume[0], as_affine(scan.affine), atol=0.05))
