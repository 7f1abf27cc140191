"""How cutting agents move: two boxes, a cut, the next picture.

Convention: pictures are the slices of a scan along one axis, or the frames of a film, (row,
column); boxes are those of :mod:`medrl.cutting.windows`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from medrl.agents import ACTIVE, Dynamics, Places, Rows, Space, State
from medrl.cutting.likeness import likeness
from medrl.cutting.windows import (
    box_of_mask,
    grown,
    in_box,
    look,
    mapped,
    picture_levels,
)
from medrl.errors import MedrlError

_MOVES = ("left", "right", "up", "down", "grow", "shrink", "wider", "taller")
#: Eight moves of either box (Caicedo and Lazebnik 2015), the cut, and "not here any more".
ACTIONS = (
    *(f"object {move}" for move in _MOVES),
    *(f"context {move}" for move in _MOVES),
    "cut",
    "gone",
)
CUT, GONE = len(ACTIONS) - 2, len(ACTIONS) - 1
#: Shifts (row, column) and growths of the eight moves, in step shares.
_SHIFTS = torch.tensor([[0, -1], [0, 1], [-1, 0], [1, 0], *[[0, 0]] * 4], dtype=torch.float32)
_GROWTHS = torch.tensor([*[[0, 0]] * 4, [1, 1], [-1, -1], [-1, 1], [1, -1]], dtype=torch.float32)

#: Why an agent has ended: it said the object is gone, the pictures ended, it cut nothing out.
ENDED, ARRIVED, LOST = 1, 2, 3

#: Numbers that agents are told beside what they see.
TOLD = 16
#: A context is the object's box so many times as large, and so many pixels more on every side.
_CONTEXT, _MARGIN = 1.5, 3.0
_SAME = 1e-4


@dataclass(frozen=True)
class View:
    """What agents see, and how they may move.

    Attributes:
        side: Pixels of a window.
        share: Step size as a share of a box's size.
        moves: Moves allowed in one picture.
    """

    side: int = 48
    share: float = 0.12
    moves: int = 6


@dataclass(frozen=True, eq=False)
class Stack:
    """Pictures in order that an outline is carried through.

    Attributes:
        pictures: (T, C, H, W) float32, in any unit.
        spacing: Millimetres of a pixel (row, column); 1 in a film.
        step_mm: From one picture to the next; 0 in a film, where it is time.
        affine: (4, 4) float64, from (row, column, picture) to RAS mm.
    """

    pictures: Tensor
    spacing: tuple[float, float] = (1.0, 1.0)
    step_mm: float = 0.0
    affine: NDArray[np.float64] = field(default_factory=lambda: np.eye(4))

    def __len__(self) -> int:
        """T."""
        return len(self.pictures)


@dataclass(frozen=True, eq=False)
class Look(Rows):
    """A picture with a mask in it, of N agents.

    Attributes:
        picture: (N,) int64, index among all pictures.
        object: (N, 2, 2) float32, the box of the object.
        context: (N, 2, 2), the box that the mask lies in.
        mask: (N, s, s) float32, probabilities in the context.
        area: (N,) pixels.
    """

    picture: Tensor
    object: Tensor
    context: Tensor
    mask: Tensor
    area: Tensor


@dataclass(frozen=True, eq=False)
class CutState(State):
    """N agents.

    Attributes:
        stack: (N,) int64, which stack each works in.
        picture: (N,) int64, where it is, among all pictures.
        direction: (N,) int64, +1 or -1.
        last_allowed: (N,) int64, the last picture that it goes to.
        bound: (N,) bool, it may not say "gone": another outline lies ahead.
        object: (N, 2, 2) float32, its box for the object.
        context: (N, 2, 2) float32, its box for the surroundings.
        moves: (N,) int64, moves made in this picture.
        last: The mask of the picture before.
        reference: The picture that a person outlined.
        trend: (N,) float32, log ratio of the last two areas.
    """

    stack: Tensor
    picture: Tensor
    direction: Tensor
    last_allowed: Tensor
    bound: Tensor
    object: Tensor
    context: Tensor
    moves: Tensor
    last: Look
    reference: Look
    trend: Tensor


class CutDynamics(Dynamics[CutState]):
    """Cutting agents in M stacks of one size of picture (Han et al. 2018).

    An agent moves the object's box and the context's until it cuts: the mask it makes becomes the
    last one, and it goes on to the next picture with the boxes of that mask. What it saw last is
    shown to it as it lies in the object's box, so that moving this box moves the last mask along.
    It ends where it says that the object is gone, where nothing is cut out, and with the pictures.

    Attributes:
        stacks: The M stacks.
        view: What agents see.
        first: (M,) int64, the index of the first picture of each among all pictures.
    """

    outcomes = ("active", "ended", "arrived", "lost")
    action_space = Space.choice(len(ACTIONS))
    masked = True

    def __init__(
        self, stacks: Sequence[Stack], *, view: View | None = None, device: str = "cpu"
    ) -> None:
        """Work in these stacks.

        Args:
            stacks: M of them; pictures of the same size and number of channels.
            view: What agents see.
            device: Where pictures are kept.

        Raises:
            MedrlError: If there is none, or their pictures differ in size.
        """
        if not stacks:
            raise MedrlError("agents need at least one stack of pictures")
        if len({tuple(stack.pictures.shape[1:]) for stack in stacks}) > 1:
            raise MedrlError("pictures of all stacks must be of one size")
        self.view = view or View()
        self.device = torch.device(device)
        self.stacks = list(stacks)
        counts = torch.tensor([len(stack) for stack in stacks], device=self.device)
        self.first = counts.cumsum(0) - counts
        self.counts = counts
        self._levels = picture_levels(torch.cat([s.pictures for s in stacks]).to(self.device))
        self._mm = torch.tensor(
            [[*stack.spacing, stack.step_mm] for stack in stacks],
            dtype=torch.float32,
            device=self.device,
        )
        self._shifts, self._growths = _SHIFTS.to(self.device), _GROWTHS.to(self.device)
        side, channels = self.view.side, stacks[0].pictures.shape[1]
        self.shape = (int(stacks[0].pictures.shape[2]), int(stacks[0].pictures.shape[3]))
        self.observation_spaces: Mapping[str, Space] = {
            "window": Space((window_channels(channels), side, side)),
            "told": Space((TOLD,)),
        }
        self.extra_spaces: Mapping[str, Space] = {"mask": Space((side, side), low=0.0, high=1.0)}

    def replace_stack(self, index: int, stack: Stack) -> None:
        """Put a stack of no more pictures of that size in the place of one, as training does."""
        self.stacks[index] = stack
        first = int(self.first[index])
        for level, own in zip(self._levels, picture_levels(stack.pictures), strict=True):
            level[first : first + len(stack)] = own.to(level)
        self.counts[index] = len(stack)
        self._mm[index] = torch.tensor([*stack.spacing, stack.step_mm])

    def outlined(self, picture: Tensor, masks: Tensor) -> Look:
        """What a person outlined, as agents see it.

        Args:
            picture: (N,) int64, index among all pictures.
            masks: (N, H, W), 0 to 1, none empty.
        """
        box, _ = box_of_mask(masks)
        context = context_of(box)
        window = in_box(masks[:, None].float(), context, self.view.side)[:, 0]
        return Look(picture, box, context, window, (masks > 0.5).flatten(1).sum(1).float())

    def reset(
        self,
        stack: Tensor,
        picture: Tensor,
        direction: Tensor,
        *,
        last: Look,
        reference: Look,
        last_allowed: Tensor | None = None,
        bound: Tensor | None = None,
    ) -> CutState:
        """Put N agents at a picture, next to one that is outlined.

        Args:
            stack: (N,) int64.
            picture: (N,) int64, index among all pictures.
            direction: (N,) int64, +1 or -1.
            last: The mask before.
            reference: What a person outlined.
            last_allowed: (N,) int64, the last picture that they go to; that of the stack if left
                out.
            bound: (N,) bool, whether another outline lies ahead; nowhere if left out.
        """
        count = len(stack)
        zeros = torch.zeros(count, dtype=torch.int64, device=self.device)
        if last_allowed is None:
            end = self.first[stack] + self.counts[stack] - 1
            last_allowed = torch.where(direction > 0, end, self.first[stack])
        return CutState(
            status=zeros,
            stack=stack,
            picture=picture,
            direction=direction,
            last_allowed=last_allowed,
            bound=torch.zeros_like(zeros, dtype=torch.bool) if bound is None else bound,
            object=last.object,
            context=context_of(last.object),
            moves=zeros.clone(),
            last=last,
            reference=reference,
            trend=torch.zeros(count, device=self.device),
        )

    def observe(self, state: CutState) -> dict[str, Tensor]:
        """What agents see in their contexts, and what else they know."""
        return {"window": self.window(state), "told": self.told(state)}

    def window(self, state: CutState) -> Tensor:
        """The windows of N agents, (N, 4 C + 4, s, s).

        The picture, the next one, the last and the outlined one as they lie to the object's box;
        the last mask and the outlined one; how like the object each pixel is; the object's box.
        """
        side = self.view.side
        now = look(self._levels, state.picture, state.context, side)
        first, count = self.first[state.stack], self.counts[state.stack]
        ahead = torch.minimum(
            torch.maximum(state.picture + state.direction, first), first + count - 1
        )
        following = look(self._levels, ahead, state.context, side)
        seen, masks = [], []
        for known in (state.last, state.reference):
            where = mapped(state.context, state.object, known.object)
            seen.append(look(self._levels, known.picture, where, side))
            inside = mapped(where, known.context, _whole(known.context, side))
            masks.append(in_box(known.mask[:, None], inside, side))
        # The contrast is that around what was outlined, whatever the scanner or the light.
        level = seen[1].mean(dim=(1, 2, 3), keepdim=True)
        spread = seen[1].flatten(1).std(dim=1)[:, None, None, None].clamp(min=1e-4)
        pictures = [
            ((one - level) / (4 * spread) + 0.5).clamp(-0.5, 1.5) for one in (now, following, *seen)
        ]
        like = likeness(pictures[0], pictures[2:], masks)
        return torch.cat([*pictures, *masks, like, self._object_mask(state)], dim=1)

    def _object_mask(self, state: CutState) -> Tensor:
        """The object's box in the context, (N, 1, s, s)."""
        side = self.view.side
        share = (torch.arange(side, device=self.device) + 0.5) / side
        size = (state.context[:, 1] - state.context[:, 0])[:, None]
        place = state.context[:, :1] + share[:, None] * size
        inside = (place >= state.object[:, :1]) & (place <= state.object[:, 1:])
        return (inside[:, :, None, 0] & inside[:, None, :, 1])[:, None].float()

    def told(self, state: CutState) -> Tensor:
        """Sizes in millimetres, distances and changes, (N, :data:`TOLD`)."""
        mm = self._mm[state.stack]
        size = state.object[:, 1] - state.object[:, 0]
        length = (size * mm[:, :2] / 30.0).clamp(min=1e-3).log()
        last_size = state.last.object[:, 1] - state.last.object[:, 0]
        shift = (state.object.mean(1) - state.last.object.mean(1)) / last_size
        growth = (size / last_size).log()
        around = (state.context[:, 1] - state.context[:, 0]) / size
        away = (state.picture - state.reference.picture).abs().float()
        far = away * mm[:, 2] / (size * mm[:, :2]).mean(dim=1)
        ratio = (state.last.area.clamp(min=1) / state.reference.area.clamp(min=1)).log()
        film = (mm[:, 2] == 0).float()
        parts = [
            *(length, shift, growth, around - _CONTEXT),
            torch.log1p(away)[:, None],
            far.clamp(max=4.0)[:, None],
            (mm[:, 2] / 5.0)[:, None],
            ratio.clamp(-4, 4)[:, None],
            state.trend.clamp(-2, 2)[:, None],
            film[:, None],
            (state.moves / self.view.moves).float()[:, None],
            state.bound.float()[:, None],
        ]
        return torch.cat(parts, dim=1)

    def allowed(self, state: CutState) -> Tensor:
        """(N, A) bool: the context never lies inside the object, and moves are counted."""
        boxes, contexts = self.destinations(state)
        around = (contexts[:, :, 0] <= boxes[:, :, 0] + _SAME) & (
            contexts[:, :, 1] >= boxes[:, :, 1] - _SAME
        )
        size = boxes[:, :, 1] - boxes[:, :, 0]
        shape = torch.tensor(self.shape, device=self.device)
        middle = boxes.mean(dim=2)
        fits = (middle > -0.5) & (middle < shape - 0.5) & (size >= 2) & (size <= 2 * shape)
        allowed = (around & fits).all(dim=2) & (state.moves < self.view.moves)[:, None]
        allowed[:, CUT] = True
        allowed[:, GONE] = ~state.bound
        return allowed

    def destinations(self, state: CutState) -> tuple[Tensor, Tensor]:
        """The boxes that every action leads to: objects and contexts, (N, A, 2, 2) each.

        The object's box takes its context along.
        """
        moved = self._moved(state.object)
        along = torch.stack(
            [
                mapped(state.context, state.object, moved[:, number])
                for number in range(len(_MOVES))
            ],
            dim=1,
        )
        same = state.object[:, None]
        boxes = torch.cat([moved, same.expand(-1, len(_MOVES) + 2, -1, -1)], dim=1)
        stay = state.context[:, None].expand(-1, 2, -1, -1)
        return boxes, torch.cat([along, self._moved(state.context), stay], dim=1)

    def _moved(self, box: Tensor) -> Tensor:
        """Boxes (N, 2, 2) after each of the eight moves, (N, 8, 2, 2)."""
        size = (box[:, 1] - box[:, 0])[:, None]
        share = self.view.share
        middle = box.mean(dim=1)[:, None] + share * size * self._shifts
        half = size * (1 + share) ** self._growths / 2
        return torch.stack([middle - half, middle + half], dim=2)

    def step(
        self, state: CutState, action: Tensor, *, mask: Tensor | None = None, **_: Any
    ) -> CutState:
        """Let the active agents act; the others stay as they are.

        Args:
            state: N agents.
            action: (N,) int64, index into :data:`ACTIONS`.
            mask: (N, s, s), the probabilities that they would cut out where they are; agents that
                cut without one cut nothing.
        """
        if not state.active.all():
            rows = torch.nonzero(state.active)[:, 0]
            own = None if mask is None else mask[rows]
            return state.put(rows, self.step(state.select(rows), action[rows], mask=own))
        rows = torch.arange(len(action), device=self.device)
        boxes, contexts = self.destinations(state)
        moved = replace(
            state, object=boxes[rows, action], context=contexts[rows, action], moves=state.moves + 1
        )
        gone = replace(state, status=torch.full_like(state.status, ENDED))
        out = gone.where(action == GONE, moved)
        cuts = torch.nonzero(action == CUT)[:, 0]
        if len(cuts):
            side = self.view.side
            own = state.last.mask.new_zeros((len(cuts), side, side)) if mask is None else mask[cuts]
            out = out.put(cuts, self._cut(state.select(cuts), own))
        return out

    def _cut(self, state: CutState, mask: Tensor) -> CutState:
        """Agents after their cut: in the next picture, with the boxes of their masks."""
        side = self.view.side
        inside, found = box_of_mask(mask)
        box = mapped(inside, _whole(state.context, side), state.context)
        pixel = (state.context[:, 1] - state.context[:, 0]).prod(dim=1) / side**2
        area = (mask > 0.5).flatten(1).sum(dim=1) * pixel
        last = Look(state.picture, box, state.context, mask, area)
        arrived = state.picture == state.last_allowed
        status = torch.where(arrived, ARRIVED, ACTIVE)
        status = torch.where(found, status, LOST)
        trend = (area.clamp(min=1) / state.last.area.clamp(min=1)).log()
        return replace(
            state,
            status=status,
            picture=torch.where(arrived, state.picture, state.picture + state.direction),
            object=box,
            context=context_of(box),
            moves=torch.zeros_like(state.moves),
            last=last,
            trend=trend,
        )

    def places(self, state: CutState) -> Places:
        """Where agents are: the middle of the object's box, and both boxes."""
        world = []
        number = state.picture - self.first[state.stack]
        for box in (state.object, state.context):
            corners = torch.cat(
                [box.double(), number[:, None, None].double().expand(-1, 2, 1)], dim=2
            )
            world.append(self._to_world(state.stack, corners))
        scale = (self._mm[state.stack, :2] * (state.context[:, 1] - state.context[:, 0])).mean(1)
        return Places(
            world[0].mean(dim=1),
            scale.double() / self.view.side,
            box_world=world[0],
            extras={"context_world": world[1], "picture": number.double()},
        )

    def _to_world(self, stack: Tensor, points: Tensor) -> Tensor:
        """Points (N, P, 3), (row, column, picture), in RAS mm."""
        affines = torch.from_numpy(np.stack([one.affine for one in self.stacks])).to(points)[stack]
        return torch.einsum("nij,npj->npi", affines[:, :3, :3], points) + affines[:, None, :3, 3]


def window_channels(channels: int) -> int:
    """Channels of a window, of pictures of so many."""
    return 4 * channels + 4


def context_of(box: Tensor) -> Tensor:
    """The context (N, 2, 2) that agents begin with, of the objects' boxes."""
    return grown(box, _CONTEXT, _MARGIN)


def _whole(box: Tensor, side: int) -> Tensor:
    """The outer faces of whole windows, (N, 2, 2)."""
    ends = torch.tensor([-0.5, side - 0.5], device=box.device, dtype=box.dtype)
    return ends[:, None].expand(len(box), 2, 2)
