"""`medrl register`: align a moving scan with a fixed one."""

from __future__ import annotations

import json
import sys
import time
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from medrl.cli import complain, debugging, unexpected
from medrl.cli.terminal import check_device, parse, progress_bars, stdout
from medrl.errors import MedrlError
from medrl.files import distinct_stems, prepare_folder

if TYPE_CHECKING:
    from monai.data.meta_tensor import MetaTensor

    from medrl.registration.register import Registrar
    from medrl.registration.results import Results


@dataclass(frozen=True, kw_only=True)
class Register:
    """Align a moving scan with a fixed one: find the transform between them.

    Writes the transform for ITK and 3D Slicer (.tfm) and as a 4x4 world matrix (.matrix.txt), the
    moving scan on the fixed one's grid (.nii.gz), every transform that the agent passed
    in .trajectory.json, a report with the confidence (.report.json) and two pictures,
    before-after and checkerboard (.png).
    """

    fixed: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="FIXED")]
    """The scan that stays: NIfTI, NRRD, MHA/MHD file, or DICOM series as folder or .zip."""

    moving: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="MOVING")]
    """The scan that is moved."""

    out: Annotated[Path, tyro.conf.arg(aliases=["-o"])]
    """Folder to write into; made if missing."""

    model: str = "rigid-head"
    """Name of a model (see `medrl models`) or the folder of one."""

    transform: Literal["rigid", "similarity", "affine"] = "rigid"
    """What may change: place and orientation; size too; or shape as well."""

    refine: bool = True
    """Refine the agent's answer by mutual information (SimpleITK)."""

    init: Path | None = None
    """Transform to start from, fixed to moving: of ITK (.tfm, .h5, .txt), a 4x4 world matrix in
    text (.txt), of ANTs or FSL (.mat), or of FreeSurfer (.lta)."""

    fixed_mask: Path | None = None
    """Mask of what counts in the fixed scan, on any grid in the same world."""

    moving_mask: Path | None = None
    """Mask of what counts in the moving scan."""

    also: tuple[Literal["ants", "fsl", "lta"], ...] = ()
    """Write the transform for these as well: .ants.mat, .fsl.mat, .lta (FreeSurfer); the last two
    take the extra `transforms`."""

    device: str = "cpu"
    """cpu, cuda or cuda:N."""

    json: bool = False
    """Print the report in JSON instead of a table."""

    picture: bool = True
    """Draw the pictures."""


def main(argv: Sequence[str]) -> int:
    """Run `medrl register`.

    Args:
        argv: What follows `medrl register` on the command line.

    Returns:
        Exit code: 0, or 1 if the scans could not be registered. An answer that is not to be
        trusted is written, and said to be so on standard error.

    Raises:
        MedrlError: If nothing can be done: no such model or device, a package that is missing, or
            an output folder that cannot be written to.
    """
    command: Register = parse(Register, argv, prog="medrl register")
    prepare_folder(command.out)
    device = check_device(command.device)

    from medrl.registration.register import Registrar
    from medrl.volume.transform_files import check_form

    for form in command.also:
        check_form(form)
    registrar = Registrar.load(command.model, device=device)
    try:
        results = _register(registrar, command)
    except MedrlError as error:
        complain(str(error))
        return 1
    except MemoryError:
        complain(f"{command.moving}: does not fit in memory; crop or downsample the scans")
        return 1
    except Exception as error:
        if debugging():
            raise
        complain(f"{command.moving}: {unexpected(error)}")
        return 1
    if command.json:
        files = {kind: str(path) for kind, path in results.files.items()}
        print(json.dumps({**results.report, "files": files}, indent=1, allow_nan=False))
    else:
        show(results)
    if not results.report["trusted"]:
        print(f"medrl: warning: {doubt(results)}", file=sys.stderr)
    return 0


def show(results: Results) -> None:
    """Print what came out, what the user should know of it, and the files that were written."""
    from rich.table import Table
    from rich.text import Text

    report = results.report
    title = f"{report['moving']} to {report['fixed']} ({report['seconds']:.1f} s)"
    table = Table(title=Text(title), title_justify="left", box=None, pad_edge=False)
    table.add_column("transform")
    for column in ("turned deg", "shifted mm", "overlap", "NMI before", "NMI after"):
        table.add_column(column, justify="right")
    for column in ("confidence", "predicted error mm"):
        table.add_column(column, justify="right")
    table.add_column("trusted")
    trusted = report["trusted"]
    table.add_row(
        report["transform"] + (", refined" if report["refined"] else ""),
        *(_number(report[key], 1) for key in ("turn_deg", "shift_mm")),
        *(_number(report[key], 2) for key in ("overlap", "nmi_before", "nmi_after", "confidence")),
        _number(report["predicted_error_mm"], 2),
        Text("yes" if trusted else "NO", style="green" if trusted else "bold red"),
    )
    console = stdout()
    console.print(table)
    for line in report["warnings"]:
        print(f"medrl: note: {line}", file=sys.stderr)
    for path in results.files.values():
        console.print(f"wrote {path}", markup=False, soft_wrap=True)


def doubt(results: Results) -> str:
    """What to say of a registration that is not to be trusted."""
    report = results.report
    look = results.files.get("before-after", results.files["scan"])
    return (
        f"{report['moving']}: NOT TRUSTED: confidence {_number(report['confidence'], 2)}, "
        f"predicted error {_number(report['predicted_error_mm'], 1)} mm; look at {look} before "
        "you use it, or give a start (--init) or masks"
    )


def _number(value: float | None, digits: int) -> str:
    return "unknown" if value is None else f"{value:.{digits}f}"


def _register(registrar: Registrar, command: Register) -> Results:
    """Read, register and write."""
    from medrl.registration.results import remarks, write_results
    from medrl.volume.transform_files import read_transform

    moving_stem, fixed_stem = distinct_stems([command.moving, command.fixed])
    stem = f"{moving_stem}_to_{fixed_stem}"
    began = time.perf_counter()
    with progress_bars() as progress:
        bar = progress.add_task(stem, total=None, more="reading")
        fixed, moving = (_read(path) for path in (command.fixed, command.moving))
        fixed_mask, moving_mask = (
            None if path is None else _read(path, mask=True)
            for path in (command.fixed_mask, command.moving_mask)
        )
        initial = None
        if command.init is not None:
            initial = read_transform(command.init, fixed=fixed, moving=moving)
        progress.update(bar, more="registering")
        registration = registrar.register(
            fixed,
            moving,
            transform=command.transform,
            refine=command.refine,
            fixed_mask=fixed_mask,
            moving_mask=moving_mask,
            initial_world=initial,
        )
        progress.update(bar, more="writing")
        facts: dict[str, Any] = {
            "model": str(registrar.manifest.get("name", command.model)),
            "warnings": remarks(fixed, moving, started=initial is not None),
            "seconds": round(time.perf_counter() - began, 3),
        }
        return write_results(
            command.out,
            stem,
            fixed,
            moving,
            registration,
            also=command.also,
            picture=command.picture,
            facts=facts,
        )


def _read(path: Path, *, mask: bool = False) -> MetaTensor:
    """Read a scan, or a mask, which may be blank; remarks are told later."""
    from medrl.volume.read import read

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return read(path, allow_constant=mask)
