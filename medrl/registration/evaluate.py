"""Measure a registration model on posed copies of scans, next to leaving them where they are."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Generator

from medrl.errors import MedrlError
from medrl.registration.calibrate import RIGHT_MM
from medrl.registration.cases import PosedCase, make_case
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
        error_mm: Mean error of each of :data:`METHODS`.
        confidence: Of medrl's answer; NaN if the model has none.
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
        failed: What went wrong, by scan.
    """

    records: tuple[Record, ...]
    failed: dict[str, str]

    def rows(self) -> list[dict[str, Any]]:
        """One row for each case and method."""
        return [
            {
                "case": r.name,
                "band": r.band,
                "method": method,
                "error_mm": error,
                "confidence": r.confidence if method == METHODS[0] else None,
                "trusted": r.trusted if method == METHODS[0] else None,
            }
            for r in self.records
            for method, error in r.error_mm.items()
        ]

    def summary(self) -> dict[str, Any]:
        """Figures by band, and what the confidence is worth, ready for JSON."""
        bands = list(dict.fromkeys(r.band for r in self.records))
        return {
            "scans": len({r.name for r in self.records}),
            "failed": self.failed,
            "right_mm": RIGHT_MM,
            "bands": {
                band: {
                    "turn_deg": BANDS[band][0],
                    "shift_mm": BANDS[band][1],
                    **_figures([r for r in self.records if r.band == band]),
                }
                for band in bands
            },
            "confidence": self._confidence(),
        }

    def _confidence(self) -> dict[str, int] | None:
        """How many wrong and right answers the model does not stand by; None if it cannot tell."""
        if all(math.isnan(r.confidence) for r in self.records):
            return None
        doubtful = np.array([not r.trusted for r in self.records])
        right = np.array([r.error_mm[METHODS[0]] < RIGHT_MM for r in self.records])
        return {
            "wrong": int((~right).sum()),
            "wrong_flagged": int((~right & doubtful).sum()),
            "right": int(right.sum()),
            "right_flagged": int((right & doubtful).sum()),
        }


def _figures(records: Sequence[Record]) -> dict[str, Any]:
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

    Two methods stand beside the model: SimpleITK's mutual information from where the scans lie,
    and leaving them there. Who finds nothing has left them there, too.

    Args:
        registrar: What to measure.
        scans: Their files.
        bands: Names of :data:`BANDS`.
        seed: Fixes poses and contrasts; those of a scan and band do not depend on the others.
        progress: Called with the cases done and their number.

    Raises:
        MedrlError: If there is no such band, or no scan can be used.
    """
    unknown = [band for band in bands if band not in BANDS]
    if unknown or not bands:
        raise MedrlError(f"there is no band {unknown}; there are: {', '.join(BANDS)}")
    records: list[Record] = []
    failed: dict[str, str] = {}
    for index, scan in enumerate(scans):
        for number, band in enumerate(bands):
            turn, shift = BANDS[band]
            source = np.random.SeedSequence([seed % 2**32, index, list(BANDS).index(band)])
            generator = Generator().manual_seed(int(source.generate_state(1)[0]))
            try:
                case = make_case(scan, turn=turn, shift=shift, generator=generator)
            except MedrlError as error:
                line = str(error)
                failed[str(scan)] = line if str(scan) in line else f"{scan}: {line}"
                break
            records.append(_measure(registrar, case, band))
            if progress is not None:
                progress(index * len(bands) + number + 1, len(scans) * len(bands))
    if not records:
        raise MedrlError(f"no scan could be used: {next(iter(failed.values()), 'there is none')}")
    return Evaluation(tuple(records), failed)


def _measure(registrar: Registrar, case: PosedCase, band: str) -> Record:
    """All methods on one case."""
    here: NDArray[np.float64] = np.eye(4)
    answers = dict.fromkeys(METHODS, here)
    confidence, trusted = 0.0, False
    try:
        found = registrar.register(case.fixed, case.moving)
    except MedrlError:
        pass  # A refusal is no answer, and nobody would trust it.
    else:
        answers["medrl"], answers["agent alone"] = (
            found.transform_world,
            found.agent_transform_world,
        )
        confidence, trusted = found.confidence, found.trusted
    with contextlib.suppress(MedrlError):
        answers["SimpleITK"] = refine(case.fixed, case.moving, here)
    errors = {method: case.error_mm(answer) for method, answer in answers.items()}
    return Record(case.name, band, errors, confidence, trusted)
