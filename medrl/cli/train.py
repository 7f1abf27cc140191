"""`medrl train`: train agents on your own scans.

With points (`landmark`), with masks (`seednet`), or as they are (`registration`).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import tyro

from medrl.cli.terminal import check_device, parse, progress_bars, stdout
from medrl.errors import MedrlError
from medrl.files import prepare_folder
from medrl.landmark import train as landmark
from medrl.registration import train as registration
from medrl.seednet import train as seednet

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

#: When nothing can be animated, a line is printed each time so many percent more are done.
_EVERY_PERCENT = 10


@dataclass(frozen=True, kw_only=True)
class _Options:
    """What the training of every system asks for."""

    out: Annotated[Path, tyro.conf.arg(aliases=["-o"])]
    """Folder to write into; made if missing."""

    card: Path | None = None
    """JSON file with the model card: title, intended use, training data, licence, limits."""

    licence: Path | None = None
    """Text of the licence that the model gets."""

    evaluate: bool = True
    """Measure the model on the test scans at the end."""


@dataclass(frozen=True, kw_only=True)
class Landmark(_Options):
    """Train landmark agents on your own scans and points.

    The model is written to OUT/NAME and measured on the datalist's test scans; OUT/logs is for
    TensorBoard; OUT/checkpoints is what --resume goes on from.
    """

    data: Path
    """Datalist (JSON): scans and landmark files of the splits training, validation and test."""

    settings: Annotated[landmark.TrainSettings, tyro.conf.arg(name="")] = field(
        default_factory=landmark.TrainSettings
    )


@dataclass(frozen=True, kw_only=True)
class SeedNet(_Options):
    """Train an agent that segments from one click on your own scans and masks.

    The model is written to OUT/NAME and measured on the datalist's test scans; OUT/logs is for
    TensorBoard; OUT/checkpoints is what --resume goes on from.
    """

    data: Path
    """Datalist (JSON): image and label files of the splits training, validation and test."""

    settings: Annotated[seednet.TrainSettings, tyro.conf.arg(name="")] = field(
        default_factory=seednet.TrainSettings
    )


@dataclass(frozen=True, kw_only=True)
class Registration(_Options):
    """Train agents that align two scans, on your own scans; nothing need be marked in them.

    The model is written to OUT/NAME and measured on the datalist's test scans; OUT/logs is for
    TensorBoard; OUT/checkpoints is what --resume goes on from.
    """

    data: Path
    """Datalist (JSON): image files of the splits training, validation and test."""

    settings: Annotated[registration.TrainSettings, tyro.conf.arg(name="")] = field(
        default_factory=registration.TrainSettings
    )


def main(argv: Sequence[str]) -> int:
    """Run `medrl train`.

    Args:
        argv: What follows `medrl train` on the command line.

    Returns:
        Exit code: 0, or 1 if some test scans could not be used.

    Raises:
        MedrlError: If the data or settings are unusable.
    """
    command: Landmark | SeedNet | Registration = parse(
        {"landmark": Landmark, "seednet": SeedNet, "registration": Registration},
        argv,
        prog="medrl train",
    )
    if isinstance(command, Landmark):
        return run_landmark(command)
    if isinstance(command, SeedNet):
        return run_seednet(command)
    return run_registration(command)


def run_landmark(command: Landmark) -> int:
    """Train landmark agents, measure them, and complete the bundle."""
    from medrl.landmark.data import read_datalist

    card, licence = _prepare(command, title=f"Landmark agents {command.settings.name}")
    check_device(command.settings.device)
    cases = read_datalist(command.data)
    with progress_bars() as progress:
        bundle = landmark.train(
            command.settings,
            data=command.data,
            out=command.out,
            card=card,
            report=Report(progress),
        )
    metrics, code = {}, 0
    if command.evaluate and cases["test"]:
        from medrl.cli import evaluate

        settings = evaluate.Landmark(
            data=command.data,
            out=command.out / "evaluation",
            model=str(bundle),
            device=command.settings.device,
        )
        code = evaluate.run_landmark(settings)
        summary = _evaluation(settings.out)
        metrics = {
            "test": {
                "scans": summary["scans"],
                "error_mm": {name: both["all"] for name, both in summary["methods"].items()},
                "mean_error_mm_by_landmark": {
                    name: figures["mean"]
                    for name, figures in summary["methods"]["agents"]["landmarks"].items()
                },
                "presence": summary["presence"],
                "confidence_auc": summary["confidence"]["auc"],
            }
        }
    _finish(bundle, metrics=metrics, licence=licence)
    _tell(bundle, f"medrl detect SCAN -o OUT --model {bundle}")
    return code


def run_seednet(command: SeedNet) -> int:
    """Train a seed agent, measure it, and complete the bundle."""
    from medrl.seednet.data import read_datalist

    card, licence = _prepare(command, title=f"Seed agent {command.settings.name}")
    channels = command.settings.model_settings().channels
    cases = read_datalist(command.data, [channel.name for channel in channels])
    with progress_bars() as progress:
        bundle = seednet.train(
            command.settings,
            data=command.data,
            out=command.out,
            card=card,
            progress=Report(progress),
        )
    metrics, code = {}, 0
    if command.evaluate and cases["test"]:
        from medrl.cli import evaluate

        settings = evaluate.SeedNet(
            data=command.data, out=command.out / "evaluation", model=str(bundle)
        )
        code = evaluate.run_seednet(settings)
        metrics = {"test": _evaluation(settings.out)["targets"]}
    _finish(bundle, metrics=metrics, licence=licence)
    _tell(bundle, f"medrl segment SCAN --seed fg:x,y,z -o OUT --model {bundle}")
    return code


def run_registration(command: Registration) -> int:
    """Train registration agents, measure them, and complete the bundle."""
    from medrl.registration.data import read_datalist

    card, licence = _prepare(command, title=f"Registration agents {command.settings.name}")
    scans = read_datalist(command.data)
    with progress_bars() as progress:
        bundle = registration.train(
            command.settings,
            data=command.data,
            out=command.out,
            card=card,
            progress=Report(progress),
        )
    metrics, code = {}, 0
    if command.evaluate and scans["test"]:
        from medrl.cli import evaluate

        settings = evaluate.Registration(
            data=command.data, out=command.out / "evaluation", model=str(bundle)
        )
        code = evaluate.run_registration(settings)
        summary = _evaluation(settings.out)
        metrics = {"test": {key: summary[key] for key in ("scans", "bands", "confidence")}}
    _finish(bundle, metrics=metrics, licence=licence)
    _tell(bundle, f"medrl register FIXED MOVING -o OUT --model {bundle}")
    return code


def _prepare(command: _Options, *, title: str) -> tuple[dict[str, Any], str | None]:
    """Read card and licence and make the output folder, before anything takes time."""
    card = {"title": title} if command.card is None else _read_card(command.card)
    licence = None if command.licence is None else _read_text(command.licence)
    prepare_folder(command.out)
    return card, licence


def _evaluation(folder: Path) -> dict[str, Any]:
    """The figures that `medrl evaluate` has written."""
    return cast(dict[str, Any], json.loads((folder / "evaluation.json").read_text()))


def _finish(bundle: Path, *, metrics: Mapping[str, Any], licence: str | None) -> None:
    """Write the bundle once more, with its figures and its licence."""
    from medrl.bundles import load_weights, read_manifest, save

    manifest = {**read_manifest(bundle), "metrics": metrics}
    save(bundle, load_weights(bundle), manifest, licence=licence)


def _tell(bundle: Path, example: str) -> None:
    """Say where the model is and how it is used."""
    console = stdout()
    console.print(f"model: {bundle}", markup=False, soft_wrap=True)
    console.print(f"try: {example}", markup=False, soft_wrap=True)


class Report:
    """Shows how training goes: a bar for each stage, or a line now and then in a pipe."""

    def __init__(self, progress: Progress) -> None:
        """Show in these bars."""
        self._progress = progress
        self._bars: dict[str, TaskID] = {}
        self._told: dict[str, int] = {}

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
            if tenth > self._told.get(what, 0):
                self._told[what] = tenth
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
