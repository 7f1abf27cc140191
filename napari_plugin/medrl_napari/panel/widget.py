"""Agents of any system: choose a model and scans, run it, watch, look at the result, save it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from qtpy.QtCore import QSignalBlocker, Signal
from qtpy.QtWidgets import QTableWidgetItem, QVBoxLayout, QWidget

from medrl import systems
from medrl.bundles import read_manifest
from medrl.errors import MedrlError
from medrl.results.findings import Boxes, Points
from medrl_napari.dock import AgentsDock
from medrl_napari.models import load_model
from medrl_napari.panel.findings import show_findings
from medrl_napari.panel.form import OptionsForm
from medrl_napari.scans import Shown, center_views, shown_of
from medrl_napari.widgets import LayerChoices, Table, WholeRows, button, row

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
        return self.shown[role].stem(self.images[role].name)


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
        with QSignalBlocker(self):
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


class AgentPanel(AgentsDock):
    """Runs any trained model of any registered system on the scans that are open."""

    def __init__(
        self, napari_viewer: napari.viewer.Viewer, *, system: System | None = None
    ) -> None:
        """Offer the models that ship; others come by their folders.

        Args:
            napari_viewer: The viewer.
            system: What is done with a model; left out: what its own system does.
        """
        super().__init__(napari_viewer)
        self._only = system
        if system is None:
            self.scans = LayerChoices(napari_viewer, None)
        else:
            task = system.models or system.name
            self.scans = LayerChoices(napari_viewer, task, system=system.name)
        self.life.callback(self.scans.release)
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
        choices = QWidget()
        inside = QVBoxLayout(choices)
        inside.setContentsMargins(0, 0, 0, 0)
        inside.addWidget(self.scans)
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
        self.scans.model.chosen.connect(self._offer)
        self._offer(self.scans.model.model)
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

        how = {} if self._only is None else {"system": self._only.name}

        def work(report: Any) -> Run:
            system = wanted.system
            predictor = load_model(wanted.model, **how)
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
        if run is not None:
            self.save_into(
                folder, lambda target: run.system.save(run.result, target, run.stem, run.options)
            )

    def enable(self) -> None:
        """Allow what can be done now."""
        busy = self.running
        self._choices.setEnabled(not busy)
        self.run_button.setEnabled(not busy and self._system is not None)
        self.cancel_button.setEnabled(busy)
        self.save_button.setEnabled(not busy and self._run is not None)

    # ---------------------------------------------------------------------------------------------

    def _offer(self, name_or_dir: str) -> None:
        """Ask for what a model needs."""
        self._system = self._manifest = None
        names: dict[str, list[str]] = {}
        try:
            if name_or_dir:
                own, folder = systems.of_model(name_or_dir)
                self._system = self._only or own
                if own.name != (self._system.models or self._system.name):
                    raise MedrlError(f"{folder.name} is a {own.name} model: it does not do this")
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
        titles = {name: name.capitalize() for name in (*roles, *channels)}
        self.scans.ask(titles, optional=channels)
        self.options.ask(systems.NoOptions if system is None else system.options, names=names)
        self.given.ask(systems.NoOptions if system is None else system.given)
        self.enable()

    def _wanted(self) -> Run:
        """What is chosen.

        Raises:
            MedrlError: If something is missing.
        """
        system = self._system
        if system is None:
            raise MedrlError("Choose a model.")
        images = self.scans.layers
        missing = [role for role in system.roles if role not in images]
        if missing:
            raise MedrlError(f"Open a 3D scan first, for: {', '.join(missing)}.")
        shown = {role: shown_of(layer, viewer=self.viewer) for role, layer in images.items()}
        return Run(system, self.scans.model.model, images, shown, self.options.values())

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
        self._points = {}
        for finding in findings:
            if isinstance(finding, Points):
                self._points |= zip(finding.names, finding.positions_world, strict=True)
            elif isinstance(finding, Boxes):
                middles = finding.corners_world.mean(axis=1)
                self._points |= zip(finding.names, middles, strict=True)
        show_findings(findings, self.viewer, run.frame, run.images, name=run.system.verb)
        self.show_paths(run.result, run.frame, wanted=lambda: self._run is run)

    def _say(self, run: Run) -> None:
        result, doubt = run.result, run.system.doubt(run.result)
        sure = "" if result.confidence is None else f", confidence {result.confidence:.2f}"
        remarks = [line for line in result.warnings if line != doubt]
        self.status.tell(f"Done in {result.seconds:.1f} s{sure}.", remarks, doubt=doubt)

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


def _text_of(value: Any) -> str:
    """A value of a row, for the eye."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, list | tuple):
        return ", ".join(map(_text_of, value))
    return str(value)
