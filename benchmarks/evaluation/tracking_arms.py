"""What learning, and whose reward, is worth: tracking agents on simulated films kept back."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from torch import Tensor

from medrl.tracking.objects.dynamics import TrackDynamics, View
from medrl.tracking.objects.policy import Together
from medrl.tracking.objects.scene import Scene
from medrl.tracking.objects.simulated import Film, Flaws, detected, drawn_world, simulate
from medrl.tracking.objects.walk import Finish, Notes, finished, walk

from .tracking_metrics import mot_figures

#: Of films that no training has seen: trainings draw theirs from all of 2^31.
SEEDS = range(900_001, 900_013)
FLAWS = (
    Flaws(missed=0.2, jitter=0.08),
    Flaws(missed=0.2, jitter=0.08, false=0.1, doubt=0.3),
)


def validation_films() -> list[Film]:
    """Simulated films, every third in 3D."""
    return [simulate(drawn_world(s, deep=n % 3 == 2), s) for n, s in enumerate(SEEDS)]


def figures(
    values: Callable[[Mapping[str, Tensor]], Tensor], view: View, films: list[Film]
) -> dict[str, float]:
    """Means over films and flaws."""
    rows = []
    for number, film in enumerate(films):
        for flaws in FLAWS:
            seen = detected(film.truth, flaws, number, film.shape)
            one = Scene.of(seen, frames=film.frames, spacing=film.spacing)
            dynamics = TrackDynamics([one], view=view)
            notes = Notes(dynamics)
            walk(dynamics, Together(values), on_step=notes)
            log = finished(notes.log(0), one.box.numpy(), Finish())
            box = log.box / np.array(film.spacing)
            rows.append(mot_figures(film.truth, log.frame, log.track, box, film.shape[0]))
    return {key: float(np.mean([row[key] for row in rows])) for key in rows[0]}


def summary(arm: str, found: Mapping[str, float]) -> dict[str, Any]:
    """A line of the table of arms."""
    return {
        "arm": arm,
        "IDF1": found["IDF1"],
        "HOTA": found["HOTA"],
        "MOTA": found["MOTA"],
        "switches": found["IDSW"],
        "false": found["FP"],
        "missed": found["FN"],
    }
