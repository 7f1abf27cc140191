from dataclasses import dataclass

import numpy as np
import pytest

from medrl.errors import MedrlError
from medrl.evaluation import Failure, Measurements, compare, measure


@dataclass(frozen=True)
class Sample:
    name: str
    truth: dict[str, float]


SAMPLES = [Sample("one", {"a": 1.0, "b": 2.0}), Sample("two", {"a": 3.0})]


def distance(sample: Sample, answer: dict[str, float]) -> dict[str, float]:
    return {
        name: abs(answer[name] - truth) for name, truth in sample.truth.items() if name in answer
    }


def clock():
    times = iter(range(100))
    return lambda: float(next(times))


def run(methods, **options) -> Measurements:
    return measure(
        SAMPLES, methods, {"error": distance}, groups=lambda sample: sample.truth, **options
    )


def test_rows_are_long_and_seconds_are_among_them() -> None:
    found = run({"zero": lambda _: {"a": 0.0, "b": 0.0}}, clock=clock())
    assert [(r.case, r.group, r.metric, r.value) for r in found.rows] == [
        ("one", "a", "error", 1.0),
        ("one", "b", "error", 2.0),
        ("one", "", "seconds", 1.0),
        ("two", "a", "error", 3.0),
        ("two", "", "seconds", 1.0),
    ]
    assert found.select(metric="error", case=("one", "two")).values.tolist() == [1, 2, 3]
    assert list(found.by("group")) == ["a", "b", ""]
    assert found.unique("case") == ("one", "two")
    assert found.records()[0]["subject"] == "one"


def test_a_group_without_an_answer_is_a_miss_of_every_method() -> None:
    methods = {
        "silent": lambda _: {},
        "half": lambda _: {"a": 1.0},
        "made up": lambda _: {"c": 1.0},
    }
    found = run(methods)
    for method, values in {"silent": [np.nan] * 3, "half": [0, np.nan, 2]}.items():
        np.testing.assert_array_equal(found.select(method=method, metric="error").values, values)


def test_a_metric_may_have_values_where_no_answer_was_due() -> None:
    found = measure(
        SAMPLES, {"m": len}, {"n": lambda truth, size: {"c": size}}, load=lambda s: s.truth
    )
    assert found.select(group="c").values.tolist() == [2, 1]
    assert np.isnan(found.select(group="", metric="n").values).all()


def test_a_method_that_fails_is_counted_and_the_others_go_on() -> None:
    def refuses(sample: Sample) -> dict[str, float]:
        if sample.name == "one":
            raise MedrlError("not a head")
        return {"a": 3.0}

    found = run(
        {"refuses": refuses, "zero": lambda _: {"a": 0.0, "b": 0.0}}, failed={"error": 99.0}
    )
    assert found.failures == (Failure("one", "refuses", "not a head"),)
    assert found.select(method="refuses", metric="error").values.tolist() == [99, 99, 0]
    assert found.select(method="zero", metric="error").values.tolist() == [1, 2, 3]


def test_a_case_that_cannot_be_read_is_nobodys_failure() -> None:
    def load(sample: Sample) -> Sample:
        if sample.name == "one":
            raise MedrlError("one.nii.gz is damaged")
        return sample

    told = []
    found = run({"zero": lambda _: {"a": 0.0}}, load=load, progress=lambda *done: told.append(done))
    assert found.failures == (Failure("one", "", "one.nii.gz is damaged"),)
    assert found.unique("case") == ("two",)
    assert told == [(0, 2, "one"), (1, 2, "two"), (2, 2, "")]


def test_one_value_stands_for_the_whole_case() -> None:
    found = measure(SAMPLES, {"m": len}, {"n": lambda s, a: a}, load=lambda s: s.truth)
    assert [(r.group, r.value) for r in found.rows if r.metric == "n"] == [("", 2), ("", 1)]


def test_other_errors_come_out() -> None:
    with pytest.raises(ZeroDivisionError):
        run({"broken": lambda _: {"a": 1 / 0}})


def test_differences_are_paired_by_case_and_group() -> None:
    methods = {
        "far": lambda s: {n: t + 2 for n, t in s.truth.items()},
        "near": lambda _: {"a": 1.0},
    }
    both = run(methods) + Measurements()
    found = compare(both, "error", "far", "near")
    assert (found.mean, found.pairs, found.missed) == (1.0, 2, 1)
    assert found.low == 0
    assert found.high == 2
