"""The public face, with agents that have learned nothing: mutual information checks their steps."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from monai.data.meta_tensor import MetaTensor
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from medrl import Registrar, Registration
from medrl.errors import MedrlError
from medrl.registration import register
from medrl.registration.confidence import FEATURES, Confidence
from medrl.registration.model import RegistrationModel
from medrl.trajectory import Step


def rigid(turn: tuple[float, float, float], shift: tuple[float, float, float]) -> NDArray:
    matrix = np.eye(4)
    matrix[:3, :3] = Rotation.from_rotvec(turn, degrees=True).as_matrix()
    matrix[:3, 3] = shift
    return matrix


#: Far from where the head was: nearly upside down.
TRUE = rigid((100, 40, -80), (-15, 0, 10))
POINTS = np.random.default_rng(0).uniform(-60, 60, (100, 3))


def error_mm(found: NDArray, truth: NDArray = TRUE) -> float:
    apart = (found - truth) @ np.c_[POINTS, np.ones(len(POINTS))].T
    return float(np.linalg.norm(apart[:3], axis=0).mean())


@pytest.fixture(scope="module")
def fixed(make_head) -> MetaTensor:
    return make_head()


@pytest.fixture(scope="module")
def moving(make_head) -> MetaTensor:
    return make_head(truth=TRUE, noise=5)


@pytest.fixture
def registrar(untrained) -> Registrar:
    return Registrar(untrained)


def test_a_turned_copy_is_found(registrar: Registrar, fixed, moving):
    found = registrar.register(fixed, moving)
    assert isinstance(found, Registration)
    assert error_mm(np.eye(4)) > 80
    assert error_mm(found.agent_transform_world) < 1.5
    assert error_mm(found.transform_world) < 0.5
    assert found.refined
    assert found.kind == "rigid"
    turn = found.transform_world[:3, :3]
    np.testing.assert_allclose(turn @ turn.T, np.eye(3), atol=1e-9)
    # Nothing is known of how right such agents are, and that is not trust.
    assert found.confidence is None
    assert not found.trusted
    assert "NOT TRUSTED" in found.warnings[-1]
    assert found.predicted_error_mm > 0
    assert found.seconds > 0


def test_the_same_answer_twice_and_the_way_to_it(registrar: Registrar, fixed, moving):
    one, two = (registrar.register(fixed, moving, refine=False) for _ in range(2))
    np.testing.assert_array_equal(one.transform_world, two.transform_world)
    assert not one.refined
    np.testing.assert_array_equal(one.transform_world, one.agent_transform_world)
    (agent,) = one.trajectory.agents
    assert one.trajectory.task == "registration"
    assert agent.transforms is not None
    np.testing.assert_array_equal(agent.transforms[-1], one.transform_world)
    start = agent.transforms[0]
    assert sorted(set(np.abs(start[:3, :3]).round(6).ravel())) == [0, 1]
    assert agent.confidence is None
    # Every step, and once more at the end.
    fine, coarse = map(len, registrar.model.settings.search.candidate_steps)
    assert agent.scales_mm.tolist() == [10.0] * coarse + [5.0] * (fine + 1)
    assert set(one.trajectory.provenance) >= {"scan", "model", "version", "seed"}


def test_it_does_not_matter_how_a_scan_is_stored(registrar: Registrar, fixed, moving):
    """Axes flipped and in another order, with the affine that says so: the same place."""
    array = moving.as_tensor()[0].permute(2, 0, 1).flip(1)
    order = np.zeros((4, 4))
    order[[2, 0, 1, 3], [0, 1, 2, 3]] = 1
    affine = moving.affine.numpy() @ order
    affine[:3, 3] += affine[:3, 1] * (array.shape[1] - 1)
    affine[:3, 1] *= -1
    stored = MetaTensor(array[None].contiguous(), affine=torch.from_numpy(affine))
    found = registrar.register(fixed, stored, refine=False)
    assert error_mm(found.transform_world) < 1.5


def test_a_start_is_kept_to(registrar: Registrar, fixed, make_head):
    """From near the answer the agents need not look elsewhere; from afar they do not."""
    moving = make_head(noise=5)
    near = registrar.register(
        fixed, moving, refine=False, initial_world=rigid((9, 0, 0), (6, 0, 0))
    )
    assert error_mm(near.transform_world, np.eye(4)) < 1.5
    away = rigid((0, 0, 180), (0, 0, 0))
    astray = registrar.register(fixed, moving, refine=False, initial_world=away)
    assert error_mm(astray.transform_world, np.eye(4)) > 30
    (agent,) = astray.trajectory.agents
    np.testing.assert_array_equal(agent.transforms[0], away)


def test_what_masks_hide_does_not_count(registrar: Registrar, fixed, moving):
    """A bright block in either scan would mislead; a mask takes it out."""
    spoiled, masks = [], []
    for scan, corner in ((fixed, 0), (moving, 20)):
        array, mask = scan.as_tensor().clone(), torch.ones(scan.shape)
        block = (slice(None), *(slice(corner, corner + 14),) * 3)
        array[block], mask[block] = 3000.0, 0.0
        spoiled.append(MetaTensor(array, affine=scan.affine))
        masks.append(MetaTensor(mask, affine=scan.affine))
    options = {"fixed_mask": masks[0], "moving_mask": masks[1]}
    found = registrar.register(*spoiled, refine=False, **options)
    assert error_mm(found.transform_world) < 3
    without = registrar.register(*spoiled, refine=False)
    assert error_mm(without.transform_world) > error_mm(found.transform_world)


def test_size_changes_where_it_may(registrar: Registrar, fixed, make_head):
    truth = rigid((15, 0, 20), (4, 0, -6)) @ np.diag([1.12, 1.12, 1.12, 1])
    moving = make_head(truth=truth, noise=5)
    found = registrar.register(fixed, moving, transform="similarity", refine=False)
    assert found.kind == "similarity"
    scales = np.linalg.svd(found.transform_world[:3, :3], compute_uv=False)
    np.testing.assert_allclose(scales, scales.mean(), rtol=1e-6)
    assert error_mm(found.transform_world, truth) < 2.5
    stiff = registrar.register(fixed, moving, refine=False)
    np.testing.assert_allclose(np.linalg.svd(stiff.transform_world[:3, :3])[1], 1, atol=1e-9)


def test_confidence_is_the_models(untrained: RegistrationModel, fixed, moving):
    """A made-up one: only the similarity counts."""
    weights = [0.0] * len(FEATURES)
    weights[FEATURES.index("similarity, finest level")] = 1.0
    confidence = Confidence(tuple(weights), bias=0.5, threshold=0.4, right_mm=0.3, wrong_mm=50.0)
    settings = replace(untrained.settings, confidence=confidence)
    registrar = Registrar(replace(untrained, settings=settings))
    (answer,) = registrar.candidates(fixed, moving, refine=False)
    found = registrar.register(fixed, moving, refine=False)
    score = 0.5 + answer.features[FEATURES.index("similarity, finest level")]
    assert found.confidence == pytest.approx(1 / (1 + math.exp(-score)))
    assert found.threshold == 0.4
    assert found.trusted
    assert found.trajectory.agents[0].confidence == found.confidence
    assert found.predicted_error_mm == pytest.approx(float(confidence.error_mm(answer.features)))
    assert 0.3 < found.predicted_error_mm < 50


def test_without_refinement_for_want_of_overlap_the_agents_answer_stands(
    registrar: Registrar, fixed, moving, monkeypatch: pytest.MonkeyPatch
):
    def refuse(*args, **kwargs):
        raise MedrlError("the scans do not overlap enough")

    monkeypatch.setattr(register, "refine_transform", refuse)
    found = registrar.register(fixed, moving)
    assert not found.refined
    np.testing.assert_array_equal(found.transform_world, found.agent_transform_world)


def test_a_refinement_that_does_harm_is_not_kept(
    registrar: Registrar, fixed, moving, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(register, "refine_transform", lambda *args, **kwargs: np.eye(4))
    found = registrar.register(fixed, moving)
    assert not found.refined
    assert error_mm(found.transform_world) < 1.5


def test_more_than_one_answer(untrained: RegistrationModel, fixed, moving):
    search = replace(untrained.settings.search, keep=(2, 4))
    registrar = Registrar(replace(untrained, settings=replace(untrained.settings, search=search)))
    answers = registrar.candidates(fixed, moving, refine=False, count=2)
    assert len(answers) == 2
    assert answers[0].walk.score >= answers[1].walk.score
    best = registrar.register(fixed, moving, refine=False)
    np.testing.assert_array_equal(answers[0].transform_world, best.transform_world)
    assert answers[0].features.shape == (len(FEATURES),)


def test_a_bundle_gives_the_same_answer(untrained: RegistrationModel, fixed, moving, tmp_path):
    folder = untrained.save(tmp_path / "toy", name="toy", card={"title": "Toy"})
    registrar = Registrar.load(folder)
    assert registrar.manifest["task"] == "registration"
    assert registrar.model.settings == untrained.settings
    found = registrar.register(fixed, moving, refine=False)
    # Stored in half precision.
    assert error_mm(found.transform_world) < 1.5
    assert found.trajectory.provenance["model"] == "toy"


def test_refusals(registrar: Registrar, fixed, moving, tmp_path):
    flat = MetaTensor(torch.ones(moving.shape), affine=moving.affine)
    none = MetaTensor(torch.zeros(moving.shape), affine=moving.affine)
    wide = np.diag([1.3, 1, 1, 1])
    for arguments, options, words in (
        ((fixed, flat), {}, "blank"),
        ((fixed, moving), {"transform": "spline"}, "no transform 'spline'"),
        ((fixed, moving), {"moving_mask": none}, "excludes everything"),
        ((fixed, moving), {"initial_world": wide}, "wrong kind"),
    ):
        with pytest.raises(MedrlError, match=words) as caught:
            registrar.register(*arguments, **options)
        assert "\n" not in str(caught.value)
    with pytest.raises(MedrlError, match="no model 'nobody'"):
        Registrar.load("nobody")


def never(model: RegistrationModel) -> RegistrationModel:
    """A model that trusts nothing, so that agents start between the orientations too."""
    doubt = Confidence(
        (0.0,) * len(FEATURES), bias=-9.0, threshold=0.5, right_mm=1.0, wrong_mm=50.0
    )
    return replace(model, settings=replace(model.settings, confidence=doubt))


def test_a_registration_can_be_watched(untrained: RegistrationModel, fixed, moving):
    steps: list[Step] = []
    registrar = Registrar(never(untrained))
    found = registrar.register(fixed, moving, refine=False, watch=steps.append)
    (path,) = found.trajectory.agents
    half = len(steps) // 2
    assert half == len(path)
    rounds = steps[:half], steps[half:]
    for begin, (first, *later) in zip((0, 24), rounds, strict=True):
        assert first.starts.tolist() == list(range(begin, begin + 24))
        assert first.names[0] == f"start {begin}"
        # All of them bring the middles together, each in an orientation of its own.
        assert np.ptp(first.positions_world, axis=0).max() < 1e-9
        turns = Rotation.from_matrix(first.transforms[:, :3, :3])
        apart = [(turns[0].inv() * turn).magnitude() for turn in turns[1:]]
        assert min(apart) > math.radians(89)
        assert all(set(step.starts) < set(first.starts) for step in later)
    between = (
        Rotation.from_matrix(rounds[0][0].transforms[0, :3, :3]).inv()
        * Rotation.from_matrix(rounds[1][0].transforms[:, :3, :3])
    ).magnitude()
    assert between.min() > math.radians(44)
    # The way to the answer is that of one of the agents, by its number.
    ours = rounds[path.start >= 24]
    seen = [step.transforms[step.starts.tolist().index(path.start)] for step in ours]
    np.testing.assert_array_equal(seen, path.transforms)
    where = [step.positions_world[step.starts.tolist().index(path.start)] for step in ours]
    np.testing.assert_allclose(where, path.positions_world)


def test_a_start_of_ones_own_is_watched_too(registrar: Registrar, fixed, moving):
    steps: list[Step] = []
    registrar.register(fixed, moving, refine=False, initial_world=TRUE, watch=steps.append)
    assert {step.names for step in steps} == {("start 0",)}
    np.testing.assert_array_equal(steps[0].transforms[0], TRUE)


def test_what_a_watcher_raises_comes_out(registrar: Registrar, fixed, moving):
    seen = []

    def enough(step: Step) -> None:
        seen.append(step)
        raise InterruptedError("enough")

    with pytest.raises(InterruptedError, match="enough"):
        registrar.register(fixed, moving, watch=enough)
    assert len(seen) == 1
