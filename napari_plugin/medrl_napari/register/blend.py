"""Two scans over each other in a viewer: in colours, as a checkerboard, or in turn."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray
from qtpy.QtCore import QTimer

from medrl.registration.picture import FIXED_COLOR, FIXED_TINT, MOVING_COLOR, MOVING_TINT
from medrl_napari.scans import KEY, Array, Shown, add_beside, image_layer
from medrl_napari.space import Floats

if TYPE_CHECKING:
    from napari.components import ViewerModel
    from napari.layers import Image, Layer

View = Literal["blend", "checkerboard", "flicker", "fixed", "moving"]
VIEWS: tuple[View, ...] = get_args(View)

ALIGNED = "moving (aligned)"
CHECKERBOARD = "checkerboard"
#: Marks, in a layer's metadata, what is there only to be looked at.
_COMPARISON = "medrl comparison"
#: What a comparison changes of the layers that it did not make.
_APPEARANCE = ("colormap", "opacity", "blending", "visible")


def checkerboard(shape: ArrayLike, scale: ArrayLike, square_mm: float) -> NDArray[np.bool_]:
    """Which voxels (z, y, x) of a grid lie on the dark squares of a checkerboard.

    Args:
        shape: Voxels along each axis, (3,).
        scale: Their size, (3,) mm.
        square_mm: Side of the squares; the first ones begin at the grid's outer faces.

    Returns:
        False in the grid's first corner, and changing from one square to the next.
    """
    sizes = np.asarray(scale, dtype=np.float64)
    counts = np.asarray(shape, dtype=np.int64)
    odd = [
        ((np.arange(n) + 0.5) * size // square_mm).astype(np.int64) % 2 == 1
        for n, size in zip(counts, sizes, strict=True)
    ]
    return odd[0][:, None, None] ^ odd[1][None, :, None] ^ odd[2][None, None, :]


def is_comparison(layer: Layer) -> bool:
    """Whether a layer belongs to a comparison, and goes with it."""
    return bool(layer.metadata.get(_COMPARISON))


class Comparison:
    """Shows an aligned scan with the fixed one, and gives the layers their looks back in the end.

    Attributes:
        viewer: Where they are shown.
        fixed: Layer of the fixed scan.
        moving: Layer of the moving scan as it lies, which is hidden meanwhile.
    """

    def __init__(self, viewer: ViewerModel, fixed: Image, moving: Image) -> None:
        """Change nothing yet; see the attributes."""
        self.viewer = viewer
        self.fixed = fixed
        self.moving = moving
        self._view: View = "blend"
        self._share = 0.5
        self._square_mm = 30.0
        self._turn = False
        self._aligned: Image | None = None
        self._board: Image | None = None
        self._before = [(layer, _appearance_of(layer)) for layer in (fixed, moving)]
        viewer.layers.events.removed.connect(self._forget)

    def show(self, shown: Shown) -> None:
        """Show the aligned scan as it is now, on a grid over the fixed one, coarse or not."""
        data, settings, kind = image_layer(shown, name=ALIGNED)
        if self._aligned is None:
            settings["contrast_limits"] = self.moving.contrast_limits
            settings["metadata"] = {KEY: shown, _COMPARISON: True}
            self._aligned = add_beside(self.viewer, (data, settings, kind))
            self.moving.visible = False
        else:
            _renew(self._aligned, data, shown.scale, shown.translate)
            self._aligned.metadata[KEY] = shown
        # A few large voxels would look like stairs.
        coarse = shown.scale.max() > 1.5 * np.max(self.fixed.scale)
        self._aligned.interpolation2d = "linear" if coarse else self.fixed.interpolation2d
        self._paint()

    def close(self) -> None:
        """Take the aligned scan away; the other layers look as they did before."""
        self.viewer.layers.events.removed.disconnect(self._forget)
        for layer in (self._aligned, self._board):
            if layer is not None and layer in self.viewer.layers:
                self.viewer.layers.remove(layer)
        self._aligned = self._board = None
        for layer, appearance in self._before:
            appearance.restore(layer)

    @property
    def aligned(self) -> Image | None:
        """The layer of the aligned scan, if it is there."""
        return self._aligned

    def set(self, *, view: View, share: float, square_mm: float) -> None:
        """Compare in another way.

        Args:
            view: What to show.
            share: Of the blend: 0 is the fixed scan alone, 1 the moving one, 0.5 both in full.
            square_mm: Side of the checkerboard's squares.
        """
        self._view, self._share, self._square_mm = view, share, square_mm
        self._turn = False
        self._paint()

    def swap(self) -> None:
        """Flicker: show the other scan."""
        self._turn = not self._turn
        self._paint()

    # ---------------------------------------------------------------------------------------------

    def _paint(self) -> None:
        """Make all layers look as the view wants it."""
        if self._aligned is None:
            return
        view, aligned, fixed = self._view, self._aligned, self.fixed
        first, second = True, True
        if view == "blend":
            _color(fixed, FIXED_COLOR, opacity=min(1.0, 2 - 2 * self._share))
            _color(aligned, MOVING_COLOR, opacity=min(1.0, 2 * self._share), blending="additive")
        else:
            tinted = view == "checkerboard"
            _color(fixed, FIXED_TINT if tinted else (1.0, 1.0, 1.0))
            _color(aligned, MOVING_TINT if tinted else (1.0, 1.0, 1.0))
            second = view == "moving" or (view == "flicker" and not self._turn)
            first = not second
        fixed.visible, aligned.visible = first, second
        self._lay_board(view == "checkerboard")

    def _lay_board(self, wanted: bool) -> None:
        """The aligned scan's squares over the fixed scan, through whose gaps that one is seen."""
        if self._aligned is None or not wanted:
            if self._board is not None:
                self.viewer.layers.remove(self._board)
            return
        aligned = self._aligned
        odd = checkerboard(aligned.data.shape, aligned.scale, self._square_mm)
        squares = np.where(odd, aligned.data, np.float32(np.nan))
        if self._board is None:
            settings: dict[str, Any] = {
                "name": CHECKERBOARD,
                "metadata": {
                    KEY: {"kind": "checkerboard", "frame": aligned.metadata[KEY].frame},
                    _COMPARISON: True,
                },
                **{key: getattr(aligned, key) for key in ("axis_labels", "units")},
                **{key: getattr(aligned, key) for key in ("scale", "translate")},
                "contrast_limits": aligned.contrast_limits,
            }
            self._board = add_beside(self.viewer, (squares, settings, "image"))
        else:
            _renew(self._board, squares, aligned.scale, aligned.translate)
        self._board.contrast_limits = aligned.contrast_limits
        self._board.interpolation2d = "nearest"
        _color(self._board, MOVING_TINT)

    def _restore(self) -> None:
        for layer, appearance in self._before:
            if layer in self.viewer.layers:
                appearance.restore(layer)

    def _clear(self) -> None:
        """There is nothing to compare any more."""
        if self._aligned is None:
            self._lay_board(False)
            self._restore()

    def _forget(self, event: Any) -> None:
        """A layer was taken away: by its user, or by the board's end."""
        if event.value is self._board:
            self._board = None
        elif event.value is self._aligned:
            self._aligned = None
            # napari is still busy taking it away.
            QTimer.singleShot(0, self._clear)


@dataclass(frozen=True)
class _Appearance:
    """How a layer was shown."""

    values: dict[str, Any]

    def restore(self, layer: Image) -> None:
        for key, value in self.values.items():
            setattr(layer, key, value)


def _appearance_of(layer: Image) -> _Appearance:
    return _Appearance({key: getattr(layer, key) for key in _APPEARANCE})


def _renew(layer: Image, data: Array, scale: Floats, translate: Floats) -> None:
    """Give a layer other voxels, and another grid if it is one; each change draws it again."""
    layer.data = data
    if not np.array_equal(layer.scale, scale):
        layer.scale = scale
    if not np.array_equal(layer.translate, translate):
        layer.translate = translate


def _color(
    layer: Image,
    color: tuple[float, float, float],
    *,
    opacity: float = 1.0,
    blending: str = "translucent_no_depth",
) -> None:
    """Colour a layer from black to a colour."""
    from napari.utils import Colormap

    if layer.colormap.name != f"medrl {color}":
        layer.colormap = Colormap([(0, 0, 0, 1), (*color, 1)], name=f"medrl {color}")
    if layer.blending != blending:
        layer.blending = blending
    if layer.opacity != opacity:
        layer.opacity = opacity
