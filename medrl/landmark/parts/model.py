"""A trained part detector, and how it is stored in a bundle."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor

from medrl.errors import MedrlError
from medrl.landmark.confidence import Confidence
from medrl.landmark.frame import Frame
from medrl.landmark.judging import judged_by, judging_tensors
from medrl.landmark.parts.network import FineNetwork, PartNetwork, SpatialModel
from medrl.nets.familiarity import Familiarity
from medrl.volume.prepare import Preprocessing
from medrl.volume.pyramid import level_strides

if TYPE_CHECKING:
    from medrl.bundles import Guard
    from medrl.landmark.learner import LearnerSettings
    from medrl.landmark.parts.inference import PartInference


@dataclass(frozen=True)
class PartSettings:
    """Everything that must be known to run the networks.

    Attributes:
        spacings: Voxel size of every scale in mm, finest first: of the fine map, the finer of the
            two resolutions of the detector, and the coarse map.
        window: Side of the windows of the fine map, voxels.
        channels: Of the detector, see :class:`PartNetwork`.
        modality: ``MR``, ``CT`` or ``any``; a scan that plainly is the other is refused.
        preprocessing: The chain before the pyramid.
        detector: Tells these settings from those of agents.
    """

    spacings: tuple[float, ...] = (2.0, 4.0, 8.0)
    window: int = 25
    channels: tuple[int, int, int] = (16, 32, 48)
    modality: str = "any"
    preprocessing: Preprocessing = field(default_factory=Preprocessing)
    detector: Literal["parts"] = "parts"

    @staticmethod
    def of(learner: LearnerSettings, *, modality: str = "any") -> PartSettings:
        """Settings of the model that a training makes.

        Raises:
            MedrlError: If there are fewer than two scales, or the coarsest is not twice the next.
        """
        made = learner.model_settings(modality=modality)
        strides = level_strides(learner.spacings)
        if len(strides) < 2 or strides[-1] != 2 * strides[-2]:
            raise MedrlError("a part detector's coarsest scale must be twice the next one")
        return PartSettings(
            spacings=learner.spacings,
            window=learner.window,
            modality=modality,
            preprocessing=made.preprocessing,
        )

    @property
    def good_mm(self) -> float:
        """Answers that are off by less than this, two voxels of the finest scale, are good."""
        return 2 * self.spacings[0]

    def build_detector(self, landmarks: int) -> PartNetwork:
        """The detector of coarse maps, untrained."""
        return PartNetwork(landmarks, channels=self.channels)

    def build_spatial(self, displacement: Tensor, spread: Tensor) -> SpatialModel:
        """The spatial model that displacements (K, K, 3) in voxels of the coarse map begin."""
        return SpatialModel(displacement, spread)


@dataclass(frozen=True, eq=False)
class PartModel:
    """Networks of a part detector with the confidence that belongs to them.

    Attributes:
        names: Landmarks, in the order of the maps.
        settings: How to run it.
        detector: Coarse maps.
        fine: The fine map.
        spatial: What the coarse maps say of each other; None if they are taken as they are.
        confidence: Calibrated confidence; None before calibration.
        guard: What the training scans were like; None if nobody has measured them.
        familiarity: None: a part detector has no encoder whose features are looked at.
        frame: How scans are laid straight; None for a model that takes them as they lie.
    """

    names: tuple[str, ...]
    settings: PartSettings
    detector: PartNetwork
    fine: FineNetwork
    spatial: SpatialModel | None = None
    confidence: Confidence | None = None
    guard: Guard | None = None
    familiarity: Familiarity | None = None
    frame: Frame | None = None

    def inference(self, *, name: str) -> PartInference:
        """What finds landmarks by this model; `name` is for errors."""
        from medrl.landmark.parts.inference import PartInference

        return PartInference(self, name=name)

    def tensors(self) -> dict[str, Tensor]:
        """Everything learned, by name, as stored in ``model.safetensors``."""
        from medrl.bundles import network_tensors

        out = judging_tensors(self)
        networks = {"detector": self.detector, "spatial": self.spatial, "fine": self.fine}
        for part, network in networks.items():
            if network is not None:
                out |= network_tensors(network, prefix=f"{part}.")
        return out

    @staticmethod
    def from_tensors(
        names: tuple[str, ...],
        settings: PartSettings,
        tensors: Mapping[str, Tensor],
        *,
        device: str = "cpu",
    ) -> PartModel:
        """Rebuild a model from what :meth:`tensors` returned.

        Raises:
            MedrlError: If tensors are missing or of the wrong shape.
        """
        from medrl.bundles import assemble

        count = len(names)
        nothing = torch.zeros((count, count, 3))
        makers: dict[str, Any] = {
            "detector": partial(settings.build_detector, count),
            "spatial": partial(settings.build_spatial, nothing, nothing + 1),
            "fine": partial(FineNetwork, count),
        }
        networks = {
            part: assemble(make, tensors, source=f"the model ({part})", prefix=f"{part}.").to(
                device
            )
            for part, make in makers.items()
        }
        known = judged_by(tensors, settings)
        return PartModel(names, settings, **networks, **known)
