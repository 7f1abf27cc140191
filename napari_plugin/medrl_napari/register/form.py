"""What to register, and how: the choices that a registration needs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

import numpy as np
from monai.data.meta_tensor import MetaTensor
from qtpy.QtWidgets import QCheckBox, QFormLayout, QWidget

from medrl.errors import MedrlError
from medrl.registration.transforms import KINDS, Kind
from medrl.volume.grid import on_grid_of
from medrl_napari.register.blend import is_comparison
from medrl_napari.scans import Shown, is_scan, shown_of
from medrl_napari.space import Floats
from medrl_napari.widgets import Choice, LayerChoice, ModelChoice, is_mask, row, tool_button
from medrl_napari.writers import in_scan_grid

if TYPE_CHECKING:
    from napari.layers import Image, Layer
    from napari.viewer import Viewer


@dataclass(frozen=True, eq=False)
class Request:
    """What is wanted.

    Attributes:
        fixed_layer: Of the scan that stays.
        moving_layer: Of the scan that is moved.
        fixed: How the first is shown.
        moving: The second, (1, I, J, K).
        fixed_mask: Where the first counts, or None.
        moving_mask: Where the second counts, or None.
        model: Name or folder.
        kind: What may change.
        refine: Whether to refine the agents' answer.
        initial_world: (4, 4) to start from, or None.
    """

    fixed_layer: Image
    moving_layer: Image
    fixed: Shown
    moving: MetaTensor
    fixed_mask: MetaTensor | None
    moving_mask: MetaTensor | None
    model: str
    kind: Kind
    refine: bool
    initial_world: Floats | None


class RegisterForm(QWidget):
    """Scans, masks, model, and what may change."""

    def __init__(self, viewer: Viewer, parent: QWidget | None = None) -> None:
        """Offer what the viewer holds."""
        super().__init__(parent)
        self._viewer = viewer
        self.fixed = LayerChoice(viewer, wanted=_is_choice, tip="The scan that stays")
        self.moving = LayerChoice(
            viewer,
            wanted=_is_choice,
            tip="The scan that is moved onto it; it may lie in any orientation",
        )
        self.fixed.setCurrentIndex(self.fixed.count() - 1)
        self._tell_apart()
        for event in (viewer.layers.events.inserted, viewer.layers.events.removed):
            # After the choices themselves have taken note.
            event.connect(self._tell_apart, position="last")
        self.fixed_mask, self.moving_mask = (
            LayerChoice(
                viewer,
                wanted=is_mask,
                none=f"all of {which}",
                tip=f"Labels layer: where the {which} scan counts",
            )
            for which in ("fixed", "moving")
        )
        arrows = "\N{UPWARDS ARROW LEFTWARDS OF DOWNWARDS ARROW}"
        tip = "Fixed becomes moving, moving becomes fixed"
        self.swap = tool_button(arrows, tip, self._swap)
        self.model = ModelChoice("registration")
        self.model.setToolTip("Trained agents that ship with medrl, or a folder with others")
        self.kind = Choice()
        self.kind.addItems(KINDS)
        self.kind.setToolTip(
            "What may change: place and orientation (rigid); size too (similarity); "
            "or shape as well (affine)"
        )
        self.refine = QCheckBox("refine")
        self.refine.setChecked(True)
        self.refine.setToolTip("End with mutual information of all voxels: slower, more exact")
        self.start = Choice()
        self.start.setToolTip(
            "Agents set out in 24 orientations with the scans' middles together, or one sets out "
            "from the transform that is named here"
        )
        self._starts: list[Floats | None] = [None, np.eye(4)]
        self.start.addItems(["in all orientations", "from where they lie"])
        layout = QFormLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setVerticalSpacing(4)
        layout.addRow("Fixed", self.fixed)
        layout.addRow("Moving", row(self.moving, self.swap, stretch=(1, 0)))
        layout.addRow("Masks", row(self.fixed_mask, self.moving_mask, stretch=(1, 1)))
        layout.addRow("Model", self.model)
        layout.addRow("Kind", row(self.kind, self.refine, stretch=(1, 0)))
        layout.addRow("Start", self.start)

    def request(self) -> Request:
        """What is wanted.

        Raises:
            MedrlError: If there are no two scans, or a layer is no scan.
        """
        fixed, moving = self.layers()
        shown = shown_of(fixed, viewer=self._viewer)
        return Request(
            fixed_layer=fixed,
            moving_layer=moving,
            fixed=Shown(_named(shown.scan, fixed.name), shown.frame),
            moving=_named(shown_of(moving, viewer=self._viewer).scan, moving.name),
            fixed_mask=_mask_of(self.fixed_mask.layer),
            moving_mask=_mask_of(self.moving_mask.layer),
            model=self.model.model,
            kind=cast("Kind", self.kind.currentText()),
            refine=self.refine.isChecked(),
            initial_world=self._starts[self.start.currentIndex()],
        )

    def layers(self) -> tuple[Image, Image]:
        """The layers of the fixed and of the moving scan.

        Raises:
            MedrlError: If there are no two.
        """
        fixed, moving = self.fixed.layer, self.moving.layer
        if fixed is None or moving is None:
            raise MedrlError("open two scans first: one that stays and one that is moved")
        if fixed is moving:
            raise MedrlError(f"{fixed.name} cannot be moved onto itself: choose another scan")
        return cast("Image", fixed), cast("Image", moving)

    def start_from(self, transform_world: Floats, name: str) -> None:
        """Offer a transform to start from, and choose it."""
        index = self.start.findText(name)
        if index >= 0:
            self.start.removeItem(index)
            del self._starts[index]
        self.start.addItem(name)
        self._starts.append(transform_world)
        self.start.setCurrentIndex(self.start.count() - 1)

    def release(self) -> None:
        """Follow the viewer no more."""
        for choice in (self.fixed, self.moving, self.fixed_mask, self.moving_mask):
            choice.release()

    def _swap(self) -> None:
        self.fixed.layer, self.moving.layer = self.moving.layer, self.fixed.layer
        masks = self.moving_mask.layer, self.fixed_mask.layer
        self.fixed_mask.layer, self.moving_mask.layer = masks

    def _tell_apart(self, _event: object = None) -> None:
        """With two scans to choose from, nobody wants the same one twice."""
        if self.fixed.layer is self.moving.layer and self.moving.count() > 1:
            other = 1 if self.moving.currentIndex() == 0 else 0
            self.moving.setCurrentIndex(other)


def _is_choice(layer: Layer) -> bool:
    return is_scan(layer) and not is_comparison(layer)


def _mask_of(layer: Layer | None) -> MetaTensor | None:
    """What a Labels layer marks, where it belongs in the patient."""
    if layer is None:
        return None
    data, settings, _ = layer.as_layer_data_tuple()
    mask = in_scan_grid(np.asarray(data != 0, dtype=np.uint8), settings)
    return _named(mask, layer.name)


def _named(scan: MetaTensor, name: str) -> MetaTensor:
    """The same scan, with a layer's name if it comes from no file."""
    if scan.meta.get("filename_or_obj"):
        return scan
    named = on_grid_of(scan.as_tensor(), scan)
    named.meta["filename_or_obj"] = name
    return named
