"""The shipped model on real heads it was not trained on, and what the detector refuses."""

import csv
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from monai.data.meta_tensor import MetaTensor
from scipy.spatial.transform import Rotation

from medrl.errors import MedrlError
from medrl.landmark.detect import LandmarkDetector
from medrl.volume.read import read

SUBJECTS = 3


@pytest.fixture(scope="module")
def detector():
    return LandmarkDetector.load("brain-t1")


@pytest.fixture(scope="module")
def heads(data_root):
    """Validation subjects with their landmarks in world RAS mm."""
    root = data_root / "ixi_brain_t1"
    with (root / "splits.csv").open() as file:
        names = [r["subject"] for r in csv.DictReader(file) if r["split"] == "val"][:SUBJECTS]
    truth = {name: {} for name in names}
    with (root / "landmarks.csv").open() as file:
        for row in csv.DictReader(file):
            if row["subject"] in truth:
                truth[row["subject"]][row["landmark"]] = [float(row[c]) for c in "xyz"]
    return [(read(root / "t1" / f"{name}.nii.gz"), truth[name]) for name in names]


def errors(detection, truth):
    return np.array(
        [np.linalg.norm(lm.position_world - truth[lm.name]) for lm in detection.landmarks]
    )


def positions(detection):
    return np.stack([landmark.position_world for landmark in detection.landmarks])


def test_all_landmarks_are_found_in_unseen_heads(detector, heads):
    found = [errors(detector.detect(scan), truth) for scan, truth in heads]
    assert np.mean(found) < 1.5
    assert np.max(found) < 6.0


def test_how_a_scan_is_stored_does_not_matter(detector, heads):
    scan, _ = heads[0]
    straight = positions(detector.detect(scan))
    affine = scan.affine.numpy()
    stored = scan.as_tensor().permute(0, 3, 1, 2).flip(2)
    turn = np.zeros((4, 4))  # new voxel -> old voxel
    turn[2, 0] = turn[1, 2] = turn[3, 3] = 1
    turn[0, 1], turn[0, 3] = -1, scan.shape[1] - 1
    other = MetaTensor(stored, affine=torch.from_numpy(affine @ turn))
    np.testing.assert_allclose(positions(detector.detect(other)), straight, atol=1e-3)


def test_a_tilted_scan_has_its_landmarks_in_the_same_anatomical_places(detector, heads):
    scan, truth = heads[1]
    tilt = np.eye(4)
    tilt[:3, :3] = Rotation.from_euler("xyz", [18, -15, 20], degrees=True).as_matrix()
    tilted = MetaTensor(scan.as_tensor(), affine=torch.from_numpy(tilt @ scan.affine.numpy()))
    moved = {name: tilt[:3, :3] @ point for name, point in truth.items()}
    assert errors(detector.detect(tilted), moved).mean() < 2.5


@pytest.mark.parametrize(("axis", "upper"), [(0, True), (1, False), (2, True)])
def test_half_a_head_lacks_what_it_lacks(detector, heads, axis, upper):
    right = total = 0
    for scan, truth in heads:
        size = scan.shape[axis + 1]
        start = size // 2 if upper else 0
        half = scan.as_tensor().narrow(axis + 1, start, size // 2)
        affine = scan.affine.numpy().copy()
        affine[:3, 3] += affine[:3, axis] * start
        detection = detector.detect(MetaTensor(half, affine=torch.from_numpy(affine)))
        for landmark in detection.landmarks:
            voxel = np.linalg.inv(affine) @ [*truth[landmark.name], 1]
            depth = 2.0 * min(voxel[axis] + 0.5, size // 2 - 0.5 - voxel[axis])
            if abs(depth) < 3.0:  # cut through: either answer will do
                continue
            right += (depth > 0) == (landmark.status != "absent")
            total += 1
        if any(landmark.status == "absent" for landmark in detection.landmarks):
            assert any("not in this scan's field of view" in line for line in detection.warnings)
    assert total > 40
    assert right / total >= 0.96


def test_a_landmark_mistaken_for_another_is_rejected_by_the_shape_prior(heads):
    model = LandmarkDetector.load("brain-t1").model
    names = model.names
    wrong, victim = names.index("Putamen_L_centroid"), names.index("Thalamus_R_centroid")
    for network in model.networks:
        with torch.no_grad():
            for layer, width in ((network.actions, 6), (network.finish, 4)):
                for values in (layer.weight, layer.bias):
                    heads_of = values.view(len(names), width, *values.shape[1:])
                    heads_of[victim] = heads_of[wrong]
            if network.state is not None:
                network.state.weight[victim] = network.state.weight[wrong]
                network.state.bias[victim] = network.state.bias[wrong]
    detector = LandmarkDetector(model)
    for scan, truth in heads:
        landmark = detector.detect(scan)["Thalamus_R_centroid"]
        assert landmark.status == "corrected"
        assert "where the others expect it" in landmark.note
        assert np.linalg.norm(landmark.position_world - truth["Thalamus_R_centroid"]) < 6.0
        assert landmark.confidence < 0.5


def test_what_is_asked_for_is_reported_and_the_rest_is_not(detector, heads):
    scan, _ = heads[0]
    wanted = ["Putamen_R_centroid", "CC_genu_anterior"]
    detection = detector.detect(scan, landmarks=wanted)
    assert [landmark.name for landmark in detection.landmarks] == wanted
    assert [agent.name for agent in detection.trajectory.agents] == wanted
    full = detector.detect(scan)
    for name in wanted:
        np.testing.assert_array_equal(detection[name].position_world, full[name].position_world)


def test_a_path_will_do_and_a_detection_saves_itself(detector, heads, tmp_path):
    scan, _ = heads[0]
    path = scan.meta["filename_or_obj"]
    detection = detector.detect(path, landmarks=["Putamen_R_centroid", "CC_genu_anterior"])
    assert detection.confidence == np.mean([lm.confidence for lm in detection.landmarks])
    assert detection.doubtful == ()
    assert detection.trajectory.provenance["scan"] == path
    files = detection.save(tmp_path / "new", picture=False)
    stem = path.rsplit("/", 1)[-1].removesuffix(".nii.gz")
    assert [file.name for file in files.values()] == [
        f"{stem}{ending}" for ending in (".mrk.json", ".csv", ".trajectory.json")
    ]
    missing = detector.detect_many([scan, tmp_path / "none.nii"])
    assert missing[0].landmarks
    assert "none.nii" in str(missing[1])


def test_the_networks_that_it_is_given_stay_as_they_are(heads):
    model = LandmarkDetector.load("brain-t1").model
    network = model.networks[0].train()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    LandmarkDetector(model).detect(heads[0][0])
    assert network.training
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


@pytest.mark.parametrize("laid_straight", [True, False])
def test_the_trajectory_leads_from_the_start_to_the_answer(detector, heads, laid_straight):
    scan, _ = heads[0]
    frame = detector.model.frame if laid_straight else None
    detection = LandmarkDetector(replace(detector.model, frame=frame)).detect(scan)
    center = scan.affine.numpy() @ [*(np.array(scan.shape[1:]) / 2), 1]
    for agent in detection.trajectory.agents:
        # From where it is on average, or from the middle of the scan.
        goal, near = (agent.answer_world, 20.0) if laid_straight else (center[:3], 6.0)
        assert np.abs(agent.positions_world[0] - goal).max() <= near
        assert list(agent.scales_mm) == sorted(agent.scales_mm, reverse=True)
        assert np.linalg.norm(agent.positions_world[-1] - agent.answer_world) < 8.0
        steps = np.diff(agent.positions_world, axis=0)[np.diff(agent.scales_mm) == 0]
        lengths = np.linalg.norm(steps, axis=1)
        assert np.allclose(lengths, agent.scales_mm[1:][np.diff(agent.scales_mm) == 0])


def volume(values, spacing=2.0):
    return MetaTensor(
        torch.as_tensor(values, dtype=torch.float32),
        affine=torch.diag(torch.tensor([spacing, spacing, spacing, 1.0], dtype=torch.float64)),
    )


@pytest.mark.parametrize(
    ("scan", "says"),
    [
        (volume(torch.rand(2, 40, 40, 40)), "one 3D volume"),
        (volume(torch.rand(1, 80, 80, 1)), "needs a volume, not a slice"),
        (volume(torch.full((1, 40, 40, 40), 7.0)), "constant"),
        (volume(torch.rand(1, 40, 40, 40) * torch.tensor(float("nan"))), "not numbers"),
        (volume(torch.where(torch.rand(1, 40, 40, 40) < 0.4, -1000.0, 40.0)), "looks like a CT"),
    ],
)
def test_what_cannot_be_a_head_mri_is_refused_in_one_line(detector, scan, says):
    with pytest.raises(MedrlError, match=says) as caught:
        detector.detect(scan)
    assert "\n" not in str(caught.value)


def test_unknown_names_and_models_are_refused(detector):
    with pytest.raises(MedrlError, match="does not know elbow"):
        detector.detect(volume(torch.rand(1, 40, 40, 40)), landmarks=["elbow"])
    with pytest.raises(MedrlError):
        LandmarkDetector.load("no-such-model")


def test_noise_is_not_taken_for_a_head(detector):
    torch.manual_seed(0)
    detection = detector.detect(volume(torch.rand(1, 90, 110, 90)))
    assert detection.warnings
    there = [landmark.confidence for landmark in detection.landmarks if landmark.status != "absent"]
    assert np.mean(there or [0.0]) < 0.3


def test_running_a_model_loads_no_training_library():
    program = (
        "import sys, torch\n"
        "from medrl import LandmarkDetector\n"
        "from monai.data.meta_tensor import MetaTensor\n"
        "scan = MetaTensor(torch.rand(1, 60, 60, 60), affine=torch.eye(4).double())\n"
        "LandmarkDetector.load('brain-t1').detect(scan)\n"
        # MONAI itself imports TensorBoard and matplotlib where they are installed.
        "unwanted = {'torchrl', 'tensordict', 'gymnasium', 'stable_baselines3', 'nilearn',\n"
        "            'napari', 'medrl.landmark.learner', 'medrl.rl'} & set(sys.modules)\n"
        "sys.exit(', '.join(sorted(unwanted)) or 0)\n"
    )
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
