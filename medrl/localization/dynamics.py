"""How box agents move: shift, grow, shrink, change the aspect of a box, or say that it fits.

Convention: boxes are (N, 2, 3), smallest and largest coordinates of their outer faces in voxels of
the pyramid's finest level, (i, j, k) in array order; a voxel reaches half a voxel to either side of
its centre. Step shares are listed finest first.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from medrl.agents import ACTIVE, Dynamics, Places, Rows, Space, State
from medrl.errors import MedrlError
from medrl.roi import crop
from medrl.volume.pyramid import Pyramid

#: What an agent can do: move the middle of its box by a share of its size, or change the size.
SHIFTS = torch.cat([torch.eye(3), -torch.eye(3), torch.zeros(9, 3)])
GROWTHS = torch.cat(
    [
        *(torch.zeros(6, 3), torch.ones(1, 3), -torch.ones(1, 3)),
        *(torch.eye(3), -torch.eye(3), torch.zeros(1, 3)),
    ]
)
ACTIONS = (
    *("right", "forward", "up", "left", "back", "down", "grow", "shrink"),
    *("wider", "deeper", "taller", "narrower", "shallower", "shorter", "trigger"),
)
TRIGGER = len(ACTIONS) - 1

#: Why an agent has ended.
TRIGGERED, LOOPED, CAPPED = 1, 2, 3

#: Boxes that differ by less than this on every face are the same one, voxels.
_SAME = 1e-2
#: Smallest edge of a box, voxels.
_LEAST = 2.0
#: What an agent sees beyond its box: this share of the size, and so many voxels more to each side.
_CONTEXT, _MARGIN = 0.25, 5.0
#: Voxels of the wider window are so large, mm.
_WIDE_MM = 10.0
#: Rounding in resampling and smoothing may overshoot the declared intensities by this.
_TOLERANCE = 1e-3


@dataclass(frozen=True)
class View:
    """What agents are shown, and how they may move.

    Attributes:
        window: Side of the window that holds the box and its surroundings, whatever their size.
        wide: Side of the window of fixed scale that shows where in the body the box is.
        shares: Step sizes as shares of the box's size, finest first; an agent begins with the last.
        history: How many of its last actions an agent is told; 0 for none.
        max_steps: Steps allowed.
    """

    window: int = 25
    wide: int = 19
    shares: tuple[float, ...] = (0.04, 0.12)
    history: int = 10
    max_steps: int = 40


@dataclass(frozen=True, eq=False)
class BoxState(State):
    """N agents.

    Attributes:
        scan: (N,) int64, which scan each looks at.
        target: (N,) int64, what it looks for.
        box: (N, 2, 3) float64, its box.
        share: (N,) int64, present step size.
        steps: (N,) int64, steps taken.
        history: (N, H) int64, its last actions, the latest first; -1 before the first.
        visited: (N, max_steps + 1, 2, 3) float64, its boxes, valid up to ``steps``.
        since: (N,) int64, the step at which the present step size began.
        estimates: (N, max_steps + 1, 2, 2, 3) float32, where it saw the faces from there: offsets
            from its own faces in voxels, and the log of their expected errors; valid before
            ``steps``.
    """

    scan: Tensor
    target: Tensor
    box: Tensor
    share: Tensor
    steps: Tensor
    history: Tensor
    visited: Tensor
    since: Tensor
    estimates: Tensor


@dataclass(frozen=True, eq=False)
class Answer(Rows):
    """Where N agents say that the boxes are.

    Attributes:
        box: (N, 2, 3) float64, voxels of the finest level.
        log_error: (N,) float64, mean log of the expected error of a face, voxels.
        spread: (N,) float64, root mean square difference of the estimates that were averaged.
    """

    box: Tensor
    log_error: Tensor
    spread: Tensor


class BoxDynamics(Dynamics[BoxState]):
    """Active localisation in M scans (Caicedo and Lazebnik 2015; in 3D Navarro et al. 2020).

    A step moves or stretches a box by a share of its size. An agent that comes back to a box it has
    had with the same step size goes on with the next finer one; with the finest this ends it, as
    does its trigger, and the last step it has. Boxes keep their middle inside the scan.

    Attributes:
        scans: The M pyramids.
        view: What agents see.
        shapes: (M, 3) float64, grids of the finest levels.
        affines: (M, 4, 4) float64, voxels of the finest levels to RAS mm.
    """

    outcomes = ("active", "triggered", "looped", "capped")
    truncations = (LOOPED, CAPPED)
    action_space = Space.choice(len(ACTIONS))
    extra_spaces = {"estimate": Space((2, 2, 3))}  # noqa: RUF012 - read only, as declared above
    masked = True

    def __init__(
        self,
        scans: Sequence[Pyramid],
        *,
        targets: int,
        view: View | None = None,
        intensities: tuple[float, float] = (0.0, 1.5),
    ) -> None:
        """Look at these scans.

        Args:
            scans: M of them, of the same spacings and number of channels, on one device.
            targets: How many kinds of object there are to look for.
            view: What agents see.
            intensities: Smallest and largest value in the scans.

        Raises:
            MedrlError: If there is no scan, or they do not fit each other.
        """
        if not scans:
            raise MedrlError("agents need at least one scan to look at")
        if len({(p.spacings, p.levels[0].shape[0], p.levels[0].device) for p in scans}) > 1:
            raise MedrlError("all scans need the same spacings, number of channels and device")
        self.view = view or View()
        self.scans = list(scans)
        self.device = scans[0].levels[0].device
        grids = [list(pyramid.levels[0].shape[1:]) for pyramid in scans]
        self.shapes = torch.tensor(grids, dtype=torch.float64, device=self.device)
        affines = np.stack([pyramid.affines[0] for pyramid in scans])
        self.affines = torch.from_numpy(affines).to(self.device)
        self.spacing = float(scans[0].spacings[0])
        self._strides = torch.tensor(scans[0].strides, dtype=torch.float64, device=self.device)
        self._shares = torch.tensor(self.view.shares, dtype=torch.float64, device=self.device)
        self._shifts = SHIFTS.double().to(self.device)
        self._growths = GROWTHS.double().to(self.device)
        low, high = (
            end + sign * _TOLERANCE for end, sign in zip(intensities, (-1, 1), strict=True)
        )
        channels, s, w = scans[0].levels[0].shape[0], self.view.window, self.view.wide
        shares, history = len(self.view.shares), self.view.history
        self.observation_spaces: Mapping[str, Space] = {
            "window": Space((channels, s, s, s), low=low, high=high),
            "wide": Space((channels, w, w, w), low=low, high=high),
            "told": Space((told_length(shares, history),)),
            "target": Space.choice(targets),
        }

    def replace_scan(self, index: int, scan: Pyramid) -> None:
        """Put another scan in the place of one, as training does now and then."""
        self.scans[index] = scan
        self.shapes[index] = torch.tensor(scan.levels[0].shape[1:])
        self.affines[index] = torch.from_numpy(scan.affines[0])

    def reset(
        self, scan: Tensor, target: Tensor, box: Tensor, share: Tensor | None = None
    ) -> BoxState:
        """Put N agents at their starts.

        Args:
            scan: (N,) int64, which scan each looks at.
            target: (N,) int64, what it looks for.
            box: (N, 2, 3), voxels of the finest level; brought inside the scan.
            share: (N,) int64, step size; the coarsest if left out.
        """
        count, most = len(scan), self.view.max_steps + 1
        start = self._kept_inside(scan, box.double())
        visited = start.new_zeros((count, most, 2, 3))
        visited[:, 0] = start
        zeros = torch.zeros(count, dtype=torch.int64, device=self.device)
        return BoxState(
            status=zeros,
            scan=scan,
            target=target,
            box=start,
            share=zeros + len(self.view.shares) - 1 if share is None else share,
            steps=zeros.clone(),
            history=zeros[:, None].expand(count, self.view.history) - 1,
            visited=visited,
            since=zeros.clone(),
            estimates=torch.zeros((count, most, 2, 2, 3), device=self.device),
        )

    def observe(self, state: BoxState) -> dict[str, Tensor]:
        """Two windows around each agent's box, what else it is told, and its target."""
        window, wide = self.windows(state.scan, state.box)
        told = self.told(state.box, state.share, state.history)
        return {"window": window, "wide": wide, "told": told, "target": state.target}

    def windows(self, scan: Tensor, box: Tensor) -> tuple[Tensor, Tensor]:
        """What there is to see at some boxes; outside a scan its background.

        Args:
            scan: (R,) int64.
            box: (R, 2, 3), voxels of the finest level.

        Returns:
            (R, C, s, s, s) with the box and its surroundings, and (R, C, w, w, w) of fixed scale.
        """
        center = box.double().mean(dim=1)
        step = self.window_step(box)
        wide = torch.full_like(step, _WIDE_MM / self.spacing)
        return (
            self._sampled(scan, center, step, self.view.window),
            self._sampled(scan, center, wide, self.view.wide),
        )

    def window_step(self, box: Tensor) -> Tensor:
        """Voxels of the finest level from one voxel of the first window to the next, (R, 3)."""
        size = (box[:, 1] - box[:, 0]).double()
        return (size * (1 + 2 * _CONTEXT) + 2 * _MARGIN) / (self.view.window - 1)

    def told(self, box: Tensor, share: Tensor, history: Tensor) -> Tensor:
        """What else agents know: the size of the box, its step, and what they did last.

        Args:
            box: (N, 2, 3).
            share: (N,) int64.
            history: (N, H) int64.

        Returns:
            (N, 3 + S + H * A) float32.
        """
        size = ((box[:, 1] - box[:, 0]) * self.spacing / 40.0).log().float()
        steps = torch.nn.functional.one_hot(share, len(self.view.shares)).float()
        done = torch.nn.functional.one_hot(history + 1, len(ACTIONS) + 1)[..., 1:].float()
        return torch.cat([size, steps, done.flatten(1)], dim=1)

    def allowed(self, state: BoxState) -> Tensor:
        """(N, A) bool: a move must keep the middle of the box in the scan, and its edges sound."""
        tried = self.destinations(state.box, state.share)
        scan = state.scan[:, None].expand(-1, tried.shape[1])
        kept = self._kept_inside(scan.reshape(-1), tried.reshape(-1, 2, 3)).view_as(tried)
        return (kept - tried).abs().amax(dim=(2, 3)) < _SAME

    def destinations(self, box: Tensor, share: Tensor) -> Tensor:
        """The boxes that every action leads to, (N, A, 2, 3).

        Args:
            box: (N, 2, 3).
            share: (N,) int64, step sizes.
        """
        alpha = self._shares[share][:, None, None]
        low, high = box[:, None, 0], box[:, None, 1]
        size, center = high - low, (low + high) / 2
        center = center + alpha * size * self._shifts
        half = size * (1 + alpha) ** self._growths / 2
        return torch.stack([center - half, center + half], dim=2)

    def step(
        self, state: BoxState, action: Tensor, *, estimate: Tensor | None = None, **_: Any
    ) -> BoxState:
        """Let the active agents act; the others stay as they are.

        Args:
            state: N agents.
            action: (N,) int64, index into :data:`ACTIONS`.
            estimate: (N, 2, 2, 3), where they see the faces of what they look for from where they
                are: offsets from their own faces in voxels, and the logs of the expected errors.
        """
        if not state.active.all():
            rows = torch.nonzero(state.active)[:, 0]
            own = None if estimate is None else estimate[rows]
            return state.put(rows, self.step(state.select(rows), action[rows], estimate=own))
        rows = torch.arange(len(action), device=self.device)
        estimates = state.estimates.clone()
        estimates[rows, state.steps] = 0.0 if estimate is None else estimate.to(estimates)
        box = self.destinations(state.box, state.share)[rows, action]
        box = self._kept_inside(state.scan, box)
        steps = state.steps + 1
        index = torch.arange(state.visited.shape[1], device=self.device)
        with_this_step = (index >= state.since[:, None]) & (index < steps[:, None])
        same = (state.visited - box[:, None]).abs().amax(dim=(2, 3)) < _SAME
        looped = (same & with_this_step).any(dim=1)
        visited = state.visited.clone()
        visited[rows, steps] = box
        finest = state.share == 0
        status = torch.where(steps >= self.view.max_steps, CAPPED, ACTIVE)
        status = torch.where(looped & finest, LOOPED, status)
        status = torch.where(action == TRIGGER, TRIGGERED, status)
        finer = looped & ~finest
        history = torch.cat([action[:, None], state.history], dim=1)[:, : self.view.history]
        return replace(
            state,
            status=status,
            box=box,
            share=state.share - finer.long(),
            steps=steps,
            history=history,
            visited=visited,
            since=torch.where(finer, steps, state.since),
            estimates=estimates,
        )

    def answer(self, state: BoxState, *, looks: int = 3) -> Answer:
        """Precision-weighted mean of where agents saw the faces from their surest steps.

        Args:
            state: N agents that have ended.
            looks: How many of the steps count.
        """
        index = torch.arange(state.visited.shape[1], device=self.device)
        seen = state.visited + state.estimates[:, :, 0].double()
        log_error = state.estimates[:, :, 1].double()
        made = index < state.steps[:, None]
        error = torch.where(made, log_error.mean(dim=(2, 3)), torch.inf)
        surest = error.argsort(dim=1, stable=True).argsort(dim=1) < looks
        counts = surest & made
        weight = torch.where(counts[..., None, None], torch.exp(-2 * log_error), 0.0)
        weight = weight / weight.sum(dim=1, keepdim=True).clamp(min=1e-12)
        mean = (seen * weight).sum(dim=1)
        scatter = ((seen - mean[:, None]).square() * weight).sum(dim=1).mean(dim=(1, 2)).sqrt()
        error = (log_error * weight).sum(dim=1).mean(dim=(1, 2))
        return Answer(_ordered(mean), error, scatter)

    def places(self, state: BoxState) -> Places:
        """Where agents are."""
        box = self.to_world(state.scan, state.box)
        size = (state.box[:, 1] - state.box[:, 0]) * self.spacing
        scale = self.window_step(state.box).mean(dim=1) * self.spacing
        return Places(box.mean(dim=1), scale, box_world=box, extras={"size_mm": size})

    def to_world(self, scan: Tensor, box: Tensor) -> Tensor:
        """Boxes (N, 2, 3) in voxels of scans' finest levels as RAS mm along the world's axes."""
        affine = self.affines[scan]
        center = torch.einsum("nij,nj->ni", affine[:, :3, :3], box.double().mean(dim=1))
        half = (box[:, 1] - box[:, 0]).double() * self.spacing / 2
        center = center + affine[:, :3, 3]
        return torch.stack([center - half, center + half], dim=1)

    def to_voxel(self, scan: Tensor, box_world: Tensor) -> Tensor:
        """Boxes (N, 2, 3) in RAS mm in voxels of scans' finest levels."""
        affine = self.affines[scan]
        center = box_world.double().mean(dim=1) - affine[:, :3, 3]
        center = torch.linalg.solve(affine[:, :3, :3], center)
        half = (box_world[:, 1] - box_world[:, 0]).double() / self.spacing / 2
        return torch.stack([center - half, center + half], dim=1)

    def _sampled(self, scan: Tensor, center: Tensor, step: Tensor, side: int) -> Tensor:
        """Windows of a step of their own along each axis, from the level that does not alias."""
        finest = step.amin(dim=1)[:, None] + 1e-6
        level = ((self._strides <= finest).sum(dim=1) - 1).clamp(min=0)
        stride = self._strides[level][:, None]
        zoom = torch.diag_embed(step / stride)
        return crop(self.scans, center / stride, side, level=level, scan=scan, rotation=zoom)

    def _kept_inside(self, scan: Tensor, box: Tensor) -> Tensor:
        """Boxes (N, 2, 3) whose middle lies in the scan, with edges neither too short nor long."""
        shape = self.shapes[scan]
        size = (box[:, 1] - box[:, 0]).clamp(min=_LEAST)
        half = torch.minimum(size, shape * 1.5) / 2
        center = box.mean(dim=1).clamp(min=-0.5).minimum(shape - 0.5)
        return torch.stack([center - half, center + half], dim=1)


def told_length(shares: int, history: int) -> int:
    """Numbers that an agent is told beside its windows."""
    return 3 + shares + history * len(ACTIONS)


def _ordered(box: Tensor) -> Tensor:
    """Boxes whose faces are in order, at least a tenth of a voxel apart."""
    center = box.mean(dim=1)
    half = ((box[:, 1] - box[:, 0]) / 2).clamp(min=0.05)
    return torch.stack([center - half, center + half], dim=1)
