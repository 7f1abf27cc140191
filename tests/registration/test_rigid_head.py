"""The model that ships, on a head that it never saw."""

from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from torch import Generator

from medrl import Registrar, read
from medrl.cli import main
from medrl.registration.cases import make_case
from medrl.registration.search import LookAheadPolicy
from medrl.registration.task import AlignTask
from medrl.rl.env import AgentsEnv
from medrl.volume.read import write_nifti
from medrl.volume.resample import resample_isotropic
from medrl.volume.space import lps_to_ras, ras_to_lps
from medrl_datasets import mni152


@pytest.fixture(scope="module")
def head(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The template at 2 mm."""
    pytest.importorskip("nilearn")
    folder = tmp_path_factory.mktemp("head")
    (case,) = mni152.DATASET.datalist(mni152.installed_root())["test"]
    scan = resample_isotropic(read(case["image"]), spacing=2.0)
    write_nifti(folder / "head.nii.gz", scan)
    return folder / "head.nii.gz"


@pytest.fixture(scope="module")
def registrar() -> Registrar:
    torch.set_num_threads(1)
    return Registrar.load("rigid-head")


@pytest.mark.parametrize("seed", [0, 1])
def test_a_copy_in_any_orientation_and_contrast_is_found(
    registrar: Registrar, head: Path, seed: int
) -> None:
    case = make_case(head, turn=None, shift=50, generator=Generator().manual_seed(seed))
    found = registrar.register(case.fixed, case.moving)
    assert case.error_mm(np.eye(4)) > 20
    assert case.error_mm(found.agent_transform_world) < 2
    assert case.error_mm(found.transform_world) < 0.8
    assert found.trusted
    assert found.predicted_error_mm < 2


def test_the_environment_records_the_path_of_the_predictor(
    registrar: Registrar, head: Path
) -> None:
    """Same dynamics, same policy, same path: what runs on a scan is what an environment walks.

    Not to the last bit: the predictor's network looks at many agents at once, in single precision.
    """
    case = make_case(head, turn=None, shift=50, generator=Generator().manual_seed(2))
    found = registrar.register(case.fixed, case.moving, refine=False)
    (path,) = found.trajectory.agents
    model = registrar.model
    dynamics = model.dynamics(model.prepare(case.fixed), model.prepare(case.moving))
    truth, points = (torch.from_numpy(one)[None] for one in (case.truth_world, case.points_world))
    task = AlignTask(dynamics, truth, points)
    env = AgentsEnv(dynamics, task, batch_size=[1], seed=0)
    start = torch.from_numpy(path.transforms[:1])
    left = task.left(dynamics.reset(torch.zeros(1, dtype=torch.int64), start))
    current = env.reset(pair=0, misalignment=left[0].tolist())
    policy = LookAheadPolicy(model.networks, model.settings.search)
    memory = policy.blank(1)
    for step in range(len(path)):
        recorded = current["transform_world"][0].numpy()
        np.testing.assert_allclose(recorded, path.transforms[step], atol=1e-4)
        places = dynamics.places(env.state)
        np.testing.assert_allclose(places.position_world[0], path.positions_world[step], atol=1e-4)
        assert float(places.scale_mm[0]) == path.scales_mm[step]
        last = step == len(path) - 1
        assert bool(current["done"]) == bool(current["truncated"]) == last
        if not last:
            decision = policy(dynamics, env.state, memory)
            assert decision.memory is not None
            assert float(decision.value) == pytest.approx(path.values[step], abs=1e-5)
            np.testing.assert_allclose(
                decision.action, path.extras["action"][step][None], atol=1e-5
            )
            memory = decision.memory
            current = env.step(current.set("action", decision.action))["next"].exclude("reward")
    distance = float(current["distance_mm"])
    assert distance == pytest.approx(case.error_mm(found.transform_world), abs=1e-3)


def test_a_head_on_an_abdomen_is_not_trusted(
    registrar: Registrar, head: Path, data_root: Path
) -> None:
    abdomen = next((data_root / "body_ct_mr").rglob("*.nii.gz"))
    found = registrar.register(read(head), read(abdomen))
    assert not found.trusted
    assert found.predicted_error_mm > 5


def test_the_command_writes_a_transform_that_simpleitk_applies(head: Path, tmp_path: Path) -> None:
    case = make_case(head, turn=30, shift=20, generator=Generator().manual_seed(5))
    write_nifti(tmp_path / "moved.nii.gz", case.moving)
    assert main(["register", str(head), str(tmp_path / "moved.nii.gz"), "-o", str(tmp_path)]) == 0
    transform = sitk.ReadTransform(str(tmp_path / "moved_to_head.tfm"))
    found = [transform.TransformPoint(p) for p in ras_to_lps(case.points_world).tolist()]
    wanted = case.points_world @ case.truth_world[:3, :3].T + case.truth_world[:3, 3]
    assert np.linalg.norm(lps_to_ras(found) - wanted, axis=1).mean() < 0.8
