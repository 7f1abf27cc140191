"""How seeds are placed: cell by cell, never against the user, the segmenter run after each.

Convention: voxels are (i, j, k) in array order of a window (I, J, K); windows of one grid make a
batch. Radii count voxels. No ground truth and no network in here.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

import torch
from torch import Tensor
from torch.nn import functional as F

from medrl.agents import ACTIVE, Dynamics, Places, Space, State
from medrl.errors import MedrlError
from medrl.seednet.geometry import balls, dilate, seed_maps
from medrl.walker.segmenter import BACKGROUND, FOREGROUND, NONE, Segmenter, System

#: Why an agent has ended.
STOPPED, SPENT = 1, 2

#: Channels of the observation after those of the image: see :class:`SeedDynamics`.
STATE_CHANNELS = (
    "probability",
    "uncertainty",
    "mask",
    "foreground seeds",
    "background seeds",
    "seeds left",
)


@dataclass(frozen=True, eq=False)
class SeedState(State):
    """Seeds and segmentations of N agents.

    Attributes:
        window: (N,) int64, which of the M windows each works in.
        seeds: (N, I, J, K) int8, all painted seeds: NONE, BACKGROUND or FOREGROUND.
        user: (N, I, J, K) bool, the voxels that the user painted; no agent changes them.
        forbidden: (N, 2, I, J, K) bool, where an agent must not put background (0) or foreground
            (1): too near to a user seed of the other label, or on a user seed.
        probability: (N, I, J, K) float32, the segmenter's foreground probability.
        places: (N, max_seeds, 3) int64, the agent's seeds; valid up to ``steps``, -1 after, and
            where an action was not allowed.
        labels: (N, max_seeds) int64, their labels; NONE where not valid.
        steps: (N,) int64, actions spent on seeds.
    """

    window: Tensor
    seeds: Tensor
    user: Tensor
    forbidden: Tensor
    probability: Tensor
    places: Tensor
    labels: Tensor
    steps: Tensor

    @property
    def mask(self) -> Tensor:
        """(N, I, J, K) bool, the segmentation."""
        return self.probability > 0.5

    @property
    def free(self) -> Tensor:
        """(N, 2, I, J, K) bool, where an agent may put background (0) and foreground (1)."""
        return (self.seeds == NONE)[:, None] & ~self.forbidden


@dataclass(frozen=True, eq=False)
class Windows:
    """M windows of one grid, as far as seeds are concerned.

    Attributes:
        system: What the segmenter prepared for them.
        prior: (M, I, J, K) float32, a foreground probability known beforehand, or None.
        image: (M, C, I, J, K) float32, what agents see; only for :meth:`SeedDynamics.observe`.
        affine: (M, 4, 4) float64, from their voxels to RAS mm; voxels are millimetres if None.
    """

    system: System
    prior: Tensor | None = None
    image: Tensor | None = None
    affine: Tensor | None = None


class SeedDynamics(Dynamics[SeedState]):
    """Transition and stopping rule of an agent that places seeds (after SeedNet, Song et al. 2018).

    The window is divided into cells of ``stride`` voxels on each axis. An action names a cell and
    a label, ``label * cells + cell`` with cells counted in C order, or is the last one, STOP. The
    voxel inside the cell follows from a rule (:meth:`place`). A ball is painted around it, on
    free voxels only, so that seeds never change once painted, and the segmenter runs again.

    An agent ends when it chooses STOP or has used up its seeds. An action whose cell has no free
    voxel paints nothing and costs a seed.

    What an agent sees, ``cells`` (N, C + 6, i, j, k) float32, are means over the cells of: the C
    channels of the image; the foreground probability p; 4 p (1 - p); the mask p > 0.5;
    exp(-distance / ``seed_scale``) to the nearest foreground, and background seed; and the share of
    the agent's seeds that is left.

    The rules alone make no dynamics: :meth:`on` puts them on windows.
    """

    outcomes = ("placing", "stopped", "spent its seeds")
    masked = True

    def __init__(
        self,
        segmenter: Segmenter,
        *,
        stride: int = 2,
        max_seeds: int = 10,
        seed_radius: float = 1.0,
        exclusion_radius: float = 3.0,
        seed_scale: float = 5.0,
    ) -> None:
        """Set the rules.

        Args:
            segmenter: Turns seeds into probabilities.
            stride: Side of a cell in voxels.
            max_seeds: Seeds that an agent may place.
            seed_radius: Radius of the ball painted around an agent's seed, in voxels.
            exclusion_radius: An agent paints no voxel at this distance, in voxels, or nearer to a
                user seed of the other label.
            seed_scale: Range of the seed channels, in voxels.

        Raises:
            MedrlError: If an option is out of range.
        """
        if stride < 1 or max_seeds < 1:
            raise MedrlError("stride and max_seeds must be at least 1")
        if seed_radius < 0 or exclusion_radius < 0:
            raise MedrlError("seed_radius and exclusion_radius must not be negative")
        if not seed_scale > 0:
            raise MedrlError("seed_scale must be more than 0 voxels")
        self.segmenter = segmenter
        self.stride = stride
        self.max_seeds = max_seeds
        self.seed_radius = seed_radius
        self.exclusion_radius = exclusion_radius
        self.seed_scale = seed_scale

    def on(self, windows: Windows) -> Self:
        """The same rules on some windows."""
        own = copy.copy(self)
        own.windows = windows
        own.fit(windows.system.shape)
        return own

    def fit(self, shape: Sequence[int]) -> None:
        """Say what agents can do and see in windows of shape (..., I, J, K)."""
        self.action_space = Space.choice(self.actions(shape))
        image = self.windows.image
        if image is None:
            return
        self._image_cells = self._to_cells(image)
        flat = self._image_cells.transpose(0, 1).flatten(1)
        known = torch.zeros(len(STATE_CHANNELS), device=flat.device)
        cells = (len(flat) + len(known), *self.grid(shape))
        low, high = (
            torch.cat(ends)[:, None, None, None].expand(cells)
            for ends in ([flat.amin(dim=1), known], [flat.amax(dim=1), known + 1])
        )
        self.observation_spaces = {"cells": Space(cells, low=low, high=high)}

    windows: Windows
    _image_cells: Tensor

    def grid(self, shape: Sequence[int]) -> tuple[int, int, int]:
        """Cells along each axis of a window of shape (..., I, J, K); the last may be cut off."""
        i, j, k = (-(-side // self.stride) for side in shape[-3:])
        return i, j, k

    def actions(self, shape: Sequence[int]) -> int:
        """How many actions there are in a window of shape (..., I, J, K); the last is STOP."""
        i, j, k = self.grid(shape)
        return 2 * i * j * k + 1

    def action_at(self, voxel: Tensor, label: Tensor, shape: Sequence[int]) -> Tensor:
        """The actions whose cells hold some voxels.

        Args:
            voxel: (..., 3) int64; ignored for STOP.
            label: (...) int64, BACKGROUND or FOREGROUND, or NONE for STOP.
            shape: (..., I, J, K) of the window.

        Returns:
            (...) int64.
        """
        i, j, k = self.grid(shape)
        cell = voxel // self.stride
        index = ((label * i + cell[..., 0]) * j + cell[..., 1]) * k + cell[..., 2]
        return torch.where(label == NONE, 2 * i * j * k, index)

    # The contract -------------------------------------------------------------------------------

    def reset(
        self,
        seeds: Tensor,
        *,
        window: Tensor | None = None,
        user: Tensor | None = None,
        start: Tensor | None = None,
    ) -> SeedState:
        """Segment from the seeds given, and let the agents begin.

        Args:
            seeds: (N, I, J, K) int8.
            window: (N,) int64, which window each agent works in; one after the other if None.
            user: (N, I, J, K) bool, which seeds are the user's; all if None.
            start: (N, I, J, K) float32, an earlier solution to begin from, or None.
        """
        count = len(seeds)
        own = seeds != NONE if user is None else user & (seeds != NONE)
        zeros = torch.zeros(count, dtype=torch.int64, device=seeds.device)
        which = torch.arange(count, device=seeds.device) if window is None else window
        return SeedState(
            status=torch.full_like(zeros, ACTIVE),
            window=which,
            seeds=seeds,
            user=own,
            forbidden=self._forbidden(seeds, own),
            probability=self._solve(which, seeds, start),
            places=zeros.new_full((count, self.max_seeds, 3), -1),
            labels=zeros.new_full((count, self.max_seeds), NONE),
            steps=zeros,
        )

    def observe(self, state: SeedState) -> dict[str, Tensor]:
        """What agents see, see the class."""
        p = state.probability
        near = seed_maps(state.seeds, scale=self.seed_scale).flip(1)
        own = torch.stack([p, 4 * p * (1 - p), state.mask.float()], dim=1)
        pooled = self._to_cells(torch.cat([own, near], dim=1))
        left = 1 - state.steps.float() / self.max_seeds
        share = left[:, None, None, None, None].expand(-1, 1, *pooled.shape[2:])
        # Rounding of means of numbers in 0..1 must not leave the declared bounds.
        known = torch.cat([pooled.clamp(0.0, 1.0), share], dim=1)
        return {"cells": torch.cat([self._image_cells[state.window], known], dim=1)}

    def allowed(self, state: SeedState) -> Tensor:
        """(N, A) bool, actions whose cells have a free voxel, and STOP."""
        side = self.stride
        pooled = F.max_pool3d(state.free.float(), side, side, ceil_mode=True)
        return F.pad(pooled.flatten(1) > 0, (0, 1), value=True)

    def place(self, state: SeedState, action: Tensor) -> tuple[Tensor, Tensor]:
        """Find the voxels that actions mean.

        Among the free voxels of the cell it is the one that the guide (the prior, or without one
        the present probability) finds most like the label, of those that the mask has otherwise;
        if the mask has none of them otherwise, of all. The first in C order wins a tie.

        Returns:
            Voxels (N, 3) int64 and labels (N,) int64: -1 and NONE for STOP; -1 and the label of
            the action where no voxel of the cell is free.
        """
        shape = state.seeds.shape[1:]
        device = action.device
        grid = self.grid(shape)
        cells = grid[0] * grid[1] * grid[2]
        stop = action == 2 * cells
        label = torch.where(stop, 0, action // cells)
        corner = torch.stack(torch.unravel_index(action % cells, grid), dim=-1) * self.stride
        inner = torch.cartesian_prod(*[torch.arange(self.stride, device=device)] * 3)
        voxels = corner[:, None] + inner.view(-1, 3)
        last = torch.tensor(shape, device=device) - 1
        inside = (voxels <= last).all(dim=-1)
        i, j, k = torch.minimum(voxels, last).unbind(dim=-1)
        n = torch.arange(len(action), device=device)[:, None]

        own = label[:, None]
        free = inside & (state.seeds[n, i, j, k] == NONE) & ~state.forbidden[n, own, i, j, k]
        probability = state.probability[n, i, j, k]
        prior = self.windows.prior
        guide = probability if prior is None else prior[state.window[:, None], i, j, k]
        likeness = torch.where(own == FOREGROUND, guide, 1 - guide)
        otherwise = (probability > 0.5) != (own == FOREGROUND)
        # A probability is at most 1, so being otherwise in the mask outweighs it.
        score = torch.where(free, likeness + 2 * otherwise, -1.0)
        best = score.argmax(dim=1)
        voxel = voxels[n[:, 0], best]
        found = free.any(dim=1) & ~stop
        return torch.where(found[:, None], voxel, -1), torch.where(stop, NONE, label)

    def step(self, state: SeedState, action: Tensor, **_: Any) -> SeedState:
        """Place one seed (N,) in the windows of the agents that are active; the others stay."""
        voxel, label = self.place(state, action)
        stops = state.active & (label == NONE)
        spends = state.active & (label != NONE)
        n = spends.nonzero()[:, 0]
        places, labels = state.places.clone(), state.labels.clone()
        places[n, state.steps[n]] = voxel[n]
        labels[n, state.steps[n]] = torch.where(voxel[n, 0] < 0, NONE, label[n])
        steps = state.steps + spends.long()
        status = torch.where(spends & (steps >= self.max_seeds), SPENT, state.status)

        rows = (spends & (voxel[:, 0] >= 0)).nonzero()[:, 0]
        seeds, probability = state.seeds, state.probability
        if len(rows) > 0:
            seeds = self._paint(seeds, state.forbidden, rows, voxel[rows], label[rows])
            solved = self._solve(state.window[rows], seeds[rows], probability[rows])
            probability = probability.index_copy(0, rows, solved)
        return replace(
            state,
            status=torch.where(stops, STOPPED, status),
            seeds=seeds,
            probability=probability,
            places=places,
            labels=labels,
            steps=steps,
        )

    def places(self, state: SeedState) -> Places:
        """The seed that each agent placed last; before the first, the middle of its window."""
        row = torch.arange(len(state), device=state.device)
        last = state.places[row, (state.steps - 1).clamp(min=0)]
        middle = (torch.tensor(state.seeds.shape[1:], device=state.device) - 1) / 2
        voxel = torch.where(last >= 0, last.double(), middle.double())
        affine = self.windows.affine
        if affine is None:
            own = torch.eye(4, dtype=torch.float64, device=state.device).expand(len(state), 4, 4)
        else:
            own = affine[state.window]
        position = (own[:, :3, :3] @ voxel[..., None])[..., 0] + own[:, :3, 3]
        return Places(position, own[:, :3, :3].det().abs() ** (1 / 3))

    # What a user's corrections need -------------------------------------------------------------

    def repaint(self, state: SeedState, user: Tensor) -> Tensor:
        """Put the agents' seeds around other user seeds than they were placed with.

        Seeds that now lie too near to a user seed of the other label, or on a user seed, are left
        out. The user's seeds now, and what is returned, the seeds of both, are (N, I, J, K) int8.
        """
        forbidden, seeds = self._forbidden(user, user != NONE), user
        for voxel, label in zip(state.places.unbind(1), state.labels.unbind(1), strict=True):
            rows = (label != NONE).nonzero()[:, 0]
            i, j, k = voxel[rows].unbind(dim=1)
            rows = rows[~forbidden[rows, label[rows], i, j, k]]
            seeds = self._paint(seeds, forbidden, rows, voxel[rows], label[rows])
        return seeds

    def _paint(
        self, seeds: Tensor, forbidden: Tensor, rows: Tensor, voxel: Tensor, label: Tensor
    ) -> Tensor:
        """The seeds with a ball more in some rows, (N, I, J, K) int8."""
        n, i, j, k, which = balls(rows, voxel, self.seed_radius, seeds.shape[1:])
        own = label[which]
        free = (seeds[n, i, j, k] == NONE) & ~forbidden[n, own, i, j, k]
        seeds = seeds.clone()
        seeds[n[free], i[free], j[free], k[free]] = own[free].to(seeds.dtype)
        return seeds

    def _solve(self, window: Tensor, seeds: Tensor, start: Tensor | None) -> Tensor:
        """Probabilities (N, I, J, K) from the seeds of agents in some windows (N,)."""
        system, prior = self.windows.system, self.windows.prior
        every = torch.arange(system.shape[0], device=window.device)
        if not torch.equal(window, every):
            system = system.select(window)
            prior = None if prior is None else prior[window]
        return self.segmenter.solve(system, seeds, prior=prior, start=start)

    def _forbidden(self, seeds: Tensor, user: Tensor) -> Tensor:
        """Where neither label may go: on user seeds, and near to those of the other label."""
        marked = [user & (seeds == label) for label in (FOREGROUND, BACKGROUND)]
        return torch.stack([dilate(seed, self.exclusion_radius) | user for seed in marked], dim=1)

    def _to_cells(self, channels: Tensor) -> Tensor:
        """Means over the cells of channels (N, F, I, J, K); those cut off have fewer voxels."""
        side = self.stride
        return F.avg_pool3d(channels, side, side, ceil_mode=True, count_include_pad=False)
