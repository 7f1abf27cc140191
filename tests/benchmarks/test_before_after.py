import json
import subprocess
import sys
from pathlib import Path

import before_after
import nibabel as nib
import numpy as np
import pytest
from comparison import inputs, worker


def answer(**changes):
    told = {
        "names": ["a", "b"],
        "status": ["found", "absent"],
        "positions": [[0.0, 0, 0], [1, 2, 3]],
        "confidence": [0.9, float("nan")],
    }
    return {**told, **changes}


def test_landmarks_are_the_same_within_a_micrometre() -> None:
    near = answer(positions=[[0.0, 0, 0.0005], [1, 2, 3]])
    assert before_after.landmarks(answer(), near)["same"]
    for other in (
        answer(positions=[[0.0, 0, 0.002], [1, 2, 3]]),
        answer(status=["found", "found"]),
        answer(confidence=[0.8, float("nan")]),
    ):
        assert not before_after.landmarks(answer(), other)["same"]


def test_masks_are_the_same_in_every_voxel(tmp_path: Path) -> None:
    def answer(name: str, voxel: int, seeds: list) -> dict:
        mask = np.zeros((1, 4, 4, 4), np.uint8)
        mask[0, voxel] = 1
        np.savez(tmp_path / name, mask=mask)
        return {"mask": str(tmp_path / name), "seeds": seeds}

    one = answer("one.npz", 1, [[0.0, 0, 0, 1]])
    assert before_after.masks(one, answer("two.npz", 1, [[0.0, 0, 0, 1]]))["same"]
    moved = before_after.masks(one, answer("moved.npz", 2, [[0.0, 0, 0, 1]]))
    assert (moved["same"], moved["different_voxels"]) == (False, 32)
    assert not before_after.masks(one, answer("without.npz", 1, []))["same"]


def test_transforms_are_compared_where_the_scan_is(tmp_path: Path) -> None:
    scan = tmp_path / "scan.nii.gz"
    nib.save(nib.Nifti1Image(np.zeros((9, 9, 9), np.float32), np.diag([10.0, 10, 10, 1])), scan)
    before = {"fixed": str(scan), "transform": np.eye(4).tolist(), "confidence": 0.9}
    turned = np.eye(4)
    turned[:2, :2] = [[1, -1e-4], [1e-4, 1]]
    found = before_after.transforms(before, {**before, "transform": turned.tolist()})
    assert not found["same"]
    assert found["largest_mm"] == pytest.approx(np.linalg.norm([72, 72]) * 1e-4)
    assert before_after.transforms(before, before)["same"]


def test_a_posed_head_lies_where_its_pose_says(tmp_path: Path) -> None:
    values = np.zeros((24, 24, 24))
    values[12, 12, 12] = 100.0
    source, posed = tmp_path / "head.nii.gz", tmp_path / "posed.nii.gz"
    nib.save(nib.Nifti1Image(values, np.diag([4.0, 4, 4, 1])), source)
    inputs._pose(source, posed, turn=30.0, rng=np.random.default_rng(0))
    moved = nib.load(posed).get_fdata()
    assert moved.shape == values.shape
    place = np.argwhere(moved > 0).mean(axis=0) * 4
    assert 1 < np.linalg.norm(place - 48) < 40


def test_a_worker_answers_and_goes_on_learning(tmp_path: Path) -> None:
    (tmp_path / "edition.py").write_text(
        "class Counter:\n"
        "    def train_step(self): print('noise'); self.steps = getattr(self, 'steps', 0) + 1\n"
        "counter = Counter()\n"
        "def learner(name, data): return counter\n"
        "def steps(): return {'steps': counter.steps}\n"
    )
    requests = [
        {"call": "train", "name": "any", "steps": 2, "data": {}},
        {"call": "train", "name": "any", "steps": 3, "data": {}},
        {"call": "steps"},
    ]
    ended = subprocess.run(
        [sys.executable, worker.__file__, "edition"],
        input="\n".join(map(json.dumps, requests)),
        env={"PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
    )
    answers = [json.loads(line) for line in ended.stdout.splitlines()]
    assert answers[-1]["steps"] == 5
    assert all(told["cpu_seconds"] >= 0 for told in answers)
