"""The moving scan in view under the transform of the moment: coarse at once, then in full."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from qtpy.QtCore import QObject, QTimer, Signal

from medrl_napari.jobs import Job
from medrl_napari.register.blend import Comparison
from medrl_napari.register.compare_bar import CompareBar
from medrl_napari.register.preview import Preview
from medrl_napari.scans import Shown
from medrl_napari.space import Floats

if TYPE_CHECKING:
    from napari.layers import Image
    from napari.viewer import Viewer

#: So long nothing new must come before it pays to resample in full (ms).
_QUIET_MS = 250


class AlignedView(QObject):
    """The moving scan over the fixed one, compared as a bar says."""

    sharpened = Signal()
    """What is shown is at full resolution now."""
    failed = Signal(str)
    """It cannot be shown; one line that says why."""

    def __init__(self, viewer: Viewer, bar: CompareBar, parent: QObject | None = None) -> None:
        """Show nothing yet.

        Args:
            viewer: Where it is shown.
            bar: How the scans are compared.
            parent: The widget around it.
        """
        super().__init__(parent)
        self._viewer = viewer
        self._bar = bar
        self._preview: Preview | None = None
        self._layers: tuple[Image, Image] | None = None
        self._comparison: Comparison | None = None
        self._transform: Floats | None = None
        self._job: Job | None = None
        self._quiet = QTimer(self, singleShot=True, interval=_QUIET_MS)
        self._quiet.timeout.connect(self._sharpen)
        bar.changed.connect(self._compare)
        bar.turned.connect(self._swap)

    @property
    def layer(self) -> Image | None:
        """The layer of the aligned scan, if it is there."""
        return None if self._comparison is None else self._comparison.aligned

    @property
    def sharp(self) -> bool:
        """Whether what is shown is at full resolution and nothing newer is under way."""
        return self.layer is not None and self._job is None and not self._quiet.isActive()

    def set(self, preview: Preview, fixed: Image, moving: Image) -> None:
        """Have two scans ready to be shown; what was shown before is taken away.

        Args:
            preview: The scans.
            fixed: Layer of the one that stays.
            moving: Layer of the one that is moved.
        """
        self.close()
        self._preview, self._layers = preview, (fixed, moving)

    def follow(self, transform_world: Floats) -> None:
        """Show a transform among many that come one after the other, coarsely.

        What the user has taken away is not brought back.
        """
        if self._comparison is None or self._comparison.aligned is not None:
            self._show(transform_world)

    def show(self, transform_world: Floats) -> None:
        """Show a transform, coarsely at once, and in full when nothing else comes."""
        self._show(transform_world)
        self._quiet.start()

    def close(self) -> None:
        """Take away what is shown; the scans look as they did before."""
        self._rest()
        self._bar.stop()
        if self._comparison is not None:
            self._comparison.close()
        self._comparison = None

    # ---------------------------------------------------------------------------------------------

    def _show(self, transform_world: Floats) -> None:
        if self._preview is None or self._layers is None:
            return
        self._rest()
        if self._layers[0] not in self._viewer.layers:
            return
        self._transform = np.asarray(transform_world, dtype=np.float64)
        self._put(self._preview.quick(self._transform))

    def _put(self, shown: Shown) -> None:
        if self._comparison is None:
            assert self._layers is not None
            self._comparison = Comparison(self._viewer, *self._layers)
            self._bar.give(self._comparison)
            self._bar.start()
        self._comparison.show(shown)

    def _rest(self) -> None:
        """Whatever was to be shown in full is no longer wanted."""
        self._quiet.stop()
        self._end()

    def _sharpen(self) -> None:
        preview, transform = self._preview, self._transform
        if preview is None or transform is None:
            return
        self._job = Job(lambda report: preview.full(transform), parent=self)
        self._job.done.connect(self._sharpened)
        self._job.failed.connect(self._not_sharpened)
        self._job.start()

    def _sharpened(self, shown: Any) -> None:
        self._end()
        if self.layer is not None:
            self._put(shown)
            self.sharpened.emit()

    def _not_sharpened(self, line: str) -> None:
        self._end()
        self.failed.emit(line)

    def _end(self) -> None:
        """Be done with a job; what it returned goes with it."""
        job, self._job = self._job, None
        if job is not None:
            job.cancel()
            job.deleteLater()

    def _compare(self) -> None:
        if self._comparison is not None:
            self._bar.give(self._comparison)

    def _swap(self) -> None:
        if self._comparison is not None:
            self._comparison.swap()
