"""Small parts that several widgets share."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import Qt, Signal
from qtpy.QtWidgets import QComboBox, QLabel, QWidget

if TYPE_CHECKING:
    import napari
    from napari.layers import Layer

    from medrl.bundles import Bundle

_COLORS = {"say": "", "warn": "color: #ffd43b", "error": "color: #ff6b6b"}


class LayerChoice(QComboBox):
    """A choice among the layers of a viewer that follows what happens to them."""

    chosen = Signal(object)
    """The layer that is now chosen, or None."""

    def __init__(
        self,
        viewer: napari.viewer.Viewer,
        *,
        wanted: Callable[[Layer], bool],
        none: str | None = None,
        parent: QWidget | None = None,
    ) -> None:
        """Fill it, and follow the viewer.

        Args:
            viewer: The viewer.
            wanted: Which layers to offer.
            none: What to call the choice of no layer; without it there is none.
            parent: The widget around it.
        """
        super().__init__(parent)
        self._viewer = viewer
        self._wanted = wanted
        self._none = none
        self._layers: list[Layer | None] = []
        self.setMinimumContentsLength(12)
        self.setSizeAdjustPolicy(QComboBox.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon)
        layers = viewer.layers
        for event in (layers.events.inserted, layers.events.removed, layers.events.reordered):
            event.connect(self._refill)
        self.currentIndexChanged.connect(lambda _: self.chosen.emit(self.layer))
        self._refill()

    @property
    def layer(self) -> Layer | None:
        """The chosen layer, if there is one."""
        index = self.currentIndex()
        return self._layers[index] if 0 <= index < len(self._layers) else None

    @layer.setter
    def layer(self, layer: Layer | None) -> None:
        if layer in self._layers:
            self.setCurrentIndex(self._layers.index(layer))

    def release(self) -> None:
        """Follow the viewer no more."""
        layers = self._viewer.layers
        for event in (layers.events.inserted, layers.events.removed, layers.events.reordered):
            event.disconnect(self._refill)
        for layer in self._layers:
            if layer is not None:
                layer.events.name.disconnect(self._refill)

    def _refill(self, _event: Any = None) -> None:
        before = self.layer
        for layer in self._layers:
            if layer is not None:
                layer.events.name.disconnect(self._refill)
        there: list[Layer | None] = [la for la in reversed(self._viewer.layers) if self._wanted(la)]
        for layer in there:
            if layer is not None:
                layer.events.name.connect(self._refill)
        self._layers = [None, *there] if self._none is not None else there
        self.blockSignals(True)
        self.clear()
        self.addItems([str(self._none) if la is None else la.name for la in self._layers])
        self.setCurrentIndex(self._layers.index(before) if before in self._layers else 0)
        self.blockSignals(False)
        if self.layer is not before:
            self.chosen.emit(self.layer)


def is_scan(layer: Layer) -> bool:
    """Whether a layer is a 3D scan in shades of grey."""
    from napari.layers import Image

    return isinstance(layer, Image) and layer.ndim == 3 and not layer.rgb


class StatusLine(QLabel):
    """One line, or a few, that say how things stand."""

    def __init__(self, parent: QWidget | None = None) -> None:
        """Say nothing."""
        super().__init__(parent)
        self.setWordWrap(True)
        self.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)

    def say(self, text: str) -> None:
        """Tell how it goes."""
        self._set("say", text)

    def warn(self, text: str) -> None:
        """Tell what the user should look at."""
        self._set("warn", text)

    def error(self, text: str) -> None:
        """Tell what went wrong."""
        self._set("error", text)

    def _set(self, kind: str, text: str) -> None:
        self.setStyleSheet(_COLORS[kind])
        self.setText(text)


def models(system: str) -> list[Bundle]:
    """The models of a system that ship with medrl.

    Args:
        system: ``landmark``, ``seednet`` or ``registration``.
    """
    from medrl.bundles import available

    return [bundle for bundle in available() if bundle.manifest["task"] == system]


def model_names(system: str) -> list[str]:
    """Their names."""
    return [bundle.name for bundle in models(system)]


@lru_cache(maxsize=8)
def load_model(system: str, name_or_dir: str) -> Any:
    """Load a model once, for all that use it in this process.

    Args:
        system: ``landmark``, ``seednet`` or ``registration``.
        name_or_dir: Of a model that ships, or a bundle folder.

    Returns:
        A `LandmarkDetector`, a pair of `SeedModel` and manifest, or a `Registrar`.

    Raises:
        MedrlError: If there is no such model or it is damaged.
    """
    if system == "landmark":
        from medrl.landmark.detect import LandmarkDetector

        return LandmarkDetector.load(name_or_dir)
    if system == "seednet":
        from medrl.bundles import find
        from medrl.seednet.model import SeedModel

        return SeedModel.load(find(name_or_dir))
    from medrl.registration.register import Registrar

    return Registrar.load(name_or_dir)
