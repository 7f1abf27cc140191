"""Looking at pictures through boxes: what lies in a box, as a window of fixed size.

Convention: boxes are (N, 2, 2), smallest and largest (row, column) of their outer faces in pixels;
a pixel reaches half a pixel to either side of its centre.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

#: Levels of a picture: each half as fine as the one before.
LEVELS = 3


def picture_levels(pictures: Tensor) -> list[Tensor]:
    """Pictures (T, C, H, W) at full, half and quarter size, the finest first."""
    levels = [pictures]
    for _ in range(1, LEVELS):
        levels.append(F.avg_pool2d(levels[-1], 2, ceil_mode=True, count_include_pad=False))
    return levels


def look(levels: list[Tensor], picture: Tensor, box: Tensor, side: int) -> Tensor:
    """What lies in boxes, (N, C, s, s).

    Each is read from the level whose pixels are just finer than those of the window, so that
    large boxes do not skip pixels.

    Args:
        levels: Pictures (T, C, h, w), finest first.
        picture: (N,) int64, which picture each looks at.
        box: (N, 2, 2), pixels of the finest level.
        side: s.
    """
    size = (box[:, 1] - box[:, 0]).amin(dim=1)
    fit = (size / side).clamp(min=1.0).log2().floor().long().clamp(max=len(levels) - 1)
    out = levels[0].new_empty((len(box), levels[0].shape[1], side, side))
    for number, level in enumerate(levels):
        rows = torch.nonzero(fit == number)[:, 0]
        if len(rows):
            # Outer faces of the finest level, in pixels of this one.
            own = (box[rows] + 0.5) / 2**number - 0.5
            out[rows] = in_box(level[picture[rows]], own, side, padding="border")
    return out


def in_box(pictures: Tensor, box: Tensor, side: int, *, padding: str = "zeros") -> Tensor:
    """Pictures (N, C, H, W) in their boxes (N, 2, 2), as (N, C, s, s); linear interpolation.

    Args:
        pictures: One for each box.
        box: Pixels of the pictures.
        side: s.
        padding: What lies outside: ``zeros``, or ``border``, as at the nearest border.
    """
    shape = torch.tensor(pictures.shape[-2:], device=box.device, dtype=torch.float32)
    share = (torch.arange(side, device=box.device, dtype=torch.float32) + 0.5) / side
    low, size = box[:, 0].float(), (box[:, 1] - box[:, 0]).float()
    place = low[:, None] + share[:, None] * size[:, None]  # (N, s, 2)
    place = (place + 0.5) / shape * 2 - 1
    rows, columns = place[..., 0], place[..., 1]
    grid = torch.stack(
        [columns[:, None, :].expand(-1, side, -1), rows[:, :, None].expand(-1, -1, side)], dim=-1
    )
    return F.grid_sample(
        pictures.float(), grid, mode="bilinear", padding_mode=padding, align_corners=False
    )


def put_back(windows: Tensor, box: Tensor, shape: tuple[int, int]) -> Tensor:
    """Windows (N, s, s) of boxes on the pixels of their pictures, (N, H, W); 0 outside the boxes.

    Args:
        windows: What was made in each box.
        box: (N, 2, 2), pixels.
        shape: H and W.
    """
    size = (box[:, 1] - box[:, 0]).float()
    axes = []
    for axis, count in enumerate(shape):
        pixel = torch.arange(count, device=box.device, dtype=torch.float32)
        axes.append((pixel - box[:, :1, axis].float()) / size[:, axis : axis + 1] * 2 - 1)
    rows, columns = axes
    grid = torch.stack(
        [
            columns[:, None, :].expand(-1, shape[0], -1),
            rows[:, :, None].expand(-1, -1, shape[1]),
        ],
        dim=-1,
    )
    return F.grid_sample(windows[:, None].float(), grid, align_corners=False)[:, 0]


def box_of_mask(masks: Tensor, *, least: float = 3.0) -> tuple[Tensor, Tensor]:
    """The tightest boxes around masks.

    Args:
        masks: (N, H, W), what is above one half counts.
        least: Boxes are made at least so large.

    Returns:
        Boxes (N, 2, 2) and whether there is anything (N,) bool; a box of nothing is around the
        middle.
    """
    there = masks > 0.5
    found = there.flatten(1).any(dim=1)
    faces = []
    for axis in (1, 2):
        line = there.any(dim=3 - axis).float()  # (N, H) or (N, W)
        count = line.shape[1]
        first = line.argmax(dim=1).float()
        last = count - 1 - line.flip(1).argmax(dim=1).float()
        middle = torch.full_like(first, (count - 1) / 2)
        first = torch.where(found, first, middle) - 0.5
        last = torch.where(found, last, middle) + 0.5
        faces.append(torch.stack([first, last], dim=1))
    return at_least(torch.stack(faces, dim=2), least), found


def at_least(box: Tensor, least: float) -> Tensor:
    """Boxes (N, 2, 2) that are at least so large, about the same middle."""
    half = ((box[:, 1] - box[:, 0]) / 2).clamp(min=least / 2)
    middle = box.mean(dim=1)
    return torch.stack([middle - half, middle + half], dim=1)


def grown(box: Tensor, factor: float, margin: float = 0.0) -> Tensor:
    """Boxes (N, 2, 2) so many times as large, and wider by a margin on every side."""
    middle = box.mean(dim=1)
    half = (box[:, 1] - box[:, 0]) / 2 * factor + margin
    return torch.stack([middle - half, middle + half], dim=1)


def mapped(box: Tensor, frame: Tensor, onto: Tensor) -> Tensor:
    """Boxes as they lie to a frame, laid to another frame in the same way; all (N, 2, 2)."""
    share = (box - frame[:, :1]) / (frame[:, 1:] - frame[:, :1])
    return onto[:, :1] + share * (onto[:, 1:] - onto[:, :1])
