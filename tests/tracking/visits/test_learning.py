"""The network that may decide: its values against brute force, and that it learns."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from monai.data.meta_tensor import MetaTensor
from scipy.ndimage import gaussian_filter

from medrl.agents import rollout
from medrl.tracking.visits.calibrate import make_case, measure
from medrl.tracking.visits.dynamics import MOVES, VisitDynamics
from medrl.tracking.visits.learner import Imitation, ImitationSettings, states_of
from medrl.tracking.visits.model import VisitSettings
from medrl.tracking.visits.neighbours import nearest
from medrl.tracking.visits.network import BeliefNetwork, BeliefPolicy, move_values
from medrl.tracking.visits.policy import Coupling, JointDescent, offsets_of

SETTINGS = VisitSettings(spacings=(2.0, 4.0), neighbours=8)


@pytest.fixture(scope="module")
def case():
    noise = np.random.default_rng(0).normal(size=(44, 44, 44))
    values = gaussian_filter(noise, 2.0)
    values = (values - values.min()) / np.ptp(values)
    affine = np.diag([2.0, 2.0, 2.0, 1.0])
    scan = MetaTensor(torch.from_numpy(values[None].astype(np.float32)), affine=affine)
    return make_case(scan, SETTINGS, generator=np.random.default_rng(2), asked=20)


def test_truth_is_where_the_start_and_the_true_displacement_lead(case):
    start = case.pair.start_world
    there = (case.points_world + case.displacement) @ start[:3, :3].T + start[:3, 3]
    assert np.allclose(there, case.truth_world)


def test_the_rule_comes_nearer_to_the_truth(case):
    _, error = measure(case, SETTINGS, Coupling())
    start = np.linalg.norm(case.displacement, axis=1)
    assert np.median(error) < 0.6 * np.median(start)


def test_move_values_are_expected_steps_saved():
    generator = torch.Generator().manual_seed(0)
    belief = torch.randn(3, 5**3, generator=generator).log_softmax(dim=1)
    offset = torch.tensor([[0, 0, 0], [1, -1, 2], [-2, 0, 1]])
    grid = offsets_of(2)
    found = move_values(belief, offset, 2)
    for agent in range(3):
        for move in range(len(MOVES)):
            before = (grid - offset[agent]).abs().sum(dim=1)
            after = (grid - offset[agent] - MOVES[move]).abs().sum(dim=1)
            saved = float((belief[agent].exp() * (before - after)).sum())
            assert float(found[agent, move]) == pytest.approx(saved, abs=1e-5)


def test_network_learns_from_states_and_walks(case):
    generator = torch.Generator().manual_seed(0)
    torch.manual_seed(0)
    network = BeliefNetwork(levels=2, width=4)
    rule = JointDescent()
    states = states_of([case], [rule], SETTINGS, each=400, generator=generator)
    assert (states["truth"].abs() <= SETTINGS.view.search).all()
    learner = Imitation(network, states, ImitationSettings(steps=25, batch=64), generator=generator)
    losses = [learner.train_step()["loss"] for _ in range(25)]
    assert np.mean(losses[-5:]) < np.mean(losses[:5])

    dynamics = VisitDynamics([case.pair], view=SETTINGS.view)
    points = torch.from_numpy(case.points_world)
    hood = torch.from_numpy(nearest(case.points_world, 8))
    state = dynamics.reset(torch.zeros(len(points)).long(), points, hood)
    end = rollout(dynamics, BeliefPolicy(network), state).state
    assert not end.active.any()
    assert (end.level == 0).all()
