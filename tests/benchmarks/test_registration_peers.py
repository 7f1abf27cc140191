import numpy as np
import pytest
import SimpleITK as sitk
import torch
from evaluation import registration_peers as peers
from monai.data.meta_tensor import MetaTensor
from scipy.ndimage import gaussian_filter

from medrl.volume.itk import from_sitk, to_sitk
from medrl.volume.space import LPS_FROM_RAS


def blobs(shift_ras: tuple[float, float, float] = (0.0, 0.0, 0.0)) -> MetaTensor:
    """Smooth random texture in a ball; the header says where the scan lies, RAS mm."""
    rng = np.random.default_rng(3)
    texture = gaussian_filter(rng.normal(size=(40, 40, 40)), 2.5)
    grid = np.stack(np.meshgrid(*[np.linspace(-1, 1, 40)] * 3, indexing="ij"))
    array = (1 + 2 * texture / np.abs(texture).max()) * ((grid**2).sum(axis=0) < 0.6)
    affine = np.diag([3.0, 3.0, 3.0, 1.0])
    affine[:3, 3] = -58.5 + np.array(shift_ras)
    return MetaTensor(torch.from_numpy(array[None]).float(), affine=torch.from_numpy(affine))


def test_centers_of_mass_are_matched() -> None:
    found = peers.PEERS["mass-center"].run(blobs(), blobs((7.0, -5.0, 3.0)), "rigid")
    expected = np.eye(4)
    expected[:3, 3] = (7.0, -5.0, 3.0)
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_matrix_of_a_composite_is_what_it_does_to_points() -> None:
    turn = sitk.Euler3DTransform()
    turn.SetCenter([3, 4, 5])
    turn.SetRotation(0.3, -0.2, 0.5)
    both = sitk.CompositeTransform([turn, sitk.TranslationTransform(3, [1.0, 2.0, 3.0])])
    point = np.array([10.0, -20.0, 30.0])
    matrix = peers.matrix_of(both)
    np.testing.assert_allclose(
        matrix[:3, :3] @ point + matrix[:3, 3], both.TransformPoint(point.tolist()), atol=1e-9
    )


@pytest.mark.parametrize("kind", ["rigid", "affine"])
@pytest.mark.parametrize("name", ["sitk-geometry", "elastix", "ants", "greedy-centers"])
def test_a_peer_finds_a_small_pose_in_the_right_convention(name: str, kind: str) -> None:
    peer = peers.PEERS[name]
    if peer.missing:
        pytest.skip(peer.missing)
    pose = sitk.Euler3DTransform()
    pose.SetRotation(0.1, -0.12, 0.15)
    pose.SetTranslation([6.0, -5.0, 4.0])
    fixed = blobs()
    scan = to_sitk(fixed)
    moving = from_sitk(sitk.Resample(scan, scan, pose.GetInverse(), sitk.sitkLinear, 0.0))
    truth = LPS_FROM_RAS @ peers.matrix_of(pose) @ LPS_FROM_RAS
    found = peer.run(fixed, moving, kind)
    points = np.c_[np.random.default_rng(0).uniform(-35, 35, (50, 3)), np.ones(50)].T
    error = np.linalg.norm(((found - truth) @ points)[:3], axis=0)
    assert error.mean() < 1.5


def test_a_missing_package_is_a_reason() -> None:
    peer = peers.Peer(peers.PEERS["identity"].run, "no-such-package-at-all", "")
    assert peer.missing == "no-such-package-at-all is not installed"
    assert peers.PEERS["sitk-moments"].missing is None
