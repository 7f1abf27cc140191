import numpy as np
import pytest
from scipy.stats import bootstrap
from sklearn.metrics import confusion_matrix, roc_auc_score

from medrl.evaluation import auc, confusion, interval_by_subject, paired_bootstrap, summarize


def test_summary_of_known_errors() -> None:
    figures = summarize([1.0, 2.0, 3.0, 6.0, 18.0, np.nan], above=(5, 10))
    assert figures["count"] == 5
    assert figures["missed"] == 1
    assert figures["mean"] == pytest.approx(6)
    assert figures["median"] == pytest.approx(3)
    assert (figures["min"], figures["max"]) == (1, 18)
    assert figures["p95"] == pytest.approx(np.percentile([1, 2, 3, 6, 18], 95))


def test_a_miss_is_no_better_than_a_large_error() -> None:
    figures = summarize([1.0, 2.0, 3.0, 6.0, 18.0, np.nan], above=(5, 10))
    assert figures["above_5"] == pytest.approx(3 / 6)
    assert figures["above_10"] == pytest.approx(2 / 6)


def test_nothing_sums_up_to_nothing() -> None:
    assert summarize([np.nan], above=(5,)) == {
        **{"count": 0, "missed": 1, "above_5": 1.0},
        **dict.fromkeys(("mean", "median", "p95", "min", "max")),
    }
    assert summarize([], above=(5,))["above_5"] is None


@pytest.mark.parametrize("seed", range(3))
def test_auc_is_that_of_scikit_learn(seed: int) -> None:
    rng = np.random.default_rng(seed)
    positive = rng.random(300) < 0.1
    score = (rng.standard_normal(300) + positive).round(1)  # rounded: ties
    assert auc(score, positive) == pytest.approx(roc_auc_score(positive, score))


def test_auc_of_one_class_is_unknown() -> None:
    assert np.isnan(auc([0.1, 0.2], [False, False]))


def test_interval_of_independent_differences_is_that_of_scipy() -> None:
    values = np.random.default_rng(0).normal(0.3, 1, 60)
    found = paired_bootstrap(values, [str(n) for n in range(60)])
    expected = bootstrap(
        (values,), np.mean, method="percentile", n_resamples=20_000, random_state=1
    ).confidence_interval
    assert found.mean == pytest.approx(values.mean())
    assert found.pairs == 60
    assert (found.low, found.high) == pytest.approx(expected, abs=0.02)


def test_repeated_measurements_of_a_subject_do_not_narrow_the_interval() -> None:
    values = np.random.default_rng(0).normal(0.3, 1, 20)
    names = [str(n) for n in range(20)]
    once, often = (paired_bootstrap(np.repeat(values, k), np.repeat(names, k)) for k in (1, 10))
    assert (once.low, once.high) == pytest.approx((often.low, often.high))


def test_nothing_is_known_of_others_from_one_subject() -> None:
    assert np.isnan(paired_bootstrap([1.0, 2.0], ["a", "a"]).low)
    assert np.isnan(paired_bootstrap([], []).mean)
    unknown = interval_by_subject(lambda rows: auc(rows, rows < 0), ["a", "b"], resamples=5)
    assert np.isnan(unknown).all()


def test_interval_of_an_area_widens_with_groups() -> None:
    rng = np.random.default_rng(0)
    positive = rng.random(400) < 0.3
    score = rng.standard_normal(400) + positive

    def area(rows):
        return auc(score[rows], positive[rows])

    low, high = interval_by_subject(area, [str(n) for n in range(400)], resamples=200)
    assert low < auc(score, positive) < high
    assert 0.02 < high - low < 0.2


def test_confusion_is_that_of_scikit_learn() -> None:
    rng = np.random.default_rng(1)
    present, said = rng.random((2, 200)) < 0.6
    found = confusion(present, said)
    (tn, fp), (fn, tp) = confusion_matrix(present, said)
    assert (found.true_positive, found.false_negative) == (tp, fn)
    assert (found.false_positive, found.true_negative) == (fp, tn)
    assert found.accuracy == pytest.approx((tp + tn) / 200)
