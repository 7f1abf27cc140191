"""The model that ships, on a real head: clicks do what the session does without a window."""

import numpy as np
import pytest
import torch
from monai.data.meta_tensor import MetaTensor
from scipy.spatial.transform import Rotation

import medrl
from medrl.bundles import find
from medrl.cli.demo import write_template
from medrl.seednet.model import SeedModel
from medrl.volume.resample import resample_onto

#: In the left hippocampus of the MNI152 template, and above it (RAS mm).
INSIDE, ABOVE = np.array([-25.5, -21.0, -14.0]), np.array([-25.5, -21.0, 3.0])
SHAPE = (72, 80, 64)


@pytest.fixture(scope="module")
def head(tmp_path_factory):
    pytest.importorskip("nilearn")
    path = tmp_path_factory.mktemp("head") / "head.nii.gz"
    write_template(path)
    return medrl.read(path)


def cropped(head, degrees) -> MetaTensor:
    """The head around the hippocampus, on a grid that is turned."""
    affine = np.eye(4)
    affine[:3, :3] = Rotation.from_euler(
        "xyz", np.multiply(degrees, (1, 0.4, 0.7)), True
    ).as_matrix()
    affine[:3, 3] = INSIDE - affine[:3, :3] @ ((np.array(SHAPE) - 1) / 2)
    return resample_onto(head, affine=affine, shape=SHAPE)


def test_clicks_on_a_head(open_user, direct_session, head):
    masks = []
    for degrees in (0, 30):
        user = open_user(scan=cropped(head, degrees), real=True)
        user.go_to(INSIDE)
        user.click(INSIDE)
        user.settle()
        frame = user.widget._annotation.shown.frame
        user.viewer.dims.order = (1, 0, 2)
        user.go_to(ABOVE)
        user.click(ABOVE, "shift")
        user.settle()
        assert [seed.label for seed in user.seeds] == [1, 0]
        for seed, wanted in zip(user.seeds, (INSIDE, ABOVE), strict=True):
            # Half a voxel across the slice, half a pixel in it.
            off = np.sort(np.abs(frame.to_napari(seed.position_world - wanted)))
            assert off[2] <= 0.5 + 0.1
            assert off[1] <= 0.1
        model, _ = SeedModel.load(find("hippocampus-t1"))
        scan = user.widget._annotation.shown.scan
        session = direct_session(scan, user.seeds, model=model)
        np.testing.assert_array_equal(user.mask, session.labels()[0])
        mask = MetaTensor(torch.from_numpy(user.mask.copy())[None].float(), affine=scan.affine)
        masks.append(
            resample_onto(mask, affine=np.asarray(head.affine), shape=head.shape[1:]) > 0.5
        )
        user.close()
        user.viewer.dims.order = (0, 1, 2)
        user.clear()
    # Both are the left hippocampus, in the same place of the patient.
    volumes = [float(mask.sum()) for mask in masks]
    assert 2000 < min(volumes) < max(volumes) < 7000
    assert 2 * float((masks[0] & masks[1]).sum()) / sum(volumes) > 0.7
