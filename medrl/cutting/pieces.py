"""From outlined pictures to what agents are to carry, and from what they cut to masks."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from medrl.cutting.windows import put_back

Key = tuple[int, int, int, int, str]

#: How much more counts, between two outlines, what is expected to overlap more with the truth.
_TRUST = 6


@dataclass(frozen=True)
class Piece:
    """What one agent is to carry: from an outlined picture up to the next, or to the end.

    Attributes:
        stack: Which stack.
        value: Number of the object.
        begin: The outlined picture, within its stack.
        direction: +1 or -1.
        last: The last picture that it may go to.
        bound: Whether an outlined picture lies behind that, so that the object cannot be gone.
        outlines: Digest of the outlines at its ends, so that it is known when they change.
    """

    stack: int
    value: int
    begin: int
    direction: int
    last: int
    bound: bool
    outlines: str

    @property
    def key(self) -> Key:
        """What makes it another piece."""
        return self.stack, self.value, self.begin, self.direction * (self.last + 1), self.outlines


@dataclass(eq=False)
class Cuts:
    """What an agent cut out of its pictures.

    Attributes:
        pictures: Numbers within the stack, in the order of the cuts.
        windows: (s, s) float16 probabilities of each.
        boxes: (2, 2) of each, the context.
        quality: Expected overlap of each with the truth.
        outcome: How the agent ended.
    """

    pictures: list[int] = field(default_factory=list)
    windows: list[Tensor] = field(default_factory=list)
    boxes: list[Tensor] = field(default_factory=list)
    quality: list[float] = field(default_factory=list)
    outcome: str = ""

    def add(self, picture: int, window: Tensor, box: Tensor, quality: float) -> None:
        """One more cut."""
        self.pictures.append(picture)
        self.windows.append(window.half().cpu())
        self.boxes.append(box.cpu())
        self.quality.append(quality)

    def whole(self, shape: tuple[int, int]) -> Iterable[tuple[int, Tensor, float]]:
        """Every picture with its probabilities (H, W) and the expected overlap."""
        for picture, window, box, quality in zip(
            self.pictures, self.windows, self.boxes, self.quality, strict=True
        ):
            yield picture, put_back(window[None].float(), box[None], shape)[0], quality


def pieces_of(
    outlined: Mapping[tuple[int, int], Mapping[int, NDArray[np.bool_]]], counts: Sequence[int]
) -> list[Piece]:
    """What there is to carry.

    Args:
        outlined: By stack and object, the outlines by picture.
        counts: Pictures of each stack.
    """
    found = []
    for (stack, value), masks in outlined.items():
        numbers = sorted(masks)
        for direction in (1, -1):
            order = numbers if direction > 0 else numbers[::-1]
            for place, begin in enumerate(order):
                following = order[place + 1] if place + 1 < len(order) else None
                end = counts[stack] - 1 if direction > 0 else 0
                last = end if following is None else following - direction
                if (last - begin) * direction < 1:
                    continue
                ends = [masks[begin]] + ([] if following is None else [masks[following]])
                digest = hashlib.sha256(b"".join(np.packbits(m).tobytes() for m in ends))
                bound = following is not None
                found.append(Piece(stack, value, begin, direction, last, bound, digest.hexdigest()))
    return found


@dataclass(frozen=True, eq=False)
class Joined:
    """An object through a stack.

    Attributes:
        chance: Probabilities (H, W) by picture.
        quality: Expected overlap by picture; 1 of those that are outlined.
    """

    chance: dict[int, Tensor]
    quality: dict[int, float]


def joined(
    masks: Mapping[int, NDArray[np.bool_]],
    carried: Sequence[tuple[Piece, Cuts]],
    shape: tuple[int, int],
) -> Joined:
    """Put together what agents cut from either side; the nearer outline counts more.

    Args:
        masks: The outlined pictures of an object in a stack.
        carried: Its pieces with their cuts.
        shape: H and W of a picture.
    """
    chance = {n: torch.from_numpy(mask.astype(np.float32)) for n, mask in masks.items()}
    quality = dict.fromkeys(masks, 1.0)
    parts: dict[int, list[tuple[float, Tensor, float]]] = {}
    for piece, cuts in carried:
        whole = {picture: (mask, sure) for picture, mask, sure in cuts.whole(shape)}
        length = abs(piece.last - piece.begin) + 1
        for picture in range(piece.begin + piece.direction, piece.last + piece.direction,
                             piece.direction):  # fmt: skip
            if not piece.bound and picture not in whole:
                break
            mask, sure = whole.get(picture, (torch.zeros(shape), 0.0))
            weight = 1 - abs(picture - piece.begin) / length if piece.bound else 1.0
            # Who has lost the object between two outlines, or is less sure, leaves it to the other.
            weight *= sure**_TRUST if picture in whole else 1e-3
            parts.setdefault(picture, []).append((weight, mask, sure))
    for picture, found in parts.items():
        total = sum(weight for weight, _, _ in found)
        chance[picture] = sum(
            (weight / total * mask for weight, mask, _ in found), torch.zeros(shape)
        )
        quality[picture] = sum(weight / total * sure for weight, _, sure in found)
    return Joined(chance, quality)
