"""What is done to each case: read, work, write, so that these can overlap."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from medrl.batch.cases import Case, Verb

if TYPE_CHECKING:
    from monai.data.meta_tensor import MetaTensor


@dataclass(frozen=True)
class Record:
    """What became of a case.

    Attributes:
        rows: For the table of the run.
        warnings: What the user should know, one line each.
        picture: Name of a picture among its files, if there is one.
    """

    rows: list[dict[str, Any]]
    warnings: list[str] = field(default_factory=list)
    picture: str | None = None


class Worker(Protocol):
    """A task that has been opened: its model is loaded. Each call may come from another thread."""

    def read(self, case: Case) -> Any:
        """Read a case's files; raises MedrlError if they are not fit."""

    def work(self, cases: Sequence[Case], data: Sequence[Any]) -> Sequence[Any]:
        """Do what is to be done to what was read of one case, or of several at once.

        Returns:
            A result for each case, or the MedrlError that says why there is none. What it raises
            goes for a case that is alone; several are then given again, one by one.
        """

    def write(self, case: Case, result: Any, folder: Path) -> Record:
        """Write a result into an empty folder; raises MedrlError if it cannot be written."""


class Task(Protocol):
    """What is done to every case; small, and sent to wherever the work is done."""

    @property
    def verb(self) -> Verb:
        """What it is."""

    @property
    def together(self) -> int:
        """How many cases its worker may be given at once."""

    def open(self, threads: int) -> Worker:
        """Load the model, for work with some threads."""

    def facts(self) -> dict[str, Any]:
        """Model and options, in terms of JSON: results of other facts are other results."""


def read_scan(case: Case, role: str = "scan") -> MetaTensor:
    """Read a scan of a case without a word; what there is to say are its remarks.

    Raises:
        MedrlError: If it cannot be read.
    """
    from medrl.volume.read import read

    source = case.sources[role]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        scan = read(case.here(source.path), series=source.series)
    hidden = case.name if role in ("scan", "moving") else role
    scan.meta["filename_or_obj"] = hidden if case.hidden else str(source.path)
    return scan


def become_worker(threads: int) -> None:
    """Let the libraries that compute use so many threads, and those that read be silent.

    What there is to say of a scan are its remarks; libraries quote odd values, which may be names.
    It is for good: for a while, one thread would undo it under another.
    """
    import numba
    import torch

    from medrl.volume.log_filter import mute_libraries

    mute_libraries()
    torch.set_num_threads(threads)
    numba.set_num_threads(min(threads, numba.config.NUMBA_NUM_THREADS))


def task_facts(task: Any) -> dict[str, Any]:
    """Options and model of a task, in terms of JSON; how and where it runs makes no difference.

    Args:
        task: A dataclass of options, one of them being `model`.

    Raises:
        MedrlError: If there is no such model.
    """
    from medrl.bundles import find, read_manifest

    manifest = read_manifest(find(task.model))
    weights = manifest.get("weights")
    options = {
        key: list(value) if isinstance(value, tuple) else value
        for key, value in asdict(task).items()
        if key not in ("device", "model", "pseudonyms", "together")
    }
    pseudonyms = getattr(task, "pseudonyms", None)
    return {
        **options,
        # Which key was used, not the key.
        "deidentified": None if pseudonyms is None else pseudonyms.fingerprint,
        "model": manifest["name"],
        "sha256": None if weights is None else weights["sha256"],
    }
