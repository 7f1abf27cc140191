"""What a user can do to a seed session, as operations for its thread."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from medrl.errors import MedrlError
from medrl.seednet.seeds import Seed
from medrl.seednet.session import SeedSession
from medrl.walker.segmenter import BACKGROUND, FOREGROUND
from medrl_napari.scans import Shown
from medrl_napari.segment.session_state import Array, Box
from medrl_napari.segment.session_thread import Act, Operation
from medrl_napari.segment.store import KeptObject


def place(seeds: Sequence[Seed], *, keep: Sequence[Seed], target: str) -> Operation:
    """Place seeds in the current object; begin one of a kind if there is none."""

    def act(session: SeedSession) -> None:
        if not session.current:
            session.new_object(target=target or None)
        session.add_seeds(seeds)

    return Operation(act, seeds=tuple(seeds), keep=tuple(keep))


def remove(seeds: Sequence[Seed]) -> Operation:
    """Take seeds away, of whatever objects they are; the last one's object becomes the current."""

    def act(session: SeedSession) -> None:
        for seed in seeds:
            name, index = _find(session, seed)
            session.switch(name)
            session.remove_seed(index)

    return Operation(act)


def move(seed: Seed, points_world: Array) -> Operation:
    """Put one of the user's seeds elsewhere."""

    def act(session: SeedSession) -> None:
        name, index = _find(session, seed)
        session.switch(name)
        session.move_seed(index, points_world)

    return Operation(act)


def restore(objects: Sequence[KeptObject], *, remark: str = "") -> Operation:
    """Place kept seeds, each object's in an object of its own; all become the user's.

    Args:
        objects: What was kept.
        remark: What to tell the user.
    """

    def act(session: SeedSession) -> str | None:
        kinds = [target.name for target in session.model.settings.targets]
        lost = []
        for kept in objects:
            if kept.name in session.objects:
                session.switch(kept.name)
            else:
                target = kept.target if kept.target in kinds else None
                session.new_object(kept.name or None, target=target)
            try:
                session.add_seeds(kept.seeds)
            except MedrlError as error:
                lost.append(str(error))
        if lost:
            raise MedrlError("; ".join(lost))
        return remark or None

    seeds = tuple(seed for kept in objects for seed in kept.seeds)
    return Operation(act, seeds=seeds, keep=seeds)


def draw(shown: Shown, before: Array, after: Array, box: Box) -> Operation:
    """Correct masks as the user has drawn.

    Args:
        shown: The scan.
        before: Numbers of the label map in the box, before.
        after: And after.
        box: Of the label map, on the layer grid.
    """

    def region(where: Array) -> Array:
        full = np.zeros(shown.shape, dtype=bool)
        full[box] = where
        return shown.to_scan_grid(full)

    def act(session: SeedSession) -> None:
        if not session.current:
            session.new_object()
        current, names = session.current, session.objects
        if after.max() > len(names):
            raise MedrlError(f"there is no object {after.max()} to draw: make it first (N)")
        try:
            for number, name in enumerate(names, 1):
                gone = (before == number) & (after != number)
                come = (before != number) & (after == number)
                for label, where in ((BACKGROUND, gone), (FOREGROUND, come)):
                    if where.any():
                        session.switch(name)
                        session.edit(region(where), label)
        finally:
            session.switch(current)

    return Operation(act, drawn=box)


def save(folder: Path, stem: str) -> Operation:
    """Write what `medrl segment` writes."""

    def act(session: SeedSession) -> str:
        from medrl.seednet.results import write_results

        files = write_results(folder, stem, session)
        return f"Saved {len(files)} files as {folder / stem}.*"

    return Operation(act)


def plain(act: Act) -> Operation:
    """Anything that places no seeds and draws nothing."""
    return Operation(act)


def _find(session: SeedSession, seed: Seed) -> tuple[str, int]:
    """Object and place of a seed."""
    for name in session.objects:
        for index, held in enumerate(session.seeds_of(name)):
            if held is seed:
                return name, index
    raise MedrlError("this seed is gone already")


def same_seed(one: Any, other: Any) -> bool:
    """Whether two seeds say the same."""
    return one.label == other.label and np.array_equal(one.points_world, other.points_world)
