"""How well outlines are carried, next to what needs no model."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from monai.data.meta_tensor import MetaTensor
from numpy.typing import NDArray

from medrl.cutting.baselines import copied, interpolated, registered
from medrl.cutting.carry import Carrier
from medrl.cutting.data import Sample
from medrl.cutting.samples import Source
from medrl.errors import MedrlError
from medrl.evaluation import Evaluation, Measurements, Table, compare, measure, summarize
from medrl.volume.film import Film

AGENTS, MOVING = "agents", "agents that move"
COPY, DEMONS, SHAPES = "copy", "demons", "shape interpolation"
#: Slices that an object is measured from.
LEAST_SLICES = 8

Mask = NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Object:
    """One object of a scan or film, and the pictures of it that are outlined.

    Attributes:
        name: Of the case.
        source: The scan or film.
        value: Number of the object in its labels.
        axis: Along which pictures follow one another.
        outlined: Pictures whose masks are given.
        subject: Whose it is.
    """

    name: str
    source: Source
    value: int
    axis: int
    outlined: tuple[int, ...]
    subject: str = ""

    @cached_property
    def truth(self) -> Mask:
        """(T, H, W)."""
        found: Mask = self.source.mask(self.value, self.axis).numpy()
        return found

    @property
    def masks(self) -> dict[int, Mask]:
        """What is outlined."""
        return {number: self.truth[number] for number in self.outlined}

    @property
    def pictures(self) -> NDArray[np.float32]:
        """(T, H, W), colours added up."""
        volume = self.source.volume.float().mean(dim=0).movedim(self.axis, 0)
        found: NDArray[np.float32] = volume.numpy()
        return found

    @property
    def data(self) -> MetaTensor | Film:
        """The scan, in millimetres of its own, or the film."""
        if self.source.film:
            return Film(self.source.volume.movedim(1, 0)[..., None].float())
        affine = torch.diag(torch.tensor([*self.source.spacing, 1.0], dtype=torch.float64))
        return MetaTensor(self.source.volume.float(), affine=affine)

    @property
    def given(self) -> MetaTensor | dict[int, NDArray[np.int64]]:
        """The outlines as the agents take them."""
        if self.source.film:
            return {number: mask.astype(np.int64) for number, mask in self.masks.items()}
        labels = np.zeros(self.truth.shape, dtype=np.int64)
        for number, mask in self.masks.items():
            labels[number] = mask
        whole = torch.from_numpy(np.moveaxis(labels, 0, self.axis).copy())[None]
        affine = torch.diag(torch.tensor([*self.source.spacing, 1.0], dtype=torch.float64))
        return MetaTensor(whole, affine=affine)


#: From an object to its masks (T, H, W).
Method = Callable[[Object], Mask]


def objects_of(
    source: Source, axis: int, values: Sequence[int] = (), *, subject: str = ""
) -> list[Object]:
    """The objects of a source that go through enough pictures, outlined in the middle one."""
    found = []
    for value in values or source.values:
        there = np.flatnonzero(source.mask(value, axis).flatten(1).any(dim=1).numpy())
        if len(there) >= LEAST_SLICES:
            middle = int(there[len(there) // 2])
            name = f"{source.name} {value}"
            found.append(Object(name, source, value, axis, (middle,), subject or source.name))
    return found


def agents(carrier: Carrier, *, moving: bool = False) -> Method:
    """The model as a method; ``moving``: its agents may move their boxes before they cut."""

    def carry(one: Object) -> Mask:
        how: Any = "moving" if moving else "still"
        carried = carrier.carry(one.data, one.given, axis=None if one.source.film else one.axis,
                                policy=how)  # fmt: skip
        labels = np.asarray(carried.labels.numpy()) > 0
        mask: Mask = labels[..., 0] if one.source.film else np.moveaxis(labels[0], one.axis, 0)
        return mask

    return carry


def copying(one: Object) -> Mask:
    """The nearest outlined mask in every picture."""
    return _whole(copied(one.masks, len(one.truth)), one)


def shapes(one: Object) -> Mask:
    """Shapes between outlined pictures."""
    return _whole(interpolated(one.masks, len(one.truth)), one)


def demons(one: Object) -> Mask:
    """Registration from picture to picture."""
    return _whole(registered(one.pictures, one.masks), one)


def _whole(masks: Mapping[int, Mask], one: Object) -> Mask:
    out = np.zeros_like(one.truth)
    for number, mask in masks.items():
        out[number] = mask
    return out


def dice(one: Object, answer: Mask) -> float:
    """Dice of the whole object."""
    both = answer.sum() + one.truth.sum()
    return float(2 * (answer & one.truth).sum() / both) if both else 1.0


def carried_dice(one: Object, answer: Mask) -> float:
    """Dice of the pictures that were not outlined."""
    left = np.ones(len(answer), dtype=bool)
    left[list(one.outlined)] = False
    both = answer[left].sum() + one.truth[left].sum()
    return float(2 * (answer & one.truth)[left].sum() / both) if both else 1.0


def painted_beyond(one: Object, answer: Mask) -> float:
    """Pictures painted beyond the object's ends."""
    there = np.flatnonzero(one.truth.any(axis=(1, 2)))
    painted: Mask = np.asarray(answer.any(axis=(1, 2)))
    return float(painted[: there[0]].sum() + painted[there[-1] + 1 :].sum())


def missed(one: Object, answer: Mask) -> float:
    """Pictures of the object in which nothing is painted."""
    return float((one.truth.any(axis=(1, 2)) & ~answer.any(axis=(1, 2))).sum())


def region(one: Object, answer: Mask) -> float:
    """J of DAVIS: mean intersection over union of all frames but the first and the last."""
    inner = slice(1, -1)
    union = (answer | one.truth)[inner].sum(axis=(1, 2))
    shared = (answer & one.truth)[inner].sum(axis=(1, 2))
    return float(np.where(union > 0, shared / np.maximum(union, 1), 1.0).mean())


METRICS: Mapping[str, Callable[[Object, Mask], float]] = {
    "dice": dice,
    "carried_dice": carried_dice,
    "painted_beyond": painted_beyond,
    "missed": missed,
    "region": region,
}


def evaluate(
    carrier: Carrier,
    samples: Sequence[Sample],
    *,
    progress: Callable[[int, int, str], None] | None = None,
) -> Evaluation:
    """Carry the true mask of every object's middle picture, and measure the whole object.

    Args:
        carrier: The model.
        samples: Labelled scans and films; objects through few pictures are left out. Of a film the
            first frame is outlined.
        progress: Called with the objects done, their number, and the name of the next.

    Returns:
        The figures.

    Raises:
        MedrlError: If nothing can be measured.
    """
    objects: list[Object] = []
    for sample in samples:
        source = sample.load()
        if source.film:
            objects.append(Object(source.name, source, source.values[0], 0, (0,), source.name))
        else:
            objects += objects_of(source, source.axes[0], subject=source.name)
    if not objects:
        raise MedrlError("no object goes through enough pictures to be measured on")
    methods: dict[str, Method] = {
        AGENTS: agents(carrier),
        MOVING: agents(carrier, moving=True),
        DEMONS: demons,
        COPY: copying,
    }
    measured = measure(
        objects, methods, METRICS, subject=lambda one: one.subject, progress=progress
    )
    return evaluated(measured)


def figures(measured: Measurements) -> dict[str, Any]:
    """Sums of what one method carried."""
    return {
        name: summarize(measured.select(metric=name).values)["mean"]
        for name in (*METRICS, "seconds")
    }


def evaluated(measured: Measurements) -> Evaluation:
    """What measurements come to."""
    by_method = {name: figures(rows) for name, rows in measured.by("method").items()}
    others = [name for name in by_method if name != AGENTS]
    summary: dict[str, Any] = {
        "objects": len(measured.unique("case")),
        "methods": by_method,
        "agents_minus": {name: compare(measured, "dice", AGENTS, name) for name in others},
        "failed": {failure.case: failure.reason for failure in measured.failures},
    }
    columns = ["method", "Dice", "beyond the ends", "missed", "J", "seconds"]
    rows = [
        [name, one["dice"], one["painted_beyond"], one["missed"], one["region"], one["seconds"]]
        for name, one in by_method.items()
    ]
    return Evaluation(
        summary=summary,
        tables=[Table(f"{summary['objects']} objects from one picture", columns, rows)],
        files={"rows.csv": measured.records()},
        failed=[failure.reason for failure in measured.failures],
    )
