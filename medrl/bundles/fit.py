"""Which trained models a scan fits, and why the others do not."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from medrl.bundles.guard import Guard, guard_of
from medrl.errors import MedrlError

if TYPE_CHECKING:
    from monai.data.meta_tensor import MetaTensor


@dataclass(frozen=True)
class Fit:
    """Whether a model was made for scans like one, as far as can be told without running it.

    Attributes:
        fits: Whether it was; None if nobody knows.
        reasons: Why it was not, or why nobody knows, one line each.
        channels: Of a model that looks at several images: which of them the scan may be.
    """

    fits: bool | None
    reasons: tuple[str, ...] = ()
    channels: tuple[str, ...] = ()


def fit_of(
    manifest: Mapping[str, Any],
    scan: MetaTensor,
    *,
    labels: bool = False,
    modality: str = "",
    contrast: str = "",
) -> Fit:
    """Tell whether a model was made for scans like this one.

    Args:
        manifest: The model's ``model.json``.
        scan: MetaTensor (C, I, J, K) with its voxel-to-world affine (RAS mm).
        labels: Whether the scan is a label map or a mask.
        modality: What its header or name says that it is, such as ``CT``; empty if nothing.
        contrast: What its name says of its contrast, as BIDS has it, such as ``T2w``; empty if
            nothing.
    """
    if labels:
        return Fit(False, ("it is a label map; the model looks at scans",))
    if scan.shape[0] != 1:
        return Fit(False, (f"it has {scan.shape[0]} channels or frames; the model looks at one",))
    looked_at = _modalities(manifest)
    if modality and looked_at and modality.replace("PT", "PET") not in looked_at:
        seen = " or ".join(sorted(looked_at))
        return Fit(False, (f"modality: it is {modality}; those it was trained on are {seen}",))
    known = manifest["card"].get("contrasts", [])
    if contrast and known and contrast not in known:
        return Fit(
            False,
            (
                f"contrast: its name says {contrast}; those it was trained on are "
                f"{' or '.join(map(str, known))}",
            ),
        )
    try:
        guard = guard_of(manifest)
        if guard is None:
            return Fit(None, ("the model does not say what it was trained on",))
        return _by_guard(guard, scan)
    except MedrlError as error:
        return Fit(False, (str(error),))


def _modalities(manifest: Mapping[str, Any]) -> set[str]:
    """What a model looks at; empty if it does not say."""
    settings = manifest.get("settings", {})
    channels = [one for one in settings.get("channels", ()) if isinstance(one, dict)]
    named = {str(one.get("name")) for one in channels}
    return (named or {str(settings.get("modality", "any"))}) & {"MR", "CT", "PET", "US"}


def _by_guard(guard: Guard, scan: MetaTensor) -> Fit:
    from medrl.volume.appearance import appearance

    if reasons := guard.reasons(scan):
        return Fit(False, reasons)
    fitting = [one for one in guard.scans if not guard.reasons(scan, channel=one.channel)]
    channels = tuple(one.channel for one in fitting) if len(guard.scans) > 1 else ()
    seen = appearance(scan)
    if not any(one.has_contrast_of(seen) for one in fitting):
        doubt = (
            "contrast: things have another brightness than in those it was trained on; only "
            "running it can tell whether that matters"
        )
        return Fit(None, (doubt,), channels)
    return Fit(True, channels=channels)
