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

from medrl.errors import MedrlError
from medrl.seednet.dynamics import STOPPED, SeedState, dilate
from medrl.seednet.model import Scene, SeedModel
from medrl.seednet.seeds import Seed
from medrl.seednet.windows import Grid, Window
from medrl.volume.space import voxel_to_world, voxels_in_box, world_to_voxel
from medrl.walker.segmenter import FOREGROUND, NONE

Voxels = NDArray[np.int64]
Box = tuple[tuple[int, int, int], tuple[int, int, int]]

#: Around a rejected proposal nothing of its label is proposed at this distance, in voxels, or
#: nearer, until the user changes something there.
VETO_ZONE = 4.0
#: Largest side of the window, in units of the model's reach.
_MOST_REACHES = 4
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
class Work:
    """Where the work on one object stands.

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
class Sight:
    """A window of the grid that the model has looked at.

    Attributes:
        box: Which.
        corner: Grid voxel of the window's first voxel, padding included.
        window: The images in it.
        scene: What the model has made of them.
    """

    box: Box
    corner: tuple[int, int, int]
    window: Window
    scene: Scene


@dataclass(frozen=True)
class Option:
    """What the agent would do next.

    Attributes:
        action: As the dynamics count them.
        seed: Where and with which label.
    """

    action: int
    seed: Seed


class Worker:
    """Leads from one state of an object to the next; holds the scan and the model, no state."""

    def __init__(self, model: SeedModel, grid: Grid, *, device: torch.device) -> None:
        """Take a scan.

        Args:
            model: The model, on the device.
            grid: The scan on its grid.
            device: Where to work.
        """
        self.model = model
        self.grid = grid
        self._device = device
        self._views: OrderedDict[tuple[Box, int], Sight] = OrderedDict()
        self._known: WeakKeyDictionary[Seed | Edit, Voxels] = WeakKeyDictionary()

    def look(self, box: Box, target: int) -> Sight:
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
            scene = self.model.look(window.image[None].to(self._device), number)
            self._views[key] = Sight(box, (i, j, k), window, scene)
            while len(self._views) > _VIEWS:
                self._views.popitem(last=False)
        self._views.move_to_end(key)
        return self._views[key]

    # ---- what the user does

    def change(
        self,
        work: Work,
        *,
        seeds: Sequence[Seed] | None = None,
        edits: Sequence[Edit] | None = None,
        placed: Sequence[Seed] | None = None,
    ) -> Work:
        """Answer to what the user has changed.

        The prior is made anew from the user's seeds, the agent's stay where they do not contradict
        them, and the segmenter goes on from where it stood. Vetoes near to what has changed are
        lifted.

        Args:
            work: Before.
            seeds: The user's now; as before if None.
            edits: Likewise.
            placed: The agent's seeds to keep, likewise.

        Raises:
            MedrlError: If seeds lie too far apart for one window, or it is empty.
        """
        changed: list[Seed | Edit] = []
        new = work
        if seeds is not None:
            changed += [s for s in (*work.seeds, *seeds) if (s in work.seeds) != (s in seeds)]
            new = replace(new, seeds=tuple(seeds))
        if edits is not None:
            changed += [edit for edit in edits if edit not in work.edits]
            new = replace(new, edits=tuple(edits))
        if placed is not None:
            new = replace(new, placed=tuple(placed))
        return self._answer(replace(new, rejected=self._still_rejected(new.rejected, changed)))

    def limit(self, work: Work, limits_world: NDArray[np.float64] | None) -> Work:
        """Confine the object to a box, or to none."""
        return self._answer(replace(work, limits_world=limits_world))

    def reject(self, work: Work, seed: Seed) -> Work:
        """Keep a proposal's label from the zone around it."""
        return self._barred(replace(work, rejected=(*work.rejected, seed)))

    # ---- what the agent does

    def propose(self, work: Work) -> Option | None:
        """What the agent would do next; None if it would stop, or has."""
        state, prior = work.state, work.prior
        if state is None or prior is None or work.box is None or not bool(state.placing[0]):
            return None
        sight = self.look(work.box, work.target)
        values = self.model.values(sight.scene, state, prior)[0]
        action = int(values.argmax())
        if action == len(values) - 1:
            return None
        voxel, label = self.model.dynamics.place(
            state, torch.tensor([action], device=self._device), prior=prior
        )
        where = voxel_to_world(voxel[0].cpu().numpy() + work.corner, self.grid.affine)
        return Option(action, Seed(where, int(label[0]), "agent", float(values[action])))

    def accept(self, work: Work, option: Option) -> Work:
        """Place what the agent proposed for this very state."""
        placed = (*work.placed, option.seed)
        return self._fitted(self._step(replace(work, placed=placed), option.action))

    def stop(self, work: Work) -> Work:
        """Write down that the agent stopped by itself, if it still was placing."""
        state = work.state
        if state is None or not bool(state.placing[0]):
            return work
        return replace(work, state=replace(state, status=torch.full_like(state.status, STOPPED)))

    def _step(self, work: Work, action: int) -> Work:
        assert work.box is not None
        assert work.state is not None
        scene = self.look(work.box, work.target).scene
        state = self.model.dynamics.step(
            scene.system, work.state, torch.tensor([action], device=self._device), prior=work.prior
        )
        return replace(work, state=state)

    # ---- answering

    def _answer(self, work: Work) -> Work:
        """Segment from all seeds there are."""
        points = self._user_voxels(work)
        foreground = [voxels for voxels, label in points if label == FOREGROUND]
        if not foreground:
            return replace(work, placed=(), rejected=(), box=None, prior=None, state=None)
        box = self._cover(work.box, foreground)
        return self._fitted(self._solve(work, box))

    def _solve(self, work: Work, box: Box) -> Work:
        """Segment in a window, going on from the segmentation in another."""
        model, dynamics = self.model, self.model.dynamics
        sight = self.look(box, work.target)
        corner = sight.corner
        user = self._user_seeds(work, sight)
        prior = model.prior(sight.scene, user)
        seeds, placed, start = user, work.placed, prior
        if work.state is not None:
            start = _moved(
                work.state.probability, work.corner, onto=prior, corner_onto=sight.corner
            )
            places = [self.grid.voxel_of(seed.position_world) - corner for seed in placed]
            inside = [bool(((p >= 0) & (p < user.shape[1:])).all()) for p in places]
            placed = tuple(seed for seed, there in zip(placed, inside, strict=True) if there)
            if placed:
                kept = [p for p, there in zip(places, inside, strict=True) if there]
                rows = torch.from_numpy(np.array(kept))[None].to(user.device)
                labels = torch.tensor([[seed.label for seed in placed]], device=user.device)
                seeds = dynamics.repaint(replace(work.state, places=rows, labels=labels), user)
                i, j, k = rows[0].unbind(dim=1)
                fits = (seeds[0, i, j, k] == labels[0]) & (user[0, i, j, k] == NONE)
                placed = tuple(s for s, fit in zip(placed, fits.tolist(), strict=True) if fit)
        state = dynamics.reset(
            sight.scene.system, seeds, user=user != NONE, prior=prior, start=start
        )
        new = replace(work, placed=placed, box=box, corner=corner, prior=prior, state=state)
        return self._barred(new)

    def _fitted(self, work: Work) -> Work:
        """Let the window grow while the object touches a face of it that is not the scan's end."""
        assert work.box is not None
        assert work.state is not None
        while (box := self._grown(work)) != work.box:
            before = work.state
            work = self._solve(work, box)
            assert work.state is not None
            # The agent goes on with the seeds it has left.
            state = replace(work.state, steps=before.steps, status=before.status)
            work = replace(work, state=state)
        return work

    def _barred(self, work: Work) -> Work:
        """Keep the agent out of where proposals were rejected, and of what is beyond the limits."""
        if work.state is None or work.box is None:
            return work
        user = work.state.user
        forbidden = work.state.forbidden.clone()
        for seed in work.rejected:
            zone = torch.zeros_like(user)
            voxel = self.grid.voxel_of(seed.position_world) - work.corner
            if ((voxel >= 0) & (voxel < user.shape[1:])).all():
                zone[(0, *voxel.tolist())] = True
                forbidden[:, seed.label] |= dilate(zone, VETO_ZONE)
        forbidden |= ~self._within_limits(work)[None, None]
        return replace(work, state=replace(work.state, forbidden=forbidden))

    def _within_limits(self, work: Work) -> Tensor:
        """Which voxels of the window lie inside the user's box, (I, J, K) bool."""
        assert work.state is not None
        shape = tuple(work.state.seeds.shape[1:])
        if work.limits_world is None:
            return torch.ones(shape, dtype=torch.bool, device=self._device)
        affine = self.grid.affine.copy()
        affine[:3, 3] = voxel_to_world(np.array(work.corner, dtype=np.float64), affine)
        inside = voxels_in_box(work.limits_world, affine, shape)
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
            > VETO_ZONE
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

    def _user_voxels(self, work: Work) -> list[tuple[Voxels, int]]:
        """Grid voxels and labels of all that the user has said, what counts more later."""
        return [(self._voxels(item), item.label) for item in work.said]

    def _user_seeds(self, work: Work, sight: Sight) -> Tensor:
        """The user's seeds map (1, I, J, K) int8 in a window."""
        shape = np.array(sight.window.shape)
        seeds = torch.full((1, *sight.window.shape), NONE, dtype=torch.int8)
        for voxels, label in self._user_voxels(work):
            own = voxels - sight.corner
            own = own[((own >= 0) & (own < shape)).all(axis=1)]
            i, j, k = torch.from_numpy(own).unbind(dim=1)
            seeds[0, i, j, k] = label
        return seeds.to(self._device)

    # ---- windows

    def _cover(self, box: Box | None, foreground: Sequence[Voxels]) -> Box:
        """A window that holds all foreground seeds with some room around those it has to reach."""
        reach = self.model.settings.reach
        shape = np.array(self.grid.shape)
        if box is None:
            first = np.round(foreground[0].mean(axis=0)).astype(np.int64)
            low, high = first - reach, first + reach
        else:
            low, high = np.array(box[0]), np.array(box[1])
        low, high = np.clip(low, 0, shape), np.clip(high, 0, shape)
        points = np.concatenate(foreground)
        beyond = points[((points < low) | (points >= high)).any(axis=1)]
        if len(beyond):
            low = np.minimum(low, beyond.min(axis=0) - reach // 2)
            high = np.maximum(high, beyond.max(axis=0) + reach // 2)
            low, high = np.clip(low, 0, shape), np.clip(high, 0, shape)
        if (high - low).max() > _MOST_REACHES * reach:
            span = np.linalg.norm(np.ptp(points, axis=0)) * self.model.settings.spacing
            raise MedrlError(
                f"the foreground seeds lie {span:.0f} mm apart, more than this model can look at "
                "in one go: start a new object for the farther ones"
            )
        return _as_box(low, high)

    def _grown(self, work: Work) -> Box:
        """The window, larger on the sides whose faces the object touches."""
        assert work.box is not None
        assert work.state is not None
        low, high = np.array(work.box[0]), np.array(work.box[1])
        first = low - work.corner
        cut = tuple(slice(a, a + n) for a, n in zip(first, high - low, strict=True))
        state = work.state
        mask = (state.mask[0] & self._within_limits(work))[cut].cpu().numpy()
        user = (state.user[0] & (state.seeds[0] == FOREGROUND))[cut].cpu().numpy()
        ends = np.array(self.grid.shape)
        open_low, open_high = low > 0, high < ends
        if not any(mask.take(side, axis=a).any() for a, side in _open(open_low, open_high)):
            return work.box
        numbers, _ = ndimage.label(mask)
        own = np.isin(numbers, np.setdiff1d(numbers[user], 0))
        reach, most = self.model.settings.reach, _MOST_REACHES * self.model.settings.reach
        for axis, side in _open(open_low, open_high):
            room = most - (high[axis] - low[axis])
            if room <= 0 or not own.take(side, axis=axis).any():
                continue
            step = min(reach, int(room))
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
