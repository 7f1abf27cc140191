"""What landmark models of every kind have beside their networks; storing and loading them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import torch
from torch import Tensor

from medrl.landmark.confidence import Confidence
from medrl.landmark.frame import Frame
from medrl.nets.familiarity import Familiarity

if TYPE_CHECKING:
    from medrl.landmark.model import LandmarkModel, ModelSettings
    from medrl.landmark.parts.model import PartModel, PartSettings

#: Agents, or a part detector.
Model: TypeAlias = "LandmarkModel | PartModel"


def judging_tensors(model: Model) -> dict[str, Tensor]:
    """Confidence, familiarity and frame of a model, as stored in ``model.safetensors``."""
    out: dict[str, Tensor] = {}
    if model.confidence is not None:
        for name, value in asdict(model.confidence).items():
            out[f"confidence.{name}"] = torch.as_tensor(np.atleast_1d(value)).float()
    if model.familiarity is not None:
        out |= model.familiarity.tensors()
    if model.frame is not None:
        out |= model.frame.tensors()
    return out


def judged_by(
    tensors: Mapping[str, Tensor], settings: ModelSettings | PartSettings
) -> dict[str, Any]:
    """Read what :func:`judging_tensors` gave: fields of a model.

    Raises:
        MedrlError: If a tensor is missing or of the wrong shape.
    """
    from medrl.bundles import damaged

    with damaged("the model's confidence, familiarity or pose is damaged"):
        confidence = None
        if "confidence.weights" in tensors:
            center, scale, weights, bias = (
                tensors[f"confidence.{name}"].double().numpy()
                for name in ("center", "scale", "weights", "bias")
            )
            confidence = Confidence(center, scale, weights, float(bias[0]), settings.good_mm)
        return {
            "confidence": confidence,
            "familiarity": Familiarity.from_tensors(tensors),
            "frame": Frame.from_tensors(tensors, spacing=settings.spacings[0]),
        }


def save_model(model: Model, folder: Path, *, name: str, card: Mapping[str, Any]) -> Path:
    """Write a model as a bundle.

    Args:
        model: The model.
        folder: The bundle's folder.
        name: Its name.
        card: Its model card: what users should know of data, licence and limits.

    Returns:
        The folder.
    """
    from medrl.bundles import new_manifest, save

    manifest = new_manifest(
        name=name, task="landmark", settings=asdict(model.settings), card=card, guard=model.guard
    )
    manifest["landmarks"] = list(model.names)
    return save(folder, model.tensors(), manifest)


def load_model(bundle: Path, *, device: str = "cpu") -> tuple[Model, dict[str, Any]]:
    """Load a bundle folder.

    Args:
        bundle: Folder with ``model.json`` and ``model.safetensors``.
        device: Torch device.

    Returns:
        The model, of agents or a part detector, and its manifest.

    Raises:
        MedrlError: If it is not a landmark bundle of this version, or damaged.
    """
    from medrl.bundles import check_names, guard_of, read_model, settings_from
    from medrl.landmark.model import LandmarkModel, ModelSettings
    from medrl.landmark.parts.model import PartModel, PartSettings

    manifest, tensors = read_model(bundle, task="landmark")
    names = check_names(manifest, "landmarks", source=str(bundle))
    model: Model
    if manifest["settings"].get("detector") == "parts":
        made = settings_from(PartSettings, manifest["settings"])
        model = PartModel.from_tensors(names, made, tensors, device=device)
    else:
        settings = ModelSettings.from_json(manifest["settings"])
        model = LandmarkModel.from_tensors(names, settings, tensors, device=device)
    return replace(model, guard=guard_of(manifest)), dict(manifest)
