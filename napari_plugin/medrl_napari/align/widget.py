"""Bring the scan that is open into the AC-PC frame or MNI space, and look at it there."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from medrl import systems
from medrl_napari.panel.findings import show_findings
from medrl_napari.panel.widget import AgentPanel, Run
from medrl_napari.scans import center_views

if TYPE_CHECKING:
    import napari


class AlignWidget(AgentPanel):
    """Runs landmark agents, and shows the scan and the points where they then lie."""

    def __init__(self, napari_viewer: napari.viewer.Viewer) -> None:
        """Offer the viewer's scans and the landmark models that ship.

        Args:
            napari_viewer: The viewer.
        """
        super().__init__(napari_viewer, system=systems.get("alignment"))

    def _show_layers(self, run: Run) -> None:
        """Show the aligned scan in place of the scan, its points, and AC in all views."""
        if self._run is not run:
            return
        # Agents walked where the scan was.
        self.remove_agents()
        findings = run.system.findings(run.result)
        name = f"{run.system.verb} {run.result.to}"
        show_findings(findings, self.viewer, run.frame, run.images, name=name)
        for layer in run.images.values():
            layer.visible = False
        ac = run.result.points_world.get("AC", np.zeros(3))
        center_views(self.viewer, run.frame.to_napari(ac))
        self.finished.emit(run.result)
