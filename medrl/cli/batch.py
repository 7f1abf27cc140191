"""`medrl batch`: work through many scans."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from medrl.cli import complain
from medrl.cli.deidentify import pseudonyms_of
from medrl.cli.engine import make_engine
from medrl.cli.output import say, tell
from medrl.cli.terminal import (
    choose,
    find_model,
    flat,
    model_field,
    options_type,
    parse,
    scan_progress,
)
from medrl.errors import MedrlError
from medrl.files import printable
from medrl.systems import System, all_systems

if TYPE_CHECKING:
    from medrl.batch.bids import Selection
    from medrl.batch.cases import Case
    from medrl.batch.events import EventLog
    from medrl.batch.found import Found, LeftOut
    from medrl.batch.run import Summary
    from medrl.batch.task import CaseTask
    from medrl.engines import Engine, Outcome


@dataclass(frozen=True, kw_only=True)
class Options:
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

    model: str | None = None
    """Name of a model (see `medrl models`) or the folder of one; the usual one if left out."""

    together: int | None = None
    """Scans whose agents share batches; as suits the device if left out."""


#: Options that say where scans lie, or whose they are, beside those of roles.
_IDENTIFYING = ("where", "out", "key", "json_log", "participant_label", "session_label")


def command_type(system: System) -> type[Options]:
    """The options of a batch: those of every batch, and what its system leaves to choose."""
    added: list[tuple[str, Any] | tuple[str, Any, Any]] = [model_field(system)]
    for role in system.roles[:-1]:
        what = tyro.conf.arg(help=f"The {role} scan of every case, unless a manifest names one.")
        added.append((role, Annotated[Path | None, what], None))
    added.append(("options", flat(system.options), field(default_factory=system.options)))
    return options_type(system.verb.capitalize(), Options, added)


def _about(system: System) -> str:
    """What the help says of a batch."""
    from medrl.batch.task import text_options

    own = [field.name for field in fields(system.given)] + text_options(system.options)
    lines = [f"Many scans: {system.summary}.", f"Columns of a manifest: {', '.join(system.roles)}."]
    if own:
        lines.append(f"Further ones, for cases that differ from the others: {', '.join(own)}.")
    if system.images:
        lines.append("Images of other channels go by their names.")
    return " ".join(lines)


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
    verbs = {system.verb: system for system in all_systems()}
    system = choose(argv, verbs, prog="medrl batch")
    prog = f"medrl batch {system.verb}"
    command: Any = parse(command_type(system), argv[1:], prog=prog, description=_about(system))

    from medrl.batch.discover import discover
    from medrl.batch.events import EventLog
    from medrl.batch.task import SystemTask

    model = command.model or system.choose_model(system.given(), system.roles)
    find_model(system, model)  # one that is not there is found out now
    pseudonyms = pseudonyms_of(command.deidentify, command.key, command.out)
    task = SystemTask(
        name=system.name,
        model=model,
        options=command.options,
        device=command.device,
        picture=command.picture,
        batch_size=_batch_size(system, command),
        pseudonyms=pseudonyms,
    )
    engine = make_engine(
        command.engine,
        command.workers,
        address=command.address,
        device=command.device,
        gpus=command.gpus,
    )
    shared = {role: getattr(command, role) for role in system.roles[:-1]}
    found = discover(
        command.where,
        system,
        shared={role: path for role, path in shared.items() if path is not None},
        leave_out=command.out,
        selection=_selection(command, task.model),
        split=command.split,
    )
    cases = _shard(found, command.shard)
    left_out = found.left_out
    if pseudonyms is not None:
        cases = [case.under(pseudonyms) for case in cases]
        left_out = ()
    if command.dry_run:
        _print_plan(cases, left_out)
        _say_what_was_found(found)
        say(f"{len(cases)} scans")
        return 0
    with EventLog(command.json_log) as log:
        summary = _work(command, task, cases, engine, log, left_out)
    _say_what_was_found(found)
    if summary.doubtful:
        tell(
            "warning",
            f"{summary.doubtful} of {summary.done} results are not to be relied on: "
            "report.html shows them first and says why",
        )
    say(f"{summary.done} of {len(cases)} scans done, {summary.failed} failed: {command.out}")
    return 1 if summary.failed else 0


def _work(
    command: Options,
    task: CaseTask,
    cases: Sequence[Case],
    engine: Engine,
    log: EventLog,
    left_out: Sequence[LeftOut],
) -> Summary:
    """Run the batch, and tell how it goes."""
    from medrl.batch.run import plan, run

    known = plan(cases, command.out, retry=command.retry)
    if len(known.todo) < len(cases):
        before = len(cases) - len(known.todo)
        line = f"{before} of {len(cases)} scans have ended before"
        if known.failed:
            line += f", {len(known.failed)} of them failed: --retry tries these again"
        tell("note", line)
    options = _plain(command, task.system)
    log.start(task, known, options, left_out)
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
                left_out=left_out,
                on_end=on_end,
            )
    except (Exception, KeyboardInterrupt) as error:
        how = str(error) or "interrupted"
        raise
    finally:
        log.end(how, cases, command.out)
    return summary


def _selection(command: Options, model: str) -> Selection:
    """Which images of a BIDS dataset are meant."""
    from medrl.batch.bids import Selection, suffixes_for
    from medrl.bundles import find, read_manifest

    usual = suffixes_for(read_manifest(find(model)))
    return Selection(command.participant_label, command.session_label, command.suffix, usual)


def _plain(command: Options, system: System) -> dict[str, Any]:
    """The options of a command in terms of JSON, as far as they may be written down."""
    options = asdict(command)
    options |= options.pop("options")
    hidden = (*_IDENTIFYING, *system.roles) if command.deidentify else ()
    return {key: _text(value) for key, value in options.items() if key not in hidden}


def _text(value: Any) -> Any:
    """A value in terms of JSON."""
    if isinstance(value, list | tuple):
        return [_text(one) for one in value]
    return printable(str(value)) if isinstance(value, str | Path) else value


def _batch_size(system: System, command: Options) -> int:
    """How many scans go together."""
    if command.together is None:
        return system.batch_size(command.device)
    if command.together < 1:
        raise MedrlError("--together must be at least 1")
    return command.together


def _shard(cases: list[Case], text: str) -> list[Case]:
    """The part of the cases that ``I/N`` names."""
    if not text:
        return cases
    index, slash, count = text.partition("/")
    if not (slash and index.isdigit() and count.isdigit() and 1 <= int(index) <= int(count)):
        raise MedrlError(f"--shard {text!r} is not of the form I/N, such as 1/4")
    return cases[int(index) - 1 :: int(count)]


def _say_what_was_found(found: Found) -> None:
    """Say what became of the files that were met, if not all of them are worked on."""
    if found.left_out:
        say(str(found))


def _print_plan(cases: Sequence[Case], left_out: Sequence[LeftOut]) -> None:
    """Print what would be done, and what would be left out."""
    for case in cases:
        sources = ", ".join(
            f"{role} {source.path}" + (f" series {source.series}" if source.series else "")
            for role, source in case.sources.items()
        )
        say(f"{case.name}: {sources}")
    for one in left_out:
        say(f"left out: {one.path}: {one.reason}")
