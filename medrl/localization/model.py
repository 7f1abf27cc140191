"""A trained set of box agents, and how it is stored in a bundle."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import expit
from torch import Tensor

from medrl.evaluation import LogisticRegression
from medrl.localization.dynamics import BoxDynamics, View
from medrl.localization.layout import Layout
from medrl.localization.network import BoxNetwork, Proposer
from medrl.nets.familiarity import Familiarity
from medrl.volume.channels import Channel
from medrl.volume.prepare import Preprocessing
from medrl.volume.pyramid import Pyramid, level_strides

if TYPE_CHECKING:
    from medrl.bundles import Guard

Array = NDArray[np.float64]


@dataclass(frozen=True)
class ModelSettings:
    """Everything that must be known to run the networks.

    Attributes:
        spacings: Voxel sizes of the pyramid in mm, finest first; the proposer looks at the second.
        view: What agents see, and how they move.
        steps: Actions that an agent may take in a scan before it looks again at what it has found.
            More than one has not made boxes better anywhere (``benchmarks/localization_accuracy``),
            so one it is; training has ``view.max_steps``.
        widths: Channels of the convolutions of the network that walks.
        features: Width of its shared layer.
        dueling: Dueling heads.
        proposer: Channels of the proposer's convolutions, finest first.
        modality: ``MR``, ``CT`` or ``any``.
        preprocessing: The chain before the pyramid.
    """

    spacings: tuple[float, ...] = (2.0, 4.0, 8.0)
    view: View = field(default_factory=View)
    steps: int = 1
    widths: tuple[int, ...] = (16, 32, 64)
    features: int = 256
    dueling: bool = True
    proposer: tuple[int, ...] = (16, 32, 64, 96)
    modality: str = "any"
    preprocessing: Preprocessing = field(default_factory=Preprocessing)

    @property
    def proposal_level(self) -> int:
        """Pyramid level that the proposer looks at."""
        return 1

    @property
    def channels(self) -> tuple[Channel, ...]:
        """The images that it looks at, by name; none where it is one of any kind."""
        return self.preprocessing.channels

    @property
    def strides(self) -> tuple[int, ...]:
        """Voxels of the finest level per voxel of each."""
        return level_strides(self.spacings)

    def build_network(self, targets: int) -> BoxNetwork:
        """The network that walks, untrained."""
        return BoxNetwork(
            targets=targets,
            view=self.view,
            channels=max(1, len(self.channels)),
            widths=self.widths,
            features=self.features,
            dueling=self.dueling,
        )

    def build_proposer(self, targets: int) -> Proposer:
        """The network that looks at the whole scan, untrained."""
        channels = max(1, len(self.channels))
        return Proposer(targets=targets, channels=channels, widths=self.proposer)


@dataclass(frozen=True, eq=False)
class BoxModel:
    """Networks with what belongs to them.

    Attributes:
        names: Targets, in the order of the heads.
        settings: How to run it.
        network: What walks, in evaluation mode.
        proposer: What says where to begin, in evaluation mode.
        layout: How the targets lie relative to each other.
        plausible: Probability that a candidate is right, by what agents see there; None before
            calibration, when the heatmap alone decides.
        confidence: Probability that a box is good, and that it is there; None before calibration.
        guard: What the training scans were like; None if nobody has measured them.
        kinds: Targets that there may be several of.
        familiarity: What the network's encoders see in boxes of each target in training; None
            likewise.
    """

    names: tuple[str, ...]
    settings: ModelSettings
    network: BoxNetwork
    proposer: Proposer
    layout: Layout
    plausible: LogisticRegression | None = None
    confidence: LogisticRegression | None = None
    guard: Guard | None = None
    kinds: tuple[str, ...] = ()
    familiarity: Familiarity | None = None

    def judge(self, features: Array) -> Array:
        """Probability (C,) of candidates with features (C, F), their heat the first."""
        return expit(features[:, 0]) if self.plausible is None else self.plausible(features)

    def dynamics(self, scans: Sequence[Pyramid]) -> BoxDynamics:
        """What the agents of this model live in, in some scans of its spacings."""
        view = replace(self.settings.view, max_steps=self.settings.steps)
        return BoxDynamics(scans, targets=len(self.names), view=view)

    def save(self, folder: Path, *, name: str, card: Mapping[str, Any]) -> Path:
        """Write the model as a bundle; returns its folder."""
        from medrl.bundles import new_manifest, save

        manifest = new_manifest(
            name=name,
            task="localization",
            settings=asdict(self.settings),
            card=card,
            guard=self.guard,
        )
        manifest["targets"] = list(self.names)
        if self.kinds:
            manifest["kinds"] = list(self.kinds)
        return save(folder, self.tensors(), manifest)

    def tensors(self) -> dict[str, Tensor]:
        """Everything learned, by name, as stored in ``model.safetensors``."""
        from medrl.bundles import network_tensors

        out = network_tensors(self.network, prefix="walker.")
        out |= network_tensors(self.proposer, prefix="proposer.")
        out |= self.layout.tensors()
        if self.familiarity is not None:
            out |= self.familiarity.tensors()
        for part in ("plausible", "confidence"):
            if (fitted := getattr(self, part)) is not None:
                for name, value in asdict(fitted).items():
                    out[f"{part}.{name}"] = torch.as_tensor(value).float().reshape(-1)
        return out

    @staticmethod
    def load(bundle: Path, *, device: str = "cpu") -> tuple[BoxModel, dict[str, Any]]:
        """Load a bundle folder.

        Raises:
            MedrlError: If it is not a localization bundle of this version, or damaged.
        """
        from medrl.bundles import (
            assemble,
            check_names,
            damaged,
            guard_of,
            read_model,
            settings_from,
        )

        manifest, tensors = read_model(bundle, task="localization")
        settings = settings_from(ModelSettings, manifest["settings"])
        names = check_names(manifest, "targets", source=str(bundle))
        count = len(names)
        kinds = check_names(manifest, "kinds", source=str(bundle)) if manifest.get("kinds") else ()
        network = assemble(
            partial(settings.build_network, count), tensors, source=bundle, prefix="walker."
        )
        proposer = assemble(
            partial(settings.build_proposer, count), tensors, source=bundle, prefix="proposer."
        )
        with damaged("the model's layout, confidence or familiarity is damaged"):
            familiarity = Familiarity.from_tensors(tensors)
            layout = Layout.from_tensors(tensors)
            plausible, confidence = (_fitted(tensors, part) for part in ("plausible", "confidence"))
        model = BoxModel(
            names,
            settings,
            network.to(device),
            proposer.to(device),
            layout,
            plausible,
            confidence,
            guard_of(manifest),
            tuple(kinds),
            familiarity,
        )
        return model, dict(manifest)


def _fitted(tensors: Mapping[str, Tensor], part: str) -> LogisticRegression | None:
    if f"{part}.weights" not in tensors:
        return None
    center, scale, weights, bias = (
        tensors[f"{part}.{name}"].double().numpy()
        for name in ("center", "scale", "weights", "bias")
    )
    return LogisticRegression(center, scale, weights, float(bias[0]))
