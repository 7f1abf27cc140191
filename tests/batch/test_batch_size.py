"""`detect` over several scans at once, in a worker process, against each by itself."""

import csv

import nibabel as nib
import numpy as np
import pytest

from medrl.batch.discover import discover
from medrl.batch.run import run
from medrl.batch.task import SystemTask
from medrl.engines.local import LocalEngine
from medrl.landmark.detect import LandmarkDetector
from medrl.landmark.system import DetectOptions
from medrl.systems import by_verb
from medrl.volume.read import read

WANTED = ("Putamen_L_centroid", "Thalamus_R_centroid")


def test_scans_that_go_together_have_the_results_that_they_have_alone(tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    chance = np.random.default_rng(2)
    for number, shape in enumerate([(40, 50, 44), (44, 40, 40), (48, 48, 52)]):
        grid = np.meshgrid(*[np.linspace(-1, 1, n) for n in shape], indexing="ij")
        values = np.exp(-2 * sum(axis**2 for axis in grid)) * (0.5 + chance.random(shape))
        image = nib.Nifti1Image((1000 * values).astype(np.int16), np.diag([2.0, 2.0, 2.0, 1.0]))
        image.to_filename(folder / f"scan{number}.nii.gz")
    (folder / "damaged.nii.gz").write_bytes(b"no NIfTI at all")
    air = np.where(chance.random((40, 40, 40)) < 0.4, -1000, 40).astype(np.int16)
    nib.Nifti1Image(air, np.diag([2.0, 2.0, 2.0, 1.0])).to_filename(folder / "ct.nii.gz")

    task = SystemTask("landmark", "brain-t1", DetectOptions(WANTED), picture=False, batch_size=5)
    out = tmp_path / "out"
    summary = run(task, discover(folder, by_verb("detect")), out, LocalEngine(1))
    assert (summary.done, summary.failed) == (3, 2)
    with (out / "failures.csv").open() as stream:
        why = {row["case"]: row["reason"] for row in csv.DictReader(stream)}
    assert set(why) == {"damaged", "ct"}
    assert "looks like a CT" in why["ct"]

    detector = LandmarkDetector.load("brain-t1")
    alone = {
        (f"scan{n}", landmark.name): landmark
        for n in range(3)
        for landmark in detector.detect(
            read(folder / f"scan{n}.nii.gz"), landmarks=WANTED
        ).landmarks
    }
    with (out / "results.csv").open() as stream:
        table = {(row["case"], row["landmark"]): row for row in csv.DictReader(stream)}
    assert set(table) == set(alone)
    for key, landmark in alone.items():
        assert table[key]["status"] == landmark.status
        if landmark.status != "absent":
            place = [float(table[key][axis]) for axis in "xyz"]
            assert place == pytest.approx(landmark.position_world, abs=1e-3)
    # How many go together is no part of what the results are.
    again = SystemTask("landmark", "brain-t1", DetectOptions(WANTED), picture=False, batch_size=1)
    assert again.fingerprint() == task.fingerprint()
