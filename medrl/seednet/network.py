"""Network of a seed agent: an image encoder that runs once, and two light heads per seed.

Windows are (N, C, I, J, K) with sides that are multiples of :data:`MULTIPLE`. The encoder sees the
image only, so a scan is encoded once however many seeds are placed. The prior head turns the
user's seeds into a foreground probability; the value head gives the value of another seed
in every cell of a grid at half the resolution.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.fusion import fuse_conv_bn_eval

from medrl.agents import Rows

#: Sides of a window must be multiples of this: three halvings.
MULTIPLE = 8
#: Ranges of the seed maps, in voxels: near a seed, and its wider neighbourhood.
SEED_SCALES = (2.0, 8.0)
#: What the value head sees besides the image: see :func:`medrl.seednet.view.agent_view`.
VIEW_CHANNELS = 7
#: Feature channels at each resolution.
Widths = tuple[int, int, int, int]
WIDTHS: Widths = (8, 32, 64, 96)
#: Edge length of a cell of the value head's grid, in voxels.
STRIDE = 2


@dataclass(frozen=True, eq=False)
class Features(Rows):
    """The encoder's view of N windows.

    Attributes:
        full: (N, F1, I, J, K).
        half: (N, F2, I/2, J/2, K/2).
        quarter: (N, F4, I/4, J/4, K/4).
    """

    full: Tensor
    half: Tensor
    quarter: Tensor


class SeedNetwork(nn.Module):
    """Encoder, learned edges, prior head and value head."""

    def __init__(
        self, *, channels: int = 1, targets: int = 1, widths: Widths = WIDTHS, edges: int = 4
    ) -> None:
        """Build the network.

        Args:
            channels: Image channels.
            targets: Kinds of object that it can be asked for.
            widths: Feature channels at full resolution, a half, a quarter and an eighth.
            edges: Length of the embedding that edge weights come from, for each target.
        """
        super().__init__()
        self.channels, self.targets, self.edges = channels, targets, edges
        self.encoder = _Encoder(channels, widths)
        self.embedding = nn.Conv3d(widths[0], targets * edges, 1)
        self.prior_head = _PriorHead(targets, widths)
        self.value_head = _ValueHead(targets, widths)
        # Channels last is the faster layout on a CPU.
        for parameter in self.parameters():
            if parameter.dim() == 5:
                parameter.data = parameter.data.contiguous(memory_format=torch.channels_last_3d)

    def encode(self, window: Tensor) -> Features:
        """Features of windows (N, C, I, J, K)."""
        features: Features = self.encoder(window)
        return features

    def edge_embedding(self, features: Features, target: Tensor) -> Tensor:
        """Embedding (N, E, I, J, K) whose differences say where the target's boundary runs.

        Args:
            features: Of N windows.
            target: (N,) int64.
        """
        every = self.embedding(features.full)
        grouped = every.unflatten(1, (self.targets, self.edges))
        return grouped[torch.arange(len(target), device=target.device), target]

    def prior(self, features: Features, seed_maps: Tensor, target: Tensor) -> Tensor:
        """Logits (N, I, J, K) that a voxel belongs to the target, given the user's seeds.

        Args:
            features: Of N windows.
            seed_maps: (N, 4, I, J, K), nearness to background and foreground seeds at each of
                :data:`SEED_SCALES`.
            target: (N,) int64.
        """
        logits: Tensor = self.prior_head(features, seed_maps, target)
        return logits

    def values(self, features: Features, view: Tensor, target: Tensor) -> Tensor:
        """Value (N, A) of every action; the last one is STOP, always 0.

        Args:
            features: Of N windows.
            view: (N, VIEW_CHANNELS, I/2, J/2, K/2), what the agent knows of its own work.
            target: (N,) int64.
        """
        values: Tensor = self.value_head(features.half, view, target)
        return values

    def learn_values(self) -> nn.Module:
        """Freeze all but the value head, and return that: takes (features.half, view, target)."""
        self.eval().requires_grad_(False)
        return self.value_head.requires_grad_(True)

    def fuse(self) -> SeedNetwork:
        """Fold the normalisations into the convolutions: same function, faster, not trainable."""
        for module in self.modules():
            if isinstance(module, _Block):
                module.fuse()
        return self


class _Convolution(nn.Conv3d):
    """A 3D convolution that uses oneDNN for a single window, too.

    PyTorch falls back to a kernel that is many times slower when a batch of one is small.
    """

    def forward(self, input: Tensor) -> Tensor:
        """Convolve (N, C, I, J, K)."""
        if input.device.type == "cpu" and not torch.is_grad_enabled() and _ONEDNN:
            padding = cast(tuple[int, ...], self.padding)
            out: Tensor = torch.mkldnn_convolution(
                input, self.weight, self.bias, padding, self.stride, self.dilation, self.groups
            )
            return out
        return super().forward(input)


_ONEDNN = torch.backends.mkldnn.is_available()


class _Block(nn.Module):
    """3x3x3 convolution, batch normalisation, ReLU."""

    def __init__(self, before: int, after: int, *, stride: int = 1) -> None:
        super().__init__()
        self.convolution: nn.Module = _Convolution(
            before, after, 3, stride=stride, padding=1, bias=False
        )
        self.normalization: nn.Module = nn.BatchNorm3d(after)

    def fuse(self) -> None:
        """Fold the normalisation into the convolution."""
        if isinstance(self.normalization, nn.BatchNorm3d):
            assert isinstance(self.convolution, nn.Conv3d)
            self.convolution = fuse_conv_bn_eval(self.convolution, self.normalization)
            self.normalization = nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.normalization(self.convolution(x)), inplace=True)


def _up(x: Tensor) -> Tensor:
    """Twice the resolution, trilinear."""
    return F.interpolate(x, scale_factor=2, mode="trilinear", align_corners=False)


class _Encoder(nn.Module):
    """A U-Net that adds where others concatenate: half the cost at full resolution."""

    def __init__(self, channels: int, widths: Widths) -> None:
        super().__init__()
        w1, w2, w4, w8 = widths
        self.down1 = nn.Sequential(_Block(channels, w1), _Block(w1, w1))
        self.down2 = nn.Sequential(_Block(w1, w2, stride=2), _Block(w2, w2))
        self.down4 = nn.Sequential(_Block(w2, w4, stride=2), _Block(w4, w4))
        self.down8 = nn.Sequential(_Block(w4, w8, stride=2), _Block(w8, w8), _Block(w8, w8))
        self.lift4, self.lift2, self.lift1 = (
            nn.Conv3d(w8, w4, 1), nn.Conv3d(w4, w2, 1), nn.Conv3d(w2, w1, 1)
        )  # fmt: skip
        self.up4, self.up2, self.up1 = _Block(w4, w4), _Block(w2, w2), _Block(w1, w1)

    def forward(self, window: Tensor) -> Features:
        full = self.down1(window.contiguous(memory_format=torch.channels_last_3d))
        half = self.down2(full)
        quarter = self.down4(half)
        eighth = self.down8(quarter)
        quarter = self.up4(quarter + _up(self.lift4(eighth)))
        half = self.up2(half + _up(self.lift2(quarter)))
        full = self.up1(full + _up(self.lift1(half)))
        return Features(full, half, quarter)


class _PriorHead(nn.Module):
    """From features and seeds to logits."""

    def __init__(self, targets: int, widths: Widths) -> None:
        super().__init__()
        w1, w2, w4, _ = widths
        maps = 2 * len(SEED_SCALES)
        self.stem = _Block(maps, w1, stride=2)
        self.target_half = nn.Embedding(targets, w1)
        self.target_full = nn.Embedding(targets, w1)
        self.fine = _Block(w1 + w2, w2)
        self.down = _Block(w2, w4, stride=2)
        self.coarse = nn.Sequential(_Block(w4, w4), _Block(w4, w4))
        self.lift2, self.lift1 = nn.Conv3d(w4, w2, 1), nn.Conv3d(w2, w1, 1)
        self.up2 = _Block(w2, w2)
        self.seeds_full = nn.Conv3d(maps, w1, 1)
        self.finest = _Block(w1, w1)
        self.logit = nn.Conv3d(w1, 1, 1)
        # Objects fill a small part of a window.
        nn.init.constant_(self.logit.bias, -2.5)  # type: ignore[arg-type]

    def forward(self, features: Features, seed_maps: Tensor, target: Tensor) -> Tensor:
        maps = seed_maps.contiguous(memory_format=torch.channels_last_3d)
        stem = self.stem(maps) + self.target_half(target)[:, :, None, None, None]
        half = self.fine(torch.cat([features.half, stem], dim=1))
        quarter = self.coarse(self.down(half) + features.quarter)
        half = self.up2(half + _up(self.lift2(quarter)))
        full = features.full + _up(self.lift1(half)) + self.seeds_full(maps)
        full = full + self.target_full(target)[:, :, None, None, None]
        logits: Tensor = self.logit(self.finest(full))
        return logits[:, 0]


class _ValueHead(nn.Module):
    """From features and the agent's view of its work to the values of all actions.

    Dueling (Wang et al. 2016): a value of the state plus the advantage of each action over their
    mean. STOP ends the episode and earns nothing, so its value is 0 by definition, and an agent
    goes on exactly as long as it expects to gain something.
    """

    def __init__(self, targets: int, widths: Widths) -> None:
        super().__init__()
        _, w2, w4, _ = widths
        self.target = nn.Embedding(targets, w2)
        self.fine = _Block(w2 + VIEW_CHANNELS, w2)
        self.down = _Block(w2, w4, stride=2)
        self.coarse = nn.Sequential(_Block(w4, w4), _Block(w4, w4))
        self.lift = nn.Conv3d(w4, w2, 1)
        self.up = _Block(w2, w2)
        self.advantage = nn.Conv3d(w2, 2, 1)
        self.state = nn.Linear(w4, 1)
        # Before it has learned anything, an agent expects nothing of any seed.
        for layer in (self.advantage, self.state):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)  # type: ignore[arg-type]

    def forward(self, half: Tensor, view: Tensor, target: Tensor) -> Tensor:
        x = torch.cat([half, view], dim=1)
        half = self.fine(x.contiguous(memory_format=torch.channels_last_3d))
        half = half + self.target(target)[:, :, None, None, None]
        quarter = self.coarse(self.down(half))
        advantage = self.advantage(self.up(half + _up(self.lift(quarter)))).flatten(1)
        state = self.state(quarter.mean(dim=(2, 3, 4)))
        seeds = state + advantage - advantage.mean(dim=1, keepdim=True)
        return torch.cat([seeds, torch.zeros_like(state)], dim=1)
