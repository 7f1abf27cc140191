"""Whether several agents on one landmark do better when they talk (CommNet; Leroy et al. 2020).

The finest network of `brain-t1` learns on, five agents around each landmark at a time: in one arm
each hears the mean of what the others see before it says where the landmark is (Sukhbaatar et al.
2016, equation 2), in the other each is by itself. On validation heads five agents are put around
where the agents of the model ended, and their answers averaged; so the arms differ in the talk
alone.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("NUMBA_NUM_THREADS", "1")

import argparse
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from evaluation import ixi
from evaluation.results import RESULTS, save
from landmark_ablation import training_scans
from torch import Tensor, nn

from medrl.evaluation import Measurements, Row, compare, plain, summarize
from medrl.landmark.detect import LandmarkDetector
from medrl.landmark.learner import LearnerSettings, ScaleLearner
from medrl.landmark.model import LandmarkModel
from medrl.landmark.network import LandmarkNetwork, Prediction
from medrl.roi import crop
from medrl.volume.itk import from_sitk
from medrl.volume.pyramid import build_pyramid
from medrl.volume.space import apply_affine, world_to_voxel

CLAIM = "Agents on one landmark that talk"
AGENTS = 5
#: Where they stand, voxels from the middle: so near that all see the landmark.
PLACES = torch.tensor([[0, 0, 0], [2, 2, -2], [-2, 2, 2], [2, -2, 2], [-2, -2, -2]])


class TalkingNetwork(nn.Module):
    """A landmark network whose windows come in groups of :data:`AGENTS`."""

    def __init__(self, network: LandmarkNetwork, *, talks: bool) -> None:
        """Put the talk between a network's encoder and its heads."""
        super().__init__()
        self.network = network
        width = network.actions.in_features
        self.hears = nn.Linear(width, width, bias=False)
        # At first nothing is heard: both arms begin with what the model knows.
        nn.init.zeros_(self.hears.weight)
        self.talks = talks

    def forward(self, windows: Tensor) -> Prediction:
        """Windows (N * AGENTS, 1, s, s, s), group after group."""
        seen = self.network.encoder(windows).unflatten(0, (-1, AGENTS))
        if self.talks:
            others = (seen.sum(dim=1, keepdim=True) - seen) / (AGENTS - 1)
            seen = torch.relu(seen + self.hears(others))
        return self.network.heads(seen.flatten(0, 1))


class GroupLearner(ScaleLearner):
    """Learns from places that come in groups."""

    def sample_positions(self, count: int) -> tuple[Tensor, Tensor]:
        """Groups around the places where single agents would be."""
        slot, middle = super().sample_positions(count // AGENTS)
        places = middle[:, None] + PLACES.to(middle.device) * self.stride
        return slot.repeat_interleave(AGENTS), places.flatten(0, 1)


def learned(model: LandmarkModel, *, talks: bool, steps: int) -> TalkingNetwork:
    """The finest network after it learned on in groups."""
    learner = GroupLearner(
        training_scans(),
        level=0,
        settings=replace(LearnerSettings(), batch=25 * AGENTS, learning_rate=5e-4),
        imitation_steps=steps,
        dqn_steps=0,
        seed=0,
    )
    learner.network.load_state_dict(model.networks[0].state_dict())
    network = TalkingNetwork(learner.network, talks=talks)
    learner.network = network  # type: ignore[assignment]
    learner.modules["network"] = network
    weights = torch.optim.AdamW(network.parameters(), weight_decay=1e-4)
    learner.optimizers["network"] = weights
    for step in range(steps):
        losses = learner.train_step()
        if step % 100 == 0:
            print("talking" if talks else "apart", step, losses, flush=True)
    return network.eval()


@torch.inference_mode()
def answers(
    networks: dict[str, nn.Module], detector: LandmarkDetector, subject: str
) -> dict[str, Any]:
    """Errors (K,) in mm of each arm on a head, around where the agents ended."""
    head = ixi.load(subject)
    scan, settings = from_sitk(head.image), detector.model.settings
    truth = np.stack([head.points_world[name] for name in detector.landmark_names])
    found = detector.candidates(scan).positions_world
    pyramid = build_pyramid(settings.preprocessing(scan), spacings=settings.spacings)
    middle = torch.from_numpy(world_to_voxel(found, pyramid.affines[0])).round().long()
    places = (middle[:, None] + PLACES).flatten(0, 1)
    windows = crop(pyramid, places, settings.window, level=0)
    own = torch.arange(len(middle)).repeat_interleave(AGENTS)
    errors = {"as shipped": np.linalg.norm(found - truth, axis=1)}
    for name, network in networks.items():
        offset = network(windows).offset[torch.arange(len(own)), own]
        said = (places + offset).unflatten(0, (-1, AGENTS)).mean(dim=1)
        world = apply_affine(pyramid.affines[0], said.double().numpy())
        errors[name] = np.linalg.norm(world - truth, axis=1)
    return errors


def main() -> None:
    """Train both arms, measure them, and write the result."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=1000, help="batches of each arm")
    options = parser.parse_args()
    torch.set_num_threads(1)
    detector = LandmarkDetector.load("brain-t1", alone=True)
    model = detector.model
    assert isinstance(model, LandmarkModel)
    networks: dict[str, nn.Module] = {
        "five apart, not trained on": TalkingNetwork(model.networks[0], talks=False).eval(),
        "five apart": learned(model, talks=False, steps=options.steps),
        "five that talk": learned(model, talks=True, steps=options.steps),
    }
    rows = [
        Row(subject, landmark, method, "error_mm", float(error), subject)
        for subject in ixi.subjects("val")
        for method, errors in answers(networks, detector, subject).items()
        for landmark, error in zip(detector.landmark_names, errors, strict=True)
    ]
    measured = Measurements(tuple(rows))
    result = {
        "steps": options.steps,
        "error_mm": {
            name: summarize(found.values) for name, found in measured.by("method").items()
        },
        "talking_minus_apart": compare(measured, "error_mm", "five that talk", "five apart"),
    }
    save(RESULTS / "landmark_talking.json", result, {CLAIM: in_words})
    print(in_words(plain(result)))


def in_words(result: dict[str, Any]) -> str:
    """Mean errors of all arms."""
    return "IXI val: " + ", ".join(
        f"{name} {error['mean']:.3f} mm" for name, error in result["error_mm"].items()
    )


if __name__ == "__main__":
    main()
