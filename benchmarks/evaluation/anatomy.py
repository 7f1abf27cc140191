"""Relations between landmarks and AFIDs fiducials that anatomy fixes, in the commissure frame."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from evaluation.images import Array
from evaluation.ixi import LANDMARKS

#: Fiducials on the midline: they span the midsagittal plane.
MIDLINE_FIDUCIALS = (
    "AC",
    "PC",
    "infracollicular sulcus",
    "PMJ",
    "superior interpeduncular fossa",
    "culmen",
    "intermammillary sulcus",
    "pineal gland",
    "genu of CC",
    "splenium of CC",
)

#: Landmarks on the midline, and how far from it they may be (mm): about 1.5 times the largest
#: distance in 90 labelled heads.
MIDLINE = {
    "3rdVentricle_centroid": 2,
    "4thVentricle_centroid": 8,
    "BrainStem_centroid": 6,
    "BrainStem_inferior": 10,
    "CC_genu_anterior": 7,
    "CC_splenium_posterior": 7,
    "VermisI-V_centroid": 9,
    "VermisVIII-X_centroid": 9,
}


@dataclass(frozen=True)
class Check:
    """A number in mm and the range that it must lie in."""

    name: str
    value: float
    low: float
    high: float

    @property
    def holds(self) -> bool:
        """Whether the number is in its range."""
        return bool(self.low <= self.value <= self.high)


@dataclass(frozen=True, eq=False)
class CommissureFrame:
    """Coordinates about the midpoint of AC and PC: x right, y from PC to AC, z up; mm.

    Attributes:
        origin: (3,) RAS mm.
        axes: (3, 3), the unit vectors in rows.
    """

    origin: Array
    axes: Array

    @staticmethod
    def of(fiducials: dict[str, Array]) -> CommissureFrame:
        """The frame of a head; its midsagittal plane is fitted to the midline fiducials."""
        ac, pc = fiducials["AC"], fiducials["PC"]
        origin = (ac + pc) / 2
        y = (ac - pc) / np.linalg.norm(ac - pc)
        midline = np.stack([fiducials[name] for name in MIDLINE_FIDUCIALS]) - origin
        # Seen along y the midline fiducials form a line; z is its direction.
        z = np.linalg.svd(midline - np.outer(midline @ y, y))[2][0]
        z = z * np.sign(z[2])
        return CommissureFrame(origin, np.stack([np.cross(y, z), y, z]))

    def __call__(self, point_world: Array) -> Array:
        """A point (3,), RAS mm, in this frame."""
        return np.asarray((point_world - self.origin) @ self.axes.T)


def anatomy(points_world: dict[str, Array], fiducials_world: dict[str, Array]) -> list[Check]:
    """Check where landmarks lie.

    Ranges are wide enough for healthy adults and for templates that are a tenth larger than most
    heads, and narrow enough to notice a landmark on the wrong structure. Those between landmarks
    hold in all 90 labelled training heads; those to fiducials follow from textbook anatomy.

    Args:
        points_world: The model's landmarks, RAS mm. Relations of missing ones are left out.
        fiducials_world: AFIDs, RAS mm.
    """
    frame = CommissureFrame.of(fiducials_world)
    missing = np.full(3, np.nan)
    p = {name: frame(points_world.get(name, missing)) for name in LANDMARKS}
    f = {name: frame(point) for name, point in fiducials_world.items()}
    ac_y = float(f["AC"][1])
    third, stem = p["3rdVentricle_centroid"], p["BrainStem_centroid"]
    genu, splenium = p["CC_genu_anterior"], p["CC_splenium_posterior"]
    genu_afid, splenium_afid = f["genu of CC"], f["splenium of CC"]

    checks = [
        (f"{name}: from the midline", abs(p[name][0]), 0, most) for name, most in MIDLINE.items()
    ]
    checks += [
        ("3rd ventricle: to the midpoint of AC and PC", _norm(third), 0, 8),
        ("3rd ventricle: along AC-PC", third[1], -ac_y, ac_y),
        ("genu: to AFIDs genu, same definition", _norm(genu - genu_afid), 0, 6),
        ("genu: before AC", genu[1] - ac_y, 22, 42),
        (
            "splenium: behind AFIDs splenium, its lowest point",
            splenium_afid[1] - splenium[1],
            0,
            12,
        ),
        ("vermis I-V: below culmen", f["culmen"][2] - p["VermisI-V_centroid"][2], 2, 22),
        ("brain stem: below PMJ", f["PMJ"][2] - stem[2], -2, 22),
        ("brain stem: centroid to lower end", stem[2] - p["BrainStem_inferior"][2], 25, 46),
        ("4th ventricle: behind brain stem", stem[1] - p["4thVentricle_centroid"][1], 6, 20),
    ]
    for side, sign in (("L", -1.0), ("R", 1.0)):
        mirror = np.array([sign, 1.0, 1.0])
        q = {n.replace(f"_{side}_", "_"): v * mirror for n, v in p.items() if f"_{side}_" in n}
        horn = f[f"{side} AL temporal horn"] * mirror
        amygdala, accumbens = q["Amygdala_centroid"], q["Accumbens_centroid"]
        thalamus, pallidum = q["Thalamus_centroid"], q["Pallidum_centroid"]
        hippocampus, tip = q["Hippocampus_centroid"], q["LatVent_anterior_tip"]
        checks += [
            (f"thalamus {side}: lateral", thalamus[0], 7, 16),
            (f"thalamus {side}: along AC-PC", thalamus[1], -13, 2),
            (f"accumbens {side}: lateral", accumbens[0], 4, 14),
            (f"accumbens {side}: before AC", accumbens[1] - ac_y, 1, 16),
            (f"pallidum {side}: lateral", pallidum[0], 13, 25),
            (f"putamen {side}: beyond pallidum", q["Putamen_centroid"][0] - pallidum[0], 3, 9),
            (f"caudate {side}: above accumbens", q["Caudate_centroid"][2] - accumbens[2], 8, 20),
            (f"amygdala {side}: to temporal horn", _norm(amygdala - horn), 4, 22),
            (f"hippocampus {side}: behind amygdala", amygdala[1] - hippocampus[1], 11, 25),
            (f"ventricle tip {side}: behind genu", genu[1] - tip[1], -2, 17),
            (f"ventricle tip {side}: lateral", tip[0], 4, 22),
        ]
    told = [check for check in checks if not np.isnan(check[1])]
    return [Check(name, float(value), low, high) for name, value, low, high in told]


def order(points_world: dict[str, Array]) -> list[Check]:
    """Check what lies before, above and beside what, in a head without fiducials.

    The frame is the landmarks' own, so it does not matter what the header says: from the splenium
    to the genu is forwards, from the brain stem's end to the thalami upwards, and the right side
    follows.

    Args:
        points_world: The model's landmarks, RAS mm; all of them.
    """
    p = points_world
    thalami = (p["Thalamus_L_centroid"] + p["Thalamus_R_centroid"]) / 2
    y = p["CC_genu_anterior"] - p["CC_splenium_posterior"]
    y = y / _norm(y)
    z = thalami - p["BrainStem_inferior"]
    z = z - (z @ y) * y
    z = z / _norm(z)
    axes = np.stack([np.cross(y, z), y, z])
    q = {name: axes @ (point - thalami) for name, point in p.items()}
    stem, end = q["BrainStem_centroid"], q["BrainStem_inferior"]
    third, fourth = q["3rdVentricle_centroid"], q["4thVentricle_centroid"]
    upper, lower = q["VermisI-V_centroid"], q["VermisVIII-X_centroid"]
    checks = [
        ("brain stem: above its lower end", stem[2] - end[2]),
        ("thalami: above the brain stem", -stem[2]),
        ("genu: before the accumbens", q["CC_genu_anterior"][1] - q["Accumbens_L_centroid"][1]),
        ("3rd ventricle: before the splenium", third[1] - q["CC_splenium_posterior"][1]),
        ("4th ventricle: behind the brain stem", stem[1] - fourth[1]),
        ("vermis VI-VII: behind the 4th ventricle", fourth[1] - q["VermisVI-VII_centroid"][1]),
        ("vermis I-V: above vermis VIII-X", upper[2] - lower[2]),
    ]
    for side, sign in (("L", -1.0), ("R", 1.0)):
        s = {n.split("_")[0]: v * (sign, 1, 1) for n, v in q.items() if f"_{side}_" in n}
        checks += [
            (f"thalamus {side}: on its side", s["Thalamus"][0]),
            (f"pallidum {side}: beyond the thalamus", s["Pallidum"][0] - s["Thalamus"][0]),
            (f"putamen {side}: beyond the pallidum", s["Putamen"][0] - s["Pallidum"][0]),
            (f"caudate {side}: above the accumbens", s["Caudate"][2] - s["Accumbens"][2]),
            (f"accumbens {side}: before the thalamus", s["Accumbens"][1] - s["Thalamus"][1]),
            (f"hippocampus {side}: behind the amygdala", s["Amygdala"][1] - s["Hippocampus"][1]),
            (f"hippocampus {side}: beyond the thalamus", s["Hippocampus"][0] - s["Thalamus"][0]),
            (f"amygdala {side}: below the putamen", s["Putamen"][2] - s["Amygdala"][2]),
            (f"ventricle tip {side}: before the caudate", s["LatVent"][1] - s["Caudate"][1]),
        ]
    return [Check(name, float(value), 0.0, np.inf) for name, value in checks]


def _norm(vector: Array) -> float:
    return float(np.linalg.norm(vector))
