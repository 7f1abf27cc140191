"""Agents that move one scan under another: what they see, what a step does, when they end."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

import torch
from torch import Tensor
from torch.nn import functional as F

from medrl.agents import Dynamics, Places, Rows, Space, State
from medrl.errors import MedrlError
from medrl.registration.transforms import (
    KINDS,
    Kind,
    about,
    compose,
    constrain,
    directions,
    move,
)
from medrl.roi import crop
from medrl.volume.pyramid import Pyramid

#: Value of what lies outside a scan's field of view; scans themselves are 0 to BRIGHTEST.
UNSEEN = -1.0
BRIGHTEST = 1.5

#: Sizes of one step of a parameter, in voxels (or degrees or per cent per voxel size of 8 mm).
STEPS = (0.0, 1.5, 4.0, 10.0, 25.0)
#: Steps of a parameter: down in four sizes, none, up in four sizes.
ACTIONS = 2 * len(STEPS) - 1
#: One step of Liao et al. (AAAI 2017) and Sun et al. (MedIA 2021): mm, degrees, per cent, per cent.
PAPER_STEPS = (1.0, 1.0, 5.0, 5.0)

ActionForm = Literal["step", "factored", "single"]
#: Status of an agent that has made all steps of the finest level.
SPENT = 1


def step_sizes(spacing: float) -> Tensor:
    """Signed sizes of the steps (9,) float64, rising, in mm, degrees and per cent.

    Args:
        spacing: Voxel size that agents look at, mm.
    """
    up = torch.tensor(STEPS, dtype=torch.float64) * spacing / 8
    return torch.cat([-up[1:].flip(0), up])


@dataclass(frozen=True, eq=False)
class RegistrationState(State):
    """N agents.

    Attributes:
        pair: (N,) int64, which scans.
        transform: (N, 4, 4) float64, fixed world to moving world, RAS mm.
        level: (N,) int64, which resolution each looks at; 0 is the finest.
        steps: (N,) int64, steps made on that level.
    """

    pair: Tensor
    transform: Tensor
    level: Tensor
    steps: Tensor


@dataclass(frozen=True, eq=False)
class FieldOfView(Rows):
    """What a smaller field of view of scans would not show.

    Attributes:
        planes: (P, Q, 4) faces: outward normal, and distance from the origin in mm; infinite for
            none. In the world of the scan that is cut.
        dark: (P,) bool, whether there is air beyond the scan's own borders instead of nothing.
    """

    planes: Tensor
    dark: Tensor

    def cut(self, windows: Tensor, transforms: Tensor, spacing: float) -> None:
        """Cut windows (P, 1, s, s, s) of some voxel size seen through (P, 4, 4), in place."""
        windows[self.dark] = windows[self.dark].clamp(min=0)
        side = windows.shape[-1]
        line = torch.arange(side, dtype=torch.float32, device=windows.device) - side // 2
        line = line * spacing
        normal = (self.planes[..., :3] @ transforms[:, :3, :3]).float()
        beside = (self.planes[..., :3] @ transforms[:, :3, 3:])[..., 0]
        offset = (self.planes[..., 3] - beside).float()
        for q in range(self.planes.shape[1]):
            rows = torch.isfinite(self.planes[:, q, 3]).nonzero()[:, 0]
            i, j, k = (normal[rows, q, axis, None] * line for axis in range(3))
            depth = i[:, :, None, None] + j[:, None, :, None] + k[:, None, None, :]
            beyond = depth > offset[rows, q, None, None, None]
            windows[rows] = windows[rows].masked_fill(beyond[:, None], UNSEEN)


@dataclass(frozen=True, eq=False)
class View:
    """P pairs of scans at one resolution; what is the same for all pairs may be there once.

    Attributes:
        spacing: Voxel size of the windows, mm.
        fixed: (P, 1, s, s, s) windows of the fixed scans, UNSEEN out of view.
        moving: Pyramids with one level, background UNSEEN.
        to_voxel: (P, 4, 4) float64, moving world to voxels of the moving scan.
        scan: (P,) int64, which of the moving scans each pair has; the first if None.
        fov: What of the moving scans is not shown, in their world, or None.
    """

    spacing: float
    fixed: Tensor
    moving: Sequence[Pyramid]
    to_voxel: Tensor
    scan: Tensor | None = None
    fov: FieldOfView | None = None

    @property
    def window(self) -> int:
        """Side of the windows, voxels."""
        return self.fixed.shape[-1]


def windows_of(
    scans: Sequence[Pyramid],
    transforms: Tensor,
    pivot: Tensor,
    spacing: float,
    window: int,
    *,
    which: Tensor | None = None,
) -> Tensor:
    """Windows (N, 1, s, s, s) of scans on a grid along the world's axes, UNSEEN out of view.

    Args:
        scans: Pyramids with one level, background UNSEEN.
        transforms: (N, 4, 4), from the grid's world to voxels.
        pivot: (N, 3) centre of the grid.
        spacing: Of the grid, mm.
        window: Side s, voxels.
        which: (N,) index of each agent's scan; the first if None.
    """
    centers = (transforms[:, :3, :3] @ pivot[..., None])[..., 0] + transforms[:, :3, 3]
    turned = transforms[:, :3, :3] * spacing
    return crop(scans, centers, window, scan=which, rotation=turned)


@dataclass(frozen=True)
class Rules:
    """Rules of an episode.

    Attributes:
        action: How agents say what they do: ``step`` are twelve numbers in mm, degrees and per
            cent (:mod:`medrl.registration.transforms`); ``factored``, for each of P parameters,
            one of the nine steps of :func:`step_sizes`, the middle one being none; ``single`` one
            step up of the first parameter (0), one down (1), up of the second, ...
        kind: What agents may change: P is 6 of a rigid transform, 7 of a similarity (one scale for
            all axes), 12 of an affine one.
        step_sizes: Of single actions: shift in mm, turn in degrees, scale and shear in per cent,
            for example :data:`PAPER_STEPS`; the smallest step of the resolution if None.
        max_steps: Steps on each level, or for each level, finest first.
    """

    action: ActionForm = "step"
    kind: Kind = "rigid"
    step_sizes: tuple[float, float, float, float] | None = None
    max_steps: int | tuple[int, ...] = 20

    def __post_init__(self) -> None:
        """Refuse what is not an option.

        Raises:
            MedrlError: If a choice does not exist or a number is out of range.
        """
        for what, value, options in (
            ("action", self.action, get_args(ActionForm)),
            ("kind", self.kind, KINDS),
        ):
            if value not in options:
                raise MedrlError(f"{what} must be {' or '.join(options)}, not {value}")
        steps = (self.max_steps,) if isinstance(self.max_steps, int) else self.max_steps
        if min(steps) < 1:
            raise MedrlError(f"max_steps must be at least 1, not {self.max_steps}")
        sizes = self.step_sizes
        if sizes is not None and (len(sizes) != 4 or not all(size > 0 for size in sizes)):
            raise MedrlError(f"step_sizes must be four numbers above 0, not {sizes}")


class RegistrationDynamics(Dynamics[RegistrationState]):
    """N agents, each of which moves a scan under a fixed one, from coarse to fine.

    Convention: an agent's state is its transform T (4, 4), fixed world to moving world (RAS mm).
    It looks at both scans on one grid of fixed space along the world's axes, centered at the
    pivot of its pair; steps are made about that pivot, in fixed space: T becomes T * step. With
    all steps of a level made it goes on at the next finer one, and has ended after the finest.

    Attributes:
        views: What agents look at on each level, finest first.
        pivot: (P, 3) float64, the middle of the windows of each pair, fixed world.
        rules: Of an episode.
    """

    outcomes = ("active", "out of steps")
    truncations = (SPENT,)

    def __init__(self, views: Sequence[View], pivot: Tensor, rules: Rules | None = None) -> None:
        """Show pairs of scans to agents; see the attributes.

        Raises:
            MedrlError: If the rules are for another number of levels.
        """
        self.views = tuple(views)
        self.pivot = pivot
        self.rules = rules or Rules()
        count, steps = len(self.views), self.rules.max_steps
        schedule = (steps,) * count if isinstance(steps, int) else steps
        if len(schedule) != count:
            raise MedrlError(f"max_steps must be one number or {count}, not {len(schedule)}")
        device = views[0].fixed.device
        self._schedule = torch.tensor(schedule, device=device)
        self._directions = directions(self.rules.kind).to(device)
        self._sizes = torch.stack([step_sizes(view.spacing) for view in views]).to(device)
        self._spacings = torch.tensor([view.spacing for view in views], device=device).double()
        side = max(view.window for view in views)
        window = Space((3, side, side, side), low=0.0, high=BRIGHTEST)
        self.observation_spaces = {"windows": window}
        parameters = len(self._directions)
        self.action_space = {
            "step": Space((12,), torch.float64),
            "factored": Space.choice((ACTIONS,) * parameters),
            "single": Space.choice(2 * parameters),
        }[self.rules.action]

    @property
    def pairs(self) -> int:
        """P, the number of pairs."""
        return len(self.pivot)

    def reset(self, pair: Tensor, transform: Tensor) -> RegistrationState:
        """Agents at their starts, on the coarsest level.

        Args:
            pair: (N,) int64, which scans.
            transform: (N, 4, 4), fixed world to moving world, RAS mm.
        """
        device = self.pivot.device
        none = torch.zeros(len(pair), dtype=torch.int64, device=device)
        return RegistrationState(
            none, pair.to(device), transform.to(device).double(), none + len(self.views) - 1, none
        )

    def observe(self, state: RegistrationState) -> dict[str, Tensor]:
        """What agents see: fixed scan, moving scan, and 1 where both are in view.

        Returns:
            ``windows`` (N, 3, s, s, s) float32. On levels with smaller windows than others, what
            lies around them counts as out of view.
        """
        parts, rows = [], []
        side = self.observation_spaces["windows"].shape[-1]
        for level, own in self.by_level(state):
            seen = self.look(level, state.pair[own], state.transform[own])
            own_side = self.views[level].window
            before = side // 2 - own_side // 2
            after = side - own_side - before
            parts.append(F.pad(seen, (before, after) * 3) if side > own_side else seen)
            rows.append(own)
        if len(parts) == 1:
            return {"windows": parts[0]}
        return {"windows": torch.cat(parts)[torch.cat(rows).argsort()]}

    def by_level(self, state: RegistrationState) -> list[tuple[int, Tensor]]:
        """Rows (R,) of the agents on each level that has any."""
        found = state.level.unique().tolist()
        return [(level, torch.nonzero(state.level == level)[:, 0]) for level in found]

    def look(self, level: int, pair: Tensor, transform: Tensor) -> Tensor:
        """What agents on one level see of pairs (N,) through transforms (N, 4, 4)."""
        fixed, moving = self.fixed(level, pair), self.look_moving(level, pair, transform)
        seen = moving.new_empty((len(moving), 3, *moving.shape[2:]))
        seen[:, 0:1], seen[:, 1:2] = fixed, moving
        seen[:, 2] = (seen[:, :2] >= 0).all(dim=1)
        seen[:, :2].clamp_(min=0)
        return seen

    def fixed(self, level: int, pair: Tensor) -> Tensor:
        """The fixed scans alone, (N, 1, s, s, s), or one for all; UNSEEN out of view."""
        return _of(self.views[level].fixed, pair)

    def look_moving(self, level: int, pair: Tensor, transform: Tensor) -> Tensor:
        """The moving scans alone, (N, 1, s, s, s) float32, UNSEEN out of view."""
        view = self.views[level]
        moving = windows_of(
            view.moving,
            _of(view.to_voxel, pair) @ transform,
            _of(self.pivot, pair),
            view.spacing,
            view.window,
            which=None if view.scan is None else view.scan[pair],
        )
        if view.fov is not None:
            view.fov.select(pair).cut(moving, transform, view.spacing)
        return moving

    def step(self, state: RegistrationState, action: Tensor, **_: Any) -> RegistrationState:
        """Let the active agents make a step, in the form that the rules name."""
        moved = self.moved(state.pair, state.transform, self.decode(state, action))
        transform = torch.where(state.active[:, None, None], moved, state.transform)
        steps = state.steps + state.active.long()
        over = state.active & (steps >= self._schedule[state.level])
        finest = state.level == 0
        return replace(
            state,
            transform=transform,
            level=torch.where(over & ~finest, state.level - 1, state.level),
            steps=torch.where(over & ~finest, 0, steps),
            status=torch.where(over & finest, SPENT, state.status),
        )

    def moved(self, pair: Tensor, transform: Tensor, steps: Tensor) -> Tensor:
        """Transforms (N, 4, 4) after steps (N, 12), as far as the rules' kind has them."""
        kept = compose(constrain(steps.double(), self.rules.kind))
        return transform @ about(kept, _of(self.pivot, pair))

    def decode(self, state: RegistrationState, action: Tensor) -> Tensor:
        """Steps (N, 12) in mm, degrees and per cent, of actions in the form of the rules."""
        form = self.rules.action
        if form == "step":
            return action
        sizes = self._sizes[state.level]
        if form == "factored":
            return sizes.gather(1, action) @ self._directions
        parameter, down = action // 2, action % 2
        step = self._directions[parameter]
        if self.rules.step_sizes is None:
            step = step * sizes[:, ACTIONS // 2 + 1, None]
        else:
            step = step * torch.tensor(self.rules.step_sizes).to(step).repeat_interleave(3)
        return torch.where(down[:, None] == 1, -step, step)

    def places(self, state: RegistrationState) -> Places:
        """Where each agent brings the middle of the fixed scan."""
        middle = _of(self.pivot, state.pair)
        return Places(
            move(state.transform, middle[:, None])[:, 0],
            self._spacings[state.level],
            transform_world=state.transform,
        )


def _of(of_pairs: Tensor, pair: Tensor) -> Tensor:
    """Rows of a tensor for pairs (N,); what there is once is for all of them."""
    return of_pairs if len(of_pairs) == 1 else of_pairs[pair]
