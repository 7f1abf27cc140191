"""Objects of a kind: names with numbers, the nearest is meant, every one is found once."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from monai.data.meta_tensor import MetaTensor

from medrl.errors import MedrlError
from medrl.localization.answer import Box
from medrl.localization.choice import every_once
from medrl.localization.data import LabelledScan
from medrl.localization.dynamics import BoxDynamics
from medrl.localization.evaluate import Labelled, matched
from medrl.localization.kinds import Objects, kind_of, nearest
from medrl.localization.learner import LearnerSettings
from medrl.localization.localize import Localizer
from medrl.localization.task import BoxTask
from medrl.localization.train import TrainSettings, train
from medrl.volume.box_files import write_boxes
from medrl.volume.boxes import iou
from tests.localization.conftest import TINY


def test_names_with_a_number_are_of_a_kind():
    assert kind_of("vertebra 12") == "vertebra"
    assert kind_of("L5") == "L5"
    assert kind_of("lymph node 3") == "lymph node"
    objects = Objects.of(["sacrum", "vertebra 1", "vertebra 2"])
    assert objects.targets == ("sacrum", "vertebra")
    assert objects.kinds == ("vertebra",)
    assert objects.target.tolist() == [0, 1, 1]


def at(*corners: float) -> list[list[float]]:
    """Cubes of 2 at places along a line."""
    return [[[c, 0.0, 0.0], [c + 2, 2.0, 2.0]] for c in corners]


def test_the_nearest_object_of_the_kind_is_meant():
    truth = torch.tensor(at(0, 10, 20))
    truth[1] = torch.nan
    target, wanted = torch.tensor([1, 1, 0]), torch.tensor([0, 1, 1])
    box = torch.tensor(at(0, 19, 9))
    own = nearest(truth[None].expand(3, -1, -1, -1), target, wanted, box)
    assert own[0].tolist() == truth[2].tolist()
    assert own[1].tolist() == own[2].tolist() == truth[0].tolist()
    nothing = nearest(truth[None, :2], torch.tensor([1, 0]), torch.tensor([0]), box[:1])
    assert nothing.isnan().all()


def test_agents_are_paid_for_any_object_of_their_kind():
    from medrl.volume.pyramid import build_pyramid

    scan = MetaTensor(torch.rand(1, 30, 30, 30), affine=torch.eye(4, dtype=torch.float64))
    dynamics = BoxDynamics([build_pyramid(scan, spacings=(1.0, 2.0))], targets=1)
    truth = torch.tensor([[[[2.0] * 3, [10.0] * 3], [[18.0] * 3, [26.0] * 3]]]).double()
    task = BoxTask(dynamics, truth, target=torch.tensor([0, 0]))
    zero = torch.zeros(2, dtype=torch.int64)
    state = dynamics.reset(zero, zero, truth[0])
    assert task.info(state)["overlap"].tolist() == [1.0, 1.0]


def test_what_one_has_found_is_not_found_again():
    boxes = np.array(at(0, 0.5, 10, 10.2, 30))
    kept = every_once(boxes, np.array([0.6, 0.9, 0.8, 0.7, 0.5]))
    assert kept.tolist() == [1, 2, 4]
    assert every_once(boxes[:0], np.zeros(0)).tolist() == []


def test_objects_of_a_kind_are_matched_before_they_are_measured():
    affine = torch.eye(4, dtype=torch.float64)
    first, second = np.array(at(1, 6))
    labelled = Labelled(
        "a", MetaTensor(torch.zeros(1, 9, 9, 9), affine=affine), {"node 1": first, "node 2": second}
    )
    answer = [
        Box("node 1", second + 0.1, "found", 0.9),
        Box("node 2", first + 0.1, "found", 0.8),
        Box("node 3", first + 4.0, "found", 0.7),
    ]
    found = matched(labelled, answer)
    np.testing.assert_allclose(found["node 1"].corners_world, first + 0.1)
    np.testing.assert_allclose(found["node 2"].corners_world, second + 0.1)
    assert len(found) == 3


def cubes(seed: int) -> tuple[MetaTensor, list[np.ndarray]]:
    """Two to four bright cubes in a noisy scan of 40^3 voxels of 2 mm, and their boxes in mm."""
    random = np.random.default_rng(seed)
    volume = random.normal(0.1, 0.02, (40, 40, 40)).clip(0)
    corners = np.array([[a, b, c] for a in (4, 24) for b in (4, 24) for c in (4, 24)])
    boxes = []
    for corner in corners[random.permutation(8)[: random.integers(2, 5)]]:
        low = corner + random.integers(-2, 3, 3)
        volume[tuple(slice(a, a + 10) for a in low)] = 1.0
        boxes.append(2 * np.stack([low - 0.5, low + 9.5]))
    affine = torch.diag(torch.tensor([2.0, 2.0, 2.0, 1.0], dtype=torch.float64))
    return MetaTensor(torch.from_numpy(volume).float()[None], affine=affine), boxes


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    import json

    import nibabel as nib

    folder = tmp_path_factory.mktemp("cubes")
    content = {}
    for split, seeds in (("training", range(12)), ("validation", range(50, 53))):
        content[split] = []
        for seed in seeds:
            scan, boxes = cubes(seed)
            image = folder / f"{seed}.nii.gz"
            nib.save(nib.Nifti1Image(scan.numpy()[0], scan.affine.numpy()), image)
            named = {f"cube {n + 1}": box for n, box in enumerate(boxes)}
            write_boxes(folder / f"{seed}.mrk.json", named)
            content[split].append({"image": image.name, "boxes": f"{seed}.mrk.json"})
    datalist = folder / "datalist.json"
    datalist.write_text(json.dumps(content))
    settings = TrainSettings(
        name="cubes",
        proposer_steps=400,
        imitation_steps=240,
        dqn_steps=5,
        model=TINY,
        learner=replace(LearnerSettings(), batch=48, agents=8, slots=8, proposals=4),
    )
    return train(settings, data=datalist, out=folder / "run")


def test_every_object_is_found_once(bundle):
    localizer = Localizer.load(bundle)
    assert localizer.target_names == ("cube",)
    found, there, right = 0, 0, 0
    for seed in range(100, 106):
        scan, boxes = cubes(seed)
        answer = localizer.localize(scan)
        names = [box.name for box in answer.boxes]
        assert names == [f"cube {n + 1}" for n in range(len(names))]
        overlaps = np.array(
            [[float(iou(box.corners_world, one)) for one in boxes] for box in answer.boxes]
        )
        found, there = found + len(names), there + len(boxes)
        right += int((overlaps.max(axis=0) > 0.5).sum())
        # No two boxes on one object.
        assert ((overlaps > 0.3).sum(axis=0) <= 1).all()
    assert right >= 0.8 * there
    assert found <= 1.2 * there


def test_a_kind_is_asked_for_by_its_name(bundle):
    localizer = Localizer.load(bundle)
    scan, _ = cubes(200)
    assert len(localizer.localize(scan, targets=["cube"]).boxes) >= 2
    with pytest.raises(MedrlError, match="knows cube"):
        localizer.localize(scan, targets=["cube 1"])


def test_learners_see_objects_of_a_kind(bundle):
    scan, boxes = cubes(0)
    shapes = torch.from_numpy(np.stack(boxes) / 2).float()
    own = LabelledScan("a", scan.as_tensor(), shapes, Objects.of(["cube 1", "cube 2"]))
    assert own.targets == 1
    assert own.target.tolist() == [0, 0]
