"""`medrl apply`: move a scan or points by a transform."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from medrl.cli import complain, explain
from medrl.cli.output import say, tell
from medrl.cli.terminal import parse
from medrl.errors import MedrlError
from medrl.files import prepare_folder, stem_of
from medrl.volume.transform_forms import FORMS, Form

if TYPE_CHECKING:
    from monai.data.meta_tensor import MetaTensor

    from medrl.volume.transform_files import Matrix

_MARKUPS, _TABLES = (".mrk.json", ".json"), (".fcsv", ".csv", ".tsv")
_SCANS = (".nii.gz", ".nii")


@dataclass(frozen=True, kw_only=True)
class Apply:
    """Move a scan or points by a transform between a fixed and a moving scan.

    A moving scan comes to the fixed one: on its grid with --reference, or else its voxels stay and
    only its place in the world changes. Points go the other way: those of the fixed scan come to
    where the same anatomy is in the moving one. With --inverse all of it is turned round: a fixed
    scan comes to the moving one, and points of the moving scan to the fixed one.
    """

    transform: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="TRANSFORM")]
    """Of ITK or ANTs (.tfm, .h5, .txt, .mat), a 4x4 world matrix in text (.txt, .mat), of FSL
    (.mat), FreeSurfer (.lta, register.dat), AFNI (.aff12.1D), MINC (.xfm) or elastix."""

    what: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="SCAN|POINTS")]
    """A scan, or points: 3D Slicer markups (.mrk.json, .fcsv) or a table (.csv, .tsv) with
    columns name, x, y, z."""

    out: Annotated[Path, tyro.conf.arg(aliases=["-o"])]
    """File to write (.nii.gz or .nii; of markups .mrk.json, of other points .csv), or a folder for
    NAME_moved."""

    reference: Path | None = None
    """Scan on whose grid the result is to be: the fixed one; with --inverse the moving one."""

    inverse: bool = False
    """Turn the transform round."""

    nearest: bool = False
    """Take the nearest voxel: for masks and label maps."""

    form: Form | None = None
    """What TRANSFORM is, where its content is not to be asked: 4x4 numbers in a .mat are taken for
    FSL's or for a world matrix (greedy, c3d) by what fits the two scans better."""

    fixed: Path | None = None
    """The fixed scan; needed for a matrix of FSL and register.dat, unless it is SCAN or the
    reference."""

    moving: Path | None = None
    """The moving scan, likewise."""


def main(argv: Sequence[str]) -> int:
    """Run `medrl apply`.

    Args:
        argv: What follows `medrl apply` on the command line.

    Returns:
        Exit code: 0, or 1 if the scan or points could not be moved.

    Raises:
        MedrlError: If the options contradict each other or the output folder cannot be written to.
    """
    command: Apply = parse(Apply, argv, prog="medrl apply")
    points = command.what.name.lower().endswith((*_MARKUPS, *_TABLES))
    if points and (command.reference or command.nearest):
        raise MedrlError("--reference and --nearest are for scans, not for points")
    target = _target(command)
    try:
        lines = _apply_to_points(command, target) if points else _apply_to_scan(command, target)
    except Exception as error:
        line = explain(error)
        complain(line if isinstance(error, MedrlError) else f"{command.what}: {line}")
        return 1
    for line in lines:
        say(line)
    say(f"wrote {target}")
    return 0


def _target(command: Apply) -> Path:
    """The file to write; its folder is made."""
    source, target = command.what, command.out
    known = next((e for e in (*_MARKUPS, *_TABLES) if source.name.lower().endswith(e)), None)
    endings = _MARKUPS if known in _MARKUPS else (".csv",) if known else _SCANS
    if target.is_dir() or not target.suffix:
        stem = source.name[: -len(known)] if known else stem_of(source)
        target = target / f"{stem}_moved{endings[0]}"
    elif not target.name.lower().endswith(endings):
        wanted = " or ".join(endings)
        raise MedrlError(f"cannot write {target}: its name must end in {wanted}; or name a folder")
    prepare_folder(target.parent)
    if target.resolve() == source.resolve():
        raise MedrlError(f"{target}: is what is to be moved; write to another file")
    return target


def _apply_to_scan(command: Apply, target: Path) -> list[str]:
    """Move a scan; lines that say what was done."""
    from medrl.volume.read import write_nifti
    from medrl.volume.resample import move_scan

    # Where voxels only change their places, labels stay exactly what they are.
    exactly = command.nearest or command.reference is None
    scan = _read(command.what, exactly=exactly)
    onto = None if command.reference is None else _read(command.reference)
    matrix, taken = _read_transform(command, scan=scan, onto=onto)
    way = "fixed to moving" if command.inverse else "moving to fixed"
    if onto is None:
        write_nifti(target, _replaced(scan, matrix))
        return [taken, f"{command.what}: {way}, in its own grid"]
    write_nifti(target, move_scan(scan, matrix, onto, nearest=command.nearest))
    return [taken, f"{command.what}: {way}, on the grid of {command.reference}"]


def _replaced(scan: MetaTensor, matrix: Matrix) -> MetaTensor:
    """The same voxels at another place in the world."""
    from medrl.volume.resample import place_scan
    from medrl.volume.transform_files import kind_of

    if kind_of(matrix) == "affine":
        raise MedrlError(
            f"{scan.meta['filename_or_obj']}: an affine transform shears its axes, which few "
            "programs read: name a scan to resample it onto with --reference"
        )
    return place_scan(scan, matrix)


def _apply_to_points(command: Apply, target: Path) -> list[str]:
    """Move points; lines that say what was done."""
    from medrl.volume.moved_markups import move_markups
    from medrl.volume.points import read_points, write_points_csv
    from medrl.volume.space import apply_affine

    matrix, taken = _read_transform(command)
    with _told():
        if command.what.name.lower().endswith(_MARKUPS):
            count = move_markups(command.what, target, matrix)
        else:
            points = read_points(command.what)
            count = len(points)
            rows = [
                {"name": name, **dict(zip("xyz", apply_affine(matrix, xyz).tolist(), strict=True))}
                for name, xyz in points.items()
            ]
            write_points_csv(target, rows)
    way = "moving to fixed" if command.inverse else "fixed to moving"
    return [taken, f"{command.what}: {count} points, {way}"]


def _read_transform(
    command: Apply, *, scan: MetaTensor | None = None, onto: MetaTensor | None = None
) -> tuple[Matrix, str]:
    """The transform as it is to be applied, and a line that says what its file was taken for.

    A scan and its reference tell what FSL's matrices mean.
    """
    import numpy as np

    from medrl.volume.space import as_transform
    from medrl.volume.transform_files import open_transform

    fixed, moving = (scan, onto) if command.inverse else (onto, scan)
    fixed = fixed if command.fixed is None else _read(command.fixed)
    moving = moving if command.moving is None else _read(command.moving)
    found = open_transform(command.transform, form=command.form, fixed=fixed, moving=moving)
    for remark in found.remarks:
        option = " (--form)" if "name its form" in remark else ""
        tell("note", f"{command.transform}: {remark}{option}")
    matrix = found.matrix_world
    taken = f"{command.transform}: taken as {FORMS[found.form]}"
    return as_transform(np.linalg.inv(matrix)) if command.inverse else matrix, taken


def _read(path: Path, *, exactly: bool = False) -> MetaTensor:
    """Read a scan or a mask, and tell what the user should know of it.

    Args:
        path: File or folder.
        exactly: Whole numbers come as such, however large.
    """
    from medrl.volume.read import read, read_labels

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            scan = read_labels(path) if exactly else read(path, allow_constant=True)
        except MedrlError:
            if not exactly:
                raise
            scan = read(path, allow_constant=True)
    for remark in scan.meta.get("remarks", ()):
        tell("note", f"{path}: {remark}")
    return scan


@contextmanager
def _told() -> Iterator[None]:
    """Tell what a reader warns of."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", UserWarning)
        yield
    for warning in caught:
        tell("note", str(warning.message))
