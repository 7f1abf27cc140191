"""The fuzzer finds what it must find, and finds nothing in what medrl reads."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).parent
#: What is said of each trap; of the last two there is nothing to say.
SAID = {
    "error": "IndexError at traps.py:.*beyond",
    "crash": "ended by signal 6",
    "leave": "ended by itself",
    "hang": "takes longer",
    "memory": "takes 1.. MiB",
    "read_outside": "open /etc/passwd",
    "native_read": "outside of the input",
    "write_beside": "writing.*/in/new",
    "native_write": "made or removed.*relative.mha",
    "link_out": "os.symlink",
    "load_pickle": "pickle.find_class",
    "run_program": "subprocess.Popen",
    "run_code": "code.py",
    "nothing_wrong": "^$",
    "refuse": "^$",
}


def python(*arguments: object) -> subprocess.CompletedProcess[str]:
    """A process of its own: the fuzzer forks, and watches what is read there."""
    root = str(HERE.parents[1])
    path = os.pathsep.join([root, os.environ.get("PYTHONPATH", "")]).strip(os.pathsep)
    return subprocess.run(
        [sys.executable, *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": path},
    )


@pytest.mark.skipif(sys.platform != "linux", reason="the fuzzer asks Linux what a process does")
class TestFuzzer:
    @pytest.fixture(scope="class")
    def report(self, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
        """What the fuzzer says of whole inputs, of the corpus, and of some hundred damaged ones."""
        file = tmp_path_factory.mktemp("fuzz") / "report.json"
        ended = python(
            HERE / "run.py", "--whole", "--corpus", "--count", 300, "--seed", 2026, "--json", file
        )
        assert file.exists(), ended.stderr
        return json.loads(file.read_text())

    def test_it_finds_what_must_not_be(self) -> None:
        ended = python(HERE / "traps.py")
        said = json.loads(ended.stdout)
        assert said.keys() == SAID.keys()
        assert {name for name in SAID if not re.search(SAID[name], said[name])} == set(), said

    def test_whole_inputs_are_read(self, report: dict[str, Any]) -> None:
        assert [f for f in report["findings"] if f["name"].startswith("whole")] == []

    def test_what_was_found_once_stays_mended(self, report: dict[str, Any]) -> None:
        assert [f for f in report["findings"] if f["name"].startswith("corpus")] == []

    def test_damaged_inputs_end_in_one_line(self, report: dict[str, Any]) -> None:
        assert report["findings"] == []
        corpus = len(list((HERE / "corpus").glob("*.json")))
        assert corpus > 30
        assert report["inputs"] > 300 + 2 * corpus
        for kind, counts in report["outcomes"].items():
            assert kind == "store" or counts.get("refused", 0) > 5, kind
