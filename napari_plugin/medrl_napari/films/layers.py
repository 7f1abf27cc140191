"""Films as layers, and what is drawn on scans and films brought back to their grids."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from medrl.errors import MedrlError
from medrl.volume.film import Film, film_of
from medrl_napari.scans import KEY, LayerData, Shown, is_scan, shown_of

if TYPE_CHECKING:
    import napari
    from napari.layers import Image, Layer

Array = NDArray[Any]

#: A film's axes: time, rows and columns.
_AXES = {"axis_labels": ("t", "y", "x"), "units": ("s", "pixel", "pixel")}


def film_layer(film: Film, *, name: str) -> LayerData:
    """A film of pictures as a layer (t, row, column), in colour if it is."""
    pictures = film.frames[..., 0].permute(0, 3, 2, 1).numpy()
    colour = pictures.shape[-1] == 3
    data = pictures.clip(0, 255).astype(np.uint8) if colour else pictures[..., 0]
    return data, {"name": name, "rgb": colour, "metadata": {KEY: film}, **_AXES}, "image"


def can_be_carried(layer: Layer) -> bool:
    """Whether an outline can be carried through a layer: a scan, a film, a scan with a time."""
    from napari.layers import Image

    if not isinstance(layer, Image) or layer.multiscale:
        return False
    return is_scan(layer) or is_film_layer(layer) or layer.ndim == 4


def is_film_layer(layer: Layer) -> bool:
    """Whether a layer is a film of pictures (t, row, column[, colour])."""
    from napari.layers import Image

    if not isinstance(layer, Image) or layer.ndim != 3:
        return False
    return bool(layer.rgb) or isinstance(layer.metadata.get(KEY), Film)


@dataclass(frozen=True, eq=False)
class Carriable:
    """A layer whose pictures outlines are carried through.

    Attributes:
        layer: The layer.
        shown: How its scan is shown; None of a film of pictures.
        film: The film; None of a scan.
    """

    layer: Image
    shown: Shown | None
    film: Film | None

    @classmethod
    def of(cls, layer: Image, viewer: napari.viewer.Viewer) -> Carriable:
        """What a layer is.

        Raises:
            MedrlError: If it is none of them.
        """
        known = layer.metadata.get(KEY)
        if is_film_layer(layer):
            return cls(layer, None, known if isinstance(known, Film) else _film_in(layer))
        if layer.ndim == 4:
            if not isinstance(known, Shown):
                raise MedrlError(f"open the file of {layer.name!r} with medrl: it has no place")
            return cls(layer, known, film_of(known.scan))
        return cls(layer, shown_of(layer, viewer=viewer), None)

    @property
    def data(self) -> Any:
        """The scan or film."""
        if self.film is not None:
            return self.film
        assert self.shown is not None
        return self.shown.scan

    def empty_labels(self, *, name: str) -> LayerData:
        """A layer to draw outlines on."""
        shape = self.layer.data.shape[: self.layer.ndim]
        return self._labels(np.zeros(shape, dtype=np.uint16), name)

    def outlines(self, labels: Array) -> Any:
        """What is drawn on a labels layer, as :meth:`medrl.Carrier.carry` takes it.

        Raises:
            MedrlError: If the layer is of another size.
        """
        if labels.shape != self.layer.data.shape[: self.layer.ndim]:
            raise MedrlError("the outlines were drawn on another scan: choose their layer")
        numbers = np.asarray(labels, dtype=np.int64)
        if self.film is not None:
            return {t: self._picture(one) for t, one in enumerate(numbers) if one.any()}
        from medrl.volume.grid import on_grid_of

        assert self.shown is not None
        drawn = np.ascontiguousarray(self.shown.to_scan_grid(numbers))
        return on_grid_of(torch.from_numpy(drawn)[None], self.shown.scan)

    def masks(self, labels: Array, *, name: str, names: Mapping[str, int]) -> LayerData:
        """What was carried, (1, I, J, K) or (T, I, J, K), as a layer."""
        if self.shown is None:
            shown = labels[..., 0].swapaxes(1, 2)
        elif self.film is not None:
            shown = np.stack([self.shown.to_layer_grid(one) for one in labels])
        else:
            shown = self.shown.to_layer_grid(labels[0])
        data, settings, kind = self._labels(np.ascontiguousarray(shown.astype(np.uint16)), name)
        numbers = range(max(names.values(), default=0) + 1)
        called = {number: one for one, number in names.items()}
        settings["features"] = {
            "index": list(numbers),
            "name": [called.get(number, "") for number in numbers],
        }
        return data, settings, kind

    def _picture(self, drawn: Array) -> Array:
        """A frame of a labels layer on the grid of the film."""
        if self.shown is None:
            return drawn.T
        return np.ascontiguousarray(self.shown.to_scan_grid(drawn))

    def _labels(self, data: Array, name: str) -> LayerData:
        layer = self.layer
        place: dict[str, Any] = {
            "scale": layer.scale,
            "translate": layer.translate,
            "axis_labels": layer.axis_labels,
            "units": layer.units,
        }
        known: Any = self.shown or {"kind": "film labels"}
        return data, {"name": name, "metadata": {KEY: known}, **place}, "labels"


def _film_in(layer: Image) -> Film:
    """The film that a layer shows, whoever made it."""
    pixels = np.asarray(layer.data, dtype=np.float32)
    pixels = pixels if layer.rgb else pixels[..., None]
    frames = torch.from_numpy(np.ascontiguousarray(pixels[..., :3].transpose(0, 3, 2, 1)))
    return Film(frames[..., None], names=tuple(str(n) for n in range(len(frames))))


def box_shapes(
    boxes: Mapping[int, Array], frames: Array, *, name: str, colors: Any = "#ff9f43"
) -> LayerData:
    """Rectangles that move with a film's time slider.

    Args:
        boxes: (2, 2) each by number, smallest and largest (column, row) of the outer faces.
        frames: The frame of each, in the same order.
        name: Of the layer.
        colors: Of the edges, one or one for each.
    """
    polygons = []
    for box, frame in zip(boxes.values(), frames, strict=True):
        (x0, y0), (x1, y1) = np.asarray(box)
        polygons.append([[frame, y0, x0], [frame, y0, x1], [frame, y1, x1], [frame, y1, x0]])
    settings = {
        "name": name,
        "shape_type": "rectangle",
        "ndim": 3,
        "edge_color": colors,
        "face_color": "transparent",
        "edge_width": 1,
        **_AXES,
    }
    return polygons, settings, "shapes"
