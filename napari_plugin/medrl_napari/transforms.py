"""Transform files applied to layers: a moving scan, its masks and points, shown where they fit."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from monai.data.meta_tensor import MetaTensor

from medrl.errors import MedrlError
from medrl.volume.space import apply_affine, as_affine, spacing_of
from medrl.volume.transform_files import read_transform
from medrl.volume.transform_forms import Form
from medrl_napari.points import layer_positions_world
from medrl_napari.scans import (
    KEY,
    Array,
    LayerData,
    Shown,
    frame_of_viewer,
    image_layer,
    is_scan,
    labels_layer,
    scan_layers,
    shown_of,
)
from medrl_napari.space import Floats, Frame
from medrl_napari.writers import in_scan_grid

if TYPE_CHECKING:
    from napari.components import ViewerModel
    from napari.layers import Image, Labels, Layer, Points

#: Axes further than this from right angles (as a cosine) are sheared.
_SHEARED = 1e-4


def read_transform_file(path: str, *, form: Form | None = None) -> list[LayerData]:
    """Apply a transform between two scans to the layers that are selected in napari.

    The transform is taken to map the fixed scan's world to the moving one's, as all do that
    resample; the selected layers are taken to belong to the moving scan. So they come to where the
    inverse brings them, as when 3D Slicer hardens a transform.

    Args:
        path: Any that :func:`medrl.volume.transform_files.open_transform` reads. A matrix of FSL
            needs the fixed scan too: the one other scan that is open.
        form: What it is, if its content is not to be asked.

    Returns:
        The same layers, moved: images and labels in the viewer's frame, points.

    Raises:
        MedrlError: If nothing that can be moved is selected, or the file holds no linear transform.
    """
    import napari

    viewer = napari.current_viewer()
    name = Path(path).name
    layers = [] if viewer is None else [la for la in viewer.layers if _is_wanted(la, viewer)]
    if viewer is None or not layers:
        raise MedrlError(
            f"{name} moves what is selected: select a scan, labels or points in the layer list, "
            "then open it again"
        )
    frame = frame_of_viewer(viewer)
    file = _File(Path(path), form)
    return [_moved(layer, file, frame, viewer) for layer in layers]


@dataclass(frozen=True)
class _File:
    """A transform file, and what it is said to be."""

    path: Path
    form: Form | None

    def back(self, fixed: MetaTensor | None = None, moving: MetaTensor | None = None) -> Floats:
        """Moving world to fixed world (4, 4), the other way than the file's."""
        forth = read_transform(self.path, form=self.form, fixed=fixed, moving=moving)
        return np.asarray(np.linalg.inv(forth), dtype=np.float64)


def _is_wanted(layer: Layer, viewer: ViewerModel) -> bool:
    from napari.layers import Labels, Points

    volume = is_scan(layer) or (isinstance(layer, Labels) and layer.ndim == 3)
    return layer in viewer.layers.selection and (
        volume or (isinstance(layer, Points) and layer.ndim >= 3)
    )


def _moved(layer: Layer, file: _File, frame: Frame, viewer: ViewerModel) -> LayerData:
    from napari.layers import Image, Labels

    if isinstance(layer, Image):
        return _moved_image(layer, file, frame, viewer)
    if isinstance(layer, Labels):
        return _moved_labels(layer, file, frame, viewer)
    return _moved_points(layer, file, frame)


def _moved_image(layer: Image, file: _File, frame: Frame, viewer: ViewerModel) -> LayerData:
    scan = shown_of(layer, viewer=viewer).scan
    back = file.back(_other_scan(layer, viewer), scan)
    return moved_image(layer, scan, back, frame, name=_name(layer, file.path))


def moved_image(
    layer: Image, scan: MetaTensor, back: Floats, frame: Frame, *, name: str
) -> LayerData:
    """An image layer where a transform of its scan's world brings it, with its colours.

    Args:
        layer: The layer as it lies.
        scan: Its scan (1, I, J, K).
        back: (4, 4), the scan's world to the world in which it is to be shown, RAS mm.
        frame: The viewer's.
        name: What to call the new layer.
    """
    shown = _brought(scan, back, frame)
    columns = as_affine(shown.scan.affine)[:3, :3] / spacing_of(shown.scan.affine)
    if np.abs(columns.T @ columns - np.eye(3)).max() > _SHEARED:
        # Few programs read scans whose axes are not at right angles.
        shown = _straight(shown, shown.images()[0])
    data, settings, kind = image_layer(shown, name=name)
    kept = {key: getattr(layer, key) for key in ("contrast_limits", "colormap", "gamma")}
    return data, {**settings, **kept}, kind


def _moved_labels(layer: Labels, file: _File, frame: Frame, viewer: ViewerModel) -> LayerData:
    data, settings, _ = layer.as_layer_data_tuple()
    labels = in_scan_grid(np.asarray(data), settings)
    back = file.back(_other_scan(layer, viewer), labels)
    shown = _brought(labels, back, frame)
    if shown.resampled:
        # What is drawn and saved is then what is seen, taken once from the nearest voxel.
        shown = _straight(shown, shown.to_layer_grid(labels.numpy()[0]))
    return labels_layer(shown, shown.scan.numpy()[0], name=_name(layer, file.path))


def _moved_points(layer: Points, file: _File, frame: Frame) -> LayerData:
    data, settings, kind = layer.as_layer_data_tuple()
    world = apply_affine(file.back(), layer_positions_world(layer, frame))
    moved = np.array(data, dtype=np.float64)
    moved[:, -3:] = (frame.to_napari(world) - layer.translate[-3:]) / layer.scale[-3:]
    known: Any = settings["metadata"].get(KEY)
    # What else was known of them was true only where they were.
    known = {"kind": known.get("kind") if isinstance(known, dict) else "points"}
    metadata = {KEY: {**known, "frame": frame, "scan": None}}
    return moved, {**settings, "name": _name(layer, file.path), "metadata": metadata}, kind


def _brought(scan: MetaTensor, back: Floats, frame: Frame) -> Shown:
    """A scan where a transform of its world brings it, with all its voxels."""
    affine = back @ as_affine(scan.affine)
    return Shown(MetaTensor(scan.as_tensor(), affine=torch.from_numpy(affine)), frame)


def _straight(shown: Shown, volume_zyx: Array) -> Shown:
    """What is seen on a layer grid, as a scan of that grid."""
    voxels = torch.from_numpy(np.ascontiguousarray(volume_zyx))[None]
    return Shown(MetaTensor(voxels, affine=torch.from_numpy(shown.world_affine)), shown.frame)


def _other_scan(layer: Layer, viewer: ViewerModel) -> MetaTensor | None:
    """The scan of the one other scan layer, if there is just one."""
    others = [la for la in scan_layers(viewer) if la is not layer]
    return shown_of(others[0], viewer=viewer).scan if len(others) == 1 else None


def _name(layer: Layer, path: Path) -> str:
    return f"{layer.name} ({path.stem})"
