"""Find landmarks in the scan that is open: watch the agents, look at each answer, correct it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import QTimer
from qtpy.QtGui import QKeyEvent
from qtpy.QtWidgets import QFileDialog

from medrl.errors import MedrlError
from medrl.landmark.picture import short_name
from medrl.systems import get
from medrl_napari.agents import AgentsView
from medrl_napari.detect.form import COLORINGS, DetectForm
from medrl_napari.detect.points import Corrections, LandmarkPoints
from medrl_napari.detect.result import Result, at_the_center
from medrl_napari.detect.table import STEP_KEYS
from medrl_napari.models import load_model
from medrl_napari.scans import center_views, shown_of
from medrl_napari.space import Frame

if TYPE_CHECKING:
    import napari
    from napari.layers import Image, Layer

    from medrl.landmark.detect import Detection
    from medrl.trajectory import Step, Trajectory

#: How soon agents are shown where they begin.
_START_MS = 150


class DetectWidget(DetectForm):
    """Runs landmark agents on a scan, shows them walk, and takes corrections of what they found."""

    def __init__(self, napari_viewer: napari.viewer.Viewer) -> None:
        """Offer the viewer's scans and the models that ship."""
        super().__init__(napari_viewer)
        self._searched: Image | None = None
        self._begin: Trajectory | None = None
        self._starter = QTimer(self, singleShot=True, interval=_START_MS)
        self._starter.timeout.connect(self._show_begin)
        self._points: LandmarkPoints | None = None
        self._result: Result | None = None
        self.run_button.clicked.connect(self.run)
        self.landmarks.accepted.connect(self.run)
        self.table.chosen.connect(self._look_at)
        self.coloring.currentIndexChanged.connect(self._color_paths)
        self.drag_button.toggled.connect(self._drag)
        self.reset_button.clicked.connect(lambda: self.reset())
        self.save_button.clicked.connect(lambda: self.save_results())
        self.datalist_button.clicked.connect(lambda: self.save_corrections())
        self.follow(napari_viewer.layers.events.removed, self._on_removed)
        self.enable()
        self.status.say("Choose a scan and find its landmarks.")

    @property
    def detection(self) -> Detection | None:
        """What was found last, with the corrections made to it."""
        return None if self._result is None else self._result.now

    def run(self) -> None:
        """Search the chosen scan for the ticked landmarks."""
        if self.running:
            return
        layer, manifest, names = self.scans.layer, self.manifest, self.landmarks.names
        if layer is None:
            flat = any(type(la).__name__ == "Image" for la in self.viewer.layers)
            also = ": a flat or coloured image is none" if flat else ""
            self.status.error(f"Open a 3D scan first{also}.")
            return
        if manifest is None or not names:
            self.status.error("Tick at least one landmark." if manifest else "Choose a model.")
            return
        try:
            shown = shown_of(layer, viewer=self.viewer)
        except MedrlError as error:
            self.status.error(str(error))
            return
        model, settings = self.models.model, manifest["settings"]
        window = int(settings["window"])

        def work(report: Any) -> Result:
            detector = load_model(model)
            detection = detector.detect(
                shown.scan, landmarks=names, progress=report.progress, watch=report.step
            )
            return Result(shown, layer.name, detection)

        self._searched = layer
        self.agents_in(shown.frame).window_voxels = window
        saying = f"Looking for {len(names)} landmarks in {layer.name} …"
        self.work(work, saying, self._on_found, frame=self.watch)
        # While the scan is prepared; if it is refused at once, nothing has flashed up.
        coarsest_mm = float(max(settings["spacings"]))
        self._begin = at_the_center(shown.scan, names, scale_mm=coarsest_mm, window=window)
        self._starter.start()

    def go(self, by: int) -> None:
        """Look at the next landmark of the table, or the one before."""
        self.table.step(by)

    def reset(self, name: str | None = None) -> None:
        """Undo a person's correction of a landmark.

        Args:
            name: Which; the current one if left out.
        """
        name = name or self.table.current
        if self._result is not None and name is not None and self._result.reset(name):
            self._show_corrections([name])
            self._look_at(name)
            self.status.say(f"{short_name(name)} is back where it was found.")

    def save_results(self, folder: Path | None = None) -> None:
        """Write what `medrl detect` writes.

        Args:
            folder: Where to; asked for if left out.
        """
        if self._result is not None:
            self.save_into(folder, self._result.write)

    def save_corrections(self, datalist: Path | None = None) -> None:
        """Add the ticked landmarks, as they now stand, to a datalist for training.

        Args:
            datalist: The JSON file; asked for if left out.
        """
        result = self._result
        if result is None or self.running:
            return
        try:
            points = result.for_training(self.table.ticked)
            datalist = datalist or self._ask_for_datalist()
            if datalist is None:
                return
            result.add_to(datalist, points)
        except MedrlError as error:
            self.status.error(str(error))
            return
        self.status.say(
            f"{datalist.name} holds {len(points)} landmarks of {result.stem}: "
            "medrl train landmark --data takes it."
        )

    # ---------------------------------------------------------------------------------------------

    def _ask_for_datalist(self) -> Path | None:
        chosen, _ = QFileDialog.getSaveFileName(
            self,
            "Datalist to add to, or a new one",
            "datalist.json",
            "Datalists (*.json)",
            options=QFileDialog.Option.DontConfirmOverwrite,
        )
        return Path(chosen) if chosen else None

    def enable(self) -> None:
        """Allow what can be done now."""
        busy, found = self.running, self._result is not None
        if not busy:
            self._starter.stop()
            self._searched = None
        for part in (self.scans, self.models, self.landmarks, self.run_button):
            part.setEnabled(not busy)
        self.cancel_button.setEnabled(busy)
        for button in (self.save_button, self.datalist_button, self.drag_button):
            button.setEnabled(found and not busy)
        self._allow_reset()

    def _show_begin(self) -> None:
        """Show the agents where they begin."""
        if self.agents is not None and self._begin is not None:
            self.agents.show(self._begin)

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

    def _on_found(self, result: Result) -> None:
        landmarks = result.detection.landmarks
        if self._result is not None and self._result.unsaved:
            self._put_away()
        self._result = result
        if self._points is None:
            self._points = self._new_points(result)
        else:
            self._points.renew(result.shown, landmarks)
        self.viewer.layers.selection = {self._points.layer}
        self.table.show_landmarks(landmarks)
        self._drag(self.drag_button.isChecked())
        there = [lm for lm in landmarks if lm.status != "absent"]
        line = f"{len(there)} of {len(landmarks)} found in {result.detection.seconds:.1f} s. "
        line += "The slider t replays the search."
        doubt = get("landmark").doubt(result.detection)
        remarks = [remark for remark in result.detection.warnings if remark != doubt]
        self.status.tell(line, remarks, doubt=doubt)
        frame, wanted = result.shown.frame, lambda: self._result is result
        self.show_paths(result.detection, frame, wanted=wanted)

    def _new_points(self, result: Result) -> LandmarkPoints:
        points = LandmarkPoints(
            self.viewer,
            result.shown,
            result.detection.landmarks,
            changed=self._on_corrected,
            missing=self._missing,
        )
        points.layer.bind_key("n", lambda _: self.go(1), overwrite=True)
        points.layer.bind_key("p", lambda _: self.go(-1), overwrite=True)
        points.layer.events.mode.connect(self._on_mode)
        return points

    def _put_away(self) -> None:
        """Leave corrections that nobody saved in the viewer, and make room for another result."""
        if self._points is not None:
            self._let_go(self._points)
            self._points.layer.name = f"{self._points.layer.name} before"
            self._points = None

    def _let_go(self, points: LandmarkPoints) -> None:
        points.release()
        points.layer.events.mode.disconnect(self._on_mode)
        for key in ("n", "p"):
            points.layer.bind_key(key, None)

    def _look_at(self, name: str) -> None:
        """Bring a landmark into view and point out its agent."""
        if self.agents is not None:
            self.agents.select(name)
        if self._points is not None:
            place = self._points.place(name)
            if place is not None:
                center_views(self.viewer, place)
            self._points.select(name)
        self._allow_reset()

    def _missing(self) -> str | None:
        """The current landmark, if it is absent."""
        name = self.table.current
        if self._result is None or name is None:
            return None
        return name if self._result.landmark(name).status == "absent" else None

    def _on_corrected(self, corrections: Corrections) -> None:
        if self._result is None:
            return
        if not corrections:
            self.status.error("To add a point, choose the row of an absent landmark first.")
            return
        self._result.moved.update(corrections)
        self._result.unsaved = True
        self._show_corrections(list(corrections))
        name = list(corrections)[-1]
        landmark = self._result.landmark(name)
        self.table.choose(name)
        self.status.say(f"{short_name(name)}: {landmark.status}, {landmark.note}.")

    def _show_corrections(self, names: list[str]) -> None:
        """Bring points and table up to date with what was corrected."""
        if self._result is None or self._points is None:
            return
        now = self._result.now
        self._points.show(now.landmarks)
        for name in names:
            self.table.update_landmark(now[name])
        self._allow_reset()

    def _allow_reset(self) -> None:
        moved = self._result.moved if self._result is not None else {}
        self.reset_button.setEnabled(self.table.current in moved)

    def _color_paths(self) -> None:
        if self.agents is not None:
            self.agents.color_by = COLORINGS[self.coloring.currentText()]

    def _drag(self, wanted: bool) -> None:
        """Let the mouse move points, or the view."""
        if self._points is not None:
            self._points.layer.mode = "select" if wanted else "pan_zoom"
            if wanted:
                self.viewer.layers.selection = {self._points.layer}

    def _on_mode(self, event: Any) -> None:
        self.drag_button.setChecked(str(event.mode) == "select")

    def _on_removed(self, event: Any) -> None:
        layer: Layer = event.value
        if layer is self._searched and self.running:
            self.cancel()
        if self._points is not None and layer is self._points.layer:
            self._let_go(self._points)
            self._points = self._result = None
            self.forget_paths()
            self.table.show_landmarks(())
            self.enable()

    def keyPressEvent(self, event: QKeyEvent) -> None:  # noqa: N802 - Qt's name
        """N and P go through the landmarks."""
        if event.key() in STEP_KEYS:
            self.go(STEP_KEYS[event.key()])
        else:
            super().keyPressEvent(event)

    def leave(self) -> None:
        """Leave the points to the viewer."""
        super().leave()
        if self._points is not None:
            self._let_go(self._points)
