"""`medrl view`: napari with what belongs together, or one line that says why not."""

import os
import shutil
import socket
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from medrl.cli import view
from medrl.trajectory import AgentPath, Trajectory, write_trajectory

linux = pytest.mark.skipif(sys.platform != "linux", reason="other systems always have a display")
FIRST_EDITION = Path(__file__).parents[1] / "trajectory" / "data" / "first_edition.trajectory.json"
SCREEN = ("xvfb-run", "-a", "-s", "-screen 0 1280x1024x24")


@pytest.fixture
def without_display(monkeypatch):
    """A shell that knows of no display."""
    for name in ("DISPLAY", "WAYLAND_DISPLAY", "QT_QPA_PLATFORM"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(view, "find_spec", lambda name: object())


def refused(ended) -> str:
    """The one line of error that a command ended with."""
    assert ended.code == 2
    assert ended.err.startswith("medrl: error: ")
    assert ended.err.count("\n") == 1
    assert not ended.out
    return ended.err


@linux
def test_without_a_display(medrl, head, without_display):
    assert "there is no display" in refused(medrl("view", head))


@linux
def test_with_a_display_that_is_gone(medrl, head, without_display, monkeypatch):
    for display in (":4711", "localhost:4711.0", "nonsense"):
        monkeypatch.setenv("DISPLAY", display)
        assert f"the display {display} does not answer" in refused(medrl("view", head))
    monkeypatch.delenv("DISPLAY")
    monkeypatch.setenv("WAYLAND_DISPLAY", "wayland-4711")
    assert "the display wayland-4711 does not answer" in refused(medrl("view", head))


@linux
def test_a_display_that_answers(without_display, monkeypatch, tmp_path):
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "wayland-0"))
        server.listen()
        monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
        monkeypatch.setenv("WAYLAND_DISPLAY", "wayland-0")
        assert view.hindrance() == ""
    with socket.create_server(("127.0.0.1", 0)) as server:
        monkeypatch.setattr(view, "_X11_PORT", server.getsockname()[1] - 10)
        monkeypatch.delenv("WAYLAND_DISPLAY")
        monkeypatch.setenv("DISPLAY", "127.0.0.1:10.0")
        assert view.hindrance() == ""


@linux
def test_offscreen_is_no_display(medrl, head, without_display, monkeypatch):
    monkeypatch.setenv("QT_QPA_PLATFORM", "offscreen")
    assert "QT_QPA_PLATFORM=offscreen" in refused(medrl("view", head))


def test_without_napari(medrl, head, monkeypatch):
    monkeypatch.setattr(view, "find_spec", lambda name: None)
    line = refused(medrl("view", head))
    assert "napari is not installed: pip install 'medrl[napari]'" in line


def test_without_a_window_toolkit(medrl, head, monkeypatch):
    monkeypatch.setattr(view, "find_spec", lambda name: object() if name == "napari" else None)
    assert "no window toolkit" in refused(medrl("view", head))


def test_wrong_usage(medrl, head, tmp_path):
    assert "name a scan" in refused(medrl("view"))
    assert "nowhere.nii.gz: no such file" in refused(medrl("view", tmp_path / "nowhere.nii.gz"))
    assert "no such file" in refused(medrl("view", head, tmp_path / "nowhere.mrk.json"))
    line = refused(medrl("view", head, "--screenshot", tmp_path / "picture.jpg"))
    assert "a screenshot is a .png file" in line
    line = refused(medrl("view", head, "--screenshot", tmp_path / "nowhere" / "picture.png"))
    assert "there is no folder" in line


def test_the_core_needs_neither_qt_nor_napari():
    """Not even when the command is imported and refuses to run."""
    script = (
        "import sys; from medrl.cli import main; code = main(['view', 'nowhere.nii.gz']);"
        "bad = {name.split('.')[0] for name in sys.modules} & "
        "{'napari', 'qtpy', 'PySide6', 'vispy', 'medrl_napari'};"
        "sys.exit(repr(bad) if bad else code)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 2, done.stderr


@pytest.mark.skipif(find_spec("napari") is None, reason="napari is not installed")
@pytest.mark.skipif(shutil.which("xvfb-run") is None, reason="no virtual screen")
def test_a_picture_of_the_window(tmp_path: Path):
    """Once as a user does, in a process of its own; then with a broken file."""
    grid = np.stack(np.meshgrid(*[np.linspace(-1, 1, 40)] * 3, indexing="ij"))
    ball = (500 * ((grid**2).sum(axis=0) < 0.6)).astype(np.int16)
    ball[:8, :8, :8] = np.arange(512).reshape(8, 8, 8)  # shades: it is no label map
    nib.save(nib.Nifti1Image(ball, np.diag([4.0, 4, 4, 1])), tmp_path / "ball.nii.gz")
    steps = np.array([[80.0, 80, 80], [88, 80, 80], [96, 80, 80]])
    agent = AgentPath(
        name="side",
        start=0,
        positions_world=steps,
        scales_mm=np.full(3, 4.0),
        actions=np.zeros(3, int),
        values=np.zeros(3),
        answer_world=steps[-1],
    )
    write_trajectory(
        tmp_path / "ball.trajectory.json",
        Trajectory("landmark", (agent,), {"window_voxels": 9}),
    )
    agents = ("ball.trajectory.json", str(FIRST_EDITION))
    done = _view(tmp_path, "ball.nii.gz", *agents, "--screenshot", "window.png")
    assert done.returncode == 0, done.stderr
    assert "wrote window.png" in done.stdout
    picture = _png(tmp_path / "window.png")
    assert min(picture.shape[:2]) > 500
    # The ball fills a good part of the main canvas and of each of the three views beside it.
    white = (picture[..., :3].min(axis=-1) > 230).mean()
    assert 0.05 < white < 0.6
    # The crosshair's three colours.
    for color in ((0xFF, 0x5A, 0x5A), (0x37, 0xC8, 0x71), (0xFF, 0xA9, 0x4D)):
        near = np.abs(picture[..., :3].astype(int) - color).max(axis=-1) < 12
        assert near.sum() > 100

    (tmp_path / "broken.nii.gz").write_bytes(b"no scan")
    done = _view(tmp_path, "broken.nii.gz", "--screenshot", "none.png")
    assert done.returncode == 2
    errors = [line for line in done.stderr.splitlines() if line.startswith("medrl: error")]
    assert len(errors) == 1
    assert "broken.nii.gz" in errors[0]
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "none.png").exists()


def _view(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    script = "import sys, medrl.cli; sys.exit(medrl.cli.main())"
    line = [*SCREEN, sys.executable, "-c", script, "view", *arguments]
    return subprocess.run(line, cwd=folder, capture_output=True, text=True, env=os.environ)


def _png(path: Path) -> np.ndarray:
    from PIL import Image

    return np.asarray(Image.open(path).convert("RGB"))
