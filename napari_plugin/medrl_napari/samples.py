"""Sample data: a real head MRI, and a search in it that was recorded."""

from __future__ import annotations

from functools import lru_cache
from importlib.resources import as_file, files

import napari
import numpy as np
import torch
from monai.data.meta_tensor import MetaTensor

from medrl.cli.demo import load_template
from medrl.trajectory import Trajectory, read_trajectory
from medrl_napari.agents import AgentsView, trajectory_layers
from medrl_napari.points import points_layer
from medrl_napari.scans import LayerData, add, frame_in, image_layer, show
from medrl_napari.space import Frame

#: The search of the model brain-t1 in the sample, written by `napari_plugin/record_search.py`.
RECORDED = "mni152_t1.trajectory.json"
_TITLE = "MNI152 T1"
#: How the outcome of an agent begins whose landmark is not in the scan.
_ABSENT = "absent"


def head() -> list[LayerData]:
    """The MNI152 T1 template that nilearn brings, 1 mm.

    Raises:
        MedrlError: If nilearn is not installed.
    """
    shown = show(sample_scan(), frame=frame_in(napari.current_viewer()))
    return [image_layer(shown, name=_TITLE)]


def head_with_search() -> list[LayerData]:
    """The same head, the agents that searched it, with a slider, and what they found.

    Raises:
        MedrlError: If nilearn is not installed.
    """
    viewer = napari.current_viewer()
    (scan,) = head()
    frame = scan[1]["metadata"]["medrl"].frame
    trajectory = recorded_search()
    if viewer is None:
        agents = trajectory_layers(trajectory, frame)
        return [scan, *agents, landmarks_layer(trajectory, frame)]
    # The agents' windows follow the slider, which a list of layers cannot.
    add(viewer, scan)
    AgentsView(viewer, frame).show(trajectory)
    return [landmarks_layer(trajectory, frame)]


def landmarks_layer(trajectory: Trajectory, frame: Frame, *, name: str = "landmarks") -> LayerData:
    """What the agents of a trajectory found, as named points.

    Args:
        trajectory: Of the system "landmark".
        frame: The viewer's.
        name: What to call the layer.
    """
    found = [
        agent
        for agent in trajectory.agents
        if agent.answer_world is not None and not agent.outcome.startswith(_ABSENT)
    ]
    positions = np.array([agent.answer_world for agent in found]).reshape(-1, 3)
    sure = [np.nan if agent.confidence is None else agent.confidence for agent in found]
    names = [agent.name for agent in found]
    short = [own.removesuffix("_centroid").replace("_", " ") for own in names]
    return points_layer(
        names,
        positions,
        frame,
        name=name,
        features={"confidence": sure, "short": short},
        text={"string": "{short}", "size": 7, "color": "white", "translation": (0, -4, 0)},
    )


@lru_cache(maxsize=1)
def sample_scan() -> MetaTensor:
    """The head as a scan (1, I, J, K), its affine voxel to RAS mm.

    Raises:
        MedrlError: If nilearn is not installed.
    """
    template = load_template()
    volume = torch.from_numpy(np.asarray(template.dataobj, dtype=np.float32))[None]
    scan = MetaTensor(volume, affine=torch.from_numpy(template.affine.astype(np.float64)))
    scan.meta["filename_or_obj"] = "mni152_t1"
    return scan


def recorded_search() -> Trajectory:
    """What the agents of brain-t1 did in the sample."""
    with as_file(files("medrl_napari") / "samples" / RECORDED) as path:
        return read_trajectory(path)
