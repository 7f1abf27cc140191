"""`medrl pose`: let a model find how a scan is turned."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from medrl.cli.terminal import parse, progress_bars, stdout
from medrl.systems import of_model


@dataclass(frozen=True, kw_only=True)
class Pose:
    """Let a landmark model find how a scan is turned, whatever way that is.

    `medrl train landmark --pose any` makes models that do. This is for one whose training scans lie
    about alike: what they look like is added to the model, and its weights stay as they are. Scans
    are laid straight before agents search them, but for those that show only a part.
    """

    model: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="MODEL")]
    """Name of a model (see `medrl models`) or the folder of one."""

    data: Path
    """Datalist (JSON) that it was trained with. Only its training scans are looked at."""

    out: Annotated[Path | None, tyro.conf.arg(aliases=["-o"])] = None
    """Folder to write the model into; over the one that is there if left out."""


def main(argv: Sequence[str]) -> int:
    """Run `medrl pose`.

    Args:
        argv: What follows `medrl pose` on the command line.

    Returns:
        Exit code 0.

    Raises:
        MedrlError: If the model or the data are unusable.
    """
    command: Pose = parse(Pose, argv, prog="medrl pose")
    system, bundle = of_model(command.model)
    from medrl.cli.train import Report

    with progress_bars() as progress:
        written = system.fit_pose(
            bundle, data=command.data, out=command.out, report=Report(progress)
        )
    stdout().print(f"model: {written}", markup=False, soft_wrap=True)
    return 0
