"""Which of many candidates is meant: agents look at each, and at how they lie to each other."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from medrl.localization.dynamics import TRIGGER, BoxDynamics
from medrl.localization.layout import Layout
from medrl.localization.model import BoxModel
from medrl.localization.search import BoxPolicy, Candidates
from medrl.volume.boxes import iou

Array = NDArray[np.float64]

#: What the heatmap is taken to say of a place that only the other targets speak for.
_UNSEEN = 0.01
#: Two boxes that overlap by more than this hold the same object.
_SAME_IOU = 0.3
#: An object of a kind is there from this probability on.
_LIKELY = 0.5


@dataclass(frozen=True, eq=False)
class Chosen:
    """R objects that are looked for: each target, and of a kind all that there seem to be.

    Attributes:
        names: Of the objects; of a kind with numbers, from head to foot.
        target: (R,) int64, which target each is.
        row: (R,) int64, the candidate that is meant; -1 where a target is not there.
        candidates: C of them.
        seen: (C, 2, 3), boxes that agents see from the candidates.
    """

    names: tuple[str, ...]
    target: NDArray[np.int64]
    row: NDArray[np.int64]
    candidates: Candidates
    seen: Tensor


def choose_objects(
    model: BoxModel, dynamics: BoxDynamics, policy: BoxPolicy, candidates: Candidates
) -> Chosen:
    """Find out which candidates are meant, and look for what nobody has proposed.

    Args:
        model: Knows how probable candidates are, and how targets lie.
        dynamics: Holds one scan.
        policy: Looks.
        candidates: From :func:`medrl.localization.search.propose`.
    """
    seen, features = look_at(dynamics, policy, candidates)
    probability = model.judge(features)
    looked = replace(candidates, box=seen)
    row = choose(model.layout, looked, probability, dynamics.spacing)
    others = guessed(model.layout, looked, row, dynamics)
    if len(others) and (row >= 0).any():
        seen, features = look_at(dynamics, policy, others)
        candidates = Candidates.cat([candidates, others])
        looked = Candidates.cat([looked, replace(others, box=seen)])
        probability = np.concatenate([probability, model.judge(features)])
        row = choose(model.layout, looked, probability, dynamics.spacing)
    of_target = looked.target.numpy(force=True)
    boxes = looked.box.numpy(force=True)
    names: list[str] = []
    targets: list[int] = []
    rows: list[int] = []
    for k, name in enumerate(model.names):
        own = row[k : k + 1]
        if name in model.kinds:
            own = np.flatnonzero((of_target == k) & (probability >= _LIKELY))
            own = own[every_once(boxes[own], probability[own])]
            own = own[np.argsort(-boxes[own].mean(axis=1)[:, 2], kind="stable")]
            names += [f"{name} {n + 1}" for n in range(len(own))]
        else:
            names.append(name)
        targets += [k] * len(own)
        rows += own.tolist()
    target = np.array(targets, dtype=np.int64)
    return Chosen(tuple(names), target, np.array(rows, dtype=np.int64), candidates, looked.box)


@torch.inference_mode()
def look_at(
    dynamics: BoxDynamics, policy: BoxPolicy, candidates: Candidates, *, scan: int = 0
) -> tuple[Tensor, Array]:
    """What agents see that are put at candidates, and go once to where they see the faces.

    Returns:
        Boxes (C, 2, 3) where they see the faces in the end, and features (C, F) that tell good
        candidates from bad ones.
    """
    where = torch.full_like(candidates.target, scan)
    state = dynamics.reset(where, candidates.target, candidates.box)
    estimate = policy.look(dynamics, state).estimate
    state = dynamics.reset(where, candidates.target, state.box + estimate[:, 0].double())
    values, estimate, _ = policy.look(dynamics, state)
    size = (state.box[:, 1] - state.box[:, 0]).log().mean(dim=1)
    off = estimate[:, 0].double()
    columns = [
        candidates.heat,
        values[:, TRIGGER],
        values[:, :TRIGGER].amax(dim=1),
        estimate[:, 1].mean(dim=(1, 2)) - size,
        off.abs().mean(dim=(1, 2)).clamp(min=1e-3).log() - size,
        (state.box - candidates.box).abs().mean(dim=(1, 2)).clamp(min=1e-3).log() - size,
    ]
    features = torch.stack([one.double().cpu() for one in columns], dim=1).numpy()
    return state.box + off, features


def choose(
    layout: Layout, candidates: Candidates, probability: Array, spacing: float
) -> NDArray[np.int64]:
    """Which candidate of every target is meant, by how they lie to each other.

    Args:
        layout: How the targets lie.
        candidates: C of them.
        probability: (C,) that each is right.
        spacing: mm of a voxel of the finest level.

    Returns:
        (K,) rows of candidates; -1 where a target is not there.
    """
    target = candidates.target.numpy(force=True)
    centers = candidates.box.mean(dim=1).double().numpy(force=True) * spacing
    rows = [np.flatnonzero(target == k) for k in range(len(layout.parent))]
    chosen = layout.choose([probability[own] for own in rows], [centers[own] for own in rows])
    found = [-1 if one is None else own[one] for own, one in zip(rows, chosen, strict=True)]
    return np.array(found, dtype=np.int64)


def every_once(boxes: Array, probability: Array) -> NDArray[np.intp]:
    """Objects of a kind, each found once: what one agent has found is not for another to find.

    The inhibition of return of Caicedo and Lazebnik (2015), for agents that walk side by side.

    Args:
        boxes: (C, 2, 3), in any coordinates.
        probability: (C,), the more probable agent keeps what two have found.

    Returns:
        Rows of those that are kept, the most probable first.
    """
    kept: list[np.intp] = []
    for row in np.argsort(-probability, kind="stable"):
        if not (iou(boxes[kept], boxes[row]) > _SAME_IOU).any():
            kept.append(row)
    return np.array(kept, dtype=np.intp)


def guessed(
    layout: Layout, candidates: Candidates, chosen: NDArray[np.int64], dynamics: BoxDynamics
) -> Candidates:
    """Candidates of targets that were not found, where those found say that they must be."""
    centers = np.full((len(chosen), 3), np.nan)
    found = chosen >= 0
    own = candidates.box[torch.from_numpy(chosen[found]).to(dynamics.device)]
    centers[found] = own.mean(dim=1).double().numpy(force=True) * dynamics.spacing
    guess = layout.guess(centers) / dynamics.spacing
    half = layout.size / dynamics.spacing / 2
    shape = dynamics.shapes[0].numpy(force=True)
    close = ((guess > -0.5 * half) & (guess < shape - 1 + 0.5 * half) & (half > 0)).all(axis=1)
    target = np.flatnonzero(~found & close)
    box = np.stack([guess - half, guess + half], axis=1)[target]
    heat = torch.full((len(target),), _UNSEEN, dtype=torch.float64).logit()
    return Candidates(torch.from_numpy(target), heat, torch.from_numpy(box)).to(dynamics.device)
