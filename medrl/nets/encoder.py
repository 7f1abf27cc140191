"""The trunk that turns a window of a scan into a feature vector."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval


class WindowEncoder(nn.Module):
    """Strided 3x3x3 convolutions with batch normalisation, then one wide layer.

    Strides do the pooling: a window costs about 10 million multiply-adds at the default size,
    a thousandth of a second on one CPU core.
    """

    def __init__(self, *, window: int, channels: Sequence[int], features: int) -> None:
        """Build the trunk.

        Args:
            window: Side of the cubic windows, in voxels.
            channels: Channels of each convolution.
            features: Length of the feature vector.
        """
        super().__init__()
        layers: list[nn.Module] = []
        before = 1
        for index, after in enumerate(channels):
            last = index == len(channels) - 1
            layers += [
                nn.Conv3d(before, after, 3, stride=2, padding=0 if last else 1, bias=False),
                nn.BatchNorm3d(after),
                nn.ReLU(inplace=True),
            ]
            before = after
        self.convolutions = nn.Sequential(*layers, nn.Flatten())
        with torch.no_grad():
            flat = self.convolutions.eval()(torch.zeros(1, 1, window, window, window)).shape[1]
        self.convolutions.train()
        # Channels last is the faster layout on a CPU, by a quarter in training.
        for parameter in self.convolutions.parameters():
            if parameter.dim() == 5:
                parameter.data = parameter.data.contiguous(memory_format=torch.channels_last_3d)
        self.project = nn.Sequential(nn.Linear(flat, features), nn.ReLU(inplace=True))

    def fuse(self) -> None:
        """Fold the normalisations into the convolutions: same function, faster, not trainable."""
        fused: list[nn.Module] = []
        for layer in self.convolutions:
            if isinstance(layer, nn.BatchNorm3d) and isinstance(fused[-1], nn.Conv3d):
                fused[-1] = fuse_conv_bn_eval(fused[-1], layer)
            else:
                fused.append(layer)
        self.convolutions = nn.Sequential(*fused)

    def forward(self, windows: Tensor) -> Tensor:
        """Encode windows (N, 1, s, s, s) to features (N, F)."""
        features: Tensor = self.project(self.convolutions(windows))
        return features
