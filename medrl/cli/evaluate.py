"""`medrl evaluate`: a model's errors on labelled scans, next to the baselines."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from medrl.cli import complain
from medrl.cli.terminal import check_device, parse, progress_bars, stdout
from medrl.errors import MedrlError
from medrl.files import atomic_path, prepare_folder

if TYPE_CHECKING:
    from rich.table import Table

Split = Literal["training", "validation", "test"]


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


@dataclass(frozen=True, kw_only=True)
class SeedNet:
    """Measure a seed model on scans with masks, from one click, next to what it has to beat.

    Writes evaluation.json (figures by target) and cases.csv (every case, target and method).
    """

    data: Path
    """Datalist (JSON): image and label files of the splits."""

    out: Annotated[Path, tyro.conf.arg(aliases=["-o"])]
    """Folder to write into; made if missing."""

    model: str = "hippocampus-t1"
    """Name of a model (see `medrl models`) or the folder of one."""

    split: Split = "test"
    """Which scans of the datalist."""

    targets: tuple[str, ...] = ()
    """Names of the targets to measure; all of the model's if none is named."""

    channels: tuple[str, ...] = ()
    """Names of the images that the model may see; all that there are if none is named."""

    clicks: int = 5
    """Corrections by a simulated user after the agent's answer; 0 leaves that part out."""

    seed: int = 0
    """Of the first clicks, each at a random place inside its target."""

    json: bool = False
    """Print the figures in JSON instead of tables."""


def main(argv: Sequence[str]) -> int:
    """Run `medrl evaluate`.

    Args:
        argv: What follows `medrl evaluate` on the command line.

    Returns:
        Exit code: 0, or 1 if some scans could not be used.

    Raises:
        MedrlError: If nothing can be measured.
    """
    command: Landmark | SeedNet = parse(
        {"landmark": Landmark, "seednet": SeedNet}, argv, prog="medrl evaluate"
    )
    if isinstance(command, Landmark):
        return run_landmark(command)
    return run_seednet(command)


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
    if not cases[command.split]:
        raise MedrlError(f"{command.data} has no scans in the split {command.split!r}")
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
    summary = {**_provenance(detector.manifest, command), **evaluation.summary()}
    rows = [
        {"method": method, "landmark": landmark, **figures}
        for method, both in summary["methods"].items()
        for landmark, figures in {"all": both["all"], **both["landmarks"]}.items()
    ]
    _write(command.out, summary, {"landmarks.csv": rows, "errors.csv": evaluation.rows()})
    _show(command, summary, landmark_tables(summary), presence_in_words(summary))
    for line in evaluation.failed.values():
        complain(line)
    return 1 if evaluation.failed else 0


def run_seednet(command: SeedNet) -> int:
    """Measure a seed agent, print and write."""
    prepare_folder(command.out)

    from medrl.bundles import find
    from medrl.seednet.data import load_labelled, read_datalist
    from medrl.seednet.evaluate import evaluate
    from medrl.seednet.model import SeedModel

    if command.clicks < 0:
        raise MedrlError("--clicks must not be negative")
    model, manifest = SeedModel.load(find(command.model))
    names = [channel.name for channel in model.settings.channels]
    unknown = sorted(set(command.channels) - set(names))
    if unknown:
        raise MedrlError(f"the model looks at {' and '.join(names)}, not at {' or '.join(unknown)}")
    targets = [model.target_index(name) for name in command.targets] or None
    cases = read_datalist(command.data, names)
    if not cases[command.split]:
        raise MedrlError(f"{command.data} has no scans in the split {command.split!r}")
    seen = list(command.channels) or names
    for case in cases[command.split]:
        if not set(seen) & set(case.images):
            raise MedrlError(f"{command.data}: {case.name} has no image {' or '.join(seen)}")
    with progress_bars() as progress:
        bars = {
            what: progress.add_task(what, total=None, more="", visible=False)
            for what in ("reading", "evaluating")
        }
        grids = load_labelled(
            cases[command.split],
            channels=model.settings.channels,
            targets=model.settings.targets,
            spacing=model.settings.spacing,
            progress=lambda done, total: progress.update(
                bars["reading"], completed=done, total=total, visible=True
            ),
        )
        evaluation = evaluate(
            model,
            grids,
            seed=command.seed,
            clicks=command.clicks,
            targets=targets,
            channels=[names.index(name) for name in command.channels] or None,
            progress=lambda done, total: progress.update(
                bars["evaluating"], completed=done, total=total, visible=True
            ),
        )
    if not evaluation.rows():
        raise MedrlError(f"none of the targets is in the masks of the split {command.split!r}")
    summary = {
        **_provenance(manifest, command),
        "channels": seen,
        "seed": command.seed,
        "targets": evaluation.summary(),
    }
    _write(command.out, summary, {"cases.csv": evaluation.rows()})
    _show(command, summary, seednet_tables(summary))
    return 0


def _provenance(manifest: Mapping[str, Any], command: Landmark | SeedNet) -> dict[str, Any]:
    """What was measured on what."""
    return {
        "model": str(manifest.get("name")),
        "versions": manifest.get("versions", {}),
        "data": str(command.data),
        "split": command.split,
    }


def _write(
    folder: Path, summary: Mapping[str, Any], files: Mapping[str, Sequence[Mapping[str, Any]]]
) -> None:
    """Write the figures as JSON and the rows of some CSV files, each file whole or not at all.

    Raises:
        MedrlError: If they cannot be written.
    """
    from medrl.volume.points import write_points_csv

    try:
        with atomic_path(folder / "evaluation.json") as temporary:
            temporary.write_text(json.dumps(summary, indent=1, allow_nan=False) + "\n")
        for name, rows in files.items():
            write_points_csv(folder / name, rows)
    except OSError as error:
        raise MedrlError(f"cannot write the figures to {folder}: {error.strerror}") from None


def _show(
    command: Landmark | SeedNet, summary: Mapping[str, Any], tables: Sequence[Table], *lines: str
) -> None:
    """Print the figures, as JSON or for a person."""
    if command.json:
        print(json.dumps(summary, indent=1, allow_nan=False))
        return
    console = stdout()
    for table in tables:
        console.print(table)
    for line in lines:
        console.print(line)
    console.print(f"wrote {command.out / 'evaluation.json'}", markup=False, soft_wrap=True)


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


def seednet_tables(summary: Mapping[str, Any]) -> list[Table]:
    """For each target: every method from one click, and how it goes on with corrections."""
    from rich.table import Table
    from rich.text import Text

    tables = []
    for target, figures in summary["targets"].items():
        first = Table(
            title=Text(f"{target}: Dice from one click, {figures['cases']} cases"),
            title_justify="left", box=None, pad_edge=False,
        )  # fmt: skip
        first.add_column("method", no_wrap=True)
        for column in ("mean", "worst", "agent's gain on this (95 %)"):
            first.add_column(column, justify="right")
        for method, values in figures["one_click"].items():
            gain = values["agent_minus_this"]
            first.add_row(
                method,
                f"{values['mean_dice']:.3f}",
                f"{values['worst_dice']:.3f}",
                "" if gain is None else "{mean:+.3f} ({low:+.3f} to {high:+.3f})".format(**gain),
            )
        tables.append(first)
        if "dice_by_corrections" not in figures:
            continue
        corrected, goal = figures["dice_by_corrections"], figures["clicks_to_goal"]
        second = Table(
            title=Text(f"{target}: mean Dice after corrections"),
            title_justify="left", box=None, pad_edge=False,
        )  # fmt: skip
        second.add_column("method", no_wrap=True)
        for number in range(len(next(iter(corrected.values())))):
            second.add_column(str(number), justify="right")
        second.add_column(f"clicks to {goal['goal']:.2f}", justify="right")
        for method, path in corrected.items():
            second.add_row(method, *(f"{x:.3f}" for x in path), f"{goal['mean'][method]:.1f}")
        tables.append(second)
    return tables
