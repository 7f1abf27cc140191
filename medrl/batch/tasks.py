"""What is done to each case: read, work, write, so that these can overlap."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from medrl.batch.cases import Case, Source, Verb

if TYPE_CHECKING:
    from monai.data.meta_tensor import MetaTensor

    from medrl.landmark.detect import Detection, LandmarkDetector


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

    def work(self, case: Case, data: Any) -> Any:
        """Do what is to be done to what was read; raises MedrlError if it cannot."""

    def write(self, case: Case, result: Any, folder: Path) -> Record:
        """Write a result into an empty folder; raises MedrlError if it cannot be written."""


class Task(Protocol):
    """What is done to every case; small, and sent to wherever the work is done."""

    @property
    def verb(self) -> Verb:
        """What it is."""

    def open(self, threads: int) -> Worker:
        """Load the model, for work with some threads."""

    def facts(self) -> dict[str, Any]:
        """Model and options, in terms of JSON: results of other facts are other results."""


def read_source(source: Source) -> MetaTensor:
    """Read a scan without a word; what there is to say are its remarks.

    Raises:
        MedrlError: If it cannot be read.
    """
    from medrl.volume.read import read

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return read(source.path, series=source.series)


def model_facts(name_or_dir: str) -> dict[str, Any]:
    """What tells a model from every other one."""
    from medrl.bundles import find, read_manifest

    manifest = read_manifest(find(name_or_dir))
    weights = manifest.get("weights")
    return {
        "model": manifest["name"],
        "task": manifest["task"],
        "sha256": None if weights is None else weights["sha256"],
    }


@dataclass(frozen=True)
class DetectTask:
    """Find landmarks.

    Attributes:
        model: Name or folder.
        landmarks: Which to report; all if empty.
        device: Torch device.
        picture: Draw pictures.
    """

    model: str = "brain-t1"
    landmarks: tuple[str, ...] = ()
    device: str = "cpu"
    picture: bool = True
    verb: Verb = "detect"

    def open(self, threads: int) -> Worker:
        """Load the detector."""
        import torch

        from medrl.landmark.detect import LandmarkDetector

        torch.set_num_threads(threads)
        return _Detecting(self, LandmarkDetector.load(self.model, device=self.device))

    def facts(self) -> dict[str, Any]:
        """Model and options."""
        options = {key: value for key, value in asdict(self).items() if key != "device"}
        return {**options, **model_facts(self.model), "landmarks": list(self.landmarks)}


class _Detecting:
    """Reads a scan, finds its landmarks, writes what `medrl detect` writes."""

    def __init__(self, task: DetectTask, detector: LandmarkDetector) -> None:
        self._task = task
        self._detector = detector

    def read(self, case: Case) -> MetaTensor:
        return read_source(case.sources["scan"])

    def work(self, case: Case, data: MetaTensor) -> tuple[MetaTensor, Detection]:
        landmarks: Sequence[str] | None = self._task.landmarks or None
        return data, self._detector.detect(data, landmarks=landmarks)

    def write(self, case: Case, result: tuple[MetaTensor, Detection], folder: Path) -> Record:
        from medrl.landmark.results import landmark_rows, write_results

        scan, detection = result
        files = write_results(folder, case.stem, scan, detection, picture=self._task.picture)
        rows = [
            {"landmark" if key == "name" else key: value for key, value in row.items()}
            for row in landmark_rows(detection)
        ]
        remarks = [str(remark) for remark in scan.meta.get("remarks", ())]
        picture = files.get("picture")
        return Record(rows, [*remarks, *detection.warnings], picture.name if picture else None)
