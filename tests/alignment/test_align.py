"""Heads in their frames: files that SimpleITK and nibabel agree with, and heads turned back."""

import csv
import json
import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
import torch
from monai.data.meta_tensor import MetaTensor
from scipy.ndimage import binary_erosion
from scipy.spatial.transform import Rotation

from medrl import MedrlError, read
from medrl.alignment.system import AlignOptions
from medrl.batch.bids import Selection
from medrl.batch.discover import discover
from medrl.batch.store import Store
from medrl.batch.task import SystemTask
from medrl.cli import main
from medrl.landmark.detect import LandmarkDetector
from medrl.systems import get
from medrl.volume.points import read_points
from medrl.volume.read import write_nifti
from medrl.volume.space import apply_affine
from tests.alignment.conftest import Expert, moved

POINTS = Path(__file__).parents[2] / "recipes" / "afids-t1" / "points.csv"


def turn(degrees=(12.0, -20.0, 8.0), shift=(5.0, -12.0, 20.0)) -> np.ndarray:
    matrix = np.eye(4)
    matrix[:3, :3] = Rotation.from_euler("xyz", degrees, degrees=True).as_matrix()
    matrix[:3, 3] = shift
    return matrix


def turned(scan: MetaTensor, matrix: np.ndarray) -> MetaTensor:
    """The same head, lying otherwise in the scanner; its voxels stay."""
    affine = torch.from_numpy(matrix @ scan.affine.numpy())
    return MetaTensor(scan.as_tensor(), affine=affine, meta={"filename_or_obj": "head.nii.gz"})


@pytest.fixture(scope="module")
def saved(head_file, templates, tmp_path_factory):
    """A turned head and its files, in both frames."""
    from medrl.alignment.align import Aligner

    folder = tmp_path_factory.mktemp("aligned")
    points = moved(templates["MNI152Lin_T1w"], turn())
    scan = turned(read(head_file), turn())
    write_nifti(folder / "head.nii.gz", scan)
    aligner = Aligner(Expert(points))
    found = {}
    for to in ("acpc", "mni"):
        found[to] = aligner.align(folder / "head.nii.gz", to=to)
        found[to].save(folder, picture=to == "acpc")
    return folder, found


@pytest.mark.parametrize("to", ["acpc", "mni"])
def test_itk_resamples_to_the_same_image(saved, to):
    folder, _ = saved
    ours = sitk.ReadImage(str(folder / f"head_{to}.nii.gz"))
    scan = sitk.ReadImage(str(folder / "head.nii.gz"))
    transform = sitk.ReadTransform(str(folder / f"head_{to}.tfm"))
    theirs = sitk.GetArrayFromImage(sitk.Resample(scan, ours, transform, sitk.sitkLinear, 0.0))
    mine = sitk.GetArrayFromImage(ours)
    inside = sitk.Resample(scan * 0 + 1, ours, transform, sitk.sitkLinear, 0.0)
    inside = sitk.GetArrayFromImage(inside) > 0.999
    inside = binary_erosion(inside, iterations=2)  # rims are filled in different ways
    off = np.abs(mine - theirs)[inside] / mine.max()
    # Where MNI's axes are shorter than the scan's, medrl smooths first.
    assert off.max() < (1e-3 if to == "acpc" else 0.08)
    assert np.corrcoef(mine[inside], theirs[inside])[0, 1] > 0.999


def test_the_grid_along_the_frame_holds_the_whole_scan(saved):
    folder, found = saved
    image = nib.load(folder / "head_acpc.nii.gz")
    assert np.count_nonzero(image.affine[:3, :3] - np.diag(np.diag(image.affine))[:3, :3]) == 0
    np.testing.assert_allclose(np.diag(image.affine)[:3], 2)
    origin = np.linalg.inv(image.affine)[:3, 3]
    np.testing.assert_allclose(origin, origin.round(), atol=1e-4)
    scan = nib.load(folder / "head.nii.gz")
    ends = np.stack(np.meshgrid(*[(-0.5, n - 0.5) for n in scan.shape], indexing="ij"), -1)
    world = apply_affine(scan.affine, ends.reshape(-1, 3))
    there = apply_affine(np.linalg.inv(found["acpc"].transform_world), world)
    voxels = apply_affine(np.linalg.inv(image.affine), there)
    assert (voxels >= -0.5 - 1e-4).all()
    assert (voxels <= np.array(image.shape) - 0.5 + 1e-4).all()


def test_a_turned_head_comes_back(saved, head_file, templates, aligner):
    _, found = saved
    straight = aligner(templates["MNI152Lin_T1w"]).align(head_file)
    np.testing.assert_allclose(
        turn() @ straight.transform_world, found["acpc"].transform_world, atol=1e-4
    )
    one, other = straight.aligned().numpy()[0], found["acpc"].aligned().numpy()[0]
    assert one.shape == other.shape
    assert np.corrcoef(one.ravel(), other.ravel())[0, 1] > 0.999


def test_mni_space_has_the_grid_of_its_template(saved, data_root):
    folder, found = saved
    name = "MNI152NLin2009cAsym_T1w_brain.nii.gz"
    template = nib.load(data_root / "afids_templates" / "images" / name)
    image = nib.load(folder / "head_mni.nii.gz")
    assert image.shape == template.shape
    np.testing.assert_allclose(image.affine, template.affine)
    brain = np.asarray(template.dataobj) > 0
    values = np.asarray(image.dataobj)
    assert np.corrcoef(values[brain], np.asarray(template.dataobj)[brain])[0, 1] > 0.7
    assert 0.5 < found["mni"].fit.figures["residual_mm"] < 2.5


def test_points_and_report_tell_the_same(saved):
    folder, found = saved
    points = read_points(folder / "head_acpc.mrk.json")
    np.testing.assert_allclose(points["AC"], 0, atol=1e-4)
    np.testing.assert_allclose(
        points["PC"], (0, -found["acpc"].fit.figures["ac_pc_mm"], 0), atol=1e-4
    )
    rows = {row["name"]: row for row in csv.DictReader((folder / "head_acpc.csv").open())}
    scan = [float(rows["PC"][f"scan_{axis}"]) for axis in "xyz"]
    np.testing.assert_allclose(scan, found["acpc"].detection["PC"].position_world, atol=1e-3)
    matrix = np.loadtxt(folder / "head_acpc.matrix.txt")
    np.testing.assert_allclose(apply_affine(matrix, points["PC"]), scan, atol=1e-3)
    report = json.loads((folder / "head_acpc.report.json").read_text())
    assert report["origin"] == "AC"
    np.testing.assert_allclose(report["transform_world"], matrix)
    assert (folder / "head_acpc.png").stat().st_size > 10_000


def test_apply_takes_the_transform(saved, capsys):
    folder, found = saved
    labels = sitk.ReadImage(str(folder / "head.nii.gz")) > 0.4
    sitk.WriteImage(labels, str(folder / "mask.nii.gz"))
    line = ["apply", str(folder / "head_acpc.tfm"), str(folder / "mask.nii.gz"), "--nearest"]
    line += [
        "--reference",
        str(folder / "head_acpc.nii.gz"),
        "-o",
        str(folder / "mask_acpc.nii.gz"),
    ]
    assert main(line) == 0
    transform = sitk.ReadTransform(str(folder / "head_acpc.tfm"))
    reference = sitk.ReadImage(str(folder / "head_acpc.nii.gz"))
    theirs = sitk.GetArrayFromImage(
        sitk.Resample(labels, reference, transform, sitk.sitkNearestNeighbor)
    )
    ours = sitk.GetArrayFromImage(sitk.ReadImage(str(folder / "mask_acpc.nii.gz")))
    assert (ours != theirs).mean() < 1e-3
    # Points of the scan go the other way.
    place = found["acpc"].detection["PC"].position_world
    table = folder / "mine.csv"
    table.write_text("name,x,y,z\nPC,{},{},{}\n".format(*place))
    out = folder / "moved.csv"
    assert (
        main(["apply", str(folder / "head_acpc.tfm"), str(table), "--inverse", "-o", str(out)]) == 0
    )
    np.testing.assert_allclose(read_points(out)["PC"], found["acpc"].points_world["PC"], atol=1e-3)


def test_a_new_header_keeps_the_voxels(saved, aligner, tmp_path):
    folder, found = saved
    scan = read(folder / "head.nii.gz")
    one = aligner(_points(found)).align(scan, header=True)
    one.save(tmp_path, picture=False)
    image, before = nib.load(tmp_path / "head_acpc.nii.gz"), nib.load(folder / "head.nii.gz")
    np.testing.assert_array_equal(image.get_fdata(), before.get_fdata())
    np.testing.assert_allclose(
        image.affine, np.linalg.inv(one.transform_world) @ before.affine, atol=1e-4
    )
    np.testing.assert_allclose(image.get_qform(), image.get_sform(), atol=1e-3)


def _points(found) -> dict[str, np.ndarray]:
    return {lm.name: lm.position_world for lm in found["acpc"].detection.landmarks}


def test_voxels_as_fine_as_asked_for(saved, aligner):
    _, found = saved
    one = aligner(_points(found)).align(found["acpc"].scan, spacing=3.5).aligned()
    np.testing.assert_allclose(np.diag(one.affine), (3.5, 3.5, 3.5, 1))


@pytest.mark.parametrize(
    ("how", "line"),
    [
        ({"to": "mni", "header": True}, "shears"),
        ({"header": True, "spacing": 1.0}, "without a spacing"),
        ({"spacing": 0.0}, "at least 0.05 mm"),
        ({"spacing": float("nan")}, "at least 0.05 mm"),
        ({"spacing": 0.05}, "not fit in memory"),
        ({"to": "talairach"}, "not one of acpc, mni"),
    ],
)
def test_what_cannot_be_is_refused_in_a_line(saved, aligner, how, line):
    _, found = saved
    with pytest.raises(MedrlError, match=line):
        aligner(_points(found)).align(found["acpc"].scan, **how).aligned()


def test_doubtful_and_absent_commissures(saved, aligner):
    _, found = saved
    scan, points = found["acpc"].scan, _points(found)
    doubtful = aligner(points, AC=("found", 0.3)).align(scan)
    assert doubtful.doubts == ("AC may be wrong",)
    assert doubtful.confidence == 0.3
    assert doubtful.warnings == ("AC may be wrong", "a remark")
    with pytest.raises(MedrlError, match="PC is not in the scan"):
        aligner(points, PC=("absent", 0.0)).align(scan)


@pytest.fixture
def expert_model(monkeypatch, templates):
    """Whatever landmark model is loaded, it knows the points of the head."""
    expert = Expert(templates["MNI152Lin_T1w"])
    monkeypatch.setattr(LandmarkDetector, "load", classmethod(lambda *_, **__: expert))


def test_the_command_writes_what_it_says(expert_model, head_file, tmp_path, capsys):
    line = ["align", str(head_file), "-o", str(tmp_path), "--model", "brain-t1", "--json"]
    assert main([*line, "--to", "mni", "--spacing", "3", "--no-picture"]) == 0
    (one,) = json.loads(capsys.readouterr().out)["scans"]
    assert one["to"] == "mni"
    assert one["residual_mm"] < 2.5
    names = {path.name.removeprefix("MNI152Lin_T1w") for path in tmp_path.iterdir()}
    endings = (".nii.gz", ".tfm", ".matrix.txt", ".mrk.json", ".csv", ".report.json")
    assert names == {*(f"_mni{ending}" for ending in endings), ".trajectory.json"}
    assert all(
        any(name.endswith(ending) for ending in get("alignment").artifacts) for name in names
    )


def test_a_model_without_the_points_ends_in_a_line(head_file, tmp_path, capsys):
    assert main(["align", str(head_file), "-o", str(tmp_path), "--model", "brain-t1"]) != 0
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert "does not know AC and PC" in line
    assert main(["align", str(head_file), "-o", str(tmp_path), "--model", "rigid-head"]) != 0
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert "registration model" in line


def test_a_bids_dataset_by_batch(expert_model, head_file, tmp_path):
    folder = tmp_path / "bids" / "sub-01" / "anat"
    folder.mkdir(parents=True)
    (tmp_path / "bids" / "dataset_description.json").write_text(
        json.dumps({"Name": "one", "BIDSVersion": "1.9.0"})
    )
    shutil.copy(head_file, folder / "sub-01_T1w.nii.gz")
    store, system = Store(tmp_path / "out"), get("alignment")
    (case,) = discover(tmp_path / "bids", system, selection=Selection(suffixes=("T1w",)))
    task = SystemTask("alignment", "brain-t1", AlignOptions(header=True))
    processor = task.open(1, store)
    (result,) = processor.work([case], [processor.read(case)], lambda _: None)
    processor.write(case, result, {})
    names = {path.name for path in (tmp_path / "out").rglob("sub-01_*") if path.is_file()}
    assert "sub-01_space-ACPC_desc-medrl_T1w.nii.gz" in names
    assert "sub-01_from-T1w_to-ACPC_mode-image_desc-medrl_xfm.tfm" in names
    assert "sub-01_space-ACPC_desc-medrl_landmarks.tsv" in names
    assert "sub-01_space-T1w_desc-medrl_agents.trajectory.json" in names


def test_the_model_that_ships_lays_a_head_straight_however_it_lies(data_root):
    """A validation head: AC and PC near the points that were carried to it, also when turned."""
    from medrl.alignment.align import Aligner

    aligner = Aligner.load()
    subject = "IXI049-HH-1358"
    scan = read(data_root / "ixi_brain_t1" / "t1" / f"{subject}.nii.gz")
    carried = {
        row["landmark"]: np.array([float(row[axis]) for axis in "xyz"])
        for row in csv.DictReader(POINTS.open())
        if row["subject"] == subject
    }
    straight = aligner.align(scan)
    back = np.linalg.inv(straight.transform_world)
    off = [np.linalg.norm(apply_affine(back, carried["AC"])), carried["PC"] - carried["AC"]]
    assert off[0] < 3
    ahead = back[:3, :3] @ off[1]
    assert abs(ahead[0]) < 2
    assert np.degrees(np.arctan2(abs(ahead[2]), -ahead[1])) < 6
    matrix = turn((100.0, -40.0, 60.0))
    found = aligner.align(turned(scan, matrix))
    apart = np.linalg.inv(matrix @ straight.transform_world) @ found.transform_world
    assert np.degrees(Rotation.from_matrix(apart[:3, :3]).magnitude()) < 3
    assert np.linalg.norm(apart[:3, 3]) < 2
