from types import SimpleNamespace

import numpy as np
import pytest
import registration_accuracy as accuracy
import torch
from evaluation.registration_pairs import PlannedPair, ScanPair
from evaluation.registration_peers import Peer
from monai.data.meta_tensor import MetaTensor

from medrl.errors import MedrlError
from medrl.evaluation import read_json


def planned(name: str, band: str = "10", shift: float = 0.0) -> PlannedPair:
    """A case whose truth is a shift along x."""

    def make() -> ScanPair:
        scan = MetaTensor(torch.zeros(1, 4, 4, 4), affine=torch.eye(4).double())
        points = np.zeros((5, 3))
        targets = points + np.array([shift, 0.0, 0.0])
        return ScanPair(name, band, "T1", "rigid", scan, scan, None, points, targets)

    return PlannedPair(name, band, "T1", make)


PLANNED = [planned("near"), planned("far", shift=50.0), planned("wide", "60")]
STAY = accuracy.peer_method(Peer(lambda fixed, moving, kind: np.eye(4), None, ""))


def test_an_interrupted_run_goes_on(tmp_path) -> None:
    path = tmp_path / "results.json"
    seen = []

    def method(case: ScanPair) -> accuracy.Answer:
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
    measured = accuracy.measurements(read_json(path))
    assert accuracy.successes(measured) == (2, 3)
    counts = {band: accuracy.successes(rows) for band, rows in measured.by("group").items()}
    assert counts == {"10": (1, 2), "60": (1, 1)}
    assert read_json(path)["methods"]["stay"]["cases"]["far"]["error_mm"] == 50.0


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
    result = read_json(path)
    record = result["methods"]["broken"]["cases"]["near"]
    assert record["failure"] == "no overlap"
    assert record["error_mm"] is None
    assert accuracy.successes(accuracy.measurements(result)) == (0, 3)
    assert "0/3" in accuracy.table(result)


def record(error: float | None, agent: float, trusted: float) -> accuracy.Record:
    return {
        "band": "10",
        "contrast": "T1",
        "error_mm": error,
        "agent_error_mm": agent,
        "seconds": 2.0,
        "trusted": trusted,
    }


def test_confidence_is_counted_over_wrong_and_right_answers() -> None:
    records = [record(0.5, 1.0, 1.0), record(1.5, 3.0, 0.0), record(9.0, 9.0, 0.0)]
    records += [record(30.0, 1.0, 1.0), record(None, 50.0, 0.0)]
    result = {"methods": {"medrl": {"cases": {str(n): r for n, r in enumerate(records)}}}}
    measured = accuracy.measurements(result)
    assert accuracy.flagged(measured, right=False) == (2, 3)
    assert accuracy.flagged(measured, right=True) == (1, 2)
    assert accuracy.successes(measured) == (2, 5)
    assert accuracy.successes(measured, "agent_error_mm") == (2, 5)
    assert "| 2/5 | 2/5 | 5.25 | 2.00 | 2/5 | 2/3, 1/2 |" in accuracy.table(result)
    assert accuracy.trust_in_words(result) == "flags 2 of 3 wrong and 1 of 2 right answers"


def test_overlap_is_averaged() -> None:
    cases = {str(n): {"band": "", "contrast": "", "dice": n, "seconds": 1.0} for n in (0.5, 0.7)}
    result = {"methods": {"any": {"cases": cases}}}
    assert "| any | 2 | 0.60 | 0.50 | 1.00 |" in accuracy.table(result)
    assert accuracy.overlap_in_words(result) == "Dice: any 0.600"


class Registrar:
    """One that is sure of itself, or refuses."""

    def __init__(self, refuses: bool = False) -> None:
        self.refuses = refuses

    def register(self, fixed, moving, *, transform, refine, initial_world) -> SimpleNamespace:
        assert (transform, refine, initial_world) == ("rigid", True, None)
        if self.refuses:
            raise MedrlError("no head")
        agent = np.eye(4)
        agent[0, 3] = 1.5
        return SimpleNamespace(
            transform_world=np.eye(4),
            agent_transform_world=agent,
            confidence=0.9,
            predicted_error_mm=0.4,
            trusted=True,
        )


def test_medrl_tells_how_sure_it_is() -> None:
    method = accuracy.own_method(Registrar(), refine=True)
    found = accuracy.record_of(PLANNED[0], "medrl", method)
    assert found["error_mm"] == 0
    assert found["agent_error_mm"] == pytest.approx(1.5)
    assert (found["trusted"], found["confidence"], found["predicted_error_mm"]) == (1, 0.9, 0.4)
    assert found["seconds"] >= 0


def test_scans_that_medrl_refuses_are_failures_that_it_flags() -> None:
    method = accuracy.own_method(Registrar(refuses=True), refine=True)
    found = accuracy.record_of(PLANNED[0], "medrl", method)
    assert found["failure"] == "no head"
    assert np.isnan(found["error_mm"])
    measured = accuracy.measurements({"methods": {"medrl": {"cases": {"near": found}}}})
    assert accuracy.flagged(measured, right=False) == (1, 1)
