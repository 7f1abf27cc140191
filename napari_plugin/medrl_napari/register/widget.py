"""The widget that registers two scans, and shows how the agents find the way."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import QSignalBlocker, Qt, QTimer
from qtpy.QtWidgets import QFileDialog, QLabel, QSizePolicy, QSlider

from medrl.errors import MedrlError
from medrl.volume.transform_files import open_transform
from medrl.volume.transform_forms import FORMS, Form
from medrl_napari.dock import Panel
from medrl_napari.register.aligned_view import AlignedView
from medrl_napari.register.answers import Answer, register
from medrl_napari.register.compare_bar import CompareBar
from medrl_napari.register.form import RegisterForm, Request
from medrl_napari.register.preview import Preview
from medrl_napari.register.starts import Starts, StartTable
from medrl_napari.scans import Shown, add, image_layer
from medrl_napari.space import Floats
from medrl_napari.widgets import WholeRows, button, row

if TYPE_CHECKING:
    from napari.layers import Image
    from napari.viewer import Viewer

#: Files that hold a transform, as the dialogs name them.
#: The kind that is chosen names the form, where the content of a file leaves it open.
_TO_READ: dict[str, Form | None] = {
    "Transforms (*.tfm *.h5 *.hdf5 *.txt *.mat *.lta *.dat *.1D *.xfm)": None,
    "4x4 world matrix, as of greedy, c3d, NiftyReg (*.mat *.txt)": "matrix",
    "Matrix of FSL FLIRT (*.mat *.txt)": "fsl",
}
_TO_WRITE = "ITK transform (*.tfm);;ITK transform, HDF5 (*.h5);;4x4 matrix (*.txt);;LTA (*.lta)"


class RegisterWidget(Panel):
    """Choose two scans, let agents bring one onto the other, look closely, keep the result."""

    def __init__(self, napari_viewer: Viewer) -> None:
        """Offer what the viewer holds.

        Args:
            napari_viewer: The viewer.
        """
        super().__init__(napari_viewer)
        self.form = RegisterForm(napari_viewer)
        self.life.callback(self.form.release)
        self.run_button = button("Register", "Let the agents find the transform", self._run)
        self.cancel_button = button("Cancel", "Stop, and put the scans back", self.cancel)
        self.table = StartTable()
        self.table.setToolTip("Click on a start to see where its agent brought the moving scan")
        self.table.picked.connect(self._show_start)
        self.steps = QSlider(Qt.Orientation.Horizontal)
        self.steps.setToolTip("Replay the way of the agent that gave the answer")
        self.steps.valueChanged.connect(self._show_step)
        self.step_label = QLabel()
        self.step_label.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Preferred)
        self.step_label.setToolTip("How far off the agent took itself to be at this step")
        self.bar = CompareBar()
        self.apply = button(
            "Apply", "Keep the aligned scan as a layer, on the fixed scan's grid", self._apply
        )
        self.save = button(
            "Save all …",
            "Write transform, aligned scan, report, path and pictures into a folder, as "
            "`medrl register` does",
            self._save,
        )
        self.load_transform = button(
            "Load …",
            "See the moving scan under a transform from a file, apply it, or start from it",
            self._load_transform,
        )
        self.save_transform = button(
            "Save …",
            "Write the answer for ITK and 3D Slicer (.tfm, .h5), as 4x4 matrix (.txt), or for "
            "FreeSurfer (.lta)",
            self._save_transform,
        )
        self.view = AlignedView(napari_viewer, self.bar, self)
        self.view.failed.connect(self.status.error)
        self._starts = Starts()
        self._stops: list[tuple[Floats, str]] = []
        self._answer: Answer | None = None
        self._shown_layers: tuple[Image, ...] = ()
        self._soon = QTimer(self, singleShot=True, interval=0)
        self._soon.timeout.connect(self._do_without)
        self.follow(napari_viewer.layers.events.removed, self._on_removed)
        self.lay_out(
            self.form,
            row(self.run_button, self.cancel_button, stretch=(2, 1)),
            self.progress,
            self.status,
            WholeRows(self.table),
            row(QLabel("Step"), self.steps),
            self.step_label,
            self.bar,
            row(self.apply, self.save),
            row(QLabel("Transform"), self.load_transform, self.save_transform, stretch=(0, 1, 1)),
        )
        self.enable()

    @property
    def answer(self) -> Answer | None:
        """The transform that would be applied or saved."""
        return self._answer

    def leave(self) -> None:
        """Leave the viewer as it was before."""
        self.view.close()

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
        starts = self._starts
        self.work(
            lambda report: register(request, preview, starts, report),
            "preparing the scans",
            self._on_answer,
            frame=self._on_frame,
        )

    def _begin(self, request: Request) -> None:
        """Forget what was before."""
        self._answer = None
        self._starts = Starts()
        self._set_stops([])
        self.table.choose(None)
        self.table.show_starts(self._starts)
        self._shown_layers = (request.fixed_layer, request.moving_layer)

    def _on_frame(self, _steps: object) -> None:
        self.table.show_starts(self._starts)
        leader = self._starts.leader
        if leader is not None:
            self.view.follow(leader.transform_world)

    def progressed(self, done: int, total: int) -> None:
        """How many of the agents' steps are done, and what comes after the last."""
        super().progressed(done, total)
        if done < total:
            count = sum(start.walking for start in self._starts.by_number.values())
            again = " between the orientations" if max(self._starts.by_number) >= 24 else ""
            self.status.say(f"searching: {count} agents on their way{again}")
        else:
            self.status.say("refining" if self.form.refine.isChecked() else "scoring the answer")

    def _on_answer(self, answer: Answer) -> None:
        self._answer = answer
        registration = answer.registration
        if registration is not None:
            (path,) = registration.trajectory.agents
            self._starts.best = path.start
            self.table.show_starts(self._starts)
            self._set_stops(answer.stops())
            tell = self.status.say if registration.trusted else self.status.warn
            tell(answer.summary())
        self.view.show(answer.transform_world)

    def failed(self, line: str) -> None:
        """Put the scans back if there is no answer."""
        if self._answer is None:
            self.view.close()
        super().failed(line)

    def cancelled(self) -> None:
        """Put the scans back if there is no answer."""
        if self._answer is None:
            self.view.close()
        super().cancelled()

    # ------------------------------------------------------------------------------------ looking

    def _show_start(self, number: int) -> None:
        start = self._starts.by_number.get(number)
        if start is not None:
            self.view.show(start.transform_world)

    def _set_stops(self, stops: list[tuple[Floats, str]]) -> None:
        self._stops = stops
        with QSignalBlocker(self.steps):
            self.steps.setRange(0, max(len(stops) - 1, 0))
            self.steps.setValue(len(stops) - 1)
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
        if gone and self.running:
            self.cancel()
            self.status.warn(f"Cancelled: {gone[0].name} was taken away.")
        if self._shown_layers[:1] == tuple(gone[:1]):
            self.view.close()

    # ------------------------------------------------------------------------------------ keeping

    def _apply(self) -> None:
        answer = self._answer
        if answer is None:
            return
        self.work(
            lambda _: answer.aligned(), "resampling", lambda shown: self._on_applied(answer, shown)
        )

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
        if answer is not None and answer.registration is not None:
            found, stem = answer.registration, answer.stem
            self.save_into(None, lambda folder: found.save(folder, stem))

    def _load_transform(self) -> None:
        try:
            request = self.form.request()
            kinds = ";;".join(_TO_READ)
            path, kind = QFileDialog.getOpenFileName(self, "Load a transform", "", kinds)
            if not path:
                return
            scans = {"fixed": request.fixed.scan, "moving": request.moving}
            found = open_transform(path, form=_TO_READ.get(kind), **scans)
        except MedrlError as error:
            self.status.error(str(error))
            return
        name = Path(path).name
        self._begin(request)
        preview = Preview(request.fixed, request.moving)
        self.view.set(preview, request.fixed_layer, request.moving_layer)
        self.form.start_from(found.matrix_world, f"from {name}")
        self._on_answer(Answer(request, found.matrix_world))
        told = found.remarks or (f"taken as {FORMS[found.form]}",)
        self.status.say(f"{name}: shown; Apply keeps it, Register starts from it; {told[0]}")
        self.enable()

    def _save_transform(self) -> None:
        answer = self._answer
        if answer is None:
            return
        usual = f"{answer.stem}.tfm"
        path, _ = QFileDialog.getSaveFileName(self, "Save the transform", usual, _TO_WRITE)
        if not path:
            return
        target = Path(path) if Path(path).suffix else Path(path).with_suffix(".tfm")
        try:
            answer.write_transform(target)
        except MedrlError as error:
            self.status.error(str(error))
        else:
            self.status.say(f"wrote {target}")

    def enable(self) -> None:
        """Allow what can be done now."""
        idle, found = not self.running, self._answer is not None
        self.form.setEnabled(idle)
        self.run_button.setEnabled(idle)
        self.cancel_button.setEnabled(not idle)
        self.load_transform.setEnabled(idle)
        self.apply.setEnabled(idle and found)
        self.save_transform.setEnabled(idle and found)
        report = self._answer is not None and self._answer.registration is not None
        self.save.setEnabled(idle and report)
