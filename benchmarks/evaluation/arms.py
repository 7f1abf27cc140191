"""Arms of an ablation: ways to do something that differ in one point, run side by side."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from evaluation.results import Claims, save
from medrl.engines.local import LocalEngine
from medrl.evaluation import read_json, write_json
from medrl.rl.jobs import Job, run_jobs

_FIGURES = "figures.json"


def run_arms(
    path: Path,
    arms: Iterable[str],
    figures: Callable[..., dict[str, Any]],
    *,
    workers: int,
    claims: Claims,
    **arguments: Any,
) -> dict[str, Any]:
    """Run the arms that a result has no figures of, each side by side.

    Args:
        path: The result. Its ``arms`` are added to; it also keeps what was the same for all arms.
        arms: Names.
        figures: Called with the name of an arm and the arguments. What it returns is kept below
            ``runs/`` until all are done, so that an interrupted ablation goes on.
        workers: Arms at a time, one thread each; 1 for no processes of their own.
        claims: Of the result.
        arguments: In terms of JSON.

    Returns:
        Figures by arm, all that are on file.
    """
    result = read_json(path)
    known = result.get("arms", {})
    jobs = [
        Job(name, _run, {"figures": figures, "name": name, "arguments": arguments})
        for name in arms
        if name not in known
    ]
    if jobs:
        runs = Path("runs") / path.stem
        added = run_jobs(jobs, runs, LocalEngine(workers) if workers > 1 else None)
        known = {**known, **added}
        save(path, {**result, **arguments, "arms": known}, claims)
        shutil.rmtree(runs)
    return known


def _run(
    folder: Path,
    report: object,
    *,
    figures: Callable[..., dict[str, Any]],
    name: str,
    arguments: dict[str, Any],
) -> dict[str, Any]:
    if not (folder / _FIGURES).exists():
        write_json(folder / _FIGURES, figures(name, **arguments), digits=4)
    return read_json(folder / _FIGURES)
