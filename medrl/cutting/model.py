"""A trained set of cutting agents, and how it is stored in a bundle."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from medrl.cutting.dynamics import CutDynamics, Stack, View
from medrl.cutting.network import CutNetwork, PolicyNetwork


@dataclass(frozen=True)
class ModelSettings:
    """Everything that must be known to run the networks.

    Attributes:
        view: What agents see, and how they move.
        in_channels: Of a picture: 1 grey, 3 colours.
        widths: Channels of the execution network at each resolution, the finest first.
        modality: ``MR``, ``CT``, ``film`` or ``any``.
    """

    view: View = field(default_factory=View)
    in_channels: int = 1
    widths: tuple[int, ...] = (16, 32, 64, 96)
    modality: str = "any"

    def build_network(self) -> CutNetwork:
        """The execution network, untrained."""
        return CutNetwork(channels=self.in_channels, widths=self.widths)

    def build_policy(self) -> PolicyNetwork:
        """The policy network, untrained."""
        side = self.view.side // 2 ** (len(self.widths) - 1)
        return PolicyNetwork(deepest=self.widths[-1], side=side)


@dataclass(frozen=True, eq=False)
class CutModel:
    """Networks with what belongs to them.

    Attributes:
        settings: How to run it.
        network: What cuts, in evaluation mode.
        policy: What decides, in evaluation mode.
    """

    settings: ModelSettings
    network: CutNetwork
    policy: PolicyNetwork

    def dynamics(self, stacks: Sequence[Stack]) -> CutDynamics:
        """What the agents of this model live in."""
        device = next(self.network.parameters()).device
        return CutDynamics(stacks, view=self.settings.view, device=str(device))

    def save(self, folder: Path, *, name: str, card: Mapping[str, Any]) -> Path:
        """Write the model as a bundle; returns its folder."""
        from medrl.bundles import new_manifest, save

        manifest = new_manifest(
            name=name, task="cutting", settings=asdict(self.settings), card=card
        )
        return save(folder, self.tensors(), manifest)

    def tensors(self) -> dict[str, Tensor]:
        """Everything learned, by name, as stored in ``model.safetensors``."""
        from medrl.bundles import network_tensors

        out = network_tensors(self.network, prefix="network.")
        return out | network_tensors(self.policy, prefix="policy.")

    @staticmethod
    def load(bundle: Path, *, device: str = "cpu") -> tuple[CutModel, dict[str, Any]]:
        """Load a bundle folder.

        Raises:
            MedrlError: If it is not a cutting bundle of this version, or damaged.
        """
        from medrl.bundles import assemble, read_model, settings_from

        manifest, tensors = read_model(bundle, task="cutting")
        settings = settings_from(ModelSettings, manifest["settings"])
        network = assemble(settings.build_network, tensors, source=bundle, prefix="network.")
        policy = assemble(settings.build_policy, tensors, source=bundle, prefix="policy.")
        return CutModel(settings, network.to(device), policy.to(device)), dict(manifest)


def detached(mask: Tensor) -> Tensor:
    """Probabilities of logits, without their graph."""
    return torch.sigmoid(mask.detach().float())
