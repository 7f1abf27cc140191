"""`medrl evaluate landmark`: errors on scans with points, next to the baselines."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from medrl.cli import complain
from medrl.cli.evaluate.common import Split, check_split, provenance, show, write
from medrl.cli.terminal import check_device, progress_bars
from medrl.files import prepare_folder

if TYPE_CHECKING:
    from rich.table import Table


@dataclass(frozen=True, kw_only=True)
class Landmark:
    """Measure a landmark model's errors on labelled scans, next to the baselines.

    Writes evaluation.json (figures over all and for each landmark), landmarks.csv (the same as a
    table) and errors.csv (every single error).
    """

    data: Path
    """Datalist (JSON): scans and landmark files of the splits; baselines use its training split."""

    out: Annotated[Path, tyro.conf.arg(aliases=["-o"])]
    """Folder to write into; made if missing."""

    model: str = "brain-t1"
    """Name of a model (see `medrl models`) or the folder of one."""

    split: Split = "test"
    """Which scans of the datalist."""

    atlases: int = 0
    """Training scans to carry over by affine registration as a baseline (7 s a scan and atlas)."""

    device: str = "cpu"
    """cpu, cuda or cuda:N."""

    json: bool = False
    """Print the figures in JSON instead of a table."""


def run_landmark(command: Landmark) -> int:
    """Measure landmark agents, print and write."""
    prepare_folder(command.out)
    device = check_device(command.device)

    from medrl.landmark.baselines import AffineAtlas, MeanPosition
    from medrl.landmark.data import read_datalist
    from medrl.landmark.detect import LandmarkDetector
    from medrl.landmark.evaluate import Baseline, evaluate

    detector = LandmarkDetector.load(command.model, device=device)
    cases = read_datalist(command.data)
    check_split(command, cases)
    names = detector.landmark_names
    with progress_bars() as progress:
        bar = progress.add_task("evaluating", total=len(cases[command.split]), more="")
        baselines: list[Baseline] = [MeanPosition(cases["training"], names)]
        if command.atlases:
            spacing = detector.model.settings.spacings[0]
            baselines.append(
                AffineAtlas(cases["training"], names, count=command.atlases, spacing=spacing)
            )
        evaluation = evaluate(
            detector,
            cases[command.split],
            baselines=baselines,
            progress=lambda done, total, name: progress.update(
                bar, completed=done, total=total, more=name
            ),
        )
    summary = {**provenance(detector.manifest, command), **evaluation.summary()}
    rows = [
        {"method": method, "landmark": landmark, **figures}
        for method, both in summary["methods"].items()
        for landmark, figures in {"all": both["all"], **both["landmarks"]}.items()
    ]
    write(command.out, summary, {"landmarks.csv": rows, "errors.csv": evaluation.rows()})
    show(command, summary, landmark_tables(summary), presence_in_words(summary))
    for line in evaluation.failed.values():
        complain(line)
    return 1 if evaluation.failed else 0


def landmark_tables(summary: Mapping[str, Any]) -> list[Table]:
    """The figures of every method, and those of the agents for each landmark."""
    from rich.table import Table

    methods = summary["methods"]
    overall = Table(
        title=f"Error in mm, {summary['scans']} scans", title_justify="left", box=None,
        pad_edge=False,
    )  # fmt: skip
    agents, *others = methods
    single = Table(box=None, pad_edge=False)
    columns = ("mean", "median", "95 %", "max", "> 5 mm", "> 10 mm")
    for table, first in ((overall, "method"), (single, "landmark")):
        table.add_column(first, no_wrap=True)
        for column in columns:
            table.add_column(column, justify="right")
    for other in others:
        single.add_column(other, justify="right")
    for method, both in methods.items():
        overall.add_row(method, *_cells(both["all"]))
    for landmark, figures in methods[agents]["landmarks"].items():
        means = [methods[other]["landmarks"][landmark]["mean"] for other in others]
        single.add_row(landmark, *_cells(figures), *(_mm(mean) for mean in means))
    return [overall, single]


def presence_in_words(summary: Mapping[str, Any]) -> str:
    """How presence was told, and what the confidence is worth."""
    counts = summary["presence"]
    inside = counts["present_said_present"] + counts["present_said_absent"]
    outside = counts["absent_said_present"] + counts["absent_said_absent"]
    line = f"of {inside} landmarks in the scans, {counts['present_said_absent']} called absent"
    if outside:
        line += f"; of {outside} outside, {counts['absent_said_present']} called present"
    if summary["confidence_auc"] is not None:
        line += f"; confidence tells errors above 4 mm with AUC {summary['confidence_auc']:.3f}"
    return line


def _cells(figures: Mapping[str, Any]) -> tuple[str, ...]:
    shares = (figures["above_5"], figures["above_10"])
    return (
        *(_mm(figures[key]) for key in ("mean", "median", "p95", "max")),
        *("-" if share is None else f"{share:.1%}" for share in shares),
    )


def _mm(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"
