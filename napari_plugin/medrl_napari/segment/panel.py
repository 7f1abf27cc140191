"""What the segment widget looks like: its choices, buttons and lines."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from qtpy.QtCore import Signal
from qtpy.QtWidgets import QCheckBox, QFormLayout, QLabel, QRadioButton, QSizePolicy, QWidget

from medrl.bundles import find, read_manifest
from medrl.errors import MedrlError
from medrl_napari.dock import Panel
from medrl_napari.segment.object_table import ObjectTable
from medrl_napari.widgets import Choice, LayerChoice, ModelChoice, WholeRows, button, is_scan, row

if TYPE_CHECKING:
    import napari
    from napari.layers import Image

#: What is chosen if it is there.
_USUAL_MODEL = "hippocampus-t1"
_HOW = (
    "Click: seed of the chosen kind. Shift+click: of the other kind. Drag: scribble.\n"
    "In 3D a click takes the brightest voxel under the mouse, a drag turns the scene,\n"
    "Ctrl+drag scribbles. Space+drag moves the picture."
)


class ModelAndScans(QWidget):
    """Which model, and which layer is which of its images."""

    changed = Signal()
    refused = Signal(str)
    """What was chosen is no model that segments; why."""

    def __init__(self, viewer: napari.viewer.Viewer) -> None:
        """Offer the models that ship, and the scans of the viewer."""
        super().__init__()
        self._viewer = viewer
        self._settings: dict[str, Any] = {}
        self.model = ModelChoice("seednet")
        self.model.setToolTip("What it was trained for; see `medrl models`")
        self._form = QFormLayout(self)
        self._form.setContentsMargins(0, 0, 0, 0)
        self._form.setVerticalSpacing(3)
        self._form.addRow("Model", self.model)
        self.choices: dict[str, LayerChoice] = {}
        self.model.chosen.connect(lambda _: self._model_changed())
        if self.model.findData(_USUAL_MODEL) >= 0:
            self.model.model = _USUAL_MODEL
        self._model_changed()

    @property
    def name(self) -> str:
        """The model's name, or its folder."""
        return self.model.model

    @property
    def targets(self) -> list[str]:
        """Kinds of object that it knows."""
        return [str(t["name"]) for t in self._settings.get("targets", ())]

    @property
    def layers(self) -> dict[str, Image]:
        """The chosen layers by the model's name of the channel, in the model's order."""
        chosen = {channel: choice.layer for channel, choice in self.choices.items()}
        return {c: cast("Image", layer) for c, layer in chosen.items() if layer is not None}

    def release(self) -> None:
        """Follow the viewer no more."""
        for choice in self.choices.values():
            choice.release()

    def _model_changed(self) -> None:
        self._settings = {}
        try:
            if self.name:
                manifest = read_manifest(find(self.name))
                if manifest["task"] != "seednet":
                    raise MedrlError(
                        f"{self.name} is a {manifest['task']} model: it segments nothing"
                    )
                self._settings = manifest["settings"]
        except MedrlError as error:
            self.refused.emit(str(error))
            return
        self._make_choices([str(c["name"]) for c in self._settings.get("channels", ())])
        self.changed.emit()

    def _make_choices(self, channels: list[str]) -> None:
        if list(self.choices) == channels:
            return
        self.release()
        while self._form.rowCount() > 1:
            self._form.removeRow(1)
        several = len(channels) > 1
        none = "none" if several else None
        self.choices = {c: LayerChoice(self._viewer, wanted=is_scan, none=none) for c in channels}
        for channel, choice in self.choices.items():
            choice.setToolTip(f"The layer that holds the {channel} image" if several else "")
            choice.chosen.connect(lambda _layer: self.changed.emit())
            self._form.addRow(channel if several else "Scan", choice)


class SegmentPanel(Panel):
    """All parts of the widget, in their places."""

    def __init__(self, viewer: napari.viewer.Viewer) -> None:
        """Lay them out."""
        super().__init__(viewer)
        self.scans = ModelAndScans(viewer)
        self.life.callback(self.scans.release)
        self.scans.refused.connect(self.status.error)
        self.start = button("Start", "Load the model and prepare the scan; seeds of the scan stay")
        self.restore = button("Restore seeds", "")

        self.foreground = QRadioButton("Object")
        self.background = QRadioButton("Background")
        self.foreground.setChecked(True)
        self.foreground.setToolTip("Seeds say: this belongs to the object (X changes)")
        self.background.setToolTip("Seeds say: this does not belong to the object (X changes)")
        self.place = button("Place seeds", _HOW)
        self.place.setCheckable(True)
        self.undo = button("Undo", "Take back the last change to the object (Ctrl+Z)")
        self.redo = button("Redo", "Make it again (Ctrl+Shift+Z)")

        self.next = QLabel()
        self.next.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Preferred)
        self.next.setToolTip("The seed that the agent would place next, and what it expects of it")
        self.go_to = button("Show", "Move the slices to the agent's next seed")
        self.accept = button("Accept", "Place the agent's next seed (A)")
        self.reject = button("Reject", "Nothing of its kind is proposed near there again (R)")
        self.run = button(
            "Let it run", "Let the agent place seeds until it stops; one step to undo (G)"
        )
        self.auto = QCheckBox("Propose after every change")
        self.auto.setChecked(True)

        self.objects = ObjectTable()
        self.new_object = button(
            "New object", "Begin another object in the same scan (N); O goes to the next"
        )
        self.target = Choice()
        self.target.setToolTip("Kind of the new object")
        self.load = button(
            "Load seeds…", "Seeds of a 3D Slicer file (.mrk.json) for the current object"
        )
        self.save = button(
            "Save…", "Mask, seeds, the agent's path and a picture, as `medrl segment` does"
        )
        self.save_seeds = button("Save seeds…", "Only the seeds, as a 3D Slicer file (.mrk.json)")
        self.lay_out(
            self.scans,
            row(self.start, self.restore),
            None,
            row(self.foreground, self.background, None),
            row(self.place, self.undo, self.redo, stretch=(2, 1, 1)),
            None,
            row(self.next, self.go_to, stretch=(1, 0)),
            row(self.accept, self.reject, self.run),
            self.progress,
            self.auto,
            None,
            WholeRows(self.objects),
            row(self.target, self.new_object, stretch=(1, 1)),
            row(self.load, self.save_seeds, self.save),
            self.status,
        )
