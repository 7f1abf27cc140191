"""What is done to each case, as engines are told of it."""

from __future__ import annotations

import shutil
import time
import warnings
from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from medrl.batch.cases import Case, Verb
from medrl.batch.record import Record
from medrl.batch.store import Store
from medrl.engines import Processor, Task

if TYPE_CHECKING:
    from monai.data.meta_tensor import MetaTensor


class CaseProcessor(Processor[Case]):
    """A task that has been opened; its results become folders of a store."""

    store: Store

    def write(self, job: Case, result: Any, seconds: Mapping[str, float]) -> Any:
        """Make the case done; its record, in terms of JSON."""
        began = time.perf_counter()
        folder = self.store.work_folder(job)
        try:
            record = self.save(job, result, folder)
            took = {**seconds, "writing": time.perf_counter() - began}
            return self.store.finish(job, folder, record, took)
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    @abstractmethod
    def save(self, case: Case, result: Any, folder: Path) -> Record:
        """Write a result into an empty folder; raises MedrlError if it cannot be written."""


class CaseTask(Task[Case, Store]):
    """What is done to every case."""

    verb: ClassVar[Verb]

    @abstractmethod
    def fingerprint(self) -> dict[str, Any]:
        """Model and options, in terms of JSON: results of others are other results."""


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


def task_fingerprint(task: Any) -> dict[str, Any]:
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
        if key not in ("device", "model", "pseudonyms", "batch_size")
    }
    pseudonyms = getattr(task, "pseudonyms", None)
    return {
        **options,
        # Which key was used, not the key.
        "deidentified": None if pseudonyms is None else pseudonyms.fingerprint,
        "model": manifest["name"],
        "sha256": None if weights is None else weights["sha256"],
    }
