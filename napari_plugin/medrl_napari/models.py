"""Models that are loaded once for all widgets."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from medrl import systems


@lru_cache(maxsize=8)
def load_predictor(name_or_dir: str) -> Any:
    """Load the predictor of a model of any system once, for all that use it in this process.

    Args:
        name_or_dir: Of a model that ships, or a bundle folder.

    Raises:
        MedrlError: If there is no such model, it is damaged, or its system is not installed.
    """
    return systems.load(name_or_dir)


@lru_cache(maxsize=8)
def load_model(system: str, name_or_dir: str) -> Any:
    """Load a model once, for all that use it in this process.

    Args:
        system: ``landmark``, ``seednet`` or ``registration``.
        name_or_dir: Of a model that ships, or a bundle folder.

    Returns:
        A `LandmarkDetector`, a pair of `SeedModel` and manifest, or a `Registrar`.

    Raises:
        MedrlError: If there is no such model or it is damaged.
    """
    if system == "landmark":
        from medrl.landmark.detect import LandmarkDetector

        return LandmarkDetector.load(name_or_dir)
    if system == "seednet":
        from medrl.bundles import find
        from medrl.seednet.model import SeedModel

        return SeedModel.load(find(name_or_dir))
    from medrl.registration.register import Registrar

    return Registrar.load(name_or_dir)
