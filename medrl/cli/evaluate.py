"""`medrl evaluate`: a model's errors on labelled scans, next to what it has to beat."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from medrl.cli import complain
from medrl.cli.output import say
from medrl.cli.terminal import (
    choose,
    find_model,
    flat,
    model_field,
    options_type,
    parse,
    progress_bars,
    stdout,
)
from medrl.files import prepare_folder
from medrl.systems import System, all_systems, check_device

if TYPE_CHECKING:
    from medrl.evaluation import Evaluation


@dataclass(frozen=True, kw_only=True)
class Options:
    """What the evaluation of every system asks for."""

    data: Path
    """Datalist (JSON): scans, and what is known of them, of the splits."""

    out: Annotated[Path, tyro.conf.arg(aliases=["-o"])]
    """Folder to write into; made if missing."""

    model: str | None = None
    """Name of a model (see `medrl models`) or the folder of one; the usual one if left out."""

    split: Literal["training", "validation", "test"] = "test"
    """Which scans of the datalist."""

    device: str = "cpu"
    """cpu, cuda or cuda:N."""

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
    systems = {system.name: system for system in all_systems() if system.models is None}
    system = choose(argv, systems, prog="medrl evaluate")
    kind = system.evaluate_options
    added = ("options", flat(kind), field(default_factory=kind))
    command: Any = parse(
        options_type(system.name.capitalize(), Options, [model_field(system), added]),
        argv[1:],
        prog=f"medrl evaluate {system.name}",
        description=(
            f"Measure a {system.name} model on labelled scans, next to what it has to beat.\n\n"
            "Writes evaluation.json with the figures, and tables of them (.csv)."
        ),
    )
    return 1 if run(system, command, command.options).failed else 0


def run(system: System, command: Options, options: Any) -> Evaluation:
    """Measure a model, write the figures and print them.

    Args:
        system: Whose model it is.
        command: What goes for all systems.
        options: Of the type of the system's `evaluate_options`.

    Raises:
        MedrlError: If nothing can be measured, or the figures cannot be written.
    """
    prepare_folder(command.out)
    check_device(command.device)
    model = command.model or system.choose_model(system.given(), system.roles)
    predictor = system.load(find_model(system, model), device=command.device)
    with progress_bars() as progress:
        bar = progress.add_task("evaluating", total=None, more="")
        evaluation: Evaluation = system.evaluate(
            predictor,
            data=command.data,
            split=command.split,
            options=options,
            progress=lambda done, total, what: progress.update(
                bar, completed=done, total=total, more=what
            ),
        )
    path = evaluation.write(command.out)
    if command.json:
        print(json.dumps(evaluation.summary, indent=1, allow_nan=False))
    else:
        console = stdout()
        for table in evaluation.tables:
            console.print(table.rich())
        for line in evaluation.lines:
            console.print(line)
        say(f"wrote {path}")
    for line in evaluation.failed:
        complain(line)
    return evaluation
