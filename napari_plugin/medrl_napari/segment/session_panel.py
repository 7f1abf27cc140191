"""The segment widget's side of its session: opening it, and showing what it answers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medrl.bundles import not_made_for
from medrl.errors import MedrlError
from medrl.seednet.seeds import LABEL_NAMES, Seed
from medrl.seednet.session import SeedSession
from medrl_napari.models import doubt_of, load_model
from medrl_napari.scans import Shown, shown_of
from medrl_napari.segment import operations
from medrl_napari.segment.annotation import Reactions, SeedAnnotation
from medrl_napari.segment.panel import SegmentPanel
from medrl_napari.segment.seed_tracker import SeedTracker
from medrl_napari.segment.session_state import State
from medrl_napari.segment.session_thread import Act, Operation, SessionThread
from medrl_napari.segment.store import KeptObject, SeedStore

if TYPE_CHECKING:
    import napari
    from napari.layers import Image

_KEPT = "Your seeds are kept: press Start to try again, or save them."


class SessionPanel(SegmentPanel):
    """Opens sessions, hands them operations, and shows masks, seeds and proposals."""

    def __init__(self, napari_viewer: napari.viewer.Viewer) -> None:
        """No session yet; nothing is added to the viewer before `begin`."""
        super().__init__(napari_viewer)
        self._thread: SessionThread | None = None
        self._annotation: SeedAnnotation | None = None
        self._store: SeedStore | None = None
        self._sources: list[Image] = []
        self._model = ""
        self._doubt: str | None = None
        self._told = ""
        self._seeds = SeedTracker()
        self._proposal: Seed | None = None
        self._run: Operation | None = None
        self._reactions: Reactions
        self._keys: dict[str, Callable[[], None]]
        self.life.callback(self._stop)
        self.follow(napari_viewer.layers.events.removed, self._layer_removed)
        self.follow(napari_viewer.layers.selection.events.active, self._active_changed)

    def leave(self) -> None:
        """End the session; what it has shown stays in the viewer."""
        self._end()

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
                channel: shown_of(layer, viewer=self.viewer) for channel, layer in layers.items()
            }
        except MedrlError as error:
            self.status.error(str(error))
            return False
        first = next(iter(layers.values()))
        main = next(iter(shown.values()))
        again = self._sources[:1] == [first]
        carried = self._objects() if again else ()
        self._end(keep_annotation=again)
        self._sources, self._model = list(layers.values()), self.scans.name
        self._store = SeedStore(_key(main, first))
        if self._annotation is None:
            self._annotation = SeedAnnotation(
                self.viewer, main, reactions=self._reactions, keys=self._keys
            )
            self._active_changed()
        images = {channel: one.scan for channel, one in shown.items()}
        self._doubt = doubt_of(self._model, images)
        self._thread = SessionThread(partial(_open_session, self._model, images), main)
        self._thread.auto = self.auto.isChecked()
        for signal, slot in (
            (self._thread.opened, self._opened),
            (self._thread.stated, self._stated),
            (self._thread.stepped, self._stepped),
            (self._thread.refused, self._refused),
            (self._thread.broken, self._broken),
            (self._thread.proposed, self._proposed),
            (self._thread.doubted, self._doubted),
        ):
            signal.connect(slot)
        self._thread.start()
        self.target.clear()
        self.target.addItems(self.scans.targets)
        if carried:
            # What the agent has placed was the other model's doing.
            own = [replace(o, seeds=tuple(s for s in o.seeds if s.who == "user")) for o in carried]
            self._bring([o for o in own if o.seeds])
        self._show_controls()
        self.status.say(f"Loading {self._model} and preparing the scan …")
        return True

    def _act(self, act: Act) -> None:
        """Do something to the session."""
        self._put(operations.plain(act))

    def _put(self, operation: Operation) -> None:
        if self._thread is None:
            self.status.error("Press Start first.")
            return
        self._thread.do(operation)
        # It was made for a state that is over.
        self._show_proposal(None, "…" if self._thread.auto else "")
        if operation.seeds:
            self._show_seeds()
            self._keep()

    def _bring(self, objects: Sequence[KeptObject], *, remark: str = "") -> None:
        """Give a session seeds that were kept."""
        operation = operations.restore(objects, remark=remark)
        self._seeds.pending += [(o.name, seed) for o in objects for seed in o.seeds]
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
        return self._seeds.objects(target=self.target.currentText())

    # ---- what the session answers

    def _opened(self, state: State) -> None:
        self._seeds.state = state
        self._answer(state)
        if not self._seeds.pending:
            self._tell(_summary(state))

    def _stated(self, operation: Operation, state: State, line: str | None) -> None:
        self._seeds.done(operation, state)
        self._end_run(operation)
        self._answer(state)
        self._tell(line or _summary(state))

    def _doubted(self, reasons: Sequence[str]) -> None:
        """Say what the mask tells of the model's fitness, once it is there to be looked at."""
        doubt = not_made_for(Path(self._model).name, reasons) if reasons else None
        if doubt and doubt != self._doubt:
            self._doubt = doubt
            self._tell(self._told)

    def _tell(self, line: str) -> None:
        self._told = line
        self.status.tell(line, (), doubt=self._doubt)

    def _stepped(self, state: State, placed: int) -> None:
        self._seeds.state = state
        self._answer(state)
        if self._run is not None:
            self.progress.setValue(placed)
            self.status.say(f"The agent has placed {placed} …")

    def _refused(self, operation: Operation, state: State, line: str) -> None:
        self._seeds.refused(operation, state)
        self._end_run(operation)
        self._answer(state)
        self.status.error(_sentence(line))

    def _broken(self, operation: Operation | None, line: str) -> None:
        opened = self._seeds.state
        if operation is not None or opened is None:
            self._seeds.failed(operation)
        self._end_run(operation)
        self._show_proposal(None, "")
        if opened is not None and operation is not None:
            self._answer(replace(opened, changed=operation.drawn))
        self._show_seeds()
        self._keep()
        anything = any(one.seeds for one in self._objects())
        self.status.error(f"{_sentence(line)} {_KEPT if anything else ''}".strip())

    def _proposed(self, proposal: Seed | None, serial: int) -> None:
        # One that was made before the last change is on its way for nothing.
        if self._thread is not None and serial == self._thread.serial and not self._run:
            nothing = "The agent expects nothing of another seed." if self._seeds.begun else ""
            self._show_proposal(proposal, nothing)

    def _answer(self, state: State) -> None:
        """Show what the session holds."""
        if self._annotation is not None:
            self._annotation.layers.show(state, self._seeds.outside)
            self.objects.show_state(state, self._annotation.layers.color)
        if self._seeds.held:
            self.restore.hide()
        self._keep()
        self._show_controls()

    def _show_seeds(self) -> None:
        if self._annotation is not None:
            self._annotation.layers.show_seeds(self._seeds.state, self._seeds.outside)

    def _show_proposal(self, proposal: Seed | None, otherwise: str) -> None:
        self._proposal = proposal
        if self._annotation is not None:
            self._annotation.layers.show_proposal(proposal)
        text = otherwise
        if proposal is not None:
            gain = f"{proposal.expected_gain:+.3f}"
            text = f"Next: <b>{LABEL_NAMES[proposal.label]}</b>, {gain} Dice"
        self.next.setText(text or "The agent's next seed")
        self._show_controls()

    def _set_run(self, run: Operation | None) -> None:
        self._run = run
        self._show_controls()

    def _end_run(self, operation: Operation | None) -> None:
        """The run of the agent is over, if that is what was answered."""
        if operation is self._run:
            self._set_run(None)

    def _show_controls(self) -> None:
        """What can be done now."""
        state, open_ = self._seeds.state, self._thread is not None
        running = self._run is not None
        self.start.setText("Restart" if open_ else "Start")
        for button in (self.accept, self.reject, self.go_to):
            button.setEnabled(self._proposal is not None)
        self.run.setText("Stop" if running else "Let it run")
        self.run.setEnabled(state is not None and bool(state.current))
        self.undo.setEnabled(state is not None and state.can_undo)
        self.redo.setEnabled(state is not None and state.can_redo)
        for button in (self.place, self.new_object, self.target):
            button.setEnabled(open_)
        self.target.setVisible(self.target.count() > 1)
        self.save.setEnabled(state is not None and bool(state.objects))
        self.save_seeds.setEnabled(self._annotation is not None)
        self.load.setEnabled(bool(self.scans.layers))
        self.progress.setMaximum(0 if running and self.progress.value() == 0 else 10)
        self.progress.setVisible(running)
        if not running:
            self.progress.setValue(0)

    # ---- the viewer

    def _layer_removed(self, event: Any) -> None:
        if event.value in self._sources:
            name = event.value.name
            self._end()
            self.status.warn(f"The scan {name} was closed. Its seeds stay in the viewer.")

    def _active_changed(self, _event: Any = None) -> None:
        self.place.setChecked(self._annotation is not None and self._annotation.active)

    def _end(self, *, keep_annotation: bool = False) -> None:
        """End the session; what it has shown stays in the viewer."""
        self._keep()
        if self._thread is not None:
            self._thread.stop()
        self._show_proposal(None, "")
        if self._annotation is not None and not keep_annotation:
            self._annotation.release()
            self._annotation = None
        self._thread, self._store, self._sources = None, None, []
        self._seeds = SeedTracker()
        self._set_run(None)
        self.objects.show_state(None, lambda _number: "#000000")
        self._look_for_earlier()

    def _stop(self) -> None:
        if self._thread is not None:
            self._thread.stop()
        if self._annotation is not None:
            self._annotation.release()

    def _look_for_earlier(self) -> None:
        """Offer seeds of an earlier session with the chosen scan."""
        key = self._chosen_key()
        earlier = SeedStore(key).earlier() if key else ()
        self.restore.setVisible(bool(earlier) and not self._seeds.held)
        count = sum(len(one.seeds) for one in earlier)
        self.restore.setToolTip(f"{count} seeds that you placed in this scan before")

    def _chosen_key(self) -> str:
        layer = next(iter(self.scans.layers.values()), None)
        try:
            return "" if layer is None else _key(shown_of(layer, viewer=self.viewer), layer)
        except MedrlError:
            return ""

    def _stem(self) -> str:
        assert self._annotation is not None
        return self._annotation.shown.stem(self._sources[0].name if self._sources else "scan")


def _open_session(model: str, images: dict[str, Any]) -> SeedSession:
    session: SeedSession = load_model(model).session()
    single = len(images) == 1 and len(session.model.settings.channels) == 1
    session.set_scan(next(iter(images.values())) if single else images)
    return session


def _key(shown: Shown, layer: Image) -> str:
    """What tells a scan from others: its path, or its name and grid."""
    return shown.file or str(layer.source.path or "") or f"{layer.name} {tuple(shown.scan.shape)}"


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
