import json

import _index
from evaluation.results import save


def test_a_result_says_what_it_shows_and_what_it_was_measured_with(tmp_path) -> None:
    path = tmp_path / "results" / "figures.json"
    save(path, {"mm": 1.23456}, {"It is near": lambda result: f"{result['mm']} mm"})
    content = json.loads(path.read_text())
    assert content["claims"] == {"It is near": "1.2346 mm"}
    assert content["mm"] == 1.2346
    assert {"torch", "medrl"} <= set(content["environment"])
    # What is measured again says so anew.
    save(path, {**content, "mm": 2.0}, {"It is near": lambda result: f"{result['mm']} mm"})
    assert json.loads(path.read_text())["claims"] == {"It is near": "2.0 mm"}


def test_the_table_has_every_claim_of_the_results_on_file() -> None:
    table = _index.table()
    for path in _index.RESULTS.glob("*.json"):
        assert path.stem in _index.ORDER
        for claim in json.loads(path.read_text())["claims"]:
            assert f"| {claim} |" in table
