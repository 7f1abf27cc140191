"""Where known points of a head put it: the AC-PC frame, and MNI space.

Convention: a *transform* maps the frame's world to the scan's (RAS mm both), as all do that
resample: fixed to moving. Points go the other way, by its inverse.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from medrl.errors import MedrlError
from medrl.volume.space import apply_affine

Array = NDArray[np.float64]
To = Literal["acpc", "mni"]
Origin = Literal["AC", "midpoint"]

#: What each frame is called.
TITLES = {"acpc": "the AC-PC frame", "mni": "MNI space"}
#: Points between the halves of the brain, besides AC and PC, and what comes left and right (names
#: without R and L), with how far they are from where symmetry has them (mm): raters differ by 1.15
#: mm on average (Lau et al. 2019), and the ventricles of two sides are rarely alike.
_MIDLINE = {
    **dict.fromkeys(("infracollicular sulcus", "PMJ", "superior interpeduncular fossa"), 1.0),
    **dict.fromkeys(("intermammillary sulcus", "genu of CC", "splenium of CC"), 1.0),
    **dict.fromkeys(("culmen", "pineal gland"), 2.0),
}
_PAIRS = {
    **dict.fromkeys(("superior LMS", "inferior LMS", "MB", "indusium griseum origin"), 1.0),
    **dict.fromkeys(("olfactory sulcal fundus", "AL temporal horn"), 2.0),
    **dict.fromkeys(("superior AM temporal horn", "inferior AM temporal horn"), 2.0),
    **dict.fromkeys(("LV at AC", "LV at PC", "ventral occipital horn"), 3.0),
}
#: Evidence twice as far off as it may be counts half.
_TOLERANCE = 2.0
#: How sure the roll of a head must be, in degrees: to be said, and to be relied on.
_ROLL_DEG, _ROLL_DOUBTFUL_DEG = 6.0, 3.0
#: AC and PC of adults are 20 to 32 mm apart; nearer or further than this something is wrong.
_LENGTH_MM = (15.0, 40.0)
_USUAL_MM = (19.0, 34.0)

#: An affine transform of twelve numbers is fitted to no fewer points than this, whose extent along
#: any direction (root mean square) is no smaller.
FEWEST = 8
_FLATTEST_MM = 4.0
#: Points further off than this, and than so many times the usual, are left out.
_OUTLIER_MM, _OUTLIER = 5.0, 3.5
#: Anatomies differ: whole heads on each other by affine transforms leave 3 to 4 mm.
_FAR_OFF_MM = 6.0

#: The grid of MNI152NLin2009cAsym at 1 mm: outermost voxel centres (mm), both ends.
MNI_BOX = np.array([[-96.0, -132.0, -78.0], [96.0, 96.0, 114.0]])


@dataclass(frozen=True, eq=False)
class Fit:
    """How a frame lies in a scan.

    Attributes:
        transform_world: (4, 4), the frame's world to the scan's, RAS mm.
        used: Names of the points that it rests on.
        residuals_mm: By name, how far each point is off: from the midsagittal plane (AC-PC), or
            from the template's point (MNI), the dropped ones included.
        figures: What else there is to say, by name, in terms of JSON.
        doubts: What speaks against it, one line each.
    """

    transform_world: Array
    used: tuple[str, ...]
    residuals_mm: dict[str, float]
    figures: dict[str, float]
    doubts: tuple[str, ...] = ()


@cache
def template_points() -> dict[str, Array]:
    """The 32 expert points of MNI152NLin2009cAsym: (3,) RAS mm by name."""
    table = files("medrl.alignment").joinpath("mni152nlin2009casym.csv").read_text("utf-8")
    rows = csv.DictReader(line for line in table.splitlines() if not line.startswith("#"))
    return {row["name"]: np.array([float(row[axis]) for axis in "xyz"]) for row in rows}


def needed(to: str, names: Sequence[str]) -> str:
    """What points of these names lack for a frame, in words; empty if nothing."""
    known = set(names)
    if to == "mni":
        count = len(known & set(template_points()))
        return "" if count >= FEWEST else f"it knows {count} of the {FEWEST} AFIDs that it takes"
    missing = [name for name in ("AC", "PC") if name not in known]
    if missing:
        return f"it does not know {' and '.join(missing)}"
    pairs = [pair for pair in _PAIRS if {f"R {pair}", f"L {pair}"} <= known]
    return "" if pairs else "it knows no points left and right (such as R MB and L MB)"


def fit(
    to: To,
    points_world: Mapping[str, Array],
    weights: Mapping[str, float],
    *,
    origin: Origin = "AC",
) -> Fit:
    """Where a frame lies; see :func:`fit_acpc` and :func:`fit_mni`."""
    if to == "mni":
        return fit_mni(points_world, weights)
    return fit_acpc(points_world, weights, origin=origin)


def fit_acpc(
    points_world: Mapping[str, Array],
    weights: Mapping[str, float] | None = None,
    *,
    origin: Origin = "AC",
) -> Fit:
    """The AC-PC frame of a head: rigid, right-handed, RAS.

    The second axis runs from PC to AC, the first to the right, at right angles to the second and as
    nearly as can be to the midsagittal plane, the third upwards. What is left to find once AC and
    PC are known is the roll about their line: points between the halves of the brain lie in one
    plane, points of two sides face each other across it. Both are lines in the plane at right
    angles to AC-PC, fitted by total least squares, reweighted so that few wrong points do no harm
    (Cauchy weights).

    Args:
        points_world: (3,) RAS mm by name: AC, PC, and what is known of the other AFIDs.
        weights: By name, 0 to 1, how much each counts; 1 where it says nothing.
        origin: AC, or the midpoint of AC and PC (mid-commissural point).

    Returns:
        The frame. Figures are ``ac_pc_mm``, the distance of AC and PC, ``roll_sd_deg``, how
        uncertain the roll is, and ``plane_rms_mm``, how far midline points are off the plane.

    Raises:
        MedrlError: If AC or PC is missing, they cannot be both right, or the others do not tell how
            the head is rolled.
    """
    points = {name: np.asarray(xyz, dtype=np.float64) for name, xyz in points_world.items()}
    missing = [name for name in ("AC", "PC") if name not in points]
    if missing:
        verb = "are" if missing[1:] else "is"
        raise MedrlError(f"{' and '.join(missing)} {verb} not in the scan: no AC-PC frame")
    ac, pc = points["AC"], points["PC"]
    length = float(np.linalg.norm(ac - pc))
    if not _LENGTH_MM[0] <= length <= _LENGTH_MM[1]:
        raise MedrlError(f"AC and PC are {length:.1f} mm apart: one of them is wrong")
    forward = (ac - pc) / length
    across = np.linalg.svd(forward[None])[2][1:]  # two axes at right angles to AC-PC

    share = dict.fromkeys(points, 1.0) | dict(weights or {})
    evidence = _evidence(points, share)
    if not evidence.pairs:
        raise MedrlError("no points left and right were found: nothing tells right from left")
    right, roll_sd = _right(evidence, ac, across)
    up = np.cross(right, forward)
    transform = np.eye(4)
    transform[:3] = np.column_stack([right, forward, up, ac if origin == "AC" else (ac + pc) / 2])
    middle = {name: float(abs((points[name] - ac) @ right)) for name in evidence.middle}
    doubts = []
    if not _USUAL_MM[0] <= length <= _USUAL_MM[1]:
        doubts.append(f"AC and PC are {length:.1f} mm apart, which is unusual")
    if roll_sd > _ROLL_DOUBTFUL_DEG:
        doubts.append(f"how the head is rolled is known to {roll_sd:.1f} degrees only")
    rms = float(np.sqrt(np.mean(np.square(list(middle.values()))))) if middle else float("nan")
    figures = {"ac_pc_mm": length, "roll_sd_deg": roll_sd}
    figures |= {"plane_rms_mm": rms} if middle else {}
    used = ("AC", "PC", *evidence.middle, *(f"{s} {p}" for p in evidence.pairs for s in "RL"))
    return Fit(transform, used, {"AC": 0.0, "PC": 0.0, **middle}, figures, tuple(doubts))


@dataclass(frozen=True, eq=False)
class _Evidence:
    """What tells of the midsagittal plane.

    Attributes:
        middle: Names of midline points that are known.
        pairs: Names of pairs that are known.
        places: (P, 3) points that should lie in the plane: midline ones, middles of pairs.
        place_weights: (P,) inverse variances, 1/mm^2.
        sides: (Q, 3) from left to right, of each pair; should be at right angles to the plane.
        side_weights: (Q,) likewise.
    """

    middle: tuple[str, ...]
    pairs: tuple[str, ...]
    places: Array
    place_weights: Array
    sides: Array
    side_weights: Array


def _evidence(points: Mapping[str, Array], share: Mapping[str, float]) -> _Evidence:
    middle = {name: sd for name, sd in _MIDLINE.items() if name in points}
    pairs = {n: sd for n, sd in _PAIRS.items() if f"R {n}" in points and f"L {n}" in points}
    both = [(points[f"R {name}"], points[f"L {name}"]) for name in pairs]
    lesser = np.array([min(share[f"R {name}"], share[f"L {name}"]) for name in pairs])
    precision = lesser / np.square(list(pairs.values()))
    commissures = [points["AC"], points["PC"]]
    own = np.array(
        [share["AC"], share["PC"], *(share[name] / sd**2 for name, sd in middle.items())]
    )
    return _Evidence(
        tuple(middle),
        tuple(pairs),
        np.array([*commissures, *(points[n] for n in middle), *((r + le) / 2 for r, le in both)]),
        np.array([*own, *(2 * precision)]),  # the mean of two has half the variance,
        np.array([r - le for r, le in both]).reshape(-1, 3),
        precision / 2,  # their difference twice
    )


def _right(evidence: _Evidence, ac: Array, across: Array) -> tuple[Array, float]:
    """The direction to the right in the plane `across` (2, 3), and its uncertainty (degrees)."""
    places = (evidence.places - ac) @ across.T
    # What should be at right angles to the plane is turned, so that it should lie in it.
    sides = evidence.sides @ across.T
    turned = np.column_stack([-sides[:, 1], sides[:, 0]])
    w, v = evidence.place_weights.copy(), evidence.side_weights.copy()
    for _ in range(30):
        off = places - np.average(places, axis=0, weights=w)
        scatter = (off * w[:, None]).T @ off + (turned * v[:, None]).T @ turned
        values, axes = np.linalg.eigh(scatter)
        normal = axes[:, 0]
        # Residuals in units of what is to be expected.
        own = np.square(off @ normal) * evidence.place_weights
        other = np.square(turned @ normal) * evidence.side_weights
        w = evidence.place_weights / (1 + own / _TOLERANCE**2)
        v = evidence.side_weights / (1 + other / _TOLERANCE**2)
    if (sides @ normal) @ v < 0:
        normal = -normal
    # A direction that is told by squares of lengths over variances: Fisher information.
    information = max(float(values[1] - values[0]), 1e-9)
    roll_sd = float(np.degrees(1 / np.sqrt(information)))
    if roll_sd > _ROLL_DEG:
        raise MedrlError(
            "too few points beside AC and PC were found to tell how the head is rolled"
        )
    return normal @ across, roll_sd


def fit_mni(points_world: Mapping[str, Array], weights: Mapping[str, float] | None = None) -> Fit:
    """The affine transform of twelve numbers that brings a head onto MNI152NLin2009cAsym.

    Least squares between the points of the head and the template's, in the template's
    millimetres, weighted; points that are far off once most agree (least absolute distances) are
    left out of it.

    Args:
        points_world: (3,) RAS mm by name; AFIDs of any number.
        weights: By name, 0 to 1, how much each counts; 1 where it says nothing.

    Returns:
        The transform, from MNI space to the scan. Figures are ``residual_mm``, the mean distance of
        the points used from the template's, and ``residual_max_mm``.

    Raises:
        MedrlError: If there are too few points, or they do not agree.
    """
    template = template_points()
    names = [name for name in points_world if name in template]
    if len(names) < FEWEST:
        raise MedrlError(
            f"{len(names)} of the points that MNI space takes were found: {FEWEST} are needed"
        )
    source = np.array([points_world[name] for name in names], dtype=np.float64)
    target = np.array([template[name] for name in names])
    share = np.array([(weights or {}).get(name, 1.0) for name in names])

    trust = share
    for _ in range(50):
        matrix = _affine(source, target, trust)
        away = np.linalg.norm(apply_affine(matrix, source) - target, axis=1)
        trust = share / np.maximum(away, 0.5)
    limit = max(_OUTLIER_MM, _OUTLIER * float(np.median(away)))
    kept = away <= limit
    matrix = _affine(source[kept], target[kept], share[kept])
    away = np.linalg.norm(apply_affine(matrix, source) - target, axis=1)
    if np.linalg.det(matrix[:3, :3]) <= 0:
        raise MedrlError("the points that were found do not lie as those of a head do")
    residual = float(away[kept].mean())
    dropped = [name for name, keep in zip(names, kept, strict=True) if not keep]
    doubts = []
    if residual > _FAR_OFF_MM:
        doubts.append(f"the points are {residual:.1f} mm off the template's on average")
    figures = {
        "residual_mm": residual,
        "residual_max_mm": float(away[kept].max()),
    }
    used = tuple(name for name in names if name not in dropped)
    residuals = dict(zip(names, away.tolist(), strict=True))
    transform = np.asarray(np.linalg.inv(matrix), dtype=np.float64)
    return Fit(transform, used, residuals, figures, tuple(doubts))


def _affine(source: Array, target: Array, weights: Array) -> Array:
    """Weighted least squares; (4, 4), source to target.

    Raises:
        MedrlError: If the points are too few, or in one plane.
    """
    middle = np.average(source, axis=0, weights=weights) if weights.sum() > 0 else None
    if middle is None or (weights > 0).sum() < FEWEST:
        raise MedrlError(f"fewer than {FEWEST} of the points that were found can be relied on")
    spread = np.linalg.svd(source - middle, compute_uv=False)[-1] / np.sqrt(len(source))
    if spread < _FLATTEST_MM:
        raise MedrlError("the points that were found lie in one plane: they do not tell the rest")
    root = np.sqrt(weights)[:, None]
    rows = np.column_stack([source, np.ones(len(source))])
    solved = np.linalg.lstsq(rows * root, target * root, rcond=None)[0]
    matrix = np.eye(4)
    matrix[:3] = solved.T
    return matrix
