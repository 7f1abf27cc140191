"""What runs on a patient's scan is what the environment records under the same policy."""

import csv
from dataclasses import replace

import numpy as np
import pytest
import torch
from tensordict import TensorDict

from medrl.landmark.detect import LandmarkDetector
from medrl.landmark.env import make
from medrl.volume.pyramid import build_pyramid
from medrl.volume.read import read


@pytest.fixture(scope="module")
def head(data_root):
    root = data_root / "ixi_brain_t1"
    with (root / "splits.csv").open() as file:
        name = next(row["subject"] for row in csv.DictReader(file) if row["split"] == "val")
    return read(root / "t1" / f"{name}.nii.gz")


@torch.inference_mode()
def walk(env, networks, **given):
    """Whole searches in the environment; what it records of each agent, step by step."""
    count = env.batch_size[0]
    paths = [[] for _ in range(count)]
    current = env.reset(**given)
    while not current["done"].all():
        action = torch.zeros(count, dtype=torch.int64)
        estimate = torch.zeros(count, 4)
        for level, network in enumerate(networks):
            rows = torch.nonzero(current["level"] == level)[:, 0]
            if len(rows):
                said = network(current["window"][rows])
                own = torch.arange(len(rows)), current["landmark"][rows]
                action[rows] = said.values[own].argmax(dim=-1)
                estimate[rows] = torch.cat([said.offset[own], said.log_scale[own][:, None]], dim=1)
        for row in torch.nonzero(~current["done"][:, 0])[:, 0].tolist():
            place = current["position_world"][row].tolist()
            scale = float(env.dynamics.spacings[current["level"][row]])
            paths[row].append((*place, scale, int(action[row])))
        decided = {"action": action, "estimate": estimate}
        current = env.step(TensorDict(decided, batch_size=env.batch_size))["next"]
    return [np.array(path) for path in paths]


def test_the_detector_walks_what_the_environment_records(head):
    # The environment has scans as they lie, and agents that start in the middle.
    detector = LandmarkDetector(replace(LandmarkDetector.load("brain-t1").model, frame=None))
    detection = detector.detect(head)
    model, settings = detector.model, detector.model.settings
    count = len(model.names)
    env = make(
        build_pyramid(settings.preprocessing(head), spacings=settings.spacings),
        np.zeros((count, 3)),
        batch_size=[count],
        stop="loop",
        window=settings.window,
        max_steps=settings.max_steps,
        margin=round(settings.margin_mm / settings.spacings[0]),
    )
    agents = detection.trajectory.agents
    recorded = walk(
        env,
        [network.for_inference() for network in model.networks],
        landmark=np.arange(count),
        start_world=np.stack([agent.positions_world[0] for agent in agents]),
    )
    for k, agent in enumerate(agents):
        walked = [agent.positions_world, agent.scales_mm[:, None], agent.actions]
        np.testing.assert_array_equal(recorded[k], np.concatenate(walked, axis=1))
        end = env.dynamics.outcomes[int(env.state.status[k])]
        assert agent.outcome == f"{detection.landmarks[k].status} ({end})"
    assert {scale for path in recorded for scale in path[:, 3]} == set(settings.spacings)
