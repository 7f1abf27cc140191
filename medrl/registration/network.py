"""What decides how a scan is moved: one network for each resolution."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from medrl.nets.encoder import side_after
from medrl.nets.fold import fold_normalisations
from medrl.registration.dynamics import ACTIONS
from medrl.registration.transforms import PARAMETERS


@dataclass(frozen=True)
class LevelSettings:
    """One resolution at which agents look and move.

    Attributes:
        spacing: Voxel size, mm.
        window: Side of the cubic window that both scans are seen through, voxels.
        channels: Of the convolutions.
        strides: Of the same.
        squeeze: Channels left before the wide layer.
        features: Width of that layer.
        memory: Units of the recurrent core.
        in_view: Whether agents are told what lies outside a scan's field of view.
    """

    spacing: float
    window: int
    channels: tuple[int, ...] = (16, 32, 64, 64, 128)
    strides: tuple[int, ...] = (2, 2, 1, 1, 2)
    squeeze: int = 96
    features: int = 192
    memory: int = 96
    in_view: bool = True


@dataclass(frozen=True, eq=False)
class Outputs:
    """What the network says of N pairs of windows.

    Attributes:
        logits: (N, 12, 9) preference for each step of each parameter.
        error: (N,) predicted log(1 + mean distance from the right place in mm).
        value: (N,) expected sum of rewards to come.
        memory: (N, M) state of the recurrent core.
    """

    logits: Tensor
    error: Tensor
    value: Tensor
    memory: Tensor


class RegistrationNetwork(nn.Module):
    """Convolutions over both scans together, a gated recurrent core, and a head each.

    The core adds to what the present window says; untrained it adds nothing, so that a network
    that learned from single windows is where learning from whole walks begins. A ConvLSTM stands
    in its place in Sun et al. (MedIA 2021); here space is gone when memory comes in.
    """

    def __init__(self, settings: LevelSettings) -> None:
        """Build for one level."""
        super().__init__()
        self.settings = settings
        layers: list[nn.Module] = []
        before, side = 3 if settings.in_view else 2, settings.window
        for after, stride in zip(settings.channels, settings.strides, strict=True):
            layers += [
                nn.Conv3d(before, after, 3, stride=stride, padding=1, bias=False),
                nn.BatchNorm3d(after),
                nn.ReLU(inplace=True),
            ]
            before, side = after, side_after(side, stride=stride, padding=1)
        layers += [nn.Conv3d(before, settings.squeeze, 1), nn.ReLU(inplace=True), nn.Flatten()]
        self.convolutions = nn.Sequential(*layers)
        # Channels last is the faster layout on a CPU.
        for parameter in self.convolutions.parameters():
            if parameter.dim() == 5:
                parameter.data = parameter.data.contiguous(memory_format=torch.channels_last_3d)
        width, memory = settings.features, settings.memory
        self.project = nn.Sequential(
            nn.Linear(settings.squeeze * side**3, width), nn.ReLU(inplace=True)
        )
        self.core = nn.GRUCell(width, memory)
        self.recall = nn.Linear(memory, width, bias=False)
        nn.init.zeros_(self.recall.weight)
        self.hidden = nn.Sequential(nn.Linear(width, width), nn.ReLU(inplace=True))
        self.policy = nn.Linear(width, len(PARAMETERS) * ACTIONS)
        self.estimates = nn.Sequential(
            nn.Linear(width, width // 2), nn.ReLU(inplace=True), nn.Linear(width // 2, 2)
        )

    def blank(self, count: int) -> Tensor:
        """Memory (N, M) of agents that have seen nothing."""
        return self.recall.weight.new_zeros((count, self.settings.memory))

    def encode(self, windows: Tensor) -> Tensor:
        """Features (N, F) of windows (N, 3, s, s, s): fixed, moving, in view of both."""
        if not self.settings.in_view:
            windows = windows[:, :2]
        seen = windows.contiguous(memory_format=torch.channels_last_3d)
        features: Tensor = self.project(self.convolutions(seen))
        return features

    def decide(self, features: Tensor, memory: Tensor | None = None) -> Outputs:
        """Decide from features (N, F), with memory (N, M) of the walk or without."""
        if memory is None:
            memory, thought = self.blank(len(features)), features
        else:
            memory = self.core(features, memory)
            thought = features + self.recall(memory)
        hidden = self.hidden(thought)
        # In full precision, however it was computed.
        logits = self.policy(hidden).view(-1, len(PARAMETERS), ACTIONS).float()
        error, value = self.estimates(hidden).float().unbind(dim=1)
        return Outputs(logits, error, value, memory.float())

    def forward(self, windows: Tensor, memory: Tensor | None = None) -> Outputs:
        """Look and decide."""
        return self.decide(self.encode(windows), memory)

    def fuse(self) -> RegistrationNetwork:
        """Fold the normalisations into the convolutions: same function, faster, not trainable."""
        fold_normalisations(self)
        return self


def expected_steps(logits: Tensor, steps: Tensor) -> Tensor:
    """Mean step (N, 12) of each parameter under its distribution, logits (N, 12, 9)."""
    return (logits.double().softmax(dim=-1) * steps).sum(dim=-1)


def target_distribution(wanted: Tensor, steps: Tensor) -> Tensor:
    """Distributions over steps whose mean is what is wanted, on the two nearest steps.

    The two-hot target of distributional value learning (Bellemare et al. 2017, eq. 7), here for
    the step that an expert would take.

    Args:
        wanted: (..., P) change of each parameter; clamped to the longest step.
        steps: (A,) sizes of the steps, rising.

    Returns:
        (..., P, A).
    """
    inside = wanted.clamp(float(steps[0]), float(steps[-1])).contiguous()
    high = torch.searchsorted(steps, inside).clamp(1, len(steps) - 1)
    low = high - 1
    share = (inside - steps[low]) / (steps[high] - steps[low])
    target = wanted.new_zeros((*wanted.shape, len(steps)))
    target.scatter_(-1, low[..., None], (1 - share)[..., None])
    target.scatter_(-1, high[..., None], share[..., None])
    return target
