import json

import pytest
from evaluation.arms import run_arms

CLAIMS = {"It helps": lambda result: ", ".join(result["arms"])}


def test_arms_that_are_known_are_not_run_again(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    path, ran = tmp_path / "ablation.json", []

    def figures(name: str, *, steps: int) -> dict[str, float]:
        ran.append(name)
        return {"mm": steps / 3}

    options = {"workers": 1, "claims": CLAIMS, "steps": 4}
    run_arms(path, ["one"], figures, **options)
    found = run_arms(path, ["one", "other"], figures, **options)
    assert ran == ["one", "other"]
    assert found == {"one": {"mm": 1.3333}, "other": {"mm": 1.3333}}
    content = json.loads(path.read_text())
    assert (content["arms"], content["steps"]) == (found, 4)
    assert content["claims"] == {"It helps": "one, other"}
    assert not (tmp_path / "runs" / "ablation").exists()


def test_an_interrupted_ablation_goes_on(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    ran = []

    def figures(name: str) -> dict[str, float]:
        ran.append(name)
        if ran == ["one", "other"]:
            raise KeyboardInterrupt
        return {"mm": 1.0}

    for attempt in (0, 1):
        arguments = (tmp_path / "ablation.json", ["one", "other"], figures)
        if attempt == 0:
            with pytest.raises(KeyboardInterrupt):
                run_arms(*arguments, workers=1, claims=CLAIMS)
        else:
            run_arms(*arguments, workers=1, claims=CLAIMS)
    assert ran == ["one", "other", "other"]
