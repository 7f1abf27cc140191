"""Plays what agents did at a pace that the eye can follow: most searches are over sooner."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qtpy.QtCore import QObject, QTimer

if TYPE_CHECKING:
    from napari.components import ViewerModel

#: Time that each moment is shown.
_STEP_MS = 100


class Replay(QObject):
    """Moves a viewer's time slider from the first moment to the last, once.

    Whoever moves the slider meanwhile takes over.
    """

    def __init__(self, viewer: ViewerModel, *, parent: QObject | None = None) -> None:
        """Play nothing yet.

        Args:
            viewer: Whose first axis is time.
            parent: Whose end is the end of this.
        """
        super().__init__(parent)
        self._viewer = viewer
        self._moment = 0
        self._timer = QTimer(self, interval=_STEP_MS)
        self._timer.timeout.connect(self._go_on)

    @property
    def running(self) -> bool:
        """Whether it plays."""
        return bool(self._timer.isActive())

    def start(self) -> None:
        """Play from the first moment."""
        self._moment = 0
        self._viewer.dims.set_current_step(0, 0)
        self._timer.start()

    def stop(self) -> None:
        """Play no more; the slider stays where it is."""
        self._timer.stop()

    def _go_on(self) -> None:
        dims = self._viewer.dims
        over = dims.ndim < 4 or self._moment >= dims.nsteps[0] - 1
        if over or dims.current_step[0] != self._moment:
            self.stop()
            return
        self._moment += 1
        dims.set_current_step(0, self._moment)
