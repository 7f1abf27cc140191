"""The command as a whole: help, errors, exit codes."""

import subprocess
import sys

import pytest

from medrl.cli import commands


def test_help_names_every_command(medrl):
    for arguments in ((), ("--help",), ("-h",)):
        ended = medrl(*arguments)
        assert ended.code == 0
        assert all(f"  {name} " in ended.out for name in commands())


@pytest.mark.parametrize("name", sorted(commands()))
def test_every_command_explains_itself(medrl, name: str):
    ended = medrl(name, "--help")
    assert ended.code == 0
    assert f"medrl {name}" in ended.out


def test_help_is_quick_because_it_imports_nothing_heavy():
    code = (
        "import sys, medrl.cli; medrl.cli.main(['--help']);"
        "assert not {'torch', 'monai', 'numpy', 'tyro'} & set(sys.modules), sys.modules.keys()"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


def test_version(medrl):
    assert medrl("--version").out.strip().startswith("medrl 0.")


def test_wrong_usage(medrl):
    ended = medrl("detcet", "x.nii")
    assert (ended.code, ended.out) == (2, "")
    assert ended.err == "medrl: error: there is no command 'detcet'; did you mean detect?\n"
    assert medrl("detect").code == 2
    assert medrl("detect", "x.nii", "-o", "out", "--no-such-option").code == 2
    assert medrl("train").code == 2


def raising(error):
    def run(argv):
        raise error

    return run


def test_unforeseen_errors_are_one_line(medrl, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("medrl.cli.models.main", raising(RuntimeError("first\nsecond")))
    ended = medrl("models")
    assert ended.code == 2
    assert ended.err.count("\n") == 1
    assert "RuntimeError: first" in ended.err
    assert "--debug" in ended.err
    with pytest.raises(RuntimeError):
        medrl("models", "--debug")


def test_interruption(medrl, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("medrl.cli.models.main", raising(KeyboardInterrupt()))
    ended = medrl("models")
    assert (ended.code, ended.err) == (130, "medrl: error: interrupted\n")


def test_a_missing_extra_is_named(medrl, monkeypatch: pytest.MonkeyPatch):
    error = ModuleNotFoundError("No module named 'torchrl'", name="torchrl")
    monkeypatch.setattr("medrl.cli.models.main", raising(error))
    assert "package torchrl is not installed" in medrl("models").err
