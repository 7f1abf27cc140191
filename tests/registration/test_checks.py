"""Bad pairs of scans end in one line that says which scan, mask or start is at fault."""

import numpy as np
import pytest
import torch
from monai.data.meta_tensor import MetaTensor
from scipy.spatial.transform import Rotation

from medrl.errors import MedrlError
from medrl.registration.checks import check_pair, overlap


def scan_of(shape=(20, 24, 16), *, origin=(0, 0, 0), spacing=2.0, name=None) -> MetaTensor:
    affine = np.diag([spacing, spacing, spacing, 1.0])
    affine[:3, 3] = origin
    voxels = torch.rand((1, *shape), generator=torch.Generator().manual_seed(0))
    meta = {"filename_or_obj": name} if name else {}
    return MetaTensor(voxels, affine=torch.tensor(affine), meta=meta)


def mask_of(scan: MetaTensor, *box: slice) -> MetaTensor:
    mask = MetaTensor(torch.zeros_like(scan.as_tensor()), affine=scan.affine)
    mask[(0, *box)] = 1
    return mask


def moved(*shift: float) -> np.ndarray:
    matrix = np.eye(4)
    matrix[:3, 3] = shift
    return matrix


def assert_refused(says: str, *args, **kwargs) -> None:
    with pytest.raises(MedrlError, match=says) as caught:
        check_pair(*args, **kwargs)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("kind", ["rigid", "similarity", "affine"])
def test_good_pairs(kind: str):
    fixed, moving = scan_of(), scan_of((12, 14, 18), origin=(500, 0, 0), spacing=3.0)
    middle = mask_of(fixed, slice(5, 15), slice(5, 15), slice(5, 10))
    check_pair(fixed, moving, kind=kind)
    check_pair(fixed, moving, fixed_mask=middle, kind=kind, initial_world=moved(500, 0, 0))


def test_scans():
    good = scan_of()
    hole = scan_of(name="/data/hole.nii.gz")
    hole[0, 3, 4, 5] = torch.nan
    assert_refused(r"^/data/hole\.nii\.gz: .*NaN", hole, good)
    blank = MetaTensor(torch.full((1, 20, 20, 20), 7.0), affine=good.affine)
    assert_refused("^the moving scan: every voxel is 7: the scan is blank", good, blank)
    assert_refused("^the fixed scan: .*a volume, not a slice", scan_of((20, 24, 1)), good)
    series = MetaTensor(torch.rand(5, 20, 24, 16), affine=good.affine)
    assert_refused("^the moving scan: .*choose one channel or time point", good, series)
    assert_refused("^the fixed scan: must be a MetaTensor", good.as_tensor(), good)
    flat = MetaTensor(good.as_tensor(), affine=torch.diag(torch.tensor([1.0, 1, 0, 1])))
    assert_refused("^the fixed scan: the affine is singular", flat, good)
    assert_refused(
        "no transform 'bspline'; there are: rigid, similarity", good, good, kind="bspline"
    )


def test_masks():
    fixed, moving = scan_of(name="f.nii"), scan_of()
    everything = (slice(None),) * 3
    empty = mask_of(moving)[..., :]
    empty[:] = 0
    assert_refused("^the moving mask: excludes everything: every", fixed, moving, moving_mask=empty)
    elsewhere = mask_of(scan_of(origin=(0, 0, 100)), *everything)
    assert_refused(
        r"^the fixed mask: excludes everything: what it marks lies outside f\.nii",
        fixed,
        moving,
        elsewhere,
    )
    fixed[0, :4] = 3
    air = mask_of(fixed, slice(0, 4), slice(None), slice(None))
    assert_refused(r"^the fixed mask: leaves of f\.nii only voxels", fixed, moving, air)
    wrong = MetaTensor(torch.ones(2, 20, 24, 16), affine=fixed.affine)
    assert_refused("^the fixed mask: must be one 3D volume", fixed, moving, wrong)
    hole = mask_of(fixed, *everything)
    hole[0, 0, 0, 0] = torch.nan
    assert_refused("^the fixed mask: .*NaN", fixed, moving, hole)


def test_a_mask_on_a_grid_of_its_own():
    """A coarse, flipped mask over the scan's far half."""
    fixed = scan_of()
    fixed[0, :10] = 0
    affine = np.diag([-4.0, 4.0, 4.0, 1.0])
    affine[:3, 3] = (36, 0, 0)
    for half, good in ((slice(0, 4), True), (slice(6, 9), False)):
        voxels = torch.zeros(1, 10, 12, 8)
        voxels[0, half] = 1
        mask = MetaTensor(voxels, affine=torch.tensor(affine))
        if good:
            check_pair(fixed, fixed, mask)
        else:
            assert_refused("all equal", fixed, fixed, mask)


def test_starts():
    fixed, moving = scan_of(name="f.nii"), scan_of(origin=(300, 0, 0), name="m.nii")
    turn = moved(300, 0, 0)
    turn[:3, :3] = Rotation.from_euler("x", 5, degrees=True).as_matrix()
    wider = turn @ np.diag([1.1, 1, 1, 1])
    check_pair(fixed, moving, kind="rigid", initial_world=turn)
    check_pair(fixed, moving, kind="affine", initial_world=wider)
    says = "wrong kind: it is affine, wanted is similarity"
    assert_refused(says, fixed, moving, kind="similarity", initial_world=wider)
    mirror = turn @ np.diag([-1, 1, 1, 1])
    assert_refused("mirrors", fixed, moving, kind="affine", initial_world=mirror)
    assert_refused("4x4", fixed, moving, initial_world=np.eye(3))
    # The way back in place of the way there.
    says = r"^f\.nii and m\.nii do not overlap after the initial"
    assert_refused(says, fixed, moving, initial_world=np.linalg.inv(turn))


@pytest.mark.parametrize(("shift", "share"), [(0, 1), (10, 0.75), (20, 0.5), (39, 0.025), (41, 0)])
def test_overlap_of_boxes(shift: float, share: float):
    fixed = scan_of()
    assert overlap(fixed, fixed, moved(shift, 0, 0)) == pytest.approx(share, abs=0.025)


def test_a_small_scan_in_a_large_one_overlaps_in_full():
    small = scan_of((4, 5, 6), origin=(20, 20, 12))
    assert overlap(scan_of(), small, np.eye(4)) == 1
    assert overlap(small, scan_of(), np.eye(4)) == 1
