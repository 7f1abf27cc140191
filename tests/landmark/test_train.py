"""The whole recipe on scans made for it: it learns, resumes and reproduces."""

import json
from dataclasses import replace

import nibabel as nib
import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter

from medrl.data.augment import Augmentation
from medrl.engines.local import LocalEngine
from medrl.errors import MedrlError
from medrl.landmark.data import LabelledScan
from medrl.landmark.detect import LandmarkDetector
from medrl.landmark.learner import LearnerSettings, ScaleLearner
from medrl.landmark.train import TrainSettings, train
from medrl.volume.read import read
from tests.rl.resume import assert_resumes, assert_survives_kill

STILL = Augmentation(pose_probability=0, crop_probability=0.2, scanner_probability=0.2)
SMALL = LearnerSettings(
    spacings=(2.0, 8.0),
    window=9,
    channels=(8, 16),
    features=32,
    batch=64,
    slots=6,
    refresh_every=8,
    agents=32,
    replay=2048,
    augmentation=STILL,
)


def blob_scan(rng, shape=(32, 36, 30)):
    """A bright and a dark blob at random places (voxels) in noise."""
    points = rng.uniform(8, np.array(shape) - 8, size=(2, 3))
    volume = np.zeros(shape, dtype=np.float32)
    for point, height in zip(points, (1.0, -0.5), strict=True):
        grid = np.stack(np.meshgrid(*[np.arange(n) for n in shape], indexing="ij"), -1)
        volume += height * np.exp(-(((grid - point) / 4) ** 2).sum(-1)).astype(np.float32)
    return 100 * volume + gaussian_filter(rng.normal(size=shape), 1).astype(np.float32) + 60, points


@pytest.fixture(scope="module")
def datalist(tmp_path_factory):
    folder = tmp_path_factory.mktemp("blobs")
    rng = np.random.default_rng(0)
    content = {"training": [], "validation": [], "test": []}
    for split, count in (("training", 10), ("validation", 2), ("test", 4)):
        for n in range(count):
            volume, points = blob_scan(rng)
            name = f"{split}{n}"
            nib.save(nib.Nifti1Image(volume, np.diag([2.0, 2, 2, 1])), folder / f"{name}.nii.gz")
            bright, dark = 2 * points
            lines = ["name,x,y,z", "bright,{},{},{}".format(*bright), "dark,{},{},{}".format(*dark)]
            (folder / f"{name}.csv").write_text("\n".join(lines) + "\n")
            content[split].append({"image": f"{name}.nii.gz", "landmarks": f"{name}.csv"})
    path = folder / "datalist.json"
    path.write_text(json.dumps(content))
    return path


def test_training_learns_and_the_bundle_finds_points_in_unseen_scans(datalist, tmp_path):
    settings = TrainSettings(
        name="blobs", imitation_steps=(400, 400), dqn_steps=(30, 30), learner=SMALL, seed=1
    )
    seen = []
    bundle = train(
        settings,
        data=datalist,
        out=tmp_path,
        report=lambda *event: seen.append(event[:3]),
        engine=LocalEngine(2),
    )
    assert {"2mm", "8mm", "calibration"} <= {what for what, _, _ in seen}
    assert list((tmp_path / "logs").glob("2mm/events*"))
    detector = LandmarkDetector.load(str(bundle))
    assert detector.landmark_names == ("bright", "dark")
    errors, baseline = [], []
    for case in json.loads(datalist.read_text())["test"]:
        rows = (datalist.parent / case["landmarks"]).read_text().splitlines()[1:]
        truth = {r.split(",")[0]: np.array(r.split(",")[1:], float) for r in rows}
        detection = detector.detect(read(datalist.parent / case["image"]))
        for name, point in truth.items():
            errors.append(np.linalg.norm(detection[name].position_world - point))
            baseline.append(np.linalg.norm(np.array([32.0, 36.0, 30.0]) - point))
    assert np.median(errors) < 0.25 * np.median(baseline)
    assert np.median(errors) < 4.0


def some_scans():
    rng = np.random.default_rng(5)
    scans = []
    for n in range(4):
        volume, points = blob_scan(rng)
        scans.append(
            LabelledScan(str(n), torch.from_numpy(volume)[None], torch.from_numpy(points).float())
        )
    return scans


def learner(seed, **changes):
    return ScaleLearner(
        some_scans(),
        level=0,
        settings=replace(SMALL, **changes),
        imitation_steps=4,
        dqn_steps=4,
        seed=seed,
    )


@pytest.mark.parametrize("changes", [{}, {"dueling": False, "double": False, "reward": "squared"}])
def test_a_seed_reproduces_both_phases(changes):
    torch.set_num_threads(1)
    runs = []
    for seed in (3, 3, 4):
        one = learner(seed, **changes)
        runs.append([one.train_step() for _ in range(one.total_steps)])
    assert runs[0] == runs[1]
    assert runs[0] != runs[2]
    assert set(runs[0][-1]) == {"td", "values", "finish"}


def some_learner():
    """As the process that is killed makes it, and the one after it."""
    return learner(0, slots=3, refresh_every=3, agents=8, batch=16)


def test_a_scale_survives_a_killed_process(tmp_path):
    assert_survives_kill(some_learner, tmp_path, kill_at=5)


@pytest.mark.parametrize("interrupt_at", [2, 4, 6])
def test_a_scale_resumes_to_the_same_bits(tmp_path, interrupt_at):
    assert_resumes(some_learner, tmp_path, interrupt_at=interrupt_at)


def test_an_interrupted_training_ends_with_the_same_model(datalist, tmp_path):
    settings = TrainSettings(
        name="b", imitation_steps=(120, 20), dqn_steps=(5, 0), learner=SMALL, seed=1
    )
    train(settings, data=datalist, out=tmp_path / "whole")
    with pytest.raises(MedrlError, match="holds checkpoints already"):
        train(settings, data=datalist, out=tmp_path / "whole")

    def interrupt(what, done, *_):
        if what == "2mm" and done == 120:
            raise KeyboardInterrupt

    parts = tmp_path / "parts"
    with pytest.raises(KeyboardInterrupt):
        train(settings, data=datalist, out=parts, report=interrupt)
    seen = []
    bundle = train(
        replace(settings, resume=True),
        data=datalist,
        out=parts,
        report=lambda what, done, *_: seen.append((what, done)),
    )
    assert ("2mm", 100) not in seen
    assert ("2mm", 125) in seen
    same = (tmp_path / "whole" / "b" / "model.safetensors").read_bytes()
    assert (bundle / "model.safetensors").read_bytes() == same
    other = replace(settings, resume=True, learner=replace(SMALL, batch=32))
    with pytest.raises(MedrlError, match=r"other settings \(batch: 64, now 32\)"):
        train(other, data=datalist, out=parts)


def test_steps_for_a_missing_scale_are_refused(datalist, tmp_path):
    with pytest.raises(MedrlError, match="one number for each of 2 scales"):
        train(TrainSettings(learner=SMALL), data=datalist, out=tmp_path)
