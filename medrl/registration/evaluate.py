"""Measure a registration model on posed copies of scans, next to what is simpler."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Generator

from medrl.errors import MedrlError
from medrl.evaluation import (
    Evaluation,
    Measurements,
    Table,
    auc,
    measure,
    reliability,
    summarize,
)
from medrl.registration.calibrate import RIGHT_MM
from medrl.registration.cases import PosedCase, make_case
from medrl.registration.refine import refine
from medrl.registration.register import Registrar, Registration

#: Bands of difficulty: largest angle about each axis in degrees (None: any orientation) and
#: largest shift along each axis in mm.
BANDS: dict[str, tuple[float | None, float]] = {
    "10": (10.0, 10.0),
    "30": (30.0, 30.0),
    "60": (60.0, 60.0),
    "any": (None, 60.0),
}
OWN = "medrl"


@dataclass(frozen=True)
class _Posing:
    """How a scan is posed."""

    scan: Path
    band: str
    seed: int

    @property
    def subject(self) -> str:
        return self.scan.name.split(".")[0]

    @property
    def name(self) -> str:
        return f"{self.subject}, {self.band}"


@dataclass(frozen=True, eq=False)
class _Pair:
    """A posed pair, and what the model makes of it: found out once."""

    band: str
    case: PosedCase
    registrar: Registrar

    @cached_property
    def found(self) -> Registration:
        return self.registrar.register(self.case.fixed, self.case.moving)


@dataclass(frozen=True, eq=False)
class _Answer:
    """A transform, and what the model says of it; NaN where others say nothing."""

    transform_world: NDArray[np.float64]
    confidence: float | None = None
    trusted: float = float("nan")


def evaluate(
    registrar: Registrar,
    scans: Sequence[Path],
    *,
    bands: Sequence[str] = tuple(BANDS),
    seed: int = 0,
    progress: Callable[[int, int, str], None] | None = None,
) -> Evaluation:
    """Register scans with copies of themselves in other poses and contrasts.

    Beside the model stand its agents without refinement, SimpleITK's mutual information from where
    the scans lie, and leaving them there. An answer is right if its mean error is below 2 mm; who
    finds nothing is wrong.

    Args:
        registrar: What to measure.
        scans: Their files.
        bands: Names of :data:`BANDS`.
        seed: Fixes poses and contrasts; those of a scan and band do not depend on the others.
        progress: Called with the cases done, their number, and the name of the next.

    Raises:
        MedrlError: If there is no such band, or no scan can be used.
    """
    unknown = [band for band in bands if band not in BANDS]
    if unknown or not bands:
        raise MedrlError(f"there is no band {unknown}; there are: {', '.join(BANDS)}")
    posings = [
        _Posing(scan, band, _seed(seed, index, band))
        for index, scan in enumerate(scans)
        for band in bands
    ]
    measured = measure(
        posings,
        {
            OWN: lambda pair: _Answer(
                pair.found.transform_world, pair.found.confidence, float(pair.found.trusted)
            ),
            "agent alone": lambda pair: _Answer(pair.found.agent_transform_world),
            "SimpleITK": lambda pair: _Answer(refine(pair.case.fixed, pair.case.moving, np.eye(4))),
            "identity": lambda pair: _Answer(np.eye(4)),
        },
        {
            "error_mm": lambda pair, answer: pair.case.error_mm(answer.transform_world),
            "confidence": lambda _, answer: _number(answer.confidence),
            "trusted": lambda _, answer: answer.trusted,
        },
        load=lambda posing: _Pair(posing.band, _make(posing), registrar),
        groups=lambda pair: (pair.band,),
        subject=lambda posing: posing.subject,
        # Nobody would trust a refusal.
        failed={"confidence": 0.0, "trusted": 0.0},
        progress=progress,
    )
    errors = measured.select(metric="error_mm")
    unusable = list(dict.fromkeys(f.reason for f in measured.failures if not f.method))
    if not errors.rows:
        raise MedrlError(f"no scan could be used: {(unusable or ['there is none'])[0]}")
    summary: dict[str, Any] = {
        "scans": len(set(errors.subjects)),
        "failed": unusable,
        "right_mm": RIGHT_MM,
        "bands": {
            band: {
                "turn_deg": BANDS[band][0],
                "shift_mm": BANDS[band][1],
                "cases": len(own.unique("case")),
                "methods": {name: _figures(rows) for name, rows in own.by("method").items()},
            }
            for band, own in errors.by("group").items()
        },
        "confidence": trust(measured),
    }
    return Evaluation(
        summary=summary,
        tables=_tables(summary),
        lines=[_in_words(summary["confidence"])],
        files={"rows.csv": measured.records()},
        failed=unusable,
    )


def trust(measured: Measurements) -> dict[str, Any] | None:
    """How many wrong and right answers the model does not stand by, and what its confidence says.

    Returns:
        None if it has none.
    """
    own = measured.select(method=OWN)
    stated, trusted = (own.select(metric=name).values for name in ("confidence", "trusted"))
    if np.isnan(stated).all():
        return None
    right = own.select(metric="error_mm").values < RIGHT_MM
    doubted, area = trusted == 0, auc(stated, right)
    return {
        "wrong": int((~right).sum()),
        "wrong_flagged": int((~right & doubted).sum()),
        "right": int(right.sum()),
        "right_flagged": int((right & doubted).sum()),
        "auc": area if area == area else None,
        "reliability": asdict(reliability(stated, right)),
    }


def _make(posing: _Posing) -> PosedCase:
    turn, shift = BANDS[posing.band]
    generator = Generator().manual_seed(posing.seed)
    try:
        return make_case(posing.scan, turn=turn, shift=shift, generator=generator)
    except MedrlError as error:
        line = str(error)
        named = line if str(posing.scan) in line else f"{posing.scan}: {line}"
        raise MedrlError(named) from error


def _seed(seed: int, index: int, band: str) -> int:
    source = np.random.SeedSequence([seed % 2**32, index, list(BANDS).index(band)])
    return int(source.generate_state(1)[0])


def _number(confidence: float | None) -> float:
    return float("nan") if confidence is None else float(confidence)


def _figures(errors: Measurements) -> dict[str, Any]:
    return {
        "right": int((errors.values < RIGHT_MM).sum()),
        "median_error_mm": summarize(errors.values)["median"],
    }


def _tables(summary: Mapping[str, Any]) -> list[Table]:
    """For each band: how many answers of each method are right, and its median error."""
    bands = list(summary["bands"].values())
    header = ["method"]
    for band in bands:
        turn = "any turn" if band["turn_deg"] is None else f"{band['turn_deg']:g} deg"
        header.append(f"{turn}, {band['shift_mm']:g} mm")
    methods = list(bands[0]["methods"])
    right = [
        [method, *(f"{band['methods'][method]['right']}/{band['cases']}" for band in bands)]
        for method in methods
    ]
    median = [
        [method, *(band["methods"][method]["median_error_mm"] for band in bands)]
        for method in methods
    ]
    return [
        Table(f"Right to {summary['right_mm']:g} mm, of all cases", header, right),
        Table("Median error in mm", header, median),
    ]


def _in_words(told: Mapping[str, Any] | None) -> str:
    """What the confidence is worth."""
    if told is None:
        return "the model says nothing of how sure it is"
    return (
        f"of {told['wrong']} wrong answers {told['wrong_flagged']} were not trusted, "
        f"of {told['right']} right ones {told['right_flagged']}"
    )
