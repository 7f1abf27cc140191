"""How seeds are placed: cell by cell, never against the user, the segmenter run after each.

Convention: voxels are (i, j, k) in array order of a window (I, J, K); N windows of one grid make a
batch. Radii and distances count voxels. No ground truth and no network in here: whoever calls
:meth:`SeedDynamics.step` has chosen the actions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import torch
from torch import Tensor
from torch.nn import functional as F

from medrl.errors import MedrlError
from medrl.walker.segmenter import BACKGROUND, FOREGROUND, NONE, Segmenter, System

#: What an agent is doing, or why it ended.
PLACING, STOPPED, SPENT = range(3)
OUTCOMES = ("placing", "stopped", "spent its seeds")

#: Most numbers held at once while distances to many seeds are compared.
_CHUNK = 1 << 20


@dataclass(frozen=True, eq=False)
class SeedState:
    """Seeds and segmentations of N windows.

    Attributes:
        seeds: (N, I, J, K) int8, all painted seeds: NONE, BACKGROUND or FOREGROUND.
        user: (N, I, J, K) bool, the voxels that the user painted; no agent changes them.
        forbidden: (N, 2, I, J, K) bool, where an agent must not put background (0) or foreground
            (1): too near to a user seed of the other label, or on a user seed.
        probability: (N, I, J, K) float32, the segmenter's foreground probability.
        places: (N, max_seeds, 3) int64, the agent's seeds; valid up to ``steps``, -1 after, and
            where an action was not allowed.
        labels: (N, max_seeds) int64, their labels; NONE where not valid.
        steps: (N,) int64, actions spent on seeds.
        status: (N,) int64, one of PLACING, STOPPED, SPENT.
    """

    seeds: Tensor
    user: Tensor
    forbidden: Tensor
    probability: Tensor
    places: Tensor
    labels: Tensor
    steps: Tensor
    status: Tensor

    @property
    def mask(self) -> Tensor:
        """(N, I, J, K) bool, the segmentation."""
        return self.probability > 0.5

    @property
    def placing(self) -> Tensor:
        """(N,) bool, the agents that still place seeds."""
        return self.status == PLACING

    @property
    def free(self) -> Tensor:
        """(N, 2, I, J, K) bool, where an agent may put background (0) and foreground (1)."""
        return (self.seeds == NONE)[:, None] & ~self.forbidden


class SeedDynamics:
    """Transition and stopping rule of an agent that places seeds (after SeedNet, Song et al. 2018).

    The window is divided into cells of ``stride`` voxels on each axis. An action names a cell and
    a label, ``label * cells + cell`` with cells counted in C order, or is the last one, STOP. The
    voxel inside the cell follows from a rule (:meth:`place`). A ball is painted around it, on
    free voxels only, so that seeds never change once painted, and the segmenter runs again.

    An agent ends when it chooses STOP or has used up its seeds. An action whose cell has no free
    voxel paints nothing and costs a seed.
    """

    def __init__(
        self,
        segmenter: Segmenter,
        *,
        stride: int = 2,
        max_seeds: int = 10,
        seed_radius: float = 1.0,
        veto_radius: float = 3.0,
    ) -> None:
        """Set up the rules.

        Args:
            segmenter: Turns seeds into probabilities.
            stride: Side of a cell in voxels.
            max_seeds: Seeds that an agent may place.
            seed_radius: Radius of the ball painted around an agent's seed, in voxels.
            veto_radius: An agent paints no voxel at this distance, in voxels, or nearer to a user
                seed of the other label.

        Raises:
            MedrlError: If an option is out of range.
        """
        if stride < 1 or max_seeds < 1:
            raise MedrlError("stride and max_seeds must be at least 1")
        if seed_radius < 0 or veto_radius < 0:
            raise MedrlError("seed_radius and veto_radius must not be negative")
        self.segmenter = segmenter
        self.stride = stride
        self.max_seeds = max_seeds
        self.seed_radius = seed_radius
        self.veto_radius = veto_radius

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

    def reset(
        self,
        system: System,
        seeds: Tensor,
        *,
        user: Tensor | None = None,
        prior: Tensor | None = None,
        start: Tensor | None = None,
    ) -> SeedState:
        """Segment from the seeds given, and let the agents begin.

        Args:
            system: What the segmenter prepared for these windows.
            seeds: (N, I, J, K) int8.
            user: (N, I, J, K) bool, which of them are the user's; all if None.
            prior: (N, I, J, K) float32, foreground probability, or None.
            start: (N, I, J, K) float32, an earlier solution to begin from, or None.

        Returns:
            The state, everyone placing.

        Raises:
            MedrlError: If the segmenter needs a seed and there is none.
        """
        count = len(seeds)
        own = seeds != NONE if user is None else user & (seeds != NONE)
        zeros = torch.zeros(count, dtype=torch.int64, device=seeds.device)
        none = zeros.new_full((count, self.max_seeds), NONE)
        return SeedState(
            seeds=seeds,
            user=own,
            forbidden=self._forbidden(seeds, own),
            probability=self.segmenter.solve(system, seeds, prior=prior, start=start),
            places=zeros.new_full((count, self.max_seeds, 3), -1),
            labels=none,
            steps=zeros,
            status=torch.full_like(zeros, PLACING),
        )

    def allowed(self, state: SeedState) -> Tensor:
        """Actions whose cells have a free voxel.

        Args:
            state: N agents.

        Returns:
            (N, A) bool; STOP always is allowed.
        """
        side = self.stride
        pooled = F.max_pool3d(state.free.float(), side, side, ceil_mode=True)
        return F.pad(pooled.flatten(1) > 0, (0, 1), value=True)

    def place(
        self, state: SeedState, action: Tensor, *, prior: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Find the voxels that actions mean.

        Among the free voxels of the cell it is the one that the guide (the prior, or without one
        the present probability) finds most like the label, of those that the mask has otherwise;
        if the mask has none of them otherwise, of all. The first in C order wins a tie.

        Args:
            state: N agents.
            action: (N,) int64.
            prior: (N, I, J, K) float32 or None.

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
        guide = probability if prior is None else prior[n, i, j, k]
        likeness = torch.where(own == FOREGROUND, guide, 1 - guide)
        otherwise = (probability > 0.5) != (own == FOREGROUND)
        # A probability is at most 1, so being otherwise in the mask outweighs it.
        score = torch.where(free, likeness + 2 * otherwise, -1.0)
        best = score.argmax(dim=1)
        voxel = voxels[n[:, 0], best]
        found = free.any(dim=1) & ~stop
        return torch.where(found[:, None], voxel, -1), torch.where(stop, NONE, label)

    def step(
        self, system: System, state: SeedState, action: Tensor, *, prior: Tensor | None = None
    ) -> SeedState:
        """Place one seed in the windows of the agents that still place; the others stay.

        Args:
            system: What the segmenter prepared for these windows.
            state: N agents.
            action: (N,) int64; ignored for agents that have ended.
            prior: (N, I, J, K) float32 or None, as at the reset.

        Returns:
            The new state.
        """
        voxel, label = self.place(state, action, prior=prior)
        stops = state.placing & (label == NONE)
        spends = state.placing & (label != NONE)
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
            probability = self._solve(system, state, seeds, rows, prior)
        return replace(
            state,
            seeds=seeds,
            probability=probability,
            places=places,
            labels=labels,
            steps=steps,
            status=torch.where(stops, STOPPED, status),
        )

    def repaint(self, state: SeedState, user: Tensor) -> Tensor:
        """Put the agents' seeds around other user seeds than they were placed with.

        Seeds that now lie too near to a user seed of the other label, or on a user seed, are left
        out.

        Args:
            state: N agents and what they have placed.
            user: (N, I, J, K) int8, the user's seeds now.

        Returns:
            (N, I, J, K) int8, seeds of both.
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
        n, i, j, k, which = _balls(rows, voxel, self.seed_radius, seeds.shape[1:])
        own = label[which]
        free = (seeds[n, i, j, k] == NONE) & ~forbidden[n, own, i, j, k]
        seeds = seeds.clone()
        seeds[n[free], i[free], j[free], k[free]] = own[free].to(seeds.dtype)
        return seeds

    def _solve(
        self, system: System, state: SeedState, seeds: Tensor, rows: Tensor, prior: Tensor | None
    ) -> Tensor:
        """Probabilities after new seeds in some rows, (N, I, J, K)."""
        if len(rows) == len(seeds):
            return self.segmenter.solve(system, seeds, prior=prior, start=state.probability)
        probability = state.probability.clone()
        probability[rows] = self.segmenter.solve(
            system.select(rows),
            seeds[rows],
            prior=None if prior is None else prior[rows],
            start=state.probability[rows],
        )
        return probability

    def _forbidden(self, seeds: Tensor, user: Tensor) -> Tensor:
        """Where neither label may go: on user seeds, and near to those of the other label."""
        marked = [user & (seeds == label) for label in (FOREGROUND, BACKGROUND)]
        return torch.stack([dilate(seed, self.veto_radius) | user for seed in marked], dim=1)


def dilate(mask: Tensor, radius: float) -> Tensor:
    """Voxels at a distance of at most ``radius`` from a mask.

    Args:
        mask: (N, I, J, K) bool; fast where few voxels are true.
        radius: In voxels.

    Returns:
        (N, I, J, K) bool.
    """
    index = _surface(mask)
    n, i, j, k, _ = _balls(index[:, 0], index[:, 1:], radius, mask.shape[1:])
    grown = mask.clone()
    grown[n, i, j, k] = True
    return grown


def ball(radius: float) -> Tensor:
    """Offsets of the voxels of a ball, (B, 3) int64, the origin among them."""
    return _ball(float(radius)).clone()


def seed_maps(seeds: Tensor, *, scale: float) -> Tensor:
    """How near every voxel is to the seeds of each label: exp(-distance / scale).

    Distances are Euclidean, exact, to the nearest voxel of the label; a label without seeds gives
    0 everywhere. Within a plane of the first axis that holds seeds, distances are compared seed by
    seed; then planes are compared with each other. Time grows with the number of seed voxels.

    Args:
        seeds: (N, I, J, K) int8.
        scale: Distance in voxels at which nearness is 1/e.

    Returns:
        (N, 2, I, J, K) float32, background (0) and foreground (1).
    """
    count, *shape = seeds.shape
    marked = torch.stack([seeds == BACKGROUND, seeds == FOREGROUND], dim=1).flatten(0, 1)
    maps = torch.zeros(marked.shape, device=seeds.device)
    x, y, z = (torch.arange(side, device=seeds.device, dtype=torch.float32) for side in shape)
    # The voxels come in C order: those of one map and plane lie together.
    index = _surface(marked)
    planes, sizes = (index[:, 0] * shape[0] + index[:, 1]).unique_consecutive(return_counts=True)
    lines = index[:, 2:].split(sizes.tolist())
    across = torch.empty(shape, device=seeds.device)
    begun: set[int] = set()
    for plane, line in zip(planes.tolist(), lines, strict=True):
        number, row = divmod(plane, shape[0])
        squared = maps[number]
        target = across if number in begun else squared
        torch.add((x - row).square()[:, None, None], _nearest_in_plane(y, z, line), out=target)
        if number in begun:
            torch.minimum(squared, across, out=squared)
        begun.add(number)
    for number in begun:
        maps[number].sqrt_().div_(-scale).exp_()
    maps[marked] = 1.0
    return maps.view(count, 2, *shape)


def _nearest_in_plane(y: Tensor, z: Tensor, points: Tensor) -> Tensor:
    """Squared distances of a plane's voxels (J, K) to the nearest of some of them (S, 2)."""
    nearest = torch.full((len(y), len(z)), torch.inf, device=y.device)
    for part in points.split(max(1, _CHUNK // nearest.numel())):
        from_j, from_k = (y - part[:, :1]).square(), (z - part[:, 1:]).square()
        near = (from_j[:, :, None] + from_k[:, None]).amin(dim=0)
        nearest = torch.minimum(nearest, near)
    return nearest


@lru_cache
def _ball(radius: float) -> Tensor:
    reach = torch.arange(-int(radius), int(radius) + 1)
    offsets = torch.cartesian_prod(reach, reach, reach)
    return offsets[offsets.square().sum(dim=1) <= radius**2 + 1e-6]


def _balls(
    rows: Tensor, voxels: Tensor, radius: float, shape: Sequence[int]
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Voxels of the balls around some voxels, as far as they lie inside.

    Args:
        rows: (S,) int64, the windows.
        voxels: (S, 3) int64, the centres.
        radius: In voxels.
        shape: I, J, K.

    Returns:
        Window, i, j, k and the number of the ball of every voxel, each (V,) int64.
    """
    around = voxels[:, None] + _ball(float(radius)).to(voxels.device)
    inside = ((around >= 0) & (around < torch.tensor(shape, device=voxels.device))).all(dim=-1)
    which = torch.arange(len(rows), device=rows.device)[:, None].expand(inside.shape)[inside]
    i, j, k = around[inside].unbind(dim=-1)
    return rows[which], i, j, k, which


def _surface(mask: Tensor) -> Tensor:
    """Voxels of a mask that have a neighbour (of six) outside it: (S, 4) int64 in C order.

    No voxel outside a mask has its nearest one among the others, so distances need only these.
    Outside the window there are no neighbours.
    """
    index = mask.nonzero()
    around = index[:, None, 1:] + _ball(1.0).to(mask.device)
    last = torch.tensor(mask.shape[1:], device=mask.device) - 1
    i, j, k = torch.minimum(around.clamp(min=0), last).unbind(dim=-1)
    return index[~mask[index[:, :1], i, j, k].all(dim=1)]


__all__ = [
    "OUTCOMES",
    "PLACING",
    "SPENT",
    "STOPPED",
    "SeedDynamics",
    "SeedState",
    "ball",
    "dilate",
    "seed_maps",
]
