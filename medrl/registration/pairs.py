"""Training pairs: a fixed window, a moving one that is off by a known change, and the change.

Every pair of a sampler is seen from many poses: each agent has a frame of fixed space of its own,
with the window's centre at its origin, in which the right transform is the identity.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Generator, Tensor
from torch.nn import functional as F

from medrl.registration.dynamics import (
    UNSEEN,
    FieldOfView,
    RegistrationDynamics,
    RegistrationState,
    Rules,
    View,
    windows_of,
)
from medrl.registration.network import LevelSettings
from medrl.registration.synthesis import Source, Synthesis, make_pair
from medrl.registration.task import AlignTask
from medrl.registration.transforms import compose, decompose, random_rotations
from medrl.rl.checkpoint import State
from medrl.rl.env import AgentsEnv
from medrl.rl.pool import Pool
from medrl.volume.pyramid import Pyramid
from medrl.volume.resample import smoothing_kernel
from medrl.volume.rotations import rotation


@dataclass(frozen=True)
class PoseDistribution:
    """How far off agents are in training.

    Attributes:
        turn: Largest angle of the usual misalignment, degrees.
        shift: Largest shift of it along each axis, mm.
        near: Share of starts that are off by a fifth of that only.
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


class _Pair(NamedTuple):
    """Two scans that lie on each other, and points (K, 3) of the object, in voxels."""

    fixed: Pyramid
    moving: Pyramid
    points: Tensor


class PairSampler:
    """Some made-up pairs at a time, replaced one by one, and agents that begin on them.

    Attributes:
        level: What agents look at.
    """

    def __init__(
        self,
        sources: Sequence[Source],
        level: LevelSettings,
        *,
        working: float,
        synthesis: Synthesis,
        poses: PoseDistribution,
        size: int,
        generator: Generator,
        device: str | torch.device = "cpu",
    ) -> None:
        """Choose the first pairs.

        Args:
            sources: Scans to make pairs of.
            level: What agents look at.
            working: Voxel size of the sources' working grid, mm; the level's or half of it.
            synthesis: How pairs are made.
            poses: How they are posed.
            size: Pairs kept at a time.
            generator: Source of randomness.
            device: Where agents look at them.
        """
        self.level = level
        self._sources = sources
        self._working = working
        self._synthesis = synthesis
        self._poses = poses
        self._device = torch.device(device)
        self._envs: dict[tuple[int, Rules], AgentsEnv[RegistrationState]] = {}
        self._pairs = Pool(self._make, size=size, sources=len(sources), generator=generator)

    def renew(self, count: int = 1) -> None:
        """Replace the oldest pairs by new ones."""
        self._pairs.renew(count)

    def state_dict(self) -> State:
        """What the pairs are made of."""
        return self._pairs.state_dict()

    def load_state_dict(self, state: State) -> None:
        """Take up the pairs that another sampler of the same scans had."""
        self._pairs.load_state_dict(state)

    def begin(
        self, count: int, *, seed: int, rules: Rules, state: RegistrationState | None = None
    ) -> tuple[AgentsEnv[RegistrationState], AlignTask]:
        """An environment of agents, each with a pair and a pose of its own, and its task.

        Args:
            count: N.
            seed: Fixes pairs, poses, and what of the scans is in view.
            rules: Of an episode.
            state: Where the agents are; at their starts if None.

        Returns:
            Both; the next call for as many agents and the same rules takes the environment over.
        """
        draws, spacing = _Draws(self._poses, seed), self.level.spacing
        pairs = [self._pairs[slot] for slot in range(len(self._pairs))]
        which = draws.whole(len(pairs), count)
        frames = draws.frames(count)
        points = torch.stack([pairs[n].points for n in which.tolist()]).double()
        middle = points.mean(dim=1) + 12 / spacing * draws.normal(count, 3)
        local = (points - middle[:, None]) @ frames * spacing
        to_voxel = torch.eye(4, dtype=torch.float64).repeat(count, 1, 1)
        to_voxel[:, :3, :3], to_voxel[:, :3, 3] = frames / spacing, middle
        changes = decompose(draws.changes(count))
        fixed_fov, moving_fov = (draws.fov(count).to(self._device) for _ in range(2))
        local, to_voxel, which = (one.to(self._device) for one in (local, to_voxel, which))
        still = torch.eye(4, dtype=torch.float64, device=self._device).expand(count, 4, 4)
        pivot = local.new_zeros((count, 3))
        fixed = windows_of(
            [p.fixed for p in pairs], to_voxel, pivot, spacing, self.level.window, which=which
        )
        fixed_fov.cut(fixed, still, spacing)
        moving = [p.moving for p in pairs]
        view = View(spacing, fixed, moving, to_voxel, scan=which, fov=moving_fov)
        task = AlignTask(RegistrationDynamics([view], pivot, rules), still, local)
        # One environment for all episodes of a kind: making its specs takes a tenth of a step.
        env = self._envs.get((count, rules))
        if env is None:
            env = AgentsEnv(task.dynamics, task, batch_size=[count], seed=0, device=self._device)
            self._envs[count, rules] = env
        env.dynamics, env.task = task.dynamics, task
        if state is None:
            env.reset(pair=np.arange(count), misalignment=changes)
        else:
            env.state = state.to(self._device)
        return env, task

    def _make(self, source: int, generator: Generator) -> _Pair:
        fixed, moving, points = make_pair(
            self._sources[source], self._synthesis, self._working, generator=generator
        )
        spacing = self.level.spacing
        if spacing > self._working:
            fixed, moving, points = halve(fixed), halve(moving), points / 2
        one, other = (
            Pyramid((scan.to(self._device),), (spacing,), (np.eye(4),), UNSEEN)
            for scan in (fixed, moving)
        )
        return _Pair(one, other, points)


class _Draws:
    """Random numbers of one draw of poses."""

    def __init__(self, poses: PoseDistribution, seed: int) -> None:
        self._poses = poses
        self._generator = Generator().manual_seed(seed)

    def whole(self, limit: int, count: int) -> Tensor:
        return torch.randint(limit, (count,), generator=self._generator)

    def changes(self, count: int) -> Tensor:
        """What is left to be done, (N, 4, 4) about the window's centre."""
        s = self._poses
        near = self._chance((count,)) < s.near
        reach = torch.where(near, 0.2, 1.0).double()[:, None]
        parameters = torch.zeros((count, 12), dtype=torch.float64)
        parameters[:, :3] = reach * s.shift * (2 * self._chance((count, 3)) - 1)
        axis = self.normal(count, 3)
        angle = reach * s.turn * self._chance((count, 1))
        parameters[:, 3:6] = angle * axis / axis.norm(dim=1, keepdim=True)
        resized = (self._chance((count, 1)) < s.resize).double()
        parameters[:, 6:] = resized * reach * 20 * (2 * self._chance((count, 6)) - 1)
        change = compose(parameters)
        far = self._chance((count,)) < s.far
        anywhere = random_rotations(count, generator=self._generator)
        change[far, :3, :3] = anywhere[far]
        return change

    def frames(self, count: int) -> Tensor:
        """Turns (N, 3, 3) of the fixed scan, some in any orientation."""
        axis = self.normal(count, 3)
        turn = self._poses.tilt * self._chance((count, 1)) * axis / axis.norm(dim=1, keepdim=True)
        any_way = random_rotations(count, generator=self._generator)
        free = self._chance((count,)) < self._poses.fixed_any
        return torch.where(free[:, None, None], any_way, rotation(turn))

    def fov(self, count: int) -> FieldOfView:
        """Fields of view of N scans."""
        normal = self.normal(count, 2, 3)
        normal = normal / normal.norm(dim=-1, keepdim=True)
        distance = 25 + 85 * self._chance((count, 2, 1))
        is_cut = self._chance((count, 1, 1)) < self._poses.cut
        also = self._chance((count, 2, 1)) < 0.7
        distance = distance.masked_fill(~(is_cut & also), torch.inf)
        dark = self._chance((count,)) < self._poses.dark
        return FieldOfView(torch.cat([normal, distance], dim=-1), dark)

    def _chance(self, shape: tuple[int, ...]) -> Tensor:
        return torch.rand(shape, generator=self._generator, dtype=torch.float64)

    def normal(self, *shape: int) -> Tensor:
        return torch.randn(shape, generator=self._generator, dtype=torch.float64)


def halve(volume: Tensor) -> Tensor:
    """A volume (1, I, J, K) at twice the voxel size, as pyramids have it."""
    kernel = smoothing_kernel(1.0).to(volume)
    out = volume[None]
    for axis in range(3):
        shape, stride, pad = [1, 1, 1], [1, 1, 1], [0, 0, 0]
        shape[axis], stride[axis], pad[axis] = len(kernel), 2, len(kernel) // 2
        out = F.conv3d(out, kernel.view(1, 1, *shape), stride=stride, padding=pad)
    return out[0].contiguous()
