"""What was found, as layers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from medrl.results.findings import Boxes, Finding, Mask, Motion, Points
from medrl_napari.box_layers import COLORS, BoxLayers
from medrl_napari.points import points_layer
from medrl_napari.scans import LayerData, Shown, add, labels_layer, shown_of
from medrl_napari.space import Frame
from medrl_napari.transforms import moved_image

if TYPE_CHECKING:
    from napari.components import ViewerModel
    from napari.layers import Image


def show_findings(
    findings: Sequence[Finding],
    viewer: ViewerModel,
    frame: Frame,
    images: Mapping[str, Image],
    *,
    name: str,
) -> None:
    """Add layers that show what a system has found; boxes follow the viewer's slices.

    Args:
        findings: What.
        viewer: Where to.
        frame: The viewer's.
        images: The layers of the scans by role, as they lie.
        name: What the layers' names begin with.
    """
    for finding in findings:
        if isinstance(finding, Boxes):
            colors = [COLORS[n % len(COLORS)] for n in range(len(finding.names))]
            boxes = BoxLayers(viewer, frame, name=f"{name}: boxes")
            boxes.show(finding.names, finding.corners_world, colors)
        for layer in layers_of([finding], frame, images, name=name):
            add(viewer, layer)


def layers_of(
    findings: Sequence[Finding], frame: Frame, images: Mapping[str, Image], *, name: str
) -> list[LayerData]:
    """Layers that show what a system has found, but for boxes.

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
