"""One object being segmented: what leads from one of its states to the next.

Convention: *grid* voxels are those of the model's grid (:class:`medrl.seednet.windows.Grid`), which
stays the same for a scan; the window that the network looks at is a box of it that may grow.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import torch
from monai.data.meta_tensor import MetaTensor
from scipy import ndimage
from torch import Tensor

from medrl.agents import Decision, rollout
from medrl.bundles.guard import doubted
from medrl.errors import MedrlError
from medrl.seednet.confidence import Answers, kind_of, look_at
from medrl.seednet.dynamics import STOPPED
from medrl.seednet.geometry import dilate
from medrl.seednet.model import AgentDynamics, EncodedWindows, SeedModel, SeedPolicy
from medrl.seednet.objects import Edit, Inputs, Segmented
from medrl.seednet.output_grid import OutputGrid
from medrl.seednet.seeds import Seed
from medrl.seednet.windows import Box, Voxels, Window, pasted, to_grid
from medrl.volume.space import (
    as_affine,
    cropped_affine,
    voxel_to_world,
    voxels_in_box,
    world_to_voxel,
)
from medrl.walker.segmenter import FOREGROUND, NONE

#: Around a rejected proposal nothing of its label is proposed at this distance, in voxels, or
#: nearer, until the user changes something there.
EXCLUSION_RADIUS = 4.0
#: Largest side of the window, in half widths of the model's.
_MOST_HALF_WIDTHS = 4
#: Windows whose encoding is kept.
_MOST_ENCODED = 4


class Editor:
    """Leads from one state of an object to the next; holds the scan and the model, no state."""

    def __init__(self, model: SeedModel, images: Mapping[str, MetaTensor]) -> None:
        """Take a patient's images.

        Args:
            model: The model, on its device.
            images: By channel, each (1, I, J, K) with its affine; masks come in the grid of the
                first.

        Raises:
            MedrlError: If an image cannot be what the model was trained for.
        """
        self.model = model
        self._images = dict(images)
        self._unlike: tuple[str, ...] | None = None
        self.grid = to_grid(images, model.settings.channels, model.settings.spacing)
        first = next(iter(images.values()))
        i, j, k = first.shape[1:]
        self.output = OutputGrid(as_affine(first.affine), (i, j, k), self.grid.affine)
        self._encoded: OrderedDict[tuple[Box, int], tuple[Window, EncodedWindows]] = OrderedDict()
        self._voxels: WeakKeyDictionary[Seed | Edit, Voxels] = WeakKeyDictionary()

    # ---- what the user does

    def change(self, obj: Inputs, **changes: Any) -> Inputs:
        """Segment again after the user has changed something.

        The prior is made anew from the user's seeds, the agent's stay where they do not contradict
        them, and the segmenter goes on from where it stood. Rejected proposals near to what has
        changed may be made again.

        Args:
            obj: The object before.
            **changes: Fields of :class:`medrl.seednet.objects.Inputs`.

        Raises:
            MedrlError: If seeds lie too far apart for one window, or it is empty.
        """
        new = replace(obj, **changes)
        if changed := set(obj.marks) ^ set(new.marks):
            points = np.concatenate([self._voxels_of(mark) for mark in changed])
            rejected = [s for s in new.rejected if self._distance(s, points) > EXCLUSION_RADIUS]
            new = replace(new, rejected=tuple(rejected))
        foreground = [self._voxels_of(mark) for mark in new.marks if mark.label == FOREGROUND]
        if not foreground:
            return Inputs(new.target, new.seeds, new.edits, new.limits_world)
        return self._fitted(self._segment(new, self._cover(new, foreground)))

    def reject(self, obj: Inputs, seed: Seed) -> Inputs:
        """Keep a proposal's label from the zone around it."""
        new = replace(obj, rejected=(*obj.rejected, seed))
        return self._with_exclusions(new) if isinstance(new, Segmented) else new

    # ---- what the agent does

    def propose(self, obj: Segmented) -> Seed | None:
        """The seed that the agent would place next; None if it would stop, or has."""
        if not bool(obj.state.active[0]):
            return None
        dynamics, policy = self.agent(obj)
        decision = policy(dynamics, obj.state, None)
        voxel, label = dynamics.place(obj.state, decision.action)
        if int(label[0]) == NONE:
            return None
        where = voxel_to_world(voxel[0].cpu().numpy() + obj.corner, self.grid.affine)
        assert decision.value is not None  # this policy always has one
        return Seed(where, int(label[0]), "agent", float(decision.value[0]))

    def accept(self, obj: Segmented, seed: Seed) -> Segmented:
        """Place the seed that the agent proposed for this very state."""
        dynamics, _ = self.agent(obj)
        voxel = torch.from_numpy(self.grid.voxel_of(seed.position_world) - obj.corner)[None]
        action = dynamics.action_at(voxel, torch.tensor([seed.label]), obj.state.seeds.shape)
        decision = Decision(action.to(self.model.device))
        walked = rollout(dynamics, lambda *_: decision, obj.state, max_steps=1)
        return self._fitted(replace(obj, placed=(*obj.placed, seed), state=walked.state))

    def stop(self, obj: Segmented) -> Segmented:
        """Note that the agent stopped by itself, if it still was placing."""
        if not bool(obj.state.active[0]):
            return obj
        status = torch.full_like(obj.state.status, STOPPED)
        return replace(obj, state=replace(obj.state, status=status))

    def agent(self, obj: Segmented) -> tuple[AgentDynamics, SeedPolicy]:
        """What the agent of an object lives in, and what decides."""
        _, encoded = self.encode(obj.box, obj.target)
        return self.model.on(encoded, obj.prior), SeedPolicy(self.model, encoded)

    # ---- judging

    def unfit(self, obj: Segmented) -> tuple[str, ...]:
        """Why the model was not made for what it has segmented here, one line each."""
        guard, familiarity = self.model.guard, self.model.familiarity
        if guard is None:
            return ()
        if self._unlike is None:
            lines = {name: guard.reasons(scan, channel=name) for name, scan in self._images.items()}
            several = len(lines) > 1
            self._unlike = tuple(
                f"{name} image, {line}" if several else line
                for name, own in lines.items()
                for line in own
            )
        answer = self._answer(obj)
        if self._unlike or familiarity is None or answer is None:
            return self._unlike
        share = familiarity.typical(answer.features, answer.kind) / familiarity.limit
        if share <= 1:
            return ()
        return (
            "anatomy or contrast: in the mask and around it, what it sees is "
            f"{share:.1f} times as unlike its training as is allowed",
        )

    def confidence(self, obj: Segmented) -> float | None:
        """Probability that the mask overlaps with the object by a Dice of 0.7; None if unknown."""
        familiarity, confidence = self.model.familiarity, self.model.confidence
        if familiarity is None or confidence is None:
            return None
        answer = self._answer(obj)
        sure = 0.0 if answer is None else float(confidence(answer.described(familiarity))[0])
        return doubted(sure) if self.unfit(obj) else sure

    def _answer(self, obj: Segmented) -> Answers | None:
        """What is to be known of a segmentation to judge it."""
        _, encoded = self.encode(obj.box, obj.target)
        shown = [volume is not None for volume in self.grid.volumes]
        return look_at(
            encoded.features,
            obj.state.probability[0],
            kind=kind_of(obj.target, shown),
            spacing=self.model.settings.spacing,
        )

    # ---- segmenting

    def encode(self, box: Box, target: int) -> tuple[Window, EncodedWindows]:
        """A window and what the network sees in it.

        Raises:
            MedrlError: If there is nothing to see in it.
        """
        key = (box, target)
        if key not in self._encoded:
            window = self.grid.window(*box)
            shown = [part[window.inside] for part in window.image]
            if not any(float(part.min()) < float(part.max()) for part in shown):
                raise MedrlError("the window around the seed is empty: there is nothing to see")
            device = self.model.device
            number = torch.tensor([target], device=device)
            self._encoded[key] = window, self.model.encode(window.image[None].to(device), number)
            while len(self._encoded) > _MOST_ENCODED:
                self._encoded.popitem(last=False)
        self._encoded.move_to_end(key)
        return self._encoded[key]

    def seed_map(self, marks: Sequence[Seed | Edit], window: Window) -> Tensor:
        """The user's seeds and edits in a window, (1, I, J, K) int8; the later counts."""
        seeds = torch.full((1, *window.shape), NONE, dtype=torch.int8)
        for mark in marks:
            own = self._voxels_of(mark) - window.corner
            own = own[((own >= 0) & (own < window.shape)).all(axis=1)]
            i, j, k = torch.from_numpy(own).unbind(dim=1)
            seeds[0, i, j, k] = mark.label
        return seeds.to(self.model.device)

    def _segment(self, obj: Inputs, box: Box) -> Segmented:
        """Segment in a window, going on from the segmentation in another."""
        window, encoded = self.encode(box, obj.target)
        user = self.seed_map(obj.marks, window)
        prior = self.model.prior(encoded, user)
        dynamics = self.model.on(encoded, prior)
        seeds, placed, start = user, obj.placed, prior
        if isinstance(obj, Segmented):
            start = pasted(obj.state.probability, obj.corner, prior, window.corner)
            places = self._places(placed, window).to(user.device)
            labels = torch.tensor(
                [seed.label for seed in placed], dtype=torch.int64, device=user.device
            )
            last = torch.tensor(window.shape, device=user.device) - 1
            inside = ((places >= 0) & (places <= last)).all(dim=1)
            labels = torch.where(inside, labels, NONE)
            agents = replace(obj.state, places=places[None], labels=labels[None])
            seeds = dynamics.repaint(agents, user)
            i, j, k = torch.minimum(places.clamp(min=0), last).unbind(dim=1)
            fits = inside & (seeds[0, i, j, k] == labels) & (user[0, i, j, k] == NONE)
            placed = tuple(s for s, fit in zip(placed, fits.tolist(), strict=True) if fit)
        state = dynamics.reset(seeds, user=user != NONE, start=start)
        made = {"box": box, "corner": window.corner, "prior": prior, "state": state}
        return self._with_exclusions(Segmented(**{**vars(obj), **made, "placed": placed}))

    def _with_exclusions(self, obj: Segmented) -> Segmented:
        """Keep the agent out of where proposals were rejected, and of what is beyond the limits."""
        forbidden = obj.state.forbidden.clone()
        for seed in obj.rejected:
            zone = torch.zeros_like(obj.state.user)
            voxel = self.grid.voxel_of(seed.position_world) - obj.corner
            if ((voxel >= 0) & (voxel < zone.shape[1:])).all():
                zone[(0, *voxel.tolist())] = True
                forbidden[:, seed.label] |= dilate(zone, EXCLUSION_RADIUS)
        forbidden |= ~self._within_limits(obj)
        return replace(obj, state=replace(obj.state, forbidden=forbidden))

    def _within_limits(self, obj: Segmented) -> Tensor:
        """Which voxels of the window lie inside the user's box, (I, J, K) bool."""
        shape = tuple(obj.prior.shape[1:])
        if obj.limits_world is None:
            return torch.ones(shape, dtype=torch.bool, device=self.model.device)
        affine = cropped_affine(self.grid.affine, obj.corner)
        inside = voxels_in_box(obj.limits_world, affine, shape)
        return torch.from_numpy(inside).to(self.model.device)

    def _places(self, seeds: Sequence[Seed], window: Window) -> Tensor:
        """Voxels (S, 3) of a window at which the agent has placed seeds; some may lie outside."""
        voxels = [self.grid.voxel_of(seed.position_world) - window.corner for seed in seeds]
        return torch.from_numpy(np.array(voxels, dtype=np.int64).reshape(-1, 3))

    def _voxels_of(self, mark: Seed | Edit) -> Voxels:
        """Grid voxels (V, 3) of a seed or an edit; those half a voxel beyond the grid in it."""
        if mark not in self._voxels:
            if isinstance(mark, Seed):
                voxels = mark.voxels(self.grid.affine)
            else:
                exact = world_to_voxel(mark.points_world, self.grid.affine)
                voxels = np.unique(np.floor(exact + 0.5).astype(np.int64), axis=0)
            self._voxels[mark] = np.clip(voxels, 0, np.array(self.grid.shape) - 1)
        return self._voxels[mark]

    def _distance(self, seed: Seed, points: Voxels) -> float:
        """From a seed to the nearest of some grid voxels (V, 3), in voxels."""
        steps = points - self.grid.voxel_of(seed.position_world)
        return float(np.linalg.norm(steps, axis=1).min())

    # ---- windows

    def _cover(self, obj: Inputs, foreground: Sequence[Voxels]) -> Box:
        """A window that holds all foreground seeds with some room around those beyond."""
        half_width = self.model.settings.half_width
        shape = np.array(self.grid.shape)
        if isinstance(obj, Segmented):
            low, high = np.array(obj.box[0]), np.array(obj.box[1])
        else:
            first = np.round(foreground[0].mean(axis=0)).astype(np.int64)
            low, high = first - half_width, first + half_width
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

    def _fitted(self, obj: Segmented) -> Segmented:
        """Let the window grow while the object touches a face of it that is not the scan's end."""
        while (box := self._grown(obj)) != obj.box:
            before = obj.state
            obj = self._segment(obj, box)
            # The agent goes on with the seeds it has left.
            obj = replace(obj, state=replace(obj.state, steps=before.steps, status=before.status))
        return obj

    def _grown(self, obj: Segmented) -> Box:
        """The window, larger on the sides whose faces the object touches."""
        low, high = np.array(obj.box[0]), np.array(obj.box[1])
        ends = np.array(self.grid.shape)
        faces = [(axis, 0) for axis in range(3) if low[axis] > 0]
        faces += [(axis, -1) for axis in range(3) if high[axis] < ends[axis]]
        state = obj.state
        cut = tuple(slice(a, b) for a, b in zip(low - obj.corner, high - obj.corner, strict=True))
        mask = (state.mask[0] & self._within_limits(obj))[cut].cpu().numpy()
        if not any(mask.take(side, axis=axis).any() for axis, side in faces):
            return obj.box
        user = (state.user[0] & (state.seeds[0] == FOREGROUND))[cut].cpu().numpy()
        numbers, _ = ndimage.label(mask)
        own = np.isin(numbers, np.setdiff1d(numbers[user], 0))
        half_width = self.model.settings.half_width
        for axis, side in faces:
            room = _MOST_HALF_WIDTHS * half_width - (high[axis] - low[axis])
            if room <= 0 or not own.take(side, axis=axis).any():
                continue
            step = min(half_width, int(room))
            if side == 0:
                low[axis] = max(0, low[axis] - step)
            else:
                high[axis] = min(ends[axis], high[axis] + step)
        return _as_box(low, high)


def _as_box(low: Voxels, high: Voxels) -> Box:
    (a, b, c), (d, e, f) = low.tolist(), high.tolist()
    return (a, b, c), (d, e, f)
