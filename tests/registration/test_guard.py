"""The shipped model on pairs of heads, and on what it was not made for."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation
from torch import Generator

from medrl import Registrar, read
from medrl.registration.cases import make_case
from medrl.registration.confidence import strangeness
from medrl.registration.model import RegistrationModel
from medrl.volume.space import apply_affine


@pytest.fixture(scope="module")
def registrar():
    torch.set_num_threads(1)
    return Registrar.load("rigid-head")


def strange(registrar, fixed, moving, transform):
    model = registrar.model
    dynamics = model.dynamics(model.prepare(fixed), model.prepare(moving))
    through = torch.from_numpy(np.asarray(transform, dtype=np.float64))
    return strangeness(dynamics, model.networks, model.familiarity, through)


def test_mouse_skulls_are_too_small(registrar, data_root):
    folder = data_root / "mouse_skull_ct" / "images"
    one, other = (read(folder / f"{name}.nii.gz") for name in ("AKR_J", "KK-HlJ"))
    found = registrar.register(one, other)
    assert not found.trusted
    assert found.confidence <= 0.2 * found.threshold
    assert found.unfit[0].startswith("fixed scan, size: the scan is 18 mm across; those it was")
    assert found.warnings[0].startswith("rigid-head was not made for this scan")


@pytest.mark.parametrize("moving", ["T1W", "T2W"])
def test_real_contrasts_of_a_head_are_familiar_where_they_belong_and_strange_elsewhere(
    registrar, data_root, moving
):
    """At the reference transform of the data set, and turned by 90 degrees from there."""
    import SimpleITK as sitk

    folder = data_root / "ms_multimodal" / "patient01"
    fixed, scan = (read(folder / f"study1_{name}.nii.gz") for name in ("FLAIR", moving))
    given = sitk.ReadTransform(str(folder / f"study1_{moving}_intrastudy_to_FLAIR.txt"))
    truth = np.eye(4)
    truth[:3, :3] = np.array(given.GetParameters()[:9]).reshape(3, 3)
    truth[:3, 3] = given.GetParameters()[9:12]
    flip = np.diag([-1.0, -1, 1, 1])
    truth = flip @ truth @ flip
    middle = apply_affine(fixed.affine.numpy(), (np.array(fixed.shape[1:]) - 1) / 2)
    turn = np.eye(4)
    turn[:3, :3] = Rotation.from_euler("z", 90, degrees=True).as_matrix()
    turn[:3, 3] = middle - turn[:3, :3] @ middle
    assert registrar.model.guard.reasons(fixed) == registrar.model.guard.reasons(scan) == ()
    assert strange(registrar, fixed, scan, truth) < 1
    assert strange(registrar, fixed, scan, truth @ turn) > 1


def test_copies_of_a_head_are_familiar(registrar, data_root):
    path = data_root / "afids_templates" / "images" / "MNI152Lin_T1w.nii.gz"
    case = make_case(path, turn=None, shift=40, generator=Generator().manual_seed(0))
    assert strange(registrar, case.fixed, case.moving, case.truth_world) < 1


def test_a_model_without_a_guard_is_as_it_was(registrar, tmp_path, data_root):
    bare = replace(registrar.model, guard=None, familiarity=())
    scan = read(data_root / "afids_templates" / "images" / "MNI152Lin_T1w.nii.gz")
    dynamics = bare.dynamics(bare.prepare(scan), bare.prepare(scan))
    assert strangeness(dynamics, bare.networks, bare.familiarity, torch.eye(4).double()) == 0


def test_the_guard_is_kept_with_the_model(registrar, tmp_path):
    from medrl.bundles import find, load_weights, read_manifest, save

    source = find("rigid-head")
    folder = save(tmp_path / "again", load_weights(source), read_manifest(source))
    model, _ = RegistrationModel.load(folder)
    assert model.guard == registrar.model.guard
    assert [f.limit for f in model.familiarity] == [f.limit for f in registrar.model.familiarity]
