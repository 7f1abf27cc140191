"""`medrl evaluate registration`: errors on posed copies of scans, next to what is simpler."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from medrl.cli import complain
from medrl.cli.evaluate.common import Split, check_split, provenance, show, write
from medrl.cli.terminal import check_device, progress_bars
from medrl.files import prepare_folder

if TYPE_CHECKING:
    from rich.table import Table


@dataclass(frozen=True, kw_only=True)
class Registration:
    """Measure a registration model on posed copies of scans, next to what is simpler.

    Every scan is turned, shifted, given another contrast and registered with what it was. Writes
    evaluation.json (figures by band of difficulty) and cases.csv (every case and method).
    """

    data: Path
    """Datalist (JSON): image files of the splits."""

    out: Annotated[Path, tyro.conf.arg(aliases=["-o"])]
    """Folder to write into; made if missing."""

    model: str = "rigid-head"
    """Name of a model (see `medrl models`) or the folder of one."""

    split: Split = "test"
    """Which scans of the datalist."""

    bands: tuple[Literal["10", "30", "60", "any"], ...] = ("10", "30", "60", "any")
    """How far copies are turned about each axis, in degrees, and shifted along it, in mm; any is
    any orientation, shifted by up to 60 mm."""

    seed: int = 0
    """Of poses and contrasts."""

    device: str = "cpu"
    """cpu, cuda or cuda:N."""

    json: bool = False
    """Print the figures in JSON instead of tables."""


def run_registration(command: Registration) -> int:
    """Measure registration agents, print and write."""
    prepare_folder(command.out)
    device = check_device(command.device)

    from medrl.registration.data import read_datalist
    from medrl.registration.evaluate import evaluate
    from medrl.registration.register import Registrar

    registrar = Registrar.load(command.model, device=device)
    scans = read_datalist(command.data)
    check_split(command, scans)
    bands = tuple(dict.fromkeys(command.bands))
    with progress_bars() as progress:
        bar = progress.add_task("evaluating", total=None, more="")
        evaluation = evaluate(
            registrar,
            scans[command.split],
            bands=bands,
            seed=command.seed,
            progress=lambda done, total: progress.update(bar, completed=done, total=total),
        )
    summary = {
        **provenance(registrar.manifest, command),
        "seed": command.seed,
        **evaluation.summary(),
    }
    write(command.out, summary, {"cases.csv": evaluation.rows()})
    show(command, summary, registration_tables(summary), confidence_in_words(summary))
    for line in evaluation.failed.values():
        complain(line)
    return 1 if evaluation.failed else 0


def registration_tables(summary: Mapping[str, Any]) -> list[Table]:
    """For each band: how many answers of each method are right, and its median error."""
    from rich.table import Table

    bands = summary["bands"]
    right = Table(title=f"Right to {summary['right_mm']:g} mm, of all cases")
    median = Table(title="Median error in mm")
    for table in (right, median):
        table.title_justify = "left"
        table.box, table.pad_edge = None, False
        table.add_column("method", no_wrap=True)
        for figures in bands.values():
            turn, shift = figures["turn_deg"], figures["shift_mm"]
            how = "any turn" if turn is None else f"{turn:g} deg"
            table.add_column(f"{how}, {shift:g} mm", justify="right")
    for method in next(iter(bands.values()))["methods"]:
        own = [(figures["cases"], figures["methods"][method]) for figures in bands.values()]
        right.add_row(method, *(f"{values['right']}/{cases}" for cases, values in own))
        median.add_row(method, *(f"{values['median_error_mm']:.2f}" for _, values in own))
    return [right, median]


def confidence_in_words(summary: Mapping[str, Any]) -> str:
    """What the confidence is worth."""
    told = summary["confidence"]
    if told is None:
        return "the model says nothing of how sure it is"
    return (
        f"of {told['wrong']} wrong answers {told['wrong_flagged']} were not trusted, "
        f"of {told['right']} right ones {told['right_flagged']}"
    )
