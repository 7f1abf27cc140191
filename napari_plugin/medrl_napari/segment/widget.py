"""Segment with seeds in napari: the user clicks, the mask follows, the agent proposes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import Qt
from qtpy.QtGui import QKeySequence
from qtpy.QtWidgets import QFileDialog, QShortcut

from medrl.errors import MedrlError
from medrl.seednet.seeds import Seed, read_seeds, write_seeds
from medrl.seednet.session import SeedSession
from medrl.walker.segmenter import BACKGROUND, FOREGROUND
from medrl_napari.scans import KEY, center_views
from medrl_napari.segment import operations
from medrl_napari.segment.annotation import Reactions
from medrl_napari.segment.session_panel import SessionPanel
from medrl_napari.segment.session_state import Array, Box
from medrl_napari.segment.store import SeedStore

if TYPE_CHECKING:
    import napari

_FILES = "3D Slicer markups (*.mrk.json)"


class SegmentWidget(SessionPanel):
    """Place seeds, see the mask follow, accept or reject what the agent proposes."""

    def __init__(self, napari_viewer: napari.viewer.Viewer) -> None:
        """Wire the parts up."""
        super().__init__(napari_viewer)
        self._reactions = Reactions(
            stroke=self._stroke,
            draft=self._draft,
            drawn=self._drawn,
            added=lambda point: self.place_seed(point, self.label),
            removed=self._remove,
            moved=lambda seed, points: self._put(operations.move(seed, points)),
        )
        self._wire()
        self._look_for_earlier()
        self._show_controls()
        self.status.say("Choose a scan and press Start.")

    def place_seed(self, points_world: Array, label: int) -> None:
        """Place a seed in the current object.

        Args:
            points_world: (P, 3) RAS mm; several for a scribble.
            label: BACKGROUND or FOREGROUND.
        """
        if self._thread is None:
            self.status.error("Press Start first.")
            return
        if not len(points_world):
            self._show_seeds()
            self.status.warn("There is nothing of the scan under the mouse.")
            return
        # What the model has failed on gets another chance.
        again = self._seeds.take_unplaced()
        seeds = [*again, Seed(points_world, label)]
        self._seeds.pending += [(self._seeds.current, seed) for seed in seeds]
        self._put(operations.place(seeds, keep=again, target=self.target.currentText()))

    @property
    def label(self) -> int:
        """Of the next seed."""
        return FOREGROUND if self.foreground.isChecked() else BACKGROUND

    # ---- what the user does

    def _wire(self) -> None:
        """Buttons, keys, tables."""
        keys: dict[str, Callable[[], None]] = {
            "A": self._accept,
            "R": self._reject,
            "G": self._toggle_run,
            "X": self._toggle_label,
            "N": self._new_object,
            "O": self._next_object,
            "Control-Z": partial(self._act, SeedSession.undo),
            "Control-Shift-Z": partial(self._act, SeedSession.redo),
            "Delete": self._remove_under_mouse,
        }
        self._keys = keys
        for key, do in keys.items():
            if key == "Delete":
                continue
            sequence = QKeySequence(key.replace("Control", "Ctrl").replace("-", "+"))
            shortcut = QShortcut(sequence, self)
            shortcut.setContext(Qt.ShortcutContext.WidgetWithChildrenShortcut)
            shortcut.activated.connect(do)
        presses: tuple[tuple[Any, Callable[[], Any]], ...] = (
            (self.start, self.begin),
            (self.restore, self._restore),
            (self.accept, self._accept),
            (self.reject, self._reject),
            (self.run, self._toggle_run),
            (self.undo, keys["Control-Z"]),
            (self.redo, keys["Control-Shift-Z"]),
            (self.new_object, self._new_object),
            (self.load, self._load),
            (self.save, self._save),
            (self.save_seeds, self._save_seeds),
            (self.go_to, self._show_proposal_in_views),
            (self.place, self._activate_tool),
        )
        for button, press in presses:
            # Without what the signal says: whether a button is down.
            button.clicked.connect(lambda _down=False, press=press: press())
        self.auto.toggled.connect(self._set_auto)
        self.scans.changed.connect(self._look_for_earlier)
        self.objects.chosen.connect(lambda name: self._act(lambda s: s.switch(name)))
        self.objects.renamed.connect(lambda old, new: self._act(lambda s: s.rename(old, new)))
        self.objects.locked.connect(lambda name, on: self._act(lambda s: s.lock(name, locked=on)))
        self.objects.recolored.connect(self._recolor)

    def _accept(self) -> None:
        if self._proposal is not None:
            self._act(SeedSession.accept)

    def _reject(self) -> None:
        if self._proposal is not None:
            self._act(SeedSession.reject)

    def _toggle_run(self) -> None:
        if self._thread is None or not self._seeds.current:
            self.status.warn("Place a seed inside the object first.")
        elif self._run is not None:
            self._thread.halt()
            self._set_run(None)
        else:
            self._show_proposal(None, "…")
            self._set_run(self._thread.run_agent())

    def _toggle_label(self) -> None:
        (self.background if self.foreground.isChecked() else self.foreground).setChecked(True)

    def _new_object(self) -> None:
        target = self.target.currentText() or None

        def act(session: SeedSession) -> str:
            return f"Click in the new object: {session.new_object(target=target)}."

        self.foreground.setChecked(True)
        self._act(act)

    def _next_object(self) -> None:
        def act(session: SeedSession) -> None:
            names = session.objects
            if names:
                session.switch(names[(names.index(session.current) + 1) % len(names)])

        self._act(act)

    def _remove_under_mouse(self) -> None:
        seeds = self._annotation.seeds_under_mouse() if self._annotation is not None else []
        if seeds:
            self._remove(seeds)
        else:
            self.status.warn("There is no seed under the mouse.")

    def _remove(self, seeds: Sequence[Seed]) -> None:
        chosen = {id(seed) for seed in seeds}
        self._seeds.forget(seeds)
        held = [seed for seed in self._seeds.held if id(seed) in chosen]
        if held:
            self._put(operations.remove(held))
        self._show_seeds()
        self._keep()

    def _stroke(self, points_world: Array, shifted: bool) -> None:
        self.place_seed(points_world, 1 - self.label if shifted else self.label)

    def _draft(self, points_world: Array, shifted: bool) -> None:
        """Show a scribble while it is drawn."""
        if self._annotation is not None and len(points_world):
            seed = Seed(points_world, 1 - self.label if shifted else self.label)
            more = [*self._seeds.outside, (self._seeds.current, seed)]
            self._annotation.layers.show_seeds(self._seeds.state, more)

    def _drawn(self, before: Array, after: Array, box: Box) -> None:
        if self._annotation is not None:
            self._put(operations.draw(self._annotation.shown, before, after, box))

    def _set_auto(self, on: bool) -> None:
        if self._thread is not None:
            self._thread.auto = on
            if on:
                self._thread.wake()
            else:
                self._show_proposal(None, "")

    def _recolor(self, number: int, color: str) -> None:
        if self._annotation is not None:
            self._annotation.layers.recolor(number, color)
            self._show_seeds()
            self.objects.show_state(self._seeds.state, self._annotation.layers.color)

    def _show_proposal_in_views(self) -> None:
        if self._proposal is not None and self._annotation is not None:
            frame = self._annotation.shown.frame
            center_views(self.viewer, frame.to_napari(self._proposal.position_world))

    def _activate_tool(self) -> None:
        if self._annotation is not None:
            self._annotation.activate()
        self._active_changed()

    # ---- files

    def _restore(self) -> None:
        earlier = SeedStore(self._chosen_key()).earlier()
        if earlier and (self._thread is not None or self.begin()):
            count = sum(len(o.seeds) for o in earlier)
            self._bring(earlier, remark=f"Restored {count} seeds.")

    def _load(self) -> None:
        path, _ = QFileDialog.getOpenFileName(self, "Load seeds", "", _FILES)
        if not path:
            return
        try:
            seeds = read_seeds(path)
        except MedrlError as error:
            self.status.error(str(error))
            return
        if self._thread is not None or self.begin():
            self._seeds.pending += [(self._seeds.current, seed) for seed in seeds]
            self._put(operations.place(seeds, keep=(), target=self.target.currentText()))

    def _save(self) -> None:
        folder = QFileDialog.getExistingDirectory(self, "Folder to save into")
        if folder and self._annotation is not None:
            self._put(operations.save(Path(folder), self._stem()))

    def _save_seeds(self) -> None:
        if self._annotation is None:
            return
        usual = f"{self._stem()}.seeds.mrk.json"
        path, _ = QFileDialog.getSaveFileName(self, "Save seeds", usual, _FILES)
        if path:
            seeds = self._annotation.layers.seeds.metadata[KEY]["seeds"]
            try:
                write_seeds(path, seeds, name=self._stem())
            except MedrlError as error:
                self.status.error(str(error))
            else:
                self.status.say(f"Saved {len(seeds)} seeds as {path}")
