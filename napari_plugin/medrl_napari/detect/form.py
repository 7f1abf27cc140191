"""What is on the landmark widget; what it does is in :mod:`medrl_napari.detect`."""

from __future__ import annotations

from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING

from qtpy.QtCore import Qt
from qtpy.QtWidgets import (
    QComboBox,
    QFormLayout,
    QHBoxLayout,
    QLabel,
    QProgressBar,
    QPushButton,
    QVBoxLayout,
    QWidget,
)

from medrl.bundles import find, read_manifest
from medrl.errors import MedrlError
from medrl_napari.agents import ColorBy
from medrl_napari.detect.choice import LandmarkChoice
from medrl_napari.detect.table import LandmarkTable
from medrl_napari.model_choice import ModelChoice
from medrl_napari.widgets import LayerChoice, StatusLine, is_scan

if TYPE_CHECKING:
    import napari

COLORINGS: dict[str, ColorBy] = {"scale": "scale_mm", "value": "value", "agent": "agent"}


@dataclass(frozen=True)
class Model:
    """A landmark model that can be chosen.

    Attributes:
        name_or_dir: What loads it.
        landmarks: What it knows.
        window: Side of its agents' windows in voxels.
        coarsest_mm: Voxel size that they begin with.
        tip: What it is for.
    """

    name_or_dir: str
    landmarks: tuple[str, ...]
    window: int
    coarsest_mm: float
    tip: str

    @staticmethod
    def find(name_or_dir: str) -> Model:
        """A model that ships, or one in a folder.

        Raises:
            MedrlError: If it is none, or of another kind.
        """
        folder = find(name_or_dir)
        manifest = read_manifest(folder)
        if manifest["task"] != "landmark":
            raise MedrlError(f"{folder.name} is a {manifest['task']} model: it finds no landmarks")
        card = manifest["card"]
        said = [escape(str(card[key])) for key in ("title", "intended_use") if key in card]
        tip = "<br><br>".join(said)
        settings = manifest["settings"]
        return Model(
            name_or_dir=name_or_dir,
            landmarks=tuple(manifest["landmarks"]),
            window=int(settings["window"]),
            coarsest_mm=float(max(settings["spacings"])),
            tip=f"<qt>{tip}</qt>",
        )


class DetectForm:
    """The parts of the landmark widget, from top to bottom.

    Attributes:
        model: The chosen model; None if what was chosen is none.
    """

    def __init__(self, viewer: napari.viewer.Viewer, parent: QWidget) -> None:
        """Lay them out.

        Args:
            viewer: Whose scans are offered.
            parent: The widget they go into.
        """
        self.scans = LayerChoice(viewer, wanted=is_scan)
        self.scans.setToolTip("The scan to search")
        self.models = ModelChoice("landmark")
        self.model: Model | None = None
        self.landmarks = LandmarkChoice()
        self.run = QPushButton("Find landmarks")
        self.run.setToolTip("Let the agents search the scan (Enter in the list)")
        self.cancel = QPushButton("Cancel")
        self.cancel.setToolTip("End the search; nothing of it stays (Escape)")
        self.progress = QProgressBar()
        self.progress.setTextVisible(False)
        self.progress.setFixedHeight(6)
        policy = self.progress.sizePolicy()
        policy.setRetainSizeWhenHidden(True)
        self.progress.setSizePolicy(policy)
        self.status = StatusLine()
        self.table = LandmarkTable()
        self.table.setToolTip("Click a landmark to see it in all views. N: next, P: previous.")
        self.coloring = QComboBox()
        self.coloring.addItems(list(COLORINGS))
        self.coloring.setToolTip(
            "What colours the agents' paths: the voxel size they looked at, "
            "the value they saw in their next step, or the agent"
        )
        self.drag = QPushButton("Move points")
        self.drag.setCheckable(True)
        self.drag.setToolTip(
            "Drag a point with the mouse to correct it. To add an absent landmark, choose its row "
            "and add a point; to take one away, delete its point."
        )
        self.reset = QPushButton("Reset")
        self.reset.setToolTip("Put the chosen landmark back where it was found")
        self.save_results = QPushButton("Save results …")
        self.save_results.setToolTip(
            "Points for 3D Slicer, a table, the agents' paths and a picture, as medrl detect writes"
        )
        self.save_corrections = QPushButton("Save corrections …")
        self.save_corrections.setToolTip(
            "Add the ticked landmarks, as they now are, to a datalist for medrl train landmark"
        )
        self._lay_out(parent)
        self.models.chosen.connect(self._offer)
        self.set_busy(False)
        self.status.say("Choose a scan and find its landmarks.")
        self._offer(self.models.model)

    def set_busy(self, busy: bool, *, has_result: bool = False) -> None:
        """Allow what can be done now."""
        for part in (self.scans, self.models, self.landmarks, self.run):
            part.setEnabled(not busy)
        self.cancel.setEnabled(busy)
        for button in (self.save_results, self.save_corrections, self.drag):
            button.setEnabled(has_result and not busy)
        if not has_result:
            self.reset.setEnabled(False)
        # Not Qt's endless bar: where OpenGL is slow, its animation costs the agents their time.
        self.show_progress(0, 1)
        self.progress.setVisible(busy)

    def show_progress(self, done: int, total: int) -> None:
        """How many of the agents have ended."""
        # Drawn with what comes next: the bar by itself draws the whole window at once, slowly.
        self.progress.setUpdatesEnabled(False)
        self.progress.setRange(0, total)
        self.progress.setValue(done)
        self.progress.setUpdatesEnabled(True)

    def _offer(self, name_or_dir: str) -> None:
        try:
            self.model = Model.find(name_or_dir)
        except MedrlError as error:
            self.model = None
            self.status.error(str(error))
        self.models.setToolTip("" if self.model is None else self.model.tip)
        self.landmarks.offer(() if self.model is None else self.model.landmarks)

    def _lay_out(self, parent: QWidget) -> None:
        choices = QFormLayout()
        choices.setSpacing(4)
        choices.addRow("Scan", self.scans)
        choices.addRow("Model", self.models)
        layout = QVBoxLayout(parent)
        layout.setContentsMargins(6, 6, 6, 6)
        layout.setSpacing(6)
        layout.addLayout(choices)
        layout.addWidget(self.landmarks)
        layout.addLayout(_row(self.run, self.cancel, stretch=(2, 1)))
        layout.addWidget(self.progress)
        layout.addWidget(self.status)
        layout.addWidget(self.table, 1)
        label = QLabel("Paths by")
        label.setAlignment(Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter)
        layout.addLayout(_row(self.drag, self.reset, label, self.coloring, stretch=(2, 1, 1, 1)))
        layout.addLayout(_row(self.save_results, self.save_corrections, stretch=(1, 1)))


def _row(*widgets: QWidget, stretch: tuple[int, ...]) -> QHBoxLayout:
    row = QHBoxLayout()
    row.setSpacing(4)
    for widget, share in zip(widgets, stretch, strict=True):
        row.addWidget(widget, share)
    return row
