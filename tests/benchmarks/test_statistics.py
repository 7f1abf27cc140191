import json

import numpy as np
import pytest
from evaluation.results import markdown, read, save
from evaluation.statistics import auc, auc_interval, confusion, reliability, summarize
from scipy.stats import mannwhitneyu
from sklearn.calibration import calibration_curve
from sklearn.metrics import brier_score_loss, confusion_matrix, roc_auc_score


def test_summary_of_known_errors() -> None:
    figures = summarize([1.0, 2.0, 3.0, 6.0, 18.0, np.nan])
    assert figures["count"] == 5
    assert figures["missing"] == 1
    assert figures["mean_mm"] == pytest.approx(6)
    assert figures["median_mm"] == pytest.approx(3)
    assert figures["max_mm"] == pytest.approx(18)
    assert figures["above_5_mm_percent"] == pytest.approx(40)
    assert figures["above_10_mm_percent"] == pytest.approx(20)
    assert summarize([np.nan]) == {"count": 0, "missing": 1}


@pytest.mark.parametrize("seed", range(3))
def test_auc_is_that_of_scikit_learn_and_scipy(seed: int) -> None:
    rng = np.random.default_rng(seed)
    positive = rng.random(300) < 0.1
    score = (rng.standard_normal(300) + positive).round(1)  # rounded: ties
    area = auc(score, positive)
    assert area == pytest.approx(roc_auc_score(positive, score))
    u = mannwhitneyu(score[positive], score[~positive]).statistic
    assert area == pytest.approx(u / (positive.sum() * (~positive).sum()))


def test_auc_of_one_class_is_unknown() -> None:
    assert np.isnan(auc([0.1, 0.2], [False, False]))
    assert np.isnan(auc_interval([0.1, 0.2], [False, False], ["a", "b"], rounds=5)).all()


def test_interval_holds_the_area_and_widens_with_groups() -> None:
    rng = np.random.default_rng(0)
    positive = rng.random(400) < 0.3
    score = rng.standard_normal(400) + positive
    low, high = auc_interval(score, positive, list(range(400)), rounds=200)
    assert low < auc(score, positive) < high
    assert 0.02 < high - low < 0.2


def test_confusion_is_that_of_scikit_learn() -> None:
    rng = np.random.default_rng(1)
    present, said = rng.random((2, 200)) < 0.6
    table = confusion(present, said)
    (tn, fp), (fn, tp) = confusion_matrix(present, said)
    assert table["present_said_present"] == tp
    assert table["present_said_absent"] == fn
    assert table["absent_said_present"] == fp
    assert table["absent_said_absent"] == tn
    assert table["right_percent"] == pytest.approx(100 * (tp + tn) / 200)


def test_reliability_is_that_of_scikit_learn() -> None:
    rng = np.random.default_rng(2)
    probability = rng.random(1000)
    outcome = rng.random(1000) < probability**2
    found = reliability(probability, outcome)
    assert found["brier"] == pytest.approx(brier_score_loss(outcome, probability))
    observed, stated = calibration_curve(outcome, probability, n_bins=10)
    np.testing.assert_allclose([b["observed"] for b in found["bins"]], observed)
    np.testing.assert_allclose([b["stated"] for b in found["bins"]], stated)


def test_results_are_plain_json(tmp_path) -> None:
    path = tmp_path / "results" / "figures.json"
    values = {"a": np.float64(1.23456), "b": np.array([1, 2]), "c": float("nan"), "d": np.True_}
    save(path, values)
    assert json.loads(path.read_text()) == {"a": 1.2346, "b": [1, 2], "c": None, "d": True}
    assert read(path)["b"] == [1, 2]
    assert read(tmp_path / "none.json") == {}


def test_markdown_table() -> None:
    text = markdown(["who", "mm"], [["model", 1.234], ["atlas", 4.0]])
    assert text == "| who | mm |\n| --- | --- |\n| model | 1.23 |\n| atlas | 4.00 |"
