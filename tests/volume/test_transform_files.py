"""Transform files against what SimpleITK, nitransforms and the formats' definitions say of them."""

from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from monai.data.meta_tensor import MetaTensor
from scipy.io import loadmat
from scipy.spatial.transform import Rotation

from medrl.errors import MedrlError
from medrl.volume.space import apply_affine, as_transform, ras_to_lps
from medrl.volume.transform_files import (
    from_itk,
    kind_of,
    read_transform,
    to_itk,
    write_transform,
)

POINTS = np.random.default_rng(0).uniform(-90, 90, (20, 3))
CLASSES = {
    "rigid": sitk.Euler3DTransform,
    "similarity": sitk.Similarity3DTransform,
    "affine": sitk.AffineTransform,
}


def transform_of(kind: str, angles=(20.0, -35.0, 50.0)) -> np.ndarray:
    matrix = np.eye(4)
    matrix[:3, :3] = Rotation.from_euler("xyz", angles, degrees=True).as_matrix()
    if kind == "similarity":
        matrix[:3, :3] *= 1.2
    if kind == "affine":
        matrix[:3, :3] @= np.array([[1.1, 0.05, 0], [0, 0.9, -0.1], [0, 0, 1.05]])
    matrix[:3, 3] = (12.5, -40.25, 33.0)
    return matrix


def scan_of(shape, affine, name=None) -> MetaTensor:
    meta = {"filename_or_obj": name} if name else {}
    return MetaTensor(torch.zeros(1, *shape), affine=torch.tensor(affine), meta=meta)


@pytest.fixture
def fixed() -> MetaTensor:
    """Its voxels run to the left (FSL leaves its x as it is), and it is oblique."""
    turn = Rotation.from_euler("z", 12, degrees=True).as_matrix()
    affine = np.eye(4)
    affine[:3, :3] = turn @ np.diag([-1.0, 1.5, 2.0])
    affine[:3, 3] = (80, -90, -60)
    return scan_of((150, 120, 70), affine, "/data/the fixed #1.nii.gz")


@pytest.fixture
def moving() -> MetaTensor:
    """Its voxels run to the right (FSL flips its x)."""
    affine = np.diag([2.0, 2.0, 3.0, 1.0])
    affine[:3, 3] = (-70, -60, -50)
    return scan_of((64, 70, 40), affine)


@pytest.mark.parametrize("kind", ["rigid", "similarity", "affine"])
@pytest.mark.parametrize("ending", [".tfm", ".h5"])
def test_itk_resamples_as_the_matrix_says(tmp_path: Path, fixed, kind: str, ending: str):
    """SimpleITK reads the kind back, and maps LPS points where the matrix maps RAS points."""
    matrix = transform_of(kind)
    path = tmp_path / f"x{ending}"
    write_transform(path, matrix, kind=kind, fixed=fixed)
    transform = sitk.ReadTransform(str(path))
    assert type(transform) is CLASSES[kind]
    expected = ras_to_lps(apply_affine(matrix, POINTS))
    found = [transform.TransformPoint(p) for p in ras_to_lps(POINTS).tolist()]
    np.testing.assert_allclose(found, expected, atol=1e-9)
    middle = apply_affine(fixed.affine, (np.array(fixed.shape[1:]) - 1) / 2)
    np.testing.assert_allclose(transform.GetCenter(), ras_to_lps(middle), atol=1e-9)
    np.testing.assert_allclose(read_transform(path), matrix, atol=1e-12)


@pytest.mark.parametrize(
    "angles", [(0, 90, 0), (90, 0, 0), (0, 0, 180), (180, 0, 0), (0, -90, 180)], ids=str
)
@pytest.mark.parametrize("kind", ["rigid", "similarity"])
def test_quarter_and_half_turns(kind: str, angles):
    """Angles at which Euler angles and versors are not unique."""
    matrix = transform_of(kind, angles)
    there = apply_affine(from_itk(to_itk(matrix, kind=kind)), POINTS)
    np.testing.assert_allclose(there, apply_affine(matrix, POINTS), atol=0.01)


def test_composite_is_its_product(tmp_path: Path):
    first, second = transform_of("affine"), transform_of("rigid", (5, 6, 7))
    path = tmp_path / "x.tfm"
    # ITK applies the last one first.
    both = sitk.CompositeTransform([to_itk(second, kind="rigid"), to_itk(first)])
    sitk.WriteTransform(both, str(path))
    np.testing.assert_allclose(read_transform(path), second @ first, atol=1e-9)


def test_published_reference_transforms(data_root: Path):
    """MatrixOffsetTransformBase in .txt: y = A (x - c) + c + t, LPS."""
    path = data_root / "ms_multimodal/patient01/study1_T2W_intrastudy_to_FLAIR.txt"
    lines = dict(line.split(": ") for line in path.read_text().splitlines() if ": " in line)
    numbers = np.array(lines["Parameters"].split(), float)
    center = np.array(lines["FixedParameters"].split(), float)
    linear, shift = numbers[:9].reshape(3, 3), numbers[9:]
    expected = (ras_to_lps(POINTS) - center) @ linear.T + center + shift
    np.testing.assert_allclose(
        ras_to_lps(apply_affine(read_transform(path), POINTS)), expected, atol=1e-9
    )


def test_matrix_in_text(tmp_path: Path):
    matrix = transform_of("affine")
    write_transform(tmp_path / "x.txt", matrix)
    np.testing.assert_array_equal(np.loadtxt(tmp_path / "x.txt"), matrix)
    np.testing.assert_array_equal(read_transform(tmp_path / "x.txt"), matrix)


def test_ants(tmp_path: Path):
    """What ANTs writes: one affine with a centre, in a MATLAB file; nitransforms agrees."""
    nitransforms = pytest.importorskip("nitransforms")
    matrix = transform_of("rigid")
    path = tmp_path / "x.mat"
    write_transform(path, matrix, form="ants")
    assert set(loadmat(path)) == {"AffineTransform_double_3_3", "fixed"}
    theirs = nitransforms.linear.load(path, fmt="itk").matrix
    np.testing.assert_allclose(theirs, matrix, atol=1e-5)
    np.testing.assert_allclose(read_transform(path), matrix, atol=1e-12)


def test_fsl(tmp_path: Path, fixed, moving):
    """FLIRT's matrix: moving to fixed, in voxels times their size, x flipped if det > 0."""
    matrix = transform_of("affine")
    path = tmp_path / "x.mat"
    write_transform(path, matrix, form="fsl", fixed=fixed, moving=moving)

    def scaled(points_world, scan, zooms, flip):
        voxel = apply_affine(np.linalg.inv(scan.affine), points_world)
        if flip:
            voxel[:, 0] = scan.shape[1] - 1 - voxel[:, 0]
        return voxel * zooms

    in_fixed = scaled(POINTS, fixed, (1, 1.5, 2), False)
    in_moving = scaled(apply_affine(matrix, POINTS), moving, (2, 2, 3), True)
    np.testing.assert_allclose(apply_affine(np.loadtxt(path), in_moving), in_fixed, atol=1e-6)
    back = read_transform(path, form="fsl", fixed=fixed, moving=moving)
    np.testing.assert_allclose(back, matrix, atol=1e-6)
    with pytest.raises(MedrlError, match=r"x\.mat: is a matrix of FSL.*two scans"):
        read_transform(path, form="fsl")
    with pytest.raises(MedrlError, match="FSL needs both scans"):
        write_transform(path, matrix, form="fsl", fixed=fixed)


def test_lta(tmp_path: Path, fixed, moving):
    """FreeSurfer's matrix maps its source, the moving scan, to its destination, the fixed one."""
    nitransforms = pytest.importorskip("nitransforms")
    matrix = transform_of("rigid")
    path = tmp_path / "x.lta"
    write_transform(path, matrix, fixed=fixed, moving=moving)
    lines = path.read_text().splitlines()
    at = lines.index("1 4 4") + 1
    np.testing.assert_allclose(np.loadtxt(lines[at : at + 4]), np.linalg.inv(matrix), atol=1e-12)
    volumes = [line.split("=")[1].split() for line in lines if line.startswith("volume")]
    assert volumes == [["64", "70", "40"], ["150", "120", "70"]]
    names = [line.split("=")[1].strip() for line in lines if line.startswith("filename")]
    assert names == ["unknown", "the_fixed__1.nii.gz"]
    np.testing.assert_allclose(read_transform(path), matrix, atol=1e-12)
    theirs = nitransforms.io.get_linear_factory("fs", is_array=False).from_filename(path)
    np.testing.assert_allclose(theirs.to_ras(), matrix, atol=1e-4)
    for key, scan in (("src", moving), ("dst", fixed)):
        np.testing.assert_allclose(theirs[key].as_affine(), scan.affine, atol=1e-4)


def test_lta_of_freesurfer():
    """Two files that FreeSurfer wrote of one registration: in the world, and in voxels."""
    nitransforms = pytest.importorskip("nitransforms")
    folder = Path(nitransforms.__file__).parent / "tests" / "data"
    world, voxel = folder / "bold-to-t1w.lta", folder / "bold-to-t1w.v2v.lta"
    if not (world.is_file() and voxel.is_file()):
        pytest.skip("this nitransforms comes without its examples")
    lines = world.read_text().splitlines()
    at = lines.index("1 4 4") + 1
    moving_to_fixed = np.loadtxt(lines[at : at + 4])
    np.testing.assert_allclose(read_transform(world) @ moving_to_fixed, np.eye(4), atol=1e-4)
    np.testing.assert_allclose(read_transform(voxel), read_transform(world), atol=1e-2)


@pytest.mark.parametrize("kind", ["rigid", "similarity", "affine"])
def test_kind(kind: str):
    matrix = transform_of(kind)
    assert kind_of(matrix) == kind
    assert kind_of(matrix @ np.diag([-1, 1, 1, 1])) == "affine"
    rounded = np.round(matrix, 6)
    assert kind_of(rounded) == kind
    np.testing.assert_allclose(from_itk(to_itk(rounded, kind=kind)), matrix, atol=1e-5)
    if kind != "rigid":
        with pytest.raises(MedrlError, match=f"not rigid but {kind}"):
            to_itk(matrix, kind="rigid")


@pytest.mark.parametrize(
    "bad",
    [
        np.eye(3),
        np.zeros((4, 4)),
        np.diag([1, 1, np.nan, 1]),
        np.eye(4)[::-1],
        "text",
        [[1], [2, 3]],
    ],
)
def test_no_transform(bad):
    with pytest.raises(MedrlError, match="a transform must be an invertible 4x4 matrix"):
        as_transform(bad)


def displacement() -> sitk.Transform:
    return sitk.DisplacementFieldTransform(sitk.Image((4, 4, 4), sitk.sitkVectorFloat64))


@pytest.mark.parametrize(
    ("transform", "says"),
    [
        (sitk.BSplineTransform(3), "bends space"),
        (displacement(), "bends space"),
        (sitk.CompositeTransform([sitk.AffineTransform(3), displacement()]), "bends space"),
        (sitk.Euler2DTransform(), "2D points"),
        (sitk.ScaleTransform(3, (1, 1, 0)), "invertible"),
    ],
    ids=["bspline", "field", "composite", "2D", "flat"],
)
def test_itk_that_is_refused(tmp_path: Path, transform, says: str):
    path = tmp_path / "x.tfm"
    sitk.WriteTransform(transform, str(path))
    with pytest.raises(MedrlError, match=says) as caught:
        read_transform(path)
    assert str(caught.value).startswith(f"{path}: ")


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("x.tfm", b"", "is empty"),
        ("x.tfm", b"#Insight Transform File V1.0\nTransform: Nonsense_double_3_3\n", "ITK"),
        ("x.h5", b"\x89HDF\r\n\x1a\n" + bytes(600), "ITK"),
        ("x.mat", bytes(range(256)), "ITK"),
        ("x.txt", b"1 0 0\n0 1 0\n0 0 1\n", "no transform that medrl knows"),
        ("x.txt", b"1 0 0 a\n", "no transform that medrl knows"),
        ("x.txt", b"1 0 0 1\n0 1 0 2\n0 0 1 3\n0 0 0 2\n", "last row 0 0 0 1"),
        ("x.txt", b"1 0 0 1\n0 1 0 2\n0 0 nan 3\n0 0 0 1\n", "finite"),
        ("x.lta", b"type = 1\nnothing else", "LTA"),
        ("x.nii.gz", b"\x1f\x8b\x08\x00\x00\x00\x00\x00", "ITK"),
    ],
)
def test_damaged_file(tmp_path: Path, capfd, name: str, content: bytes, says: str):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(MedrlError, match=says) as caught:
        read_transform(tmp_path / name)
    assert str(caught.value).startswith(f"{tmp_path / name}: ")
    assert "\n" not in str(caught.value)
    assert capfd.readouterr() == ("", "")


def test_paths(tmp_path: Path):
    with pytest.raises(MedrlError, match="no such file"):
        read_transform(tmp_path / "none.tfm")
    with pytest.raises(MedrlError, match=r"must end in \.tfm"):
        write_transform(tmp_path / "x.mat", np.eye(4))
    with pytest.raises(MedrlError, match="there is no folder"):
        write_transform(tmp_path / "none" / "x.tfm", np.eye(4))
    assert not list(tmp_path.iterdir())
