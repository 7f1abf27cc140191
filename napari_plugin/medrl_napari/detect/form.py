"""What is on the landmark widget; what it does is in :mod:`medrl_napari.detect.widget`."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING

from qtpy.QtWidgets import QComboBox, QFormLayout, QLabel

from medrl.errors import MedrlError
from medrl.landmark.picture import short_name
from medrl_napari.agents import ColorBy
from medrl_napari.detect.table import LandmarkTable
from medrl_napari.dock import AgentsDock
from medrl_napari.models import manifest_of
from medrl_napari.scans import is_scan
from medrl_napari.tick_list import TickList
from medrl_napari.widgets import LayerChoice, ModelChoice, WholeRows, button, row

if TYPE_CHECKING:
    import napari

    from medrl.bundles.manifest import Manifest

COLORINGS: dict[str, ColorBy] = {"scale": "scale_mm", "value": "value", "agent": "agent"}


class DetectForm(AgentsDock):
    """The parts of the landmark widget, from top to bottom.

    Attributes:
        manifest: Of the chosen model; None if what was chosen is none.
    """

    def __init__(self, napari_viewer: napari.viewer.Viewer) -> None:
        """Lay them out.

        Args:
            napari_viewer: Whose scans are offered.
        """
        super().__init__(napari_viewer)
        self.scans = LayerChoice(napari_viewer, wanted=is_scan, tip="The scan to search")
        self.life.callback(self.scans.release)
        self.models = ModelChoice("landmark")
        self.manifest: Manifest | None = None
        self.landmarks = TickList("Landmarks", label=short_name)
        self.run_button = button(
            "Find landmarks", "Let the agents search the scan (Enter in the list)"
        )
        self.cancel_button = button(
            "Cancel", "End the search; nothing of it stays (Escape)", self.cancel
        )
        self.table = LandmarkTable()
        self.table.setToolTip("Click a landmark to see it in all views. N: next, P: previous.")
        self.coloring = QComboBox()
        self.coloring.addItems(list(COLORINGS))
        self.coloring.setToolTip(
            "What colours the agents' paths: the voxel size they looked at, "
            "the value they saw in their next step, or the agent"
        )
        self.drag_button = button(
            "Move points",
            "Drag a point with the mouse to correct it. To add an absent landmark, choose its row "
            "and add a point; to take one away, delete its point.",
        )
        self.drag_button.setCheckable(True)
        self.reset_button = button("Reset", "Put the chosen landmark back where it was found")
        self.save_button = button(
            "Save …",
            "Points for 3D Slicer, a table, paths and a picture, as medrl detect writes",
        )
        self.datalist_button = button(
            "Save corrections …",
            "Add the ticked landmarks, as they now are, to a datalist for medrl train landmark",
        )
        choices = QFormLayout()
        choices.setSpacing(4)
        choices.addRow("Scan", self.scans)
        choices.addRow("Model", self.models)
        self.lay_out(
            choices,
            self.landmarks,
            row(self.run_button, self.cancel_button, stretch=(2, 1)),
            self.progress,
            self.status,
            WholeRows(self.table),
            row(self.drag_button, self.reset_button, stretch=(2, 1)),
            row(QLabel("Paths by"), self.coloring, stretch=(0, 1)),
            row(self.save_button, self.datalist_button, stretch=(1, 2)),
        )
        self.models.chosen.connect(self._offer)
        self._offer(self.models.model)

    def _offer(self, name_or_dir: str) -> None:
        self.manifest = None
        try:
            self.manifest = manifest_of(name_or_dir, task="landmark", lacks="finds no landmarks")
        except MedrlError as error:
            self.status.error(str(error))
        card = {} if self.manifest is None else self.manifest["card"]
        told = [escape(str(card[key])) for key in ("title", "intended_use") if key in card]
        self.models.setToolTip(f"<qt>{'<br><br>'.join(told)}</qt>" if told else "")
        self.landmarks.offer(() if self.manifest is None else self.manifest["landmarks"])
