"""What decides: one small network per scale, one head per landmark."""

from __future__ import annotations

from copy import deepcopy
from typing import NamedTuple

import torch
from torch import Tensor, nn

from medrl.landmark.dynamics import MOVES
from medrl.nets.encoder import WindowEncoder
from medrl.nets.fold import fold_normalisations

_ACTIONS = len(MOVES)


class Prediction(NamedTuple):
    """What a network says of N windows and K landmarks.

    Attributes:
        values: (N, K, 6), action values, in steps of the scale.
        offset: (N, K, 3), the landmark's place relative to the window's centre, in steps; only
            meaningful near the landmark.
        log_scale: (N, K), log of the expected absolute error of ``offset`` per axis, in steps.
    """

    values: Tensor
    offset: Tensor
    log_scale: Tensor


class LandmarkNetwork(nn.Module):
    """Action values, sub-voxel offset and its uncertainty for every landmark of one scale.

    With ``dueling`` the values are ``V + A - mean(A)`` (Wang et al. 2016, eq. 9).
    """

    def __init__(
        self,
        *,
        landmarks: int,
        window: int = 25,
        channels: tuple[int, ...] = (16, 32, 64),
        features: int = 256,
        dueling: bool = False,
    ) -> None:
        """Build the network.

        Args:
            landmarks: Number of heads, K.
            window: Side of the cubic windows, in voxels.
            channels: Channels of the strided convolutions.
            features: Width of the layer that all heads read.
            dueling: Split the action values into state value and advantage.
        """
        super().__init__()
        self.landmarks = landmarks
        self.dueling = dueling
        self.encoder = WindowEncoder(window=window, channels=channels, features=features)
        self.actions = nn.Linear(features, landmarks * _ACTIONS)
        self.state = nn.Linear(features, landmarks) if dueling else None
        self.finish = nn.Linear(features, landmarks * 4)

    def forward(self, windows: Tensor) -> Prediction:
        """Say it of a batch of windows.

        Args:
            windows: (N, 1, s, s, s) float, normalised intensities.

        Returns:
            The prediction for all N windows and K landmarks.
        """
        return self.heads(self.encoder(windows))

    def heads(self, features: Tensor) -> Prediction:
        """Say it of what the encoder saw in N windows, (N, F)."""
        values = self.actions(features).view(-1, self.landmarks, _ACTIONS)
        if self.state is not None:
            values = values - values.mean(dim=-1, keepdim=True) + self.state(features)[..., None]
        finish = self.finish(features).view(-1, self.landmarks, 4)
        return Prediction(values, finish[..., :3], finish[..., 3].clamp(-4.0, 3.0))

    def for_inference(self) -> LandmarkNetwork:
        """A copy in evaluation mode that computes the same, faster."""
        copy = deepcopy(self).eval()
        fold_normalisations(copy)
        return copy


def laplace_loss(prediction: Prediction, offset: Tensor) -> Tensor:
    """Negative log-likelihood of the true offsets under Laplace errors of the predicted scale.

    Args:
        prediction: For N windows and K landmarks.
        offset: (N, K, 3), truth, in steps.

    Returns:
        (N, K), up to a constant.
    """
    error = (prediction.offset - offset).abs().sum(dim=-1)
    return error * torch.exp(-prediction.log_scale) + 3 * prediction.log_scale


__all__ = ["LandmarkNetwork", "Prediction", "laplace_loss"]
