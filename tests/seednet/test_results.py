"""Files of a segmentation, read by others: nibabel, SimpleITK, Slicer's format."""

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk

from medrl.errors import MedrlError
from medrl.seednet.results import object_rows, write_results
from medrl.seednet.seeds import read_seeds
from medrl.seednet.session import SeedSession
from medrl.trajectory import read_trajectory
from medrl.volume.read import read, write_nifti


@pytest.fixture
def done(model, make_scan) -> SeedSession:
    session = SeedSession(model)
    session.set_scan(make_scan("oblique"))
    session.add_seed(make_scan.center, "fg")
    session.accept_all()
    return session


def test_files(done, make_scan, tmp_path: Path):
    paths = write_results(tmp_path, "scan", done, picture=False)
    names = ["scan.seeds.mrk.json", "scan.seg.nii.gz", "scan.trajectory.json"]
    assert sorted(path.name for path in tmp_path.iterdir()) == names
    assert sorted(path.name for path in paths.values()) == names

    affine, shape = make_scan.grids["oblique"]
    image = nib.load(paths["mask"])
    assert image.get_data_dtype() == np.uint8
    assert image.shape == shape
    np.testing.assert_allclose(image.affine, affine, atol=1e-4)
    mask = np.asarray(image.dataobj)
    assert set(np.unique(mask)) == {0, 1}
    # One file in two libraries: the ball's centre, in RAS and in LPS.
    middle = nib.affines.apply_affine(image.affine, np.argwhere(mask)).mean(axis=0)
    shapes = sitk.LabelShapeStatisticsImageFilter()
    shapes.Execute(sitk.ReadImage(str(paths["mask"])))
    np.testing.assert_allclose(np.array(shapes.GetCentroid(1)) * (-1, -1, 1), middle, atol=0.01)
    assert np.linalg.norm(middle - make_scan.center) < 1.5
    (row,) = object_rows(done)
    assert row["volume_ml"] * 1000 == pytest.approx(shapes.GetPhysicalSize(1), rel=1e-4)
    assert row["volume_ml"] == pytest.approx(4 / 3 * np.pi * 1.4**3, rel=0.15)

    seeds = read_seeds(paths["seeds"])
    assert [seed.who for seed in seeds] == [seed.who for seed in done.seeds]
    for seed, other in zip(seeds, done.seeds, strict=True):
        np.testing.assert_allclose(seed.points_world, other.points_world, atol=1e-6)
    (agent,) = read_trajectory(paths["trajectory"]).agents
    assert len(agent) == row["agent_seeds"] == len(seeds) - 1
    assert row["expected_gain"] == pytest.approx(agent.values.sum())


def test_the_mask_lies_on_a_scan_with_two_forms(
    model, make_scan, tmp_path: Path, with_two_forms, lies_on
):
    write_nifti(tmp_path / "scan.nii", make_scan("oblique"))
    with_two_forms(tmp_path / "scan.nii")
    with pytest.warns(UserWarning, match="sform .* and qform .* disagree"):
        scan = read(tmp_path / "scan.nii")
    session = SeedSession(model)
    session.set_scan(scan)
    session.add_seed(make_scan.center, "fg")
    (tmp_path / "out").mkdir()
    paths = write_results(tmp_path / "out", "scan", session, picture=False)
    lies_on(paths["mask"], tmp_path / "scan.nii")


def test_several_objects(done, make_scan, tmp_path: Path):
    done.new_object("half/right", target="half")
    done.add_seed(make_scan.center + np.array([8.0, 0, 0]), "fg")
    paths = write_results(tmp_path, "scan", done, picture=False)
    lists = {kind: path.name for kind, path in paths.items() if kind.startswith("seeds")}
    assert lists == {
        "seeds ball": "scan.1-ball.seeds.mrk.json",
        "seeds half/right": "scan.2-half-right.seeds.mrk.json",
    }
    assert {1, 2} <= set(np.unique(nib.load(paths["mask"]).dataobj))
    assert [row["label"] for row in object_rows(done)] == [1, 2]
    record = json.loads(paths["trajectory"].read_text())
    assert [agent["name"] for agent in record["agents"]] == ["ball", "half/right"]


def test_nothing_is_written_without_a_seed(model, make_scan, tmp_path: Path):
    session = SeedSession(model)
    session.set_scan(make_scan())
    with pytest.raises(MedrlError, match="place a foreground seed first"):
        write_results(tmp_path, "scan", session)
    assert list(tmp_path.iterdir()) == []
