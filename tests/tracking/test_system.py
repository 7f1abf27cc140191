"""The verb `track`: films and points, and one clear line for what cannot be."""

from __future__ import annotations

from pathlib import Path

import pytest

from medrl.errors import MedrlError
from medrl.tracking.system import Given, TrackingSystem, TrackOptions

SYSTEM = TrackingSystem()


def test_the_model_follows_from_what_is_given(tmp_path: Path) -> None:
    assert SYSTEM.choose_model(Given(), ("scan",)) == "tracks"
    assert SYSTEM.choose_model(Given(marks=tmp_path), ("scan",)) == "visits"


def test_what_does_not_go_together_is_refused(tmp_path: Path) -> None:
    with pytest.raises(MedrlError, match="not both"):
        SYSTEM.check_given(Given(detections=tmp_path, marks=tmp_path), ("scan",))
    with pytest.raises(MedrlError, match="name them by --marks"):
        SYSTEM.check_given(Given(earlier=tmp_path), ("scan",))
    with pytest.raises(MedrlError, match="no such file"):
        SYSTEM.check_given(Given(detections=tmp_path / "nothing.csv"), ("scan",))
    with pytest.raises(MedrlError, match="must not be negative"):
        SYSTEM.check(None, TrackOptions(max_gap=-1))


def test_what_lies_beside_a_film_comes_with_it(tmp_path: Path) -> None:
    (tmp_path / "a.detections.csv").write_text("frame,x0,y0,x1,y1\n")
    found = SYSTEM.sidecar(tmp_path / "a.mp4")
    assert found == {"detections": str(tmp_path / "a.detections.csv")}
