"""`medrl datasets`: cards of the public data sets, checks of local copies, and their export."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro
from rich.console import Console
from rich.table import Table

import medrl_datasets
from medrl.errors import MedrlError

Name = Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="NAME")]
Root = Annotated[Path | None, tyro.conf.arg(metavar="DIR")]


@dataclass(frozen=True, kw_only=True)
class List:
    """List the data sets that medrl knows."""

    json: bool = False
    """Print JSON."""


@dataclass(frozen=True, kw_only=True)
class Show:
    """Show the card of a data set, its splits, and whether a local copy is whole."""

    name: Name
    """Name of the data set."""

    root: Root = None
    """Folder of the local copy; by default the folder of that name in MEDRL_DATA."""

    json: bool = False
    """Print JSON."""


@dataclass(frozen=True, kw_only=True)
class Export:
    """Write the datalist.json that `medrl train` takes.

    For `medrl train landmark`, with a file of landmarks per subject; with --masks for
    `medrl train seednet` and `medrl train localization`.
    """

    name: Name
    """Name of the data set."""

    out: Annotated[Path, tyro.conf.arg(aliases=["-o"], metavar="DIR")]
    """Folder to write into."""

    root: Root = None
    """Folder of the local copy; by default the folder of that name in MEDRL_DATA."""

    points: Literal["csv", "mrk.json"] = "csv"
    """Format of the landmark files."""

    landmarks: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None
    """Table of other landmarks than the data set's own: columns subject, landmark, x, y, z (world
    RAS, mm). Subjects that it does not name are left out."""

    seed: int = 0
    """Seed of the random shifts of msd_hippocampus."""

    brains: bool = False
    """Add skull-stripped copies of every second training and validation head (ixi_brain_t1)."""

    tissues: bool = False
    """Add a map of its tissues to every training and validation head, of which `medrl train
    landmark` makes up other contrasts (ixi_brain_t1)."""

    masks: bool = False
    """Name images and masks instead of landmarks."""

    as_published: bool = False
    """Leave the crops of msd_hippocampus where they are, neither cut nor shifted."""


Command = (
    Annotated[List, tyro.conf.subcommand("list")]
    | Annotated[Show, tyro.conf.subcommand("show")]
    | Annotated[Export, tyro.conf.subcommand("export")]
)


def main(argv: Sequence[str] | None = None) -> int:
    """Run `medrl datasets`.

    Args:
        argv: What follows `medrl datasets` on the command line; nothing lists the data sets.

    Returns:
        Exit code: 0, or 1 if `show` finds that a local copy is not whole.

    Raises:
        MedrlError: If a name is unknown, or a folder cannot be read or written.
    """
    arguments = list(sys.argv[2:] if argv is None else argv)
    if not arguments or arguments == ["--json"]:
        arguments = ["list", *arguments]
    command: List | Show | Export = tyro.cli(
        Command,
        prog="medrl datasets",
        description="The public data sets that medrl is trained and tested on.",
        args=arguments,
    )
    match command:
        case List():
            return run_list(command)
        case Show():
            return run_show(command)
        case Export():
            return run_export(command)


def run_list(command: List) -> int:
    """Print a line for each data set."""
    cards = [medrl_datasets.get(name).card for name in medrl_datasets.names()]
    if command.json:
        print(json.dumps([asdict(card) for card in cards], indent=1))
        return 0
    table = Table("name", "what", "landmarks", "local copy", box=None)
    for card in cards:
        try:
            _root_of(card.name, None)
            copy = "yes"
        except MedrlError:
            copy = "-"
        table.add_row(card.name, card.title, str(len(card.landmarks) or "-"), copy)
    Console().print(table)
    return 0


def run_show(command: Show) -> int:
    """Print the card of one data set, and the state of a local copy if there is one."""
    dataset = medrl_datasets.get(command.name)
    card = dataset.card
    try:
        root = _root_of(command.name, command.root)
    except MedrlError:
        if command.root is not None:
            raise
        root = None
    problems = () if root is None else dataset.verify(root)
    missing = any(problem.startswith("missing") for problem in problems)
    splits = {} if root is None or missing else dataset.splits(root)
    if command.json:
        report = {"card": asdict(card), "root": None if root is None else str(root)}
        print(json.dumps({**report, "problems": problems, "splits": splits}, indent=1))
        return 1 if problems else 0
    _print_card(card)
    if root is None:
        print("\nLocal copy: none; name its folder with --root")
        return 0
    counts = ", ".join(f"{len(subjects)} {split}" for split, subjects in splits.items())
    print(f"\nLocal copy: {root}")
    if counts:
        print(f"Splits: {counts}")
    for problem in problems[:20]:
        print(problem)
    if len(problems) > 20:
        print(f"... and {len(problems) - 20} more")
    print(f"{len(problems)} files are not as expected" if problems else "Every file is as expected")
    return 1 if problems else 0


def run_export(command: Export) -> int:
    """Write one data set as a datalist and print where."""
    from medrl_datasets.export import export

    root = _root_of(command.name, command.root)
    path = export(
        command.name,
        root,
        command.out,
        points=command.points,
        landmarks=command.landmarks,
        seed=command.seed,
        brains=command.brains,
        masks=command.masks,
        as_published=command.as_published,
        tissues=command.tissues,
    )
    print(path)
    return 0


def _root_of(name: str, root: Path | None) -> Path:
    """Find a local copy; a set that a package brings is found there."""
    dataset = medrl_datasets.get(name)
    installed = getattr(dataset, "installed_root", None)
    if root is None and installed is not None:
        found: Path = installed()
        return found
    return medrl_datasets.root_of(name, root)


def _print_card(card: medrl_datasets.Card) -> None:
    """Print a card as headed paragraphs."""
    console = Console(highlight=False, soft_wrap=not sys.stdout.isatty())
    console.print(f"[bold]{card.name}[/bold]: {card.title}", markup=True)
    for field in ("modality", "grid", "source", "home", "licence", "weights", "labels", "citation"):
        console.print(f"\n{field.capitalize()}", style="bold")
        console.print(getattr(card, field), markup=False)
    console.print("\nHow to get it", style="bold")
    console.print(card.obtain, markup=False)
    if card.landmarks:
        console.print(f"\nLandmarks ({len(card.landmarks)})", style="bold")
        console.print(", ".join(card.landmarks), markup=False)
    if card.traps:
        console.print("\nTraps", style="bold")
        for trap in card.traps:
            console.print(f"- {trap}", markup=False)
    console.print(f"\nHoldout ({len(card.holdout)})", style="bold")
    console.print(", ".join(card.holdout), markup=False)
