"""Placing seeds as an environment: TorchRL's, and through it Gymnasium's.

Import this module to use either; ``gymnasium.make("medrl.seednet.env:medrl/SeedNet-v0", ...)``
does so by itself. It needs the extra ``train``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike
from tensordict import TensorDict, TensorDictBase
from torch import Tensor
from torch.nn import functional as F
from torchrl.data import Binary, Bounded, Categorical, Composite, Unbounded

from medrl.errors import MedrlError
from medrl.rl.old_env import AgentsEnv
from medrl.seednet.dynamics import SeedDynamics, SeedState, dilate, seed_maps
from medrl.seednet.rewards import RewardKind, RewardSettings, dice, seed_rewards
from medrl.walker.edges import intensity_edges
from medrl.walker.segmenter import FOREGROUND, NONE, RandomWalker, Segmenter, System

#: Name under which Gymnasium knows the environment.
GYMNASIUM_ID = "medrl/SeedNet-v0"

#: Channels of the observation after those of the image: see :class:`SeedEnv`.
STATE_CHANNELS = (
    "probability",
    "uncertainty",
    "mask",
    "foreground seeds",
    "background seeds",
    "seeds left",
)


@dataclass(frozen=True, eq=False)
class LabelledWindow:
    """Something to be segmented, and how it should be.

    Attributes:
        image: (C, I, J, K) float32, what the agent sees.
        truth: (I, J, K) bool, not empty.
        weights: (3, I, J, K) float32, edges for the segmenter (:mod:`medrl.walker.edges`).
        prior: (I, J, K) float32, foreground probability for the segmenter, or None.
    """

    image: Tensor
    truth: Tensor
    weights: Tensor
    prior: Tensor | None = None


@dataclass(frozen=True)
class ClickSettings:
    """The simulated user's click, with which an episode begins.

    Attributes:
        radius: Of the ball that a click paints, in voxels.
        error_share: Share of the episodes in which the user slips.
        error: How far the click then is from where it was meant to be, at most, in voxels on each
            axis; it may miss the object.
    """

    radius: float = 0.0
    error_share: float = 0.0
    error: int = 3

    def __post_init__(self) -> None:
        """Refuse what is not an option.

        Raises:
            MedrlError: If a number is out of range.
        """
        if self.radius < 0 or self.error < 0 or not 0 <= self.error_share <= 1:
            raise MedrlError("a click's radius and error must be at least 0, its share in 0..1")


class SeedEnv(AgentsEnv):
    """Agents that segment labelled windows by placing seeds, after one click of a user.

    **Agents and windows.** ``batch_size`` is ``[N]`` for N agents that act at the same time, or
    ``[]`` for one. An episode begins with a window drawn from the pool and one foreground click at
    a random voxel of its truth, unless they are given to ``reset`` (``case``, ``click_voxel``).
    An agent that has ended stays as it is, with reward 0 and its done flags up, until it is
    reset; ``_reset`` masks (as collectors send them) start only the agents they name.

    **Observation.** Batch dimensions come first, written ``*`` here; (i, j, k) is the grid of
    cells, each of ``stride`` voxels on every axis.

    =============== ===================== ====================================================
    key             shape and dtype       what
    =============== ===================== ====================================================
    ``cells``       (*, C + 6, i, j, k)   means over the cells of: the C image channels; the
                    float32               foreground probability p; 4 p (1 - p); the mask p >
                                          0.5; exp(-distance / ``seed_scale``) to the nearest
                                          foreground, and background seed; and the share of
                                          the agent's seeds that is left
    ``action_mask`` (*, A) bool           actions that place a seed, and STOP
    ``case``        (*) int64             which window
    ``click_voxel`` (*, 3) int64          the user's click
    ``dice``        (*) float32           overlap of mask and truth
    =============== ===================== ====================================================

    A policy may look at the first two. In Gymnasium the others are in ``info``; ``dice`` is
    ground truth.

    **Action.** Categorical, 0..A-1: label * cells + cell, background first, and STOP last
    (:class:`medrl.seednet.dynamics.SeedDynamics`). A seed that the mask rules out is lost, nothing
    else happens; ``TransformedEnv(env, torchrl.envs.ActionMask())`` draws only from the others.

    **Reward.** :func:`medrl.seednet.rewards.seed_rewards`, shape (*, 1). By default, the rewards of
    an episode add up to the Dice that the agent gained.

    **Done.** ``terminated`` when the agent has chosen STOP or used up its seeds, which it can see;
    never ``truncated``.

    **Randomness.** All of it comes from one generator: ``set_seed`` fixes every episode. Without
    a seed it is seeded from PyTorch's global generator.
    """

    info_keys = ("case", "click_voxel", "dice")

    def __init__(
        self,
        pool: Sequence[LabelledWindow],
        *,
        segmenter: Segmenter | None = None,
        batch_size: Sequence[int] = (),
        reward: RewardSettings | RewardKind = "dice",
        click: ClickSettings | None = None,
        seed_scale: float = 5.0,
        seed: int | None = None,
        **rules: Any,
    ) -> None:
        """Set up the environment; :func:`make` does it from images and masks.

        Args:
            pool: The windows, of one grid, with a prior each or none, on one device.
            segmenter: Turns seeds into probabilities; a random walker if None.
            batch_size: ``[N]`` or ``[]``.
            reward: Its settings, or only its kind.
            click: The simulated user.
            seed_scale: Range of the seed channels, in voxels.
            seed: Fixes every episode.
            **rules: Options of :class:`medrl.seednet.dynamics.SeedDynamics`: ``stride``,
                ``max_seeds``, ``seed_radius``, ``veto_radius``.

        Raises:
            MedrlError: If windows do not fit each other or an option is not usable.
        """
        _check_pool(pool)
        if len(batch_size) > 1:
            raise MedrlError(f"batch_size must be [] or [N], not {list(batch_size)}")
        if not seed_scale > 0:
            raise MedrlError("seed_scale must be more than 0 voxels")
        super().__init__(device=pool[0].image.device, batch_size=torch.Size(batch_size))
        segmenter = RandomWalker() if segmenter is None else segmenter
        self.dynamics = _dynamics(segmenter, rules)
        self.reward = RewardSettings(kind=reward) if isinstance(reward, str) else reward
        self.click = click or ClickSettings()
        self.seed_scale = seed_scale
        self.truth = torch.stack([window.truth for window in pool]).bool()
        priors = [window.prior for window in pool if window.prior is not None]
        self._prior = torch.stack(priors) if priors else None
        self._systems = segmenter.prepare(torch.stack([window.weights for window in pool]))
        images = torch.stack([window.image for window in pool]).float()
        self._image_cells = self._to_cells(images)
        self._generator = torch.Generator()
        self._set_seed(seed if seed is not None else int(torch.randint(2**62, ())))
        self._make_specs()
        self._case, self._click_voxel, self._state = self._begin(self.batch_size.numel())
        self._system: System = self._systems.select(self._case)

    @property
    def seed_state(self) -> SeedState:
        """The N agents as the dynamics know them."""
        return self._state

    # What TorchRL asks for -----------------------------------------------------------------------

    def _reset(
        self,
        tensordict: TensorDictBase | None = None,
        *,
        case: int | ArrayLike | None = None,
        click_voxel: ArrayLike | None = None,
    ) -> TensorDict:
        mask = None if tensordict is None else tensordict.get("_reset", None)
        count = self.batch_size.numel()
        who = torch.ones(count, dtype=torch.bool) if mask is None else mask.reshape(count)
        rows = who.to(self.device).nonzero()[:, 0]
        cases, clicks = None, None
        if case is not None:
            cases = self._given("case", case, (), (len(self.truth),))[rows]
        if click_voxel is not None:
            clicks = self._given("click_voxel", click_voxel, (3,), self.truth.shape[1:])[rows]
        if len(rows) > 0:
            self._start(rows, cases, clicks)
        return self._pack(self._observe() | self._done())

    def _step(self, tensordict: TensorDictBase) -> TensorDict:
        action = tensordict["action"].to(self.device).reshape(self.batch_size.numel())
        before = self._state
        prior = None if self._prior is None else self._prior[self._case]
        place, label = self.dynamics.place(before, action, prior=prior)
        self._state = self.dynamics.step(self._system, before, action, prior=prior)
        truth = self.truth[self._case]
        reward = seed_rewards(before.mask, self._state.mask, truth, place, label, self.reward)
        reward = torch.where(before.placing, reward, 0.0)
        return self._pack(self._observe() | self._done() | {"reward": reward[:, None]})

    # Episodes ------------------------------------------------------------------------------------

    def _start(self, rows: Tensor, cases: Tensor | None, clicks: Tensor | None) -> None:
        """Let some agents begin anew."""
        case, click, state = self._begin(len(rows), cases, clicks)
        self._case = self._case.index_copy(0, rows, case)
        self._click_voxel = self._click_voxel.index_copy(0, rows, click)
        merged = {
            name: old.index_copy(0, rows, getattr(state, name))
            for name, old in vars(self._state).items()
        }
        self._state = SeedState(**merged)
        self._system = self._systems.select(self._case)

    def _begin(
        self, count: int, cases: Tensor | None = None, clicks: Tensor | None = None
    ) -> tuple[Tensor, Tensor, SeedState]:
        """Windows, clicks (voxels) and states of agents that begin; drawn where not given."""
        if cases is None:
            cases = torch.randint(len(self.truth), (count,), generator=self._generator)
            cases = cases.to(self.device)
        truth = self.truth[cases]
        if clicks is None:
            clicks = self._random_click(truth)
        mask = torch.zeros_like(truth)
        mask[torch.arange(count, device=self.device), *clicks.unbind(dim=1)] = True
        painted = dilate(mask, self.click.radius)
        seeds = torch.where(painted, FOREGROUND, NONE).to(torch.int8)
        prior = None if self._prior is None else self._prior[cases]
        state = self.dynamics.reset(self._systems.select(cases), seeds, prior=prior)
        return cases, clicks, state

    def _random_click(self, truth: Tensor) -> Tensor:
        """A voxel of each truth, (N, 3) int64, now and then missed by a little."""
        settings, count = self.click, len(truth)
        share = torch.rand((count, 1), generator=self._generator, dtype=torch.float64)
        inside = truth.flatten(1).cumsum(dim=1)
        nth = (share.to(self.device) * inside[:, -1:]).long() + 1
        index = torch.searchsorted(inside, nth)[:, 0]
        voxel = torch.stack(torch.unravel_index(index, truth.shape[1:]), dim=-1)
        slips = torch.rand(count, generator=self._generator) < settings.error_share
        way = torch.randint(
            -settings.error, settings.error + 1, (count, 3), generator=self._generator
        )
        last = torch.tensor(truth.shape[1:], device=self.device) - 1
        moved = voxel + (way * slips[:, None]).to(self.device)
        return torch.minimum(moved.clamp(min=0), last)

    def _given(
        self, what: str, value: ArrayLike, shape: tuple[int, ...], limits: Sequence[int]
    ) -> Tensor:
        """What was given for one or for all agents, (N, *shape) int64."""
        count, given = self.batch_size.numel(), np.asarray(value)
        usable = given.dtype.kind in "iu" and given.shape in (shape, (count, *shape))
        if not usable or (given < 0).any() or (given >= np.array(limits)).any():
            highest = ", ".join(str(limit - 1) for limit in limits)
            raise MedrlError(f"{what} must be whole numbers in 0..{highest}: one or {count}")
        return torch.from_numpy(given.astype(np.int64)).to(self.device).expand(count, *shape)

    # Observations --------------------------------------------------------------------------------

    def _to_cells(self, channels: Tensor) -> Tensor:
        """Means over the cells of channels (N, F, I, J, K); those cut off have fewer voxels."""
        side = self.dynamics.stride
        return F.avg_pool3d(channels, side, side, ceil_mode=True, count_include_pad=False)

    def _observe(self) -> dict[str, Tensor]:
        state = self._state
        p = state.probability
        near = seed_maps(state.seeds, scale=self.seed_scale).flip(1)
        own = torch.stack([p, 4 * p * (1 - p), state.mask.float()], dim=1)
        pooled = self._to_cells(torch.cat([own, near], dim=1))
        left = 1 - state.steps.float() / self.dynamics.max_seeds
        share = left[:, None, None, None, None].expand(-1, 1, *pooled.shape[2:])
        # Rounding of means of numbers in 0..1 must not leave the declared bounds.
        known = torch.cat([pooled.clamp(0.0, 1.0), share], dim=1)
        return {
            "cells": torch.cat([self._image_cells[self._case], known], dim=1),
            "action_mask": self.dynamics.allowed(state),
            "case": self._case.clone(),
            "click_voxel": self._click_voxel.clone(),
            "dice": dice(state.mask, self.truth[self._case]),
        }

    def _done(self) -> dict[str, Tensor]:
        done = ~self._state.placing[:, None]
        return {"done": done, "terminated": done.clone(), "truncated": torch.zeros_like(done)}

    def _make_specs(self) -> None:
        batch, device = self.batch_size, self.device
        count, *shape = self.truth.shape
        actions, grid = self.dynamics.actions(shape), self.dynamics.grid(shape)
        flat = self._image_cells.transpose(0, 1).flatten(1)
        known = torch.zeros(len(STATE_CHANNELS), device=device)
        bounds = [
            torch.cat([end, state])[:, None, None, None].expand(*batch, -1, *grid).contiguous()
            for end, state in ((flat.amin(dim=1), known), (flat.amax(dim=1), known + 1))
        ]
        self.action_spec = Categorical(actions, shape=batch, device=device, dtype=torch.int64)
        self.observation_spec = Composite(
            {
                "cells": Bounded(*bounds, bounds[0].shape, device, torch.float32),
                "action_mask": Binary(
                    actions, shape=(*batch, actions), device=device, dtype=torch.bool
                ),
                "case": Categorical(count, shape=batch, device=device, dtype=torch.int64),
                "click_voxel": Unbounded((*batch, 3), device=device, dtype=torch.int64),
                "dice": Bounded(0.0, 1.0, batch, device, torch.float32),
            },
            shape=batch,
            device=device,
        )
        self.reward_spec = Unbounded((*batch, 1), device=device, dtype=torch.float32)
        flag = Binary(1, shape=(*batch, 1), device=device, dtype=torch.bool)
        names = ("done", "terminated", "truncated")
        self.done_spec = Composite(
            {name: flag.clone() for name in names}, shape=batch, device=device
        )


def make(
    images: Sequence[ArrayLike],
    masks: Sequence[ArrayLike],
    *,
    spacing: Sequence[float] = (1.0, 1.0, 1.0),
    beta: float = 130.0,
    device: str = "cpu",
    **options: Any,
) -> SeedEnv:
    """Make an environment from images and masks, with edges from the intensities.

    Args:
        images: M windows of one grid, each (C, I, J, K) or (I, J, K), about -1 to 1.
        masks: (I, J, K) each, true inside the object.
        spacing: Size of a voxel along each array axis.
        beta: How much a difference of intensities parts two voxels
            (:func:`medrl.walker.edges.intensity_edges`).
        device: Where to keep and segment them.
        **options: Those of :class:`SeedEnv`.

    Returns:
        The environment.

    Raises:
        MedrlError: If images and masks do not fit each other or an option is not usable.
    """
    if len(images) != len(masks):
        raise MedrlError(f"there are {len(images)} images and {len(masks)} masks")
    pool = []
    for image, mask in zip(images, masks, strict=True):
        seen = torch.as_tensor(np.asarray(image), dtype=torch.float32, device=device)
        seen = seen[None] if seen.dim() == 3 else seen
        truth = torch.as_tensor(np.asarray(mask), dtype=torch.bool, device=device)
        weights = intensity_edges(seen[None], spacing=spacing, beta=beta)[0]
        pool.append(LabelledWindow(seen, truth, weights))
    return SeedEnv(pool, **options)


def _dynamics(segmenter: Segmenter, rules: dict[str, Any]) -> SeedDynamics:
    known = ("stride", "max_seeds", "seed_radius", "veto_radius")
    if unknown := sorted(set(rules) - set(known)):
        raise MedrlError(f"unknown option {', '.join(unknown)}; there are {', '.join(known)}")
    return SeedDynamics(segmenter, **rules)


def _check_pool(pool: Sequence[LabelledWindow]) -> None:
    if not pool:
        raise MedrlError("an environment needs at least one window")
    first = pool[0]
    for number, window in enumerate(pool):
        if window.image.shape != first.image.shape or window.image.device != first.image.device:
            raise MedrlError("all windows need the same channels, grid and device")
        shape = tuple(window.image.shape[1:])
        if tuple(window.truth.shape) != shape or not window.truth.any():
            raise MedrlError(f"window {number} needs a mask of its grid {shape}, not empty")
        if (window.prior is None) != (first.prior is None):
            raise MedrlError("either all windows have a prior or none")


SeedEnv.register_gym(GYMNASIUM_ID, entry_point=make)

__all__ = ["GYMNASIUM_ID", "STATE_CHANNELS", "ClickSettings", "LabelledWindow", "SeedEnv", "make"]
