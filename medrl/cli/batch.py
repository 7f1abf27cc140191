"""`medrl batch`: work through many scans."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from medrl.cli import complain
from medrl.cli.terminal import check_device, parse, scan_progress
from medrl.errors import MedrlError

if TYPE_CHECKING:
    from medrl.batch.bids import Selection
    from medrl.batch.cases import Case
    from medrl.batch.events import EventLog
    from medrl.batch.run import Summary
    from medrl.batch.task import CaseTask
    from medrl.dicom import Pseudonyms
    from medrl.engines import Engine, Outcome


@dataclass(frozen=True, kw_only=True)
class _Options:
    """What every batch asks for."""

    where: Annotated[str, tyro.conf.Positional, tyro.conf.arg(name="input", metavar="INPUT")]
    """A folder (any depth; NIfTI, NRRD, MHA/MHD files, DICOM series), a BIDS dataset, a glob in
    quotes, or a manifest: .csv, .tsv or .json with a row for each scan."""

    out: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(name="output", metavar="OUTPUT")]
    """Folder for the results: one below it for each scan, results.csv, results.parquet,
    failures.csv, report.html, run.json; of a BIDS dataset a BIDS derivative. The same command on a
    folder that is not finished goes on with it."""

    level: Annotated[
        Literal["participant"], tyro.conf.Positional, tyro.conf.arg(metavar="participant")
    ] = "participant"
    """May be given, as BIDS Apps have it; makes no difference."""

    participant_label: tuple[str, ...] = ()
    """Of a BIDS dataset: only these participants, with or without sub-."""

    session_label: tuple[str, ...] = ()
    """Of a BIDS dataset: only these sessions, with or without ses-."""

    suffix: tuple[str, ...] = ()
    """Of a BIDS dataset: only images with these suffixes, such as T1w; left out: those that suit
    the model."""

    split: Literal["training", "validation", "test"] | None = None
    """Of a datalist: only this list."""

    engine: Literal["local", "ray"] = "local"
    """Processes on this machine, or a Ray cluster (extra `ray`)."""

    workers: int | None = None
    """Processes that work side by side; left out: 1, or as many as the cluster has room for."""

    address: str | None = None
    """Of a running Ray cluster, such as auto or 10.0.0.1:6379."""

    gpus: float = 1.0
    """GPUs that a worker on Ray takes with --device cuda; 0.25 lets four share one."""

    timeout: float | None = None
    """Seconds that reading a scan, working on it and writing its results may take each."""

    shard: str = ""
    """I/N: only the I-th of N parts of the scans, such as 1/4; for arrays of jobs on a cluster."""

    retry: bool = False
    """Try again what has failed before."""

    json_log: Path | None = None
    """File to write events to, one JSON object a line, below what it holds."""

    dry_run: bool = False
    """Print what would be done, and do nothing."""

    device: str = "cpu"
    """cpu, cuda or cuda:N."""

    picture: bool = True
    """Draw the pictures."""

    deidentify: bool = False
    """Results, tables, logs and DICOM objects without names, dates, identifiers and paths: scans
    and patients go by pseudonyms. --dry-run prints which is which."""

    key: Path | None = None
    """File with the key of the pseudonyms, made if missing; left out: one in your configuration
    folder. Keep it apart from the results."""

    def pseudonyms(self) -> Pseudonyms | None:
        """What identities are replaced by, if they are."""
        from medrl.cli.deidentify import pseudonyms_of

        return pseudonyms_of(self.deidentify, self.key, self.out)


@dataclass(frozen=True, kw_only=True)
class Detect(_Options):
    """Find landmarks in many scans."""

    model: str = "brain-t1"
    """Name of a model (see `medrl models`) or the folder of one."""

    landmarks: tuple[str, ...] = ()
    """Report only these; all if left out."""

    together: int | None = None
    """Scans whose agents share batches; 1 on a CPU and 8 on a GPU if left out."""

    def task(self) -> CaseTask:
        """What is done to each scan."""
        from medrl.batch.tasks.detect import DetectTask

        return DetectTask(
            self.model,
            self.landmarks,
            self.device,
            self.picture,
            _together(self.together, self.device),
            pseudonyms=self.pseudonyms(),
        )


@dataclass(frozen=True, kw_only=True)
class Segment(_Options):
    """Segment an object in many scans, from seeds.

    Seeds of a.nii.gz are read from a.seeds.mrk.json beside it, or named in the column `seeds` of a
    manifest: a file, or fg:x,y,z (RAS mm). Further columns: target, channel, and images of other
    channels by their names.
    """

    model: str = "hippocampus-t1"
    """Name of a model (see `medrl models`) or the folder of one."""

    target: str | None = None
    """Which of the model's kinds of object; its first if left out."""

    agent: bool = True
    """Let the agent add seeds."""

    def task(self) -> CaseTask:
        """What is done to each scan."""
        from medrl.batch.tasks.segment import SegmentTask

        return SegmentTask(
            self.model,
            self.target,
            self.agent,
            self.device,
            self.picture,
            pseudonyms=self.pseudonyms(),
        )


@dataclass(frozen=True, kw_only=True)
class Register(_Options):
    """Align many pairs of scans: a manifest with columns fixed and moving, or all with --fixed."""

    fixed: Path | None = None
    """The scan that all others are brought onto."""

    model: str = "rigid-head"
    """Name of a model (see `medrl models`) or the folder of one."""

    transform: Literal["rigid", "similarity", "affine"] = "rigid"
    """What may change."""

    refine: bool = True
    """End with mutual information."""

    def task(self) -> CaseTask:
        """What is done to each pair."""
        from medrl.batch.tasks.register import RegisterTask

        return RegisterTask(
            self.model,
            self.transform,
            self.refine,
            self.device,
            self.picture,
            pseudonyms=self.pseudonyms(),
        )


#: Options that say where scans lie, or whose they are.
_TELLING = ("where", "out", "fixed", "key", "json_log", "participant_label", "session_label")

_VERBS: dict[str, type[Any]] = {
    "detect": Detect,
    "segment": Segment,
    "register": Register,
}


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
    command: Detect | Segment | Register = parse(_VERBS, argv, prog="medrl batch")

    from medrl.batch.discover import discover
    from medrl.batch.events import EventLog

    task = command.task()
    task.fingerprint()  # a model that is not there is found out now
    engine = _engine(command)
    fixed = command.fixed if isinstance(command, Register) else None
    selection = _selection(command)
    found = discover(
        command.where,
        task.verb,
        fixed=fixed,
        leave_out=command.out,
        selection=selection,
        split=command.split,
    )
    cases = _shard(found, command.shard)
    hidden = command.pseudonyms()
    if hidden is not None:
        cases = [case.under(hidden) for case in cases]
    if command.dry_run:
        _print_plan(cases)
        return 0
    with EventLog(command.json_log) as log:
        summary = _work(command, task, cases, engine, log)
    print(f"{summary.done} of {len(cases)} scans done, {summary.failed} failed: {command.out}")
    return 1 if summary.failed else 0


def _work(
    command: _Options, task: CaseTask, cases: Sequence[Case], engine: Engine, log: EventLog
) -> Summary:
    """Run the batch, and tell how it goes."""
    from medrl.batch.run import plan, run

    known = plan(cases, command.out, retry=command.retry)
    if len(known.todo) < len(cases):
        before = len(cases) - len(known.todo)
        line = f"medrl: {before} of {len(cases)} scans have ended before"
        if known.failed:
            line += f", {len(known.failed)} of them failed: --retry tries these again"
        print(line, file=sys.stderr)
    options = _plain(command)
    log.start(task, known, options)
    how = "finished"
    try:
        with scan_progress(len(known.todo)) as ended:

            def on_end(outcome: Outcome) -> None:
                if outcome.error is not None:
                    complain(f"{outcome.name}: {outcome.error}")
                ended(outcome.error is not None)
                log.case(outcome)

            summary = run(
                task,
                cases,
                command.out,
                engine,
                timeout=command.timeout,
                retry=command.retry,
                shard=command.shard,
                options=options,
                on_end=on_end,
            )
    except (Exception, KeyboardInterrupt) as error:
        how = str(error) or "interrupted"
        raise
    finally:
        log.end(how, cases, command.out)
    return summary


def _selection(command: Detect | Segment | Register) -> Selection:
    """Which images of a BIDS dataset are meant."""
    from medrl.batch.bids import Selection, suffixes_for
    from medrl.bundles import find, read_manifest

    usual = suffixes_for(read_manifest(find(command.model)))
    return Selection(command.participant_label, command.session_label, command.suffix, usual)


def _plain(command: _Options) -> dict[str, Any]:
    """The options of a command in terms of JSON, as far as they may be written down."""
    options = asdict(command)
    if command.deidentify:
        options = {name: v for name, v in options.items() if name not in _TELLING}
    return {key: str(v) if isinstance(v, Path) else v for key, v in options.items()}


def _engine(options: _Options) -> Engine:
    """Where the work is done."""
    if options.engine == "ray":
        from medrl.engines.ray import RayEngine

        return RayEngine(
            options.workers, address=options.address, device=options.device, gpus=options.gpus
        )
    from medrl.engines.local import LocalEngine

    if options.address is not None:
        raise MedrlError("--address is for --engine ray")
    check_device(options.device)
    return LocalEngine(1 if options.workers is None else options.workers)


def _together(wanted: int | None, device: str) -> int:
    """How many scans share batches."""
    if wanted is None:
        return 8 if device.startswith("cuda") else 1
    if wanted < 1:
        raise MedrlError("--together must be at least 1")
    return wanted


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
