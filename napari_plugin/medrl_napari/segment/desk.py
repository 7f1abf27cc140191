"""A seed session beside the window: one thread does one thing after another, in order."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from qtpy.QtCore import QObject, Qt, Signal

from medrl.errors import MedrlError, describe
from medrl.seednet.seeds import Seed
from medrl.seednet.session import SeedSession
from medrl.trajectory import Step
from medrl.volume.space import voxel_to_world
from medrl_napari.scans import Shown

Array = NDArray[Any]
Box = tuple[slice, ...]
#: What to do with the session; a returned line is told to the user.
Act = Callable[[SeedSession], str | None]


@dataclass(frozen=True, eq=False)
class Operation:
    """One thing to do with the session.

    Attributes:
        act: What.
        seeds: Seeds it places, which the window shows already.
        dear: Those of them that must not be lost if it cannot be.
        drawn: Box of the label layer that the user has drawn in; it must show the truth again.
    """

    act: Act
    seeds: tuple[Seed, ...] = ()
    dear: tuple[Seed, ...] = ()
    drawn: Box | None = None


@dataclass(frozen=True, eq=False)
class ObjectState:
    """How one object stands.

    Attributes:
        name: What it is called.
        target: What kind of object it is.
        locked: Whether it is protected.
        seeds: The user's and the agent's.
        volume_ml: Of what the label map shows of it.
    """

    name: str
    target: str
    locked: bool
    seeds: tuple[Seed, ...]
    volume_ml: float


@dataclass(frozen=True, eq=False)
class State:
    """How a session stands, for the window.

    Attributes:
        objects: In their order; the first is number 1 in the label map.
        current: Name of the one that is worked on; empty before the first.
        outcome: How the agent's work on it stands, in words.
        can_undo: Whether it has a change to take back.
        can_redo: Whether it has one to make again.
        labels: The label map on the layer grid (z, y, x).
        changed: Box of it that may be another than before; None if nothing changed.
    """

    objects: tuple[ObjectState, ...]
    current: str
    outcome: str
    can_undo: bool
    can_redo: bool
    labels: Array
    changed: Box | None

    @property
    def number(self) -> int:
        """Of the current object in the label map; 0 before the first."""
        return next((n for n, o in enumerate(self.objects, 1) if o.name == self.current), 0)


class _Stop(Exception):  # noqa: N818 - not an error: somebody asked for it
    """Ends a run of the agent."""


#: Desks that were told to end and whose threads still run: nothing else keeps them alive.
_ending: set[Desk] = set()


class Desk(QObject):
    """Opens a session in a thread of its own and does there what the window asks for.

    Signals come on the window's thread, in the order of the work.
    """

    opened = Signal(object)
    """`State` of the new session."""
    stated = Signal(object, object, object)
    """`Operation`, `State` after it, and the line it returned or None."""
    stepped = Signal(object, int)
    """`State` while the agent runs, and how many seeds it has placed."""
    refused = Signal(object, object, str)
    """`Operation` that cannot be, `State` as it was, and the line that says why."""
    broken = Signal(object, str)
    """`Operation`, or None if there is no session, and one line about what no one has foreseen."""
    proposed = Signal(object, int)
    """`Proposal`, or None if the agent would stop; and the `serial` that it was made for."""
    ended = Signal()
    """The thread is over."""

    def __init__(self, open_session: Callable[[], SeedSession], shown: Shown) -> None:
        """Prepare.

        Args:
            open_session: Gives the session, with its scan; called in the thread.
            shown: How the scan is shown whose grid the masks have.
        """
        super().__init__()
        self.serial = 0
        """How much has been asked for."""
        self.auto = True
        """Whether to propose after every change."""
        self._open_session = open_session
        self._shown = shown
        self._waiting: deque[Operation] = deque()
        self._condition = threading.Condition()
        self._wants_proposal = False
        self._halt = False
        self._over = False
        i, j, k = shown.scan.shape[1:]
        self._mapped: Array = np.zeros((i, j, k), dtype=np.uint8)
        self._voxels = np.zeros(256, dtype=np.int64)
        self._voxel_ml = abs(float(np.linalg.det(shown.affine[:3, :3]))) / 1000
        self._thread = threading.Thread(target=self._run, name="medrl-seeds", daemon=True)
        self.ended.connect(self._forget, Qt.ConnectionType.QueuedConnection)

    def start(self) -> None:
        """Open the session."""
        self._thread.start()

    # ---- what the window asks for

    def put(self, operation: Operation) -> None:
        """Do this after all that was asked for before; a run of the agent ends for it."""
        with self._condition:
            self.serial += 1
            self._waiting.append(operation)
            self._wants_proposal = self.auto
            self._condition.notify()

    def run_agent(self) -> Operation:
        """Let the agent place seeds until it stops, or `halt`, or anything else is asked for."""
        self._halt = False
        operation = Operation(self._run_agent)
        self.put(operation)
        return operation

    def halt(self) -> None:
        """End a run of the agent; what it has placed stays."""
        self._halt = True

    def propose(self) -> None:
        """Say what the agent would do next, when nothing else is to be done."""
        with self._condition:
            self._wants_proposal = True
            self._condition.notify()

    def stop(self) -> None:
        """End: no signal comes any more; the thread ends after what it is doing."""
        with self._condition:
            if self._over:
                return
            self._over = True
            self._waiting.clear()
            self._condition.notify()
        _ending.add(self)
        signals = (self.opened, self.stated, self.stepped, self.refused, self.broken, self.proposed)
        for signal in signals:
            # Nobody has connected it, or Qt has gone already.
            with suppress(RuntimeError, TypeError):
                signal.disconnect()
        if not self._thread.is_alive():
            self._forget()

    @property
    def working(self) -> bool:
        """Whether its thread is alive."""
        return self._thread.is_alive()

    # ---- in the thread

    def _run(self) -> None:
        try:
            session = self._open_session()
            self._tell(self.opened, self._state(session))
        except Exception as error:
            self._tell(self.broken, None, _line(error))
        else:
            self._work(session)
        self._tell(self.ended)

    def _work(self, session: SeedSession) -> None:
        while True:
            with self._condition:
                while not (self._waiting or self._wants_proposal or self._over):
                    self._condition.wait()
                if self._over:
                    return
                operation = self._waiting.popleft() if self._waiting else None
                if operation is None:
                    self._wants_proposal = False
                serial = self.serial
            if operation is None:
                self._propose(session, serial)
            else:
                self._do(session, operation)

    def _do(self, session: SeedSession, operation: Operation) -> None:
        line, refusal = None, None
        try:
            try:
                line = operation.act(session)
            except MedrlError as error:
                refusal = str(error)
            state = self._state(session, operation.drawn)
        except Exception as error:
            self._tell(self.broken, operation, _line(error))
            return
        if refusal is None:
            self._tell(self.stated, operation, state, line)
        else:
            self._tell(self.refused, operation, state, refusal)

    def _propose(self, session: SeedSession, serial: int) -> None:
        try:
            proposal = session.propose() if self._can_propose(session) else None
        except Exception as error:
            self._tell(self.broken, None, _line(error))
            return
        with self._condition:
            overruled = bool(self._waiting) or self._over
        if not overruled:
            self._tell(self.proposed, proposal, serial)

    @staticmethod
    def _can_propose(session: SeedSession) -> bool:
        return (
            bool(session.current)
            and not session.is_locked()
            and any(seed.label for seed in session.seeds)
        )

    def _run_agent(self, session: SeedSession) -> str:
        placed = 0

        def watch(_step: Step) -> None:
            nonlocal placed
            placed += 1
            self._tell(self.stepped, self._state(session), placed)
            if self._halt or self._over or self._waiting:
                raise _Stop

        try:
            session.accept_all(watch=watch)
        except _Stop:
            return f"The agent was stopped after {_seeds(placed)}."
        return f"The agent placed {_seeds(placed)} and stopped by itself."

    def _state(self, session: SeedSession, drawn: Box | None = None) -> State:
        """How it stands now; the label map is made anew."""
        before = self._mapped
        try:
            after = session.labels().numpy()[0]
        except MedrlError:  # nothing has a foreground seed
            after = np.zeros_like(before)
        changed = difference(before, after)
        if changed is not None:
            self._voxels += np.bincount(after[changed].ravel(), minlength=256)
            self._voxels -= np.bincount(before[changed].ravel(), minlength=256)
        self._mapped = after
        objects = tuple(
            ObjectState(
                name,
                session.target_of(name),
                session.is_locked(name),
                session.seeds_of(name),
                float(self._voxels[number]) * self._voxel_ml,
            )
            for number, name in enumerate(session.objects, 1)
        )
        return State(
            objects=objects,
            current=session.current,
            outcome=session.outcome() if session.current else "",
            can_undo=session.can_undo,
            can_redo=session.can_redo,
            labels=self._shown.to_layer_grid(after),
            changed=_union(layer_box(self._shown, changed), drawn),
        )

    @staticmethod
    def _tell(signal: Any, *what: Any) -> None:
        """Emit, unless Qt has gone already."""
        with suppress(RuntimeError):
            signal.emit(*what)

    def _forget(self) -> None:
        _ending.discard(self)


def difference(before: Array, after: Array) -> Box | None:
    """The smallest box that holds all voxels in which two label maps differ; None if none do.

    Args:
        before: uint8, of any number of axes.
        after: Of the same shape.
    """
    one, other = np.ascontiguousarray(before).ravel(), np.ascontiguousarray(after).ravel()
    # Eight voxels at a time, which is how memory likes to be read; then those of a few words.
    even = len(one) // 8 * 8
    words = np.flatnonzero(one[:even].view(np.uint64) != other[:even].view(np.uint64))
    voxels = np.concatenate([(8 * words[:, None] + np.arange(8)).ravel(), range(even, len(one))])
    voxels = voxels.astype(np.int64)
    voxels = voxels[one[voxels] != other[voxels]]
    if not len(voxels):
        return None
    places = np.unravel_index(voxels, before.shape)
    return tuple(slice(int(axis.min()), int(axis.max()) + 1) for axis in places)


def layer_box(shown: Shown, box: Box | None) -> Box | None:
    """The box of the layer grid (z, y, x) that shows a box of the scan's (I, J, K)."""
    if box is None or shown.resampled:
        # Wherever it may be: all of it.
        return None if box is None else tuple(slice(0, n) for n in shown.shape)
    ends = np.array([[part.start, part.stop - 1] for part in box], dtype=np.float64).T
    there = shown.frame.to_napari(voxel_to_world(ends, shown.scan.affine))
    voxels = np.round((there - shown.translate) / shown.scale).astype(int)
    low, high = voxels.min(axis=0), voxels.max(axis=0) + 1
    return tuple(slice(int(a), int(b)) for a, b in zip(low, high, strict=True))


def _union(one: Box | None, other: Box | None) -> Box | None:
    if one is None or other is None:
        return one or other
    pairs = zip(one, other, strict=True)
    return tuple(slice(min(a.start, b.start), max(a.stop, b.stop)) for a, b in pairs)


def _seeds(number: int) -> str:
    return "1 seed" if number == 1 else f"{number} seeds"


def _line(error: Exception) -> str:
    if isinstance(error, MedrlError):
        return str(error)
    if isinstance(error, MemoryError):
        return "there is not enough memory for this"
    return describe(error)
