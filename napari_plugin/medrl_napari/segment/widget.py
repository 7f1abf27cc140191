"""Segment with seeds in napari: the user clicks, the mask follows, the agent proposes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import QEvent, Qt
from qtpy.QtGui import QKeySequence
from qtpy.QtWidgets import QFileDialog, QShortcut, QWidget

from medrl.errors import MedrlError
from medrl.files import stem_of
from medrl.seednet.seeds import LABEL_NAMES, Seed, read_seeds, write_seeds
from medrl.seednet.session import Proposal, SeedSession
from medrl.walker.segmenter import BACKGROUND, FOREGROUND
from medrl_napari.scans import KEY, Shown, center_views, shown_of
from medrl_napari.segment import operations
from medrl_napari.segment.book import SeedBook
from medrl_napari.segment.desk import Act, Array, Box, Desk, Operation, State
from medrl_napari.segment.panel import ModelAndScans, SegmentPanel
from medrl_napari.segment.scene import Reactions, SeedScene
from medrl_napari.segment.store import KeptObject, SeedStore
from medrl_napari.widgets import load_model

if TYPE_CHECKING:
    import napari
    from napari.layers import Image

_KEPT = "Your seeds are kept: press Start to try again, or save them."
_FILES = "3D Slicer markups (*.mrk.json)"


class SegmentWidget(SegmentPanel):
    """Place seeds, see the mask follow, accept or reject what the agent proposes."""

    def __init__(self, napari_viewer: napari.viewer.Viewer, parent: QWidget | None = None) -> None:
        """Wire the parts up; nothing is added to the viewer before Start."""
        super().__init__(napari_viewer, parent)
        self._viewer = napari_viewer
        self._desk: Desk | None = None
        self._scene: SeedScene | None = None
        self._store: SeedStore | None = None
        self._sources: list[Image] = []
        self._model = ""
        self._book = SeedBook()
        self._proposal: Proposal | None = None
        self._running = False
        self._life = _Life(napari_viewer, self.scans, self._layer_removed, self._active_changed)
        self.destroyed.connect(self._life.end)
        self._wire()
        self._look_for_earlier()
        self._show_controls()
        self.status.say("Choose a scan and press Start.")

    def event(self, event: QEvent) -> bool:
        """Qt's; when napari closes the dock, it takes the widget out and tells it nothing else."""
        if event.type() == QEvent.Type.ParentChange and self.parent() is None:
            self._end()
            self._life.end()
        return bool(super().event(event))

    # ---- the session

    def begin(self) -> bool:
        """Open a session with the chosen scan and model; seeds of the same scan are carried over.

        Returns:
            Whether there is something to open it with.
        """
        layers = self.scans.layers
        if not layers:
            self.status.error("Open a scan and choose it first.")
            return False
        try:
            shown = {
                channel: shown_of(layer, viewer=self._viewer) for channel, layer in layers.items()
            }
        except MedrlError as error:
            self.status.error(str(error))
            return False
        first = next(iter(layers.values()))
        main = next(iter(shown.values()))
        again = self._sources[:1] == [first]
        carried = self._objects() if again else ()
        self._end(keep_scene=again)
        self._sources, self._model = list(layers.values()), self.scans.name
        self._store = SeedStore(_key(main, first))
        if self._scene is None:
            self._open_scene(main)
        images = {channel: one.scan for channel, one in shown.items()}
        self._desk = Desk(partial(_open_session, self._model, images), main)
        self._desk.auto = self.auto.isChecked()
        self._life.desk = self._desk
        for signal, slot in (
            (self._desk.opened, self._opened),
            (self._desk.stated, self._stated),
            (self._desk.stepped, self._stepped),
            (self._desk.refused, self._refused),
            (self._desk.broken, self._broken),
            (self._desk.proposed, self._proposed),
        ):
            signal.connect(slot)
        self._desk.start()
        self.target.clear()
        self.target.addItems(self.scans.targets)
        if carried:
            # What the agent has placed was the other model's doing.
            own = [replace(o, seeds=tuple(s for s in o.seeds if s.who == "user")) for o in carried]
            self._bring([o for o in own if o.seeds])
        self._show_controls()
        self.status.say(f"Loading {self._model} and preparing the scan …")
        return True

    def place_seed(self, points_world: Array, label: int) -> None:
        """Place a seed in the current object.

        Args:
            points_world: (P, 3) RAS mm; several for a scribble.
            label: BACKGROUND or FOREGROUND.
        """
        if self._desk is None:
            self.status.error("Press Start first.")
            return
        if not len(points_world):
            self._show_seeds()
            self.status.warn("There is nothing of the scan under the mouse.")
            return
        # What the model has failed on gets another chance.
        again = self._book.take_unheard()
        seeds = [*again, Seed(points_world, label)]
        self._book.waiting += [(self._book.current, seed) for seed in seeds]
        self._put(operations.place(seeds, dear=again, target=self.target.currentText()))

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

    def _act(self, act: Act) -> None:
        """Do something to the session."""
        self._put(operations.plain(act))

    def _put(self, operation: Operation) -> None:
        if self._desk is None:
            self.status.error("Press Start first.")
            return
        self._desk.put(operation)
        # It was made for a state that is over.
        self._show_proposal(None, "…" if self._desk.auto else "")
        if operation.seeds:
            self._show_seeds()
            self._keep()

    def _accept(self) -> None:
        if self._proposal is not None:
            self._act(SeedSession.accept)

    def _reject(self) -> None:
        if self._proposal is not None:
            self._act(SeedSession.reject)

    def _toggle_run(self) -> None:
        if self._desk is None or not self._book.current:
            self.status.warn("Place a seed inside the object first.")
        elif self._running:
            self._desk.halt()
            self._set_running(False)
        else:
            self._show_proposal(None, "…")
            self._set_running(True)
            self._desk.run_agent()

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
        seeds = self._scene.seeds_under_mouse() if self._scene is not None else []
        if seeds:
            self._remove(seeds)
        else:
            self.status.warn("There is no seed under the mouse.")

    def _remove(self, seeds: Sequence[Seed]) -> None:
        chosen = {id(seed) for seed in seeds}
        self._book.forget(seeds)
        held = [seed for seed in self._book.held if id(seed) in chosen]
        if held:
            self._put(operations.remove(held))
        self._show_seeds()
        self._keep()

    def _stroke(self, points_world: Array, shifted: bool) -> None:
        self.place_seed(points_world, 1 - self.label if shifted else self.label)

    def _draft(self, points_world: Array, shifted: bool) -> None:
        """Show a scribble while it is drawn."""
        if self._scene is not None and len(points_world):
            seed = Seed(points_world, 1 - self.label if shifted else self.label)
            more = [*self._book.beyond, (self._book.current, seed)]
            self._scene.layers.show_seeds(self._book.state, more)

    def _drawn(self, before: Array, after: Array, box: Box) -> None:
        if self._scene is not None:
            self._put(operations.draw(self._scene.shown, before, after, box))

    def _set_auto(self, on: bool) -> None:
        if self._desk is not None:
            self._desk.auto = on
            if on:
                self._desk.propose()
            else:
                self._show_proposal(None, "")

    def _recolor(self, number: int, color: str) -> None:
        if self._scene is not None:
            self._scene.layers.recolor(number, color)
            self._show_seeds()
            self.objects.show_state(self._book.state, self._scene.layers.color)

    def _show_proposal_in_views(self) -> None:
        if self._proposal is not None and self._scene is not None:
            frame = self._scene.shown.frame
            center_views(self._viewer, frame.to_napari(self._proposal.position_world))

    def _activate_tool(self) -> None:
        if self._scene is not None:
            self._scene.activate()
        self._active_changed()

    # ---- files

    def _restore(self) -> None:
        earlier = SeedStore(self._chosen_key()).earlier()
        if earlier and (self._desk is not None or self.begin()):
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
        if self._desk is not None or self.begin():
            self._book.waiting += [(self._book.current, seed) for seed in seeds]
            self._put(operations.place(seeds, dear=(), target=self.target.currentText()))

    def _save(self) -> None:
        folder = QFileDialog.getExistingDirectory(self, "Folder to save into")
        if folder and self._scene is not None:
            self._put(operations.save(Path(folder), self._stem()))

    def _save_seeds(self) -> None:
        if self._scene is None:
            return
        usual = f"{self._stem()}.seeds.mrk.json"
        path, _ = QFileDialog.getSaveFileName(self, "Save seeds", usual, _FILES)
        if path:
            seeds = self._scene.layers.seeds.metadata[KEY]["seeds"]
            try:
                write_seeds(path, seeds, name=self._stem())
            except MedrlError as error:
                self.status.error(str(error))
            else:
                self.status.say(f"Saved {len(seeds)} seeds as {path}")

    def _bring(self, objects: Sequence[KeptObject], *, remark: str = "") -> None:
        """Give a session seeds that were kept."""
        operation = operations.restore(objects, remark=remark)
        self._book.waiting += [(o.name, seed) for o in objects for seed in o.seeds]
        self._put(operation)

    def _keep(self) -> None:
        """Write the seeds down, in case anything happens."""
        if self._store is not None:
            try:
                self._store.keep(self._objects(), model=self._model)
            except MedrlError as error:
                self.status.warn(str(error))

    def _objects(self) -> tuple[KeptObject, ...]:
        """All seeds there are, by their objects."""
        return self._book.objects(target=self.target.currentText())

    # ---- what the session answers

    def _opened(self, state: State) -> None:
        self._book.state = state
        self._answer(state)
        if not self._book.waiting:
            self.status.say(_summary(state))

    def _stated(self, operation: Operation, state: State, line: str | None) -> None:
        self._book.done(operation, state)
        self._set_running(False)
        self._answer(state)
        self.status.say(line or _summary(state))

    def _stepped(self, state: State, placed: int) -> None:
        self._book.state = state
        self._answer(state)
        if self._running:
            self.progress.setValue(placed)
            self.status.say(f"The agent has placed {placed} …")

    def _refused(self, operation: Operation, state: State, line: str) -> None:
        self._book.refused(operation, state)
        self._set_running(False)
        self._answer(state)
        self.status.error(_sentence(line))

    def _broken(self, operation: Operation | None, line: str) -> None:
        opened = self._book.state
        if operation is not None or opened is None:
            self._book.failed(operation)
        self._set_running(False)
        self._show_proposal(None, "")
        if opened is not None and operation is not None:
            self._answer(replace(opened, changed=operation.drawn))
        self._show_seeds()
        self._keep()
        anything = any(one.seeds for one in self._objects())
        self.status.error(f"{_sentence(line)} {_KEPT if anything else ''}".strip())

    def _proposed(self, proposal: Proposal | None, serial: int) -> None:
        # One that was made before the last change is on its way for nothing.
        if self._desk is not None and serial == self._desk.serial and not self._running:
            nothing = "The agent expects nothing of another seed." if self._book.begun else ""
            self._show_proposal(proposal, nothing)

    def _answer(self, state: State) -> None:
        """Show what the session holds."""
        if self._scene is not None:
            self._scene.layers.show(state, self._book.beyond)
            self.objects.show_state(state, self._scene.layers.color)
        if self._book.held:
            self.restore.hide()
        self._keep()
        self._show_controls()

    def _show_seeds(self) -> None:
        if self._scene is not None:
            self._scene.layers.show_seeds(self._book.state, self._book.beyond)

    def _show_proposal(self, proposal: Proposal | None, otherwise: str) -> None:
        self._proposal = proposal
        if self._scene is not None:
            self._scene.layers.show_proposal(proposal)
        text = otherwise
        if proposal is not None:
            gain = f"{proposal.expected_gain:+.3f}"
            text = f"Next: <b>{LABEL_NAMES[proposal.label]}</b>, {gain} Dice"
        self.next.setText(text or "The agent's next seed")
        self._show_controls()

    def _set_running(self, on: bool) -> None:
        self._running = on
        self._show_controls()

    def _show_controls(self) -> None:
        """What can be done now."""
        state, open_ = self._book.state, self._desk is not None
        self.start.setText("Restart" if open_ else "Start")
        for button in (self.accept, self.reject, self.go_to):
            button.setEnabled(self._proposal is not None)
        self.run.setText("Stop" if self._running else "Let it run")
        self.run.setEnabled(state is not None and bool(state.current))
        self.undo.setEnabled(state is not None and state.can_undo)
        self.redo.setEnabled(state is not None and state.can_redo)
        for button in (self.place, self.new_object, self.target):
            button.setEnabled(open_)
        self.target.setVisible(self.target.count() > 1)
        self.save.setEnabled(state is not None and bool(state.objects))
        self.save_seeds.setEnabled(self._scene is not None)
        self.load.setEnabled(bool(self.scans.layers))
        self.progress.setMaximum(0 if self._running and self.progress.value() == 0 else 10)
        self.progress.setVisible(self._running)
        if not self._running:
            self.progress.setValue(0)

    # ---- the viewer

    def _open_scene(self, shown: Shown) -> None:
        reactions = Reactions(
            stroke=self._stroke,
            draft=self._draft,
            drawn=self._drawn,
            added=lambda point: self.place_seed(point, self.label),
            removed=self._remove,
            moved=lambda seed, points: self._put(operations.move(seed, points)),
        )
        self._scene = SeedScene(self._viewer, shown, reactions=reactions, keys=self._keys)
        self._life.scene = self._scene
        self._active_changed()

    def _layer_removed(self, event: Any) -> None:
        if event.value in self._sources:
            name = event.value.name
            self._end()
            self.status.warn(f"The scan {name} was closed. Its seeds stay in the viewer.")

    def _end(self, *, keep_scene: bool = False) -> None:
        """End the session; what it has shown stays in the viewer."""
        self._keep()
        if self._desk is not None:
            self._desk.stop()
        self._show_proposal(None, "")
        if self._scene is not None and not keep_scene:
            self._scene.release()
            self._scene = None
        self._desk, self._store, self._sources = None, None, []
        self._book = SeedBook()
        self._set_running(False)
        self.objects.show_state(None, lambda _number: "#000000")
        self._look_for_earlier()

    def _active_changed(self, _event: Any = None) -> None:
        self.place.setChecked(self._scene is not None and self._scene.active)

    def _look_for_earlier(self) -> None:
        """Offer seeds of an earlier session with the chosen scan."""
        key = self._chosen_key()
        earlier = SeedStore(key).earlier() if key else ()
        self.restore.setVisible(bool(earlier) and not self._book.held)
        count = sum(len(one.seeds) for one in earlier)
        self.restore.setToolTip(f"{count} seeds that you placed in this scan before")

    def _chosen_key(self) -> str:
        layer = next(iter(self.scans.layers.values()), None)
        try:
            return "" if layer is None else _key(shown_of(layer, viewer=self._viewer), layer)
        except MedrlError:
            return ""

    def _stem(self) -> str:
        assert self._scene is not None
        path = str(self._scene.shown.scan.meta.get("filename_or_obj", ""))
        name = self._sources[0].name if self._sources else "scan"
        return stem_of(Path(path)) if path else name.replace("/", "-")


class _Life:
    """What must end with the widget; needs nothing of Qt, which is gone by then."""

    def __init__(
        self,
        viewer: napari.viewer.Viewer,
        scans: ModelAndScans,
        removed: Callable[..., None],
        active: Callable[..., None],
    ) -> None:
        self.desk: Desk | None = None
        self.scene: SeedScene | None = None
        self._scans = scans
        self._over = False
        self._events = (
            (viewer.layers.events.removed, removed),
            (viewer.layers.selection.events.active, active),
        )
        for event, react in self._events:
            event.connect(react)

    def end(self) -> None:
        """The widget is gone, or as good as gone."""
        if self._over:
            return
        self._over = True
        for event, react in self._events:
            event.disconnect(react)
        self._scans.release()
        if self.desk is not None:
            self.desk.stop()
        if self.scene is not None:
            self.scene.release()


def _open_session(model: str, images: dict[str, Any]) -> SeedSession:
    loaded, manifest = load_model("seednet", model)
    session = SeedSession(loaded, manifest=manifest)
    single = len(images) == 1 and len(loaded.settings.channels) == 1
    session.set_scan(next(iter(images.values())) if single else images)
    return session


def _key(shown: Shown, layer: Image) -> str:
    """What tells a scan from others: its path, or its name and grid."""
    path = str(shown.scan.meta.get("filename_or_obj", "") or layer.source.path or "")
    return path or f"{layer.name} {tuple(shown.scan.shape)}"


def _summary(state: State) -> str:
    """The current object in a line."""
    own = next((one for one in state.objects if one.name == state.current), None)
    if own is None:
        return "Click in the object that you want."
    if not any(seed.label for seed in own.seeds) and not own.volume_ml:
        return f"Click in the object {own.name}."
    agents = sum(seed.who == "agent" for seed in own.seeds)
    yours = len(own.seeds) - agents
    return f"{own.name}: {own.volume_ml:.2f} ml; seeds: {yours} of yours, {agents} of the agent."


def _sentence(line: str) -> str:
    """An error as a sentence."""
    text = line[:1].upper() + line[1:]
    return text if text.endswith((".", ")")) else text + "."
