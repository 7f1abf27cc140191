"""Label maps of files as layers: every number as it is, with the names that lie beside the file."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import napari
import numpy as np
from napari.layers import Image, Labels, Layer
from napari.utils.colormaps import DirectLabelColormap
from numpy.typing import NDArray

from medrl.errors import MedrlError
from medrl.volume.label_names import LabelNames, find_label_names
from medrl.volume.read import read_labels
from medrl_napari.scans import (
    KEY,
    MOST_CHANNELS,
    LayerData,
    Shown,
    add,
    frame_of_viewer,
    image_layers,
    labels_layer,
    show,
    shown_of,
    single_channels,
)
from medrl_napari.space import AXES_4D
from medrl_napari.writers import in_scan_grid

#: Float32, as scans are read, holds every whole number up to here.
_EXACT = 2**24
#: Of a number that a table of colors leaves out.
_UNKNOWN_COLOR = (1.0, 1.0, 1.0, 1.0)


def label_map_layers(shown: Shown, *, name: str) -> list[LayerData]:
    """A label map as layers: one for each channel, or one 4D layer of many (a series in time).

    Args:
        shown: Of the label map.
        name: What the layers are called.

    Returns:
        Labels layers that tell the names of their regions, if a table of them lies beside the
        file or is in it.
    """
    labels = _whole_numbers(shown)
    numbers = np.unique(labels)
    names = find_label_names(Path(shown.file), numbers) if shown.file else None
    told = _told(names, numbers)
    if len(labels) > MOST_CHANNELS:
        series = np.stack([shown.to_layer_grid(channel) for channel in labels])
        place = {"scale": (1.0, *shown.scale), "translate": (0.0, *shown.translate), **AXES_4D}
        return [(series, {"name": name, "metadata": {KEY: shown}, **place, **told}, "labels")]
    layers = []
    for number, (channel, own) in enumerate(zip(labels, single_channels(shown), strict=True), 1):
        title = name if len(labels) == 1 else f"{name} {number}"
        data, settings, kind = labels_layer(own, channel, name=title)
        layers.append((data, {**settings, "visible": number == 1, **told}, kind))
    return layers


def show_as_labels(viewer: napari.Viewer) -> None:
    """Show the selected images as labels, with their names, whatever they hold.

    Raises:
        MedrlError: If one holds values that are no whole numbers, or is no scan.
    """
    _exchange(viewer, Image, lambda layer: shown_of(layer, viewer=viewer), label_map_layers)


def show_as_images(viewer: napari.Viewer) -> None:
    """Show the selected labels as images, whatever they hold.

    Raises:
        MedrlError: If one is no volume.
    """
    _exchange(viewer, Labels, lambda layer: _shown_of_labels(layer, viewer), image_layers)


def _exchange(
    viewer: napari.Viewer,
    kind: type[Layer],
    shown_by: Callable[[Any], Shown],
    make: Callable[..., list[LayerData]],
) -> None:
    """Put other layers of the same volumes in the place of those that are selected."""
    chosen = [layer for layer in viewer.layers if layer in viewer.layers.selection]
    made = [
        (layer, make(shown_by(layer), name=layer.name))
        for layer in chosen
        if isinstance(layer, kind)
    ]
    if not made:
        raise MedrlError(f"select a layer of {kind.__name__.lower().rstrip('s')}s first")
    for old, new in made:
        place = viewer.layers.index(old)
        viewer.layers.remove(old)
        for number, layer in enumerate(new):
            added = add(viewer, layer)
            viewer.layers.move(viewer.layers.index(added), place + number)


def _shown_of_labels(layer: Labels, viewer: napari.Viewer) -> Shown:
    """How a layer's own numbers are shown, be it a file's map or one drawn on a scan."""
    known = layer.metadata.get(KEY)
    data = np.asarray(layer.data)
    mine = isinstance(known, Shown) and known.shape == data.shape
    if mine and np.array_equal(known.to_layer_grid(known.scan.numpy()[0]), data):
        return known
    meta = {key: getattr(layer, key) for key in ("name", "metadata", "scale", "translate")}
    scan = in_scan_grid(data.astype(np.float32), meta)
    return show(scan, frame=frame_of_viewer(viewer))


def _whole_numbers(shown: Shown) -> NDArray[np.integer[Any]]:
    """The labels (C, I, J, K), in the smallest type that other programs read, too."""
    values = shown.scan.numpy()
    if Path(shown.file).is_file() and float(np.abs(values).max(initial=0)) >= _EXACT:
        with warnings.catch_warnings():
            # What there is to say of the file was said when it was read first.
            warnings.simplefilter("ignore")
            again = read_labels(shown.file).numpy()
        values = again if again.shape == values.shape else values
    if values.dtype.kind == "f":
        if not np.abs(values - np.rint(values)).max(initial=0) <= 0.25:
            raise MedrlError(f"{shown.file or 'the layer'}: holds values that are no whole numbers")
        values = np.rint(values)
    low, high = int(values.min(initial=0)), int(values.max(initial=0))
    kinds = (np.uint8, np.int32, np.int64)
    fits = (kind for kind in kinds if np.iinfo(kind).min <= low and high <= np.iinfo(kind).max)
    return values.astype(next(fits, np.int64))


def _told(names: LabelNames | None, numbers: NDArray[np.integer[Any]]) -> dict[str, Any]:
    """Settings of a layer that tell the names, and show the colors of their table."""
    if names is None:
        return {}
    present = [int(number) for number in numbers if number != 0]
    told: dict[str, Any] = {
        "features": {"index": present, "name": [names.names.get(n, "") for n in present]}
    }
    colored = [number for number in present if number in names.colors]
    if present and len(colored) * 2 >= len(present):
        colors: dict[int | None, Any] = {n: (*rgb, 1.0) for n, rgb in names.colors.items()}
        told["colormap"] = DirectLabelColormap(
            color_dict={**colors, 0: (0.0, 0.0, 0.0, 0.0), None: _UNKNOWN_COLOR}
        )
    return told
