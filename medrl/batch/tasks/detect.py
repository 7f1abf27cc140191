"""Find the landmarks of each scan."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medrl.batch.cases import Case, Verb
from medrl.batch.tasks import Record, Worker, read_scan, set_threads, task_facts

if TYPE_CHECKING:
    from monai.data.meta_tensor import MetaTensor

    from medrl.landmark.detect import Detection, LandmarkDetector


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
        from medrl.landmark.detect import LandmarkDetector

        set_threads(threads)
        return _Detecting(self, LandmarkDetector.load(self.model, device=self.device))

    def facts(self) -> dict[str, Any]:
        """Model and options."""
        return task_facts(self)


class _Detecting:
    """Reads a scan, finds its landmarks, writes what `medrl detect` writes."""

    def __init__(self, task: DetectTask, detector: LandmarkDetector) -> None:
        self._task = task
        self._detector = detector

    def read(self, case: Case) -> MetaTensor:
        return read_scan(case)

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
