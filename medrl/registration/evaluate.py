"""Measure a registration model on posed copies of scans, next to leaving them where they are."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Generator

from medrl.registration.calibrate import RIGHT_MM
from medrl.registration.cases import make_case
from medrl.registration.refine import refine
from medrl.registration.register import Registrar

#: Bands of difficulty: largest angle about each axis in degrees (None: any orientation) and
#: largest shift along each axis in mm.
BANDS: dict[str, tuple[float | None, float]] = {
    "10": (10.0, 10.0),
    "30": (30.0, 30.0),
    "60": (60.0, 60.0),
    "any": (None, 60.0),
}
METHODS = ("medrl", "agent alone", "SimpleITK", "identity")


@dataclass(frozen=True)
class Record:
    """One registration.

    Attributes:
        name: Of the scan.
        band: See :data:`BANDS`.
        error_mm: Mean error of each method.
        confidence: Of medrl's answer.
        trusted: Whether medrl stands by it.
    """

    name: str
    band: str
    error_mm: dict[str, float]
    confidence: float
    trusted: bool


@dataclass(frozen=True)
class Evaluation:
    """Figures of a model; an answer counts as right if its mean error is below 2 mm.

    Attributes:
        records: One a case.
    """

    records: tuple[Record, ...]

    def rows(self) -> list[dict[str, Any]]:
        """One row for each case and method."""
        return [
            {
                "case": r.name,
                "band": r.band,
                "method": method,
                "error_mm": error,
                "confidence": r.confidence if method == METHODS[0] else None,
            }
            for r in self.records
            for method, error in r.error_mm.items()
        ]

    def summary(self) -> dict[str, Any]:
        """Figures by band, ready for JSON."""
        bands = list(dict.fromkeys(r.band for r in self.records))
        errors = np.array([r.error_mm[METHODS[0]] for r in self.records])
        trusted = np.array([r.trusted for r in self.records])
        return {
            "bands": {
                band: self._of([r for r in self.records if r.band == band]) for band in bands
            },
            "confidence": {
                "wrong_flagged_percent": _percent(~trusted[errors >= RIGHT_MM]),
                "right_flagged_percent": _percent(~trusted[errors < RIGHT_MM]),
            },
        }

    @staticmethod
    def _of(records: Sequence[Record]) -> dict[str, Any]:
        methods = {}
        for method in METHODS:
            errors = np.array([r.error_mm[method] for r in records])
            methods[method] = {
                "right": int((errors < RIGHT_MM).sum()),
                "median_error_mm": float(np.median(errors)),
            }
        return {"cases": len(records), "methods": methods}


def evaluate(
    registrar: Registrar,
    scans: Sequence[Path],
    *,
    bands: Sequence[str] = tuple(BANDS),
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> Evaluation:
    """Register scans with copies of themselves in other poses and contrasts.

    Args:
        registrar: What to measure.
        scans: Their files.
        bands: Names of :data:`BANDS`.
        seed: Fixes poses and contrasts.
        progress: Called with the cases done and their number.

    Raises:
        MedrlError: If a scan cannot be used.
    """
    generator = Generator().manual_seed(seed)
    records = []
    for index, scan in enumerate(scans):
        for number, band in enumerate(bands):
            turn, shift = BANDS[band]
            case = make_case(scan, turn=turn, shift=shift, generator=generator)
            found = registrar.register(case.fixed, case.moving)
            answers: dict[str, NDArray[np.float64]] = {
                "medrl": found.transform_world,
                "agent alone": found.agent_transform_world,
                "SimpleITK": refine(case.fixed, case.moving, np.eye(4)),
                "identity": np.eye(4),
            }
            errors = {method: case.error_mm(answer) for method, answer in answers.items()}
            records.append(Record(case.name, band, errors, found.confidence, found.trusted))
            if progress is not None:
                progress(index * len(bands) + number + 1, len(scans) * len(bands))
    return Evaluation(tuple(records))


def _percent(flags: NDArray[np.bool_]) -> float | None:
    """Share of flags in per cent; None where there is nothing to flag."""
    return float(100 * flags.mean()) if len(flags) else None
