"""`medrl train landmark`: train agents on your own scans and points."""

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
from medrl.landmark.train import TrainSettings, train

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

#: When nothing can be animated, a line is printed each time so many percent more are done.
_EVERY_PERCENT = 10


@dataclass(frozen=True, kw_only=True)
class Landmark:
    """Train landmark agents on your own scans and points.

    The model is written to OUT/NAME and measured on the datalist's test scans; OUT/logs is for
    TensorBoard; OUT/checkpoints is what --resume goes on from.
    """

    data: Path
    """Datalist (JSON): scans and landmark files of the splits training, validation and test."""

    out: Annotated[Path, tyro.conf.arg(aliases=["-o"])]
    """Folder to write into; made if missing."""

    card: Path | None = None
    """JSON file with the model card: title, intended use, training data, licence, limits."""

    licence: Path | None = None
    """Text of the licence that the model gets."""

    evaluate: bool = True
    """Measure the model on the test scans at the end."""

    settings: Annotated[TrainSettings, tyro.conf.arg(name="")] = field(
        default_factory=TrainSettings
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
    return run(parse({"landmark": Landmark}, argv, prog="medrl train"))


def run(command: Landmark) -> int:
    """Train, measure, and complete the bundle."""
    from medrl.bundles import load_weights, read_manifest, save
    from medrl.landmark.data import read_datalist

    card = _read_card(command.card, name=command.settings.name)
    licence = None if command.licence is None else _read_text(command.licence)
    check_device(command.settings.device)
    prepare_folder(command.out)
    cases = read_datalist(command.data)
    with progress_bars() as progress:
        report = Report(progress)
        bundle = train(
            command.settings, data=command.data, out=command.out, card=card, progress=report
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
        code = evaluate.run(settings)
        summary = json.loads((settings.out / "evaluation.json").read_text())
        metrics = {
            "test": {
                "scans": summary["scans"],
                "error_mm": {name: both["all"] for name, both in summary["methods"].items()},
                "mean_error_mm_by_landmark": {
                    name: figures["mean"]
                    for name, figures in summary["methods"]["agents"]["landmarks"].items()
                },
                "presence": summary["presence"],
                "confidence_auc": summary["confidence_auc"],
            }
        }
    manifest = {**read_manifest(bundle), "metrics": metrics}
    save(bundle, load_weights(bundle), manifest, licence=licence)
    console = stdout()
    console.print(f"model: {bundle}", markup=False, soft_wrap=True)
    console.print(f"try: medrl detect SCAN -o OUT --model {bundle}", markup=False, soft_wrap=True)
    return code


class Report:
    """Shows how training goes: a bar for each scale, or a line now and then in a pipe."""

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


def _read_card(path: Path | None, *, name: str) -> dict[str, Any]:
    """The model card; a bare one if none is given."""
    if path is None:
        return {"title": f"Landmark agents {name}"}
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
