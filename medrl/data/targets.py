"""What the values of a mask are called, and masks of what is called so."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from monai.data.meta_tensor import MetaTensor
from torch import Tensor

from medrl.errors import MedrlError
from medrl.volume._nrrd import Segment
from medrl.volume.read import read_labels


@dataclass(frozen=True)
class Target:
    """A kind of object that a model can be asked for.

    Attributes:
        name: What it is called.
        labels: Values of the mask that make it up.
    """

    name: str
    labels: tuple[int, ...] = (1,)


def parse_target(text: str) -> Target:
    """Read ``NAME=LABEL,LABEL,...``; without labels it is label 1."""
    name, _, labels = text.partition("=")
    values = labels.split(",") if labels else ["1"]
    if not name or not all(value.strip().isdecimal() and int(value) > 0 for value in values):
        raise MedrlError(f"{text!r} is not NAME=LABEL,LABEL,... with labels above 0")
    return Target(name, tuple(int(value) for value in values))


def read_mask(path: Path, target: Target) -> MetaTensor:
    """Read a mask: MetaTensor (1, I, J, K) float32, 1 where its value is one of the target's.

    Raises:
        MedrlError: As :func:`mask_of`, or if the file cannot be read.
    """
    labels = read_labels(path)
    return MetaTensor(mask_of(labels, target, source=path).float()[None], affine=labels.affine)


def mask_of(labels: MetaTensor, target: Target, *, source: Path) -> Tensor:
    """Where a label map that was read has a value of a target's, (I, J, K) bool.

    A segmentation of 3D Slicer's may have several layers; each segment is found in its own.

    Args:
        labels: From :func:`medrl.volume.read.read_labels`.
        target: What is looked for.
        source: The file, for messages.

    Raises:
        MedrlError: If it is no single volume, or a label is that of segments in several layers,
            none of which is called as the target.
    """
    segments = labels.meta.get("segments")
    if segments is None and len(labels) > 1:
        raise MedrlError(f"{source}: holds {len(labels)} volumes; a mask is one")
    if not segments:
        values = labels.as_tensor()
        return torch.isin(values, torch.tensor(target.labels, dtype=values.dtype)).any(dim=0)
    inside = torch.zeros(labels.shape[1:], dtype=torch.bool)
    for value in target.labels:
        layers = _layers(source, target, value, segments)
        inside |= (labels.as_tensor()[layers] == value).any(dim=0)
    return inside


def _layers(path: Path, target: Target, value: int, segments: Sequence[Segment]) -> Any:
    """In which channels of a segmentation a label means the target; a slice or a list."""
    known = [segment for segment in segments if segment.value == value]
    if len({segment.layer for segment in known}) > 1:
        listing = ", ".join(f"{segment.name} (layer {segment.layer})" for segment in known)
        known = [one for one in known if one.name.casefold() == target.name.casefold()]
        if not known:
            raise MedrlError(
                f"{path}: label {value} is that of {listing}; call the target as the segment that "
                "is meant"
            )
    return [segment.layer for segment in known] or slice(None)
