"""The planes of a picture: a scan on a grid along the body axes, and what to show of it.

Convention: *display* coordinates are millimetres along the axes of that grid (right, anterior, up),
zero at its first voxel. Planes are shown the radiological way.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from medrl.volume.resample import resample_isotropic
from medrl.volume.space import spacing_of, voxel_to_world, world_to_voxel

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from monai.data.meta_tensor import MetaTensor

Array = NDArray[np.float64]

#: Colours of a picture: around the panels, of what is written, of what matters less.
BACKGROUND, INK, FAINT = "#0b0d10", "#e8eaed", "#9aa0a6"

#: A point this near to a slice (mm) is drawn as lying on it.
SLAB_MM = 5.0
_MOST_VOXELS = 3e7
#: Voxels across a scan that is too small for voxels of 1 mm.
_ACROSS = 100


@dataclass(frozen=True)
class View:
    """A plane: the axis it is cut across, the axes along the picture, and the letters of its sides.

    Letters are those of the left, the right, the upper and the lower side.
    """

    name: str
    across: int
    right: int
    up: int
    letters: str


#: Radiological convention: seen from the feet, from the front, from the patient's left.
AXIAL = View("Axial", 2, 0, 1, "RLAP")
CORONAL = View("Coronal", 1, 0, 2, "RLSI")
SAGITTAL = View("Sagittal", 0, 1, 2, "APSI")
VIEWS = (AXIAL, CORONAL, SAGITTAL)


@dataclass(frozen=True, eq=False)
class DisplayVolume:
    """A scan on an isotropic grid along the body axes, and how to get points onto it.

    Attributes:
        volume: (I, J, K) values.
        affine: (4, 4) voxel to world.
        spacing: Voxel size, mm.
        window: Values that are black and white.
    """

    volume: NDArray[np.float32]
    affine: Array
    spacing: float
    window: tuple[float, float]

    def place(self, points_world: Array) -> Array:
        """World RAS mm (..., 3) to display mm."""
        return world_to_voxel(points_world, self.affine) * self.spacing

    def index(self, at_mm: float, axis: int) -> int:
        """Slice at a display coordinate."""
        return int(np.clip(round(at_mm / self.spacing), 0, self.volume.shape[axis] - 1))

    def size_mm(self, axis: int) -> float:
        """Extent along an axis."""
        return self.volume.shape[axis] * self.spacing


def display_volume(scan: MetaTensor) -> DisplayVolume:
    """Bring a scan onto an isotropic grid that is fine enough to look at."""
    from monai.data.meta_tensor import MetaTensor

    spacings = spacing_of(np.asarray(scan.affine))
    volume_mm3 = float(np.prod(spacings) * np.prod(scan.shape[1:]))
    longest_mm = float((spacings * scan.shape[1:]).max())
    spacing = max(min(1.0, longest_mm / _ACROSS), float(np.cbrt(volume_mm3 / _MOST_VOXELS)))
    first = MetaTensor(scan.as_tensor()[:1].float().cpu(), affine=scan.affine)
    low = float(first.min())
    upright = resample_isotropic(first, spacing=spacing, background=low)
    volume = upright.as_tensor()[0].numpy()
    sample = volume[::3, ::3, ::3]
    if low < -300:  # Hounsfield units
        window = (-160.0, 240.0)
    else:
        inside = sample[sample > low + 0.05 * (float(sample.max()) - low)]
        # Fat may outshine everything: look at the bulk of the tissue, and leave it headroom.
        bulk = float(np.quantile(inside, 0.9)) if inside.size else float(sample.max())
        window = (low, max(low + 1.35 * (bulk - low), low + 1e-6))
    return DisplayVolume(volume, np.asarray(upright.affine, dtype=np.float64), spacing, window)


def busiest_slice(coordinates: Array, size: float) -> float:
    """The slice position with most points near it; the middle of the scan without any."""
    inside = coordinates[(coordinates >= 0) & (coordinates < size)]
    if not len(inside):
        return size / 2
    distance = np.abs(inside[:, None] - inside[None, :])
    # Points within the slab count one, and the nearer a bit more, so that ties are rare.
    score = ((distance <= SLAB_MM) * (2 - distance / SLAB_MM)).sum(axis=0)
    return float(inside[int(score.argmax())])


def spread_labels(
    points: Array, clutter: Array, *, size: tuple[float, float], away: float = 9.0
) -> Array:
    """Find places for labels near their points.

    Args:
        points: (P, 2) mm in the plane of a picture, from its corner.
        clutter: (Q, 2) mm, markers that labels should not cover.
        size: Width and height of the picture, mm; labels stay inside.
        away: Distance from point to label, mm; nearly twice that where it is crowded.

    Returns:
        (P, 2) mm.
    """
    angles = np.arange(16) * (2 * np.pi / 16)
    candidates = np.concatenate(
        [
            radius * np.stack([np.cos(angles), np.sin(angles)], axis=1)
            for radius in (away, 1.7 * away)
        ]
    )
    cost = np.repeat((0.0, 0.6), len(angles))
    middle = points.mean(axis=0) if len(points) else np.zeros(2)
    placed: list[Array] = []
    for point in points:
        spots = point + candidates
        obstacles = np.concatenate([clutter, np.array(placed).reshape(-1, 2)])
        near = np.linalg.norm(spots[:, None] - obstacles[None], axis=2)
        crowding = np.clip(8.0 - near, 0, None).sum(axis=1)
        outward = (candidates @ (point - middle)) / (
            np.linalg.norm(candidates, axis=1) * (np.linalg.norm(point - middle) + 1e-6)
        )
        beyond = np.clip(5 - spots, 0, None) + np.clip(spots - (np.array(size) - 5), 0, None)
        total = crowding + cost - 0.5 * outward + 10 * beyond.sum(axis=1)
        placed.append(spots[int(total.argmin())])
    return np.array(placed).reshape(-1, 2)


def position_in_words(shown: DisplayVolume, view: View, at_mm: float) -> str:
    """Where a slice lies in world coordinates, such as ``S 12 mm``."""
    center = np.array(shown.volume.shape) / 2 * shown.spacing
    center[view.across] = at_mm
    value = float(voxel_to_world(center / shown.spacing, shown.affine)[view.across])
    letter = ("RL", "AP", "SI")[view.across][int(value < 0)]
    return f"{letter} {abs(value):.0f} mm"


def show_slice(axes: Axes, shown: DisplayVolume, view: View, at_mm: float) -> None:
    """Show one slice, patient right (or anterior) on the left, up is up, no distortion."""
    half = shown.spacing / 2
    axes.imshow(
        np.take(shown.volume, shown.index(at_mm, view.across), axis=view.across).T,
        cmap="gray",
        origin="lower",
        interpolation="bilinear",
        vmin=shown.window[0],
        vmax=shown.window[1],
        extent=(-half, shown.size_mm(view.right) - half, -half, shown.size_mm(view.up) - half),
        aspect="equal",
    )
    axes.set_facecolor("black")
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set_color("#30343a")


def show_whole(axes: Axes, shown: DisplayVolume, view: View) -> None:
    """Let a panel show all of the shown, its first axis running to the left."""
    axes.set_xlim(shown.size_mm(view.right) - shown.spacing / 2, -shown.spacing / 2)
    axes.set_ylim(-shown.spacing / 2, shown.size_mm(view.up) - shown.spacing / 2)


def write_on(
    axes: Axes, x: float, y: float, text: str, *, shadow: float = 2.2, **style: Any
) -> None:
    """Write on a panel in letters that stand out against any scan.

    Args:
        axes: The panel.
        x: Share of its width, from the left.
        y: Share of its height, from below.
        text: What to write.
        shadow: Width of the dark line around letters, points.
        style: What matplotlib knows of texts.
    """
    from matplotlib.patheffects import withStroke

    dark = [withStroke(linewidth=shadow, foreground="black")]
    axes.text(x, y, text, transform=axes.transAxes, color=INK, path_effects=dark, **style)


def write_sides(axes: Axes, shown: DisplayVolume, view: View, at_mm: float) -> None:
    """Write on a panel which side of the patient is where, and which slice it shows."""
    sides = (
        (0.02, 0.5, "left", "center"),
        (0.98, 0.5, "right", "center"),
        (0.5, 0.985, "center", "top"),
        (0.5, 0.015, "center", "bottom"),
    )
    for letter, (x, y, ha, va) in zip(view.letters, sides, strict=True):
        write_on(axes, x, y, letter, ha=ha, va=va, fontsize=13, fontweight="bold")
    where = f"{view.name}, {position_in_words(shown, view, at_mm)}"
    write_on(axes, 0.02, 0.985, where, va="top", fontsize=10.5)
