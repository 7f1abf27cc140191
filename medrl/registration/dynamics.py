"""What happens when agents move scans: windows seen through transforms, and steps."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torch import Tensor

from medrl.registration.network import LevelSettings
from medrl.registration.transforms import Kind, about, compose, constrain
from medrl.roi import crop
from medrl.volume.pyramid import Pyramid

#: Value of what lies outside a scan's field of view; scans themselves are 0 and more.
UNSEEN = -1.0


@dataclass(frozen=True, eq=False)
class RegistrationDynamics:
    """N agents, each of which moves a scan under a fixed one. Nobody here knows the answer.

    Convention: an agent's state is its transform T (4, 4), fixed world to moving world (RAS mm).
    It looks at both scans on one grid of fixed space along the world's axes, centered at its
    pivot; steps are made about that pivot, in fixed space: T becomes T * step.

    Attributes:
        level: Resolution and window.
        fixed: (N, 1, s, s, s) windows of the fixed scans, or one for all; UNSEEN out of view.
        moving: Pyramids with one level, background UNSEEN.
        to_voxel: (N, 4, 4) or one for all: moving world to voxels of the moving scan.
        pivot: (N, 3) or one for all: centre of the windows, fixed world.
        which: (N,) index of each agent's moving scan, or None where there is only one.
        hide: Changes windows (N, 1, s, s, s) seen through transforms (N, 4, 4) in place, to take
            away more of the view than the scans' borders do; or None.
    """

    level: LevelSettings
    fixed: Tensor
    moving: Sequence[Pyramid]
    to_voxel: Tensor
    pivot: Tensor
    which: Tensor | None = None
    hide: Callable[[Tensor, Tensor], None] | None = None

    def look(self, transforms: Tensor) -> Tensor:
        """What agents see: fixed scan, moving scan, and 1 where both are in view.

        Args:
            transforms: (N, 4, 4) float64.

        Returns:
            (N, 3, s, s, s) float32.
        """
        moving = self.look_moving(transforms)
        seen = moving.new_empty((len(moving), 3, *moving.shape[2:]))
        seen[:, 0:1], seen[:, 1:2] = self.fixed, moving
        seen[:, 2] = (seen[:, :2] >= 0).all(dim=1)
        seen[:, :2].clamp_(min=0)
        return seen

    def look_moving(self, transforms: Tensor) -> Tensor:
        """The moving scan alone (N, 1, s, s, s) float32, UNSEEN out of view."""
        through = self.to_voxel @ transforms
        centers = (through[:, :3, :3] @ self.pivot[..., None])[..., 0] + through[:, :3, 3]
        turned = through[:, :3, :3] * self.level.spacing
        side = self.level.window
        moving = crop(self.moving, centers, side, scan=self.which, rotation=turned)
        if self.hide is not None:
            self.hide(moving, transforms)
        return moving

    def step(self, transforms: Tensor, steps: Tensor, *, kind: Kind = "rigid") -> Tensor:
        """Move every agent.

        Args:
            transforms: (N, 4, 4) float64.
            steps: (N, 12) in mm, degrees and per cent, see
                :mod:`medrl.registration.transforms`.
            kind: What agents may change; other steps are not made.

        Returns:
            (N, 4, 4).
        """
        return transforms @ about(compose(constrain(steps, kind)), self.pivot)


def fixed_window(
    fixed: Pyramid | Sequence[Pyramid],
    level: LevelSettings,
    to_voxel: Tensor,
    pivot: Tensor,
    which: Tensor | None = None,
) -> Tensor:
    """Windows (N, 1, s, s, s) of fixed scans, as :class:`RegistrationDynamics` takes them.

    Args:
        fixed: Pyramids with one level, background UNSEEN.
        level: Resolution and window.
        to_voxel: (N, 4, 4), fixed world to voxels.
        pivot: (N, 3), fixed world.
        which: (N,) index of each agent's scan.
    """
    centers = (to_voxel[:, :3, :3] @ pivot[..., None])[..., 0] + to_voxel[:, :3, 3]
    turned = to_voxel[:, :3, :3] * level.spacing
    return crop(fixed, centers, level.window, scan=which, rotation=turned)
