"""Models that are loaded once for all widgets."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from medrl import systems


@lru_cache(maxsize=8)
def load_model(name_or_dir: str) -> Any:
    """The predictor of a model of any system, loaded once for all that use it in this process.

    Args:
        name_or_dir: Of a model that ships, or a bundle folder.

    Raises:
        MedrlError: If there is no such model, it is damaged, or its system is not installed.
    """
    return systems.load(name_or_dir)
