"""Layers into files that land where they should: in the scan's grid, in the patient's world."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from monai.data.meta_tensor import MetaTensor
from numpy.typing import ArrayLike, NDArray

from medrl.errors import MedrlError
from medrl.seednet.seeds import write_seeds
from medrl.trajectory import Trajectory, write_trajectory
from medrl.volume.boxes import write_boxes
from medrl.volume.grid import on_grid_of
from medrl.volume.points import Markup, write_markup_lists
from medrl.volume.read import write_nifti
from medrl_napari.box_layers import BoxLayers
from medrl_napari.points import names_of, positions_world
from medrl_napari.scans import KEY, Shown, frame_known, frame_of_viewer, scan_layers, shown_of
from medrl_napari.space import Frame

Meta = dict[str, Any]


def write_labels(path: str, data: Any, meta: Meta) -> list[str]:
    """Write a Labels layer as a mask in the grid of the scan it was drawn on.

    A layer that belongs to no scan keeps its own grid, in the frame of the viewer.

    Args:
        path: File to write, .nii or .nii.gz.
        data: (z, y, x); of a layer with a time axis the union over time is written.
        meta: The layer's settings.

    Returns:
        The file.

    Raises:
        MedrlError: If the layer is no volume or the file cannot be written.
    """
    array = np.asarray(data)
    while array.ndim > 3:
        array = array.max(axis=0)
    few = array.min(initial=0) >= 0 and array.max(initial=0) < 256
    scan = in_scan_grid(array.astype(np.uint8 if few else np.int64), meta)
    write_nifti(path, scan, dtype=np.uint8 if few else None)
    return [path]


def write_scan(path: str, data: Any, meta: Meta) -> list[str]:
    """Write an Image layer with its true geometry.

    Args:
        path: File to write, .nii or .nii.gz.
        data: (z, y, x).
        meta: The layer's settings.

    Returns:
        The file.

    Raises:
        MedrlError: If the layer is no volume or the file cannot be written.
    """
    write_nifti(path, in_scan_grid(np.asarray(data, dtype=np.float32), meta))
    return [path]


def write_points(path: str, data: Any, meta: Meta) -> list[str]:
    """Write a Points layer as 3D Slicer markups; seeds with their labels.

    Args:
        path: File to write, .mrk.json.
        data: (P, D), the last three columns (z, y, x).
        meta: The layer's settings.

    Returns:
        The file.

    Raises:
        MedrlError: If the file cannot be written.
    """
    known = meta.get("metadata", {}).get(KEY)
    frame = _frame_of(known)
    world = positions_world(
        np.asarray(data).reshape(len(data), -1),
        frame,
        scale=np.asarray(meta.get("scale", 1.0)),
        translate=np.asarray(meta.get("translate", 0.0)),
    )
    seeds = known.get("seeds") if isinstance(known, dict) else None
    if seeds is not None:
        write_seeds(path, list(seeds), name=str(meta.get("name", "seeds")))
        return [path]
    features = meta.get("features")
    names = names_of(features, len(world))
    table = dict(features) if features is not None else {}
    told = [str(text) for text in table.get("description", [""] * len(names))]
    title = str(meta.get("name", "points"))
    write_markup_lists(path, [Markup("Fiducial", title, world, tuple(names), tuple(told))])
    return [path]


def write_box_layer(path: str, data: Any, meta: Meta) -> list[str]:
    """Write a layer of boxes as 3D Slicer ROIs.

    Args:
        path: File to write, .mrk.json.
        data: Edges; what is written are the boxes themselves.
        meta: The layer's settings.

    Returns:
        The file.

    Raises:
        MedrlError: If the layer shows none, or the file cannot be written.
    """
    known = meta.get("metadata", {}).get(KEY)
    boxes = known.get("view") if isinstance(known, dict) else None
    if not isinstance(boxes, BoxLayers):
        raise MedrlError(f"the layer {meta.get('name')!r} does not show boxes of medrl")
    write_boxes(path, boxes.boxes_world)
    return [path]


def write_agents(path: str, data: Any, meta: Meta) -> list[str]:
    """Write the trajectory that a Tracks layer shows.

    Args:
        path: File to write, .trajectory.json.
        data: The tracks; what is written is the trajectory itself.
        meta: The layer's settings.

    Returns:
        The file.

    Raises:
        MedrlError: If the layer shows none, or the file cannot be written.
    """
    known = meta.get("metadata", {}).get(KEY)
    trajectory = known.get("trajectory") if isinstance(known, dict) else None
    if not isinstance(trajectory, Trajectory):
        raise MedrlError(f"the layer {meta.get('name')!r} does not show agents of medrl")
    write_trajectory(path, trajectory)
    return [path]


def in_scan_grid(array: NDArray[Any], meta: Meta) -> MetaTensor:
    """A layer's volume (z, y, x) where it belongs in the patient.

    Args:
        array: (z, y, x).
        meta: The layer's settings.

    Returns:
        MetaTensor (1, I, J, K), in the grid of the layer's scan if it has one.

    Raises:
        MedrlError: If it is no volume.
    """
    if array.ndim != 3:
        raise MedrlError(f"the layer {meta.get('name')!r} is no volume: it has {array.ndim} axes")
    shown = _scan_below(array.shape, meta)
    if shown is not None:
        volume = np.ascontiguousarray(shown.to_scan_grid(array))
        return on_grid_of(torch.from_numpy(volume)[None], shown.scan)
    frame = _frame_of(meta.get("metadata", {}).get(KEY))
    own = np.eye(4)
    own[:3, :3] = frame.matrix @ np.diag(_last3(meta.get("scale", (1, 1, 1))))
    own[:3, 3] = frame.to_world(_last3(meta.get("translate", (0, 0, 0))))
    # Array axes (z, y, x) as they are: the affine says where they point.
    voxels = torch.from_numpy(np.ascontiguousarray(array))[None]
    return MetaTensor(voxels, affine=torch.from_numpy(own))


# -------------------------------------------------------------------------------------------------


def _scan_below(shape: tuple[int, ...], meta: Meta) -> Shown | None:
    """The scan in whose layer grid a layer lies: its own, or one of the viewer's."""
    import napari

    known = meta.get("metadata", {}).get(KEY)
    if isinstance(known, Shown):
        return known if known.shape == shape else None
    viewer = napari.current_viewer()
    for layer in scan_layers(viewer) if viewer is not None else ():
        try:
            shown = shown_of(layer, viewer=viewer)
        except MedrlError:
            continue
        same = shown.shape == shape
        same = same and np.allclose(shown.scale, _last3(meta.get("scale", (1, 1, 1))))
        if same and np.allclose(shown.translate, _last3(meta.get("translate", (0, 0, 0)))):
            return shown
    return None


def _frame_of(known: object) -> Frame:
    """The frame of a layer, or of the viewer if nothing is known of it."""
    import napari

    return frame_known(known) or frame_of_viewer(napari.current_viewer())


def _last3(values: ArrayLike) -> NDArray[np.float64]:
    return np.asarray(values, dtype=np.float64).ravel()[-3:]
