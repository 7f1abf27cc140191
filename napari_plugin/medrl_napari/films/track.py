"""Track objects: detections of a film become tracks; a correction re-runs what follows."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from qtpy.QtWidgets import QDoubleSpinBox, QFileDialog, QLabel, QSpinBox

from medrl.errors import MedrlError
from medrl.results.film import color_of
from medrl.tracking.films import TrackedFilm, track_film
from medrl.tracking.objects.corrections import Correction, Placed, Swapped
from medrl.tracking.objects.detections import Detections, read_detections
from medrl.tracking.system import OBJECTS, TrackOptions
from medrl_napari.dock import Panel
from medrl_napari.films.layers import Carriable, box_shapes, is_film_layer
from medrl_napari.models import load_model
from medrl_napari.panel.widget import RowTable
from medrl_napari.scans import add, add_beside
from medrl_napari.space import AXES_4D
from medrl_napari.widgets import LayerChoice, WholeRows, button, row

if TYPE_CHECKING:
    import napari
    from napari.layers import Layer

_TRACKS, _BOXES, _DRAWN = "tracks", "boxes of tracks", "corrected boxes"
#: Columns and rows, in the order of a layer's axes, of a film of pictures.
_FLAT = {"axis_labels": ("t", "y", "x"), "units": ("s", "pixel", "pixel")}


class TrackWidget(Panel):
    """Follows objects through a film, shows them move with its slider, and takes corrections."""

    def __init__(self, napari_viewer: napari.viewer.Viewer) -> None:
        """Offer the viewer's films.

        Args:
            napari_viewer: The viewer.
        """
        super().__init__(napari_viewer)
        self.image = LayerChoice(napari_viewer, wanted=_has_time, tip="Film, or scan with a time")
        self.life.callback(self.image.release)
        self.file = QLabel("no detections")
        self.file_button = button("Detections …", "A table of boxes in the frames", self.choose)
        self.blob = QDoubleSpinBox()
        self.blob.setRange(0, 1000)
        self.blob.setSpecialValueText("none")
        self.blob.setToolTip("Without detections: diameter of blobs to look for, mm or pixels")
        self.run_button = button("Track", "Follow the objects through the film", self.run)
        self.cancel_button = button("Cancel", "End it; nothing of it stays (Escape)", self.cancel)
        self.first, self.second = QSpinBox(), QSpinBox()
        for box in (self.first, self.second):
            box.setRange(1, 99999)
            box.setToolTip("Number of a track")
        self.swap_button = button(
            "Swap from here", "From the frame in view on, these two are each other", self.swap
        )
        self.place_button = button(
            "Is what I drew",
            "In the frame in view, the first track is in the box drawn on the layer of corrected "
            "boxes",
            self.place,
        )
        self.table = RowTable()
        self.save_button = button("Save …", "All files of the result, into a folder", self.save)
        self.result: TrackedFilm | None = None
        self.corrections: list[Correction] = []
        self._path: Path | None = None
        self._place: Carriable | None = None
        self._layers: list[Layer] = []
        self._drawn: Layer | None = None
        self.lay_out(
            self.image,
            row(self.file, self.file_button, stretch=(2, 1)),
            row(QLabel("or blobs of"), self.blob),
            row(self.run_button, self.cancel_button, stretch=(2, 1)),
            self.progress,
            self.status,
            row(self.first, self.second, self.swap_button),
            row(self.place_button, None),
            WholeRows(self.table),
            self.save_button,
        )
        self.enable()
        self.status.say("Choose a film, and a table of detections.")

    def choose(self, path: Any = None) -> None:
        """Take a table of detections; asked for if left out."""
        if not isinstance(path, str | Path):
            path, _ = QFileDialog.getOpenFileName(self, "Detections", filter="Tables (*.csv *.txt)")
        if path:
            self._path = Path(path)
            self.file.setText(self._path.name)

    def run(self) -> None:
        """Follow the objects, from the beginning."""
        layer = self.image.layer
        if self.running or layer is None:
            self.status.error("Open a film first.")
            return
        try:
            place = Carriable.of(layer, self.viewer)
            detections = None if self._path is None else read_detections(self._path)
            if detections is None and not self.blob.value():
                raise MedrlError("choose a table of detections, or a diameter of blobs")
        except MedrlError as error:
            self.status.error(str(error))
            return
        self.corrections = []
        self._follow(place, detections)

    def swap(self) -> None:
        """From the frame in view on, two tracks have each other's identity."""
        frame = int(self.viewer.dims.current_step[0])
        self._correct(Swapped(frame, self.first.value(), self.second.value()))

    def place(self) -> None:
        """In the frame in view, a track is in the box that was drawn last."""
        drawn = self._drawn
        frame = int(self.viewer.dims.current_step[0])
        boxes = [] if drawn is None else [b for b in drawn.data if round(b[0, 0]) == frame]
        if not boxes or self._place is None or self._place.shown is not None:
            self.status.error(f"Draw a rectangle on the layer {_DRAWN!r} in this frame first.")
            return
        low, high = boxes[-1][:, 1:].min(axis=0), boxes[-1][:, 1:].max(axis=0)
        box = np.array([[low[1], low[0], -0.5], [high[1], high[0], 0.5]])
        self._correct(Placed(frame, self.first.value(), box=box))

    def save(self, folder: Any = None) -> None:
        """Write the result's files; the folder is asked for if left out."""
        result = self.result
        if result is not None:
            self.save_into(folder, lambda target: result.save(target))

    def enable(self) -> None:
        """Allow what can be done now."""
        busy, there = self.running, self.result is not None
        self.run_button.setEnabled(not busy)
        self.cancel_button.setEnabled(busy)
        for one in (self.swap_button, self.place_button, self.save_button):
            one.setEnabled(not busy and there)

    # ---------------------------------------------------------------------------------------------

    def _correct(self, correction: Correction) -> None:
        if self.running or self.result is None or self._place is None:
            return
        # What a person said before stays said: it is part of the tracks that are corrected.
        self.corrections.append(correction)
        self._follow(self._place, None, earlier=self.result, correction=correction)

    def _follow(
        self,
        place: Carriable,
        detections: Detections | None,
        *,
        earlier: TrackedFilm | None = None,
        correction: Correction | None = None,
    ) -> None:
        options = TrackOptions(blob_mm=self.blob.value() or None)

        def work(report: Any) -> TrackedFilm:
            return track_film(
                load_model(OBJECTS),
                place.data,
                detections,
                options,
                earlier=None if earlier is None else earlier.tracks,
                corrections=() if correction is None else (correction,),
                progress=report.progress,
            )

        self._place = place
        self.work(work, "Following …", self._show)

    def _show(self, result: TrackedFilm) -> None:
        self.result = result
        self.table.show_rows(result.rows())
        count = len(result.tracks.ids)
        self.status.tell(f"{count} tracks in {result.seconds:.1f} s.", result.warnings)
        for layer in self._layers:
            if layer in self.viewer.layers:
                self.viewer.layers.remove(layer)
        self._layers = []
        if len(result.tracks):
            self._show_tracks(result)

    def _show_tracks(self, result: TrackedFilm) -> None:
        """Paths, and boxes that move with the slider."""
        tracks, place = result.tracks, self._place
        assert place is not None
        middle = tracks.box.mean(axis=1)
        graph = {child: [mother] for child, mother in tracks.parent.items()}
        if place.shown is None:
            rows = np.column_stack([tracks.track, tracks.frame, middle[:, 1], middle[:, 0]])
            axes: dict[str, Any] = _FLAT
        else:
            affine = result.film.affine
            world = middle @ affine[:3, :3].T + affine[:3, 3]
            there = place.shown.frame.to_napari(world)
            rows, axes = np.column_stack([tracks.track, tracks.frame, there]), AXES_4D
        settings = {"name": _TRACKS, "graph": graph, "tail_length": 12, **axes}
        self._layers.append(add_beside(self.viewer, (rows, settings, "tracks")))
        if place.shown is None:
            boxes = {n: box[:, :2] for n, box in enumerate(tracks.box)}
            colors = ["#{:02x}{:02x}{:02x}".format(*color_of(int(t))) for t in tracks.track]
            layer = box_shapes(boxes, tracks.frame, name=_BOXES, colors=colors)
            self._layers.append(add_beside(self.viewer, layer))
            if self._drawn is None or self._drawn not in self.viewer.layers:
                empty = {"name": _DRAWN, "ndim": 3, "face_color": "transparent", **_FLAT}
                self._drawn = add(self.viewer, ([], {**empty, "edge_color": "white"}, "shapes"))


def _has_time(layer: Layer) -> bool:
    from napari.layers import Image

    return isinstance(layer, Image) and (is_film_layer(layer) or layer.ndim == 4)
