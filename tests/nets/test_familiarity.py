"""How usual features are, next to other implementations of the same formulas."""

import numpy as np
import pytest
from scipy.spatial.distance import mahalanobis

from medrl.nets.familiarity import Familiarity

KINDS, FEATURES = 3, 5


@pytest.fixture
def seen():
    """Features of three kinds, correlated, and one that never fires."""
    rng = np.random.default_rng(0)
    kind = rng.integers(KINDS, size=600)
    mixed = rng.standard_normal((600, FEATURES)) @ rng.standard_normal((FEATURES, FEATURES))
    features = mixed + 3 * kind[:, None]
    features[:, 2] = 0
    return features, kind


def fitted(features, kind, **options):
    scan = np.arange(len(kind)) // 4
    return Familiarity.fit(features, kind, kinds=KINDS, whole=scan, scan=scan, **options)


def test_distances_are_those_of_scipy_and_scikit_learn(seen):
    covariance = pytest.importorskip("sklearn.covariance")
    features, kind = seen
    means = np.stack([features[kind == k].mean(axis=0) for k in range(KINDS)])
    within = covariance.shrunk_covariance(
        covariance.empirical_covariance(features - means[kind], assume_centered=True), 0.05
    )
    known = fitted(features, kind)
    others = np.random.default_rng(1).standard_normal((7, FEATURES)) * 4
    asked = np.arange(7) % KINDS
    expected = [
        mahalanobis(other, means[k], np.linalg.inv(within)) ** 2 / FEATURES
        for other, k in zip(others, asked, strict=True)
    ]
    np.testing.assert_allclose(known(others, asked), expected, rtol=1e-9)


def test_what_training_shows_is_usual_and_what_it_never_showed_is_not(seen):
    features, kind = seen
    known = fitted(features, kind)
    shares = known(features, kind) / known.limit
    assert np.median(shares) < 0.7
    assert known.typical(features[:4], kind[:4]) < known.limit
    strange = features[:4].copy()
    strange[:, 2] = 10  # the feature that never fires
    assert known.typical(strange, kind[:4]) > 3 * known.limit


def test_a_kind_that_never_occurs_is_like_all_others(seen):
    features, kind = seen
    scan = np.arange(len(kind))
    known = Familiarity.fit(features, kind, kinds=KINDS + 1, whole=scan, scan=scan)
    np.testing.assert_allclose(known.means[KINDS], features.mean(axis=0))


def test_the_limit_is_set_on_scans_that_were_left_out():
    """With as many features as scans, those that were fitted on look nearer than they are."""
    rng = np.random.default_rng(2)
    features, kind = rng.standard_normal((60, 50)), np.zeros(60, dtype=np.int64)
    scan = np.arange(60)
    known = Familiarity.fit(features, kind, kinds=1, whole=scan, scan=scan, usual=0.95)
    new = known(rng.standard_normal((2000, 50)), np.zeros(2000, dtype=np.int64))
    assert known(features, kind).max() < known.limit
    assert 0.9 < (new < known.limit).mean() <= 1


def test_what_is_stored_says_the_same(seen):
    features, kind = seen
    known = fitted(features, kind)
    again = Familiarity.from_tensors(known.tensors("fine."), "fine.")
    np.testing.assert_allclose(again(features, kind), known(features, kind), rtol=1e-5)
    assert again.limit == pytest.approx(known.limit)
    assert Familiarity.from_tensors({}) is None
    broken = known.tensors()
    broken["familiarity.whitening"] = broken["familiarity.whitening"][:2]
    with pytest.raises(ValueError, match="do not fit each other"):
        Familiarity.from_tensors(broken)


def test_a_few_scans_do_not_tell_what_is_usual(seen):
    features, kind = seen
    scan = np.arange(len(kind)) % 9
    assert Familiarity.fit(features, kind, kinds=KINDS, whole=scan, scan=scan) is None
