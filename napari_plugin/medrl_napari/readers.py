"""Files into layers: scans, masks, points, boxes, agents' paths and transforms."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from medrl.errors import MedrlError
from medrl.files import VIDEO_ENDINGS, is_film, stem_of
from medrl.trajectory import read_trajectory
from medrl.volume.boxes import read_boxes
from medrl.volume.dicom_files import may_be_dicom
from medrl.volume.film import read_film
from medrl.volume.labels import judge_labels, stated_as_labels
from medrl.volume.points import Markup, read_markups, read_points
from medrl.volume.read import SUFFIXES, read
from medrl.volume.series import list_series
from medrl_napari.agents import AgentsView, trajectory_layers
from medrl_napari.box_layers import COLORS, BoxLayers, boxes_layer
from medrl_napari.films.layers import film_layer
from medrl_napari.label_maps import label_map_layers
from medrl_napari.names import thin_names
from medrl_napari.points import points_layer
from medrl_napari.scans import (
    KEY,
    LayerData,
    frame_in,
    frame_known,
    image_layers,
    show,
)
from medrl_napari.space import AXES, STRAIGHT, Frame

if TYPE_CHECKING:
    from monai.data.meta_tensor import MetaTensor
    from napari.components import ViewerModel

Reader = Callable[[str | Sequence[str]], list[LayerData]]

_TRAJECTORY = ".trajectory.json"
_POINTS = (".mrk.json", ".fcsv")
_TRANSFORMS = (".tfm", ".h5", ".lta")
#: Markups that are more than their control points, but for boxes.
_SHAPES = ("Plane",)
#: Scouts and reconstructions beyond these would fill the memory.
_MOST_SERIES = 8
#: What tells napari that a reader has done all that there was to do.
_NOTHING: list[LayerData] = [(None,)]  # type: ignore[list-item]


def get_reader(path: str | Sequence[str]) -> Reader | None:
    """The reader for a file, a DICOM folder, or several of them; None for what is not medrl's."""
    paths = [path] if isinstance(path, str) else list(path)
    return read_layers if paths and all(_is_ours(Path(one)) for one in paths) else None


def read_layers(path: str | Sequence[str]) -> list[LayerData]:
    """Read files into layers, in the frame of the viewer that is open.

    Args:
        path: One or several.

    Returns:
        Layers for napari to add.

    Raises:
        MedrlError: If one cannot be read.
    """
    import napari

    paths = [path] if isinstance(path, str) else list(path)
    viewer = napari.current_viewer()
    if viewer is not None:
        thin_names(viewer)
    frame = frame_in(viewer)
    layers: list[LayerData] = []
    for one in paths:
        found = _read_one(Path(one), frame, viewer)
        layers += found
        if frame is None and found:
            frame = frame_known(found[0][1]["metadata"][KEY])
    return layers or _NOTHING


def scan_layers_of(scan: MetaTensor, frame: Frame | None, *, name: str) -> list[LayerData]:
    """A scan as images, or as labels if it is a label map."""
    shown = show(scan, frame=frame)
    if holds_labels(scan, shown.file):
        return label_map_layers(shown, name=name)
    return image_layers(shown, name=name)


def holds_labels(scan: MetaTensor, file: str = "") -> bool:
    """Whether a scan is a mask or a label map, in all of its channels.

    Args:
        scan: MetaTensor (C, I, J, K).
        file: Where it is from; its name may say what it is.
    """
    stated = stated_as_labels(Path(file)) if file else ""
    return all(judge_labels(channel, stated=stated).labels for channel in scan.numpy())


# -------------------------------------------------------------------------------------------------


def _is_ours(path: Path) -> bool:
    name = path.name.lower()
    if path.is_dir():
        return True
    ours = (*SUFFIXES, *_POINTS, *_TRANSFORMS, *VIDEO_ENDINGS, _TRAJECTORY)
    return name.endswith(ours) or may_be_dicom(path)


def _read_one(path: Path, frame: Frame | None, viewer: ViewerModel | None) -> list[LayerData]:
    name = path.name.lower()
    if name.endswith(_TRAJECTORY):
        title = path.name[: -len(_TRAJECTORY)]
        return _read_agents(path, frame or STRAIGHT, viewer, name=f"{title} agents")
    if name.endswith(_POINTS):
        return _read_points(path, frame or STRAIGHT, viewer)
    if name.endswith(_TRANSFORMS):
        from medrl_napari.transforms import read_transform_file

        return read_transform_file(str(path))
    if name.endswith(VIDEO_ENDINGS) or (path.is_dir() and is_film(path)):
        return [film_layer(read_film(path), name=stem_of(path))]
    if path.is_dir():
        return _read_dicom(path, frame)
    scan = read(path, allow_constant=True)
    return scan_layers_of(scan, frame, name=stem_of(path))


def _read_dicom(folder: Path, frame: Frame | None) -> list[LayerData]:
    """All series of a folder that are volumes, the largest one visible."""
    found = list_series(folder)[:_MOST_SERIES]
    layers: list[LayerData] = []
    left_out: list[MedrlError] = []
    for series in found:
        try:
            scan = read(folder, series=series.uid)
        except MedrlError as error:
            left_out.append(MedrlError(f"series {series.uid}: {error}"))
            continue
        name = (len(found) > 1 and series.description) or stem_of(folder)
        new = scan_layers_of(scan, frame, name=name)
        frame = frame or frame_known(new[0][1]["metadata"][KEY])
        for _, settings, _ in new if layers else []:
            settings["visible"] = False
        layers += new
    if not layers:
        raise left_out[0]
    for reason in left_out:
        warnings.warn(str(reason), UserWarning, stacklevel=2)
    return layers


def _read_agents(
    path: Path, frame: Frame, viewer: ViewerModel | None, *, name: str
) -> list[LayerData]:
    trajectory = read_trajectory(path)
    if viewer is None:
        return trajectory_layers(trajectory, frame, name=name)
    # With a viewer, the windows that agents look through follow its slider.
    AgentsView(viewer, frame, name=name).show(trajectory)
    return []


def _read_points(path: Path, frame: Frame, viewer: ViewerModel | None) -> list[LayerData]:
    title = path.name.split(".")[0]
    if path.name.lower().endswith(".fcsv"):
        points = read_points(path)
        return [points_layer(list(points), np.array(list(points.values())), frame, name=title)]
    read = read_markups(path)
    boxes = _read_boxes(path, frame, viewer) if any(m.kind == "ROI" for m in read) else []
    markups = [markup for markup in read if markup.kind != "ROI" and len(markup.labels)]
    for markup in markups:
        if markup.kind in _SHAPES:
            line = f"{path}: of the {markup.kind} {markup.name!r} only the control points are shown"
            warnings.warn(line, UserWarning, stacklevel=2)
    return boxes + [_markup_layer(m, frame, name=m.name or title) for m in markups]


def _read_boxes(path: Path, frame: Frame, viewer: ViewerModel | None) -> list[LayerData]:
    name = path.name.split(".")[0]
    boxes = read_boxes(path)
    corners = np.array(list(boxes.values())).reshape(-1, 2, 3)
    if viewer is None:
        return [boxes_layer(corners, frame, name=name)]
    # With a viewer, the boxes are shown where its slices cut them, with their names.
    colors = [COLORS[number % len(COLORS)] for number in range(len(boxes))]
    BoxLayers(viewer, frame, name=name).show(list(boxes), corners, colors)
    return []


def _markup_layer(markup: Markup, frame: Frame, *, name: str) -> LayerData:
    if markup.kind == "Fiducial":
        told = {"description": list(markup.descriptions)}
        return points_layer(markup.labels, markup.points_world, frame, name=name, features=told)
    line = frame.to_napari(markup.points_world)
    # napari draws no line through a single point.
    line = np.repeat(line, 2, axis=0) if len(line) == 1 else line
    settings = {
        "name": name,
        "shape_type": "path",
        "edge_color": "#39d98a",
        "edge_width": 1.0,
        "ndim": 3,
        "metadata": {KEY: {"kind": "curve", "frame": frame, "scan": None}},
        **AXES,
    }
    return [line], settings, "shapes"
