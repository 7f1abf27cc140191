"""What is worth knowing about a data set before a model is trained on it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

#: `image`, `subject` and, where the set has them, `label`, `landmarks` and further files.
Entry = dict[str, str]

#: MONAI's datalist: entries under `training`, `validation` and `test` (the holdout).
Datalist = dict[str, list[Entry]]

#: Subjects under `train`, `val` and `holdout`.
Splits = dict[str, tuple[str, ...]]

#: Landmarks of each subject: position in RAS+ millimetres, shape (3,), by name.
Landmarks = dict[str, dict[str, NDArray[np.float64]]]

#: Boxes of each subject: smallest and largest coordinates of the outer faces in RAS+ millimetres,
#: shape (2, 3), by name.
Boxes = dict[str, dict[str, NDArray[np.float64]]]


@dataclass(frozen=True, kw_only=True)
class Card:
    """The data card of one set.

    Attributes:
        name: Name of the module and of the folder of a local copy.
        title: One line that says what it is.
        modality: Imaging modality and sequence.
        grid: Shape, spacing and orientation of the scans.
        source: Who made it.
        home: Where it is published.
        licence: Licence of the scans and labels.
        weights: Whether and how a model trained on it may be published.
        citation: What to cite.
        labels: What labels there are and what they are worth.
        obtain: How to get a copy, in words.
        traps: What has misled people.
        landmarks: Names of the landmarks, if there are any.
        holdout: Subjects that never influence training, tuning or thresholds.
    """

    name: str
    title: str
    modality: str
    grid: str
    source: str
    home: str
    licence: str
    weights: str
    citation: str
    labels: str
    obtain: str
    traps: tuple[str, ...] = ()
    landmarks: tuple[str, ...] = ()
    holdout: tuple[str, ...] = ()
