"""Engines work through jobs in worker processes, on this machine or on a Ray cluster.

What a job is, an engine does not know. Scans of a batch are jobs, and so are stages of a training
that do not depend on each other. Whoever has some writes three small classes:

1. a :class:`Job` says what is to be done: small and picklable, with the files that it reads;
2. a :class:`Task` is sent to the worker processes, loads what all jobs need, and gives a
   :class:`Processor`, which reads, works and writes;
3. an :class:`Output` says where results go. For a folder for each job :class:`Folders` does.

A job whose worker process dies is tried once more; one that raises, or takes too long, has failed,
and the others go on. A third engine is one more small file with the function `run`.
"""

from __future__ import annotations

import shutil
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, Protocol, Self, TypeVar


class Job(Protocol):
    """A unit of work; picklable."""

    @property
    def name(self) -> str:
        """No other job of the run has it; relative, parts separated by ``/``."""

    def files(self) -> Iterable[Path]:
        """Absolute paths of the files that it reads, which have to reach the worker."""

    def relocated(self, folder: Path) -> Self:
        """The same job, whose files are read from copies: ``/a/b`` from ``folder / "a/b"``."""


@dataclass(frozen=True)
class Progress:
    """How far a job is, as its processor reports.

    Attributes:
        job: Name of the job.
        stage: What it is doing.
        done: How many steps of that are done.
        total: Of how many; None if that is not known.
        values: Figures by name, such as a loss.
    """

    job: str
    stage: str = ""
    done: int = 0
    total: int | None = None
    values: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Outcome:
    """How a job ended.

    Attributes:
        name: Of the job.
        error: Why it failed, one line; None if it is done.
        result: What its processor's `write` returned.
    """

    name: str
    error: str | None = None
    result: Any = None


J = TypeVar("J", bound=Job)


class Output(ABC, Generic[J]):
    """Where results go; picklable.

    Attributes:
        root: A folder below which everything is written.
    """

    root: Path

    @abstractmethod
    def at(self, root: Path) -> Self:
        """The same in another folder, of a machine that does not see this one."""

    @abstractmethod
    def take(self, job: J) -> dict[str, bytes]:
        """The result files of a job that is done, by name; they are removed."""

    @abstractmethod
    def put(self, job: J, files: Mapping[str, bytes]) -> None:
        """Write files that :meth:`take` took elsewhere."""


O = TypeVar("O", bound=Output[Any])  # noqa: E741 - an output


class Processor(ABC, Generic[J]):
    """A task that has been opened in a worker process. Each call may come from another thread."""

    @abstractmethod
    def read(self, job: J) -> Any:
        """Read a job's files; raises MedrlError if they are not fit."""

    @abstractmethod
    def work(
        self, jobs: Sequence[J], data: Sequence[Any], report: Callable[[Progress], None]
    ) -> Sequence[Any]:
        """Do what is to be done to what was read of one job, or of several at once.

        Args:
            jobs: At most the task's `batch_size`.
            data: What was read of each.
            report: To be called, as often as one likes, with how far a job is.

        Returns:
            A result for each job, or the MedrlError that says why there is none. What it raises
            goes for a job that is alone; several are then given again, one by one.
        """

    @abstractmethod
    def write(self, job: J, result: Any, seconds: Mapping[str, float]) -> Any:
        """Write a result into the output.

        Args:
            job: Whose it is.
            result: Of `work`.
            seconds: What ``reading`` and ``working`` took.

        Returns:
            What the caller of the engine is to know, picklable.
        """


class Task(ABC, Generic[J, O]):
    """What is done to every job: small, picklable, and sent to wherever the work is done."""

    #: How many jobs its processor may be given at once.
    batch_size: int = 1
    #: Whether a worker is given jobs ahead, to read them while it works on others. Where jobs take
    #: long they are better left to the next worker that is free.
    read_ahead: bool = True

    @abstractmethod
    def open(self, threads: int, output: O) -> Processor[J]:
        """Load what all jobs need, for work with some threads; called once in each process."""


class Engine(Protocol):
    """Works through jobs; what it needs to know of the machines comes when it is made."""

    def run(
        self,
        task: Task[J, O],
        jobs: Sequence[J],
        output: O,
        *,
        timeout: float | None = None,
        on_end: Callable[[Outcome], None],
        on_progress: Callable[[Progress], None] | None = None,
    ) -> None:
        """Work through jobs; each ends with its results in the output, or with an error.

        Args:
            task: What to do.
            jobs: What to do it to.
            output: Where results go.
            timeout: Seconds that reading, working and writing may take each; None for ever.
            on_end: Called once for each job, in whatever order they end.
            on_progress: Called with what processors report.

        Raises:
            MedrlError: If no job can be worked on: the task cannot be opened, the disk is full.
            KeyboardInterrupt: If the user wants no more; nothing is left running.
        """


class Folders(Output[Job]):
    """A folder for each job, named after it, below a root."""

    def __init__(self, root: Path) -> None:
        """Take a root; folders are made when they are asked for."""
        self.root = root.absolute()

    def at(self, root: Path) -> Folders:
        """The same in another place."""
        return Folders(root)

    def of(self, job: Job) -> Path:
        """The folder of a job, made if missing."""
        folder = self.root / job.name
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def take(self, job: Job) -> dict[str, bytes]:
        """The files of a job."""
        folder = self.of(job)
        files = [file for file in sorted(folder.rglob("*")) if file.is_file()]
        content = {file.relative_to(folder).as_posix(): file.read_bytes() for file in files}
        shutil.rmtree(folder)
        return content

    def put(self, job: Job, files: Mapping[str, bytes]) -> None:
        """Write the files of a job."""
        folder = self.of(job)
        for name, content in files.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(content)
