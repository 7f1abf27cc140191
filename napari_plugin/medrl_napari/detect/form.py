"""What is on the landmark widget; what it does is in :mod:`medrl_napari.detect.widget`."""

from __future__ import annotations

from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING

from qtpy.QtWidgets import QComboBox, QFormLayout, QLabel

from medrl.bundles import find, read_manifest
from medrl.errors import MedrlError
from medrl.landmark.picture import short_name
from medrl_napari.agents import ColorBy
from medrl_napari.detect.table import LandmarkTable
from medrl_napari.dock import AgentsDock
from medrl_napari.tick_list import TickList
from medrl_napari.widgets import LayerChoice, ModelChoice, WholeRows, button, is_scan, row

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


class DetectForm(AgentsDock):
    """The parts of the landmark widget, from top to bottom.

    Attributes:
        model: The chosen model; None if what was chosen is none.
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
        self.model: Model | None = None
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
        try:
            self.model = Model.find(name_or_dir)
        except MedrlError as error:
            self.model = None
            self.status.error(str(error))
        self.models.setToolTip("" if self.model is None else self.model.tip)
        self.landmarks.offer(() if self.model is None else self.model.landmarks)
