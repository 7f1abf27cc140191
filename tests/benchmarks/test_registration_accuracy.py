import sys
import types
from dataclasses import dataclass

import numpy as np
import pytest
import registration_accuracy as accuracy
import torch
from evaluation.registration_cases import Planned, RegistrationCase
from evaluation.registration_peers import Peer
from monai.data.meta_tensor import MetaTensor

from medrl.evaluation import read_json


def planned(name: str, band: str = "10", shift: float = 0.0) -> Planned:
    """A case whose truth is a shift along x."""

    def make() -> RegistrationCase:
        scan = MetaTensor(torch.zeros(1, 4, 4, 4), affine=torch.eye(4).double())
        points = np.zeros((5, 3))
        targets = points + np.array([shift, 0.0, 0.0])
        return RegistrationCase(name, band, "T1", "rigid", scan, scan, None, points, targets)

    return Planned(name, band, "T1", make)


PLANNED = [planned("near"), planned("far", shift=50.0), planned("wide", "60")]
STAY = accuracy.peer_method(Peer(lambda fixed, moving, kind: np.eye(4), None, ""))


def test_an_interrupted_run_goes_on(tmp_path) -> None:
    path = tmp_path / "results.json"
    seen = []

    def method(case: RegistrationCase) -> accuracy.Record:
        if case.name == "far" and "far" not in seen:
            seen.append("far")
            raise KeyboardInterrupt
        seen.append(case.name)
        return STAY(case)

    with pytest.raises(KeyboardInterrupt):
        accuracy.run(path, PLANNED, "stay", method, {"settings": "a"})
    assert list(read_json(path)["methods"]["stay"]["cases"]) == ["near"]
    accuracy.run(path, PLANNED, "stay", method, {"settings": "a"})
    assert seen == ["near", "far", "far", "wide"]
    entry = read_json(path)["methods"]["stay"]
    assert entry["summary"]["successes"] == 2
    assert entry["summary"]["successes_of"] == {"10": {"T1": [1, 2]}, "60": {"T1": [1, 1]}}
    assert entry["cases"]["far"]["error_mm"] == 50.0


def test_records_of_another_model_are_forgotten(tmp_path) -> None:
    path = tmp_path / "results.json"
    accuracy.run(path, PLANNED, "stay", STAY, {"weights_sha256": "1"})
    accuracy.run(path, PLANNED[:1], "stay", STAY, {"weights_sha256": "2"})
    accuracy.run(path, PLANNED[:1], "other", STAY, {})
    methods = read_json(path)["methods"]
    assert list(methods["stay"]["cases"]) == ["near"]
    assert methods["stay"]["weights_sha256"] == "2"
    assert set(methods) == {"stay", "other"}


def test_a_peer_that_raises_has_failed(tmp_path) -> None:
    def broken(fixed: MetaTensor, moving: MetaTensor, kind: str) -> np.ndarray:
        raise RuntimeError("first line\nno overlap")

    path = tmp_path / "results.json"
    accuracy.run(path, PLANNED, "broken", accuracy.peer_method(Peer(broken, None, "")), {})
    entry = read_json(path)["methods"]["broken"]
    assert entry["cases"]["near"]["failure"] == "no overlap"
    assert entry["summary"]["successes"] == 0
    assert entry["summary"]["median_mm"] is None
    assert "0/3" in accuracy.table(read_json(path))


def test_confidence_is_counted_over_failures_and_successes() -> None:
    def record(error: float, agent: float, trusted: bool) -> accuracy.Record:
        return {
            "band": "10",
            "contrast": "T1",
            "error_mm": error,
            "agent_error_mm": agent,
            "cpu_s": 2.0,
            "confidence": 0.5,
            "predicted_error_mm": 1.0,
            "trusted": trusted,
        }

    records = [record(0.5, 1.0, True), record(1.5, 3.0, False), record(9.0, 9.0, False)]
    records += [record(30.0, 1.0, True)]
    figures = accuracy.summary(records)
    assert figures["failures_flagged"] == [1, 2]
    assert figures["successes_flagged"] == [1, 2]
    assert figures["successes"] == 2
    assert figures["agent_successes"] == 2
    assert figures["median_of_successes_mm"] == pytest.approx(1.0)
    assert figures["agent_median_of_successes_mm"] == pytest.approx(2.0)
    text = accuracy.table({"methods": {"medrl": {"summary": figures}}})
    assert "2/4" in text
    assert "1/2, 1/2" in text


def test_overlap_is_averaged() -> None:
    records = [{"dice": 0.5, "cpu_s": 1.0}, {"dice": 0.7, "cpu_s": 3.0}]
    figures = accuracy.summary(records)
    assert figures["dice_mean"] == pytest.approx(0.6)
    assert figures["dice_worst"] == pytest.approx(0.5)
    assert "0.60" in accuracy.table({"methods": {"any": {"summary": figures}}})


def test_medrl_tells_how_sure_it_is(monkeypatch) -> None:
    @dataclass
    class Answer:
        transform_world: np.ndarray
        agent_transform_world: np.ndarray
        confidence: float = 0.9
        predicted_error_mm: float = 0.4
        trusted: bool = True

    class Registrar:
        @classmethod
        def load(cls, name: str) -> "Registrar":
            assert name == "some-model"
            return cls()

        def register(self, fixed, moving, *, transform: str, refine: bool) -> Answer:
            assert (transform, refine) == ("rigid", True)
            agent = np.eye(4)
            agent[0, 3] = 1.5
            return Answer(np.eye(4), agent)

    stub = types.ModuleType("medrl.registration.register")
    stub.Registrar = Registrar
    monkeypatch.setitem(sys.modules, "medrl.registration.register", stub)
    record = accuracy.own_method("some-model", refine=True)(PLANNED[0].make())
    assert record["error_mm"] == 0
    assert record["agent_error_mm"] == pytest.approx(1.5)
    assert record["trusted"] is True
    assert record["confidence"] == 0.9
    assert record["predicted_error_mm"] == 0.4
    assert record["cpu_s"] >= 0


def test_scans_that_medrl_refuses_are_failures_that_it_flags() -> None:
    refused = {"band": "10", "contrast": "T1", "failure": "no", "cpu_s": 0.1, "trusted": False}
    figures = accuracy.summary([refused])
    assert figures["failures_flagged"] == [1, 1]
    assert figures["agent_successes"] == 0
    assert "0/1" in accuracy.table({"methods": {"medrl": {"summary": figures}}})
