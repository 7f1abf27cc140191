"""What a registration leaves on disk: files that 3D Slicer, ITK and others open, and a report."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from monai.data.meta_tensor import MetaTensor
from numpy.typing import ArrayLike, NDArray
from scipy.ndimage import affine_transform

from medrl.files import all_or_nothing
from medrl.registration.checks import name_of, overlap
from medrl.volume.read import write_nifti
from medrl.volume.resample import resample_onto
from medrl.volume.space import apply_affine, as_affine, inside, voxel_to_world
from medrl.volume.transform_files import as_transform, write_transform

if TYPE_CHECKING:
    from medrl.registration.register import Registration

#: Forms in which a transform can be had besides ITK's and the matrix.
Also = Literal["ants", "fsl", "lta"]
_ALSO: dict[str, str] = {"ants": ".ants.mat", "fsl": ".fsl.mat", "lta": ".lta"}
#: Mutual information is taken from about so many voxels, in so many bins of grey.
_SAMPLES, _BINS = 1_000_000, 64


@dataclass(frozen=True, eq=False)
class Results:
    """What was written of one registration.

    Attributes:
        files: Paths by kind: transform, matrix, scan, trajectory, report, ants, fsl, lta,
            before-after, checkerboard.
        report: What the report says, ready for JSON.
    """

    files: dict[str, Path]
    report: dict[str, Any]


def move_scan(
    moving: MetaTensor, transform_world: ArrayLike, onto: MetaTensor, *, nearest: bool = False
) -> MetaTensor:
    """Resample a moving scan onto the grid of the fixed one.

    Args:
        moving: MetaTensor (C, I, J, K).
        transform_world: 4x4 matrix, fixed to moving, RAS mm.
        onto: The fixed scan, of which only the grid matters.
        nearest: Take the nearest voxel, for label maps; otherwise interpolate linearly, after
            smoothing along axes that lose resolution.

    Returns:
        MetaTensor (C, I', J', K') on that grid, float32; outside the moving scan its lowest value,
        of label maps 0.

    Raises:
        MedrlError: If the matrix is no transform or an affine is unusable.
    """
    matrix = as_transform(transform_world)
    source, target = as_affine(moving.affine), as_affine(onto.affine)
    i, j, k = onto.shape[1:]
    if not nearest:
        # In the fixed world the moving scan lies where the inverse brings it.
        there = MetaTensor(moving.as_tensor(), affine=np.linalg.inv(matrix) @ source)
        low = float(moving.as_tensor().min())
        return resample_onto(there, affine=target, shape=(i, j, k), background=low)
    voxel = np.linalg.inv(source) @ matrix @ target
    # The outermost voxels count to their outer faces, as everywhere in medrl.
    channels = [
        affine_transform(channel, voxel, output_shape=(i, j, k), order=0, mode="grid-constant")
        for channel in moving.as_tensor().float().numpy(force=True)
    ]
    return MetaTensor(torch.from_numpy(np.stack(channels)), affine=torch.from_numpy(target))


def normalized_mutual_information(first: ArrayLike, second: ArrayLike) -> float | None:
    """(H(A) + H(B)) / H(A, B) of paired values: 1 if independent, 2 if one tells the other.

    Studholme, Hill and Hawkes, Pattern Recognition 32, 1999. The lowest and the highest thousandth
    of the values count as the ones next to them.

    Args:
        first: Values (N,).
        second: Values (N,).

    Returns:
        From 1 to 2; None if there are no values, or they are all equal.
    """
    values = [np.asarray(v, dtype=np.float64).ravel() for v in (first, second)]
    if not values[0].size:
        return None
    a, b = (np.clip(v, *np.quantile(v, (0.001, 0.999))) for v in values)
    counts = np.histogram2d(a, b, bins=_BINS)[0]
    joint = _entropy(counts)
    if joint == 0:
        return None
    return (_entropy(counts.sum(axis=0)) + _entropy(counts.sum(axis=1))) / joint


def registration_report(
    fixed: MetaTensor,
    moving: MetaTensor,
    registration: Registration,
    *,
    before: MetaTensor,
    after: MetaTensor,
) -> dict[str, Any]:
    """What there is to say of a registration.

    Args:
        fixed: MetaTensor (1, I, J, K).
        moving: MetaTensor (1, I', J', K').
        registration: Of the two.
        before: The moving scan on the fixed grid, not moved.
        after: The moving scan on the fixed grid, moved.

    Returns:
        Ready for JSON: names of the scans, kind, matrices (fixed to moving, RAS mm), turn_deg and
        shift_mm of the fixed scan's middle, whether it was refined, confidence, trusted,
        predicted_error_mm, overlap, and normalised mutual information before and after, where the
        scans overlap (None where they do not).
    """
    matrix = as_transform(registration.transform_world)
    left, _, right = np.linalg.svd(matrix[:3, :3])
    cosine = (np.trace(left @ right) - 1) / 2
    middle = voxel_to_world((np.array(fixed.shape[1:]) - 1) / 2, fixed.affine)
    information = {
        name: _information(fixed, moving, moved, transform)
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
    }


def write_results(
    folder: Path,
    stem: str,
    fixed: MetaTensor,
    moving: MetaTensor,
    registration: Registration,
    *,
    also: Sequence[Also] = (),
    picture: bool = True,
    facts: Mapping[str, Any] | None = None,
) -> Results:
    """Write everything there is to keep of one registration, all of it or nothing.

    ``<stem>.tfm`` is the ITK transform, ``<stem>.matrix.txt`` the 4x4 world matrix,
    ``<stem>.nii.gz`` the moving scan on the fixed grid, ``<stem>.trajectory.json`` every transform
    that the agent passed, ``<stem>.report.json`` the report, ``<stem>.before-after.png`` and
    ``<stem>.checkerboard.png`` pictures on the fixed grid, ``<stem>.ants.mat``, ``<stem>.fsl.mat``
    and ``<stem>.lta`` the transform in other forms.

    Args:
        folder: Existing folder.
        stem: What the files are called.
        fixed: MetaTensor (1, I, J, K), as it was registered.
        moving: Likewise.
        registration: Of the two.
        also: Other forms of the transform.
        picture: Draw the pictures.
        facts: What else the report is to say, ready for JSON, such as the model's name.

    Returns:
        The files and the report.

    Raises:
        MedrlError: If they cannot be written, or a form needs a package that is not installed.
    """
    from medrl.trajectory import write_trajectory

    matrix = as_transform(registration.transform_world)
    before, after = (move_scan(moving, transform, fixed) for transform in (np.eye(4), matrix))
    report = registration_report(fixed, moving, registration, before=before, after=after)
    report.update(facts or {})
    endings = {
        "transform": ".tfm",
        "matrix": ".matrix.txt",
        "scan": ".nii.gz",
        "trajectory": ".trajectory.json",
        "report": ".report.json",
    }
    endings |= {form: _ALSO[form] for form in also}
    if picture:
        endings |= {"before-after": ".before-after.png", "checkerboard": ".checkerboard.png"}
    paths = {kind: folder / f"{stem}{ending}" for kind, ending in endings.items()}
    with all_or_nothing(paths) as drafts:
        write_transform(
            drafts["transform"], matrix, form="itk", kind=registration.kind, fixed=fixed
        )
        write_transform(drafts["matrix"], matrix, form="matrix")
        for form in also:
            write_transform(drafts[form], matrix, form=form, fixed=fixed, moving=moving)
        write_nifti(drafts["scan"], after)
        write_trajectory(drafts["trajectory"], registration.path)
        text = json.dumps(report, indent=1, allow_nan=False)
        drafts["report"].write_text(text + "\n", encoding="utf-8")
        if picture:
            from medrl.registration.picture import write_before_after, write_checkerboard

            write_before_after(drafts["before-after"], fixed, before, after, report, title=stem)
            write_checkerboard(drafts["checkerboard"], fixed, after, report, title=stem)
    return Results(paths, report)


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


def _information(
    fixed: MetaTensor, moving: MetaTensor, moved: MetaTensor, transform: NDArray[np.float64]
) -> float | None:
    """Normalised mutual information of the voxels that lie in both scans."""
    step = max(1, round(math.cbrt(fixed[0].numel() / _SAMPLES)))
    axes = [np.arange(0, n, step) for n in fixed.shape[1:]]
    world = voxel_to_world(np.stack(np.meshgrid(*axes, indexing="ij"), -1), fixed.affine)
    both = inside(apply_affine(transform, world), moving.affine, tuple(moving.shape[1:]))
    values = (scan.as_tensor()[0, ::step, ::step, ::step] for scan in (fixed, moved))
    first, second = (value.numpy(force=True)[both] for value in values)
    return normalized_mutual_information(first, second)


def _entropy(counts: NDArray[np.float64]) -> float:
    """Of a histogram, in nats."""
    share = counts[counts > 0] / counts.sum()
    return float(-(share * np.log(share)).sum())


def _finite(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None
