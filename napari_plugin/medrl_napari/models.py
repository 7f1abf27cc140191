"""Models that are loaded once for all widgets."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from medrl import systems
from medrl.bundles import find, guard_of, not_made_for, read_manifest
from medrl.errors import MedrlError

if TYPE_CHECKING:
    from monai.data.meta_tensor import MetaTensor

    from medrl.bundles.manifest import Manifest


@lru_cache(maxsize=8)
def load_model(name_or_dir: str, *, system: str | None = None) -> Any:
    """The predictor of a model of any system, loaded once for all that use it in this process.

    Args:
        name_or_dir: Of a model that ships, or a bundle folder.
        system: Which puts it to use; its own if left out.

    Raises:
        MedrlError: If there is no such model, it is damaged, or its system is not installed.
    """
    own, folder = systems.of_model(name_or_dir)
    return (own if system is None else systems.get(system)).load(folder)


def manifest_of(name_or_dir: str, *, task: str, lacks: str) -> Manifest:
    """What is known of a model of a system, without loading it.

    Args:
        name_or_dir: Of a model that ships, or a bundle folder.
        task: The system.
        lacks: What models of other systems do not do.

    Raises:
        MedrlError: If there is no such model, or it is of another system.
    """
    folder = find(name_or_dir)
    manifest = read_manifest(folder)
    if manifest["task"] != task:
        raise MedrlError(f"{folder.name} is a {manifest['task']} model: it {lacks}")
    return manifest


def doubt_of(name_or_dir: str, images: Mapping[str, MetaTensor]) -> str | None:
    """Why a model was not made for images, in one line; None if nothing speaks against it.

    Args:
        name_or_dir: Of a model that ships, or a bundle folder.
        images: By channel.
    """
    try:
        manifest = read_manifest(find(name_or_dir))
        guard = guard_of(manifest)
        if guard is None:
            return None
        known = {training.channel for training in guard.scans}
        reasons = [
            line
            for name, scan in images.items()
            for line in guard.reasons(scan, channel=name if name in known else None)
        ]
    except MedrlError:
        return None  # whoever uses the model will hear of it
    return not_made_for(manifest["name"], reasons) if reasons else None
