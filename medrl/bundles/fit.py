"""Which trained models a scan fits, and why the others do not."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from medrl.bundles.guard import guard_of

if TYPE_CHECKING:
    from monai.data.meta_tensor import MetaTensor


@dataclass(frozen=True)
class Fit:
    """Whether a model was made for scans like one.

    Attributes:
        fits: Whether it was; None if nobody knows.
        reasons: Why it was not, one line each, or why nobody knows.
        channels: Of a model that looks at several images: which of them the scan may be.
    """

    fits: bool | None
    reasons: tuple[str, ...] = ()
    channels: tuple[str, ...] = ()


def fit_of(manifest: Mapping[str, Any], scan: MetaTensor, *, labels: bool = False) -> Fit:
    """Tell whether a model was made for scans like this one.

    Args:
        manifest: The model's ``model.json``.
        scan: MetaTensor (C, I, J, K) with its voxel-to-world affine (RAS mm).
        labels: Whether the scan is a label map or a mask.
    """
    if labels:
        return Fit(False, ("it is a label map; the model looks at scans",))
    if scan.shape[0] != 1:
        return Fit(False, (f"it has {scan.shape[0]} channels or frames; the model looks at one",))
    guard = guard_of(manifest)
    if guard is None:
        return Fit(None, ("the model does not say what it was trained on",))
    names = tuple(training.channel for training in guard.scans)
    if len(names) > 1:
        fitting = tuple(name for name in names if not guard.reasons(scan, channel=name))
        if fitting:
            return Fit(True, channels=fitting)
    reasons = guard.reasons(scan)
    return Fit(not reasons, reasons)
