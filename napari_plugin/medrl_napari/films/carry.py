"""Carry outlines: draw on a slice or frame, let agents carry it on, correct where it is worst."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from medrl.errors import MedrlError
from medrl_napari.dock import AgentsDock
from medrl_napari.films.layers import Carriable, box_shapes, can_be_carried
from medrl_napari.models import load_model
from medrl_napari.panel.widget import RowTable
from medrl_napari.scans import add, add_beside
from medrl_napari.widgets import LayerChoice, ModelChoice, WholeRows, button, is_mask, row

if TYPE_CHECKING:
    import napari
    from napari.layers import Layer

    from medrl.cutting.answer import Carried

_MASK, _BOXES = "carried", "agents' boxes"


@dataclass(frozen=True, eq=False)
class _Run:
    """One carrying: of what layer, by which model, and what came of it."""

    place: Carriable
    model: str
    axis: int | None
    result: Carried


class CarryWidget(AgentsDock):
    """Outlines on a few slices or frames become masks of all; a correction re-runs what follows."""

    def __init__(self, napari_viewer: napari.viewer.Viewer) -> None:
        """Offer the viewer's scans and films.

        Args:
            napari_viewer: The viewer.
        """
        super().__init__(napari_viewer)
        self.image = LayerChoice(napari_viewer, wanted=can_be_carried, tip="Scan or film")
        self.outline = LayerChoice(
            napari_viewer, wanted=_is_labels, tip="Labels layer with the outlined slices or frames"
        )
        self.model = ModelChoice("cutting")
        for choice in (self.image, self.outline):
            self.life.callback(choice.release)
        self.new_button = button(
            "New outline", "A layer to fill the object on, in one slice or frame", self.new_outline
        )
        self.carry_button = button(
            "Carry", "Carry what is outlined through all slices or frames", self.run
        )
        self.cancel_button = button("Cancel", "End it; nothing of it stays (Escape)", self.cancel)
        self.correct_button = button(
            "Correct this one",
            "Copy the mask of the slice or frame in view to the outlines: change it there, and "
            "carry again; only what it touches is done anew",
            self.correct,
        )
        self.worst_button = button(
            "Go to the worst", "The slice or frame where the mask is least sure", self.go_to_worst
        )
        self.table = RowTable()
        self.save_button = button("Save …", "All files of the result, into a folder", self.save)
        self._run: _Run | None = None
        self._mask: Layer | None = None
        self._boxes: Layer | None = None
        self.lay_out(
            self.image,
            row(self.outline, self.new_button, stretch=(2, 1)),
            self.model,
            row(self.carry_button, self.cancel_button, stretch=(2, 1)),
            self.progress,
            self.status,
            row(self.worst_button, self.correct_button),
            WholeRows(self.table),
            self.save_button,
        )
        self.image.chosen.connect(self._offer)
        self._offer(self.image.layer)
        self.enable()
        self.status.say("Choose a scan or film, and fill the object on one slice or frame.")

    @property
    def result(self) -> Carried | None:
        """What came of the last run; None before the first."""
        return None if self._run is None else self._run.result

    def new_outline(self) -> None:
        """Add a layer to draw outlines on, and choose it."""
        layer = self.image.layer
        if layer is None:
            self.status.error("Open a scan or a film first.")
            return
        try:
            place = Carriable.of(layer, self.viewer)
        except MedrlError as error:
            self.status.error(str(error))
            return
        made = add(self.viewer, place.empty_labels(name=f"{layer.name}: outlines"))
        made.mode = "paint"
        self.outline.layer = made
        self.viewer.layers.selection = {made}
        self.status.say("Fill the object on one slice or frame, then carry it.")

    def run(self) -> None:
        """Carry what is outlined."""
        if self.running:
            return
        image, outline, model = self.image.layer, self.outline.layer, self.model.model
        if image is None or outline is None:
            self.status.error("Choose a scan or film, and a layer with outlines on it.")
            return
        try:
            place = Carriable.of(image, self.viewer)
            drawn = place.outlines(np.asarray(outline.data))
        except MedrlError as error:
            self.status.error(str(error))
            return
        before = self._run
        same = before is not None and before.place.layer is image and before.model == model
        earlier = before.result if same and before is not None else None
        axis = self._axis_in_view(place) if earlier is None else earlier.axis

        def work(report: Any) -> _Run:
            carrier = load_model(model)
            result = carrier.carry(
                place.data,
                drawn,
                axis=axis,
                earlier=earlier,
                progress=report.progress,
                watch=report.step,
            )
            return _Run(place, model, axis, result)

        self.work(work, "Carrying …", self._show)

    def correct(self) -> None:
        """Copy the mask of the slice or frame in view to the outlines."""
        outline, mask = self.outline.layer, self._mask
        if outline is None or mask is None or self._run is None:
            return
        axis, number = self._in_view(mask)
        where: list[Any] = [slice(None)] * mask.ndim
        where[axis] = number
        data = np.array(outline.data)
        data[tuple(where)] = mask.data[tuple(where)]
        outline.data = data
        self.viewer.layers.selection = {outline}
        self.status.say("Change the mask here on the layer of outlines, then carry again.")

    def go_to_worst(self) -> None:
        """Move the slider to where the mask is least sure."""
        if self._run is None or self._mask is None:
            return
        thing = min(self._run.result.things, key=lambda one: one.worst[1])
        number, sure = thing.worst
        axis, step = self._slider_of(number)
        self.viewer.dims.set_current_step(axis, step)
        self.status.say(f"{thing.name}: the overlap that is expected here is {sure:.2f}.")

    def save(self, folder: Any = None) -> None:
        """Write the result's files; the folder is asked for if left out."""
        run = self._run
        if run is not None:
            self.save_into(folder, lambda target: run.result.save(target))

    def enable(self) -> None:
        """Allow what can be done now."""
        busy, there = self.running, self._run is not None
        self.carry_button.setEnabled(not busy)
        self.cancel_button.setEnabled(busy)
        for one in (self.correct_button, self.worst_button, self.save_button):
            one.setEnabled(not busy and there)

    # ---------------------------------------------------------------------------------------------

    def _offer(self, layer: Any) -> None:
        """The model that is meant for a film, or for a scan."""
        if layer is None:
            return
        film = bool(getattr(layer, "rgb", False))
        wanted = "carry-films" if film else "carry-scans"
        if self.model.findData(wanted) >= 0:
            self.model.model = wanted

    def _axis_in_view(self, place: Carriable) -> int | None:
        """The axis of the array across the view, of a scan that has no time."""
        hidden = self.viewer.dims.not_displayed
        if place.film is not None or place.shown is None or not hidden:
            return None
        return place.shown.scan_axis(int(hidden[-1]) - (self.viewer.dims.ndim - 3))

    def _in_view(self, mask: Layer) -> tuple[int, int]:
        """The axis of the mask's layer that the slider runs along, and where it stands."""
        if self._run is not None and self._run.place.film is not None:
            axis = 0
        else:
            axis, _ = self._slider_of(0)
            axis -= self.viewer.dims.ndim - mask.ndim
        point = mask.world_to_data(self.viewer.dims.point[-mask.ndim :])
        return axis, int(np.clip(round(point[axis]), 0, mask.data.shape[axis] - 1))

    def _slider_of(self, number: int) -> tuple[int, int]:
        """The viewer's axis along which pictures follow one another, and the step of one."""
        run, dims = self._run, self.viewer.dims
        assert run is not None
        if run.place.film is not None or run.place.shown is None:
            return 0, number
        shown = run.place.shown
        along, index = shown.layer_slice(run.result.axis, number)
        axis = along + dims.ndim - 3
        low, _, step = dims.range[axis]
        return axis, round((shown.translate[along] + shown.scale[along] * index - low) / step)

    def _show(self, run: _Run) -> None:
        self._run = run
        result = run.result
        rows = [
            {
                "object": thing.name,
                "found in": len(thing.pictures),
                "expected overlap": thing.mean_quality,
                "worst": thing.worst[0],
            }
            for thing in result.things
        ]
        self.table.show_rows(rows)
        self.status.tell(f"Done in {result.seconds:.1f} s.", result.warnings)
        names = {thing.name: thing.value for thing in result.things}
        layer = run.place.masks(result.labels.numpy(), name=_MASK, names=names)
        if self._mask is not None and self._mask in self.viewer.layers:
            self._mask.data = layer[0]
        else:
            self._mask = add_beside(self.viewer, layer)
        if run.place.shown is None:
            self._show_boxes(run)
            self.finished.emit(result)
        elif run.place.film is None:
            self.show_paths(result, run.place.shown.frame, wanted=lambda: self._run is run)
        else:
            self.finished.emit(result)

    def _show_boxes(self, run: _Run) -> None:
        """The contexts that agents cut in, frame by frame."""
        found = [
            (picture, np.asarray(box))
            for cuts in run.result.cuts.values()
            for picture, box in zip(cuts.pictures, cuts.boxes, strict=True)
        ]
        if self._boxes is not None and self._boxes in self.viewer.layers:
            self.viewer.layers.remove(self._boxes)
        if found:
            # Pictures are (column, row) of the film.
            boxes = {number: box for number, (_, box) in enumerate(found)}
            frames = np.array([picture for picture, _ in found])
            self._boxes = add_beside(self.viewer, box_shapes(boxes, frames, name=_BOXES))


def _is_labels(layer: Layer) -> bool:
    from napari.layers import Labels

    return is_mask(layer) or (isinstance(layer, Labels) and layer.ndim == 4)
