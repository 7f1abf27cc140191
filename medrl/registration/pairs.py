"""Training situations: a fixed window, a moving one that is off by a known change, and the change.

Every pair of a bank is seen from many poses: each agent has a frame of fixed space of its own, in
which the right transform is the identity. An agent at T still has T^-1 to go.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Generator, Tensor
from torch.nn import functional as F

from medrl.registration.dynamics import UNSEEN, RegistrationDynamics, fixed_window
from medrl.registration.network import LevelSettings
from medrl.registration.rewards import mean_distance
from medrl.registration.synthesis import Source, Synthesis, make_pair
from medrl.registration.transforms import compose, decompose, random_rotations, rotation
from medrl.rl.pool import Pool
from medrl.volume.pyramid import Pyramid
from medrl.volume.resample import smoothing_kernel


@dataclass(frozen=True)
class Situations:
    """How far off agents are in training.

    Attributes:
        turn: Largest angle of the usual misalignment, degrees.
        shift: Largest shift of it along each axis, mm.
        near: Share of situations that are off by a fifth of that only.
        far: Share in which the moving scan may be in any orientation.
        resize: Share that differ in scale and shear as well.
        tilt: Largest angle of the fixed scan to its usual orientation, degrees.
        fixed_any: Share in which the fixed scan is in any orientation whatever.
        cut: Share of scans whose field of view is cut.
        dark: Share of scans with air beyond their field of view instead of nothing.
    """

    turn: float = 65.0
    shift: float = 40.0
    near: float = 0.2
    far: float = 0.2
    resize: float = 0.15
    tilt: float = 20.0
    fixed_any: float = 0.0
    cut: float = 0.4
    dark: float = 0.5


@dataclass(frozen=True, eq=False)
class Batch:
    """N training situations.

    World is each agent's own frame of fixed space here: its origin is the window's centre.

    Attributes:
        dynamics: What is looked at and moved.
        transforms: (N, 4, 4) where the agents are. The right transform is the identity.
        points: (N, P, 3) points of the object, mm.
    """

    dynamics: RegistrationDynamics
    transforms: Tensor
    points: Tensor

    def windows(self) -> Tensor:
        """What agents see now, (N, 3, s, s, s)."""
        return self.dynamics.look(self.transforms)

    def error(self) -> Tensor:
        """Mean distance of the points from where they belong, mm (N,)."""
        return mean_distance(self.transforms, self.points, self.points)

    def wanted(self) -> Tensor:
        """Parameters (N, 12) of the change that is left to be made."""
        return decompose(torch.linalg.inv(self.transforms))

    def after(self, steps: Tensor) -> Batch:
        """The situations after steps (N, 12) in mm, degrees and per cent."""
        return replace(self, transforms=self.dynamics.step(self.transforms, steps, kind="affine"))


@dataclass(frozen=True, eq=False)
class FieldOfView:
    """Takes away what a smaller field of view would not show.

    Attributes:
        planes: (N, Q, 4) faces: outward normal, and distance from the origin in mm; infinite for
            none. In the space of the scan that is cut.
        dark: (N,) whether there is air beyond the scan's own borders instead of nothing.
        level: Of the windows.
    """

    planes: Tensor
    dark: Tensor
    level: LevelSettings

    def __call__(self, windows: Tensor, transforms: Tensor) -> None:
        """Cut windows (N, 1, s, s, s) seen through transforms (N, 4, 4), in place."""
        windows[self.dark] = windows[self.dark].clamp(min=0)
        line = torch.arange(self.level.window, dtype=torch.float32) - self.level.window // 2
        line = line * self.level.spacing
        normal = (self.planes[..., :3] @ transforms[:, :3, :3]).float()
        beside = (self.planes[..., :3] @ transforms[:, :3, 3:])[..., 0]
        offset = (self.planes[..., 3] - beside).float()
        for q in range(self.planes.shape[1]):
            rows = torch.isfinite(self.planes[:, q, 3]).nonzero()[:, 0]
            i, j, k = (normal[rows, q, axis, None] * line for axis in range(3))
            depth = i[:, :, None, None] + j[:, None, :, None] + k[:, None, None, :]
            beyond = depth > offset[rows, q, None, None, None]
            windows[rows] = windows[rows].masked_fill(beyond[:, None], UNSEEN)


class PairBank:
    """Some pairs at a time, replaced one by one, and situations drawn from them."""

    def __init__(
        self,
        sources: Sequence[Source],
        level: LevelSettings,
        *,
        working: float,
        synthesis: Synthesis,
        situations: Situations,
        size: int,
        generator: Generator,
    ) -> None:
        """Choose the first pairs.

        Args:
            sources: Scans to make pairs of.
            level: What agents look at.
            working: Voxel size of the sources' working grid, mm; the level's or half of it.
            synthesis: How pairs are made.
            situations: How they are posed.
            size: Pairs kept at a time.
            generator: Source of randomness.
        """
        self.level = level
        self._sources = sources
        self._working = working
        self._synthesis = synthesis
        self._situations = situations
        self._generator = generator
        self._pairs = Pool(self._make, size=size, sources=len(sources), generator=generator)

    def renew(self, count: int = 1) -> None:
        """Replace the oldest pairs by new ones."""
        self._pairs.renew(count)

    def state_dict(self) -> dict[str, Any]:
        """What the pairs are made of."""
        return self._pairs.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take back what :meth:`state_dict` gave."""
        self._pairs.load_state_dict(state)

    def draw(self, count: int, *, seed: int | None = None) -> Batch:
        """N situations.

        Args:
            count: N.
            seed: The same one draws the same situations as long as the pairs are the same; drawn
                as well if left out.
        """
        if seed is None:
            seed = int(torch.randint(2**62, (), generator=self._generator))
        g, s, level = Generator().manual_seed(seed), self._situations, self.level
        pairs = [self._pairs[slot] for slot in range(len(self._pairs))]
        which = torch.randint(len(pairs), (count,), generator=g)
        chosen = [pairs[n] for n in which.tolist()]
        frames = _turns(g, count, s.tilt, s.fixed_any)
        points = torch.stack([p for _, _, p in chosen]).double()
        middle = points.mean(dim=1) + 12 / level.spacing * _normal(g, count, 3)
        local = (points - middle[:, None]) @ frames * level.spacing
        to_voxel = torch.eye(4, dtype=torch.float64).repeat(count, 1, 1)
        to_voxel[:, :3, :3], to_voxel[:, :3, 3] = frames / level.spacing, middle
        pivot = torch.zeros((count, 3), dtype=torch.float64)
        transforms = torch.linalg.inv(_changes(g, count, s))
        views = [
            FieldOfView(_planes(g, count, s.cut), _chance(g, count) < s.dark, level)
            for _ in range(2)
        ]
        fixed = fixed_window([f for f, _, _ in pairs], level, to_voxel, pivot, which)
        views[0](fixed, torch.eye(4, dtype=torch.float64).expand(count, 4, 4))
        moving = [m for _, m, _ in pairs]
        dynamics = RegistrationDynamics(
            level, fixed, moving, to_voxel, pivot, which=which, hide=views[1]
        )
        return Batch(dynamics, transforms, local)

    def _make(self, source: int, generator: Generator) -> tuple[Pyramid, Pyramid, Tensor]:
        fixed, moving, points = make_pair(
            self._sources[source], self._synthesis, self._working, generator=generator
        )
        if self.level.spacing > self._working:
            fixed, moving = halve(fixed), halve(moving)
            points = points / 2
        spacing = (self.level.spacing,)
        affine = (np.eye(4),)
        return (
            Pyramid((fixed,), spacing, affine, UNSEEN),
            Pyramid((moving,), spacing, affine, UNSEEN),
            points,
        )


def _changes(g: Generator, count: int, s: Situations) -> Tensor:
    """What is left to be done, (N, 4, 4) about the window's centre."""
    near = _chance(g, count) < s.near
    reach = torch.where(near, 0.2, 1.0).double()[:, None]
    parameters = torch.zeros((count, 12), dtype=torch.float64)
    parameters[:, :3] = reach * s.shift * (2 * _chance(g, count, 3) - 1)
    axis = _normal(g, count, 3)
    angle = reach * s.turn * _chance(g, count, 1)
    parameters[:, 3:6] = angle * axis / axis.norm(dim=1, keepdim=True)
    resized = (_chance(g, count, 1) < s.resize).double()
    parameters[:, 6:] = resized * reach * 20 * (2 * _chance(g, count, 6) - 1)
    change = compose(parameters)
    far = _chance(g, count) < s.far
    anywhere = random_rotations(count, generator=g)
    change[far, :3, :3] = anywhere[far]
    return change


def _turns(g: Generator, count: int, angle: float, anywhere: float) -> Tensor:
    """Frames (N, 3, 3) off by up to an angle in degrees, some in any orientation."""
    axis = _normal(g, count, 3)
    turn = angle * _chance(g, count, 1) * axis / axis.norm(dim=1, keepdim=True)
    any_way = random_rotations(count, generator=g)
    free = _chance(g, count) < anywhere
    return torch.where(free[:, None, None], any_way, rotation(turn))


def _planes(g: Generator, count: int, cut: float) -> Tensor:
    """Faces of a field of view (N, 2, 4): normal, and distance from the centre in mm."""
    normal = _normal(g, count, 2, 3)
    normal = normal / normal.norm(dim=-1, keepdim=True)
    distance = 25 + 85 * _chance(g, count, 2, 1)
    is_cut = _chance(g, count, 1, 1) < cut
    also = _chance(g, count, 2, 1) < 0.7
    distance = distance.masked_fill(~(is_cut & also), torch.inf)
    return torch.cat([normal, distance], dim=-1)


def _chance(g: Generator, *shape: int) -> Tensor:
    return torch.rand(shape, generator=g, dtype=torch.float64)


def _normal(g: Generator, *shape: int) -> Tensor:
    return torch.randn(shape, generator=g, dtype=torch.float64)


def halve(volume: Tensor) -> Tensor:
    """A volume (1, I, J, K) at twice the voxel size, as pyramids have it."""
    kernel = smoothing_kernel(1.0).to(volume)
    out = volume[None]
    for axis in range(3):
        shape, stride, pad = [1, 1, 1], [1, 1, 1], [0, 0, 0]
        shape[axis], stride[axis], pad[axis] = len(kernel), 2, len(kernel) // 2
        out = F.conv3d(out, kernel.view(1, 1, *shape), stride=stride, padding=pad)
    return out[0].contiguous()
