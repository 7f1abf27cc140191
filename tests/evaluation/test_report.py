import json
from dataclasses import dataclass

import numpy as np
import pytest
from rich.console import Console

from medrl.errors import MedrlError
from medrl.evaluation import Evaluation, Table, provenance, read_json, write_json
from medrl.evaluation.report import write_csv


@dataclass
class Figures:
    count: int
    mean: float


def test_figures_are_plain_json(tmp_path) -> None:
    path = tmp_path / "figures.json"
    values = {
        "a": np.float64(1.23456),
        "b": np.array([1, 2]),
        "c": (float("nan"), np.inf),
        "d": np.True_,
        3: Figures(2, 0.5),
    }
    write_json(path, values, digits=4)
    expected = {"a": 1.2346, "b": [1, 2], "c": [None, None], "d": True}
    assert json.loads(path.read_text()) == {**expected, "3": {"count": 2, "mean": 0.5}}
    write_json(path, values)
    assert read_json(path)["a"] == 1.23456
    assert read_json(tmp_path / "none.json") == {}


def test_tables_for_documents_and_terminals() -> None:
    table = Table("Errors", ["who", "mm"], [["model", 1.234], ["[b]", np.nan], ["atlas", None]])
    assert table.markdown().splitlines()[2:] == ["| model | 1.23 |", "| [b] | - |", "| atlas | - |"]
    console = Console(width=60)
    with console.capture() as shown:
        console.print(table.rich())
    assert [line.split() for line in shown.get().splitlines()] == [
        ["Errors"], ["who", "mm"], ["model", "1.23"], ["[b]", "-"], ["atlas", "-"],
    ]  # fmt: skip


def test_a_report_is_written_in_whole(tmp_path) -> None:
    rows = [{"case": "a,b", "mm": 1.5}, {"case": "c", "mm": float("nan")}]
    path = Evaluation({"mean": np.float32(1.5)}, files={"errors.csv": rows}).write(tmp_path)
    assert json.loads(path.read_text()) == {"mean": 1.5}
    assert (tmp_path / "errors.csv").read_text() == 'case,mm\n"a,b",1.5\nc,\n'
    with pytest.raises(MedrlError, match="differ"):
        write_csv(tmp_path / "bad.csv", [{"a": 1}, {"b": 2}])
    assert not (tmp_path / "bad.csv").exists()
    with pytest.raises(MedrlError, match="no folder"):
        Evaluation({}).write(tmp_path / "missing")


def test_provenance_names_weights_and_versions() -> None:
    found = provenance({"name": "m", "weights": {"sha256": "12"}}, split="test")
    assert (found["model"], found["weights_sha256"], found["split"]) == ("m", "12", "test")
    assert {"python", "medrl", "torch"} <= set(found["versions"])
