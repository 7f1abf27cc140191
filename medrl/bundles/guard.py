"""What a model was trained on, as far as it can be measured on a scan, and what is unlike it.

A guard is stored in ``model.json`` beside the settings, so that it is read without any weights:
``guard_of(read_manifest(folder))``. A model that was trained before there were guards has none.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from medrl.bundles.build import settings_from

if TYPE_CHECKING:
    from monai.data.meta_tensor import MetaTensor


@dataclass(frozen=True)
class Limit:
    """Between what a measure of a scan lay in training.

    Attributes:
        measure: What is measured.
        low: Lowest value that is no reason for doubt.
        high: Highest such value.
    """

    measure: str
    low: float
    high: float


@dataclass(frozen=True)
class Training:
    """What the training scans of one channel were like.

    Attributes:
        channel: Name of the model's channel; empty for a model that looks at one kind of scan.
        limits: Of what is measured.
    """

    channel: str
    limits: tuple[Limit, ...]


@dataclass(frozen=True)
class Guard:
    """What is to be known of a model's training to doubt its answers on a scan unlike that.

    Attributes:
        scans: Of each of the model's channels.
    """

    scans: tuple[Training, ...]

    def reasons(self, scan: MetaTensor, *, channel: str | None = None) -> tuple[str, ...]:
        """Why a model was not made for a scan, in plain words with what is measured and allowed.

        Args:
            scan: MetaTensor (1, I, J, K) with its voxel-to-world affine (RAS mm).
            channel: Which of the model's channels it is; the one that it fits best if None.

        Returns:
            One line each, the plainest first; none if nothing speaks against it.
        """
        return ()


def guard_of(manifest: Mapping[str, Any]) -> Guard | None:
    """The guard of a model, from its ``model.json``; None if it has none.

    Raises:
        MedrlError: If it is damaged.
    """
    content = manifest.get("guard")
    return None if content is None else settings_from(Guard, content)
