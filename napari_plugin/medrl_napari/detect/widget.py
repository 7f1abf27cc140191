"""Find landmarks in the scan that is open: watch the agents, look at each answer, correct it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from medrl.trajectory import AgentPath, Trajectory
from medrl.volume.space import voxel_to_world
from medrl_napari.detect.kind import LANDMARKS
from medrl_napari.detect.points import LandmarkPoints
from medrl_napari.search.kind import Corrections
from medrl_napari.search.result import Search
from medrl_napari.search.widget import SearchWidget
from medrl_napari.widgets import button, row

if TYPE_CHECKING:
    import napari
    from monai.data.meta_tensor import MetaTensor

    from medrl_napari.scans import Shown


class DetectWidget(SearchWidget):
    """Runs landmark agents on a scan, shows them walk, and takes corrections of what they found."""

    def __init__(self, napari_viewer: napari.viewer.Viewer) -> None:
        """Offer the viewer's scans and the models that ship."""
        super().__init__(napari_viewer, LANDMARKS)
        self.drag_button = button(
            "Move points",
            "Drag a point with the mouse to correct it. To add an absent landmark, choose its row "
            "and add a point; to take one away, delete its point.",
        )
        self.drag_button.setCheckable(True)
        self.drag_button.toggled.connect(self._drag)
        self.arrange(
            row(self.drag_button, self.reset_button, self.undo_button, stretch=(2, 1, 1)),
        )
        self.status.say("Choose a scan and find its landmarks.")

    def new_editor(self, search: Search) -> LandmarkPoints:
        """The points layer."""
        points = LandmarkPoints(
            self.viewer,
            search.shown,
            search.now.landmarks,
            changed=self._on_corrected,
            missing=self._missing,
            name=self.kind.layer,
            mode=lambda mode: self.drag_button.setChecked(mode == "select"),
        )
        points.drag(self.drag_button.isChecked())
        return points

    def beginning(self, shown: Shown, names: tuple[str, ...]) -> Trajectory | None:
        """All begin at the scan's centre."""
        if self.manifest is None:
            return None
        settings = self.manifest["settings"]
        coarsest_mm, window = float(max(settings["spacings"])), int(settings["window"])
        return at_the_center(shown.scan, names, scale_mm=coarsest_mm, window=window)

    def enable(self) -> None:
        """Allow what can be done now."""
        super().enable()
        self.drag_button.setEnabled(self.search is not None and not self.running)

    def _missing(self) -> str | None:
        """The current landmark, if it is absent."""
        name = self.table.current
        if self.search is None or name is None:
            return None
        return name if self.search.items[name].status == "absent" else None

    def _on_corrected(self, corrections: Corrections) -> None:
        if not corrections:
            self.status.error("To add a point, choose the row of an absent landmark first.")
        self.correct(corrections)

    def _drag(self, wanted: bool) -> None:
        """Let the mouse move points, or the view."""
        points: Any = self.editor
        if points is not None:
            points.drag(wanted)
            if wanted:
                self.viewer.layers.selection = {points.layer}


def at_the_center(
    scan: MetaTensor, names: Sequence[str], *, scale_mm: float, window: int
) -> Trajectory:
    """Landmark agents that have not moved yet: all begin at the scan's centre.

    Args:
        scan: What they search.
        names: Of their landmarks.
        scale_mm: Voxel size that they begin with.
        window: Side of their windows in voxels.
    """
    center = voxel_to_world((np.array(scan.shape[1:]) - 1) / 2, scan.affine)
    one = np.ones(1)
    agents = [
        AgentPath(name, 0, center[None], one * scale_mm, np.array([-1]), one * np.nan)
        for name in names
    ]
    return Trajectory("landmark", tuple(agents), {"window_voxels": window})
