"""`medrl evaluate landmark`: errors on scans with points, next to the baselines."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from medrl.cli.evaluate.common import Split, check_split, finish
from medrl.cli.terminal import check_device, progress_bars
from medrl.files import prepare_folder


@dataclass(frozen=True, kw_only=True)
class Landmark:
    """Measure a landmark model's errors on labelled scans, next to the baselines.

    Writes evaluation.json (figures over all and for each landmark), landmarks.csv (the same as a
    table) and rows.csv (every figure: case, landmark, method, metric, value).
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
    return finish(command, evaluation, detector.manifest)
