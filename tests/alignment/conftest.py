"""Heads whose points are known: expert points instead of what agents would find."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from monai.data.meta_tensor import MetaTensor

from medrl import read
from medrl.alignment.align import Aligner
from medrl.landmark.detection import Detection, Landmark
from medrl.results.provenance import provenance
from medrl.trajectory import AgentPath, Trajectory
from medrl.volume.space import apply_affine
from medrl_datasets.afids_templates import DATASET

Points = dict[str, np.ndarray]
HEAD = "MNI152Lin_T1w"


class Expert:
    """A detector that knows where the points are, whatever it is given."""

    def __init__(self, points: Points, **changed: tuple[str, float]) -> None:
        self.points = points
        self.changed = changed
        self.landmark_names = tuple(points)
        self.manifest = {"name": "expert", "settings": {}}

    def detect(self, scan, *, landmarks=None, box=None, progress=None, watch=None) -> Detection:
        """What a landmark detector says."""
        scan = scan if isinstance(scan, MetaTensor) else read(scan)
        found, paths = [], []
        for name, place in self.points.items():
            status, sure = self.changed.get(name, ("found", 0.95))
            found.append(Landmark(name, place, status, sure, ""))
            one = np.ones(1)
            agent = AgentPath(name, 0, place[None], one, np.array([-1]), one)
            paths.append(agent)
        known = provenance(self.manifest, scan)
        trajectory = Trajectory("landmark", tuple(paths), known)
        return Detection(tuple(found), trajectory, ("a remark",), 0.1, scan)

    def detect_many(self, scans, *, batch_size=8) -> list[Detection]:
        """Likewise."""
        return [self.detect(scan) for scan in scans]


@pytest.fixture(scope="session")
def templates(data_root: Path) -> dict[str, Points]:
    """Expert points of five templates, RAS mm."""
    return DATASET.landmarks(data_root / "afids_templates")


@pytest.fixture(scope="session")
def head_file(data_root: Path) -> Path:
    """A template of a head, 2 mm."""
    return data_root / "afids_templates" / "images" / f"{HEAD}.nii.gz"


@pytest.fixture
def points(templates: dict[str, Points]) -> Points:
    """The expert points of that head."""
    return dict(templates[HEAD])


@pytest.fixture
def aligner() -> Callable[..., Aligner]:
    """Makes an aligner of known points."""
    return lambda points, **changed: Aligner(Expert(points, **changed))


def moved(points: Points, matrix: np.ndarray) -> Points:
    """Points elsewhere."""
    return {name: apply_affine(matrix, place) for name, place in points.items()}
