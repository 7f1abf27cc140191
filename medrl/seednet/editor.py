"""One object being segmented: its state, which never changes, and what leads from one to the next.

Convention: *grid* voxels are those of the model's grid (:class:`medrl.seednet.windows.Grid`), which
stays the same for a scan; the window that the model looks at is a box of it that may grow. A box is
(low, high), high exclusive.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from weakref import WeakKeyDictionary

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor

from medrl.agents import Decision, rollout
from medrl.errors import MedrlError
from medrl.seednet.dynamics import STOPPED, SeedDynamics, SeedState
from medrl.seednet.geometry import dilate
from medrl.seednet.model import EncodedWindows, SeedModel, SeedPolicy
from medrl.seednet.seeds import Seed
from medrl.seednet.windows import Grid, Window
from medrl.volume.space import voxel_to_world, voxels_in_box, world_to_voxel
from medrl.walker.segmenter import FOREGROUND, NONE

Voxels = NDArray[np.int64]
Box = tuple[tuple[int, int, int], tuple[int, int, int]]

#: Around a rejected proposal nothing of its label is proposed at this distance, in voxels, or
#: nearer, until the user changes something there.
EXCLUSION_RADIUS = 4.0
#: Largest side of the window, in half widths of the model's.
_MOST_HALF_WIDTHS = 4
#: Views of windows that are kept.
_VIEWS = 4


@dataclass(frozen=True, eq=False)
class Edit:
    """Voxels of the scan that the user has painted over.

    Attributes:
        voxels: (V, 3), of the scan.
        points_world: (V, 3) RAS mm, their centres.
        label: BACKGROUND or FOREGROUND.
    """

    voxels: Voxels
    points_world: NDArray[np.float64]
    label: int


@dataclass(frozen=True, eq=False)
class ObjectState:
    """Where one object stands.

    Attributes:
        target: What kind of object it is.
        seeds: The user's, in the order placed.
        edits: Of the mask, in the order made.
        placed: The agent's seeds that were accepted.
        rejected: Proposals that were not.
        limits_world: (2, 3) RAS mm, two corners of a box that the object lies in; None for none.
        box: The window; None before the first foreground seed, as the following.
        corner: Grid voxel of the window's first voxel, padding included.
        prior: (1, I, J, K), what the model sees from the user's seeds.
        state: Seeds and segmentation.
    """

    target: int
    seeds: tuple[Seed, ...] = ()
    edits: tuple[Edit, ...] = ()
    placed: tuple[Seed, ...] = ()
    rejected: tuple[Seed, ...] = ()
    limits_world: NDArray[np.float64] | None = None
    box: Box | None = None
    corner: tuple[int, int, int] = (0, 0, 0)
    prior: Tensor | None = None
    state: SeedState | None = None

    @property
    def said(self) -> list[Seed | Edit]:
        """All that the user has said, what counts more later."""
        return [*self.edits, *self.seeds]

    @property
    def bytes(self) -> int:
        """Memory that it takes, roughly."""
        return 0 if self.state is None else 12 * self.state.seeds.numel()


@dataclass(frozen=True, eq=False)
class PlacedWindow:
    """A window of the grid that the model has looked at.

    Attributes:
        box: Which.
        corner: Grid voxel of the window's first voxel, padding included.
        window: The images in it.
        encoded: What the model has made of them.
    """

    box: Box
    corner: tuple[int, int, int]
    window: Window
    encoded: EncodedWindows


@dataclass(frozen=True, eq=False)
class WindowView:
    """What is known of an object's window.

    Attributes:
        image: (1, C, I, J, K) float32, normalised.
        affine: (4, 4), from its voxels to RAS mm.
        seeds: (1, I, J, K) int8, the user's.
        encoded: What the model has made of it.
    """

    image: Tensor
    affine: NDArray[np.float64]
    seeds: Tensor
    encoded: EncodedWindows


@dataclass(frozen=True)
class Candidate:
    """What the agent would do next.

    Attributes:
        decision: As the dynamics take it.
        seed: Where it would put a seed, and with which label.
    """

    decision: Decision
    seed: Seed


class Editor:
    """Leads from one state of an object to the next; holds the scan and the model, no state."""

    def __init__(self, model: SeedModel, grid: Grid) -> None:
        """Take a scan.

        Args:
            model: The model, on the device.
            grid: The scan on its grid.
            device: Where to obj.
        """
        self.model = model
        self.grid = grid
        self._device = model.device
        self._views: OrderedDict[tuple[Box, int], PlacedWindow] = OrderedDict()
        self._known: WeakKeyDictionary[Seed | Edit, Voxels] = WeakKeyDictionary()

    def encode(self, box: Box, target: int) -> PlacedWindow:
        """Look at a window, or remember it.

        Raises:
            MedrlError: If there is nothing to see in it.
        """
        key = (box, target)
        if key not in self._views:
            window = self.grid.window(*box)
            seen = [part[window.inside] for part in window.image]
            if not any(float(part.min()) < float(part.max()) for part in seen):
                raise MedrlError("the window around the seed is empty: there is nothing to see")
            i, j, k = self.grid.voxel_of(window.affine[:3, 3]).tolist()
            number = torch.tensor([target], device=self._device)
            encoded = self.model.encode(window.image[None].to(self._device), number)
            self._views[key] = PlacedWindow(box, (i, j, k), window, encoded)
            while len(self._views) > _VIEWS:
                self._views.popitem(last=False)
        self._views.move_to_end(key)
        return self._views[key]

    # ---- what the user does

    def change(
        self,
        obj: ObjectState,
        *,
        seeds: Sequence[Seed] | None = None,
        edits: Sequence[Edit] | None = None,
        placed: Sequence[Seed] | None = None,
    ) -> ObjectState:
        """Answer to what the user has changed.

        The prior is made anew from the user's seeds, the agent's stay where they do not contradict
        them, and the segmenter goes on from where it stood. Vetoes near to what has changed are
        lifted.

        Args:
            obj: Before.
            seeds: The user's now; as before if None.
            edits: Likewise.
            placed: The agent's seeds to keep, likewise.

        Raises:
            MedrlError: If seeds lie too far apart for one window, or it is empty.
        """
        changed: list[Seed | Edit] = []
        new = obj
        if seeds is not None:
            changed += [s for s in (*obj.seeds, *seeds) if (s in obj.seeds) != (s in seeds)]
            new = replace(new, seeds=tuple(seeds))
        if edits is not None:
            changed += [edit for edit in edits if edit not in obj.edits]
            new = replace(new, edits=tuple(edits))
        if placed is not None:
            new = replace(new, placed=tuple(placed))
        return self._answer(replace(new, rejected=self._still_rejected(new.rejected, changed)))

    def limit(self, obj: ObjectState, limits_world: NDArray[np.float64] | None) -> ObjectState:
        """Confine the object to a box, or to none."""
        return self._answer(replace(obj, limits_world=limits_world))

    def reject(self, obj: ObjectState, seed: Seed) -> ObjectState:
        """Keep a proposal's label from the zone around it."""
        return self._with_exclusions(replace(obj, rejected=(*obj.rejected, seed)))

    # ---- what the agent does

    def propose(self, obj: ObjectState) -> Candidate | None:
        """What the agent would do next; None if it would stop, or has."""
        state, prior = obj.state, obj.prior
        if state is None or prior is None or obj.box is None or not bool(state.active[0]):
            return None
        dynamics, policy = self._agent(obj)
        decision = policy(dynamics, state, None)
        voxel, label = dynamics.place(state, decision.action)
        if int(label[0]) == NONE:
            return None
        where = voxel_to_world(voxel[0].cpu().numpy() + obj.corner, self.grid.affine)
        assert decision.value is not None
        return Candidate(decision, Seed(where, int(label[0]), "agent", float(decision.value[0])))

    def accept(self, obj: ObjectState, candidate: Candidate) -> ObjectState:
        """Place what the agent proposed for this very state."""
        placed = (*obj.placed, candidate.seed)
        dynamics, _ = self._agent(obj)
        assert obj.state is not None
        walked = rollout(dynamics, lambda *_: candidate.decision, obj.state, max_steps=1)
        return self._fitted(replace(obj, placed=placed, state=walked.state))

    def stop(self, obj: ObjectState) -> ObjectState:
        """Write down that the agent stopped by itself, if it still was placing."""
        state = obj.state
        if state is None or not bool(state.active[0]):
            return obj
        return replace(obj, state=replace(state, status=torch.full_like(state.status, STOPPED)))

    def _agent(self, obj: ObjectState) -> tuple[SeedDynamics, SeedPolicy]:
        """What the agent of an object lives in, and what decides."""
        assert obj.box is not None
        assert obj.prior is not None
        encoded = self.encode(obj.box, obj.target).encoded
        return self.model.on(encoded, obj.prior), SeedPolicy(self.model, encoded)

    def view(self, obj: ObjectState) -> WindowView:
        """What is known of the window of an object that has a seed."""
        assert obj.box is not None
        placed = self.encode(obj.box, obj.target)
        seeds = self._user_seeds(obj, placed)
        return WindowView(placed.window.image[None], placed.window.affine, seeds, placed.encoded)

    # ---- answering

    def _answer(self, obj: ObjectState) -> ObjectState:
        """Segment from all seeds there are."""
        points = self._user_voxels(obj)
        foreground = [voxels for voxels, label in points if label == FOREGROUND]
        if not foreground:
            return replace(obj, placed=(), rejected=(), box=None, prior=None, state=None)
        box = self._cover(obj.box, foreground)
        return self._fitted(self._solve(obj, box))

    def _solve(self, obj: ObjectState, box: Box) -> ObjectState:
        """Segment in a window, going on from the segmentation in another."""
        model = self.model
        placed_window = self.encode(box, obj.target)
        corner = placed_window.corner
        user = self._user_seeds(obj, placed_window)
        prior = model.prior(placed_window.encoded, user)
        dynamics = model.on(placed_window.encoded, prior)
        seeds, placed, start = user, obj.placed, prior
        if obj.state is not None:
            start = _moved(
                obj.state.probability, obj.corner, onto=prior, corner_onto=placed_window.corner
            )
            places = [self.grid.voxel_of(seed.position_world) - corner for seed in placed]
            inside = [bool(((p >= 0) & (p < user.shape[1:])).all()) for p in places]
            placed = tuple(seed for seed, there in zip(placed, inside, strict=True) if there)
            if placed:
                kept = [p for p, there in zip(places, inside, strict=True) if there]
                rows = torch.from_numpy(np.array(kept))[None].to(user.device)
                labels = torch.tensor([[seed.label for seed in placed]], device=user.device)
                seeds = dynamics.repaint(replace(obj.state, places=rows, labels=labels), user)
                i, j, k = rows[0].unbind(dim=1)
                fits = (seeds[0, i, j, k] == labels[0]) & (user[0, i, j, k] == NONE)
                placed = tuple(s for s, fit in zip(placed, fits.tolist(), strict=True) if fit)
        state = dynamics.reset(seeds, user=user != NONE, start=start)
        new = replace(obj, placed=placed, box=box, corner=corner, prior=prior, state=state)
        return self._with_exclusions(new)

    def _fitted(self, obj: ObjectState) -> ObjectState:
        """Let the window grow while the object touches a face of it that is not the scan's end."""
        assert obj.box is not None
        assert obj.state is not None
        while (box := self._grown(obj)) != obj.box:
            before = obj.state
            obj = self._solve(obj, box)
            assert obj.state is not None
            # The agent goes on with the seeds it has left.
            state = replace(obj.state, steps=before.steps, status=before.status)
            obj = replace(obj, state=state)
        return obj

    def _with_exclusions(self, obj: ObjectState) -> ObjectState:
        """Keep the agent out of where proposals were rejected, and of what is beyond the limits."""
        if obj.state is None or obj.box is None:
            return obj
        user = obj.state.user
        forbidden = obj.state.forbidden.clone()
        for seed in obj.rejected:
            zone = torch.zeros_like(user)
            voxel = self.grid.voxel_of(seed.position_world) - obj.corner
            if ((voxel >= 0) & (voxel < user.shape[1:])).all():
                zone[(0, *voxel.tolist())] = True
                forbidden[:, seed.label] |= dilate(zone, EXCLUSION_RADIUS)
        forbidden |= ~self._within_limits(obj)[None, None]
        return replace(obj, state=replace(obj.state, forbidden=forbidden))

    def _within_limits(self, obj: ObjectState) -> Tensor:
        """Which voxels of the window lie inside the user's box, (I, J, K) bool."""
        assert obj.state is not None
        shape = tuple(obj.state.seeds.shape[1:])
        if obj.limits_world is None:
            return torch.ones(shape, dtype=torch.bool, device=self._device)
        affine = self.grid.affine.copy()
        affine[:3, 3] = voxel_to_world(np.array(obj.corner, dtype=np.float64), affine)
        inside = voxels_in_box(obj.limits_world, affine, shape)
        return torch.from_numpy(inside).to(self._device)

    def _still_rejected(
        self, rejected: tuple[Seed, ...], changed: Sequence[Seed | Edit]
    ) -> tuple[Seed, ...]:
        """Vetoes that nothing has changed near to."""
        if not changed:
            return rejected
        points = np.concatenate([self._voxels(item) for item in changed])
        return tuple(
            seed
            for seed in rejected
            if np.linalg.norm(points - self.grid.voxel_of(seed.position_world), axis=1).min()
            > EXCLUSION_RADIUS
        )

    # ---- where the user's seeds lie

    def _voxels(self, item: Seed | Edit) -> Voxels:
        """Grid voxels (V, 3) of a seed or an edit; those half a voxel beyond the grid in it."""
        if item not in self._known:
            if isinstance(item, Seed):
                voxels = item.voxels(self.grid.affine)
            else:
                exact = world_to_voxel(item.points_world, self.grid.affine)
                voxels = np.unique(np.floor(exact + 0.5).astype(np.int64), axis=0)
            self._known[item] = np.clip(voxels, 0, np.array(self.grid.shape) - 1)
        return self._known[item]

    def _user_voxels(self, obj: ObjectState) -> list[tuple[Voxels, int]]:
        """Grid voxels and labels of all that the user has said, what counts more later."""
        return [(self._voxels(item), item.label) for item in obj.said]

    def _user_seeds(self, obj: ObjectState, placed_window: PlacedWindow) -> Tensor:
        """The user's seeds map (1, I, J, K) int8 in a window."""
        shape = np.array(placed_window.window.shape)
        seeds = torch.full((1, *placed_window.window.shape), NONE, dtype=torch.int8)
        for voxels, label in self._user_voxels(obj):
            own = voxels - placed_window.corner
            own = own[((own >= 0) & (own < shape)).all(axis=1)]
            i, j, k = torch.from_numpy(own).unbind(dim=1)
            seeds[0, i, j, k] = label
        return seeds.to(self._device)

    # ---- windows

    def _cover(self, box: Box | None, foreground: Sequence[Voxels]) -> Box:
        """A window that holds all foreground seeds with some room around those beyond."""
        half_width = self.model.settings.half_width
        shape = np.array(self.grid.shape)
        if box is None:
            first = np.round(foreground[0].mean(axis=0)).astype(np.int64)
            low, high = first - half_width, first + half_width
        else:
            low, high = np.array(box[0]), np.array(box[1])
        low, high = np.clip(low, 0, shape), np.clip(high, 0, shape)
        points = np.concatenate(foreground)
        beyond = points[((points < low) | (points >= high)).any(axis=1)]
        if len(beyond):
            low = np.minimum(low, beyond.min(axis=0) - half_width // 2)
            high = np.maximum(high, beyond.max(axis=0) + half_width // 2)
            low, high = np.clip(low, 0, shape), np.clip(high, 0, shape)
        if (high - low).max() > _MOST_HALF_WIDTHS * half_width:
            span = np.linalg.norm(np.ptp(points, axis=0)) * self.model.settings.spacing
            raise MedrlError(
                f"the foreground seeds lie {span:.0f} mm apart, more than this model can look at "
                "in one go: start a new object for the farther ones"
            )
        return _as_box(low, high)

    def _grown(self, obj: ObjectState) -> Box:
        """The window, larger on the sides whose faces the object touches."""
        assert obj.box is not None
        assert obj.state is not None
        low, high = np.array(obj.box[0]), np.array(obj.box[1])
        first = low - obj.corner
        cut = tuple(slice(a, a + n) for a, n in zip(first, high - low, strict=True))
        state = obj.state
        mask = (state.mask[0] & self._within_limits(obj))[cut].cpu().numpy()
        user = (state.user[0] & (state.seeds[0] == FOREGROUND))[cut].cpu().numpy()
        ends = np.array(self.grid.shape)
        open_low, open_high = low > 0, high < ends
        if not any(mask.take(side, axis=a).any() for a, side in _open(open_low, open_high)):
            return obj.box
        numbers, _ = ndimage.label(mask)
        own = np.isin(numbers, np.setdiff1d(numbers[user], 0))
        half_width, most = (
            self.model.settings.half_width,
            _MOST_HALF_WIDTHS * self.model.settings.half_width,
        )
        for axis, side in _open(open_low, open_high):
            room = most - (high[axis] - low[axis])
            if room <= 0 or not own.take(side, axis=axis).any():
                continue
            step = min(half_width, int(room))
            if side == 0:
                low[axis] = max(0, low[axis] - step)
            else:
                high[axis] = min(ends[axis], high[axis] + step)
        return _as_box(low, high)


def _open(low: NDArray[np.bool_], high: NDArray[np.bool_]) -> list[tuple[int, int]]:
    """Axis and side (0 or -1) of the faces beyond which there is more of the scan."""
    return [(a, 0) for a in range(3) if low[a]] + [(a, -1) for a in range(3) if high[a]]


def _as_box(low: Voxels, high: Voxels) -> Box:
    (a, b, c), (d, e, f) = low.tolist(), high.tolist()
    return (a, b, c), (d, e, f)


def _moved(
    values: Tensor, corner: Sequence[int], *, onto: Tensor, corner_onto: Sequence[int]
) -> Tensor:
    """Values (1, I, J, K) of one window in another one, and there the other's where it has none."""
    if tuple(corner) == tuple(corner_onto) and values.shape == onto.shape:
        return values
    out = onto.clone()
    source, target = [slice(None)], [slice(None)]
    for axis, (a, b) in enumerate(zip(corner, corner_onto, strict=True), 1):
        low = max(a, b)
        high = max(low, min(a + values.shape[axis], b + onto.shape[axis]))
        source.append(slice(low - a, high - a))
        target.append(slice(low - b, high - b))
    out[tuple(target)] = values[tuple(source)]
    return out
