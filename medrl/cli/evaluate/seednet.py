"""`medrl evaluate seednet`: Dice on scans with masks, from one click and after corrections."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from medrl.cli.evaluate.common import Split, check_split, provenance, show, write
from medrl.cli.terminal import progress_bars
from medrl.errors import MedrlError
from medrl.files import prepare_folder

if TYPE_CHECKING:
    from rich.table import Table


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
    check_split(command, cases)
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
        **provenance(manifest, command),
        "channels": seen,
        "seed": command.seed,
        "targets": evaluation.summary(),
    }
    write(command.out, summary, {"cases.csv": evaluation.rows()})
    show(command, summary, seednet_tables(summary))
    return 0


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
