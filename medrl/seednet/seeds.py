"""Seeds in the world: what a user or an agent says is object or not, and files of them.

Convention: world points are RAS mm; voxels are (i, j, k) in the array order of some grid.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from medrl.errors import MedrlError
from medrl.volume.points import Markup, read_markups, write_markup_lists
from medrl.volume.space import lps_to_ras, world_to_voxel
from medrl.walker.segmenter import BACKGROUND, FOREGROUND

Who = Literal["user", "agent"]

#: What a label is called in files and messages, by its number.
LABEL_NAMES = ("background", "foreground")
_SHORT = ("bg", "fg")
_WORDS = {
    **dict.fromkeys(("bg", "background", "negative", "exclude", "outside"), BACKGROUND),
    **dict.fromkeys(("fg", "foreground", "positive", "include", "object"), FOREGROUND),
}
#: Types of Slicer markups that are lines through their points.
_LINES = ("Curve", "ClosedCurve", "Line")


@dataclass(frozen=True, eq=False)
class Seed:
    """One seed: a point, or a scribble.

    Attributes:
        points_world: (P, 3) RAS mm; a scribble runs through them in this order.
        label: BACKGROUND or FOREGROUND.
        who: Who placed it.
        expected_gain: What an agent expected of it, in Dice; NaN for a user's.

    Raises:
        MedrlError: If the points are not finite triples or the label is neither of the two.
    """

    points_world: NDArray[np.float64]
    label: int
    who: Who = "user"
    expected_gain: float = math.nan

    def __post_init__(self) -> None:
        """Check the values and bring them to one type."""
        try:
            points = np.array(self.points_world, dtype=np.float64)
        except (TypeError, ValueError) as error:
            raise MedrlError("the position of a seed must be three numbers") from error
        points = points[None] if points.ndim == 1 else points
        if points.ndim != 2 or points.shape[1] != 3 or not len(points):
            raise MedrlError("the position of a seed must be three numbers, a scribble several")
        if not np.isfinite(points).all():
            raise MedrlError("the position of a seed must be finite")
        object.__setattr__(self, "points_world", points)
        object.__setattr__(self, "label", as_label(self.label))

    @property
    def position_world(self) -> NDArray[np.float64]:
        """(3,) RAS mm; of a scribble its first point."""
        return self.points_world[0]

    @property
    def is_scribble(self) -> bool:
        """Whether it has more than one point."""
        return len(self.points_world) > 1

    @property
    def label_name(self) -> str:
        """``background`` or ``foreground``."""
        return LABEL_NAMES[self.label]

    def voxels(self, affine: ArrayLike) -> NDArray[np.int64]:
        """The voxels of a grid that it covers.

        Args:
            affine: (4, 4), voxel of the grid to world.

        Returns:
            (V, 3), the voxels nearest to its points and to the straight lines between them, each
            once, those beyond the grid included.
        """
        points = world_to_voxel(self.points_world, affine)
        parts = [points[:1]]
        for start, end in pairwise(points):
            # Samples half a voxel apart miss no voxel by more than a corner.
            steps = max(1, math.ceil(2 * np.abs(end - start).max()))
            parts.append(start + (end - start) * np.linspace(0, 1, steps + 1)[1:, None])
        return np.unique(np.floor(np.concatenate(parts) + 0.5).astype(np.int64), axis=0)


def as_label(label: int | str) -> int:
    """A label from its number or any of its names, such as ``fg`` or ``background``."""
    number = _WORDS.get(label.strip().lower()) if isinstance(label, str) else label
    if number is None or number not in (BACKGROUND, FOREGROUND):
        raise MedrlError(f"{label!r} is not a label of a seed: use fg or bg")
    return int(number)


def parse_seed(text: str, *, space: str = "RAS") -> Seed:
    """Read a seed as typed on a command line.

    Args:
        text: ``fg:x,y,z`` or ``bg:x,y,z`` in mm; more triples, each after another colon, make a
            scribble.
        space: ``RAS`` or ``LPS``.

    Raises:
        MedrlError: If it is not of this form.
    """
    label, *triples = text.split(":")
    try:
        points = np.array([[float(value) for value in triple.split(",")] for triple in triples])
    except ValueError:
        points = np.empty(0)
    if points.ndim != 2 or points.shape[1] != 3:
        raise MedrlError(f"seed {text!r} is not of the form fg:x,y,z or bg:x,y,z (mm)")
    if space.upper() not in ("RAS", "LPS"):
        raise MedrlError(f"{space!r} is not a space of coordinates: use RAS or LPS")
    return Seed(lps_to_ras(points) if space.upper() == "LPS" else points, as_label(label))


def read_seeds(path: str | os.PathLike[str]) -> list[Seed]:
    """Read seeds from a 3D Slicer markups file.

    A point's label is named by the first of these that has such a word: its own name (``fg-1``,
    ``bg 2``), its description, the name of its list, the name of the file. Words are fg,
    foreground, positive, include, object, and bg, background, negative, exclude, outside. Point
    lists are read point by point; curves and lines as scribbles.

    Args:
        path: File to read (.mrk.json), in LPS or RAS as it says.

    Returns:
        Seeds in the file's order; an agent's, of a file that :func:`write_seeds` wrote, as such.

    Raises:
        MedrlError: If the file cannot be read, or says of a point neither fg nor bg, or both.
    """
    file = Path(path)
    stem = file.name.split(".")[0]
    seeds = []
    for markup in read_markups(file):
        points = [
            (label, description, markup.name, stem)
            for label, description in zip(markup.labels, markup.descriptions, strict=True)
        ]
        if markup.kind in _LINES and points:
            texts = (markup.name, *points[0][:2], stem)
            label = _label_of(file, f"the curve {markup.name!r}", texts)
            seeds.append(Seed(markup.points_world, label, _who(*texts)))
        elif markup.kind == "Fiducial":
            for texts, point in zip(points, markup.points_world, strict=True):
                label = _label_of(file, f"the point {texts[0]!r}", texts)
                seeds.append(Seed(point, label, _who(*texts[:2])))
    if not seeds:
        raise MedrlError(f"{file}: holds no seeds")
    return seeds


def write_seeds(
    path: str | os.PathLike[str], seeds: Sequence[Seed], *, name: str = "seeds"
) -> None:
    """Write seeds as a 3D Slicer markups file (.mrk.json, LPS).

    Points make one list; they are called ``fg-1``, ``bg-1``, and the agent's ``agent-fg-1``, with
    a description in words. Scribbles are curves.

    Args:
        path: File to write.
        seeds: The user's and the agent's.
        name: What Slicer calls the list.
    """
    counts: dict[str, int] = {}
    names = []
    for seed in seeds:
        kind = ("agent-" if seed.who == "agent" else "") + _SHORT[seed.label]
        counts[kind] = counts.get(kind, 0) + 1
        names.append(f"{kind}-{counts[kind]}")
    named = list(zip(names, seeds, strict=True))
    points = [(label, seed) for label, seed in named if not seed.is_scribble]
    markups = [
        Markup(
            "Fiducial",
            name,
            np.array([seed.position_world for _, seed in points]).reshape(-1, 3),
            tuple(label for label, _ in points),
            tuple(_describe(seed) for _, seed in points),
        )
    ]
    for label, seed in named:
        if seed.is_scribble:
            texts = tuple(f"{label}-{n + 1}" for n in range(len(seed.points_world)))
            words = (_describe(seed),) * len(texts)
            markups.append(Markup("Curve", label, seed.points_world, texts, words))
    write_markup_lists(path, [m for m in markups if len(m.labels)] or markups)


def _describe(seed: Seed) -> str:
    gain = "" if math.isnan(seed.expected_gain) else f", expected gain {seed.expected_gain:+.4f}"
    return f"{seed.label_name}, {seed.who}{gain}"


def _words(text: str) -> list[str]:
    return re.findall(r"[a-z]+", text.lower())


def _who(*texts: str) -> Who:
    return "agent" if any("agent" in _words(text) for text in texts) else "user"


def _label_of(file: Path, what: str, texts: Sequence[str]) -> int:
    """The label that the first of some texts names."""
    for text in texts:
        labels = {_WORDS[word] for word in _words(text) if word in _WORDS}
        if len(labels) == 2:
            raise MedrlError(f"{file}: {what} says both foreground and background: {text!r}")
        if labels:
            return labels.pop()
    raise MedrlError(
        f"{file}: {what} says neither fg nor bg; name it so, or put it into a list called "
        "foreground or background"
    )
