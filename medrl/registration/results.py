"""What a registration leaves on disk: files that 3D Slicer, ITK and others open, and a report."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from monai.data.meta_tensor import MetaTensor

from medrl.registration.checks import name_of, overlap
from medrl.results.artifacts import File, picture_file, trajectory_file, write_files
from medrl.volume.read import write_nifti
from medrl.volume.resample import move_scan
from medrl.volume.similarity import overlap_information
from medrl.volume.space import apply_affine, as_transform, voxel_to_world
from medrl.volume.transform_files import write_transform
from medrl.volume.transform_forms import Form

if TYPE_CHECKING:
    from medrl.registration.register import Registration

#: Forms in which a transform can be had besides ITK's and the matrix.
Also = Literal["ants", "fsl", "lta"]
_ALSO: dict[str, str] = {"ants": ".ants.mat", "fsl": ".fsl.mat", "lta": ".lta"}


def registration_report(
    registration: Registration, *, before: MetaTensor, after: MetaTensor
) -> dict[str, Any]:
    """What there is to say of a registration.

    Args:
        registration: Of two scans.
        before: The moving scan on the fixed grid, not moved.
        after: The moving scan on the fixed grid, moved.

    Returns:
        Ready for JSON: names of the scans, kind, matrices (fixed to moving, RAS mm), turn_deg and
        shift_mm of the fixed scan's middle, whether it was refined, confidence, trusted,
        predicted_error_mm, overlap, and normalised mutual information before and after, where the
        scans overlap (None where they do not); the model, warnings and seconds.
    """
    fixed, moving = registration.fixed, registration.moving
    matrix = as_transform(registration.transform_world)
    left, _, right = np.linalg.svd(matrix[:3, :3])
    cosine = (np.trace(left @ right) - 1) / 2
    middle = voxel_to_world((np.array(fixed.shape[1:]) - 1) / 2, fixed.affine)
    information = {
        name: overlap_information(fixed, moving, moved, transform)
        for name, moved, transform in (
            ("nmi_before", before, np.eye(4)),
            ("nmi_after", after, matrix),
        )
    }
    return {
        "fixed": name_of(fixed, "fixed scan"),
        "moving": name_of(moving, "moving scan"),
        "transform": registration.kind,
        "maps": "fixed world (RAS mm) to moving world (RAS mm)",
        "transform_world": matrix.tolist(),
        "inverse_world": np.linalg.inv(matrix).tolist(),
        "agent_transform_world": as_transform(registration.agent_transform_world).tolist(),
        "refined": bool(registration.refined),
        "turn_deg": math.degrees(math.acos(float(np.clip(cosine, -1, 1)))),
        "shift_mm": float(np.linalg.norm(apply_affine(matrix, middle) - middle)),
        "confidence": _finite(registration.confidence),
        "trusted": bool(registration.trusted),
        "predicted_error_mm": _finite(registration.predicted_error_mm),
        "overlap": overlap(fixed, moving, matrix),
        **information,
        "model": registration.trajectory.provenance["model"],
        "warnings": list(registration.warnings),
        "seconds": round(registration.seconds, 3),
    }


def moved_scans(registration: Registration) -> tuple[MetaTensor, MetaTensor]:
    """The moving scan on the fixed grid, not moved and moved."""
    matrix = as_transform(registration.transform_world)
    before, after = (
        move_scan(registration.moving, transform, registration.fixed)
        for transform in (np.eye(4), matrix)
    )
    return before, after


def write_results(
    folder: Path,
    stem: str,
    registration: Registration,
    *,
    also: Sequence[Also] = (),
    picture: bool = True,
) -> tuple[dict[str, Path], dict[str, Any]]:
    """Write everything there is to keep of one registration, all of it or nothing.

    ``<stem>.tfm`` is the ITK transform, ``<stem>.matrix.txt`` the 4x4 world matrix,
    ``<stem>.nii.gz`` the moving scan on the fixed grid, ``<stem>.trajectory.json`` every transform
    that the agent passed, ``<stem>.report.json`` the report, ``<stem>.before-after.png`` and
    ``<stem>.checkerboard.png`` pictures on the fixed grid, ``<stem>.ants.mat``, ``<stem>.fsl.mat``
    and ``<stem>.lta`` the transform in other forms.

    Args:
        folder: Existing folder.
        stem: What the files are called.
        registration: Of two scans.
        also: Other forms of the transform.
        picture: Draw the pictures.

    Returns:
        Paths by kind: transform, matrix, scan, trajectory, report, ants, fsl, lta, before-after,
        checkerboard; and what the report says.

    Raises:
        MedrlError: If they cannot be written, or a form needs a package that is not installed.
    """
    fixed, moving = registration.fixed, registration.moving
    matrix = as_transform(registration.transform_world)
    before, after = moved_scans(registration)
    report = registration_report(registration, before=before, after=after)
    text = json.dumps(report, indent=1, allow_nan=False) + "\n"

    def transform_to(form: Form) -> Callable[[Path], None]:
        return lambda path: write_transform(
            path, matrix, form=form, kind=registration.kind, fixed=fixed, moving=moving
        )

    files: dict[str, File] = {
        "transform": (".tfm", transform_to("itk")),
        "matrix": (".matrix.txt", transform_to("matrix")),
        "scan": (".nii.gz", lambda path: write_nifti(path, after)),
        "trajectory": trajectory_file(registration.trajectory),
        "report": (".report.json", lambda path: path.write_text(text, encoding="utf-8")),
        **{form: (_ALSO[form], transform_to(form)) for form in also},
    }
    if picture:
        from medrl.registration.picture import draw_before_after, draw_checkerboard

        both = {"report": report, "title": stem}
        files["before-after"] = picture_file(
            ".before-after.png", draw_before_after, fixed, before, after, **both
        )
        files["checkerboard"] = picture_file(
            ".checkerboard.png", draw_checkerboard, fixed, after, **both
        )
    return write_files(folder, stem, files), report


def remarks(fixed: MetaTensor, moving: MetaTensor, *, started: bool) -> list[str]:
    """What a user should know of two scans that are registered.

    Args:
        fixed: MetaTensor (1, I, J, K), with what its reader had to remark.
        moving: Likewise.
        started: Whether the search began at a transform that was given.
    """
    names = [name_of(fixed, "fixed scan"), name_of(moving, "moving scan")]
    found = [
        f"{name}: {remark}"
        for name, scan in zip(names, (fixed, moving), strict=True)
        for remark in scan.meta.get("remarks", ())
    ]
    if not started and overlap(fixed, moving, np.eye(4)) == 0:
        found.append(
            f"{names[1]}: does not overlap {names[0]} in world coordinates; the search began "
            "where their middles meet"
        )
    return found


def _finite(value: float | None) -> float | None:
    return float(value) if value is not None and math.isfinite(value) else None
