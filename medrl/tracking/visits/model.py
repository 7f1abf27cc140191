"""What following points needs to know, and how it is stored in a bundle."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from medrl.errors import MedrlError
from medrl.evaluation import LogisticRegression
from medrl.tracking.visits.dynamics import View
from medrl.tracking.visits.policy import Coupling, JointDescent

#: What the model's settings call this kind of tracking model.
KIND = "visits"


@dataclass(frozen=True)
class VisitSettings:
    """How points are followed.

    Attributes:
        kind: :data:`KIND`.
        spacings: Voxel sizes of the pyramids in mm, finest first.
        view: What agents see.
        coupling: How a team decides.
        neighbours: How many neighbours an agent hears.
        support: Support points at most.
        reach_mm: How far from the points asked support is looked for.
    """

    kind: str = KIND
    spacings: tuple[float, ...] = (1.5, 3.0, 6.0)
    view: View = field(default_factory=View)
    coupling: Coupling = field(default_factory=Coupling)
    neighbours: int = 20
    support: int = 400
    reach_mm: float = 40.0


@dataclass(frozen=True, eq=False)
class VisitModel:
    """Settings and what was fitted.

    Attributes:
        settings: How points are followed.
        confidence: Probability that a point is found within 5 mm, by
            :data:`medrl.tracking.visits.walk.FEATURES`; None before it was fitted.
    """

    settings: VisitSettings = field(default_factory=VisitSettings)
    confidence: LogisticRegression | None = None

    def policy(self) -> JointDescent:
        """What decides."""
        return JointDescent(self.settings.coupling)

    def tensors(self) -> dict[str, Tensor]:
        """Everything fitted, by name, as stored in ``model.safetensors``."""
        if self.confidence is None:
            return {}
        return {
            f"confidence.{name}": torch.as_tensor(value).float().reshape(-1)
            for name, value in asdict(self.confidence).items()
        }

    def save(
        self, folder: Path, *, name: str, card: Mapping[str, Any], licence: str | None = None
    ) -> Path:
        """Write the model as a bundle; returns its folder."""
        from medrl.bundles import new_manifest, save

        manifest = new_manifest(
            name=name, task="tracking", settings=asdict(self.settings), card=card
        )
        return save(folder, self.tensors(), manifest, licence=licence)

    @staticmethod
    def load(bundle: Path) -> tuple[VisitModel, dict[str, Any]]:
        """Load a bundle folder.

        Raises:
            MedrlError: If it is not a tracking bundle of this kind, or damaged.
        """
        from medrl.bundles import damaged, read_model, settings_from

        manifest, tensors = read_model(bundle, task="tracking")
        if manifest["settings"].get("kind") != KIND:
            raise MedrlError(f"{bundle} does not follow points through visits: it tracks objects")
        settings = settings_from(VisitSettings, manifest["settings"])
        with damaged("the model's confidence is damaged"):
            confidence = _fitted(tensors)
        return VisitModel(settings, confidence), dict(manifest)


def _fitted(tensors: Mapping[str, Tensor]) -> LogisticRegression | None:
    if "confidence.weights" not in tensors:
        return None
    center, scale, weights, bias = (
        tensors[f"confidence.{name}"].double().numpy()
        for name in ("center", "scale", "weights", "bias")
    )
    return LogisticRegression(center, scale, weights, float(bias[0]))
