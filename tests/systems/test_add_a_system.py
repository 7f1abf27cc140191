"""The page that adds a system runs as it stands: its files are installed, its commands run."""

import csv
import importlib
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from medrl import systems
from medrl.trajectory import read_trajectory
from medrl.volume.points import read_points

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "how-to" / "add-a-system.md").read_text(encoding="utf-8")
FILES = re.findall(r'^```\w+ title="(.+?)"\n(.*?)^```$', PAGE, re.MULTILINE | re.DOTALL)
BLOCKS = re.findall(r"^```(python|sh)\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
COMMANDS = [line for kind, code in BLOCKS if kind == "sh" for line in code.splitlines()]

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the package is installed."""
    folder = tmp_path_factory.mktemp("package")
    for name, code in FILES:
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(code, encoding="utf-8")
    options = ["--no-index", "--no-deps", "--no-build-isolation", "--target", folder / "site"]
    pip = [sys.executable, "-m", "pip", "install", *options, folder]
    subprocess.run(list(map(str, pip)), check=True, capture_output=True)
    return folder / "site"


@pytest.fixture(scope="module")
def environment(site: Path) -> dict[str, str]:
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    python = [str(site), os.environ.get("PYTHONPATH", "")]
    return {**os.environ, "PATH": path, "PYTHONPATH": os.pathsep.join(filter(None, python))}


@pytest.fixture(scope="module")
def here(site: Path, environment: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the page's scans and model."""
    folder = tmp_path_factory.mktemp("here")
    shutil.copy(site.parent / "make_scans.py", folder)
    for command in COMMANDS[:2]:
        done = subprocess.run(
            shlex.split(command), cwd=folder, env=environment, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture(scope="module")
def run(here: Path, environment: dict[str, str]) -> Run:
    """Runs a command of the page, the one that begins like this, or any other."""

    def run(begins: str, *more: str) -> subprocess.CompletedProcess[str]:
        command = next((line for line in COMMANDS if line.startswith(begins)), begins)
        arguments = [*shlex.split(command), *more]
        done = subprocess.run(
            arguments, cwd=here, env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        return done

    return run


def test_the_page_is_short() -> None:
    assert len(PAGE.splitlines()) <= 600


def test_its_command_is_there(run: Run) -> None:
    assert "find the brightest region of a scan" in run("medrl --help").stdout
    assert "--agents" in run("medrl find --help").stdout


def test_it_finds_what_is_brightest(run: Run, here: Path) -> None:
    report = json.loads(run("medrl find ", "--json", "--agents", "4").stdout)
    (row,) = report["rows"]
    point = read_points(here / "out" / "test0.mrk.json")["hotspot"]
    np.testing.assert_allclose(point, [row[axis] for axis in "xyz"], atol=1e-3)
    trajectory = read_trajectory(here / "out" / "test0.trajectory.json")
    assert len(trajectory.agents) == 4
    assert {agent.outcome for agent in trajectory.agents} <= {"stopped", "out of steps"}


def test_it_is_measured_next_to_its_baselines(run: Run, here: Path) -> None:
    run("medrl evaluate ")
    figures = json.loads((here / "figures" / "evaluation.json").read_text())["error_mm"]
    assert figures["agents"]["count"] == 8
    assert figures["agents"]["mean"] < 8 < figures["gradient ascent"]["mean"]
    manifest = json.loads((here / "run" / "hotspot" / "model.json").read_text())
    assert manifest["metrics"]["test"]["error_mm"] == figures


def test_a_killed_training_goes_on_with_the_same_bits(
    here: Path, environment: dict[str, str]
) -> None:
    command = [*shlex.split(COMMANDS[1].replace("-o run", "-o killed")), "--no-evaluate"]
    with subprocess.Popen(command, cwd=here, env=environment, stdout=subprocess.PIPE) as first:
        checkpoint = here / "killed" / "checkpoints" / "agents.safetensors"
        while not checkpoint.exists():
            assert first.poll() is None
            time.sleep(0.05)
        first.send_signal(signal.SIGKILL)
    assert not (here / "killed" / "hotspot").exists()
    subprocess.run([*command, "--resume"], cwd=here, env=environment, check=True)
    digests = [
        json.loads((here / folder / "hotspot" / "model.json").read_text())["weights"]["sha256"]
        for folder in ("run", "killed")
    ]
    assert digests[0] == digests[1]


@pytest.mark.slow
def test_many_scans_here_and_on_ray(run: Run, here: Path) -> None:
    assert "8 of 8 scans done" in run("medrl batch find 'test*.nii.gz' many ").stdout
    table = here / "many" / "results.csv"
    with table.open() as file:
        rows = list(csv.DictReader(file))
    assert [row["case"] for row in rows] == [f"test{number}" for number in range(8)]
    written = {path: path.stat().st_mtime_ns for path in here.glob("many/*/case.json")}
    again = run("medrl batch find 'test*.nii.gz' many ")
    assert "8 of 8 scans have ended before" in again.stderr
    assert {path: path.stat().st_mtime_ns for path in written} == written
    run("medrl batch find 'test*.nii.gz' many-by-ray")
    assert (here / "many-by-ray" / "results.csv").read_text() == table.read_text()


@pytest.mark.slow
@pytest.mark.parametrize("code", [code for kind, code in BLOCKS if kind == "python"])
def test_python_of_the_page_runs(
    code: str, here: Path, environment: dict[str, str], tmp_path: Path
) -> None:
    subprocess.run([sys.executable, "-c", code], cwd=here, env=environment, check=True)


@pytest.fixture
def installed(site: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The package is installed for this process, too."""
    from medrl_napari import models

    monkeypatch.syspath_prepend(site)
    importlib.invalidate_caches()
    for cache in (systems._sources, systems.get, models.load_model):
        cache.cache_clear()
    yield
    for cache in (systems._sources, systems.get, models.load_model):
        cache.cache_clear()
    for name in [name for name in sys.modules if name.startswith("medrl_hotspot")]:
        del sys.modules[name]


def test_it_walks_in_napari(
    installed: None, here: Path, screen: None, request: pytest.FixtureRequest
) -> None:
    import napari

    from medrl import read
    from medrl_napari.panel.widget import AgentPanel
    from medrl_napari.scans import add, image_layer, show
    from medrl_napari.space import frame_of

    viewer = napari.Viewer(show=True, show_welcome_screen=False)
    scan = read(here / "test0.nii.gz")
    add(viewer, image_layer(show(scan), name="scan"))
    panel = AgentPanel(viewer)
    viewer.window.add_dock_widget(panel, name="agents", area="right")
    panel.scans.model.model = str(here / "run" / "hotspot")
    assert panel.run_button.text() == "Find"
    panel.options.inputs["agents"].setValue(4)
    with request.getfixturevalue("qtbot").waitSignal(panel.finished, timeout=60_000):
        panel.run()
    assert len(panel.result.trajectory.agents) == 4
    (point,) = viewer.layers["find: points"].data
    where = frame_of(scan.affine).to_world(point)
    np.testing.assert_allclose(where, panel.result.position_world, atol=1e-6)
    assert "agents: paths" in viewer.layers
    assert panel.table.item(0, 0).text() == "hotspot"
