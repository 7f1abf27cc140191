"""Find the landmarks of each scan."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from medrl.batch.cases import Case, Verb
from medrl.batch.record import Record
from medrl.batch.store import Store
from medrl.batch.task import CaseProcessor, CaseTask, become_worker, read_scan, task_fingerprint
from medrl.engines import Progress
from medrl.errors import MedrlError

if TYPE_CHECKING:
    from monai.data.meta_tensor import MetaTensor

    from medrl.dicom import Pseudonyms
    from medrl.landmark.detect import Detection, LandmarkDetector


@dataclass(frozen=True)
class DetectTask(CaseTask):
    """Find landmarks.

    Attributes:
        model: Name or folder.
        landmarks: Which to report; all if empty.
        device: Torch device.
        picture: Draw pictures.
        batch_size: How many scans are searched at once.
        pseudonyms: Take patients' identities out.
    """

    model: str = "brain-t1"
    landmarks: tuple[str, ...] = ()
    device: str = "cpu"
    picture: bool = True
    batch_size: int = 1
    verb: ClassVar[Verb] = "detect"
    pseudonyms: Pseudonyms | None = None

    def open(self, threads: int, output: Store) -> CaseProcessor:
        """Load the detector."""
        from medrl.landmark.detect import LandmarkDetector

        become_worker(threads)
        return _Detecting(self, output, LandmarkDetector.load(self.model, device=self.device))

    def fingerprint(self) -> dict[str, Any]:
        """Model and options."""
        return task_fingerprint(self)


class _Detecting(CaseProcessor):
    """Reads a scan, finds its landmarks, writes what `medrl detect` writes."""

    def __init__(self, task: DetectTask, store: Store, detector: LandmarkDetector) -> None:
        self._task = task
        self.store = store
        self._detector = detector

    def read(self, case: Case) -> MetaTensor:
        return read_scan(case)

    def work(
        self,
        cases: Sequence[Case],
        data: Sequence[MetaTensor],
        report: Callable[[Progress], None],
    ) -> list[tuple[MetaTensor, Detection] | MedrlError]:
        found = self._detector.detect_many(
            data, landmarks=self._task.landmarks or None, batch_size=len(data)
        )
        return [
            one if isinstance(one, MedrlError) else (scan, one)
            for scan, one in zip(data, found, strict=True)
        ]

    def save(self, case: Case, result: tuple[MetaTensor, Detection], folder: Path) -> Record:
        from medrl.landmark.results import dicom_report, landmark_rows, write_results

        scan, detection = result
        report = dicom_report(scan, detection, pseudonyms=self._task.pseudonyms)
        files = write_results(
            folder, case.stem, scan, detection, picture=self._task.picture, report=report
        )
        rows = [
            {"landmark" if key == "name" else key: value for key, value in row.items()}
            for row in landmark_rows(detection)
        ]
        picture = files.get("picture")
        said = [*report.remarks, *detection.warnings]
        return Record(rows, said, picture.name if picture else None)
