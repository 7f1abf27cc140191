"""The confidence, against a known logistic, scikit-learn, and what it must mean."""

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression

from medrl.registration import calibrate as module
from medrl.registration.calibrate import RIGHT_MM, calibrate, fit
from medrl.registration.confidence import Confidence
from medrl.registration.model import ModelSettings, RegistrationModel

WEIGHTS = np.array([-0.8, 0.5, 0.0])


def simulated(
    count: int = 6000, seed: int = 0, *, bias: float = 0.0, scale: float = 1.0
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Answers that are right with the probability of a known logistic."""
    rng = np.random.default_rng(seed)
    features = rng.normal([2.0, -1.0, 0.0], [1.0, 2.0, 0.5], (count, 3))
    score = (features - [2.0, -1.0, 0.0]) @ WEIGHTS * scale + bias
    return features, rng.uniform(size=count) < 1 / (1 + np.exp(-score))


def errors_of(right: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Errors in mm that make answers right or wrong."""
    return np.where(right, 0.5, 40.0)


def test_the_expected_error_lies_between_those_of_right_and_wrong_answers() -> None:
    features, right = simulated(scale=6.0)
    found = fit(features, errors_of(right))
    assert (found.right_mm, found.wrong_mm) == pytest.approx((0.5, 40.0))
    expected, sure = found.error_mm(features), found(features)
    assert np.all(np.diff(expected[np.argsort(sure)]) <= 1e-9)
    assert expected[sure > 0.99].max() < 0.6
    assert expected[sure < 0.01].min() > 37


def test_a_known_logistic_is_recovered() -> None:
    features, right = simulated()
    found = fit(features, errors_of(right))
    # Slight regularisation shrinks the weights a little.
    ratio = np.array(found.weights[:2]) / WEIGHTS[:2]
    assert (ratio > 0.75).all()
    assert (ratio < 1.1).all()
    assert abs(found.weights[2]) < 0.15
    probability = found(features)
    bins = np.quantile(probability, np.linspace(0, 1, 6))
    for low, high in pairwise(bins):
        inside = (probability >= low) & (probability <= high)
        assert probability[inside].mean() == pytest.approx(right[inside].mean(), abs=0.06)


@pytest.mark.parametrize("bias", [0.0, 1.5, 4.0])
def test_weights_agree_with_scikit_learn(bias: float) -> None:
    features, right = simulated(1500, bias=bias, scale=2.0)
    middle, spread = features.mean(axis=0), features.std(axis=0, ddof=1)
    standard = (features - middle) / spread
    # No class weighs more than another: probabilities are those of the cases.
    reference = LogisticRegression(C=1.0, tol=1e-10, max_iter=1000).fit(standard, right)
    found = fit(features, errors_of(right))
    np.testing.assert_allclose(np.array(found.weights) * spread, reference.coef_[0], atol=2e-3)
    np.testing.assert_allclose(found(features), reference.predict_proba(standard)[:, 1], atol=1e-3)
    assert found(features).mean() == pytest.approx(right.mean(), abs=1e-3)


@pytest.mark.parametrize("scale", [1.0, 6.0])
def test_the_threshold_spares_right_answers(scale: float) -> None:
    features, right = simulated(scale=scale)
    found = fit(features, errors_of(right))
    doubted = found(features) < found.threshold
    assert found.threshold <= 0.5
    assert doubted[right].mean() <= 0.02 + 1 / right.sum()
    # It is no laxer than it must be: a little higher would doubt too many, or it is at a half.
    if found.threshold < 0.5:
        higher = found(features) < found.threshold + 0.02
        assert higher[right].mean() > 0.02
    assert doubted[~right].mean() > 2 * doubted[right].mean()


def test_clear_cases_are_told_apart() -> None:
    rng = np.random.default_rng(0)
    right = np.arange(300) % 3 > 0
    features = rng.normal(size=(300, 2)) * 0.3
    features[:, 0] += np.where(right, -2, 2)
    found = fit(features, errors_of(right))
    probability = found(features)
    assert probability[right].min() > found.threshold
    assert probability[~right].max() < found.threshold


@pytest.mark.parametrize("answer", [True, False])
def test_answers_all_alike_give_something_finite(answer: bool) -> None:
    features, _ = simulated(50)
    found = fit(features, errors_of(np.full(50, answer)))
    probability = found(features)
    assert np.isfinite(found.weights).all()
    assert ((probability > 0.5) == answer).mean() > 0.95
    assert np.isfinite(found.threshold)


def test_a_constant_feature_does_no_harm() -> None:
    features, right = simulated(500)
    features[:, 2] = 7.0
    found = fit(features, errors_of(right))
    assert np.isfinite(found(features)).all()
    assert found.weights[2] == pytest.approx(0, abs=1e-6)


def test_probabilities_by_hand() -> None:
    sure = Confidence((2.0, -1.0), 0.5, 0.5, 0.3, 50.0)
    assert sure(np.array([1.0, 0.5])) == pytest.approx(1 / (1 + np.exp(-2.0)))
    assert sure(np.array([[1e9, 0.0], [-1e9, 0.0]])).tolist() == pytest.approx([1, 0])


class Case:
    """Features tell how far off the answer is."""

    fixed = moving = None
    points_world = np.random.default_rng(0).normal(0, 50, (20, 3))

    def __init__(self, error: float) -> None:
        self.truth_world = np.eye(4)
        self.error = error

    def error_mm(self, transform_world: NDArray[np.float64]) -> float:
        return float(transform_world[0, 3])


def test_models_are_calibrated_on_posed_validation_scans(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    asked: list[tuple[str, object]] = []
    starts: list[object] = []

    class Answer:
        def __init__(self, error: float) -> None:
            self.transform_world = np.eye(4)
            self.transform_world[0, 3] = error
            self.features = np.array([np.log1p(error) + 0.05 * rng.normal(), rng.normal()])

    class Agents:
        def __init__(self, model: RegistrationModel) -> None:
            pass

        def candidates(self, *_: object, initial_world: object = None) -> list[Answer]:
            starts.append(initial_world)
            return [Answer(0.5 if initial_world is None else float(rng.uniform(0.1, 60)))]

    def made(path: Path, *, turn: object, shift: float, generator: torch.Generator) -> Case:
        asked.append((path.name, turn))
        return Case(0.0)

    monkeypatch.setattr(module, "Registrar", Agents)
    monkeypatch.setattr(module, "make_case", made)
    told: list[tuple[int, int]] = []
    model = calibrate(
        RegistrationModel(ModelSettings(), ()),
        [Path(f"{name}.nii") for name in "abcdef"],
        seed=0,
        rounds=10,
        progress=lambda done, total: told.append((done, total)),
    )
    assert asked == [(f"{name}.nii", None) for name in "abcdef"] * 10
    assert told == [(n + 1, 60) for n in range(60)]
    found = model.settings.confidence
    assert found is not None
    assert float(found(np.array([np.log1p(0.4), 0.0]))) > 0.8
    assert float(found(np.array([np.log1p(20 * RIGHT_MM), 0.0]))) < 0.2
    given = [start for start in starts if start is not None]
    # The last round only: one in ten.
    assert starts == [None] * 54 + given
    assert len(given) == 6
    for start in given:
        turn = np.asarray(start)[:3, :3]
        np.testing.assert_allclose(turn @ turn.T, np.eye(3), atol=1e-9)
        middle = Case.points_world.mean(axis=0)
        np.testing.assert_allclose((np.asarray(start) @ [*middle, 1])[:3], middle, atol=1e-9)
