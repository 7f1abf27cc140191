"""Heat maps at two resolutions, and what the maps of other landmarks say of one."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

#: Channels that are normalised together.
_GROUP = 8
#: Least spread of a displacement, voxels.
_LEAST_SPREAD = 0.6
#: What a landmark that says nothing adds to every place, at first, next to a uniform map.
_BIAS = 0.02
#: How much messages count at first, all together: each by itself is as sure as if it were alone.
_TRUST = 3.0


class Maps(NamedTuple):
    """Where K landmarks may be on a grid.

    Attributes:
        there: (K, X, Y, Z), logits of the voxels.
        gone: (K,), logit of being nowhere in the scan.
    """

    there: Tensor
    gone: Tensor

    def log_probability(self) -> Maps:
        """The same, as logarithms of probabilities that sum to one for each landmark."""
        flat = torch.cat([self.there.flatten(1), self.gone[:, None]], dim=1)
        log = F.log_softmax(flat, dim=1)
        return Maps(log[:, :-1].view_as(self.there), log[:, -1])


def _convolution(before: int, after: int, *, stride: int = 1, dilation: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv3d(before, after, 3, stride=stride, padding=dilation, dilation=dilation, bias=False),
        nn.GroupNorm(max(1, after // _GROUP), after),
        nn.ReLU(inplace=True),
    )


class PartNetwork(nn.Module):
    """Maps of all landmarks on the coarse grid, of a scan at two resolutions.

    As in the multi-resolution detector of Tompson et al. (section 3.1), a branch for each
    resolution goes before what both share; dilation takes the place of its large kernels.
    """

    def __init__(self, landmarks: int, *, channels: tuple[int, int, int] = (16, 32, 48)) -> None:
        """Build it.

        Args:
            landmarks: K.
            channels: Of the first and second layer of a branch, and of the body.
        """
        super().__init__()
        first, second, body = channels
        self.finer = nn.Sequential(_convolution(1, first), _convolution(first, second, stride=2))
        self.coarser = nn.Sequential(_convolution(1, first), _convolution(first, second))
        self.body = nn.Sequential(
            _convolution(2 * second, body),
            _convolution(body, body, dilation=2),
            _convolution(body, body, dilation=4),
            _convolution(body, body, dilation=2),
            _convolution(body, body),
        )
        self.maps = nn.Conv3d(body, landmarks, 1)
        self.gone = nn.Linear(body, landmarks)

    def forward(self, finer: Tensor, coarser: Tensor) -> Maps:
        """Look at one scan.

        Args:
            finer: (1, 2X or 2X - 1, ...) normalised intensities at half the voxel size of the map.
            coarser: (1, X, Y, Z), at that of the map.
        """
        seen = torch.cat([self.finer(finer[None]), self.coarser(coarser[None])], dim=1)
        features = self.body(seen)
        there = self.maps(features)[0]
        # As likely as everything that is in view together, at first.
        gone = self.gone(features.mean(dim=(2, 3, 4)))[0] + math.log(there[0].numel())
        return Maps(there, gone)


class SpatialModel(nn.Module):
    """What landmarks say of each other: one round of messages (Tompson et al. 2014, equation 2).

    The new map of landmark A is its own times, for each other landmark V, the map of V convolved
    with where A lies from V, plus a bias. Products are sums of logarithms here. The convolution is
    positive as it is by a Gaussian along each axis, whose middle and width come from the training
    set and are learned on; so it needs no kernel that is twice as large as the map. A landmark that
    is not in the scan says nothing. How much a message counts is learned, too, for what many
    landmarks say is not independent.
    """

    def __init__(self, displacement: Tensor, spread: Tensor) -> None:
        """Begin with what the training set says.

        Args:
            displacement: (K, K, 3), of landmark A (first) from V (second), voxels of the map.
            spread: (K, K, 3), its standard deviation.
        """
        super().__init__()
        count = len(displacement)
        self.displacement = nn.Parameter(displacement.clone().float())
        self.log_spread = nn.Parameter(spread.clone().float().clamp(min=_LEAST_SPREAD).log())
        trust = torch.full((count, count), _TRUST / max(1, count - 1))
        self.trust = nn.Parameter(_inverse_softplus(trust))
        self.bias = nn.Parameter(_inverse_softplus(torch.full((count, count), _BIAS)))
        self.gone = nn.Parameter(torch.zeros(count))

    def forward(self, maps: Maps) -> Maps:
        """Let every landmark hear the others."""
        own = maps.log_probability()
        seen, gone = own.there.exp(), own.gone.exp()
        said = seen[None].expand(len(seen), *seen.shape)
        for axis in range(3):
            kernel = self._kernel(axis, seen.shape[1 + axis])
            said = torch.einsum("avxi,av...i->av...x", kernel, said.movedim(2 + axis, -1))
            said = said.movedim(-1, 2 + axis)
        # Next to a uniform map, so that who says nothing changes nothing.
        nothing = gone[None] + F.softplus(self.bias)
        message = torch.log(said * seen[0].numel() + nothing[..., None, None, None])
        trust = F.softplus(self.trust) * (1 - torch.eye(len(seen), device=seen.device))
        heard = torch.einsum("av,avxyz->axyz", trust, message)
        return Maps(own.there + heard, own.gone + self.gone)

    def _kernel(self, axis: int, side: int) -> Tensor:
        """(K, K, side, side): how likely A is at x (third) if V is at i (fourth), along an axis."""
        place = torch.arange(side, device=self.displacement.device).float()
        away = place[:, None] - place[None, :]
        spread = self.log_spread[..., axis, None, None].exp().clamp(min=_LEAST_SPREAD)
        standard = (away - self.displacement[..., axis, None, None]) / spread
        return torch.exp(-0.5 * standard**2) / (spread * math.sqrt(2 * math.pi))


class FineNetwork(nn.Module):
    """The map of one landmark in a window of the finest scale."""

    def __init__(self, landmarks: int, *, channels: tuple[int, int, int] = (8, 24, 48)) -> None:
        """Build it.

        Args:
            landmarks: K.
            channels: At full and at half resolution, and in the middle of that.
        """
        super().__init__()
        first, second, middle = channels
        self.landmarks = landmarks
        self.full = _convolution(1, first)
        self.halved = nn.Sequential(
            _convolution(first, second, stride=2),
            _convolution(second, middle),
            _convolution(middle, middle, dilation=2),
            _convolution(middle, second),
        )
        self.joined = _convolution(first + second, second)
        self.maps = nn.Conv3d(second, landmarks, 1, bias=False)

    def forward(self, windows: Tensor, landmark: Tensor) -> Tensor:
        """Look at windows.

        Args:
            windows: (N, 1, s, s, s) normalised intensities.
            landmark: (N,), which is looked for in each.

        Returns:
            (N, s, s, s) logits.
        """
        full = self.full(windows)
        wide = F.interpolate(
            self.halved(full), size=full.shape[2:], mode="trilinear", align_corners=True
        )
        features = self.joined(torch.cat([full, wide], dim=1))
        weight = self.maps.weight[landmark, :, 0, 0, 0]
        return torch.einsum("nc,ncxyz->nxyz", weight, features)


def _inverse_softplus(value: Tensor) -> Tensor:
    return torch.log(torch.expm1(value))
