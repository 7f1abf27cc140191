"""`medrl guard`: measure anew what a model was trained on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from medrl.cli.terminal import parse, progress_bars, stdout
from medrl.systems import of_model


@dataclass(frozen=True, kw_only=True)
class Guard:
    """Measure anew what a model was trained on, so that it doubts what is unlike that.

    Every model that `medrl train` makes has been measured. This is for older ones. Only the guard
    is written; the weights stay as they are.
    """

    model: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="MODEL")]
    """Name of a model (see `medrl models`) or the folder of one."""

    data: Path
    """Datalist (JSON) that it was trained with. Only its training and validation scans are looked
    at."""

    out: Annotated[Path | None, tyro.conf.arg(aliases=["-o"])] = None
    """Folder to write the model into; over the one that is there if left out."""


def main(argv: Sequence[str]) -> int:
    """Run `medrl guard`.

    Args:
        argv: What follows `medrl guard` on the command line.

    Returns:
        Exit code 0.

    Raises:
        MedrlError: If the model or the data are unusable.
    """
    command: Guard = parse(Guard, argv, prog="medrl guard")
    system, bundle = of_model(command.model)
    from medrl.cli.train import Report

    with progress_bars() as progress:
        written = system.refit_guard(
            bundle, data=command.data, out=command.out, report=Report(progress)
        )
    stdout().print(f"model: {written}", markup=False, soft_wrap=True)
    return 0
