"""The trunk that turns a window of a scan into a feature vector."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn


def side_after(side: int, *, stride: int, padding: int, kernel: int = 3) -> int:
    """Side of what a convolution makes of a cube.

    Raises:
        ValueError: If the cube is smaller than the kernel.
    """
    if side + 2 * padding < kernel:
        raise ValueError(f"a window of {side} voxels is too small for a convolution of {kernel}")
    return (side + 2 * padding - kernel) // stride + 1


class WindowEncoder(nn.Module):
    """Strided 3x3x3 convolutions with batch normalisation, then one wide layer.

    Strides do the pooling: a window costs about 10 million multiply-adds at the default size,
    a thousandth of a second on one CPU core.
    """

    def __init__(
        self, *, window: int, channels: Sequence[int], features: int, inputs: int = 1
    ) -> None:
        """Build the trunk.

        Args:
            window: Side of the cubic windows, in voxels.
            channels: Channels of each convolution.
            features: Length of the feature vector.
            inputs: Channels of a window, C.
        """
        super().__init__()
        layers: list[nn.Module] = []
        before, side = inputs, window
        for index, after in enumerate(channels):
            padding = 0 if index == len(channels) - 1 else 1
            layers += [
                nn.Conv3d(before, after, 3, stride=2, padding=padding, bias=False),
                nn.BatchNorm3d(after),
                nn.ReLU(inplace=True),
            ]
            before, side = after, side_after(side, stride=2, padding=padding)
        self.convolutions = nn.Sequential(*layers, nn.Flatten())
        # Channels last is the faster layout on a CPU, by a quarter in training.
        for parameter in self.convolutions.parameters():
            if parameter.dim() == 5:
                parameter.data = parameter.data.contiguous(memory_format=torch.channels_last_3d)
        self.project = nn.Sequential(nn.Linear(before * side**3, features), nn.ReLU(inplace=True))

    def forward(self, windows: Tensor) -> Tensor:
        """Encode windows (N, C, s, s, s) to features (N, F)."""
        features: Tensor = self.project(self.convolutions(windows))
        return features
