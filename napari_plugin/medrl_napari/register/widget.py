"""The widget that registers two scans, and shows how the agents find the way."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import QEvent, Qt, QTimer
from qtpy.QtGui import QCloseEvent
from qtpy.QtWidgets import (
    QFileDialog,
    QHBoxLayout,
    QLabel,
    QLayout,
    QProgressBar,
    QPushButton,
    QSlider,
    QVBoxLayout,
    QWidget,
)

from medrl.errors import MedrlError
from medrl.trajectory import Step
from medrl.volume.transform_files import read_transform
from medrl_napari.jobs import Job
from medrl_napari.register.aligned_view import AlignedView
from medrl_napari.register.answers import Answer, register
from medrl_napari.register.compare_bar import CompareBar
from medrl_napari.register.form import RegisterForm, Request
from medrl_napari.register.preview import Preview
from medrl_napari.register.starts import Starts, StartTable
from medrl_napari.scans import Shown, add, image_layer
from medrl_napari.space import Floats
from medrl_napari.widgets import StatusLine

if TYPE_CHECKING:
    from napari.layers import Image
    from napari.viewer import Viewer

#: Files that hold a transform, as the dialogs name them.
_TO_READ = "Transforms (*.tfm *.h5 *.hdf5 *.txt *.mat *.lta)"
_TO_WRITE = "ITK transform (*.tfm);;ITK transform, HDF5 (*.h5);;4x4 matrix (*.txt);;LTA (*.lta)"


class RegisterWidget(QWidget):
    """Choose two scans, let agents bring one onto the other, look closely, keep the result."""

    #: Whether it has been put into a window; Qt's first events come before all else is there.
    _docked = False

    def __init__(self, napari_viewer: Viewer, parent: QWidget | None = None) -> None:
        """Offer what the viewer holds.

        Args:
            napari_viewer: The viewer.
            parent: The widget around it.
        """
        super().__init__(parent)
        self.viewer = napari_viewer
        self.form = RegisterForm(napari_viewer)
        self.run = _button("Register", "Let the agents find the transform", self._run)
        self.cancel = _button("Cancel", "Stop, and put the scans back", self._cancel)
        self.progress = QProgressBar()
        self.progress.setTextVisible(False)
        self.progress.setMaximumHeight(14)
        self.status = StatusLine()
        self.table = StartTable()
        self.table.setToolTip("Click on a start to see where its agent brought the moving scan")
        self.table.setMinimumHeight(104)
        self.table.picked.connect(self._show_start)
        self.steps = QSlider(Qt.Orientation.Horizontal)
        self.steps.setToolTip("Replay the way of the agent that gave the answer")
        self.steps.valueChanged.connect(self._show_step)
        self.step_label = QLabel()
        longest = self.fontMetrics().horizontalAdvance("17 of 17, at 8 mm: about 26.5 mm off")
        self.step_label.setMinimumWidth(longest)
        self.step_label.setToolTip("How far off the agent took itself to be at this step")
        self.bar = CompareBar()
        self.apply = _button(
            "Apply", "Keep the aligned scan as a layer, on the fixed scan's grid", self._apply
        )
        self.save = _button(
            "Save\N{HORIZONTAL ELLIPSIS}",
            "Write transform, aligned scan, report, path and pictures into a folder, as "
            "`medrl register` does",
            self._save,
        )
        self.load_transform = _button(
            "Load transform\N{HORIZONTAL ELLIPSIS}",
            "See the moving scan under a transform from a file, apply it, or start from it",
            self._load_transform,
        )
        self.save_transform = _button(
            "Save transform\N{HORIZONTAL ELLIPSIS}",
            "Write the answer for ITK and 3D Slicer (.tfm, .h5), as 4x4 matrix (.txt), or for "
            "FreeSurfer (.lta)",
            self._save_transform,
        )
        self.view = AlignedView(napari_viewer, self.bar, self)
        self.view.failed.connect(self.status.error)
        self._starts = Starts()
        self._stops: list[tuple[Floats, str]] = []
        self._answer: Answer | None = None
        self._job: Job | None = None
        self._shown_layers: tuple[Image, ...] = ()
        self._soon = QTimer(self)
        self._soon.setSingleShot(True)
        self._soon.setInterval(0)
        self._soon.timeout.connect(self._do_without)
        napari_viewer.layers.events.removed.connect(self._on_removed)
        self._lay_out()
        self._enable()

    @property
    def answer(self) -> Answer | None:
        """The transform that would be applied or saved."""
        return self._answer

    @property
    def running(self) -> bool:
        """Whether work is under way."""
        return self._job is not None

    def leave(self) -> None:
        """End all work, and leave the viewer as it was before."""
        job, self._job = self._job, None
        if job is not None:
            job.cancel()
        self.view.close()
        self.form.release()
        self.viewer.layers.events.removed.disconnect(self._on_removed)

    def closeEvent(self, event: QCloseEvent) -> None:  # noqa: N802 - Qt's name
        """The window with the widget is closed."""
        self._leave_once()
        super().closeEvent(event)

    def event(self, event: QEvent) -> bool:
        """Notice when napari takes the widget out of its dock, which closes nothing for Qt."""
        if event.type() == QEvent.Type.ParentChange:
            if self.parent() is not None:
                self._docked = True
            elif self._docked:
                self._leave_once()
        return bool(super().event(event))

    # ------------------------------------------------------------------------------- registering

    def _run(self) -> None:
        try:
            request = self.form.request()
        except MedrlError as error:
            self.status.error(str(error))
            return
        self._begin(request)
        preview = Preview(request.fixed, request.moving)
        self.view.set(preview, request.fixed_layer, request.moving_layer)
        self.progress.setRange(0, 0)
        self.status.say("preparing the scans")
        job = Job(lambda report: register(request, preview, report), parent=self)
        job.stepped.connect(self._on_steps)
        job.progressed.connect(self._on_progress)
        job.cancelled.connect(lambda: self._on_end("cancelled"))
        self._start(job, self._on_answer)

    def _begin(self, request: Request) -> None:
        """Forget what was before."""
        self._answer = None
        self._starts = Starts()
        self._set_stops([])
        self.table.choose(None)
        self.table.show_starts(self._starts)
        self._shown_layers = (request.fixed_layer, request.moving_layer)

    def _on_steps(self, steps: list[Step]) -> None:
        self._starts.add(steps)
        self.table.show_starts(self._starts)
        leader = self._starts.leader
        if leader is not None:
            self.view.follow(leader.transform_world)

    def _on_progress(self, done: int, total: int) -> None:
        if done < total:
            self.progress.setRange(0, total)
            self.progress.setValue(done)
            count = sum(start.walking for start in self._starts.by_number.values())
            again = " between the orientations" if max(self._starts.by_number) >= 24 else ""
            self.status.say(f"searching: {count} agents on their way{again}")
        else:
            self.progress.setRange(0, 0)
            refine = self._job is not None and self.form.refine.isChecked()
            self.status.say("refining" if refine else "judging the answer")

    def _on_answer(self, answer: Answer) -> None:
        self._answer = answer
        registration = answer.registration
        if registration is not None:
            (path,) = registration.path.agents
            self._starts.best = path.start
            self.table.show_starts(self._starts)
            self._set_stops(answer.stops())
            tell = self.status.say if registration.trusted else self.status.warn
            tell(answer.told())
        self.view.show(answer.transform_world)

    def _on_end(self, line: str) -> None:
        """The registration came to nothing."""
        self.view.close()
        self.status.say(line)

    # ------------------------------------------------------------------------------------ looking

    def _show_start(self, number: int) -> None:
        start = self._starts.by_number.get(number)
        if start is not None:
            self.view.show(start.transform_world)

    def _set_stops(self, stops: list[tuple[Floats, str]]) -> None:
        self._stops = stops
        self.steps.blockSignals(True)
        self.steps.setRange(0, max(len(stops) - 1, 0))
        self.steps.setValue(len(stops) - 1)
        self.steps.blockSignals(False)
        self.steps.setEnabled(len(stops) > 1)
        self.step_label.setText(stops[-1][1] if stops else "")

    def _show_step(self, index: int) -> None:
        if index < len(self._stops):
            transform, line = self._stops[index]
            self.step_label.setText(line)
            self.table.choose(None)
            self.view.show(transform)

    def _on_removed(self, event: Any) -> None:
        if event.value in self._shown_layers:
            # napari is still busy taking it away.
            self._soon.start()

    def _do_without(self) -> None:
        """A scan that was registered may have been taken away."""
        gone = [la for la in self._shown_layers if la not in self.viewer.layers]
        if gone and self._job is not None:
            self._job.cancel()
            self.status.warn(f"cancelled: {gone[0].name} was taken away")
        if self._shown_layers[:1] == tuple(gone[:1]):
            self.view.close()

    # ------------------------------------------------------------------------------------ keeping

    def _apply(self) -> None:
        answer = self._answer
        if answer is None:
            return
        self.status.say("resampling")
        job = Job(lambda _: answer.aligned(), parent=self)
        self._start(job, lambda shown: self._on_applied(answer, shown))

    def _on_applied(self, answer: Answer, shown: Shown) -> None:
        self.view.close()
        request = answer.request
        name = f"{request.moving_layer.name} on {request.fixed_layer.name}"
        data, settings, kind = image_layer(shown, name=name)
        settings["contrast_limits"] = request.moving_layer.contrast_limits
        add(self.viewer, (data, settings, kind))
        self.status.say(f"{name}: added as a layer")

    def _save(self) -> None:
        answer = self._answer
        if answer is None or answer.registration is None:
            return
        folder = QFileDialog.getExistingDirectory(self, "Folder to write into")
        if not folder:
            return
        self.status.say("writing")
        self._start(
            Job(lambda _: answer.write(Path(folder)), parent=self),
            lambda count: self.status.say(f"wrote {count} files into {folder}"),
        )

    def _load_transform(self) -> None:
        try:
            request = self.form.request()
            path, _ = QFileDialog.getOpenFileName(self, "Load a transform", "", _TO_READ)
            if not path:
                return
            matrix = read_transform(path, fixed=request.fixed.scan, moving=request.moving)
        except MedrlError as error:
            self.status.error(str(error))
            return
        name = Path(path).name
        self._begin(request)
        preview = Preview(request.fixed, request.moving)
        self.view.set(preview, request.fixed_layer, request.moving_layer)
        self.form.start_from(matrix, f"from {name}")
        self._on_answer(Answer(request, matrix))
        self.status.say(f"{name}: shown; Apply keeps it, Register starts from it")
        self._enable()

    def _save_transform(self) -> None:
        answer = self._answer
        if answer is None:
            return
        stem = "{}_to_{}.tfm".format(*answer.names)
        path, _ = QFileDialog.getSaveFileName(self, "Save the transform", stem, _TO_WRITE)
        if not path:
            return
        target = Path(path) if Path(path).suffix else Path(path).with_suffix(".tfm")
        try:
            answer.write_transform(target)
        except MedrlError as error:
            self.status.error(str(error))
        else:
            self.status.say(f"wrote {target}")

    # ----------------------------------------------------------------------------------- the rest

    def _start(self, job: Job, then: Callable[[Any], None]) -> None:
        """Let a job run; afterwards the buttons can be pressed again."""

        def end(action: Callable[[], None]) -> None:
            # What it returned goes with it.
            job.deleteLater()
            if self._job is job:
                self._job = None
                action()
                self._enable()

        job.done.connect(lambda value: end(lambda: then(value)))
        job.failed.connect(lambda line: end(lambda: self._fail(line)))
        job.cancelled.connect(lambda: end(lambda: None))
        self._job = job
        self._enable()
        job.start()

    def _fail(self, line: str) -> None:
        if self._answer is None:
            self.view.close()
        self.status.error(line)

    def _cancel(self) -> None:
        if self._job is not None:
            self._job.cancel()

    def _enable(self) -> None:
        idle = self._job is None
        found = self._answer is not None
        self.form.setEnabled(idle)
        self.run.setEnabled(idle)
        self.cancel.setEnabled(not idle)
        self.load_transform.setEnabled(idle)
        self.apply.setEnabled(idle and found)
        self.save_transform.setEnabled(idle and found)
        report = self._answer is not None and self._answer.registration is not None
        self.save.setEnabled(idle and report)
        if idle:
            self.progress.setRange(0, 1)
            self.progress.setValue(1 if found else 0)

    def _leave_once(self) -> None:
        self._docked = False
        self.leave()

    def _lay_out(self) -> None:
        layout = QVBoxLayout(self)
        layout.setContentsMargins(8, 6, 8, 6)
        layout.setSpacing(5)
        layout.addWidget(self.form)
        layout.addLayout(_row(self.run, self.cancel))
        layout.addWidget(self.progress)
        layout.addWidget(self.status)
        layout.addWidget(self.table, stretch=1)
        layout.addLayout(_row(QLabel("Step"), self.steps, self.step_label))
        layout.addWidget(self.bar)
        layout.addLayout(_row(self.apply, self.save))
        layout.addLayout(_row(self.load_transform, self.save_transform))


def _button(text: str, tip: str, action: Callable[[], None]) -> QPushButton:
    button = QPushButton(text)
    button.setToolTip(tip)
    button.clicked.connect(lambda _: action())
    return button


def _row(*widgets: QWidget) -> QLayout:
    row = QHBoxLayout()
    row.setSpacing(4)
    for widget in widgets:
        row.addWidget(widget)
    return row
