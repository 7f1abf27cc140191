import numpy as np
import pytest
from sklearn.calibration import calibration_curve
from sklearn.linear_model import LogisticRegression as Reference
from sklearn.metrics import brier_score_loss

from medrl.evaluation import LogisticRegression, choose_threshold, reliability


def cases(count: int = 500):
    """Features of different size, and events of which one in ten happens."""
    rng = np.random.default_rng(0)
    features = rng.normal([3, -200, 0.01], [1, 50, 0.002], (count, 3))
    score = (features - [3, -200, 0.01]) / [1, 50, 0.002] @ [1.0, -2.0, 0.0] - 2.5
    return features, rng.random(count) < 1 / (1 + np.exp(-score))


@pytest.mark.parametrize("l2", [0.1, 1.0, 10.0])
def test_fit_is_that_of_scikit_learn(l2: float) -> None:
    features, event = cases()
    found = LogisticRegression.fit(features, event, l2=l2)
    standard = (features - features.mean(axis=0)) / features.std(axis=0)
    reference = Reference(C=1 / l2, tol=1e-10, max_iter=1000).fit(standard, event)
    np.testing.assert_allclose(found.weights, reference.coef_[0], atol=1e-4)
    assert found.bias == pytest.approx(reference.intercept_[0], abs=1e-4)
    np.testing.assert_allclose(found(features), reference.predict_proba(standard)[:, 1], atol=1e-5)


def test_probabilities_are_as_frequent_as_the_event() -> None:
    features, event = cases(2000)
    found = LogisticRegression.fit(features, event)(features)
    assert found.mean() == pytest.approx(event.mean(), abs=1e-6)
    assert reliability(found, event).calibration_error < 0.03


def test_a_feature_that_is_unknown_counts_as_the_mean() -> None:
    features, event = cases()
    found = LogisticRegression.fit(features, event)
    assert found([[np.nan] * 3])[0] == pytest.approx(found(found.center))
    holes = features.copy()
    holes[::3, 1] = np.nan
    assert np.isfinite(LogisticRegression.fit(holes, event)(holes)).all()


@pytest.mark.parametrize("event", [True, False])
def test_of_one_class_alone_it_stays_finite(event: bool) -> None:
    features, _ = cases(50)
    found = LogisticRegression.fit(features, np.full(50, event))
    assert np.isfinite([*found.weights, found.bias]).all()
    assert ((found(features) > 0.5) == event).all()


def test_a_constant_feature_says_nothing() -> None:
    features, event = cases()
    found = LogisticRegression.fit(np.column_stack([features, np.ones(len(features))]), event)
    assert found.weights[3] == pytest.approx(0, abs=1e-6)


def test_reliability_is_that_of_scikit_learn() -> None:
    rng = np.random.default_rng(2)
    probability = rng.random(1000)
    outcome = rng.random(1000) < probability**2
    found = reliability(probability, outcome)
    assert found.brier == pytest.approx(brier_score_loss(outcome, probability))
    observed, stated = calibration_curve(outcome, probability, n_bins=10)
    np.testing.assert_allclose([b.observed for b in found.bins], observed)
    np.testing.assert_allclose([b.stated for b in found.bins], stated)
    weights = np.array([b.count for b in found.bins]) / 1000
    assert found.calibration_error == pytest.approx((weights * np.abs(observed - stated)).sum())
    assert sum(b.count for b in reliability([0.0, 1.0], [False, True]).bins) == 2


def test_threshold_spares_right_answers() -> None:
    probability = np.linspace(0, 1, 101)
    right = probability > 0.2
    threshold = choose_threshold(probability, right, false_alarms=0.1)
    assert (probability[right] < threshold).mean() == pytest.approx(0.1, abs=0.02)
    assert choose_threshold(probability, probability > 0.9, false_alarms=0.1) == 0.5
    assert choose_threshold(probability, probability > 2, false_alarms=0.1) == 0.5
