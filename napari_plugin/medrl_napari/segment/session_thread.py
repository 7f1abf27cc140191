"""A seed session beside the window: one thread does one thing after another, in order."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from qtpy.QtCore import Signal

from medrl.errors import MedrlError
from medrl.seednet.seeds import Seed
from medrl.seednet.session import SeedSession
from medrl.trajectory import Step
from medrl_napari.jobs import Worker, line_of, silence
from medrl_napari.scans import Shown
from medrl_napari.segment.session_state import (
    Array,
    Box,
    ObjectState,
    State,
    difference,
    layer_box,
    union,
)

#: What to do with the session; a returned line is told to the user.
Act = Callable[[SeedSession], str | None]


@dataclass(frozen=True, eq=False)
class Operation:
    """One thing to do with the session.

    Attributes:
        act: What.
        seeds: Seeds it places, which the window shows already.
        keep: Those of them that must not be lost if it cannot be.
        drawn: Box of the label layer that the user has drawn in; it must show the truth again.
    """

    act: Act
    seeds: tuple[Seed, ...] = ()
    keep: tuple[Seed, ...] = ()
    drawn: Box | None = None


class _Stop(Exception):  # noqa: N818 - not an error: somebody asked for it
    """Ends a run of the agent."""


class SessionThread(Worker):
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
    """A `Seed`, or None if the agent would stop; and the `serial` that it was made for."""
    doubted = Signal(object)
    """Why the model was not made for the current object, one line each; none if it was."""

    def __init__(self, open_session: Callable[[], SeedSession], shown: Shown) -> None:
        """Prepare.

        Args:
            open_session: Gives the session, with its scan; called in the thread.
            shown: How the scan is shown whose grid the masks have.
        """
        super().__init__("medrl-seeds")
        self.serial = 0
        """How much has been asked for."""
        self._reached = 0
        self.auto = True
        """Whether to propose after every change."""
        self._open_session = open_session
        self._session: SeedSession | None = None
        self._shown = shown
        self._halt = False
        i, j, k = shown.scan.shape[1:]
        self._mapped: Array = np.zeros((i, j, k), dtype=np.uint8)
        self._voxels = np.zeros(256, dtype=np.int64)
        self._voxel_ml = abs(float(np.linalg.det(shown.affine[:3, :3]))) / 1000
        self.put(self._open)

    # ---- what the window asks for

    def do(self, operation: Operation) -> None:
        """Do this after all that was asked for before; a run of the agent ends for it."""
        self.serial += 1
        serial = self.serial
        self.put(lambda: self._do(operation, serial), idle=self.auto)

    def run_agent(self) -> Operation:
        """Let the agent place seeds until it stops, or `halt`, or anything else is asked for."""
        self._halt = False
        run = Operation(self._run_agent)
        self.do(run)
        return run

    def halt(self) -> None:
        """End a run of the agent; what it has placed stays."""
        self._halt = True

    def stop(self) -> None:
        """End: no signal comes any more; the thread ends after what it is doing."""
        super().stop()
        silence(self.opened, self.stated, self.stepped, self.refused, self.broken)
        silence(self.proposed, self.doubted)

    # ---- in the thread

    def _open(self) -> None:
        try:
            self._session = self._open_session()
            self.tell("opened", self._state(self._session))
        except Exception as error:
            self.tell("broken", None, line_of(error))
            super().stop()

    def _do(self, operation: Operation, serial: int) -> None:
        session, line, refusal = self._session, None, None
        self._reached = serial
        assert session is not None
        try:
            try:
                line = operation.act(session)
            except MedrlError as error:
                refusal = str(error)
            state = self._state(session, operation.drawn)
        except Exception as error:
            self.tell("broken", operation, line_of(error))
            return
        if refusal is None:
            self.tell("stated", operation, state, line)
        else:
            self.tell("refused", operation, state, refusal)

    def idle(self) -> None:
        """Say what the agent would do next."""
        session = self._session
        if session is None:
            return
        try:
            proposal = session.propose() if self._can_propose(session) else None
        except Exception as error:
            self.tell("broken", None, line_of(error))
            return
        if not self.wanted:
            self.tell("proposed", proposal, self._reached)
            self.tell("doubted", self._unfit(session))

    @staticmethod
    def _unfit(session: SeedSession) -> tuple[str, ...]:
        try:
            return session.unfit() if session.current else ()
        except MedrlError:  # it has no mask yet
            return ()

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
            self.tell("stepped", self._state(session), placed)
            if self._halt or self.wanted:
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
            changed=union(layer_box(self._shown, changed), drawn),
        )


def _seeds(number: int) -> str:
    return "1 seed" if number == 1 else f"{number} seeds"
