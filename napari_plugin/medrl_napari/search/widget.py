"""Search the scan that is open: watch the agents, look at each answer, correct it, keep it."""

from __future__ import annotations

from abc import abstractmethod
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import Qt, QTimer
from qtpy.QtGui import QKeyEvent, QKeySequence
from qtpy.QtWidgets import QFileDialog, QLayout, QShortcut, QWidget

from medrl.errors import MedrlError
from medrl.systems import get
from medrl_napari.agents import AgentsView
from medrl_napari.models import load_model
from medrl_napari.scans import Shown, center_views, shown_of
from medrl_napari.search.form import COLORINGS, SearchForm
from medrl_napari.search.kind import Corrections, Editor, Kind
from medrl_napari.search.result import Search
from medrl_napari.search.table import STEP_KEYS
from medrl_napari.space import Frame

if TYPE_CHECKING:
    import napari
    from napari.layers import Image, Layer

    from medrl.trajectory import Step, Trajectory

#: How soon agents are shown where they begin.
_START_MS = 150


class SearchWidget(SearchForm):
    """Runs agents on a scan, shows them walk, and takes corrections of what they found."""

    def __init__(self, napari_viewer: napari.viewer.Viewer, kind: Kind) -> None:
        """Offer the viewer's scans and the models that ship.

        Args:
            napari_viewer: The viewer.
            kind: What is searched for.
        """
        super().__init__(napari_viewer, kind)
        self._searched: Image | None = None
        self._begin: Trajectory | None = None
        self._starter = QTimer(self, singleShot=True, interval=_START_MS)
        self._starter.timeout.connect(self._show_begin)
        self.editor: Editor | None = None
        self.search: Search | None = None
        self._keys = {
            "n": lambda: self.go(1),
            "p": lambda: self.go(-1),
            "Control-Z": self.undo,
        }

    def arrange(self, *tools: QWidget | QLayout) -> None:
        """Lay the parts out, and wire them."""
        super().arrange(*tools)
        self.run_button.clicked.connect(self.run)
        self.targets.accepted.connect(self.run)
        self.table.chosen.connect(self.look_at)
        self.coloring.currentIndexChanged.connect(self._color_paths)
        self.reset_button.clicked.connect(lambda: self.reset())
        self.undo_button.clicked.connect(lambda: self.undo())
        self.save_button.clicked.connect(lambda: self.save_results())
        self.datalist_button.clicked.connect(lambda: self.save_corrections())
        shortcut = QShortcut(QKeySequence("Ctrl+Z"), self)
        shortcut.setContext(Qt.ShortcutContext.WidgetWithChildrenShortcut)
        shortcut.activated.connect(self.undo)
        self.follow(self.viewer.layers.events.removed, self._on_removed)
        self.enable()

    @property
    def result(self) -> Any:
        """What was found last, with the corrections made to it; None if nothing was."""
        return None if self.search is None else self.search.now

    # ---- what is different for each kind

    @abstractmethod
    def new_editor(self, search: Search) -> Editor:
        """Layers for the items of a search."""

    def beginning(self, shown: Shown, names: tuple[str, ...]) -> Trajectory | None:
        """Agents that have not moved yet, if it is known where they begin."""
        return None

    def keys(self) -> dict[str, Any]:
        """What keys do while the layer is selected, by napari's names."""
        return self._keys

    def corrected(self) -> None:
        """Something was corrected, or another item is looked at."""

    # ---- what the user does

    def run(self) -> None:
        """Search the chosen scan for the ticked items."""
        if self.running:
            return
        names, manifest = self.targets.names, self.manifest
        try:
            scans = self.chosen_scans()
            if manifest is None or not names:
                one = f"Tick at least one {self.kind.one}."
                raise MedrlError(one if manifest else "Choose a model.")
        except MedrlError as error:
            self.status.error(str(error))
            return
        model, layer = self.models.model, next(iter(self.scans.layers.values()))
        first, kind = next(iter(scans.values())), self.kind

        def work(report: Any) -> Search:
            images = {role: shown.scan for role, shown in scans.items()}
            return Search(
                kind, scans, layer.name, kind.search(load_model(model), images, names, report)
            )

        self._searched = layer
        window = manifest["settings"].get("window")
        self.agents_in(first.frame).window_voxels = window if isinstance(window, int) else None
        saying = f"Looking for {len(names)} {kind.several} in {layer.name} …"
        self.work(work, saying, self._on_found, frame=self.watch)
        # While the scan is prepared; if it is refused at once, nothing has flashed up.
        self._begin = self.beginning(first, names)
        self._starter.start()

    def chosen_scans(self) -> dict[str, Shown]:
        """The chosen layers by role, as they are shown.

        Raises:
            MedrlError: If there is none, or one is no scan.
        """
        layers = self.scans.layers
        if not layers:
            flat = any(type(la).__name__ == "Image" for la in self.viewer.layers)
            also = ": a flat or coloured image is none" if flat else ""
            raise MedrlError(f"Open a 3D scan first{also}.")
        return {role: shown_of(layer, viewer=self.viewer) for role, layer in layers.items()}

    def go(self, by: int) -> None:
        """Look at the next item of the table, or the one before."""
        self.table.step(by)

    def reset(self, name: str | None = None) -> None:
        """Undo what a person did to an item.

        Args:
            name: Which; the current one if left out.
        """
        name = name or self.table.current
        if self.search is not None and name is not None and self.search.reset(name):
            self.show_corrections([name])
            self.status.say(f"{self.kind.title(name)} is back where it was found.")

    def undo(self) -> None:
        """Take the last correction back."""
        if self.search is None or not self.search.can_undo:
            return
        names = self.search.undo()
        self.show_corrections(names)
        self.status.say(f"Taken back: {', '.join(map(self.kind.title, names))}.")

    def save_results(self, folder: Path | None = None, **options: Any) -> None:
        """Write what the system's command writes.

        Args:
            folder: Where to; asked for if left out.
            options: Of the result's ``save``.
        """
        search = self.search
        if search is not None:
            self.save_into(folder, lambda target: search.write(target, **options))

    def save_corrections(self, datalist: Path | None = None) -> None:
        """Add the ticked items, as they now stand, to a datalist for training.

        Args:
            datalist: The JSON file; asked for if left out.
        """
        search = self.search
        if search is None or self.running:
            return
        try:
            values = search.for_training(self.table.ticked)
            datalist = datalist or self._ask_for_datalist()
            if datalist is None:
                return
            search.add_to(datalist, values)
        except MedrlError as error:
            self.status.error(str(error))
            return
        kind = self.kind
        self.status.say(
            f"{datalist.name} holds {len(values)} {kind.several} of {search.stem}: "
            f"medrl train {kind.system} --data takes it."
        )

    # ---- what happens

    def show_search(self, search: Search) -> None:
        """Show a search instead of the one before, whose unsaved corrections stay as a layer."""
        items = self.kind.items(search.now)
        if self.search is not None and self.search.unsaved:
            self._put_away()
        self.search = search
        if self.editor is None:
            self.editor = self.new_editor(search)
            for key, do in self.keys().items():
                self.editor.layer.bind_key(key, _without_parent(do), overwrite=True)
        else:
            self.editor.renew(search.shown, items)
        self.viewer.layers.selection = {self.editor.layer}
        self.table.show_items(items)
        self.enable()
        self.corrected()

    def correct(self, corrections: Corrections) -> None:
        """Take what a person did to items."""
        if self.search is None or not corrections:
            return
        try:
            self.search.change(corrections)
        except MedrlError as error:
            self.show_corrections(())
            self.status.error(str(error))
            return
        name = list(corrections)[-1]
        self.show_corrections(list(corrections))
        items = self.search.items
        if name in items:
            self.choose(name)
            item = items[name]
            self.status.say(f"{self.kind.title(name)}: {item.status}, {item.note}.")

    def show_corrections(self, names: Any) -> None:
        """Bring layers and table up to date with what was corrected.

        Args:
            names: Of the items.
        """
        if self.search is None or self.editor is None:
            return
        items = self.search.items
        self.editor.show(list(items.values()))
        if set(items) != set(self.table.names):
            self.table.renew_items(list(items.values()))
        for name in names:
            if name in items:
                self.table.update_item(items[name])
        self._allow_reset()
        self.corrected()

    def look_at(self, name: str) -> None:
        """Bring an item into view and point it out, and its agent."""
        place = self.editor.place(name) if self.editor is not None else None
        if place is not None:
            center_views(self.viewer, place)
        self._point_out(name)

    def choose(self, name: str) -> None:
        """Make an item the current one, where somebody looks at it already."""
        self.table.choose(name, quietly=True)
        self._point_out(name)

    def enable(self) -> None:
        """Allow what can be done now."""
        busy, found = self.running, self.search is not None
        if not busy:
            self._starter.stop()
            self._searched = None
        for part in (self.scans, self.targets, self.run_button):
            part.setEnabled(not busy)
        self.cancel_button.setEnabled(busy)
        for button in (self.save_button, self.datalist_button):
            button.setEnabled(found and not busy)
        self._allow_reset()

    def watch(self, steps: list[Step]) -> None:
        """Agents are under way: they need not be shown where they begin."""
        self._starter.stop()
        super().watch(steps)

    def cancelled(self) -> None:
        """Show what was found before."""
        super().cancelled()
        if self._searched is not None and self._searched not in self.viewer.layers:
            self.status.say("Cancelled: the scan was closed.")

    def agents_in(self, frame: Frame) -> AgentsView:
        """The view of the agents, with paths coloured as chosen."""
        agents = super().agents_in(frame)
        agents.color_by = COLORINGS[self.coloring.currentText()]
        return agents

    def keyPressEvent(self, event: QKeyEvent) -> None:  # noqa: N802 - Qt's name
        """N and P go through the items."""
        if event.key() in STEP_KEYS:
            self.go(STEP_KEYS[event.key()])
        else:
            super().keyPressEvent(event)

    def leave(self) -> None:
        """Leave the layers to the viewer."""
        super().leave()
        self._let_go()

    # ---------------------------------------------------------------------------------------------

    def _point_out(self, name: str) -> None:
        if self.agents is not None:
            self.agents.select(name)
        if self.editor is not None:
            self.editor.select(name)
        self._allow_reset()
        self.corrected()

    def _ask_for_datalist(self) -> Path | None:
        chosen, _ = QFileDialog.getSaveFileName(
            self,
            "Datalist to add to, or a new one",
            "datalist.json",
            "Datalists (*.json)",
            options=QFileDialog.Option.DontConfirmOverwrite,
        )
        return Path(chosen) if chosen else None

    def _show_begin(self) -> None:
        """Show the agents where they begin."""
        if self.agents is not None and self._begin is not None:
            self.agents.show(self._begin)

    def _on_found(self, search: Search) -> None:
        self.show_search(search)
        result, items = search.found, self.kind.items(search.found)
        there = [item for item in items if item.status != "absent"]
        line = f"{len(there)} of {len(items)} found in {result.seconds:.1f} s. "
        line += "The slider t replays the search."
        doubt = get(self.kind.system).doubt(result)
        remarks = [remark for remark in result.warnings if remark != doubt]
        self.status.tell(line, remarks, doubt=doubt)
        self.show_paths(result, search.shown.frame, wanted=lambda: self.search is search)

    def _put_away(self) -> None:
        """Leave corrections that nobody saved in the viewer, and make room for another result."""
        if self.editor is not None:
            editor = self._let_go()
            editor.set_aside()

    def _let_go(self) -> Any:
        editor, self.editor = self.editor, None
        if editor is not None:
            editor.release()
            for key in self.keys():
                editor.layer.bind_key(key, None)
        return editor

    def _allow_reset(self) -> None:
        search = self.search
        self.reset_button.setEnabled(search is not None and self.table.current in search.moved)
        self.undo_button.setEnabled(search is not None and search.can_undo)

    def _color_paths(self) -> None:
        if self.agents is not None:
            self.agents.color_by = COLORINGS[self.coloring.currentText()]

    def _on_removed(self, event: Any) -> None:
        layer: Layer = event.value
        if layer is self._searched and self.running:
            self.cancel()
        if self.editor is not None and layer is self.editor.layer:
            self._let_go()
            self.search = None
            self.forget_paths()
            self.table.show_items(())
            self.enable()
            self.corrected()


def _without_parent(do: Any) -> Any:
    """A key's function as napari calls it."""
    return lambda _layer: do()
