"""What the segment widget looks like: its choices, buttons and lines."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from qtpy.QtCore import Qt, Signal
from qtpy.QtWidgets import (
    QCheckBox,
    QComboBox,
    QFileDialog,
    QFormLayout,
    QFrame,
    QHBoxLayout,
    QLabel,
    QProgressBar,
    QPushButton,
    QRadioButton,
    QToolButton,
    QVBoxLayout,
    QWidget,
)

from medrl.errors import MedrlError
from medrl_napari.segment.object_table import ObjectTable
from medrl_napari.widgets import LayerChoice, StatusLine, is_scan, models

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

    def __init__(self, viewer: napari.viewer.Viewer, parent: QWidget | None = None) -> None:
        """Offer the models that ship, and the scans of the viewer."""
        super().__init__(parent)
        self._viewer = viewer
        self._settings = {b.name: b.manifest["settings"] for b in models("seednet")}
        self.model = QComboBox()
        self.model.setToolTip("What it was trained for; see `medrl models`")
        for name in self._settings:
            self.model.addItem(name, name)
        self.model.setCurrentIndex(max(0, self.model.findData(_USUAL_MODEL)))
        folder = _tool_button("…", "A model of your own: choose its folder")
        folder.clicked.connect(self._choose_folder)
        row = QHBoxLayout()
        row.addWidget(self.model, 1)
        row.addWidget(folder)
        self._form = QFormLayout(self)
        self._form.setContentsMargins(0, 0, 0, 0)
        self._form.setVerticalSpacing(3)
        self._form.addRow("Model", row)
        self.choices: dict[str, LayerChoice] = {}
        self.model.currentIndexChanged.connect(self._model_changed)
        self._make_choices()

    @property
    def name(self) -> str:
        """The model's name, or its folder."""
        return str(self.model.currentData() or "")

    @property
    def targets(self) -> list[str]:
        """Kinds of object that it knows."""
        return [str(t["name"]) for t in self._settings.get(self.name, {}).get("targets", ())]

    @property
    def layers(self) -> dict[str, Image]:
        """The chosen layers by the model's name of the channel, in the model's order."""
        chosen = {channel: choice.layer for channel, choice in self.choices.items()}
        return {c: cast("Image", layer) for c, layer in chosen.items() if layer is not None}

    def add_folder(self, folder: str) -> None:
        """Offer another model, and choose it.

        Raises:
            MedrlError: If it is none that segments.
        """
        from medrl.bundles import find, read_manifest

        manifest = read_manifest(find(folder))
        if manifest["task"] != "seednet":
            raise MedrlError(f"{folder} is a {manifest['task']} model: it segments nothing")
        self._settings[folder] = manifest["settings"]
        if self.model.findData(folder) < 0:
            self.model.addItem(str(manifest.get("name") or Path(folder).name), folder)
        self.model.setCurrentIndex(self.model.findData(folder))

    def release(self) -> None:
        """Follow the viewer no more."""
        for choice in self.choices.values():
            choice.release()

    def _model_changed(self) -> None:
        self._make_choices()
        self.changed.emit()

    def _make_choices(self) -> None:
        channels = [str(c["name"]) for c in self._settings.get(self.name, {}).get("channels", ())]
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

    def _choose_folder(self) -> None:
        folder = QFileDialog.getExistingDirectory(self, "Folder of a model")
        if folder:
            try:
                self.add_folder(folder)
            except MedrlError as error:
                parent = self.parentWidget()
                if isinstance(parent, SegmentPanel):
                    parent.status.error(str(error))


class SegmentPanel(QWidget):
    """All parts of the widget, in their places."""

    def __init__(self, viewer: napari.viewer.Viewer, parent: QWidget | None = None) -> None:
        """Lay them out."""
        super().__init__(parent)
        self.scans = ModelAndScans(viewer, self)
        self.start = QPushButton("Start")
        self.start.setToolTip("Load the model and prepare the scan; seeds of the scan stay")
        self.restore = QPushButton("Restore seeds")

        self.foreground = QRadioButton("Object")
        self.background = QRadioButton("Background")
        self.foreground.setChecked(True)
        self.foreground.setToolTip("Seeds say: this belongs to the object (X changes)")
        self.background.setToolTip("Seeds say: this does not belong to the object (X changes)")
        self.place = QPushButton("Place seeds")
        self.place.setCheckable(True)
        self.place.setToolTip(_HOW)
        self.undo = QPushButton("Undo")
        self.undo.setToolTip("Take back the last change to the object (Ctrl+Z)")
        self.redo = QPushButton("Redo")
        self.redo.setToolTip("Make it again (Ctrl+Shift+Z)")

        self.next = QLabel()
        self.next.setToolTip("The seed that the agent would place next, and what it expects of it")
        self.go_to = QPushButton("Show")
        self.go_to.setToolTip("Move the slices to the agent's next seed")
        self.accept = QPushButton("Accept")
        self.accept.setToolTip("Place the agent's next seed (A)")
        self.reject = QPushButton("Reject")
        self.reject.setToolTip("Nothing of its kind is proposed near there again (R)")
        self.run = QPushButton("Let it run")
        self.run.setToolTip("Let the agent place seeds until it stops; one step to undo (G)")
        self.auto = QCheckBox("Propose after every change")
        self.auto.setChecked(True)
        self.progress = QProgressBar()
        self.progress.setMaximumHeight(6)
        self.progress.setTextVisible(False)

        self.objects = ObjectTable()
        self.new_object = QPushButton("New object")
        self.new_object.setToolTip("Begin another object in the same scan (N); O goes to the next")
        self.target = QComboBox()
        self.target.setToolTip("Kind of the new object")
        self.load = QPushButton("Load seeds…")
        self.load.setToolTip("Seeds of a 3D Slicer file (.mrk.json) for the current object")
        self.save = QPushButton("Save…")
        self.save.setToolTip("Mask, seeds, the agent's path and a picture, as `medrl segment` does")
        self.save_seeds = QPushButton("Save seeds…")
        self.save_seeds.setToolTip("Only the seeds, as a 3D Slicer file (.mrk.json)")
        self.status = StatusLine()

        layout = QVBoxLayout(self)
        layout.setContentsMargins(8, 8, 8, 8)
        layout.setSpacing(5)
        layout.addWidget(self.scans)
        layout.addLayout(_row(self.start, self.restore))
        layout.addWidget(_line())
        layout.addLayout(_row(self.foreground, self.background, None, self.undo, self.redo))
        layout.addWidget(self.place)
        layout.addWidget(_line())
        layout.addLayout(_row(self.next, None, self.go_to))
        layout.addLayout(_row(self.accept, self.reject, self.run))
        layout.addWidget(self.progress)
        layout.addWidget(self.auto)
        layout.addWidget(_line())
        layout.addWidget(self.objects)
        layout.addLayout(_row(self.target, self.new_object))
        layout.addLayout(_row(self.load, self.save_seeds, self.save))
        layout.addWidget(self.status)
        layout.addStretch(1)


def _row(*parts: QWidget | None) -> Any:
    """Widgets beside one another; None takes the room that is left."""
    row = QHBoxLayout()
    row.setSpacing(5)
    for part in parts:
        if part is None:
            row.addStretch(1)
        else:
            row.addWidget(part)
    return row


def _line() -> QFrame:
    line = QFrame()
    line.setFrameShape(QFrame.Shape.HLine)
    line.setEnabled(False)
    return line


def _tool_button(text: str, tip: str) -> QToolButton:
    button = QToolButton()
    button.setText(text)
    button.setToolTip(tip)
    button.setFocusPolicy(Qt.FocusPolicy.TabFocus)
    return button
