"""One scan, one object, one call; and that its path is what the environment records."""

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch

import medrl
from medrl.agents import rollout
from medrl.bundles import network_tensors
from medrl.errors import MedrlError
from medrl.rl.env import AgentsEnv
from medrl.seednet.model import SeedPolicy
from medrl.seednet.seeds import Seed
from medrl.seednet.segment import SeedSegmenter
from medrl.seednet.task import SeedTask
from medrl.trajectory import Step
from medrl.walker.segmenter import FOREGROUND, NONE


def test_a_segmentation_is_what_a_session_gives(model, make_scan, tmp_path: Path) -> None:
    scan = make_scan("oblique")
    steps: list[Step] = []
    told: list[tuple[int, int]] = []
    point = ",".join(str(x) for x in make_scan.center)
    found = SeedSegmenter(model).segment(
        scan,
        [f"fg:{point}"],
        target="ball",
        watch=steps.append,
        progress=lambda *done: told.append(done),
    )
    session = SeedSegmenter(model).session()
    session.set_scan(scan)
    session.add_seed(make_scan.center, "fg")
    placed = session.accept_all()
    assert torch.equal(found.mask, session.mask())
    assert len(placed) == len(steps) == len(told) > 1
    path = found.trajectory.agents[0]
    np.testing.assert_array_equal(path.positions_world, [p.position_world for p in placed])
    assert (found.target, found.confidence, found.seconds > 0) == ("ball", None, True)
    files = found.save(tmp_path)
    assert {"mask", "seeds", "trajectory", "picture"} <= set(files)
    np.testing.assert_array_equal(
        np.asarray(nib.load(files["mask"]).dataobj), found.mask[0].numpy()
    )


def test_a_path_is_read(model, make_scan, tmp_path: Path) -> None:
    scan = make_scan()
    file = tmp_path / "ball.nii.gz"
    nib.save(nib.Nifti1Image(scan[0].numpy(), np.asarray(scan.affine)), file)
    seeds = [Seed(make_scan.center, FOREGROUND)]
    segmenter = SeedSegmenter(model)
    given, read = (segmenter.segment(x, seeds, agent=False) for x in (scan, file))
    assert torch.equal(given.mask, read.mask)
    assert (tmp_path / "ball.seg.nii.gz") == read.save(tmp_path)["mask"]
    with pytest.raises(MedrlError, match="no such file"):
        segmenter.segment(tmp_path / "nothing.nii.gz", seeds)


def test_models_are_loaded_by_name() -> None:
    segmenter = medrl.load("hippocampus-t1")
    assert isinstance(segmenter, SeedSegmenter)
    before = {
        name: value.clone() for name, value in network_tensors(segmenter.model.network).items()
    }
    session = segmenter.session()
    assert session.model is segmenter.model
    after = network_tensors(segmenter.model.network)
    assert all(torch.equal(value, before[n]) for n, value in after.items())


def test_the_path_is_what_the_environment_records(model, make_scan) -> None:
    scan = make_scan(dim=True)
    segmenter = SeedSegmenter(model)
    found = segmenter.segment(scan, [Seed(make_scan.center, FOREGROUND)])

    # The same window and the same policy, one step of the environment at a time.
    session = segmenter.session()
    session.set_scan(scan)
    session.add_seed(make_scan.center, "fg")
    obj = session._objects[session.current].obj
    dynamics, policy = session._editor.agent(obj)
    truth = torch.ones(obj.state.seeds.shape, dtype=torch.bool)
    env = AgentsEnv(dynamics, SeedTask(dynamics, truth), batch_size=[1], seed=0)
    click = (obj.state.seeds[0] != NONE).nonzero()[0]
    seen = env.reset(window=0, click_voxel=click.numpy())
    walked = []
    while not bool(seen["done"].all()):
        before = env.state
        action = policy(dynamics, before, None).action
        voxel, label = dynamics.place(before, action)
        seen = env.step(seen.exclude("reward").set("action", action))["next"]
        if int(label[0]) != NONE:
            affine = session._editor.grid.affine
            corner = voxel[0].numpy() + obj.corner
            walked.append((*(affine[:3, :3] @ corner + affine[:3, 3]), int(label[0])))
    path = found.trajectory.agents[0]
    expected = np.column_stack([path.positions_world, path.actions[:, 0]])
    np.testing.assert_allclose(walked, expected, atol=1e-9)
    assert len(walked) > 1
    # And the rollout that nobody watches ends in the same place.
    end = rollout(dynamics, SeedPolicy(model, policy._encoded), dynamics.reset(obj.state.seeds))
    assert torch.equal(end.state.probability, env.state.probability)
