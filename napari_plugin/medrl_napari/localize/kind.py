"""Boxes as something that agents search for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from medrl.localization.corrections import add_sample, corrected_by_hand
from medrl.results.picture import answer_color
from medrl_napari.search.kind import Kind

if TYPE_CHECKING:
    from medrl.localization.answer import Box, Localization
    from medrl_napari.jobs import Report


def _where(box: Box) -> str:
    low, high = box.corners_world
    return ", ".join(f"{one:.1f} to {other:.1f}" for one, other in zip(low, high, strict=True))


def _search(
    localizer: Any, scans: Mapping[str, Any], names: Sequence[str], report: Report
) -> Localization:
    scan = scans["scan"] if set(scans) == {"scan"} else dict(scans)
    found: Localization = localizer.localize(
        scan, targets=names, progress=report.progress, watch=report.step
    )
    return found


BOXES = Kind(
    system="localization",
    one="box",
    several="boxes",
    layer="boxes",
    contents="targets",
    sure="it overlaps the true box by 70 % or more",
    meanings={
        "found": "Where its agent ended",
        "absent": "Its middle is not in this scan",
        "by hand": "As you drew it",
    },
    title=lambda name: name.replace("_", " "),
    color=lambda box: answer_color(box.status, box.confidence),
    where=_where,
    items=lambda localization: localization.boxes,
    value=lambda box: box.corners_world,
    search=_search,
    correct=corrected_by_hand,
    add_sample=add_sample,
)
