"""`medrl detect`, `medrl segment`, ...: what the agents of a system do, to one scan or a few."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from medrl.cli import complain, explain
from medrl.cli.deidentify import pseudonyms_of, shown_line
from medrl.cli.output import say, tell
from medrl.cli.terminal import (
    find_model,
    flat,
    model_field,
    options_type,
    parse,
    progress_bars,
    stdout,
)
from medrl.errors import MedrlError
from medrl.files import (
    distinct_stems,
    joint_stem,
    one_line,
    place_of,
    prepare_folder,
    printable,
    stem_of,
)
from medrl.systems import System, check_device

if TYPE_CHECKING:
    from rich.progress import Progress

    from medrl.dicom import Pseudonyms

_SCAN = "NIfTI, NRRD, MHA/MHD file, or DICOM series as folder or .zip."


@dataclass(frozen=True, kw_only=True)
class Options:
    """What every verb asks for."""

    out: Annotated[Path, tyro.conf.arg(aliases=["-o"])]
    """Folder to write into; made if missing."""

    model: str | None = None
    """Name of a model (see `medrl models`) or the folder of one; found for you if left out."""

    device: str = "cpu"
    """cpu, cuda or cuda:N."""

    json: bool = False
    """Print a report in JSON instead of tables."""

    picture: bool = True
    """Draw the picture."""

    deidentify: bool = False
    """Results without names, dates, identifiers and paths: scans and patients go by pseudonyms."""

    key: Path | None = None
    """File with the key of the pseudonyms, made if missing; left out: one in your configuration
    folder. Keep it apart from the results."""


@dataclass(frozen=True)
class _Case:
    """Scans by role or channel, what they are called, and what the results are called."""

    stem: str
    scans: dict[str, Path]
    labels: dict[str, str]

    @property
    def name(self) -> str:
        """What a person is told."""
        return " to ".join(reversed(self.labels.values()))

    def about(self, line: str) -> str:
        """A line that says which case it is about."""
        if any(label in line for label in self.labels.values()):
            return line
        return f"{list(self.labels.values())[-1]}: {line}"


@dataclass(frozen=True)
class _Done:
    """What came of a case."""

    result: Any
    files: dict[str, Path]
    notes: tuple[str, ...] = field(default=())


def main(system: System, argv: Sequence[str]) -> int:
    """Run the verb of a system.

    Args:
        system: Whose agents do it.
        argv: What follows its verb on the command line.

    Returns:
        Exit code: 0, or 1 if some scans failed.

    Raises:
        MedrlError: If nothing can be done: no such model, option or device, or an output folder
            that cannot be written to.
    """
    command: Any = parse(
        command_type(system),
        argv,
        prog=f"medrl {system.verb}",
        description=system.description or system.summary,
    )
    named = _scans(system, command)
    system.check_given(command.given, named[0])
    prepare_folder(command.out)
    pseudonyms = pseudonyms_of(command.deidentify, command.key, command.out)
    check_device(command.device)
    cases = _cases(system, named, pseudonyms)

    from medrl.bundles import read_manifest

    bundle = find_model(system, command.model or system.choose_model(command.given, named[0]))
    predictor = system.load(bundle, device=command.device)
    system.check(predictor, command.options)
    reports: list[dict[str, Any]] = []
    done: dict[str, tuple[_Case, _Done]] = {}
    with progress_bars() as progress:
        every = progress.add_task("scans", total=len(cases), more="", visible=len(cases) > 1)
        for case in cases:
            try:
                one = _run(system, predictor, command, case, pseudonyms, progress)
            except Exception as error:
                line = shown_line(explain(error), case.labels, case.scans)
                complain(line)
                reports.append({**_labels(system, case), "status": "failed", "error": line})
            else:
                done[case.name] = case, one
                if doubt := system.doubt(one.result):
                    tell("warning", case.about(doubt))
                reports.append(_report(system, case, one))
            progress.advance(every)
    failed = len(cases) - len(done)
    if command.json:
        _print_json(system, read_manifest(bundle)["name"], reports)
    elif done:
        _print_tables(system, done)
    doubts = {name: system.doubt(one.result) for name, (_, one) in done.items()}
    doubted = {name: doubt for name, doubt in doubts.items() if doubt}
    for name, doubt in doubted.items():
        case, one = done[name]
        look = next((p for p in one.files.values() if p.suffix == ".png"), command.out)
        tell("warning", case.about(f"{doubt}; look at {look} before you use it"))
    if doubted and len(cases) > 1:
        tell("warning", f"{len(doubted)} of {len(done)} results are not to be relied on")
    if failed and len(cases) > 1:
        print(f"medrl: {failed} of {len(cases)} scans failed", file=sys.stderr)
    return 1 if failed else 0


def command_type(system: System) -> type[Options]:
    """The options of a verb: those of every verb, and what its system leaves to choose."""
    added: list[tuple[str, Any] | tuple[str, Any, Any]] = [model_field(system)]
    if system.several:
        name = tyro.conf.arg(metavar="SCAN...", help=_SCAN)
        added.append(("scans", Annotated[tuple[Path, ...], tyro.conf.Positional, name]))
    else:
        for role in system.roles:
            name = tyro.conf.arg(metavar=role.upper(), help=_SCAN)
            if system.images:
                kind: Any = Annotated[Path | None, tyro.conf.Positional, name]
                added.append((role, kind, None))
            else:
                added.append((role, Annotated[Path, tyro.conf.Positional, name]))
    if system.images:
        how = "CHANNEL=PATH, another image of the same patient in the same space; may be repeated."
        images = Annotated[tuple[str, ...], tyro.conf.arg(help=how), tyro.conf.UseAppendAction]
        added.append(("image", images, ()))
    added.append(("options", flat(system.options), field(default_factory=system.options)))
    given = flat(system.given, repeated=True)
    added.append(("given", given, field(default_factory=system.given)))
    return options_type(system.verb.capitalize(), Options, added)


def _scans(system: System, command: Any) -> list[dict[str, Path]]:
    """The scans of each case, by role or channel."""
    images = _images(command) if system.images else {}
    if system.several and not images:
        if not command.scans:
            raise MedrlError("name at least one scan")
        distinct: dict[Path, Path] = {}
        for scan in command.scans:
            if (place := place_of(scan)) in distinct:
                tell("note", f"{scan}: is named more than once, and done once")
            distinct.setdefault(place, scan)
        return [{system.roles[-1]: scan} for scan in distinct.values()]
    if system.several:
        if len(command.scans) > 1:
            raise MedrlError("--image is for one scan at a time")
        paths = dict(zip(system.roles, command.scans, strict=False))
    else:
        paths = {role: getattr(command, role) for role in system.roles}
    scans = {role: path for role, path in paths.items() if path is not None}
    if not scans | images:
        raise MedrlError("name a scan")
    return [scans | images]


def _images(command: Any) -> dict[str, Path]:
    """Further images of the same patient, by channel."""
    images: dict[str, Path] = {}
    for text in command.image:
        channel, sign, path = text.partition("=")
        if not (channel and sign and path):
            raise MedrlError(f"--image {text!r} is not of the form CHANNEL=PATH")
        if channel in images:
            raise MedrlError("two images are of the same channel")
        images[channel] = Path(path)
    return images


def _cases(
    system: System, named: Sequence[dict[str, Path]], pseudonyms: Pseudonyms | None
) -> list[_Case]:
    """What results and messages call the scans: by their paths, or by pseudonyms."""
    if len(named) > 1:
        stems = distinct_stems([next(iter(scans.values())) for scans in named])
    elif len(system.roles) > 1:
        stems = [joint_stem([named[0][role] for role in reversed(system.roles)])]
    else:
        stems = [stem_of(next(iter(named[0].values())))]
    cases = []
    for stem, scans in zip(stems, named, strict=True):
        labels = {role: printable(str(path)) for role, path in scans.items()}
        if pseudonyms is not None:
            stem = pseudonyms.case(stem)
            own = system.roles[-1] if system.roles[-1] in scans else next(iter(scans))
            labels = {role: stem if role == own else role for role in scans}
        cases.append(_Case(stem, scans, labels))
    return cases


def _run(
    system: System,
    predictor: Any,
    command: Any,
    case: _Case,
    pseudonyms: Pseudonyms | None,
    progress: Progress,
) -> _Done:
    """Read, predict and write one case."""
    from medrl.batch.task import read_scan

    bar = progress.add_task(case.stem, total=None, more="reading")
    try:
        scans = {
            role: read_scan(path, case.labels[role], films=system.films)
            for role, path in case.scans.items()
        }
        data = system.read(predictor, scans, command.given, command.options)
        progress.update(bar, more="searching")
        (result,) = system.predict(
            predictor,
            [data],
            command.options,
            progress=lambda done, total: progress.update(bar, completed=done, total=total),
        )
        if isinstance(result, Exception):
            raise result
        progress.update(bar, more="writing")
        how = {"picture": command.picture, "pseudonyms": pseudonyms}
        files = system.save(result, command.out, case.stem, command.options, **how)
        doubt = system.doubt(result)
        notes = [line for line in result.warnings if line != doubt]
        return _Done(result, files, (*notes, *getattr(files, "remarks", ())))
    finally:
        progress.remove_task(bar)


def _labels(system: System, case: _Case) -> dict[str, str]:
    """The scans of a case as a report names them."""
    first = next(iter(case.labels.values()))
    return {role: case.labels.get(role, first) for role in system.roles}


def _report(system: System, case: _Case, done: _Done) -> dict[str, Any]:
    """A case as in the JSON report."""
    return {
        **_labels(system, case),
        "status": "done",
        **system.report(done.result),
        "files": {kind: printable(str(path)) for kind, path in done.files.items()},
        "doubt": system.doubt(done.result),
        "warnings": list(done.notes),
        "seconds": round(done.result.seconds, 3),
    }


def _print_json(system: System, model: str, reports: Sequence[dict[str, Any]]) -> None:
    """Print the report of all cases; of a verb that takes but one, of that one if it is done."""
    done = [report for report in reports if report["status"] == "done"]
    if system.several:
        counts = {"model": model, "done": len(done), "failed": len(reports) - len(done)}
        print(json.dumps({**counts, "scans": reports}, indent=1, allow_nan=False))
    for report in () if system.several else done:
        content = {"model": model, **{k: v for k, v in report.items() if k != "status"}}
        print(json.dumps(content, indent=1, allow_nan=False))


def _print_tables(system: System, done: dict[str, tuple[_Case, _Done]]) -> None:
    """Print what was found, what the user should know of it, and the files that were written."""
    console = stdout()
    results = {one_line(name): one.result for name, (_, one) in done.items()}
    for table in system.tables(results):
        console.print(table)
    for case, one in done.values():
        for line in one.notes:
            tell("note", case.about(line))
    for _, one in done.values():
        files = list(one.files.values())
        for path in files if len(done) == 1 else files[:1]:
            say(f"wrote {path}")
