"""What decides: a proposer that looks at the whole scan once, and a network that walks boxes."""

from __future__ import annotations

from copy import deepcopy
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from medrl.localization.dynamics import ACTIONS, View, told_length
from medrl.nets.encoder import WindowEncoder
from medrl.nets.fold import fold_normalisations

#: Voxels of the proposer's input per cell of its output.
CELL = 2
#: The proposer's input is padded to multiples of this.
MULTIPLE = 8


class Prediction(NamedTuple):
    """What a network says of N boxes, each for the target it is held for.

    Attributes:
        values: (N, A), action values.
        offset: (N, 2, 3), where the faces are relative to the box's, in steps of the window.
        log_error: (N, 2, 3), log of the expected absolute error of each, in the same steps.
        features: (N, F), what all of it follows from.
    """

    values: Tensor
    offset: Tensor
    log_error: Tensor
    features: Tensor


class BoxNetwork(nn.Module):
    """Action values and faces for every target, from the content of a box and its surroundings.

    With ``dueling`` the values are ``V + A - mean(A)`` (Wang et al. 2016, eq. 9).
    """

    def __init__(
        self,
        *,
        targets: int,
        view: View,
        channels: int = 1,
        widths: tuple[int, ...] = (16, 32, 64),
        features: int = 256,
        dueling: bool = True,
    ) -> None:
        """Build the network.

        Args:
            targets: Number of heads, K.
            view: What agents see.
            channels: Channels of the scans, C.
            widths: Channels of the convolutions.
            features: Width of the layer that all heads read.
            dueling: Split the action values into state value and advantage.
        """
        super().__init__()
        self.targets, self.dueling = targets, dueling
        self.encoder = WindowEncoder(
            window=view.window, channels=widths, features=features, inputs=channels
        )
        self.surroundings = WindowEncoder(
            window=view.wide, channels=widths[:2], features=64, inputs=channels
        )
        told = told_length(len(view.shares), view.history)
        self.mix = nn.Sequential(nn.Linear(features + 64 + told, features), nn.ReLU(inplace=True))
        self.actions = nn.Linear(features, targets * len(ACTIONS))
        self.state = nn.Linear(features, targets) if dueling else None
        self.faces = nn.Linear(features, targets * 12)

    def forward(self, window: Tensor, wide: Tensor, told: Tensor, target: Tensor) -> Prediction:
        """Say it of N boxes.

        Args:
            window: (N, C, s, s, s).
            wide: (N, C, w, w, w).
            told: (N, T).
            target: (N,) int64.
        """
        parts = [self.encoder(window), self.surroundings(wide), told]
        features = self.mix(torch.cat(parts, dim=1))
        row = torch.arange(len(target), device=target.device)
        values = self.actions(features).view(-1, self.targets, len(ACTIONS))[row, target]
        if self.state is not None:
            values = values - values.mean(dim=-1, keepdim=True)
            values = values + self.state(features)[row, target][:, None]
        faces = self.faces(features).view(-1, self.targets, 2, 2, 3)[row, target]
        return Prediction(values, faces[:, 0], faces[:, 1].clamp(-4.0, 3.0), features)

    def for_inference(self) -> BoxNetwork:
        """A copy in evaluation mode that computes the same, faster."""
        copy = deepcopy(self).eval()
        fold_normalisations(copy)
        return copy


class Proposer(nn.Module):
    """One look at a whole scan: where the middle of every target may be, and its faces from there.

    Convolutions at four resolutions, added up on the way back (Lin et al. 2017), a heatmap of
    centres and the distances of the faces at every cell (Zhou et al. 2019, in 3D).
    """

    def __init__(
        self, *, targets: int, channels: int = 1, widths: tuple[int, ...] = (16, 32, 64, 96)
    ) -> None:
        """Build the network for K targets and scans of C channels."""
        super().__init__()
        self.targets = targets
        a, b, c, d = widths
        self.fine = nn.Sequential(_convolution(channels, a, stride=2), _convolution(a, b))
        self.middle = nn.Sequential(_convolution(b, c, stride=2), _convolution(c, c))
        self.coarse = nn.Sequential(
            _convolution(c, d, stride=2), _convolution(d, d), _convolution(d, d)
        )
        self.from_coarse, self.at_middle = nn.Conv3d(d, c, 1), _convolution(c, c)
        self.from_middle, self.at_fine = nn.Conv3d(c, b, 1), _convolution(b, b)
        self.head = nn.Conv3d(b, targets * 7, 1)
        # Nothing is most often anywhere.
        start = torch.tensor([-4.0] + [0.0] * 6).repeat(targets)
        self.head.bias = nn.Parameter(start)

    def forward(self, scans: Tensor) -> tuple[Tensor, Tensor]:
        """Look at scans.

        Args:
            scans: (N, C, I, J, K), sides multiples of :data:`MULTIPLE`.

        Returns:
            Logits (N, K, I/2, J/2, K/2) that the middle of a target is there; and distances
            (N, K, 6, ...) in cells from there to the three lower and the three upper faces.
        """
        fine = self.fine(scans)
        middle = self.middle(fine)
        seen = self.at_middle(middle + _upsampled(self.from_coarse(self.coarse(middle)), middle))
        seen = self.at_fine(fine + _upsampled(self.from_middle(seen), fine))
        out = self.head(seen).view(len(scans), self.targets, 7, *seen.shape[2:])
        return out[:, :, 0], out[:, :, 1:]

    def for_inference(self) -> Proposer:
        """A copy in evaluation mode that computes the same, faster."""
        copy = deepcopy(self).eval()
        fold_normalisations(copy)
        return copy


def _convolution(before: int, after: int, *, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv3d(before, after, 3, stride=stride, padding=1, bias=False),
        nn.BatchNorm3d(after),
        nn.ReLU(inplace=True),
    )


def _upsampled(small: Tensor, like: Tensor) -> Tensor:
    return F.interpolate(small, size=like.shape[2:], mode="trilinear", align_corners=False)


def padded(volume: Tensor) -> Tensor:
    """A volume (..., I, J, K) whose sides are multiples of :data:`MULTIPLE`, zeros at the ends."""
    sides = [(0, -side % MULTIPLE) for side in reversed(volume.shape[-3:])]
    return F.pad(volume, [end for side in sides for end in side])


def laplace_loss(prediction: Prediction, offset: Tensor) -> Tensor:
    """Negative log-likelihood of true offsets (N, 2, 3) in window steps; (N,), up to a constant.

    Errors are Laplacian with the predicted scale.
    """
    error = (prediction.offset - offset).abs()
    return (error * torch.exp(-prediction.log_error) + prediction.log_error).mean(dim=(1, 2))
