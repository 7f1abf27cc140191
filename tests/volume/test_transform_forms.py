"""Transforms of other programs, by closed forms, SimpleITK, nibabel and nitransforms' examples."""

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
import torch
from monai.data.meta_tensor import MetaTensor
from scipy.io import savemat
from scipy.ndimage import gaussian_filter
from scipy.spatial.transform import Rotation

from medrl.errors import MedrlError
from medrl.volume.space import apply_affine, ras_to_lps
from medrl.volume.transform_files import open_transform, read_transform, to_itk, write_transform

POINTS = np.random.default_rng(0).uniform(-90, 90, (20, 3))
LPS = np.diag([-1.0, -1, 1, 1])


def affine_of(angles=(20.0, -35.0, 50.0), shift=(12.5, -40.25, 33.0)) -> np.ndarray:
    matrix = np.eye(4)
    turn = Rotation.from_euler("xyz", angles, degrees=True).as_matrix()
    matrix[:3, :3] = turn @ np.array([[1.1, 0.05, 0], [0, 0.9, -0.1], [0, 0, 1.05]])
    matrix[:3, 3] = shift
    return matrix


def rigid_of(angles=(8.0, -12.0, 15.0), shift=(5.0, -3.0, 4.0)) -> np.ndarray:
    matrix = np.eye(4)
    matrix[:3, :3] = Rotation.from_euler("xyz", angles, degrees=True).as_matrix()
    matrix[:3, 3] = shift
    return matrix


def rows_of(matrix: np.ndarray) -> str:
    return "\n".join(" ".join(repr(float(v)) for v in row) for row in matrix)


def scan_of(voxels: np.ndarray, affine: np.ndarray) -> MetaTensor:
    return MetaTensor(
        torch.from_numpy(voxels.astype(np.float32))[None], affine=torch.tensor(affine)
    )


def grid(signs, sizes, shape, origin) -> np.ndarray:
    affine = np.diag([*(np.array(signs) * sizes), 1.0])
    affine[:3, 3] = origin
    return affine


def pair(transform: np.ndarray, *, signs=(-1.0, 1.0, 1.0)) -> tuple[MetaTensor, MetaTensor]:
    """Scans that the transform, fixed to moving, brings onto each other voxel by voxel."""
    voxels = gaussian_filter(np.random.default_rng(3).normal(size=(40, 44, 36)), 3)
    affine = grid(signs, (2.0, 2.0, 2.5), voxels.shape, (40.0, -50.0, -30.0))
    return scan_of(voxels, affine), scan_of(np.exp(3 * voxels), transform @ affine)


# -- what a 4x4 in a .mat is -----------------------------------------------------------------------


@pytest.mark.parametrize("name", ["affine.mat", "MAT_0000", "affine.xfm"])
@pytest.mark.parametrize("form", ["matrix", "fsl"])
@pytest.mark.parametrize("signs", [(-1.0, 1.0, 1.0), (1.0, 1.0, 1.0)])
def test_a_matrix_in_a_mat_is_what_fits_the_scans(tmp_path: Path, name, form, signs):
    """The same numbers are greedy's or FSL's: scans that match tell which."""
    transform = rigid_of((3, -9, 12), (14, -8, 5))
    fixed, moving = pair(transform, signs=signs)
    path = tmp_path / name
    write_transform(path, transform, form=form, fixed=fixed, moving=moving)
    found = open_transform(path, fixed=fixed, moving=moving)
    assert found.form == form
    np.testing.assert_allclose(found.matrix_world, transform, atol=1e-6)
    (remark,) = found.remarks
    assert "look alike" in remark
    assert "name its form" in remark
    with pytest.warns(UserWarning, match="name its form"):
        read_transform(path, fixed=fixed, moving=moving)


def test_where_the_scans_do_not_tell_the_world_matrix_is_taken(tmp_path: Path):
    ramp = np.add.outer(np.add.outer(np.arange(24.0), np.arange(26)), np.arange(22))
    fixed = scan_of(ramp, grid((-1, 1, 1), (1.5, 1.5, 2), ramp.shape, (20, -20, -22)))
    moving = scan_of(ramp, grid((1, 1, 1), (1.2, 1.3, 1.7), ramp.shape, (-15, -18, -20)))
    transform = rigid_of((0, 0, 15), (2, -1, 3))
    path = tmp_path / "affine.mat"
    path.write_text(rows_of(transform))
    found = open_transform(path, fixed=fixed, moving=moving)
    np.testing.assert_array_equal(found.matrix_world, transform)
    assert "fit the other reading as well" in found.remarks[0]


def test_the_overlap_tells_where_intensities_do_not(tmp_path: Path):
    """Noise without anything in common: FSL's is the reading under which the scans overlap."""
    noise = np.random.default_rng(0).normal(size=(2, 30, 30, 30))
    affine = grid((1, 1, 1), (2, 2, 2), (30, 30, 30), (-29.0, -29.0, -29.0))
    fixed, moving = (scan_of(one, affine) for one in noise)
    transform = rigid_of((0, 0, 170), (0, 0, 0))
    path = tmp_path / "affine.mat"
    write_transform(path, transform, form="fsl", fixed=fixed, moving=moving)
    found = open_transform(path, fixed=fixed, moving=moving)
    assert (found.form, "overlap" in found.remarks[0]) == ("fsl", True)
    np.testing.assert_allclose(found.matrix_world, transform, atol=1e-6)


def test_a_matrix_in_text_is_of_the_world_and_doubted_where_fsl_fits(tmp_path: Path):
    transform = rigid_of((3, -9, 12), (14, -8, 5))
    fixed, moving = pair(transform)
    path = tmp_path / "affine.txt"
    write_transform(path, transform, form="fsl", fixed=fixed, moving=moving)
    found = open_transform(path, fixed=fixed, moving=moving)
    assert found.form == "matrix"
    assert "FSL" in found.remarks[0]
    write_transform(path, transform)
    assert open_transform(path, fixed=fixed, moving=moving).remarks == ()


def test_a_named_form_is_taken_at_its_word(tmp_path: Path):
    fixed, moving = pair(rigid_of())
    path = tmp_path / "affine.mat"
    path.write_text(rows_of(rigid_of()))
    found = open_transform(path, form="matrix")
    assert (found.form, found.remarks) == ("matrix", ())
    np.testing.assert_array_equal(found.matrix_world, rigid_of())
    assert open_transform(path, form="fsl", fixed=fixed, moving=moving).form == "fsl"
    with pytest.raises(MedrlError, match=r"affine\.mat: may be .*name its form"):
        open_transform(path)
    with pytest.raises(MedrlError, match="no form 'flirt'"):
        open_transform(path, form="flirt")
    with pytest.raises(MedrlError, match="ITK"):
        open_transform(path, form="itk")


def test_fsl_by_name_and_of_dicom(tmp_path: Path):
    """What medrl itself calls .fsl.mat; FSL never saw the order of DICOM's voxels."""
    fixed, moving = pair(rigid_of())
    path = tmp_path / "x.fsl.mat"
    write_transform(path, rigid_of(), form="fsl", fixed=fixed, moving=moving)
    found = open_transform(path, fixed=fixed, moving=moving)
    assert (found.form, found.remarks) == ("fsl", ())
    with pytest.raises(MedrlError, match="two scans"):
        open_transform(path)
    moving.meta["dicom"] = "images"
    assert "NIfTI only" in open_transform(path, fixed=fixed, moving=moving).remarks[0]


def test_neither_reading_fits(tmp_path: Path):
    fixed, moving = pair(rigid_of())
    path = tmp_path / "far.mat"
    path.write_text(rows_of(rigid_of(shift=(9000, 0, 0))))
    with pytest.raises(MedrlError, match=r"far\.mat: .*overlap under neither: name its form"):
        open_transform(path, fixed=fixed, moving=moving)


def test_readings_that_agree_need_no_word(tmp_path: Path):
    fixed, _ = pair(rigid_of())
    path = tmp_path / "identity.mat"
    path.write_text(rows_of(np.eye(4)))
    assert open_transform(path, fixed=fixed, moving=fixed).remarks == ()


def test_nitransforms_examples():
    """One transform for scans of several orientations, as ITK, AFNI and FSL have it."""
    nitransforms = pytest.importorskip("nitransforms")
    folder = Path(nitransforms.__file__).parent / "tests" / "data"
    if not (folder / "affine-RAS.fsl").is_file():
        pytest.skip("this nitransforms comes without its examples")
    affine = grid((1, 1, 1), (2.75,) * 3, (57, 67, 56), (-78.0, -91.0, -91.0))
    scan = scan_of(np.zeros((57, 67, 56)), affine)
    for name, signs in (("RAS", (1, 1, 1)), ("LAS", (-1, 1, 1)), ("LPS", (-1, -1, 1))):
        wanted = from_itk_file(folder / f"affine-{name}.itk.tfm")
        found = open_transform(folder / f"affine-{name}.afni")
        assert found.form == "afni"
        np.testing.assert_allclose(found.matrix_world, wanted, atol=1e-3)
        turned = nib.Nifti1Image(scan.numpy()[0], affine).as_reoriented(
            [[axis, sign] for axis, sign in enumerate(signs)]
        )
        there = scan_of(turned.get_fdata(), turned.affine)
        fsl = read_transform(folder / f"affine-{name}.fsl", form="fsl", fixed=there, moving=there)
        np.testing.assert_allclose(fsl, wanted, atol=2e-3)


def from_itk_file(path: Path) -> np.ndarray:
    """By SimpleITK: where four points go."""
    transform = sitk.ReadTransform(str(path))
    ends = np.array([transform.TransformPoint(p) for p in np.eye(4, 3, k=-1).tolist()])
    matrix = np.eye(4)
    matrix[:3, 3] = ends[0]
    matrix[:3, :3] = (ends[1:] - ends[0]).T
    return LPS @ matrix @ LPS


# -- FreeSurfer ------------------------------------------------------------------------------------

VOLUME = """valid = 1  # volume info valid
filename = /home/me/My Scans (2)/#1 = first/T1 w.mgz
volume = {0}
voxelsize = {1}
xras   = {2}
yras   = {3}
zras   = {4}
cras   = {5}
"""


def volume_of(scan: MetaTensor, name: str) -> str:
    affine, shape = np.array(scan.affine), np.array(scan.shape[1:])
    sizes = np.linalg.norm(affine[:3, :3], axis=0)
    center = affine[:3, 3] + affine[:3, :3] @ shape / 2
    numbers = [shape, sizes, *(affine[:3, :3] / sizes).T, center]
    texts = [" ".join(f"{v:.15g}" for v in row) for row in numbers]
    return f"{name} volume info\n" + VOLUME.format(*texts)


def lta_of(kind: int, matrix: np.ndarray, source: MetaTensor, target: MetaTensor) -> str:
    head = f"# transform file /a b/x.lta\n# created by me\n\ntype      = {kind} # LINEAR\n"
    head += "nxforms   = 1\nmean      = 129.0 1.0 2.0\nsigma     = 10000.0\n1 4 4\n"
    ends = volume_of(source, "src") + volume_of(target, "dst") + "subject my subject\nfscale 0.15\n"
    return head + rows_of(matrix) + "\n" + ends


@pytest.mark.parametrize("kind", [0, 1])
def test_lta_with_spaces_in_its_paths(tmp_path: Path, kind: int):
    """By the definition of the format: source to destination, in voxels (0) or the world (1)."""
    transform = affine_of()
    fixed, moving = pair(rigid_of())
    forth = np.linalg.inv(transform)
    if kind == 0:
        forth = np.linalg.inv(fixed.affine) @ forth @ np.array(moving.affine)
    path = tmp_path / "my x.lta"
    path.write_text(lta_of(kind, forth, moving, fixed))
    for scans in ({}, {"fixed": fixed, "moving": moving}):
        found = open_transform(path, **scans)
        assert (found.form, found.remarks) == ("lta", ())
        np.testing.assert_allclose(found.matrix_world, transform, atol=1e-9)


def test_lta_the_other_way_round(tmp_path: Path):
    """Its source is the fixed scan: then it maps fixed to moving, as it says."""
    fixed, moving = pair(rigid_of())
    path = tmp_path / "x.lta"
    path.write_text(lta_of(1, affine_of(), fixed, moving))
    found = open_transform(path, fixed=fixed, moving=moving)
    np.testing.assert_allclose(found.matrix_world, affine_of(), atol=1e-12)
    assert "fixed scan to the moving" in found.remarks[0]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (("type      = 1", "type      = 14"), "type 14"),
        (("nxforms   = 1", "nxforms   = 2"), "2 transforms"),
        (("1 4 4", "1 4 5"), "LTA"),
        (("type      = 1", "tipe = 1"), "LTA"),
    ],
)
def test_lta_that_is_refused(tmp_path: Path, change, says: str):
    fixed, moving = pair(rigid_of())
    path = tmp_path / "x.lta"
    path.write_text(lta_of(1, affine_of(), moving, fixed).replace(*change))
    with pytest.raises(MedrlError, match=says):
        read_transform(path)


def test_lta_in_voxels_of_nowhere(tmp_path: Path):
    fixed, moving = pair(rigid_of())
    path = tmp_path / "x.lta"
    text = lta_of(0, affine_of(), moving, fixed)
    path.write_text(text.replace("valid = 1", "valid = 0"))
    with pytest.raises(MedrlError, match="does not say where"):
        read_transform(path)


def test_register_dat(tmp_path: Path):
    """tkregister's coordinates of both scans by nibabel: R = Tmov inv(Smov) M Sfix inv(Tfix)."""
    transform = rigid_of()
    fixed, moving = pair(rigid_of())
    tk = [
        nib.MGHImage(np.zeros(scan.shape[1:], np.uint8), np.array(scan.affine)).header
        for scan in (fixed, moving)
    ]
    ahead = np.array(fixed.affine) @ np.linalg.inv(tk[0].get_vox2ras_tkr())
    behind = tk[1].get_vox2ras_tkr() @ np.linalg.inv(np.array(moving.affine))
    path = tmp_path / "register.dat"
    text = "my subject\n2.000\n2.500\n0.15\n" + rows_of(behind @ transform @ ahead) + "\nround\n"
    path.write_text(text)
    found = open_transform(path, fixed=fixed, moving=moving)
    assert found.form == "register-dat"
    np.testing.assert_allclose(found.matrix_world, transform, atol=1e-4)
    with pytest.raises(MedrlError, match="two scans"):
        read_transform(path)
    path.write_text(text.replace("2.500", "4.000"))
    with pytest.raises(MedrlError, match="slices of 4 mm"):
        read_transform(path, fixed=fixed, moving=moving)


# -- AFNI, MINC, elastix, SPM ----------------------------------------------------------------------


@pytest.mark.parametrize("name", ["x.aff12.1D", "x.txt", "x.1D"])
def test_afni(tmp_path: Path, name: str):
    """One line of twelve, or three of four in a .1D: base to source, in LPS."""
    lps = LPS @ affine_of() @ LPS
    rows = lps[:3] if name == "x.1D" else lps[:3].reshape(1, 12)
    (tmp_path / name).write_text(f"# 3dAllineate matrices (DICOM-to-DICOM):\n{rows_of(rows)}\n")
    found = open_transform(tmp_path / name)
    assert (found.form, found.remarks) == ("afni", ())
    np.testing.assert_allclose(found.matrix_world, affine_of(), atol=1e-12)
    fixed, moving = pair(rigid_of())  # the moving one lies obliquely
    assert "obliquely" in open_transform(tmp_path / name, fixed=fixed, moving=moving).remarks[0]
    assert open_transform(tmp_path / name, fixed=fixed, moving=fixed).remarks == ()


def test_afni_of_a_series_is_refused(tmp_path: Path):
    rows = np.repeat((LPS @ affine_of() @ LPS)[:3].reshape(1, 12), 3, axis=0)
    (tmp_path / "motion.aff12.1D").write_text(rows_of(rows))
    with pytest.raises(MedrlError, match="3 transforms, one for each volume"):
        read_transform(tmp_path / "motion.aff12.1D")


def minc_of(*blocks: str) -> str:
    head = "MNI Transform File\n%VIO_Volume: a.mnc\n% made; by = hand\n\n"
    return head + "".join(f"Transform_Type = Linear;\n{block}" for block in blocks)


def test_minc(tmp_path: Path):
    """Source to target; of two the first comes first; one that is to be inverted is."""
    first, second = np.linalg.inv(affine_of()), rigid_of()
    blocks = [f"Linear_Transform =\n{rows_of(m[:3])};\n" for m in (first, second)]
    path = tmp_path / "x.xfm"
    path.write_text(minc_of(blocks[0]))
    np.testing.assert_allclose(read_transform(path), affine_of(), atol=1e-12)
    path.write_text(minc_of(*blocks))
    moved = apply_affine(second, apply_affine(first, POINTS))
    back = apply_affine(read_transform(path), moved)
    np.testing.assert_allclose(back, POINTS, atol=1e-9)
    path.write_text(minc_of("Invert_Flag = True;\n" + blocks[0]))
    np.testing.assert_allclose(read_transform(path), first, atol=1e-12)
    path.write_text(minc_of(blocks[0]) + "Transform_Type = Grid_Transform;\n")
    with pytest.raises(MedrlError, match="bends space"):
        read_transform(path)
    path.write_text("MNI Transform File\nnothing\n")
    with pytest.raises(MedrlError, match="MINC"):
        read_transform(path)


def elastix_of(name: str, parameters, *, center=(4, -3, 7), before="NoInitialTransform", more=""):
    numbers = " ".join(repr(float(p)) for p in parameters)
    return (
        f'(Transform "{name}")\n(NumberOfParameters {len(parameters)})\n'
        f'(TransformParameters {numbers})\n(InitialTransformParametersFileName "{before}")\n'
        f'(UseBinaryFormatForTransformationParameters "false")\n'
        '(HowToCombineTransforms "Compose")\n\n// Image specific\n(FixedImageDimension 3)\n'
        f"(CenterOfRotationPoint {' '.join(map(str, center))})\n{more}"
        '(ResampleInterpolator "FinalBSplineInterpolator")\n'
    )


def about(linear: np.ndarray, shift, center=(4, -3, 7)) -> np.ndarray:
    """x -> A (x - c) + c + t, LPS, as a world transform."""
    matrix = np.eye(4)
    matrix[:3, :3] = linear
    matrix[:3, 3] = np.array(center) + shift - linear @ np.array(center)
    return LPS @ matrix @ LPS


ANGLES, SHIFT = (0.3, -0.2, 0.5), np.array([3.0, -8.0, 12.0])
TURNS = [Rotation.from_euler(axis, angle) for axis, angle in zip("xyz", ANGLES, strict=True)]
LINEAR = affine_of()[:3, :3]
VERSOR = Rotation.from_rotvec((0.2, -0.4, 0.3))


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        (
            elastix_of("EulerTransform", (*ANGLES, *SHIFT)),
            about((TURNS[2] * TURNS[0] * TURNS[1]).as_matrix(), SHIFT),
        ),
        (
            elastix_of("EulerTransform", (*ANGLES, *SHIFT), more='(ComputeZYX "true")\n'),
            about((TURNS[2] * TURNS[1] * TURNS[0]).as_matrix(), SHIFT),
        ),
        (elastix_of("AffineTransform", (*LINEAR.ravel(), *SHIFT)), about(LINEAR, SHIFT)),
        (
            elastix_of("SimilarityTransform", (*VERSOR.as_quat()[:3], *SHIFT, 1.2)),
            about(1.2 * VERSOR.as_matrix(), SHIFT),
        ),
        (elastix_of("TranslationTransform", SHIFT), about(np.eye(3), SHIFT)),
    ],
    ids=["euler", "euler-zyx", "affine", "similarity", "translation"],
)
def test_elastix(tmp_path: Path, text: str, wanted: np.ndarray):
    """By the manual's formulas, centre of rotation and order of the angles included."""
    path = tmp_path / "TransformParameters.0.txt"
    path.write_text(text)
    found = open_transform(path)
    assert found.form == "elastix"
    np.testing.assert_allclose(found.matrix_world, wanted, atol=1e-9)


def test_elastix_builds_on_the_file_beside_it(tmp_path: Path):
    """The initial transform comes first; its folder may have been moved."""
    (tmp_path / "TransformParameters.0.txt").write_text(
        elastix_of("TranslationTransform", (1, 2, 3))
    )
    path = tmp_path / "TransformParameters.1.txt"
    before = "/data/run 7/TransformParameters.0.txt"
    path.write_text(elastix_of("AffineTransform", (*LINEAR.ravel(), *SHIFT), before=before))
    wanted = about(LINEAR, SHIFT) @ about(np.eye(3), (1, 2, 3))
    np.testing.assert_allclose(read_transform(path), wanted, atol=1e-9)
    (tmp_path / "TransformParameters.0.txt").unlink()
    with pytest.raises(MedrlError, match=r"builds on .*0\.txt'"):
        read_transform(path)
    path.write_text(elastix_of("TranslationTransform", (1, 2, 3), before=path.name))
    with pytest.raises(MedrlError, match="or on itself"):
        read_transform(path)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (elastix_of("BSplineTransform", range(30)), "'BSplineTransform'"),
        (elastix_of("EulerTransform", (1, 2, 3)), "6 parameters"),
        (elastix_of("AffineTransform", [0] * 12), "invertible"),
        (elastix_of("TranslationTransform", (1, 2, 3)).replace("n 3)", "n 2)"), "2D"),
        (
            elastix_of("TranslationTransform", SHIFT, before="a.txt").replace("Compose", "Add"),
            "adds",
        ),
    ],
)
def test_elastix_that_is_refused(tmp_path: Path, text: str, says: str):
    path = tmp_path / "TransformParameters.0.txt"
    path.write_text(text)
    with pytest.raises(MedrlError, match=says):
        read_transform(path)


def test_matlab_5_is_named(tmp_path: Path):
    savemat(tmp_path / "spm.mat", {"M": np.eye(4)})
    with pytest.raises(MedrlError, match=r"spm\.mat: is a file of MATLAB 5 .*SPM"):
        read_transform(tmp_path / "spm.mat")


@pytest.mark.parametrize("kind", ["euler", "affine", "float"])
def test_ants_matlab_4(tmp_path: Path, kind: str):
    path = tmp_path / "0GenericAffine.mat"
    transform = to_itk(rigid_of(), kind="affine" if kind == "affine" else "rigid")
    if kind == "float":
        single = {"AffineTransform_float_3_3": np.float32(about_itk(rigid_of())).reshape(12, 1)}
        savemat(path, single | {"fixed": np.zeros((3, 1), np.float32)}, format="4")
    else:
        sitk.WriteTransform(transform, str(path))
    found = open_transform(path)
    assert found.form == "ants"
    np.testing.assert_allclose(found.matrix_world, rigid_of(), atol=1e-5)


def about_itk(matrix: np.ndarray) -> np.ndarray:
    """The twelve parameters of an affine transform with its centre at 0."""
    lps = LPS @ matrix @ LPS
    return np.concatenate([lps[:3, :3].ravel(), lps[:3, 3]])


def test_composites_of_composites(tmp_path: Path):
    inner = sitk.CompositeTransform([to_itk(rigid_of(), kind="rigid"), to_itk(affine_of())])
    outer = sitk.CompositeTransform([inner, to_itk(rigid_of())])
    outer.FlattenTransform()  # ITK writes no others
    for name in ("x.tfm", "x.h5"):
        sitk.WriteTransform(outer, str(tmp_path / name))
        theirs = sitk.ReadTransform(str(tmp_path / name))
        wanted = [theirs.TransformPoint(p) for p in ras_to_lps(POINTS).tolist()]
        found = ras_to_lps(apply_affine(read_transform(tmp_path / name), POINTS))
        np.testing.assert_allclose(found, wanted, atol=1e-9)


@pytest.mark.parametrize("name", ["x.tfm", "x.lta", "x.h5", "x.txt", "x"])
def test_content_tells_whatever_the_name(tmp_path: Path, name: str):
    fixed, moving = pair(rigid_of())
    for form, text in (
        ("matrix", rows_of(affine_of())),
        ("lta", lta_of(1, np.linalg.inv(affine_of()), moving, fixed)),
        ("minc", minc_of(f"Linear_Transform =\n{rows_of(np.linalg.inv(affine_of())[:3])};\n")),
    ):
        (tmp_path / name).write_text(text.replace("\n", "\r\n"), newline="")
        if (form, name) == ("matrix", "x"):
            continue  # which may be FSL's
        found = open_transform(tmp_path / name)
        assert found.form == form
        np.testing.assert_allclose(found.matrix_world, affine_of(), atol=1e-9)


def test_three_rows_need_a_name(tmp_path: Path):
    path = tmp_path / "x.txt"
    path.write_text(rows_of(affine_of()[:3]))
    with pytest.raises(MedrlError, match="name its form"):
        read_transform(path)
    np.testing.assert_allclose(read_transform(path, form="matrix"), affine_of())
    np.testing.assert_allclose(read_transform(path, form="afni"), LPS @ affine_of() @ LPS)


def test_several_transforms_that_are_no_composite(tmp_path: Path):
    """ITK takes the first of them; which it is to be nobody knows."""
    path = tmp_path / "two.tfm"
    sitk.WriteTransform(to_itk(rigid_of()), str(path))
    text = path.read_text()
    path.write_text(text + text.partition("\n")[2])
    with pytest.raises(MedrlError, match=r"two\.tfm: holds several transforms"):
        read_transform(path)
    numbers = about_itk(rigid_of()).reshape(12, 1)
    one = {"AffineTransform_double_3_3": numbers, "fixed": np.zeros((3, 1))}
    two = {"MatrixOffsetTransformBase_double_3_3": numbers, "fixed_": np.zeros((3, 1))}
    savemat(tmp_path / "two.mat", one | two, format="4")
    with pytest.raises(MedrlError, match=r"two\.mat: "):
        read_transform(tmp_path / "two.mat")
