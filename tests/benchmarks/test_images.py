from dataclasses import replace

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
from evaluation.images import GRIDS, Corruption, LabelledImage, corrupt, half, move

CALM = Corruption(rotation_deg=30, shift_mm=20, bias=0.0, noise=(0.0, 0.0))


def blob_case() -> LabelledImage:
    """A bright Gaussian blob at each landmark, on a slightly oblique, flipped 2 mm grid."""
    size, spacing = (60, 56, 50), 2.0
    turn = sitk.Euler3DTransform()
    turn.SetRotation(0.05, -0.03, 0.08)
    direction = np.array(turn.GetMatrix()).reshape(3, 3) @ np.diag([-1.0, 1.0, 1.0])
    # RAS mm, near the grid's centre, so that every pose keeps them inside.
    points = {"a": (10.0, -8.0, 4.0), "b": (-10.0, 10.0, -8.0), "c": (2.0, 4.0, 14.0)}
    middle = (np.array(size) - 1) / 2 * spacing
    origin = -direction @ middle
    index = np.stack(np.meshgrid(*[np.arange(n) for n in size], indexing="ij"), axis=-1)
    lps = index * spacing @ direction.T + origin
    array = np.zeros(size, dtype=np.float32)
    for point in points.values():
        distance = lps - np.array(point) * (-1, -1, 1)
        array += np.exp(-(distance**2).sum(axis=-1) / (2 * 3.0**2)).astype(np.float32)
    image = sitk.GetImageFromArray(array.transpose(2, 1, 0))
    image.SetSpacing([spacing] * 3)
    image.SetOrigin(origin.tolist())
    image.SetDirection(direction.ravel().tolist())
    return LabelledImage("blobs", "blobs", image, {name: np.array(p) for name, p in points.items()})


def center_near(case: LabelledImage, name: str) -> np.ndarray:
    """Intensity-weighted centre of the blob at a landmark, from the scan that medrl is given."""
    scan = case.scan()
    array, affine = scan.numpy()[0].astype(np.float64), scan.affine.numpy()
    index = np.stack(np.meshgrid(*[np.arange(n) for n in array.shape], indexing="ij"), axis=-1)
    world = index @ affine[:3, :3].T + affine[:3, 3]
    near = np.linalg.norm(world - case.points_world[name], axis=-1) < 8
    weight = array * near
    return (world * weight[..., None]).sum(axis=(0, 1, 2)) / weight.sum()


@pytest.mark.parametrize("seed", range(4))
def test_landmarks_stay_on_their_structures(seed: int) -> None:
    case = corrupt(blob_case(), np.random.default_rng(seed), CALM)
    for name in case.points_world:
        assert np.linalg.norm(center_near(case, name) - case.points_world[name]) < 0.35


def test_every_kind_of_grid_occurs_with_thick_slices() -> None:
    cases = [corrupt(blob_case(), np.random.default_rng(seed), CALM) for seed in range(8)]
    assert {case.description["grid"] for case in cases} == set(GRIDS)
    assert all(sorted(case.image.GetSpacing()) == [1.0, 1.0, 3.0] for case in cases)
    assert len({case.image.GetSpacing() for case in cases}) == 3


def test_pose_is_within_its_limits() -> None:
    for seed in range(4):
        case = corrupt(blob_case(), np.random.default_rng(seed), CALM)
        rotation = np.array(case.description["rotation_deg"])
        shift = np.array(case.description["shift_mm"])
        assert (np.abs(rotation) <= 30).all()
        assert (np.abs(shift) <= 20).all()
        before = np.stack(list(blob_case().points_world.values()))
        after = np.stack(list(case.points_world.values()))
        # Rigid: distances between landmarks are kept.
        np.testing.assert_allclose(
            np.linalg.norm(before[0] - before[1:], axis=1),
            np.linalg.norm(after[0] - after[1:], axis=1),
            atol=1e-9,
        )


def test_moving_a_point_is_the_transform_of_simpleitk() -> None:
    transform = sitk.Euler3DTransform()
    transform.SetCenter([3, 4, 5])
    transform.SetRotation(0.3, -0.2, 0.5)
    transform.SetTranslation([7, -6, 2])
    lps = transform.TransformPoint([-10.0, 20.0, 30.0])
    moved = move(np.array([10.0, -20.0, 30.0]), transform)
    np.testing.assert_allclose(moved, [-lps[0], -lps[1], lps[2]])


def test_scan_has_the_affine_that_nibabel_reads(tmp_path) -> None:
    case = corrupt(blob_case(), np.random.default_rng(3), CALM)
    sitk.WriteImage(case.image, str(tmp_path / "case.nii.gz"))
    file = nib.load(tmp_path / "case.nii.gz")
    scan = case.scan()
    np.testing.assert_allclose(scan.affine.numpy(), file.affine, atol=1e-4)
    np.testing.assert_allclose(scan.numpy()[0], file.get_fdata(), atol=1e-6)


def test_noise_and_bias_change_voxels_and_nothing_else() -> None:
    calm = corrupt(blob_case(), np.random.default_rng(5), CALM)
    loud = corrupt(blob_case(), np.random.default_rng(5), replace(CALM, noise=(0.05, 0.05)))
    assert calm.image.GetSize() == loud.image.GetSize()
    np.testing.assert_allclose(calm.points_world["a"], loud.points_world["a"])
    difference = loud.scan().numpy() - calm.scan().numpy()
    assert difference.std() > 0


def test_same_seed_same_case() -> None:
    first, second = (corrupt(blob_case(), np.random.default_rng(9)) for _ in range(2))
    np.testing.assert_array_equal(first.scan().numpy(), second.scan().numpy())
    np.testing.assert_array_equal(first.scan().affine.numpy(), second.scan().affine.numpy())


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("keep_low", [True, False])
def test_half_keeps_voxels_in_their_places(axis: int, keep_low: bool) -> None:
    case = blob_case()
    cut = half(case, np.random.default_rng(0), axis=axis, keep_low=keep_low)
    share = cut.image.GetSize()[axis] / case.image.GetSize()[axis]
    assert 0.39 < share < 0.61
    corner = cut.image.TransformIndexToPhysicalPoint((0, 0, 0))
    index = case.image.TransformPhysicalPointToIndex(corner)
    assert cut.image.GetPixel(0, 0, 0) == case.image.GetPixel(*index)
    for name, point in case.points_world.items():
        lps = (point * (-1, -1, 1)).tolist()
        # Where the kept grid's first and last slices are, in slices of the whole scan.
        position = case.image.TransformPhysicalPointToContinuousIndex(lps)[axis]
        first = index[axis]
        last = first + cut.image.GetSize()[axis] - 1
        assert cut.present[name] == (first - 0.5 <= position <= last + 0.5)


def test_margin_is_the_distance_to_the_nearest_face() -> None:
    image = sitk.Image([10, 20, 30], sitk.sitkFloat32)
    image.SetSpacing([1.0, 2.0, 3.0])
    # LPS (0, 0, 0) is the centre of the first voxel: half a millimetre from its nearest face.
    case = LabelledImage(
        "empty", "empty", image, {"corner": np.zeros(3), "out": np.array([4.5, 0.0, 0.0])}
    )
    assert case.margin_mm("corner") == pytest.approx(0.5)
    assert case.margin_mm("out") == pytest.approx(-4.0)
    assert case.present == {"corner": True, "out": False}
