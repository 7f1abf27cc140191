"""Bring the moving scan of each pair onto the fixed one."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from medrl.batch.cases import Case, Source, Verb
from medrl.batch.record import Record
from medrl.batch.store import Store
from medrl.batch.task import CaseProcessor, CaseTask, become_worker, read_scan, task_fingerprint
from medrl.engines import Progress

if TYPE_CHECKING:
    from monai.data.meta_tensor import MetaTensor

    from medrl.dicom import Pseudonyms
    from medrl.registration.register import Registrar, Registration
    from medrl.registration.transforms import Kind

#: Of the report, what goes into the table of the run.
_COLUMNS = (
    *("fixed", "moving", "transform", "refined", "trusted", "confidence", "predicted_error_mm"),
    *("turn_deg", "shift_mm", "overlap", "nmi_before", "nmi_after"),
)


@dataclass(frozen=True)
class RegisterTask(CaseTask):
    """Register pairs.

    Attributes:
        model: Name or folder.
        transform: What may change.
        refine: End with mutual information.
        device: Torch device.
        picture: Draw pictures.
        pseudonyms: Take patients' identities out.
    """

    model: str = "rigid-head"
    transform: Kind = "rigid"
    refine: bool = True
    device: str = "cpu"
    picture: bool = True
    verb: ClassVar[Verb] = "register"
    pseudonyms: Pseudonyms | None = None

    def open(self, threads: int, output: Store) -> CaseProcessor:
        """Load the agents."""
        from medrl.registration.register import Registrar

        become_worker(threads)
        return _Registering(self, output, Registrar.load(self.model, device=self.device))

    def fingerprint(self) -> dict[str, Any]:
        """Model and options."""
        return task_fingerprint(self)


class _Registering(CaseProcessor):
    """Reads two scans, aligns them, writes what `medrl register` writes."""

    def __init__(self, task: RegisterTask, store: Store, registrar: Registrar) -> None:
        self._task = task
        self.store = store
        self._registrar = registrar
        self._fixed: tuple[Source, MetaTensor] | None = None

    def read(self, case: Case) -> tuple[MetaTensor, MetaTensor]:
        source = case.sources["fixed"]
        # Often all scans are brought onto the same one.
        if self._fixed is None or self._fixed[0] != source:
            self._fixed = (source, read_scan(case, "fixed"))
        return self._fixed[1], read_scan(case, "moving")

    def work(
        self,
        cases: Sequence[Case],
        data: Sequence[tuple[MetaTensor, MetaTensor]],
        report: Callable[[Progress], None],
    ) -> list[tuple[MetaTensor, MetaTensor, Registration, float]]:
        return [self._register(*pair) for pair in data]

    def _register(
        self, fixed: MetaTensor, moving: MetaTensor
    ) -> tuple[MetaTensor, MetaTensor, Registration, float]:
        began = time.perf_counter()
        found = self._registrar.register(
            fixed, moving, transform=self._task.transform, refine=self._task.refine
        )
        return fixed, moving, found, time.perf_counter() - began

    def save(
        self,
        case: Case,
        result: tuple[MetaTensor, MetaTensor, Registration, float],
        folder: Path,
    ) -> Record:
        from medrl.registration.results import remarks, write_results

        fixed, moving, found, seconds = result
        warnings = remarks(fixed, moving, started=False)
        facts = {
            "model": str(self._registrar.manifest.get("name", self._task.model)),
            "warnings": warnings,
            "seconds": round(seconds, 3),
        }
        written = write_results(
            folder, case.stem, fixed, moving, found, picture=self._task.picture, facts=facts
        )
        row = {key: written.report[key] for key in _COLUMNS}
        row |= {f"m{r}{c}": float(found.transform_world[r, c]) for r, c in np.ndindex(3, 4)}
        doubt = [] if found.trusted else ["NOT TRUSTED: look at the pictures before you use it"]
        picture = written.files.get("before-after")
        return Record([row], [*warnings, *doubt], picture.name if picture else None)
