"""A trained set of landmark agents, and how it is stored in a bundle."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from medrl.errors import MedrlError
from medrl.landmark.confidence import Confidence
from medrl.landmark.dynamics import SearchDynamics
from medrl.landmark.frame import Frame
from medrl.landmark.judging import judged_by, judging_tensors
from medrl.landmark.network import LandmarkNetwork
from medrl.landmark.parts.network import FineNetwork
from medrl.landmark.shape import ShapePrior
from medrl.nets.familiarity import Familiarity
from medrl.volume.prepare import Preprocessing
from medrl.volume.pyramid import Pyramid, level_strides

if TYPE_CHECKING:
    from medrl.bundles import Guard
    from medrl.landmark.inference import Inference

#: Of bundles that do not say it.
_NOISE = torch.tensor([1.5])


@dataclass(frozen=True)
class ModelSettings:
    """Everything that must be known to run the networks.

    Attributes:
        spacings: Voxel size of every scale in mm, finest first.
        window: Side of the windows in voxels.
        channels: Channels of the convolutions.
        features: Width of the shared layer.
        dueling: Dueling heads.
        max_steps: Steps allowed on one scale.
        margin_mm: How far an agent may leave the scan.
        modality: ``MR``, ``CT`` or ``any``; a scan that plainly is the other is refused.
        preprocessing: The chain before the pyramid.
    """

    spacings: tuple[float, ...] = (2.0, 4.0, 8.0)
    window: int = 25
    channels: tuple[int, ...] = (16, 32, 64)
    features: int = 256
    dueling: bool = True
    max_steps: int = 48
    margin_mm: float = 32.0
    modality: str = "any"
    preprocessing: Preprocessing = field(default_factory=Preprocessing)

    def build_network(self, landmarks: int) -> LandmarkNetwork:
        """A network of these settings, untrained, with a head for each landmark."""
        return LandmarkNetwork(
            landmarks=landmarks,
            window=self.window,
            channels=self.channels,
            features=self.features,
            dueling=self.dueling,
        )

    @property
    def good_mm(self) -> float:
        """Answers that are off by less than this, two voxels of the finest scale, are good."""
        return 2 * self.spacings[0]

    @staticmethod
    def from_json(values: Mapping[str, Any]) -> ModelSettings:
        """Read what :func:`dataclasses.asdict` wrote.

        Raises:
            MedrlError: If a setting is missing or unknown.
        """
        from medrl.bundles import settings_from

        settings = settings_from(ModelSettings, values)
        if not settings.spacings or min(settings.spacings) <= 0:
            raise MedrlError("the model's settings name no voxel sizes")
        level_strides(settings.spacings)
        return settings


@dataclass(frozen=True, eq=False)
class LandmarkModel:
    """Networks of all scales with the shape prior and the confidence that belong to them.

    Attributes:
        names: Landmarks, in the order of the heads.
        settings: How to run it.
        networks: One per scale, finest first, in evaluation mode.
        shape: Prior over the landmark set; None for a model without one.
        fine: The map of the finest scale of a part detector, which looks once more where agents
            end; None for a model without one.
        confidence: Calibrated confidence; None before calibration.
        guard: What the training scans were like; None if nobody has measured them.
        familiarity: What the finest network saw around each landmark in training; None likewise.
        frame: How scans are laid straight, and where agents start then; None for a model whose
            agents search scans as they lie, from their centres.
    """

    names: tuple[str, ...]
    settings: ModelSettings
    networks: tuple[LandmarkNetwork, ...]
    shape: ShapePrior | None = None
    fine: FineNetwork | None = None
    confidence: Confidence | None = None
    guard: Guard | None = None
    familiarity: Familiarity | None = None
    frame: Frame | None = None

    def dynamics(self, scans: Sequence[Pyramid]) -> SearchDynamics:
        """What the agents of this model live in, in some scans of its spacings."""
        return SearchDynamics(
            scans,
            landmarks=len(self.names),
            window=self.settings.window,
            max_steps=self.settings.max_steps,
            margin=round(self.settings.margin_mm / self.settings.spacings[0]),
        )

    def inference(self, *, name: str) -> Inference:
        """What sends agents through scans; `name` is for errors."""
        from medrl.landmark.inference import Inference

        return Inference(self, name=name)

    def tensors(self) -> dict[str, Tensor]:
        """Everything learned, by name, as stored in ``model.safetensors``."""
        from medrl.bundles import network_tensors

        out: dict[str, Tensor] = {}
        for level, network in enumerate(self.networks):
            out |= network_tensors(network, prefix=f"scale{level}.")
        if self.shape is not None:
            out["shape.mean"] = torch.from_numpy(self.shape.mean).float()
            out["shape.covariance"] = torch.from_numpy(self.shape.covariance).float()
            out["shape.limit"] = torch.tensor([self.shape.limit])
            out["shape.noise"] = torch.tensor([self.shape.noise_mm])
        if self.fine is not None:
            out |= network_tensors(self.fine, prefix="fine.")
        return out | judging_tensors(self)

    @staticmethod
    def from_tensors(
        names: tuple[str, ...],
        settings: ModelSettings,
        tensors: Mapping[str, Tensor],
        *,
        device: str = "cpu",
    ) -> LandmarkModel:
        """Rebuild a model from what :meth:`tensors` returned.

        Raises:
            MedrlError: If tensors are missing or of the wrong shape.
        """
        from medrl.bundles import assemble, damaged

        networks = []
        for level in range(len(settings.spacings)):
            make = partial(settings.build_network, len(names))
            source = f"the model (scale {level})"
            network = assemble(make, tensors, source=source, prefix=f"scale{level}.")
            networks.append(network.to(device))
        fine = None
        if any(name.startswith("fine.") for name in tensors):
            make_fine = partial(FineNetwork, len(names))
            source = "the model (fine map)"
            fine = assemble(make_fine, tensors, source=source, prefix="fine.").to(device)
        shape = None
        with damaged("the model's shape prior is damaged"):
            if "shape.mean" in tensors:
                shape = ShapePrior(
                    tensors["shape.mean"].double().numpy(),
                    tensors["shape.covariance"].double().numpy(),
                    float(tensors["shape.limit"][0]),
                    float(tensors.get("shape.noise", _NOISE)[0]),
                )
        known = judged_by(tensors, settings)
        return LandmarkModel(names, settings, tuple(networks), shape, fine, **known)
