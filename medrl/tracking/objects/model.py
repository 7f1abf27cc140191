"""Trained tracking agents, and how they are stored in a bundle."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from medrl.tracking.objects.dynamics import TrackDynamics, View
from medrl.tracking.objects.network import TrackNetwork
from medrl.tracking.objects.scene import Scene

TASK = "tracking"


@dataclass(frozen=True)
class ModelSettings:
    """Everything that must be known to run the network.

    Attributes:
        view: What agents see.
        width: Of the network's layers.
        slope: Of the confidence, ``sigmoid(slope * margin + offset)``, by how much the value of
            what an agent does exceeds that of anything else.
        offset: Likewise.
    """

    view: View = field(default_factory=View)
    width: int = 64
    slope: float = 1.0
    offset: float = 0.0

    def build_network(self) -> TrackNetwork:
        """The network, untrained."""
        return TrackNetwork(view=self.view, width=self.width)


@dataclass(frozen=True, eq=False)
class TrackModel:
    """A network with what belongs to it.

    Attributes:
        settings: How to run it.
        network: In evaluation mode.
    """

    settings: ModelSettings
    network: TrackNetwork

    def values(self, seen: Mapping[str, Tensor]) -> Tensor:
        """Values (N, A) of the actions of agents that see this."""
        with torch.no_grad():
            values: Tensor = self.network(seen["own"], seen["pairs"], seen["rivals"])
        return values

    def sure(self, margin: Tensor) -> Tensor:
        """Probability (N,) that an agent still follows the object it followed the frame before."""
        return torch.sigmoid(self.settings.slope * margin.clamp(0, 50) + self.settings.offset)

    def dynamics(self, scenes: list[Scene]) -> TrackDynamics:
        """What the agents of this model live in."""
        return TrackDynamics(scenes, view=self.settings.view)

    def save(
        self, folder: Path, *, name: str, card: Mapping[str, Any], licence: str | None = None
    ) -> Path:
        """Write the model as a bundle; returns its folder."""
        from medrl.bundles import network_tensors, new_manifest, save

        manifest = new_manifest(name=name, task=TASK, settings=asdict(self.settings), card=card)
        tensors = network_tensors(self.network, prefix="network.")
        return save(folder, tensors, manifest, licence=licence)

    @staticmethod
    def load(bundle: Path, *, device: str = "cpu") -> tuple[TrackModel, dict[str, Any]]:
        """Load a bundle folder.

        Raises:
            MedrlError: If it is not a tracking bundle of this version, or damaged.
        """
        from medrl.bundles import assemble, read_model, settings_from

        manifest, tensors = read_model(bundle, task=TASK)
        settings = settings_from(ModelSettings, manifest["settings"])
        network = assemble(settings.build_network, tensors, source=bundle, prefix="network.")
        return TrackModel(settings, network.to(device)), dict(manifest)
