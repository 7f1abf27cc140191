"""`medrl apply`: scans moving to fixed, points fixed to moving, and back."""

import csv
import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
from scipy.ndimage import gaussian_filter
from scipy.spatial.transform import Rotation

from medrl.volume.points import read_markups, read_points
from medrl.volume.read import read
from medrl.volume.space import apply_affine
from medrl.volume.transform_files import write_transform

SHAPE = (22, 24, 20)
NAMES = {"a": (4.0, -5.0, 6.0), "b": (-12.5, 3.25, 0.0)}


@pytest.fixture
def matrix() -> np.ndarray:
    matrix = np.eye(4)
    turn = Rotation.from_euler("xyz", (8, -12, 15), degrees=True)
    matrix[:3, :3] = turn.as_matrix()
    matrix[:3, 3] = (5, -3, 4)
    return matrix


@pytest.fixture
def transform(tmp_path: Path, matrix: np.ndarray) -> Path:
    write_transform(tmp_path / "moving_to_fixed.tfm", matrix, kind="rigid")
    return tmp_path / "moving_to_fixed.tfm"


def image(path: Path, spacing: float, *, labels: bool = False) -> Path:
    noise = gaussian_filter(np.random.default_rng(0).normal(size=SHAPE), 2)
    affine = np.diag([spacing, spacing, spacing, 1.0])
    affine[:3, 3] = -spacing * (np.array(SHAPE) - 1) / 2
    voxels = np.digitize(noise, (-0.05, 0.0, 0.05)) * 7 if labels else 100 + 1000 * noise
    nib.save(nib.Nifti1Image(voxels.astype(np.float32), affine), path)
    return path


@pytest.fixture
def fixed(tmp_path: Path) -> Path:
    return image(tmp_path / "fixed.nii.gz", 2.0)


@pytest.fixture
def moving(tmp_path: Path) -> Path:
    return image(tmp_path / "moving.nii.gz", 2.2)


def by_simpleitk(scan: Path, grid: Path, transform, how=sitk.sitkLinear) -> np.ndarray:
    moved = sitk.Resample(sitk.ReadImage(str(scan)), sitk.ReadImage(str(grid)), transform, how)
    return sitk.GetArrayFromImage(moved).transpose(2, 1, 0)


def assert_one_line(ended, code: int, *parts: object) -> None:
    assert (ended.code, ended.out) == (code, "")
    (line,) = ended.err.splitlines()
    assert line.startswith("medrl: error: ")
    assert all(str(part) in line for part in parts)


@pytest.mark.parametrize("inverse", [False, True])
def test_scan_onto_a_grid(medrl, transform: Path, fixed: Path, moving: Path, inverse: bool):
    out = transform.with_name("out.nii.gz")
    itk = sitk.ReadTransform(str(transform))
    source, grid = (fixed, moving) if inverse else (moving, fixed)
    options = ("--inverse",) if inverse else ()
    ended = medrl("apply", transform, source, "-o", out, "--reference", grid, *options)
    assert (ended.code, ended.err) == (0, "")
    assert f"{source}: {'fixed to moving' if inverse else 'moving to fixed'}" in ended.out
    assert f"wrote {out}" in ended.out
    wanted = by_simpleitk(source, grid, itk.GetInverse() if inverse else itk)
    there = nib.load(out)
    np.testing.assert_allclose(there.affine, nib.load(grid).affine, atol=1e-5)
    inner = (slice(7, -7),) * 3
    # Where resolution is lost, medrl smooths first: 1 % of the grey values.
    np.testing.assert_allclose(there.get_fdata()[inner], wanted[inner], atol=3)


def test_labels_stay_labels(medrl, transform: Path, fixed: Path, tmp_path: Path):
    labels = image(tmp_path / "labels.nii.gz", 2.2, labels=True)
    ended = medrl("apply", transform, labels, "-o", tmp_path, "--reference", fixed, "--nearest")
    assert ended.code == 0, ended.err
    there = nib.load(tmp_path / "labels_moved.nii.gz")
    assert there.get_data_dtype() == np.int32
    itk = sitk.ReadTransform(str(transform))
    wanted = by_simpleitk(labels, fixed, itk, sitk.sitkNearestNeighbor)
    assert (there.get_fdata() == wanted).mean() > 0.999


@pytest.mark.parametrize("ending", [".nii.gz", ".nrrd", ".mha"])
@pytest.mark.parametrize("onto", [True, False])
@pytest.mark.parametrize(
    ("kind", "ids"),
    [
        (np.uint8, (1, 2, 255)),
        (np.int16, (-5, 7, 32767)),
        (np.int32, (576073732, 182305713, 614454277)),
        (np.uint32, (16777217, 2**31 + 1, 2**32 - 1)),
        (np.int64, (-(2**53) - 1, 2**53 + 1, 2**62 + 1)),
    ],
    ids=lambda value: value.__name__ if isinstance(value, type) else "",
)
def test_every_label_comes_as_it_is(medrl, tmp_path: Path, ending, onto: bool, kind, ids):
    """SimpleITK wrote them; numpy compares."""
    labels = np.zeros((6, 5, 4), dtype=kind)
    labels[0, 1], labels[2:4], labels[5, :, 2:] = ids
    source = tmp_path / f"labels{ending}"
    volume = sitk.GetImageFromArray(labels.transpose(2, 1, 0))
    volume.SetSpacing((1.0, 2.0, 3.0))
    sitk.WriteImage(volume, str(source))
    np.savetxt(tmp_path / "id.txt", np.eye(4))
    run = ("apply", tmp_path / "id.txt", source, "-o", tmp_path / "out.nii.gz")
    ended = medrl(*run, *(("--reference", source, "--nearest") if onto else ()))
    assert ended.code == 0, ended.err
    there = np.asarray(nib.load(tmp_path / "out.nii.gz").dataobj)
    assert there.dtype.kind == "i"
    assert (there == labels.astype(np.int64)).all()


def test_fractions_are_not_rounded(medrl, moving: Path, transform: Path, tmp_path: Path):
    """No label map: the nearest voxel's value all the same."""
    run = ("apply", transform, moving, "-o", tmp_path / "out.nii.gz")
    assert medrl(*run, "--reference", moving, "--nearest").code == 0
    there = nib.load(tmp_path / "out.nii.gz").get_fdata()
    known = np.append(np.unique(nib.load(moving).get_fdata()), 0)
    assert np.isin(there, known).all()


def test_scan_in_its_own_grid(medrl, transform: Path, moving: Path, matrix, tmp_path: Path):
    """Not one voxel changes; each is where the same anatomy is in the fixed scan."""
    ended = medrl("apply", transform, moving, "-o", tmp_path / "new" / "folder")
    assert ended.code == 0, ended.err
    there = read(tmp_path / "new" / "folder" / "moving_moved.nii.gz")
    before = read(moving)
    np.testing.assert_array_equal(there.numpy(), before.numpy())
    np.testing.assert_allclose(matrix @ there.affine.numpy(), before.affine.numpy(), atol=1e-4)


def test_points_go_the_other_way(medrl, transform: Path, matrix, tmp_path: Path):
    """A table; ITK maps the same points to the same places."""
    table = tmp_path / "points.csv"
    rows = [f"{name},{x},{y},{z}" for name, (x, y, z) in NAMES.items()]
    table.write_text("\n".join(["name,x,y,z", *rows]))
    ended = medrl("apply", transform, table, "-o", tmp_path)
    assert ended.code == 0, ended.err
    assert f"{table}: 2 points, fixed to moving" in ended.out
    itk = sitk.ReadTransform(str(transform))
    for row in csv.DictReader((tmp_path / "points_moved.csv").open()):
        x, y, z = NAMES[row["name"]]
        wanted = itk.TransformPoint((-x, -y, z))
        found = (-float(row["x"]), -float(row["y"]), float(row["z"]))
        np.testing.assert_allclose(found, wanted, atol=1e-3)
    back = medrl(
        *("apply", transform, tmp_path / "points_moved.csv", "--inverse"),
        *("-o", tmp_path / "back.csv"),
    )
    assert "2 points, moving to fixed" in back.out
    for name, point in read_points(tmp_path / "back.csv").items():
        np.testing.assert_allclose(point, NAMES[name], atol=1e-3)


def test_markups_keep_what_they_are(medrl, transform: Path, matrix, tmp_path: Path):
    """A list and a curve, RAS and LPS, names twice: only positions change."""
    lists = [
        ("Fiducial", "LPS", [("a", "noted", (1, 2, 3)), ("a", "", (4, 5, 6))]),
        ("Curve", "RAS", [("c", "", (7, 8, 9))]),
    ]
    content = {
        "markups": [
            {
                "type": kind,
                "name": kind.lower(),
                "coordinateSystem": system,
                "controlPoints": [
                    {"label": label, "description": text, "position": xyz}
                    for label, text, xyz in points
                ],
            }
            for kind, system, points in lists
        ]
    }
    source = tmp_path / "set.mrk.json"
    source.write_text(json.dumps(content))
    ended = medrl("apply", transform, source, "-o", tmp_path)
    assert ended.code == 0, ended.err
    before, after = read_markups(source), read_markups(tmp_path / "set_moved.mrk.json")
    for old, new in zip(before, after, strict=True):
        assert (new.kind, new.name, new.labels) == (old.kind, old.name, old.labels)
        assert new.descriptions == old.descriptions
        moved = apply_affine(matrix, old.points_world)
        np.testing.assert_allclose(new.points_world, moved, atol=1e-9)


@pytest.mark.parametrize("inverse", [False, True])
def test_fsl_needs_two_scans(medrl, fixed: Path, moving: Path, matrix, tmp_path, inverse: bool):
    """It finds them where they are named, in their roles."""
    fsl, itk = tmp_path / "fsl.mat", tmp_path / "itk.tfm"
    write_transform(fsl, matrix, form="fsl", fixed=read(fixed), moving=read(moving))
    write_transform(itk, matrix)
    source, grid = (fixed, moving) if inverse else (moving, fixed)
    options = ("--reference", grid, *(("--inverse",) if inverse else ()))
    for transform in (fsl, itk):
        out = transform.with_suffix(".nii.gz")
        assert medrl("apply", transform, source, "-o", out, *options).code == 0
    voxels = [nib.load(tmp_path / f"{name}.nii.gz").get_fdata() for name in ("fsl", "itk")]
    np.testing.assert_allclose(*voxels, atol=0.1)
    points = tmp_path / "p.csv"
    points.write_text("name,x,y,z\na,1,2,3\n")
    assert_one_line(medrl("apply", fsl, points, "-o", tmp_path), 1, fsl, "two scans")
    named = ("--form", "fsl")
    assert_one_line(medrl("apply", fsl, points, "-o", tmp_path, *named), 1, fsl, "two scans")
    scans = ("--fixed", fixed, "--moving", moving)
    assert medrl("apply", fsl, points, "-o", tmp_path / "q.csv", *scans).code == 0
    found = read_points(tmp_path / "q.csv")["a"]
    np.testing.assert_allclose(found, apply_affine(matrix, (1, 2, 3)), atol=1e-3)


def test_what_a_transform_was_taken_for_is_said(medrl, fixed, moving, matrix, tmp_path: Path):
    """The numbers of greedy in a .mat; and as the user says."""
    mat, txt = tmp_path / "affine.mat", tmp_path / "affine.txt"
    for path in (mat, txt):
        np.savetxt(path, matrix)
    run = (moving, "--reference", fixed, "-o")
    ended = {p: medrl("apply", p, *run, p.with_suffix(f"{p.suffix}.nii.gz")) for p in (mat, txt)}
    for path, one in ended.items():
        assert one.code == 0, one.err
        assert f"{path}: taken as a 4x4 world matrix" in one.out
    assert f"medrl: note: {mat}: taken as a 4x4 world matrix" in ended[mat].err
    assert ended[mat].err.endswith("name its form if that is wrong: fsl (--form)\n")
    assert ended[txt].err == ""
    found = [nib.load(f"{p}.nii.gz").get_fdata() for p in (mat, txt)]
    np.testing.assert_array_equal(*found)
    named = medrl("apply", mat, *run, tmp_path / "a.nii.gz", "--form", "fsl")
    assert (named.code, named.err) == (0, "")
    assert "taken as a matrix of FSL's FLIRT, moving to fixed" in named.out
    assert np.abs(nib.load(tmp_path / "a.nii.gz").get_fdata() - found[0]).max() > 1
    points = tmp_path / "p.csv"
    points.write_text("name,x,y,z\na,1,2,3\n")
    assert_one_line(medrl("apply", mat, points, "-o", tmp_path), 1, mat, "name its form")
    assert medrl("apply", mat, points, "-o", tmp_path / "q.csv", "--form", "matrix").code == 0
    moved = read_points(tmp_path / "q.csv")["a"]
    np.testing.assert_allclose(moved, apply_affine(matrix, (1, 2, 3)), atol=1e-3)


def test_points_left_out_are_named(medrl, transform: Path, tmp_path: Path):
    table = tmp_path / "t.csv"
    table.write_text("label,r,a,s,defined\nA,10,20,30,1\nB,0,0,0,0\n")
    ended = medrl("apply", transform, table, "-o", tmp_path / "out.csv")
    assert ended.code == 0
    assert f"medrl: note: {table}: points that are not placed are left out: 'B'" in ended.err
    assert list(read_points(tmp_path / "out.csv")) == ["A"]


def test_bad_usage(medrl, transform: Path, fixed: Path, moving: Path, tmp_path: Path):
    points = tmp_path / "p.csv"
    points.write_text("name,x,y,z\na,1,2,3\n")
    run = ("apply", transform)
    assert_one_line(medrl(*run, points, "-o", "x.csv", "--reference", fixed), 2, "for scans")
    assert_one_line(medrl(*run, moving, "-o", "x.nrrd"), 2, "must end in .nii.gz or .nii")
    assert_one_line(medrl(*run, points, "-o", "x.nii"), 2, "must end in .csv")
    assert_one_line(medrl(*run, moving, "-o", moving), 2, "write to another file")
    gone = tmp_path / "gone.nii.gz"
    assert_one_line(medrl(*run, gone, "-o", tmp_path), 1, gone, "no such file")
    assert_one_line(medrl("apply", gone, moving, "-o", tmp_path), 1, gone, "no such file")
    assert_one_line(medrl("apply", fixed, moving, "-o", tmp_path), 1, fixed, "ITK")
    wide = tmp_path / "wide.txt"
    np.savetxt(wide, np.diag([1.2, 1, 1, 1]))
    assert_one_line(medrl("apply", wide, moving, "-o", tmp_path), 1, moving, "--reference")
    assert not list(tmp_path.glob("*_moved*"))
