"""Nothing that happens while printing undoes the work, or changes how it ends."""

import io
import os
import subprocess
import sys

import pytest

from medrl.cli.output import say, steady_output, tell

DONE = """
import sys
from pathlib import Path
from medrl.cli.output import say, steady_output, tell
def main():
    with steady_output():
        for number in range(3000):
            say(f"{number}: Sch\\udce4del [bold] \\u982d\\U0001f600")
        tell("note", "\\u982d")
        Path(sys.argv[1]).write_text("done")
        return 1
sys.exit(main())
"""


def run(line: str, work, **environment: str):
    """The script in a shell, whose redirections are those of a user."""
    whole = {**os.environ, **environment, "PY": sys.executable, "SCRIPT": DONE, "OUT": str(work)}
    return subprocess.run(
        ["bash", "-c", line.replace("@", '"$PY" -c "$SCRIPT" "$OUT"')],
        env=whole,
        capture_output=True,
        check=False,
    )


@pytest.mark.parametrize(
    ("line", "environment"),
    [
        ("@", {}),
        ("@ >&-", {}),
        ("@ 2>&-", {}),
        ("@ <&- >&- 2>&-", {}),
        ("@ > /dev/full", {}),
        ("@ > /dev/full 2>&1", {}),
        ("@ | head -1; exit ${PIPESTATUS[0]}", {}),
        ("@ 2>&1 | true; exit ${PIPESTATUS[0]}", {}),
        ("@", {"PYTHONIOENCODING": "ascii:strict"}),
        ("@", {"PYTHONIOENCODING": "cp1252"}),
        ("@", {"PYTHONIOENCODING": "utf-16"}),
        ("@", {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}),
    ],
)
def test_the_exit_code_is_that_of_the_work(line: str, environment, tmp_path):
    ended = run(line, tmp_path / "result", **environment)
    assert ended.returncode == 1
    assert (tmp_path / "result").read_text() == "done"
    for word in (b"Traceback", b"Exception", b"Error"):
        assert word not in ended.stderr


def test_names_are_shown_in_any_encoding(tmp_path):
    ended = run("@", tmp_path / "result", PYTHONIOENCODING="cp1252")
    assert ended.stdout.splitlines()[0] == rb"0: Sch\xe4del [bold] \u982d\U0001f600"
    assert ended.stderr.strip() == rb"medrl: note: \u982d"
    ended = run("@", tmp_path / "result", PYTHONIOENCODING="utf-8")
    assert ended.stdout.splitlines()[0].decode() == "0: Sch\\xe4del [bold] \u982d\U0001f600"


def test_no_file_of_results_becomes_the_output(tmp_path):
    # What is opened first gets the number of a stream that was closed.
    script = (
        "import sys, os\nfrom medrl.cli.output import steady_output\n"
        "with steady_output():\n"
        "    out = open(sys.argv[1], 'w'); print('lost'); os.write(1, b'lost'); out.write('kept')\n"
    )
    line = f"'{sys.executable}' -c \"$SCRIPT\" '{tmp_path / 'file'}' >&-"
    subprocess.run(["bash", "-c", line], env={**os.environ, "SCRIPT": script}, check=True)
    assert (tmp_path / "file").read_text() == "kept"


def test_breaks_and_commands_in_names_are_shown(capsys):
    with steady_output():
        say("a\nb\t\x1b[31m\u2028.nii")
        tell("error", "two\n lines \x07")
    shown = capsys.readouterr()
    assert shown.out == "a\\nb\\t\\x1b[31m\\u2028.nii\n"
    assert shown.err == "medrl: error: two lines \\x07\n"


def test_a_stream_without_a_file_may_fail(monkeypatch):
    class Broken(io.StringIO):
        def write(self, text):
            raise BrokenPipeError

    monkeypatch.setattr(sys, "stdout", broken := Broken())
    with steady_output():
        print("lost")
    assert sys.stdout is broken
