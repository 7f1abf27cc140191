"""`medrl train`: train agents on your own scans."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, cast

import tyro

from medrl.cli.engine import make_engine
from medrl.cli.output import say, tell
from medrl.cli.terminal import choose, flat, options_type, parse, progress_bars
from medrl.data.datalist import NoSamplesError, has_scans
from medrl.errors import MedrlError
from medrl.files import prepare_folder
from medrl.systems import System, all_systems, check_device

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

_ABOUT = """Train agents on your own scans.

The model is written to OUT/NAME and measured on the datalist's test scans; OUT/logs is for
TensorBoard; OUT/checkpoints is what --resume goes on from."""
#: When nothing can be animated, a line is printed each time so many percent more are done.
_EVERY_PERCENT = 10


@dataclass(frozen=True, kw_only=True)
class Options:
    """What the training of every system asks for."""

    data: Path
    """Datalist (JSON): scans, and what is known of them, of the splits training, validation and
    test."""

    out: Annotated[Path, tyro.conf.arg(aliases=["-o"])]
    """Folder to write into; made if missing."""

    card: Path | None = None
    """JSON file with the model card: title, intended use, training data, licence, limits."""

    licence: Path | None = None
    """Text of the licence that the model gets."""

    evaluate: bool = True
    """Measure the model on the test scans at the end."""

    engine: Literal["local", "ray"] = "local"
    """Where stages that do not need each other run side by side: processes on this machine, or a
    Ray cluster (extra `ray`)."""

    workers: int = 2
    """How many of them; 0 trains one after the other in this process."""

    address: str | None = None
    """Of a running Ray cluster, such as auto or 10.0.0.1:6379."""


def command_type(system: System) -> type[Options]:
    """The options of a training: those of every training, and the recipe of its system."""
    recipe = system.train_settings
    if recipe is None:
        raise MedrlError(f"{system.name} models cannot be trained")
    added = ("settings", flat(recipe), field(default_factory=recipe))
    return options_type(system.name.capitalize(), Options, [added])


def main(argv: Sequence[str]) -> int:
    """Run `medrl train`.

    Args:
        argv: What follows `medrl train` on the command line.

    Returns:
        Exit code: 0, or 1 if some test scans could not be used.

    Raises:
        MedrlError: If the data or settings are unusable.
    """
    systems = {system.name: system for system in all_systems() if system.models is None}
    system = choose(argv, systems, prog="medrl train")
    command: Any = parse(
        command_type(system), argv[1:], prog=f"medrl train {system.name}", description=_ABOUT
    )
    settings = command.settings
    title = {"title": f"{system.name.capitalize()} agents {settings.name}"}
    card = title if command.card is None else _read_card(command.card)
    licence = None if command.licence is None else _read_text(command.licence)
    prepare_folder(command.out)
    device = getattr(settings, "device", "cpu")
    check_device(device)
    engine = None
    if command.workers:
        engine = make_engine(
            command.engine, command.workers, address=command.address, device=device
        )
    with progress_bars() as progress:
        bundle = system.train(
            settings,
            data=command.data,
            out=command.out,
            card=card,
            report=Report(progress),
            engine=engine,
        )
    metrics, code = {}, 0
    if command.evaluate and has_scans(command.data, "test"):
        from medrl.cli import evaluate

        options = evaluate.Options(
            data=command.data, out=command.out / "evaluation", model=str(bundle), device=device
        )
        try:
            evaluation = evaluate.run(system, options, system.evaluate_options())
        except NoSamplesError as error:
            tell("note", f"not measured: {error}")
        else:
            metrics = {"test": system.metrics(evaluation.summary)}
            code = 1 if evaluation.failed else 0
    _finish(bundle, metrics=metrics, licence=licence)
    say(f"model: {bundle}")
    scans = " ".join(role.upper() for role in system.roles)
    say(f"try: medrl {system.verb} {scans} -o OUT --model {bundle}")
    return code


def _finish(bundle: Path, *, metrics: Mapping[str, Any], licence: str | None) -> None:
    """Write the bundle once more, with its figures and its licence."""
    from medrl.bundles import load_weights, read_manifest, save

    manifest = {**read_manifest(bundle), "metrics": metrics}
    save(bundle, load_weights(bundle), manifest, licence=licence)


class Report:
    """Shows how training goes: a bar for each stage, or a line now and then in a pipe."""

    def __init__(self, progress: Progress) -> None:
        """Show in these bars."""
        self._progress = progress
        self._bars: dict[str, TaskID] = {}
        self._shown: dict[str, int] = {}

    def __call__(self, what: str, done: int, total: int, numbers: Mapping[str, float]) -> None:
        """Take note of a step.

        Args:
            what: What is being done.
            done: Steps done.
            total: All steps.
            numbers: What is worth showing, such as the loss.
        """
        more = "  ".join(f"{name} {value:.3f}" for name, value in numbers.items())
        if self._progress.disable:
            tenth = 100 * done // max(total, 1) // _EVERY_PERCENT
            if tenth > self._shown.get(what, 0):
                self._shown[what] = tenth
                print(f"{what}: {done} of {total}  {more}".rstrip(), flush=True)
            return
        if what not in self._bars:
            self._bars[what] = self._progress.add_task(what, total=total, more="")
        self._progress.update(self._bars[what], completed=done, total=total)
        if more:
            self._progress.update(self._bars[what], more=more)


def _read_card(path: Path) -> dict[str, Any]:
    """The model card."""
    try:
        card = json.loads(_read_text(path))
    except ValueError as error:
        raise MedrlError(f"{path} is not JSON: {error}") from None
    if not isinstance(card, dict):
        raise MedrlError(f"{path} must hold a JSON object")
    return cast(dict[str, Any], card)


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise MedrlError(f"{path} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise MedrlError(f"{path} is not a text file") from None
