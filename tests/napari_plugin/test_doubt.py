"""A scan that a model was not made for: the panels say so in their first line."""

from types import SimpleNamespace

import numpy as np
import pytest

from medrl.errors import MedrlError
from medrl_napari import models
from medrl_napari.register.answers import Answer
from medrl_napari.widgets import StatusLine

LINE = "toy was not made for this scan, do not rely on it: size: 22 mm"


def test_the_first_line_is_the_doubt(qapp):
    status = StatusLine()
    status.tell("Done in 0.5 s.", ["it is small"], doubt=LINE)
    first, second, third = status.text().split("\n")
    assert first == f"Not to be relied on: {LINE}."
    assert (second, third) == ("Done in 0.5 s.", "It is small.")
    warned = status.styleSheet()
    status.tell("Done in 0.5 s.", [])
    assert status.text() == "Done in 0.5 s."
    assert status.styleSheet() != warned


def test_seeds_are_doubted_before_the_first_click(monkeypatch, make_scan):
    class Guard:
        scans = (SimpleNamespace(channel="MR"),)

        def reasons(self, scan, *, channel=None):
            assert channel == "MR"
            return ("size: 22 mm",)

    monkeypatch.setattr(models, "guard_of", lambda manifest: Guard())
    doubt = models.doubt_of("hippocampus-t1", {"MR": make_scan()})
    assert doubt is not None
    assert doubt.startswith("hippocampus-t1 was not made for this scan")
    assert "size: 22 mm" in doubt
    monkeypatch.setattr(models, "guard_of", lambda manifest: None)
    assert models.doubt_of("hippocampus-t1", {"MR": make_scan()}) is None


def test_a_model_that_is_not_there_is_not_doubted(make_scan):
    with pytest.raises(MedrlError):
        models.load_model("no-such-model")
    assert models.doubt_of("no-such-model", {"MR": make_scan()}) is None


def test_a_registration_says_why_it_is_not_trusted():
    found = SimpleNamespace(
        confidence=0.1,
        predicted_error_mm=3.0,
        refined=False,
        seconds=1.0,
        trusted=False,
        unfit=("size: 22 mm",),
        warnings=(LINE,),
    )
    answer = Answer(*[None] * len(Answer.__dataclass_fields__))
    object.__setattr__(answer, "registration", found)
    assert answer.summary().startswith(f"NOT TRUSTED: {LINE}. ")
    assert np.isfinite(answer.registration.confidence)
