import numpy as np
import pytest
import SimpleITK as sitk
from evaluation import ixi
from evaluation import registration_pairs as cases
from evaluation import registration_stress as stress
from scipy.spatial.transform import Rotation

from medrl.volume.itk import to_sitk
from medrl.volume.space import apply_affine


def toy_head() -> stress.Head:
    """Smooth blobs of tissue-like intensities on a flipped 4 mm grid."""
    size, spacing = (40, 44, 36), 4.0
    rng = np.random.default_rng(4)
    noise = sitk.GetImageFromArray(rng.normal(size=size[::-1]).astype(np.float32))
    texture = sitk.GetArrayFromImage(sitk.SmoothingRecursiveGaussian(noise, 3.0))
    z, y, x = np.meshgrid(*[np.linspace(-1, 1, n) for n in size[::-1]], indexing="ij")
    ball = (x**2 + (y / 0.9) ** 2 + z**2) < 0.5
    array = ball * np.clip(0.6 + 0.2 * texture / texture.std(), 0.1, 1)
    image = sitk.GetImageFromArray(array.astype(np.float32))
    image.SetSpacing([spacing] * 3)
    image.SetDirection([-1, 0, 0, 0, 1, 0, 0, 0, 1])
    image.SetOrigin([80.0, -90.0, -70.0])
    points = stress.sample(ball, image, np.random.default_rng(0))
    return stress.Head("toy", image, image, 0.0, points, 7)


def euler(angles_deg: list[float], shift: list[float], center: np.ndarray) -> sitk.Euler3DTransform:
    transform = sitk.Euler3DTransform()
    transform.SetCenter(center.tolist())
    transform.SetRotation(*np.deg2rad(angles_deg).tolist())
    transform.SetTranslation(shift)
    return transform


def test_pose_is_the_transform_of_simpleitk() -> None:
    center = np.array([3.0, -20.0, 11.0])
    transform = euler([20, -35, 50], [7, -6, 2], center)
    pose = stress.about(stress.turn([20, -35, 50]), np.array([7.0, -6.0, 2.0]), center)
    for point in np.random.default_rng(0).uniform(-90, 90, (5, 3)):
        expected = transform.TransformPoint(point.tolist())
        np.testing.assert_allclose(pose[:3, :3] @ point + pose[:3, 3], expected, atol=1e-9)
        np.testing.assert_allclose(
            stress.to_sitk_affine(pose).TransformPoint(point.tolist()), expected, atol=1e-9
        )


@pytest.mark.parametrize("band", [*stress.BANDS, stress.ANY])
def test_poses_stay_in_their_band(band: str) -> None:
    head = toy_head()
    center = np.array(
        head.grid.TransformContinuousIndexToPhysicalPoint(
            [(n - 1) / 2 for n in head.grid.GetSize()]
        )
    )
    limit = stress.BANDS.get(band, stress.ANY_SHIFT_MM)
    turned = []
    for number in range(12):
        pose = stress.draw_pose(head, band, number)
        np.testing.assert_array_equal(pose, stress.draw_pose(head, band, number))
        shift = pose[:3, :3] @ center + pose[:3, 3] - center
        assert (np.abs(shift) <= limit + 1e-9).all()
        assert head.visible(pose) >= stress.LEAST_VISIBLE
        rotation = Rotation.from_matrix(pose[:3, :3])
        turned.append(np.rad2deg(rotation.magnitude()))
        if band != stress.ANY:
            angles = np.abs(rotation.as_euler("yxz", degrees=True))
            assert limit / 2 <= angles.max() <= limit
            assert np.abs(shift).max() >= limit / 2
    if band == stress.ANY:
        assert max(turned) > 120


def test_visible_points_lie_in_the_moving_scan() -> None:
    head = toy_head()
    pose = stress.draw_pose(head, "60", 1)
    transform = stress.to_sitk_affine(pose)
    inside = 0
    for point in head.points:
        moved = transform.TransformPoint(point.tolist())
        index = np.array(head.grid.TransformPhysicalPointToContinuousIndex(moved))
        inside += bool((index >= 0).all() and (index <= np.array(head.grid.GetSize()) - 1).all())
    assert head.visible(pose) == pytest.approx(inside / len(head.points))


@pytest.mark.parametrize("contrast", stress.CONTRASTS)
def test_the_truth_brings_the_moving_scan_back(contrast: str) -> None:
    case = cases.stress_case(toy_head, "30", contrast, 2)
    assert case.truth_world is not None
    assert case.error_mm(case.truth_world) < 1e-9
    # By SimpleITK, LPS: the moving scan at the places of the fixed one, next to the same scan
    # made without any pose.
    lps = np.diag([-1.0, -1.0, 1.0, 1.0])
    matrix = lps @ case.truth_world @ lps
    transform = sitk.AffineTransform(3)
    transform.SetMatrix(matrix[:3, :3].ravel().tolist())
    transform.SetTranslation(matrix[:3, 3].tolist())
    fixed, moving = to_sitk(case.fixed), to_sitk(case.moving)
    back = sitk.GetArrayFromImage(sitk.Resample(moving, fixed, transform, sitk.sitkLinear, -1.0))
    same = cases.stress_case(toy_head, "30", contrast, 2)
    head = toy_head()
    rng = stress.appearance_rng(head, "30", 2, contrast)
    still = sitk.GetArrayFromImage(head.moving(np.eye(4), contrast, rng))
    inside = (sitk.GetArrayFromImage(fixed) > 0) & (back >= 0)
    assert inside.mean() > 0.1
    assert np.corrcoef(back[inside], still[inside])[0, 1] > 0.8
    unmoved = sitk.GetArrayFromImage(moving)
    assert np.corrcoef(unmoved[inside], still[inside])[0, 1] < 0.4
    np.testing.assert_array_equal(same.moving.numpy(), case.moving.numpy())


def test_error_is_the_mean_distance_of_the_points() -> None:
    case = cases.stress_case(toy_head, "10", stress.CONTRASTS[0], 0)
    wrong = case.truth_world.copy()
    wrong[:3, 3] += (3.0, 0.0, 4.0)
    assert case.metric == "error_mm"
    assert case.measure(wrong) == pytest.approx(5.0)
    assert case.points_world.shape == (100, 3)
    # The points are in the brain: bright in the fixed scan, found through its affine.
    index = np.linalg.inv(case.fixed.affine.numpy()) @ np.c_[case.points_world, np.ones(100)].T
    values = case.fixed.numpy()[0][tuple(np.rint(index[:3]).astype(int))]
    assert (values > 0).all()


def test_contrasts_share_the_pose_and_differ_in_voxels() -> None:
    one, other = (cases.stress_case(toy_head, "60", c, 1) for c in stress.CONTRASTS)
    np.testing.assert_array_equal(one.truth_world, other.truth_world)
    np.testing.assert_array_equal(one.fixed.numpy(), other.fixed.numpy())
    assert not np.allclose(one.moving.numpy(), other.moving.numpy())


def test_the_template_is_in_the_poses_of_the_recipe() -> None:
    pytest.importorskip("nilearn")
    head = stress.template()
    # Case 3 of the 60 degree band, LPS, from the script that the peers were first measured with.
    expected = [
        [0.623745, -0.781552, 0.010873, -7.034633],
        [0.766631, 0.609006, -0.203441, 56.098806],
        [0.152378, 0.135231, 0.979027, 46.274941],
        [0.0, 0.0, 0.0, 1.0],
    ]
    np.testing.assert_allclose(stress.draw_pose(head, "60", 3), expected, atol=1e-5)
    assert head.grid.GetSize() == (99, 117, 95)
    assert head.grid.GetSpacing() == (2.0, 2.0, 2.0)


def test_sets_have_their_cases() -> None:
    planned = cases.template()
    assert len({plan.name for plan in planned}) == len(planned) == 100
    for band, count in {"10": 10, "30": 10, "60": 10, "any": 20}.items():
        for contrast in stress.CONTRASTS:
            assert sum((p.band, p.contrast) == (band, contrast) for p in planned) == count
    assert len({plan.name for plan in cases.ms()}) == 36


def test_every_head_is_in_every_band(data_root, monkeypatch) -> None:
    monkeypatch.setenv("MEDRL_DATA", str(data_root.resolve()))
    for split, count in {"holdout": 20, "val": 10}.items():
        planned = cases.heads(split)
        assert len({plan.name for plan in planned}) == len(planned) == 4 * count
        for contrast in stress.CONTRASTS:
            assert sum(p.contrast == contrast for p in planned if p.band == "any") == count // 2
    pairs = cases.two_subjects()
    assert len({plan.name for plan in pairs}) == 20


def test_points_of_a_head_lie_in_its_brain(data_root, monkeypatch) -> None:
    monkeypatch.setenv("MEDRL_DATA", str(data_root.resolve()))
    name = ixi.subjects("train")[0]
    head, labels = stress.subject(name), stress.ixi_labels(name)
    at = [labels[labels.TransformPhysicalPointToIndex(point.tolist())] for point in head.points]
    assert min(at) > 0


def test_ms_truth_is_the_reference_and_the_misalignment(data_root, monkeypatch) -> None:
    monkeypatch.setenv("MEDRL_DATA", str(data_root.resolve()))
    case = cases.ms_case("T1", "FLAIR later", 2)
    folder = data_root / "ms_multimodal" / "patient01"
    reference = {
        name: sitk.ReadTransform(str(folder / f"{name}.txt"))
        for name in (
            "study1_T1W_intrastudy_to_FLAIR",
            "study1_FLAIR_to_common_space",
            "study2_FLAIR_to_common_space",
        )
    }
    still = cases.ms_reference("FLAIR later")
    stored = sitk.ReadImage(str(folder / "study2_FLAIR.nii.gz"), sitk.sitkFloat32)
    misaligned = to_sitk(case.moving)
    voxels = sitk.GetArrayViewFromImage(stored)
    np.testing.assert_array_equal(sitk.GetArrayViewFromImage(misaligned), voxels)
    for common in np.random.default_rng(0).uniform(-40, 40, (5, 3)).tolist():
        flair = reference["study1_FLAIR_to_common_space"].TransformPoint(common)
        t1 = reference["study1_T1W_intrastudy_to_FLAIR"].TransformPoint(flair)
        later = reference["study2_FLAIR_to_common_space"].TransformPoint(common)
        # The same voxel, where the changed header says it is.
        index = stored.TransformPhysicalPointToContinuousIndex(later)
        expected = misaligned.TransformContinuousIndexToPhysicalPoint(index)
        point = np.array([*t1, 1.0]) * (-1, -1, 1, 1)
        moved = (case.truth_world @ point)[:3] * (-1, -1, 1)
        np.testing.assert_allclose(moved, expected, atol=1e-3)
        back = still @ (np.array([*flair, 1.0]) * (-1, -1, 1, 1))
        np.testing.assert_allclose(back[:3] * (-1, -1, 1), later, atol=1e-6)
    assert case.error_mm(case.truth_world) < 1e-9


def test_lungs_start_as_far_apart_as_the_data_says(data_root, monkeypatch) -> None:
    monkeypatch.setenv("MEDRL_DATA", str(data_root.resolve()))
    case = cases.lung_case("affine")
    assert case.points_world.shape == (51, 3)
    assert case.error_mm(np.eye(4)) == pytest.approx(35.3, abs=0.05)
    assert float(case.moving.min()) >= -1024


def test_overlap_is_one_where_the_regions_agree(monkeypatch) -> None:
    array = np.zeros((20, 24, 28), dtype=np.uint8)
    array[4:10, 5:11, 6:12], array[10:16, 12:18, 14:20] = 3, 9
    fixed = sitk.GetImageFromArray(array)
    moving = sitk.Image(fixed)
    moving.SetOrigin([5.0, -2.0, 1.0])
    # LPS (5, -2, 1) is RAS (-5, 2, 1).
    truth = np.eye(4)
    truth[:3, 3] = (-5.0, 2.0, 1.0)
    monkeypatch.setattr(cases, "REGIONS", 2)
    assert cases.mean_dice(fixed, moving, truth) == pytest.approx(1.0)
    truth[0, 3] -= 2.0
    # Cubes of six, two apart.
    assert cases.mean_dice(fixed, moving, truth) == pytest.approx(4 / 6)


def test_starts_astray_bring_the_middles_together_and_nothing_else() -> None:
    first, second = (plan.make() for plan in cases.astray()[:2])
    for case in (first, second):
        moved = apply_affine(case.start_world, case.points_world)
        np.testing.assert_allclose(moved.mean(axis=0), case.targets_world.mean(axis=0))
        assert case.error_mm(case.start_world) > 10
    assert not np.allclose(first.start_world, second.start_world)
    np.testing.assert_array_equal(first.start_world, cases.astray()[0].make().start_world)
