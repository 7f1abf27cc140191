"""Find boxes around organs in the scan that is open, correct them or draw one's own, keep them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import medrl
from medrl.errors import MedrlError
from medrl.localization.answer import Localization
from medrl.trajectory import Trajectory
from medrl.volume.boxes import crop_to_box
from medrl_napari.box_layers import BoxLayers
from medrl_napari.localize.editor import BoxEditor, Mode
from medrl_napari.localize.faces import FacesForm
from medrl_napari.localize.kind import BOXES
from medrl_napari.scans import KEY, add_beside, image_layers, show
from medrl_napari.search.result import Search
from medrl_napari.search.widget import SearchWidget
from medrl_napari.space import Floats
from medrl_napari.widgets import button, row

if TYPE_CHECKING:
    import napari


class LocalizeWidget(SearchWidget):
    """Runs localization agents on a scan, shows them walk, and takes corrections of their boxes.

    Without a model, boxes are drawn: that is how one makes training data.
    """

    def __init__(self, napari_viewer: napari.viewer.Viewer) -> None:
        """Offer the viewer's scans and the models that ship."""
        super().__init__(napari_viewer, BOXES)
        self.move_button = button(
            "Move faces",
            "Drag a face or an edge of a box in a slice of any plane, or from its inside the "
            "whole box. With Space held, the picture moves.",
        )
        self.draw_button = button(
            "Draw box",
            "Draw a rectangle in a slice: the absent box whose row is chosen, or a new one. It is "
            "as deep as the other boxes; drag its faces in the other planes, or type them. "
            "Before a search, the boxes of the selected layer can be gone on with so.",
        )
        for made, mode in ((self.move_button, "move"), (self.draw_button, "draw")):
            made.setCheckable(True)
            made.clicked.connect(lambda on, mode=mode: self.set_mode(mode if on else "look"))
        self.delete_button = button(
            "Delete", "The chosen box is not in the scan (Del)", self.delete
        )
        self.crop_button = button(
            "Crop scan", "The scan cut to the chosen box, as a layer of its own", self.crop
        )
        self.faces = FacesForm()
        self.faces.changed.connect(self._type)
        self.faces.renamed.connect(self.rename)
        self._keys["Delete"] = self.delete
        self.arrange(
            self.faces,
            row(self.move_button, self.draw_button, self.crop_button, stretch=(1, 1, 1)),
            row(self.delete_button, self.reset_button, self.undo_button, stretch=(1, 1, 1)),
        )
        self.status.say("Choose a scan and find its organs, or draw their boxes.")

    # ---- what the user does

    def set_mode(self, mode: Mode) -> None:
        """Let the mouse move faces, draw a box, or move the picture.

        Args:
            mode: To draw, a scan is enough; nothing need have been found.
        """
        try:
            if self.search is None and mode == "draw":
                self._begin_by_hand()
        except MedrlError as error:
            self.status.error(str(error))
            mode = "look"
        editor = self._editor
        if editor is None:
            mode = "look"
        else:
            editor.mode = mode
        self.move_button.setChecked(mode == "move")
        self.draw_button.setChecked(mode == "draw")

    def delete(self) -> None:
        """Say that the current box is not in the scan."""
        name = self.table.current
        if self.search is not None and name is not None:
            self.correct({name: None})
            if name not in self.search.items:
                self.status.say(f"{self.kind.title(name)} is gone.")

    def rename(self, name: str) -> None:
        """Give the current box another name, which no other box in the scan has."""
        before = self.table.current
        if self.search is None or before is None or before == name:
            return
        items = self.search.items
        if name in items and items[name].status != "absent":
            self.status.error(f"There is a box {name!r} already: delete or rename it first.")
            self.corrected()
            return
        self.correct({before: None, name: items[before].corners_world})

    def crop(self) -> None:
        """Show the scan cut to the current box."""
        name = self.table.current
        if self.search is None or name is None:
            return
        try:
            cut = crop_to_box(self.search.shown.scan, self.search.items[name].corners_world)
            shown = show(cut, frame=self.search.shown.frame)
        except MedrlError as error:
            self.status.error(str(error))
            return
        title = f"{self.search.name} {self.kind.title(name)}"
        for layer in image_layers(shown, name=title):
            add_beside(self.viewer, layer)
        self.status.say(f"{title} is a layer of its own.")

    def enable(self) -> None:
        """Allow what can be done now."""
        super().enable()
        found, busy = self.search is not None, self.running
        self.move_button.setEnabled(found and not busy)
        self.draw_button.setEnabled(not busy)
        self.corrected()

    # ---- what happens

    def new_editor(self, search: Search) -> BoxEditor:
        """The layers of the boxes."""
        editor = BoxEditor(
            self.viewer,
            search.shown,
            search.now.boxes,
            changed=lambda name, corners: self.correct({name: corners}),
            drawn=self._on_drawn,
            chosen=self.choose,
            current=lambda: self.table.current,
        )
        self.soon(lambda: self.set_mode(self._mode))
        return editor

    def corrected(self) -> None:
        """Show the current box in numbers."""
        name = self.table.current if self.search is not None and not self.running else None
        item = None if self.search is None or name is None else self.search.items.get(name)
        self.faces.show_box(item and item.name, item and item.corners_world)
        there = item is not None and item.status != "absent"
        self.delete_button.setEnabled(there)
        self.crop_button.setEnabled(there)

    # ---------------------------------------------------------------------------------------------

    @property
    def _editor(self) -> BoxEditor | None:
        return cast("BoxEditor | None", self.editor)

    @property
    def _mode(self) -> Mode:
        if self.move_button.isChecked():
            return "move"
        return "draw" if self.draw_button.isChecked() else "look"

    def _begin_by_hand(self) -> None:
        """Nothing was found yet in the chosen scan."""
        scans = self.chosen_scans()
        first = next(iter(scans.values()))
        made_by: dict[str, Any] = {"scan": first.file, "model": "by hand"}
        made_by |= {"version": medrl.__version__, "seed": 0}
        nothing = Localization((), Trajectory("localization", (), made_by), (), 0.0, first.scan)
        name = next(iter(self.scans.layers.values())).name
        old = self.viewer.layers.selection.active
        known = {} if old is None else old.metadata.get(KEY)
        view = known.get("view") if isinstance(known, dict) else None
        self.show_search(Search(self.kind, scans, name, nothing))
        if isinstance(view, BoxLayers):
            self.correct(dict(view.boxes_world))
            self.viewer.layers.remove(view.layer)
        self.status.say(f"Draw a box on {name}.")

    def _type(self, corners_world: Floats) -> None:
        if self.table.current is not None:
            self.correct({self.table.current: corners_world})

    def _on_drawn(self, corners_world: Floats) -> None:
        """A box was drawn: the current one if that is absent, or a new one."""
        if self.search is None:
            return
        items, name = self.search.items, self.table.current
        if name is None or items[name].status != "absent":
            number = 1
            while f"box {number}" in items:
                number += 1
            name = f"box {number}"
        self.correct({name: corners_world})
        self.set_mode("move")
