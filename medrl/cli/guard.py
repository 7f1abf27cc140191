"""`medrl guard` and `medrl pose`: add to a model what its training scans are like."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from medrl.cli.terminal import parse, progress_bars, stdout
from medrl.systems import System, of_model


@dataclass(frozen=True, kw_only=True)
class Refit:
    """What commands take that look at a model's training scans again."""

    model: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="MODEL")]
    """Name of a model (see `medrl models`) or the folder of one."""

    data: Path
    """Datalist (JSON) that it was trained with. Its test scans are not looked at."""

    out: Annotated[Path | None, tyro.conf.arg(aliases=["-o"])] = None
    """Folder to write the model into; over the one that is there if left out."""


@dataclass(frozen=True, kw_only=True)
class Guard(Refit):
    """Measure anew what a model was trained on, so that it doubts what is unlike that.

    Every model that `medrl train` makes has been measured. This is for older ones. Only the guard
    is written; the weights stay as they are.
    """


def main(argv: Sequence[str]) -> int:
    """Run `medrl guard`.

    Args:
        argv: What follows `medrl guard` on the command line.

    Returns:
        Exit code 0.

    Raises:
        MedrlError: If the model or the data are unusable.
    """
    return refit(Guard, System.refit_guard, argv, prog="medrl guard")


def refit(command: type[Refit], how: Callable[..., Path], argv: Sequence[str], *, prog: str) -> int:
    """Do to a model what a command says; see :func:`main`."""
    options = parse(command, argv, prog=prog)
    system, bundle = of_model(options.model)
    from medrl.cli.train import Report

    with progress_bars() as progress:
        written = how(system, bundle, data=options.data, out=options.out, report=Report(progress))
    stdout().print(f"model: {written}", markup=False, soft_wrap=True)
    return 0
