"""What the widgets in napari's docks have in common: room to scroll, one job at a time, an end."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import QEvent, QObject, Qt, QTimer, Signal
from qtpy.QtWidgets import (
    QFileDialog,
    QFrame,
    QLayout,
    QScrollArea,
    QSizePolicy,
    QVBoxLayout,
    QWidget,
)

from medrl.files import prepare_folder
from medrl_napari.agents import AgentsView
from medrl_napari.jobs import Job, Report
from medrl_napari.names import thin_names
from medrl_napari.replay import Replay
from medrl_napari.widgets import ProgressLine, StatusLine, WholeRows

if TYPE_CHECKING:
    import napari
    from qtpy.QtCore import QSize
    from qtpy.QtGui import QKeyEvent, QResizeEvent

    from medrl.trajectory import Trajectory
    from medrl_napari.space import Frame

#: By then what was shown before has been drawn.
_SOON_MS = 20


class Panel(QScrollArea):
    """A widget in a dock. Where the window is low it scrolls; nothing lies over anything else.

    Attributes:
        viewer: The viewer.
        status: Says how things stand.
        progress: Shows how much of a job is done.
        life: What is to be undone when the widget goes: last of all, without anything of Qt, which
            may be gone by then.
    """

    def __init__(self, viewer: napari.viewer.Viewer, parent: QWidget | None = None) -> None:
        """Prepare; `lay_out` fills it."""
        super().__init__(parent)
        self.viewer = viewer
        self.status = StatusLine()
        self.progress = ProgressLine()
        self.life = ExitStack()
        self.job: Job | None = None
        self._closed = False
        self.destroyed.connect(self.life.close)
        self.setWidgetResizable(True)
        self.setFrameShape(QFrame.Shape.NoFrame)
        self.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        self.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Expanding)

    def lay_out(self, *parts: QWidget | QLayout | None) -> None:
        """Put parts one below the other; None is a line between them, tables take what is left."""
        body = QWidget()
        layout = QVBoxLayout(body)
        layout.setContentsMargins(4, 4, 4, 4)
        layout.setSpacing(5)
        for part in parts:
            if isinstance(part, QLayout):
                layout.addLayout(part)
            elif part is not None:
                layout.addWidget(part, isinstance(part, WholeRows))
            else:
                line = QFrame()
                line.setFrameShape(QFrame.Shape.HLine)
                line.setEnabled(False)
                layout.addWidget(line)
        if not any(isinstance(part, WholeRows) for part in parts):
            layout.addStretch(1)
        self.setWidget(body)

    def minimumSizeHint(self) -> QSize:  # noqa: N802 - Qt's name
        """As wide as the parts need beside a scroll bar; of any height."""
        hint = super().minimumSizeHint()
        if self.widget() is not None:
            bar = self.verticalScrollBar().sizeHint().width()
            hint.setWidth(self.widget().minimumSizeHint().width() + bar)
        return hint

    def resizeEvent(self, event: QResizeEvent) -> None:  # noqa: N802 - Qt's name
        """Keep the parts as wide as what is seen: Qt forgets the scroll bar of lines that wrap."""
        super().resizeEvent(event)
        if self.widget() is not None:
            self.widget().setMaximumWidth(self.viewport().width())

    def eventFilter(self, watched: QObject, event: QEvent) -> bool:  # noqa: N802 - Qt's name
        """Pass on what the parts say of their size: a scroll area keeps it to itself."""
        if event.type() == QEvent.Type.LayoutRequest:
            self.updateGeometry()
        return bool(super().eventFilter(watched, event))

    def follow(self, event: Any, react: Callable[..., None]) -> None:
        """React to an event of napari as long as the widget is there."""
        event.connect(react)
        self.life.callback(event.disconnect, react)

    # ---- one job at a time

    @property
    def running(self) -> bool:
        """Whether a job is under way."""
        return self.job is not None and self.job.running

    def work(
        self,
        work: Callable[[Report], Any],
        saying: str,
        done: Callable[[Any], None],
        *,
        frame: Callable[[list[Any]], None] | None = None,
    ) -> None:
        """Do something beside the window.

        Args:
            work: What; gets a `Report`.
            saying: What the status says meanwhile.
            done: Called with what the work returned.
            frame: Called with the last steps of agents, now and then.
        """
        self.job = job = Job(work, parent=self)
        if frame is not None:
            job.framed.connect(frame)
        job.progressed.connect(self.progressed)
        for signal, act in (
            (job.done, done),
            (job.failed, self.failed),
            (job.cancelled, self.cancelled),
        ):
            signal.connect(act)
            signal.connect(lambda *_: self._end_job(job))
        self.progress.show_progress(0, 1)
        self.status.say(saying)
        job.start()
        self._show_busy()

    def save_into(self, folder: Path | None, write: Callable[[Path], Mapping[str, Path]]) -> None:
        """Write files beside the window, and name them.

        Args:
            folder: Where to, made if missing; asked for if None.
            write: Writes into a folder, and returns the files by kind.
        """
        if self.running:
            return
        if folder is None:
            chosen = QFileDialog.getExistingDirectory(self, "Folder for the results")
            if not chosen:
                return
            folder = Path(chosen)
        target = folder

        def save(_report: Report) -> Mapping[str, Path]:
            prepare_folder(target)
            return write(target)

        def saved(paths: Mapping[str, Path]) -> None:
            names = ", ".join(path.name for path in paths.values())
            self.status.say(f"Saved {names} in {target}.")

        self.work(save, f"Saving to {target} …", saved)

    def cancel(self) -> None:
        """End what is under way; nothing of it stays."""
        if self.job is not None:
            self.job.cancel()

    def progressed(self, done: int, total: int) -> None:
        """How much of the job is done."""
        self.progress.show_progress(done, total)

    def failed(self, line: str) -> None:
        """The job came to nothing, for a reason."""
        self.status.error(line)

    def cancelled(self) -> None:
        """The user did not want the job's result."""
        self.status.say("Cancelled.")

    def enable(self) -> None:
        """Allow what can be done now; called whenever a job begins or ends."""

    def _show_busy(self) -> None:
        self.progress.setVisible(self.running)
        self.enable()

    def _end_job(self, job: Job) -> None:
        # What it returned goes with it.
        job.deleteLater()
        if self.job is job:
            self.job = None
            if not self._closed:
                self._show_busy()

    def soon(self, act: Callable[[], None]) -> None:
        """Do something as soon as all that was shown so far is on the screen."""
        QTimer.singleShot(_SOON_MS, lambda: None if self._closed else act())

    # ---- the end

    def leave(self) -> None:
        """Called once, when the widget is taken out of its window, while Qt is still there."""

    def keyPressEvent(self, event: QKeyEvent) -> None:  # noqa: N802 - Qt's name
        """Escape cancels."""
        if event.key() == Qt.Key.Key_Escape:
            self.cancel()
        else:
            super().keyPressEvent(event)

    def event(self, event: QEvent) -> bool:
        """Notice when napari takes the widget out of its dock, which closes nothing for Qt."""
        if event.type() == QEvent.Type.ParentChange and self.parent() is None:
            self._leave_once()
        return bool(super().event(event))

    def closeEvent(self, event: Any) -> None:  # noqa: N802 - Qt's name
        """The window with the widget is closed."""
        self._leave_once()
        super().closeEvent(event)

    def _leave_once(self) -> None:
        if not self._closed:
            self._closed = True
            self.cancel()
            self.leave()
            self.life.close()


class AgentsDock(Panel):
    """A panel whose jobs are agents that are watched while they walk, and replayed afterwards."""

    finished = Signal(object)
    """A job has ended well, and all that came of it is shown; its result."""

    def __init__(self, viewer: napari.viewer.Viewer) -> None:
        """Show no agents yet."""
        super().__init__(viewer)
        self.agents: AgentsView | None = None
        self.replay = Replay(viewer, parent=self)
        self._replayed: tuple[Frame, Trajectory] | None = None
        self._watching = False
        self.life.callback(thin_names(viewer))

    def agents_in(self, frame: Frame) -> AgentsView:
        """The view of the agents: the same as before if it can be, as layers are slow to make."""
        if self.agents is None or not self.agents.frame.same_as(frame):
            self.remove_agents()
            self.agents = AgentsView(self.viewer, frame)
        return self.agents

    def remove_agents(self) -> None:
        """Show no agents."""
        if self.agents is not None:
            self.agents.remove()
            self.agents = None

    def show_paths(self, result: Any, frame: Frame, *, wanted: Callable[[], bool]) -> None:
        """Replay a result's trajectory, as soon as the result itself is on the screen.

        Args:
            result: With a ``trajectory``.
            frame: The viewer's.
            wanted: Whether it is still the result that is shown.
        """
        self._replayed = frame, result.trajectory

        def show() -> None:
            if not self.running and wanted():
                self.agents_in(frame).show(result.trajectory)
                self.replay.start()
                self.finished.emit(result)

        self.soon(show)

    def watch(self, steps: list[Any]) -> None:
        """Show the last steps of agents that are under way."""
        if self.agents is not None:
            self.agents.show_steps(steps)

    def work(self, *args: Any, **options: Any) -> None:
        """As all panels do; a replay ends."""
        self.replay.stop()
        self._watching = "frame" in options
        super().work(*args, **options)

    def forget_paths(self) -> None:
        """There is no result any more whose agents could be shown."""
        self._replayed = None

    def failed(self, line: str) -> None:
        """Show the agents of the last result again."""
        self._restore()
        super().failed(line)

    def cancelled(self) -> None:
        """Show the agents of the last result again."""
        self._restore()
        super().cancelled()

    def _restore(self) -> None:
        if self._watching and self._replayed is not None:
            frame, trajectory = self._replayed
            self.agents_in(frame).show(trajectory)
        elif self._watching:
            self.remove_agents()

    def leave(self) -> None:
        """Replay no more."""
        self.replay.stop()
