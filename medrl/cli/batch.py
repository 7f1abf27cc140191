"""`medrl batch`: work through many scans."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from medrl.cli import complain
from medrl.cli.terminal import check_device, parse, progress_bars
from medrl.errors import MedrlError

if TYPE_CHECKING:
    from medrl.batch.cases import Case
    from medrl.batch.engines import Outcome


@dataclass(frozen=True, kw_only=True)
class _Options:
    """What every batch asks for."""

    where: Annotated[str, tyro.conf.Positional, tyro.conf.arg(name="input", metavar="INPUT")]
    """A folder (any depth; NIfTI, NRRD, MHA/MHD files, DICOM series), a glob in quotes, or a
    manifest: .csv, .tsv or .json with a row for each scan."""

    out: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(name="output", metavar="OUTPUT")]
    """Folder for the results: one below it for each scan, results.csv, failures.csv, run.json.
    The same command on a folder that is not finished goes on with it."""

    workers: int = 1
    """Processes that work side by side."""

    timeout: float | None = None
    """Seconds that reading a scan, working on it and writing its results may take each."""

    shard: str = ""
    """I/N: only the I-th of N parts of the scans, such as 1/4; for arrays of jobs on a cluster."""

    retry: bool = False
    """Try again what has failed before."""

    dry_run: bool = False
    """Print what would be done, and do nothing."""

    device: str = "cpu"
    """cpu, cuda or cuda:N."""

    picture: bool = True
    """Draw the pictures."""


@dataclass(frozen=True, kw_only=True)
class Detect(_Options):
    """Find landmarks in many scans."""

    model: str = "brain-t1"
    """Name of a model (see `medrl models`) or the folder of one."""

    landmarks: tuple[str, ...] = ()
    """Report only these; all if left out."""


def main(argv: Sequence[str]) -> int:
    """Run `medrl batch`.

    Args:
        argv: What follows `medrl batch` on the command line.

    Returns:
        Exit code: 0 all done, 1 some scans failed.

    Raises:
        MedrlError: If nothing can be done: no scans, no such model or device, an output folder
            that cannot be written to, is in use, or holds other results.
    """
    # With a single entry tyro would not ask for its name.
    command: Detect = parse({"detect": Detect, "": Detect}, argv, prog="medrl batch")

    from medrl.batch.discover import discover
    from medrl.batch.engines.local import LocalEngine
    from medrl.batch.run import plan, run
    from medrl.batch.tasks import DetectTask

    cases = _shard(discover(command.where, "detect", leave_out=command.out), command.shard)
    task = DetectTask(
        model=command.model,
        landmarks=command.landmarks,
        device=check_device(command.device),
        picture=command.picture,
    )
    task.facts()  # a model that is not there is found out now
    if command.dry_run:
        _print_plan(cases)
        return 0
    left = len(plan(cases, command.out, retry=command.retry).todo)
    if left < len(cases):
        print(
            f"medrl: {len(cases) - left} of {len(cases)} scans have ended before", file=sys.stderr
        )
    with progress_bars() as progress:
        bar = progress.add_task("scans", total=left, more="")
        failed = 0

        def tell(outcome: Outcome) -> None:
            nonlocal failed
            if outcome.error is not None:
                failed += 1
                complain(f"{outcome.case.name}: {outcome.error}")
            progress.update(bar, advance=1, more=f"{failed} failed" if failed else "")

        summary = run(
            task,
            cases,
            command.out,
            LocalEngine(command.workers),
            timeout=command.timeout,
            retry=command.retry,
            shard=command.shard,
            tell=tell,
        )
    print(f"{summary.done} of {len(cases)} scans done, {summary.failed} failed: {command.out}")
    return 1 if summary.failed else 0


def _shard(cases: list[Case], text: str) -> list[Case]:
    """The part of the cases that ``I/N`` names."""
    if not text:
        return cases
    index, slash, count = text.partition("/")
    if not (slash and index.isdigit() and count.isdigit() and 1 <= int(index) <= int(count)):
        raise MedrlError(f"--shard {text!r} is not of the form I/N, such as 1/4")
    return cases[int(index) - 1 :: int(count)]


def _print_plan(cases: Sequence[Case]) -> None:
    for case in cases:
        sources = ", ".join(
            f"{role} {source.path}" + (f" series {source.series}" if source.series else "")
            for role, source in case.sources.items()
        )
        print(f"{case.name}: {sources}")
    print(f"{len(cases)} scans")
