"""Parts of a training or a benchmark that do not depend on each other, side by side."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from medrl.engines import Engine, Folders, Outcome, Processor, Progress, Task
from medrl.errors import MedrlError
from medrl.rl import stage


@dataclass(frozen=True)
class Job:
    """A call that may be made in another process: a scale, a fold, a seed, an arm.

    Attributes:
        name: Of the job, and of its folder.
        function: Called as ``function(folder, report, **arguments)``; can be imported. It writes
            into its folder only, and goes on from what is there (:func:`medrl.rl.stage.run_stage`
            with ``resume=True``): its process may have died before.
        arguments: Picklable. Files that they name must be seen by every worker.
    """

    name: str
    function: Callable[..., Any]
    arguments: Mapping[str, Any] = field(default_factory=dict)

    def files(self) -> Iterable[Path]:
        """None that would have to be sent to the worker."""
        return ()

    def relocated(self, folder: Path) -> Job:
        """The same."""
        return self


def run_jobs(
    jobs: Sequence[Job],
    root: Path,
    engine: Engine | None = None,
    *,
    threads: int = 1,
    report: stage.Progress = lambda *_: None,
) -> dict[str, Any]:
    """Make all calls, and wait for them.

    A job whose process dies is started once more and goes on from its checkpoint; the others go on
    anyway. An interruption (Ctrl-C) ends all of them, and calling this again goes on.

    Args:
        jobs: What to call; no two of one name.
        root: The folder of each job is below it.
        engine: Where it is done: local processes, a Ray cluster; in this process, one after the
            other, if left out.
        threads: CPU threads of each job. The bits of a training depend on it, so it does not follow
            from the machine.
        report: Called with what the jobs report.

    Returns:
        What the calls returned, by the name of the job.

    Raises:
        MedrlError: If one has failed, for the reason it gave; the others are done.
    """
    results: dict[str, Any] = {}
    failures: list[str] = []

    def on_end(outcome: Outcome) -> None:
        if outcome.error is None:
            results[outcome.name] = outcome.result
        else:
            failures.append(f"{outcome.name}: {outcome.error}")

    root.mkdir(parents=True, exist_ok=True)
    if engine is None:
        before = torch.get_num_threads()
        torch.set_num_threads(threads)
        try:
            for job in jobs:
                results[job.name] = job.function(Folders(root).of(job), report, **job.arguments)
        finally:
            torch.set_num_threads(before)
        return results
    engine.run(
        _Calls(threads),
        jobs,
        Folders(root),
        on_end=on_end,
        on_progress=lambda told: report(told.stage, told.done, told.total or 0, told.values),
    )
    if failures:
        others = f" ({len(failures) - 1} more failed)" if len(failures) > 1 else ""
        raise MedrlError(failures[0] + others)
    return {job.name: results[job.name] for job in jobs}


class _Calls(Task[Job, Folders]):
    """Calls in worker processes."""

    read_ahead = False

    def __init__(self, threads: int) -> None:
        self._threads = threads

    def open(self, threads: int, output: Folders) -> _Caller:
        torch.set_num_threads(self._threads)
        return _Caller(output)


class _Caller(Processor[Job]):
    def __init__(self, folders: Folders) -> None:
        self._folders = folders

    def read(self, job: Job) -> None:
        """There is nothing to read ahead."""

    def work(
        self, jobs: Sequence[Job], data: Sequence[None], report: Callable[[Progress], None]
    ) -> list[Any]:
        (job,) = jobs

        def told(what: str, done: int, total: int, values: Mapping[str, float]) -> None:
            report(Progress(job.name, what, done, total, dict(values)))

        return [job.function(self._folders.of(job), told, **job.arguments)]

    def write(self, job: Job, result: Any, seconds: Mapping[str, float]) -> Any:
        return result
