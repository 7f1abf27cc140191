"""How well boxes fit, next to what needs no model."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from monai.data.meta_tensor import MetaTensor
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from medrl.errors import MedrlError
from medrl.evaluation import (
    Evaluation,
    Measurements,
    Table,
    compare,
    confusion,
    measure,
    summarize,
)
from medrl.localization.answer import Box
from medrl.localization.data import Sample
from medrl.localization.kinds import kind_of
from medrl.localization.localize import Localizer
from medrl.volume.boxes import cut_to_scan, iou, wall_distances
from medrl.volume.read import read
from medrl.volume.space import as_affine, inside

Array = NDArray[np.float64]

AGENTS = "agents"
ONE_SHOT = "one shot"


@dataclass(frozen=True, eq=False)
class Labelled:
    """A scan and its boxes.

    Attributes:
        name: Of the scan.
        scan: MetaTensor (1, I, J, K); of several images the first.
        boxes_world: Whole boxes (2, 3) RAS mm by name, parts outside the scan included.
        subject: Whose scan it is.
        content: Affine (4, 4) and grid of the part of it that was scanned, where air was added to
            that; all of it if left out.
        images: All images by channel, for a model that looks at several.
    """

    name: str
    scan: MetaTensor
    boxes_world: Mapping[str, Array]
    subject: str = ""
    content: tuple[Array, tuple[int, ...]] | None = None
    images: Mapping[str, MetaTensor] | None = None

    @property
    def given(self) -> MetaTensor | Mapping[str, MetaTensor]:
        """What a model is shown."""
        return self.images or self.scan

    @property
    def present(self) -> dict[str, Array]:
        """Boxes whose middle was scanned, cut to the field of view."""
        affine, shape = as_affine(self.scan.affine), tuple(self.scan.shape[1:])
        content = self.content or (affine, shape)
        found = {}
        for name, box in self.boxes_world.items():
            cut = cut_to_scan(box, affine, shape)
            if cut is not None and inside(box.mean(axis=0), *content):
                found[name] = cut
        return found


#: From a scan to its boxes by name; one that is called absent, or left out, is a miss.
Method = Callable[[Labelled], Mapping[str, Box]]


def matched(labelled: Labelled, boxes: Sequence[Box]) -> dict[str, Box]:
    """Boxes by name; objects of a kind by the names of those that they overlap most, in all.

    What overlaps none keeps a name that no true box has.
    """
    found = {box.name: box for box in boxes if kind_of(box.name) == box.name}
    truth = labelled.present
    for kind in dict.fromkeys(kind_of(box.name) for box in boxes if box.name not in found):
        own = [box for box in boxes if box.name != kind and kind_of(box.name) == kind]
        names = [name for name in truth if kind_of(name) == kind]
        overlaps = np.array([[float(iou(b.corners_world, truth[n])) for n in names] for b in own])
        pairs = linear_sum_assignment(-overlaps.reshape(len(own), len(names)))
        known = {row: names[k] for row, k in zip(*pairs, strict=True) if overlaps[row, k] > 0}
        for row, box in enumerate(own):
            found[known.get(row, f"{kind}, one more ({row + 1})")] = box
    return found


def agents(localizer: Localizer) -> Method:
    """The model as a method."""
    return lambda labelled: matched(labelled, localizer.localize(labelled.given).boxes)


def one_shot(localizer: Localizer) -> Method:
    """The proposals that the agents begin with: what one look of a network at the scan gives."""

    def predict(labelled: Labelled) -> dict[str, Box]:
        found = localizer.find(localizer.looked_at(labelled.given))
        answer = zip(found.names, found.proposed_world, found.there, strict=True)
        return matched(
            labelled,
            [
                Box(name, box, "found" if there else "absent", float("nan"))
                for name, box, there in answer
            ],
        )

    return predict


def _judged(
    labelled: Labelled, answer: Mapping[str, Box], judge: Callable[[Array, str], float]
) -> dict[str, float]:
    """A figure of every box that is in the scan and was found, cut to the field of view."""
    affine, shape = as_affine(labelled.scan.affine), tuple(labelled.scan.shape[1:])
    figures = {}
    for name in labelled.present:
        if name in answer and answer[name].status != "absent":
            cut = cut_to_scan(answer[name].corners_world, affine, shape)
            corners = answer[name].corners_world if cut is None else cut
            figures[name] = judge(corners, name)
    return figures


def overlap(labelled: Labelled, answer: Mapping[str, Box]) -> dict[str, float]:
    """Intersection over union with the true boxes."""
    truth = labelled.present
    return _judged(labelled, answer, lambda box, name: float(iou(box, truth[name])))


def wall_mm(labelled: Labelled, answer: Mapping[str, Box]) -> dict[str, float]:
    """Mean distance of the six faces from the true ones."""
    truth = labelled.present
    return _judged(labelled, answer, lambda box, name: float(wall_distances(box, truth[name])))


def center_mm(labelled: Labelled, answer: Mapping[str, Box]) -> dict[str, float]:
    """Distance of the middle from the true one, both of what is in the field of view."""
    truth = {name: box.mean(axis=0) for name, box in labelled.present.items()}
    return _judged(
        labelled,
        answer,
        lambda box, name: float(np.linalg.norm(box.mean(axis=0) - truth[name])),
    )


def right_name(labelled: Labelled, answer: Mapping[str, Box]) -> dict[str, float]:
    """1 where a box overlaps the true box of its own name more than any other."""
    truth = labelled.present

    def judge(box: Array, name: str) -> float:
        overlaps = {other: float(iou(box, own)) for other, own in truth.items()}
        return float(overlaps[name] > 0 and overlaps[name] == max(overlaps.values()))

    return _judged(labelled, answer, judge)


def said_present(labelled: Labelled, answer: Mapping[str, Box]) -> dict[str, float]:
    """1 for a target that the method found, 0 for one that it calls absent."""
    return {
        name: float(name in answer and answer[name].status != "absent")
        for name in labelled.boxes_world
    }


def confidence(labelled: Labelled, answer: Mapping[str, Box]) -> dict[str, float]:
    """What the method says of each target; NaN if nothing."""
    return {
        name: answer[name].confidence if name in answer else float("nan")
        for name in labelled.boxes_world
    }


def is_present(labelled: Labelled, answer: Mapping[str, Box]) -> dict[str, float]:
    """1 for a target that is in the scan."""
    return {name: float(name in labelled.present) for name in labelled.boxes_world}


METRICS: Mapping[str, Callable[[Labelled, Mapping[str, Box]], dict[str, float]]] = {
    "iou": overlap,
    "wall_mm": wall_mm,
    "center_mm": center_mm,
    "right_name": right_name,
    "said_present": said_present,
    "confidence": confidence,
    "is_present": is_present,
}


def average_precision(
    found: Sequence[Sequence[tuple[float, Array]]],
    truth: Sequence[Sequence[Array]],
    *,
    least_iou: float,
) -> float:
    """Area under the precision of boxes without names over recall (Everingham et al. 2010).

    Boxes are taken in the order of their confidence; the first one on an object that overlaps it
    enough counts, every further one is false. All points are interpolated (VOC since 2010).

    Args:
        found: Confidence and box (2, 3) of everything found in each scan.
        truth: True boxes of each scan.
        least_iou: Overlap from which a box is right.
    """
    ranked = sorted(
        ((sure, scan, box) for scan, own in enumerate(found) for sure, box in own),
        key=lambda one: -one[0],
    )
    taken = [np.zeros(len(own), dtype=bool) for own in truth]
    right = np.zeros(len(ranked), dtype=bool)
    for row, (_, scan, box) in enumerate(ranked):
        if not len(truth[scan]):
            continue
        overlaps = np.array([float(iou(box, one)) for one in truth[scan]])
        best = int(overlaps.argmax())
        if overlaps[best] >= least_iou and not taken[scan][best]:
            right[row] = taken[scan][best] = True
    total = sum(len(own) for own in truth)
    if not total or not len(ranked):
        return 0.0
    recall = right.cumsum() / total
    precision = right.cumsum() / np.arange(1, len(ranked) + 1)
    envelope = np.maximum.accumulate(precision[::-1])[::-1]
    return float((np.diff(recall, prepend=0.0) * envelope).sum())


def figures(measured: Measurements) -> dict[str, Any]:
    """Sums of what one method found."""
    told = measured.select(metric="said_present").rows
    there = measured.column("is_present", told[0].method) if told else {}
    known = [there[row.case, row.group] > 0 for row in told]
    return {
        "iou": summarize(measured.select(metric="iou").values),
        "wall_mm": summarize(measured.select(metric="wall_mm").values),
        "right_name": summarize(measured.select(metric="right_name").values)["mean"],
        "presence": asdict(confusion(known, [row.value > 0 for row in told])),
    }


def evaluate(
    localizer: Localizer,
    samples: Sequence[Sample],
    *,
    baselines: Mapping[str, Method] | None = None,
    progress: Callable[[int, int, str], None] | None = None,
) -> Evaluation:
    """Box labelled scans and measure how well the boxes fit.

    Args:
        localizer: The model.
        samples: Labelled scans; what the model does not know is left out.
        baselines: Other methods to measure on the same scans, by name.
        progress: Called with the scans done, their number, and the name of the next.

    Returns:
        The figures. A scan that cannot be used is listed, the others go on.

    Raises:
        MedrlError: If no scan could be used.
    """
    names = localizer.target_names

    def load(sample: Sample) -> Labelled:
        known = sample.boxes_world()
        own = {name: box for name, box in known.items() if kind_of(name) in names}
        scan = sample.scan()
        images = scan if isinstance(scan, dict) else None
        return Labelled(sample.name, read(sample.image), own, images=images)

    methods: dict[str, Method] = {AGENTS: agents(localizer), ONE_SHOT: one_shot(localizer)}
    methods |= baselines or {}
    measured = measure(
        samples,
        methods,
        METRICS,
        load=load,
        groups=lambda one: [*one.present],
        progress=progress,
    )
    return evaluated(measured)


def evaluated(measured: Measurements) -> Evaluation:
    """What measurements come to.

    Raises:
        MedrlError: If no scan could be used.
    """
    if not measured.select(method=AGENTS, metric="said_present").rows:
        reason = measured.failures[0].reason if measured.failures else "no target is labelled"
        raise MedrlError(f"no scan could be used: {reason}")
    by_method = {name: figures(rows) for name, rows in measured.by("method").items()}
    others = [name for name in by_method if name != AGENTS]
    summary: dict[str, Any] = {
        "scans": len(measured.unique("case")),
        "failed": {failure.case: failure.reason for failure in measured.failures},
        "methods": by_method,
        "targets": {
            name: summarize(rows.values)
            for name, rows in measured.select(method=AGENTS, metric="iou").by("group").items()
        },
        "agents_minus": {name: compare(measured, "iou", AGENTS, name) for name in others},
        "seconds": summarize(measured.select(metric="seconds", method=AGENTS).values),
    }
    rows = [
        [
            name,
            one["iou"]["mean"],
            one["wall_mm"]["mean"],
            one["wall_mm"]["median"],
            "-" if one["right_name"] is None else f"{one['right_name']:.1%}",
            one["presence"]["false_negative"],
            one["presence"]["false_positive"],
        ]
        for name, one in by_method.items()
    ]
    columns = ["method", "IoU", "wall mm", "median", "right name", "missed", "made up"]
    return Evaluation(
        summary=summary,
        tables=[
            Table(f"Boxes of {summary['scans']} scans", columns, rows),
            Table(
                "IoU of the agents",
                ["target", "mean", "median"],
                [[name, own["mean"], own["median"]] for name, own in summary["targets"].items()],
            ),
        ],
        files={"rows.csv": measured.records()},
        failed=[failure.reason for failure in measured.failures],
    )
