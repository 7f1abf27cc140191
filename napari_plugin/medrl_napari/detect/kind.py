"""Landmarks as something that agents search for."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from medrl.landmark.corrections import corrected_by_hand
from medrl.landmark.data import add_sample
from medrl.landmark.picture import landmark_style, short_name
from medrl_napari.search.kind import Kind
from medrl_napari.space import Floats


def _where(landmark: Any) -> str:
    return "at " + ", ".join(f"{value:.1f}" for value in landmark.position_world)


def _add_sample(
    datalist: Path, image: Path | Mapping[str, Path], points_world: Mapping[str, Floats]
) -> Path:
    """Landmark agents look at one image."""
    file = image if isinstance(image, Path) else next(iter(image.values()))
    return add_sample(datalist, file, points_world)


LANDMARKS = Kind(
    system="landmark",
    one="landmark",
    several="landmarks",
    layer="landmarks",
    contents="landmarks",
    sure="the error is below 4 mm",
    meanings={
        "found": "Where its agent ended",
        "absent": "Not in this scan's field of view",
        "corrected": "Its agent ended where the other landmarks do not expect it: "
        "their expectation",
        "by hand": "Where you put it",
    },
    title=short_name,
    color=lambda landmark: landmark_style(landmark)[0],
    where=_where,
    items=lambda detection: detection.landmarks,
    value=lambda landmark: landmark.position_world,
    search=lambda detector, scans, names, report: detector.detect(
        scans["scan"], landmarks=names, progress=report.progress, watch=report.step
    ),
    correct=corrected_by_hand,
    add_sample=_add_sample,
)
