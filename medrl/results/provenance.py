"""What made a result."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import medrl
from medrl.files import printable

if TYPE_CHECKING:
    from monai.data.meta_tensor import MetaTensor


def file_of(scan: MetaTensor) -> str:
    """The file that a scan was read from, as text; empty if none is known."""
    return printable(str(scan.meta.get("filename_or_obj") or ""))


def provenance(
    manifest: Mapping[str, Any], *scans: MetaTensor, seed: int = 0, **more: str | int | float
) -> dict[str, str | int | float]:
    """What every result says of its making.

    Args:
        manifest: The bundle's ``model.json``.
        scans: What was looked at; the first is the one whose world positions are in.
        seed: Of whatever was drawn at random; 0 if nothing was.
        more: What else is worth knowing, by name.

    Returns:
        scan, model, version (of medrl), seed, and more.
    """
    return {
        "scan": ", ".join(filter(None, map(file_of, scans))),
        "model": str(manifest.get("name", "")),
        "version": medrl.__version__,
        "seed": seed,
        **more,
    }
