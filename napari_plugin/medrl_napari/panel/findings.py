"""What was found, as layers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from medrl.results.findings import Boxes, Finding, Mask, Motion, Points
from medrl_napari.boxes import box_corners, whole_edges
from medrl_napari.points import points_layer
from medrl_napari.scans import KEY, LayerData, Shown, labels_layer, shown_of
from medrl_napari.space import AXES, Frame
from medrl_napari.transforms import moved_image

if TYPE_CHECKING:
    from napari.layers import Image

_BOX_COLORS = ("#39d98a", "#48dbfb", "#ff9f43", "#c8a2ff", "#ffd43b", "#f783ac")


def layers_of(
    findings: Sequence[Finding], frame: Frame, images: Mapping[str, Image], *, name: str
) -> list[LayerData]:
    """Layers that show what a system has found.

    Args:
        findings: What.
        frame: The viewer's.
        images: The layers of the scans by role, as they lie.
        name: What the layers' names begin with.
    """
    layers = []
    for finding in findings:
        if isinstance(finding, Points):
            sure = finding.confidence
            features = {} if sure is None else {"confidence": np.asarray(sure, dtype=np.float64)}
            layers.append(
                points_layer(
                    finding.names,
                    finding.positions_world,
                    frame,
                    name=f"{name}: points",
                    features=features,
                )
            )
        elif isinstance(finding, Mask):
            layers.append(_mask_layer(finding, frame, name=f"{name}: mask"))
        elif isinstance(finding, Boxes):
            layers.append(_boxes_layer(finding, frame, name=f"{name}: boxes"))
        elif isinstance(finding, Motion):
            image = images[finding.role]
            back = np.linalg.inv(np.asarray(finding.transform_world, dtype=np.float64))
            moved = f"{image.name} ({name})"
            layers.append(moved_image(image, shown_of(image).scan, back, frame, name=moved))
    return layers


def _mask_layer(mask: Mask, frame: Frame, *, name: str) -> LayerData:
    labels = mask.labels.numpy()[0]
    kind = np.uint8 if labels.max(initial=0) < 256 else np.int32
    data, settings, layer = labels_layer(Shown(mask.labels, frame), labels.astype(kind), name=name)
    numbers = range(max(mask.names, default=0) + 1)
    settings["features"] = {
        "index": list(numbers),
        "name": [mask.names.get(n, "") for n in numbers],
    }
    return data, settings, layer


def _boxes_layer(boxes: Boxes, frame: Frame, *, name: str) -> LayerData:
    count = len(boxes.names)
    colors = [_BOX_COLORS[number % len(_BOX_COLORS)] for number in range(count)]
    settings = {
        "name": name,
        "features": {"name": np.repeat(np.array(boxes.names, dtype=object), 12)},
        "edge_color": np.repeat(np.array(colors), 12) if count else "white",
        "edge_width": 1.0,
        "vector_style": "line",
        "blending": "translucent_no_depth",
        "metadata": {KEY: {"kind": "boxes", "frame": frame, "scan": None}},
        "ndim": 3,
        **AXES,
    }
    return whole_edges(box_corners(boxes.corners_world, frame)), settings, "vectors"
