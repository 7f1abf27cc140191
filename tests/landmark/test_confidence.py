"""The confidence, against scikit-learn and against what it must mean."""

import numpy as np
from scipy.stats import rankdata
from sklearn.linear_model import LogisticRegression

from medrl.bundles import find, load_weights
from medrl.landmark.confidence import GOOD_MM, Confidence, _transform
from medrl.landmark.detect import LandmarkDetector
from medrl.landmark.judging import load_model, save_model
from medrl.landmark.model import LandmarkModel, ModelSettings


def simulated(count=4000, seed=0):
    """Detections whose error grows with the first and the last feature."""
    rng = np.random.default_rng(seed)
    features = np.exp(rng.normal(size=(count, 5)))
    features[:, 3] = rng.normal(size=count)
    error = features[:, 0] * 2 + features[:, 4] * rng.exponential(size=count)
    return features, error


def test_weights_agree_with_scikit_learn():
    features, error = simulated()
    fitted = Confidence.fit(features, error, ridge=1.0)
    standard = (_transform(features, GOOD_MM) - fitted.center) / fitted.scale
    reference = LogisticRegression(C=1.0, tol=1e-10, max_iter=1000).fit(standard, error < GOOD_MM)
    np.testing.assert_allclose(fitted.weights, reference.coef_[0], atol=2e-3)
    np.testing.assert_allclose(fitted.bias, reference.intercept_[0], atol=2e-3)
    np.testing.assert_allclose(fitted(features), reference.predict_proba(standard)[:, 1], atol=1e-3)


def test_probabilities_are_calibrated_on_unseen_detections():
    fitted = Confidence.fit(*simulated(seed=1))
    features, error = simulated(seed=2)
    probability = fitted(features)
    for low in np.arange(0, 1, 0.2):
        inside = (probability >= low) & (probability < low + 0.2)
        if inside.sum() > 100:
            assert abs((error[inside] < GOOD_MM).mean() - probability[inside].mean()) < 0.1
    ranks, bad = rankdata(-probability), error > GOOD_MM
    auc = (ranks[bad].sum() - bad.sum() * (bad.sum() + 1) / 2) / (bad.sum() * (~bad).sum())
    assert auc > 0.8


def test_missing_shape_evidence_counts_as_average():
    features, error = simulated()
    fitted = Confidence.fit(features, error)
    unknown = features[:50].copy()
    unknown[:, 4] = np.nan
    assert np.isfinite(fitted(unknown)).all()


def test_a_model_keeps_its_confidence_unrounded(tmp_path):
    settings = ModelSettings(spacings=(2.0,), window=9, channels=(4,), features=8)
    network = settings.build_network(2).eval()
    confidence = Confidence.fit(*simulated())
    model = LandmarkModel(("a", "b"), settings, (network,), confidence=confidence)
    folder = save_model(model, tmp_path / "m", name="m", card={"title": "M"})
    again, _ = load_model(folder)
    assert again.confidence is not None
    for one, other in zip(vars(again.confidence).values(), vars(confidence).values(), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-6)


def test_models_of_before_have_it_among_their_weights():
    confidence = LandmarkDetector.load("brain-t1").model.confidence
    assert confidence is not None
    tensors = load_weights(find("brain-t1"))
    np.testing.assert_array_equal(confidence.weights, tensors["confidence.weights"].double())
    assert confidence.bias == float(tensors["confidence.bias"][0])
