"""`medrl evaluate registration`: errors on posed copies of scans, next to what is simpler."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Literal

import tyro

from medrl.cli.evaluate.common import Split, check_split, finish
from medrl.cli.terminal import check_device, progress_bars
from medrl.files import prepare_folder


@dataclass(frozen=True, kw_only=True)
class Registration:
    """Measure a registration model on posed copies of scans, next to what is simpler.

    Every scan is turned, shifted, given another contrast and registered with what it was. Writes
    evaluation.json (figures by band of difficulty) and rows.csv (every figure: case, band, method,
    metric, value).
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
            progress=lambda done, total, name: progress.update(
                bar, completed=done, total=total, more=name
            ),
        )
    evaluation = replace(evaluation, summary={"seed": command.seed, **evaluation.summary})
    return finish(command, evaluation, registrar.manifest)
