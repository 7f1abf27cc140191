"""Scans as layers: shown straight, and what is drawn on them brought back voxel for voxel."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import nibabel as nib
import numpy as np
import torch
from monai.data.meta_tensor import MetaTensor
from numpy.typing import ArrayLike, NDArray

from medrl.errors import MedrlError
from medrl.files import stem_of
from medrl.volume.grid import on_grid_of
from medrl.volume.resample import nearest_voxels, resample_onto
from medrl.volume.space import apply_affine, as_affine, spacing_of
from medrl_napari.space import AXES, AXES_4D, STRAIGHT, Floats, Frame, frame_of
from medrl_napari.windowing import auto_limits

if TYPE_CHECKING:
    from napari.components import ViewerModel
    from napari.layers import Image, Layer

Array = NDArray[Any]
LayerData = tuple[Any, dict[str, Any], str]

#: Where layers keep what medrl knows of them.
KEY = "medrl"
#: A scan with more channels than this is a series in time.
MOST_CHANNELS = 8


@dataclass(frozen=True, eq=False)
class Shown:
    """How a scan is shown.

    The *layer grid* has axes (z, y, x) along the frame's, towards feet, back and left. Usually it
    is the scan's own grid with its axes permuted and turned round, so nothing is interpolated. A
    scan that lies obliquely in its viewer's frame is resampled.

    Attributes:
        scan: MetaTensor (C, I, J, K) with its affine (voxel to RAS mm), as it was read.
        frame: Along what it is shown.
    """

    scan: MetaTensor
    frame: Frame

    @property
    def file(self) -> str:
        """Where the scan was read from; empty if from no file."""
        return str(self.scan.meta.get("filename_or_obj") or "")

    def stem(self, name: str) -> str:
        """What files of the scan are called: as its own file, or else as its layer."""
        return stem_of(Path(self.file)) if self.file else name.replace("/", "_")

    @cached_property
    def resampled(self) -> bool:
        """Whether the layer grid is another grid than the scan's."""
        return not frame_of(self.scan.affine).same_as(self.frame)

    @cached_property
    def affine(self) -> Floats:
        """(4, 4), voxel of the layer grid (z, y, x) to napari's world."""
        if self.resampled:
            return self._covering[0]
        order = self._orientation[:, 0].astype(int)
        matrix = np.zeros((4, 4))
        matrix[3, 3] = 1
        # From the layer's index to the scan's: each axis permuted, and turned round where needed.
        for axis, flipped in enumerate(self._flips):
            count = self.scan.shape[1 + axis]
            matrix[axis, 2 - order[axis]] = -1 if flipped else 1
            matrix[axis, 3] = count - 1 if flipped else 0
        to_world = as_affine(self.scan.affine) @ matrix
        affine = np.eye(4)
        affine[:3, :3] = np.diag(np.linalg.norm(to_world[:3, :3], axis=0))
        affine[:3, 3] = self.frame.to_napari(to_world[:3, 3])
        return affine

    @property
    def world_affine(self) -> Floats:
        """(4, 4), voxel of the layer grid (z, y, x) to the patient's world, RAS mm."""
        affine = self.affine.copy()
        affine[:3] = self.frame.matrix @ affine[:3]
        return affine

    @property
    def scale(self) -> Floats:
        """(3,) mm, of the layer."""
        return np.diag(self.affine)[:3].copy()

    @property
    def translate(self) -> Floats:
        """(3,) mm, of the layer."""
        return self.affine[:3, 3].copy()

    @cached_property
    def shape(self) -> tuple[int, int, int]:
        """Of the layer grid, (z, y, x)."""
        if self.resampled:
            return self._covering[1]
        i, j, k = self.scan.shape[1:]
        z, y, x = self._permuted(np.broadcast_to(np.uint8(0), (i, j, k))).shape
        return z, y, x

    def images(self) -> list[Array]:
        """The scan's channels on the layer grid, each (z, y, x) float32; views where possible."""
        if self.resampled:
            grid, low = self.world_affine, float(self.scan.as_tensor().min())
            moved = resample_onto(self.scan, affine=grid, shape=self.shape, background=low)
            return list(moved.numpy())
        return [self._permuted(channel) for channel in self.scan.numpy()]

    def to_layer_grid(self, array_ijk: Array) -> Array:
        """An array of the scan's grid (I, J, K), such as a mask, on the layer grid (z, y, x).

        A view, unless the scan is resampled; then each voxel takes the nearest one's value.
        """
        if not self.resampled:
            return self._permuted(array_ijk)
        source = np.linalg.inv(as_affine(self.scan.affine)) @ self.world_affine
        return nearest_voxels(array_ijk, source, self.shape)

    def to_scan_grid(self, array_zyx: Array) -> Array:
        """An array of the layer grid (z, y, x) on the scan's grid (I, J, K); see above."""
        if self.resampled:
            source = np.linalg.inv(self.world_affine) @ as_affine(self.scan.affine)
            i, j, k = self.scan.shape[1:]
            return nearest_voxels(array_zyx, source, (i, j, k))
        order = self._orientation[:, 0].astype(int)
        array = np.transpose(array_zyx, [2 - axis for axis in order])
        return _flip(array, self._flips)

    def layer_slice(self, axis: int, number: int) -> tuple[int, int]:
        """The axis of the layer grid along an axis of the scan, and a slice's place on it.

        Args:
            axis: 0, 1 or 2 of the scan's array.
            number: The slice. Of a resampled scan the nearest, as far as there is one.
        """
        along = 2 - int(self._orientation[axis, 0])
        last = self.scan.shape[1 + axis] - 1
        return along, last - number if self._flips[axis] else number

    def scan_axis(self, along: int) -> int:
        """The axis of the scan's array along an axis of the layer grid."""
        return int(np.flatnonzero(self._orientation[:, 0].astype(int) == 2 - along)[0])

    # ---------------------------------------------------------------------------------------------

    @cached_property
    def _orientation(self) -> Array:
        """For each axis of the scan the nearest axis of the body, and the sense (nibabel's)."""
        return cast("Array", nib.orientations.io_orientation(as_affine(self.scan.affine)))

    @property
    def _flips(self) -> list[bool]:
        """Axes of the scan that run to right, front or head, the other way than the layer's."""
        return [sign > 0 for sign in self._orientation[:, 1]]

    def _permuted(self, array_ijk: Array) -> Array:
        order = self._orientation[:, 0].astype(int)
        turned = _flip(array_ijk, self._flips)
        return np.transpose(
            turned, [int(np.flatnonzero(order == 2 - axis)[0]) for axis in range(3)]
        )

    @cached_property
    def _covering(self) -> tuple[Floats, tuple[int, int, int]]:
        """A grid along the frame's axes that covers the scan, with its own voxel sizes."""
        affine = as_affine(self.scan.affine)
        ends = [(-0.5, n - 0.5) for n in self.scan.shape[1:]]
        corners = np.stack(np.meshgrid(*ends, indexing="ij"), -1).reshape(-1, 3)
        there = self.frame.to_napari(apply_affine(affine, corners))
        low, high = there.min(axis=0), there.max(axis=0)
        # Each axis takes the spacing of the scan's axis that lies nearest to it.
        directions = np.abs(np.linalg.inv(self.frame.matrix) @ affine[:3, :3])
        spacing = spacing_of(affine)[(directions / spacing_of(affine)).argmax(axis=1)]
        z, y, x = np.maximum(np.ceil((high - low) / spacing - 1e-6).astype(int), 1)
        grid = np.diag([*spacing, 1.0])
        grid[:3, 3] = (low + high - (np.array([z, y, x]) - 1) * spacing) / 2
        return grid, (int(z), int(y), int(x))


def show(scan: MetaTensor, *, frame: Frame | None = None) -> Shown:
    """Say how a scan is shown.

    Args:
        scan: MetaTensor (C, I, J, K) with its affine (voxel to RAS mm).
        frame: The viewer's; the scan's own if left out, so that it is shown straight.

    Raises:
        MedrlError: If its affine is none.
    """
    return Shown(scan, frame_of(scan.affine) if frame is None else frame)


def image_layers(shown: Shown, *, name: str) -> list[LayerData]:
    """A scan as layers: one for each channel, or one 4D layer of many channels (a time series)."""
    images = shown.images()
    limits = auto_limits(shown.scan.numpy()[0])
    common = {
        "contrast_limits": limits,
        "metadata": {KEY: shown},
        "colormap": "gray",
        # The viewer's slices are thick for agents beside them; a scan is shown one voxel thin.
        "projection_mode": "none",
    }
    if len(images) > MOST_CHANNELS:
        series = np.stack(images)
        place = {"scale": (1.0, *shown.scale), "translate": (0.0, *shown.translate), **AXES_4D}
        return [(series, {"name": name, **common, **place}, "image")]
    place = {"scale": shown.scale, "translate": shown.translate, **AXES}
    layers: list[LayerData] = []
    for number, (image, own) in enumerate(zip(images, single_channels(shown), strict=True), 1):
        title = name if len(images) == 1 else f"{name} {number}"
        settings = {"name": title, "visible": number == 1, **common, **place}
        if len(images) > 1:
            settings["metadata"] = {KEY: own}
            settings["contrast_limits"] = auto_limits(own.scan.numpy()[0])
        layers.append((image, settings, "image"))
    return layers


def single_channels(shown: Shown) -> list[Shown]:
    """How each channel of a scan is shown."""
    if shown.scan.shape[0] == 1:
        return [shown]
    channels = []
    for voxels in shown.scan.as_tensor().split(1):
        own = on_grid_of(voxels, shown.scan)
        own.meta["filename_or_obj"] = shown.scan.meta.get("filename_or_obj", "")
        channels.append(Shown(own, shown.frame))
    return channels


def image_layer(shown: Shown, *, name: str) -> LayerData:
    """A scan's first channel as a layer."""
    return image_layers(shown, name=name)[0]


def labels_layer(shown: Shown, labels_ijk: ArrayLike, *, name: str) -> LayerData:
    """A mask or label map (I, J, K) in a scan's grid as a layer that can be drawn on."""
    array = np.ascontiguousarray(shown.to_layer_grid(np.asarray(labels_ijk)))
    place = {"scale": shown.scale, "translate": shown.translate, **AXES}
    return array, {"name": name, "metadata": {KEY: shown}, **place}, "labels"


def add(viewer: ViewerModel, layer: LayerData) -> Layer:
    """Add a layer to a viewer, given as its data, its settings and its type."""
    data, settings, kind = layer
    return cast("Layer", getattr(viewer, f"add_{kind}")(data, **settings))


def add_beside(viewer: ViewerModel, layer: LayerData) -> Layer:
    """Add a layer and leave selected what is: whoever was about to draw goes on with it."""
    chosen = set(viewer.layers.selection)
    made = add(viewer, layer)
    viewer.layers.selection = chosen
    return made


def shown_of(layer: Image, *, viewer: ViewerModel | None = None) -> Shown:
    """How a layer's scan is shown, whoever made the layer.

    Args:
        layer: A 3D image layer. Of one that medrl did not make, napari's world is taken at its
            word: (z, y, x) in mm towards feet, back and left along the axes of the viewer's frame.
        viewer: Its viewer; the body's axes if left out.

    Raises:
        MedrlError: If it is not a volume, is in colours, or lies askew in napari's world.
    """
    known = layer.metadata.get(KEY)
    if isinstance(known, Shown):
        return known
    data = layer.data
    if getattr(layer, "rgb", False) or getattr(layer, "multiscale", False) or data.ndim != 3:
        raise MedrlError(f"the layer {layer.name!r} is not a 3D scan in shades of grey")
    # data_to_world is public API for coordinates only, so the matrix is taken from four points.
    origin = np.array(layer.data_to_world((0, 0, 0)))
    columns = np.array([layer.data_to_world(row) for row in np.eye(3)]).T - origin[:, None]
    frame, affine = frame_of_viewer(viewer), np.eye(4)
    affine[:3, :3] = frame.matrix @ columns
    affine[:3, 3] = frame.to_world(origin)
    volume = torch.from_numpy(np.asarray(data, dtype=np.float32).copy())[None]
    scan = MetaTensor(volume, affine=torch.from_numpy(as_affine(affine)))
    scan.meta["filename_or_obj"] = str(layer.source.path or "")
    shown = show(scan, frame=frame)
    if shown.resampled:
        raise MedrlError(f"the layer {layer.name!r} lies askew: open its file with medrl instead")
    return shown


def is_scan(layer: Layer) -> bool:
    """Whether a layer is a 3D scan in shades of grey."""
    from napari.layers import Image

    return isinstance(layer, Image) and layer.ndim == 3 and not layer.rgb


def scan_layers(viewer: ViewerModel) -> list[Image]:
    """The viewer's scans, top first."""
    return [layer for layer in reversed(viewer.layers) if is_scan(layer)]


def frame_known(known: object) -> Frame | None:
    """The frame in what medrl knows of a layer, if it is there."""
    frame = known.get("frame") if isinstance(known, dict) else getattr(known, "frame", None)
    return frame if isinstance(frame, Frame) else None


def frame_in(viewer: ViewerModel | None) -> Frame | None:
    """The frame of a viewer's first layer that has one, if there is any."""
    layers = viewer.layers if viewer is not None else ()
    frames = (frame_known(layer.metadata.get(KEY)) for layer in layers)
    return next((frame for frame in frames if frame is not None), None)


def frame_of_viewer(viewer: ViewerModel | None) -> Frame:
    """The frame in which a viewer shows things; the body's axes before the first scan."""
    return frame_in(viewer) or STRAIGHT


def center_views(viewer: ViewerModel, point_napari: ArrayLike) -> None:
    """Move a viewer's slices to a point, keeping its time; and the view, if it is not in it.

    Args:
        viewer: The viewer.
        point_napari: (3,), (z, y, x) in mm of napari's world.
    """
    point = np.asarray(point_napari, dtype=np.float64)
    first = viewer.dims.ndim - 3
    if first < 0 or not np.isfinite(point).all():
        return
    viewer.dims.set_point(list(range(first, first + 3)), list(point))
    axes = [axis - first for axis in viewer.dims.displayed]
    scan = next(iter(scan_layers(viewer)), None)
    if scan is None or len(axes) != 2 or min(axes) < 0:
        return
    voxel = np.array(scan.world_to_data(point))
    low, high = scan.corner_pixels
    if ((voxel < low) | (voxel > high))[axes].any():
        viewer.scene.camera.center = (viewer.scene.camera.center[0], *point[axes])


def _flip(array: Array, flips: list[bool]) -> Array:
    """Turn axes of an array round; a view."""
    return array[tuple(slice(None, None, -1 if flip else None) for flip in flips)]
