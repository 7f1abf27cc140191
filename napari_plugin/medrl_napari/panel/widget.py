"""Agents of any system: choose a model and scans, run it, watch, look at the result, save it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from qtpy.QtCore import Signal
from qtpy.QtWidgets import QFileDialog, QFormLayout, QTableWidgetItem, QVBoxLayout, QWidget

from medrl import systems
from medrl.bundles import read_manifest
from medrl.errors import MedrlError
from medrl.files import stem_of
from medrl.results.findings import Points
from medrl_napari.dock import AgentsDock
from medrl_napari.models import load_model
from medrl_napari.panel.findings import layers_of
from medrl_napari.panel.form import OptionsForm
from medrl_napari.scans import Shown, add, center_views, shown_of
from medrl_napari.widgets import LayerChoice, ModelChoice, Table, WholeRows, button, is_scan, row

if TYPE_CHECKING:
    import napari
    from napari.layers import Image

    from medrl.bundles.manifest import Manifest
    from medrl.systems import System
    from medrl_napari.space import Frame


@dataclass(frozen=True, eq=False)
class Run:
    """One run of a predictor.

    Attributes:
        system: Whose.
        model: Name or folder.
        images: The chosen layers by role.
        shown: How each is shown.
        options: Of the system's type.
        result: What came of it; None before.
    """

    system: System
    model: str
    images: dict[str, Image]
    shown: dict[str, Shown]
    options: Any
    result: Any = None

    @property
    def frame(self) -> Frame:
        """In which the result is shown."""
        return self.shown[self.system.roles[0]].frame

    @property
    def stem(self) -> str:
        """What files of the case are called."""
        role = self.system.roles[-1]
        path = str(self.shown[role].scan.meta.get("filename_or_obj") or "")
        return stem_of(Path(path)) if path else self.images[role].name.replace("/", "_")


class RowTable(Table):
    """A system's rows as they are: a column for every key."""

    chosen = Signal(int)
    """Number of the row that was clicked on, or moved to."""

    def __init__(self) -> None:
        """Show nothing yet."""
        super().__init__((("", ""),), stretch=None)
        self.currentCellChanged.connect(lambda now, *_: self.chosen.emit(now))

    def show_rows(self, rows: list[dict[str, Any]]) -> None:
        """Show other rows."""
        self.blockSignals(True)
        columns = list(dict.fromkeys(key for one in rows for key in one))
        self.setRowCount(len(rows))
        self.setColumnCount(len(columns))
        self.setHorizontalHeaderLabels([key.replace("_", " ") for key in columns])
        for number, one in enumerate(rows):
            for column, key in enumerate(columns):
                item = QTableWidgetItem(_text_of(one.get(key)))
                item.setToolTip("\n".join(f"{k}: {_text_of(v)}" for k, v in one.items()))
                self.setItem(number, column, item)
        self.setCurrentCell(-1, -1)
        self.blockSignals(False)


class AgentPanel(AgentsDock):
    """Runs any trained model of any registered system on the scans that are open."""

    def __init__(self, napari_viewer: napari.viewer.Viewer) -> None:
        """Offer all models that ship; others come by their folders."""
        super().__init__(napari_viewer)
        self.models = ModelChoice(None)
        self.choices: dict[str, LayerChoice] = {}
        self.options, self.given = OptionsForm(), OptionsForm()
        self.run_button = button("Run", "Let the agents work on the scans", self.run)
        self.cancel_button = button("Cancel", "End it; nothing of it stays (Escape)", self.cancel)
        self.table = RowTable()
        self.table.chosen.connect(self._choose)
        self.save_button = button("Save …", "All files of the result, into a folder", self.save)
        self._system: System | None = None
        self._manifest: Manifest | None = None
        self._run: Run | None = None
        self._rows: list[dict[str, Any]] = []
        self._points: dict[str, np.ndarray] = {}
        self._form = QFormLayout()
        self._form.setVerticalSpacing(3)
        self._form.addRow("Model", self.models)
        self.life.callback(self._release_choices)
        choices = QWidget()
        inside = QVBoxLayout(choices)
        inside.setContentsMargins(0, 0, 0, 0)
        inside.addLayout(self._form)
        inside.addWidget(self.given)
        inside.addWidget(self.options)
        self._choices = choices
        self.lay_out(
            choices,
            row(self.run_button, self.cancel_button, stretch=(2, 1)),
            self.progress,
            self.status,
            WholeRows(self.table),
            self.save_button,
        )
        self.models.chosen.connect(self._offer)
        self._offer(self.models.model)
        self.enable()

    @property
    def result(self) -> Any:
        """What came of the last run; None before the first."""
        return None if self._run is None else self._run.result

    def run(self) -> None:
        """Run the chosen model on the chosen layers."""
        if self.running:
            return
        try:
            wanted, given = self._wanted(), self.given.values()
        except MedrlError as error:
            self.status.error(str(error))
            return
        agents = self.agents_in(wanted.frame)
        window = cast("Any", self._manifest)["settings"].get("window")
        agents.window_voxels = window if isinstance(window, int) else None

        def work(report: Any) -> Run:
            system = wanted.system
            predictor = load_model(wanted.model)
            system.check(predictor, wanted.options)
            scans = {role: shown.scan for role, shown in wanted.shown.items()}
            data = system.read(predictor, scans, given, wanted.options)
            (result,) = system.predict(
                predictor, [data], wanted.options, progress=report.progress, watch=report.step
            )
            if isinstance(result, MedrlError):
                raise result
            return Run(**{**vars(wanted), "result": result})

        self.work(work, f"{wanted.system.verb.capitalize()} …", self._show, frame=self.watch)

    def save(self, folder: Path | None = None) -> None:
        """Write the result's files.

        Args:
            folder: Where to; asked for if left out.
        """
        run = self._run
        if run is None or self.running:
            return
        if folder is None:
            chosen = QFileDialog.getExistingDirectory(self, "Folder for the result")
            if not chosen:
                return
            folder = Path(chosen)
        target = folder

        def saved(paths: dict[str, Path]) -> None:
            names = ", ".join(path.name for path in paths.values())
            self.status.say(f"Saved {names} in {target}.")

        self.work(
            lambda _: run.system.save(run.result, target, run.stem, run.options),
            f"Saving to {target} …",
            saved,
        )

    def enable(self) -> None:
        """Allow what can be done now."""
        busy = self.running
        self._choices.setEnabled(not busy)
        self.run_button.setEnabled(not busy and self._system is not None)
        self.cancel_button.setEnabled(busy)
        self.save_button.setEnabled(not busy and self._run is not None)

    def failed(self, line: str) -> None:
        """Show the paths of the last result again."""
        self._restore()
        super().failed(line)

    def cancelled(self) -> None:
        """Show the paths of the last result again."""
        self._restore()
        super().cancelled()

    # ---------------------------------------------------------------------------------------------

    def _offer(self, name_or_dir: str) -> None:
        """Ask for what a model needs."""
        self._system = self._manifest = None
        names: dict[str, list[str]] = {}
        try:
            if name_or_dir:
                self._system, folder = systems.of_model(name_or_dir)
                self._manifest = read_manifest(folder)
                names = self._system.contents(self._manifest)
                self.run_button.setText(self._system.verb.capitalize())
                title = str(self._manifest["card"].get("title", ""))
                self.status.say(f"{title or name_or_dir}: {self._system.summary}.")
        except MedrlError as error:
            self._system = None
            self.status.error(str(error))
        system = self._system
        roles = () if system is None else system.roles
        channels = names.get("images", []) if system is not None and system.images else []
        self._ask_for_layers(roles, channels)
        self.options.ask(systems.NoOptions if system is None else system.options, names=names)
        self.given.ask(systems.NoOptions if system is None else system.given)
        self.enable()

    def _ask_for_layers(self, roles: tuple[str, ...], channels: list[str]) -> None:
        self._release_choices()
        while self._form.rowCount() > 1:
            self._form.removeRow(1)
        self.choices = {}
        for number, role in enumerate((*roles, *channels)):
            none = "none" if number >= len(roles) else None
            choice = LayerChoice(self.viewer, wanted=is_scan, none=none, tip=f"The {role}")
            # The uppermost scan for the first role, the one below it for the next.
            choice.setCurrentIndex(min(number, choice.count() - 1) if none is None else 0)
            self.choices[role] = choice
            self._form.addRow(role.capitalize(), choice)

    def _release_choices(self) -> None:
        for choice in self.choices.values():
            choice.release()
        self.choices = {}

    def _wanted(self) -> Run:
        """What is chosen.

        Raises:
            MedrlError: If something is missing.
        """
        system = self._system
        if system is None:
            raise MedrlError("Choose a model.")
        images = {r: cast("Image", c.layer) for r, c in self.choices.items() if c.layer is not None}
        missing = [role for role in system.roles if role not in images]
        if missing:
            raise MedrlError(f"Open a 3D scan first, for: {', '.join(missing)}.")
        shown = {role: shown_of(layer, viewer=self.viewer) for role, layer in images.items()}
        return Run(system, self.models.model, images, shown, self.options.values())

    def _show(self, run: Run) -> None:
        self._run = run
        self._points = {}
        self._rows = run.system.rows(run.result)
        self.table.show_rows(self._rows)
        self._say(run)
        # Layers may take longer to make than there is time to wait for an answer.
        self.soon(lambda: self._show_layers(run))

    def _show_layers(self, run: Run) -> None:
        if self._run is not run:
            return
        findings = run.system.findings(run.result)
        self._points = {
            name: position
            for finding in findings
            if isinstance(finding, Points)
            for name, position in zip(finding.names, finding.positions_world, strict=True)
        }
        for layer in layers_of(findings, run.frame, run.images, name=run.system.verb):
            add(self.viewer, layer)
        self.show_paths(run.result, run.frame, wanted=lambda: self._run is run)

    def _say(self, run: Run) -> None:
        result, doubt = run.result, run.system.doubt(run.result)
        sure = "" if result.confidence is None else f", confidence {result.confidence:.2f}"
        lines = [f"Done in {result.seconds:.1f} s{sure}."]
        lines += [f"{text[0].upper()}{text[1:]}." for text in result.warnings if text]
        if doubt:
            lines.append(f"Not to be trusted: {doubt}.")
        (self.status.warn if len(lines) > 1 else self.status.say)("\n".join(lines))

    def _choose(self, number: int) -> None:
        """Point out what a row of the table tells of."""
        if self._run is None or not 0 <= number < len(self._rows):
            return
        one = self._rows[number]
        name = str(one.get(self._run.system.group or "", one.get("name", "")))
        if self.agents is not None:
            self.agents.select(name)
        if name in self._points:
            center_views(self.viewer, self._run.frame.to_napari(self._points[name]))

    def _restore(self) -> None:
        if self._run is None:
            self.remove_agents()
        else:
            self.agents_in(self._run.frame).show(self.result.trajectory)


def _text_of(value: Any) -> str:
    """A value of a row, for the eye."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, list | tuple):
        return ", ".join(map(_text_of, value))
    return str(value)
