"""A GPU gives the answers of the CPU, through every public predictor."""

import numpy as np
import pytest
import torch
from monai.data.meta_tensor import MetaTensor
from scipy.spatial.transform import Rotation

import medrl

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]


@pytest.fixture(scope="module")
def head(data_root) -> MetaTensor:
    return medrl.read(data_root / "afids_templates" / "images" / "MNI152Lin_T1w.nii.gz")


def answers(model: str, ask) -> tuple[np.ndarray, np.ndarray]:
    """What a predictor says on the CPU and on the GPU."""
    there = medrl.load(model, device="cuda")
    return np.asarray(ask(medrl.load(model))), np.asarray(ask(there))


def test_landmarks(head):
    here, there = answers(
        "brain-t1", lambda predictor: [lm.position_world for lm in predictor.detect(head).landmarks]
    )
    assert np.abs(here - there).max() < 0.05


def test_landmarks_of_several_scans_together(head):
    detector = medrl.load("brain-t1", device="cuda")
    several = detector.detect_many([head, head, head], batch_size=3)
    alone = np.array([lm.position_world for lm in detector.detect(head).landmarks])
    for found in several:
        assert np.abs(np.array([lm.position_world for lm in found.landmarks]) - alone).max() < 0.05


def test_a_mask_from_one_click(head):
    here, there = answers(
        "hippocampus-t1",
        lambda predictor: predictor.segment(head, ["fg:-25.5,-21,-14"]).mask.numpy(),
    )
    assert here.sum() > 100
    assert 2 * (here * there).sum() / (here.sum() + there.sum()) > 0.999


def test_a_transform(head):
    pose = np.eye(4)
    pose[:3, :3] = Rotation.from_euler("xyz", (20, -15, 25), degrees=True).as_matrix()
    pose[:3, 3] = 8, -12, 5
    turned = MetaTensor(head.as_tensor(), affine=torch.from_numpy(pose) @ head.affine)
    here, there = answers(
        "rigid-head", lambda predictor: predictor.register(head, turned).transform_world
    )
    assert np.abs(here - pose).max() < 0.1
    assert np.abs(there - pose).max() < 0.1
