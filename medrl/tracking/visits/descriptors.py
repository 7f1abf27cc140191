"""What agents compare: self-similarity of windows, and its distance at every offset around."""

from __future__ import annotations

from itertools import combinations

import torch
import torch.nn.functional as F
from torch import Tensor

_FACES = torch.tensor([[1, 0, 0], [-1, 0, 0], [0, 1, 0], [0, -1, 0], [0, 0, 1], [0, 0, -1]])
#: Pairs of the six neighbours that are not opposite each other: 12.
_PAIRS = tuple((i, j) for i, j in combinations(range(6), 2) if bool((_FACES[i] + _FACES[j]).any()))
#: Voxels that a descriptor reaches beyond its own: a neighbour, and the mean of 3^3 around it.
REACH = 2
#: Squared differences of intensities in 0..1 that are noise.
_NOISE = 1e-5


def mind_ssc(windows: Tensor) -> Tensor:
    """Self-similarity context of windows, the same in any contrast.

    Heinrich et al., MICCAI 2013 (MIND-SSC), eq. 3: ``exp(-D / V)`` for the twelve pairs of
    neighbours that touch each other, D the mean squared difference of the 3^3 patches around the
    two, V the mean of the twelve D.

    Args:
        windows: (N, 1, S, S, S) intensities of about 0 to 1.

    Returns:
        (N, 12, S - 4, S - 4, S - 4), 0 to 1: :data:`REACH` voxels are lost on every side.
    """
    size = windows.shape[2] - 2
    shifted = []
    for face in _FACES.tolist():
        i, j, k = (1 + f for f in face)
        shifted.append(windows[:, 0, i : i + size, j : j + size, k : k + size])
    apart = torch.stack([(shifted[i] - shifted[j]).square() for i, j in _PAIRS], dim=1)
    apart = F.avg_pool3d(apart, 3, stride=1)
    apart = apart - apart.amin(dim=1, keepdim=True)
    mean = apart.mean(dim=1, keepdim=True).clamp(min=_NOISE)
    return torch.exp(-apart / mean)


def offset_distances(
    patch: Tensor, around: Tensor, *, dilation: int = 1, chunk: int = 32
) -> Tensor:
    """How far descriptors of a patch are from those of another scan, at every offset.

    Args:
        patch: (N, C, P, P, P) descriptors around each point, P odd.
        around: (N, C, P + 2 R, ...) those of the other scan, centred where the agent stands.
        dilation: Every so many voxels of the patch count.
        chunk: Agents done at a time.

    Returns:
        (N, 2 R + 1, 2 R + 1, 2 R + 1) mean squared differences.
    """
    some = patch[:, :, ::dilation, ::dilation, ::dilation]
    offsets = around.shape[2] - patch.shape[2] + 1
    out = []
    for own, other in zip(some.split(chunk), around.split(chunk), strict=True):
        count, channels, side = own.shape[:3]
        cross = F.conv3d(
            other.reshape(1, count * channels, *other.shape[2:]),
            own,
            groups=count,
            dilation=dilation,
        )[0]
        ones = torch.ones(1, 1, side, side, side, dtype=own.dtype, device=own.device)
        energy = F.conv3d(other.square().sum(dim=1, keepdim=True), ones, dilation=dilation)[:, 0]
        own_energy = own.square().flatten(1).sum(dim=1)[:, None, None, None]
        total = own_energy + energy - 2 * cross
        out.append(total / (channels * side**3))
    result = torch.cat(out) if out else patch.new_zeros((0, offsets, offsets, offsets))
    return result.clamp(min=0.0)
