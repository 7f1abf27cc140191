"""What decides and what cuts: one encoder, a decoder that makes the mask, values of the actions."""

from __future__ import annotations

from copy import deepcopy
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from medrl.cutting.dynamics import ACTIONS, TOLD, window_channels
from medrl.nets.fold import fold_normalisations

#: The last mask counts from the beginning: logits of the cut are these times what it says.
_LAST = 2.0


class Cut(NamedTuple):
    """What would be cut out, of N agents.

    Attributes:
        logits: (N, s, s), of the mask in the context.
        present: (N,), logit that the object is in this picture.
        quality: (N,), logit of the overlap that the mask is expected to have with the truth.
    """

    logits: Tensor
    present: Tensor
    quality: Tensor


class CutNetwork(nn.Module):
    """The cutting-execution network (Han et al. 2018, section 3.2), here an encoder and decoder."""

    def __init__(self, *, channels: int = 1, widths: tuple[int, ...] = (16, 32, 64, 96)) -> None:
        """Build the network for pictures of C channels.

        Args:
            channels: C.
            widths: Channels at each resolution, the finest first; each half as fine.
        """
        super().__init__()
        self.channels = channels
        inputs = window_channels(channels)
        stages, before = [], inputs
        for number, width in enumerate(widths):
            stride = 1 if number == 0 else 2
            stages.append(
                nn.Sequential(
                    *_convolution(before, width, stride=stride), *_convolution(width, width)
                )
            )
            before = width
        self.stages = nn.ModuleList(stages)
        deepest = widths[-1]
        self.told = nn.Sequential(nn.Linear(TOLD, 64), nn.ReLU(), nn.Linear(64, deepest))
        self.deep = nn.Sequential(*_convolution(deepest, deepest), *_convolution(deepest, deepest))
        self.narrow = nn.ModuleList(nn.Conv2d(coarse, fine, 1) for fine, coarse in pairwise(widths))
        self.joins = nn.ModuleList(nn.Sequential(*_convolution(w, w)) for w in widths[:-1])
        self.mask = nn.Conv2d(widths[0], 1, 1)
        self.judge = nn.Sequential(nn.Linear(2 * deepest + TOLD, 64), nn.ReLU(), nn.Linear(64, 2))
        _channels_last(self)

    def encode(self, window: Tensor, told: Tensor) -> list[Tensor]:
        """Features at every resolution, the finest first.

        Args:
            window: (N, 4 C + 4, s, s).
            told: (N, :data:`TOLD`).
        """
        features = []
        seen = window
        for stage in self.stages:
            seen = stage(seen)
            features.append(seen)
        features[-1] = self.deep(seen + self.told(told)[:, :, None, None])
        return features

    def summary(self, features: list[Tensor], told: Tensor) -> Tensor:
        """What is known of the whole window, (N, F)."""
        deep = features[-1]
        return torch.cat([deep.mean(dim=(2, 3)), deep.amax(dim=(2, 3)), told], dim=1)

    def cut(self, features: list[Tensor], window: Tensor, told: Tensor) -> Cut:
        """Make masks of features."""
        out = features[-1]
        for fine, narrow, join in reversed(
            list(zip(features, self.narrow, self.joins, strict=False))
        ):
            out = join(fine + F.interpolate(narrow(out), scale_factor=2.0, mode="nearest"))
        last = window[:, -4]
        logits = self.mask(out)[:, 0] + _LAST * (2 * last - 1)
        judged = self.judge(self.summary(features, told))
        return Cut(logits, judged[:, 0], judged[:, 1])

    def forward(self, window: Tensor, told: Tensor) -> Cut:
        """Cut."""
        return self.cut(self.encode(window, told), window, told)


class PolicyNetwork(nn.Module):
    """The cutting-policy network (Han et al. 2018, section 3.1): values of all actions.

    It reads the features of the execution network, which stays as it is.
    """

    def __init__(self, *, deepest: int, side: int, features: int = 128) -> None:
        """Build the network.

        Args:
            deepest: Channels of the deepest features.
            side: Their height and width.
            features: Width of the hidden layer.
        """
        super().__init__()
        self.look = nn.Sequential(
            *_convolution(deepest, 32, stride=2), nn.Flatten(), nn.Linear(32 * _half(side) ** 2, 64)
        )
        self.values = nn.Sequential(
            nn.Linear(64 + 2 * deepest + TOLD + 2, features),
            nn.ReLU(),
            nn.Linear(features, len(ACTIONS)),
        )

    def forward(self, deep: Tensor, summary: Tensor, judged: Tensor) -> Tensor:
        """Values of the actions, (N, A).

        Args:
            deep: (N, D, h, w), the deepest features.
            summary: (N, 2 D + :data:`TOLD`), from :meth:`CutNetwork.summary`.
            judged: (N, 2), the logits of presence and quality.
        """
        return self.values(torch.cat([self.look(deep).relu(), summary, judged], dim=1))


def for_inference(network: CutNetwork) -> CutNetwork:
    """A copy in evaluation mode that computes the same, faster."""
    copy = deepcopy(network).eval()
    fold_normalisations(copy)
    _channels_last(copy)
    return copy


def _channels_last(network: nn.Module) -> None:
    """Lay weights out in the way that is faster on a CPU, by a third in training."""
    for parameter in network.parameters():
        if parameter.dim() == 4:
            parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)


def _half(side: int) -> int:
    return (side + 1) // 2


def _convolution(before: int, after: int, *, stride: int = 1) -> list[nn.Module]:
    return [
        nn.Conv2d(before, after, 3, stride=stride, padding=1, bias=False),
        nn.BatchNorm2d(after),
        nn.ReLU(inplace=True),
    ]
