"""What is on a widget that searches a scan; :mod:`medrl_napari.search.widget` does the rest."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING

from qtpy.QtWidgets import QComboBox, QLabel, QLayout, QWidget

from medrl import systems
from medrl.errors import MedrlError
from medrl_napari.agents import ColorBy
from medrl_napari.dock import AgentsDock
from medrl_napari.models import manifest_of
from medrl_napari.search.kind import Kind
from medrl_napari.search.table import FoundTable
from medrl_napari.tick_list import TickList
from medrl_napari.widgets import LayerChoices, WholeRows, button, row

if TYPE_CHECKING:
    import napari

    from medrl.bundles.manifest import Manifest

COLORINGS: dict[str, ColorBy] = {"scale": "scale_mm", "value": "value", "agent": "agent"}


class SearchForm(AgentsDock):
    """The parts of the widget, from top to bottom.

    Attributes:
        kind: What is searched for.
        manifest: Of the chosen model; None if what was chosen is none.
    """

    def __init__(self, napari_viewer: napari.viewer.Viewer, kind: Kind) -> None:
        """Make them; `arrange` lays them out.

        Args:
            napari_viewer: Whose scans are offered.
            kind: What is searched for.
        """
        super().__init__(napari_viewer)
        self.kind = kind
        self.scans = LayerChoices(napari_viewer, kind.system)
        self.life.callback(self.scans.release)
        self.models = self.scans.model
        self.manifest: Manifest | None = None
        self.targets = TickList(kind.several.capitalize(), label=kind.title)
        self.run_button = button(
            f"Find {kind.several}", "Let the agents search the scan (Enter in the list)"
        )
        self.cancel_button = button(
            "Cancel", "End the search; nothing of it stays (Escape)", self.cancel
        )
        self.table = FoundTable(kind)
        self.table.setToolTip(
            f"Click a {kind.one} to see it in all views. N: next, P: previous, Ctrl+Z: undo."
        )
        self.coloring = QComboBox()
        self.coloring.addItems(list(COLORINGS))
        self.coloring.setToolTip(
            "What colours the agents' paths: the voxel size they looked at, "
            "the value they saw in their next step, or the agent"
        )
        self.reset_button = button("Reset", f"Put the chosen {kind.one} back where it was found")
        self.undo_button = button("Undo", "Take the last correction back (Ctrl+Z)")
        verb = systems.get(kind.system).verb
        self.save_button = button(
            "Save …",
            f"Files for 3D Slicer, a table, paths and a picture, as medrl {verb} writes",
        )
        self.datalist_button = button(
            "Save corrections …",
            f"Add the ticked {kind.several}, as they now are, to a datalist for "
            f"medrl train {kind.system}",
        )

    def arrange(self, *tools: QWidget | QLayout) -> None:
        """Lay the parts out.

        Args:
            tools: To correct what was found.
        """
        self.lay_out(
            self.scans,
            self.targets,
            row(self.run_button, self.cancel_button, stretch=(2, 1)),
            self.progress,
            self.status,
            WholeRows(self.table),
            *tools,
            row(QLabel("Paths by"), self.coloring, stretch=(0, 1)),
            row(self.save_button, self.datalist_button, stretch=(1, 2)),
        )
        self.models.chosen.connect(self._offer)
        self._offer(self.models.model)

    def _offer(self, name_or_dir: str) -> None:
        self.manifest = None
        contents: dict[str, list[str]] = {}
        try:
            if name_or_dir:
                lacks = f"finds no {self.kind.several}"
                self.manifest = manifest_of(name_or_dir, task=self.kind.system, lacks=lacks)
                contents = systems.get(self.kind.system).contents(self.manifest)
        except MedrlError as error:
            self.status.error(str(error))
        card = {} if self.manifest is None else self.manifest["card"]
        told = [escape(str(card[key])) for key in ("title", "intended_use") if key in card]
        self.models.setToolTip(f"<qt>{'<br><br>'.join(told)}</qt>" if told else "")
        self.targets.offer(contents.get(self.kind.contents, ()))
        channels = contents.get("images", [])
        if channels:
            titles = {name: name.capitalize() for name in channels}
            self.scans.ask(titles, optional=channels[1:])
        else:
            self.scans.ask({"scan": "Scan"})
