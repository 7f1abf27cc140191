"""What the segment widget looks like: its choices, buttons and lines."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from qtpy.QtCore import Signal
from qtpy.QtWidgets import QCheckBox, QLabel, QRadioButton, QSizePolicy

from medrl.errors import MedrlError
from medrl_napari.dock import Panel
from medrl_napari.models import manifest_of
from medrl_napari.segment.object_table import ObjectTable
from medrl_napari.widgets import Choice, LayerChoices, WholeRows, button, row

if TYPE_CHECKING:
    import napari

#: What is chosen if it is there.
_USUAL_MODEL = "hippocampus-t1"
_HOW = (
    "Click: seed of the chosen kind. Shift+click: of the other kind. Drag: scribble.\n"
    "In 3D a click takes the brightest voxel under the mouse, a drag turns the scene,\n"
    "Ctrl+drag scribbles. Space+drag moves the picture."
)


class ModelAndScans(LayerChoices):
    """Which model, and which layer is which of its images."""

    refused = Signal(str)
    """What was chosen is no model that segments; why."""

    def __init__(self, viewer: napari.viewer.Viewer) -> None:
        """Offer the models that ship, and the scans of the viewer."""
        super().__init__(viewer, "seednet")
        self._settings: dict[str, Any] = {}
        self.model.setToolTip("What it was trained for; see `medrl models`")
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

    def _model_changed(self) -> None:
        self._settings = {}
        try:
            if self.name:
                manifest = manifest_of(self.name, task="seednet", lacks="segments nothing")
                self._settings = manifest["settings"]
        except MedrlError as error:
            self.refused.emit(str(error))
            return
        channels = [str(channel["name"]) for channel in self._settings.get("channels", ())]
        several = len(channels) > 1
        titles = {channel: channel if several else "Scan" for channel in channels}
        self.ask(titles, optional=channels if several else ())


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
