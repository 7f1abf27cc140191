"""One panel for any system: a package of another one is installed, and walks in napari."""

import importlib
import json
import sys
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import napari
import numpy as np
import pytest
import torch
from monai.data.meta_tensor import MetaTensor
from napari.components import ViewerModel
from qtpy.QtCore import Qt
from qtpy.QtWidgets import QCheckBox, QComboBox, QDoubleSpinBox, QLineEdit, QSpinBox

from medrl import read, systems
from medrl.bundles.manifest import FORMAT, VERSION
from medrl.cli.demo import write_template
from medrl.errors import MedrlError
from medrl.results.findings import Mask, Motion, Points
from medrl.trajectory import AgentPath, Trajectory, read_trajectory
from medrl.volume.resample import resample_isotropic
from medrl_napari import models
from medrl_napari.agents import AgentsView
from medrl_napari.boxes import box_corners, cut_edges, whole_edges
from medrl_napari.panel.findings import layers_of
from medrl_napari.panel.form import OptionsForm, field_tips
from medrl_napari.panel.widget import AgentPanel
from medrl_napari.scans import KEY, add, image_layer, show, shown_of
from medrl_napari.space import STRAIGHT, frame_of
from medrl_napari.tick_list import TickList
from tests.napari_plugin.conftest import made_scan

#: A system as another package would bring it: agents that box the brightest voxel of a scan.
MODULE = '''
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from medrl.errors import MedrlError
from medrl.systems import System

GATE = None
ENDED = []

@dataclass(frozen=True)
class Options:
    steps: int = 4
    """How far agents walk."""
    side_mm: float = 10.0
    how: Literal["brightest", "darkest"] = "brightest"
    organs: tuple[str, ...] = ()

@dataclass(frozen=True)
class Given:
    note: str | None = None

@dataclass(frozen=True)
class Result:
    scan: object
    point_world: object
    box_world: object
    trajectory: object
    warnings: tuple
    seconds: float = 0.5
    confidence: float | None = 0.75

    def save(self, folder, stem=None, **options):
        from medrl.trajectory import write_trajectory
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"{stem}.trajectory.json"
        write_trajectory(path, self.trajectory)
        return {"agents": path}

class Boxer(System):
    name, verb, summary = "boxer", "box", "box what is brightest"
    roles, options, given, group = ("scan", "atlas"), Options, Given, "organ"

    def contents(self, manifest):
        return {"organs": ["heart", "liver"]}

    def load(self, bundle, *, device="cpu"):
        return "predictor"

    def read(self, predictor, scans, given, options):
        if given.note == "refuse":
            raise MedrlError("the note says no")
        return scans

    def predict(self, predictor, data, options, *, progress=None, watch=None):
        import numpy as np
        from medrl.trajectory import Recording, Step
        (scans,) = data
        volume = scans["scan"].numpy()[0]
        place = volume.argmax() if options.how == "brightest" else volume.argmin()
        voxel = np.array([*np.unravel_index(place, volume.shape), 1])
        goal = (scans["scan"].affine.numpy() @ voxel)[:3]
        recording = Recording()
        names = options.organs or ("heart", "liver")
        for number in range(options.steps):
            if GATE is not None:
                assert GATE.acquire(timeout=60)
            places = np.stack([goal * (number + 1) / options.steps] * len(names))
            half = options.side_mm / 2
            step = Step(
                names=names, starts=np.zeros(len(names), int), positions_world=places,
                scales_mm=np.full(len(names), 2.0), actions=np.zeros((len(names), 2), int),
                values=np.full(len(names), float(number)),
                boxes_world=np.stack([places - half, places + half], axis=1),
            )
            recording.add(step)
            if watch: watch(step)
            if progress: progress(number + 1, options.steps)
            if options.steps > 1000:
                time.sleep(0.002)
        box = np.stack([goal - half, goal + half])
        path = recording.trajectory("boxer", {"scan": "", "model": "m", "version": "1", "seed": 0})
        ENDED.append(time.monotonic())
        return [Result(scans["scan"], goal, box, path, ("it is only a toy",))]

    def rows(self, result):
        return [{"organ": "heart", "x": float(result.point_world[0]), "sure": None}]

    def findings(self, result):
        import numpy as np
        import torch
        from monai.data.meta_tensor import MetaTensor
        from medrl.results.findings import Boxes, Mask, Points
        bright = (result.scan.as_tensor() > 99).to(torch.uint8)
        labels = MetaTensor(bright, affine=result.scan.affine)
        return [
            Points(("heart",), result.point_world[None], np.array([0.75])),
            Boxes(("heart",), result.box_world[None]),
            Mask(labels, {1: "bright"}),
        ]
'''


@pytest.fixture
def boxer(monkeypatch, tmp_path):
    """The package is installed, and a model of it lies in a folder."""
    folder = tmp_path / "site"
    info = folder / "boxer_system-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: boxer-system\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[medrl.systems]\nboxer = boxer_system:Boxer\n")
    (folder / "boxer_system.py").write_text(MODULE)
    monkeypatch.syspath_prepend(folder)
    importlib.invalidate_caches()
    model = tmp_path / "boxer-model"
    model.mkdir()
    manifest = {"format": FORMAT, "version": VERSION, "name": "toy", "task": "boxer"}
    manifest |= {"settings": {"window": 9}, "card": {"title": "A toy"}}
    manifest |= {"metrics": {}, "versions": {}}
    (model / "model.json").write_text(json.dumps(manifest))
    for cache in (systems._sources, systems.get, models.load_model):
        cache.cache_clear()
    yield model
    for cache in (systems._sources, systems.get, models.load_model):
        cache.cache_clear()
    sys.modules.pop("boxer_system", None)


@pytest.fixture
def viewer(qapp):
    viewer = napari.Viewer(show=True, show_welcome_screen=False)
    yield viewer
    viewer.close()


def opened(viewer, boxer, qtbot):
    """The panel in its dock, with the toy's model and a scan and an atlas."""
    scan = made_scan("LPS", turn_deg=(10, 20, 5))
    scan.meta["filename_or_obj"] = "/data/atlas.nii.gz"
    frame = frame_of(scan.affine)
    atlas = add(viewer, image_layer(show(scan, frame=frame), name="atlas"))
    head = add(viewer, image_layer(show(made_scan("LPS", turn_deg=(10, 20, 5), seed=3)), name="a"))
    panel = AgentPanel(viewer)
    viewer.window.add_dock_widget(panel, name="agents", area="right")
    panel.scans.model.model = str(boxer)
    panel.scans.choices["scan"].layer, panel.scans.choices["atlas"].layer = head, atlas
    return panel, shown_of(head).scan


def click(qtbot, button):
    qtbot.mouseClick(button, Qt.MouseButton.LeftButton)


def test_a_system_of_another_package_walks_in_the_panel(viewer, boxer, qtbot, tmp_path):
    panel, scan = opened(viewer, boxer, qtbot)
    assert panel.run_button.text() == "Box"
    assert list(panel.scans.choices) == ["scan", "atlas"]
    assert set(panel.options.inputs) == {"steps", "side_mm", "how", "organs"}
    panel.options.inputs["steps"].setValue(5)
    panel.options.inputs["how"].setCurrentText("darkest")
    panel.options.inputs["organs"].tick(["heart"])
    with qtbot.waitSignal(panel.finished, timeout=60_000):
        click(qtbot, panel.run_button)
    assert panel.status.text() == "Done in 0.5 s, confidence 0.75.\nIt is only a toy."
    volume = scan.numpy()[0]
    darkest = scan.affine.numpy()[:3, :3] @ np.unravel_index(volume.argmin(), volume.shape)
    darkest = darkest + scan.affine.numpy()[:3, 3]
    points = viewer.layers["box: points"]
    frame = frame_of(scan.affine)
    np.testing.assert_allclose(frame.to_world(points.data[0]), darkest, atol=1e-9)
    assert list(points.features["name"]) == ["heart"]
    edges, _ = viewer.layers["box: boxes"].metadata[KEY]["view"].edges(None, 0.0)
    assert len(edges) == 12
    ends = frame.to_world(np.concatenate([edges[:, 0], edges.sum(axis=1)]))
    np.testing.assert_allclose(ends.min(axis=0), darkest - 5, atol=1e-9)
    np.testing.assert_allclose(ends.max(axis=0), darkest + 5, atol=1e-9)
    mask = viewer.layers["box: mask"]
    back = shown_of(viewer.layers["a"]).to_scan_grid(np.asarray(mask.data))
    np.testing.assert_array_equal(back, volume > 99)
    # The way of its agent, with what it boxed, is there to be replayed.
    assert viewer.dims.nsteps[0] == 5
    assert len(viewer.layers["agents: paths"].data) == 5
    assert [panel.table.item(0, n).text() for n in (0, 2)] == ["heart", ""]
    panel.table.setCurrentCell(0, 0)
    np.testing.assert_allclose(frame.to_world(viewer.dims.point[-3:]), darkest, atol=3.1)
    panel.save(tmp_path / "out")
    qtbot.waitUntil(lambda: not panel.running)
    path = tmp_path / "out" / "atlas.trajectory.json"
    assert path.name in panel.status.text()
    assert len(read_trajectory(path).agents[0]) == 5


def test_a_run_is_watched_and_cancelled(viewer, boxer, qtbot):
    panel, _ = opened(viewer, boxer, qtbot)
    import boxer_system

    boxer_system.GATE = gate = threading.Semaphore(2)
    click(qtbot, panel.run_button)
    qtbot.waitUntil(lambda: "agents: paths" in viewer.layers, timeout=20_000)
    assert not panel.run_button.isEnabled()
    assert panel.progress.maximum() == 4
    job = panel.job
    click(qtbot, panel.cancel_button)
    assert panel.status.text() == "Cancelled."
    assert [layer.name for layer in viewer.layers] == ["atlas", "a"]
    gate.release(10)
    qtbot.waitUntil(lambda: not job.working)
    assert panel.result is None


def test_a_result_is_on_the_screen_soon_however_slow_drawing_is(viewer, boxer, qtbot, monkeypatch):
    panel, _ = opened(viewer, boxer, qtbot)
    import boxer_system

    with qtbot.waitSignal(panel.finished, timeout=60_000):
        click(qtbot, panel.run_button)
    qtbot.wait(500)
    drawn, draw = [], AgentsView._draw

    def slowly(view, trajectory):
        time.sleep(1.0)
        drawn.append(max(map(len, trajectory.agents)))
        draw(view, trajectory)

    monkeypatch.setattr(AgentsView, "_draw", slowly)
    panel.options.inputs["steps"].setValue(4000)
    painted = []
    panel.table.model().rowsInserted.connect(lambda *_: painted.append(time.monotonic()))
    panel.table.show_rows([])
    with qtbot.waitSignal(panel.finished, timeout=120_000):
        click(qtbot, panel.run_button)
    assert painted[-1] - boxer_system.ENDED[-1] < 0.5
    # Live frames are few and short; at the end there is all of it.
    assert len(drawn) <= 3
    assert max(drawn[:-1]) <= 256
    assert drawn[-1] == 4000


@pytest.mark.parametrize(
    ("model", "rows", "shows"),
    [
        ("brain-t1", 25, "detect: points"),
        ("hippocampus-t1", 1, "segment: mask"),
        ("rigid-head", 1, "moved (register)"),
    ],
)
def test_the_models_that_ship_work_in_the_panel(viewer, qtbot, tmp_path, model, rows, shows):
    pytest.importorskip("nilearn")
    write_template(tmp_path / "head.nii.gz")
    head = resample_isotropic(read(tmp_path / "head.nii.gz"), spacing=2.5)
    shift = torch.eye(4, dtype=torch.float64)
    shift[:3, 3] = torch.tensor([6.0, -4.0, 9.0])
    moved = MetaTensor(head.as_tensor(), affine=shift @ head.affine)
    for scan, name in ((moved, "moved"), (head, "head")):
        add(viewer, image_layer(show(scan, frame=STRAIGHT), name=name))
    panel = AgentPanel(viewer)
    viewer.window.add_dock_widget(panel, name="agents", area="right")
    panel.scans.model.model = model
    if "seed" in panel.given.inputs:
        panel.given.inputs["seed"].setText("fg:-25.5,-21,-14; bg:-25.5,-21,3")
    with qtbot.waitSignal(panel.finished, timeout=180_000):
        click(qtbot, panel.run_button)
    assert panel.table.rowCount() == rows
    assert shows in viewer.layers
    if model == "rigid-head":
        # Where it is shown it lies on the other one.
        back = shown_of(viewer.layers[shows]).scan.affine
        np.testing.assert_allclose(back, head.affine, atol=1.0)
    panel.save(tmp_path / "out")
    qtbot.waitUntil(lambda: not panel.running, timeout=60_000)
    assert panel.status.text().startswith("Saved ")


def test_what_cannot_be_is_said_in_a_line(viewer, boxer, qtbot, tmp_path):
    panel, _ = opened(viewer, boxer, qtbot)
    panel.given.inputs["note"].setText("refuse")
    click(qtbot, panel.run_button)
    qtbot.waitUntil(lambda: panel.status.text() == "the note says no", timeout=20_000)
    viewer.layers.clear()
    click(qtbot, panel.run_button)
    assert panel.status.text() == "Open a 3D scan first, for: scan, atlas."
    panel.scans.model.model = str(tmp_path)
    assert "it has no model.json" in panel.status.text()
    assert not panel.run_button.isEnabled()


# ------------------------------------------------------------------------------------------ parts


@dataclass(frozen=True)
class Everything:
    """All kinds of fields."""

    often: int = 3
    """How often."""
    far: float = 2.5
    sure: bool = True
    how: Literal["one", "two"] = "two"
    name: str = "a name"
    file: Path | None = None
    most: int | None = None
    names: tuple[str, ...] = ("a", "b")
    known: tuple[str, ...] = ()
    scales: tuple[float, ...] = (4.0, 2.0)
    more: dict[str, int] = field(default_factory=lambda: {"a": 1})


def test_a_form_gives_back_what_it_was_given(qtbot):
    form = OptionsForm()
    qtbot.addWidget(form)
    form.ask(Everything, names={"known": ["x", "y"]})
    assert form.values() == Everything()
    kinds = {name: type(made) for name, made in form.inputs.items()}
    assert kinds["often"] is QSpinBox
    assert kinds["far"] is QDoubleSpinBox
    assert kinds["sure"] is QCheckBox
    assert issubclass(kinds["how"], QComboBox)
    assert kinds["known"] is TickList
    assert kinds["name"] is kinds["names"] is QLineEdit
    assert form.inputs["often"].toolTip() == "How often."
    assert field_tips(Everything) == {"often": "How often."}


def test_a_form_takes_what_is_typed_and_refuses_what_cannot_be(qtbot):
    form = OptionsForm()
    qtbot.addWidget(form)
    form.ask(Everything, names={"known": ["x", "y"]})
    form.inputs["file"].setText("/data/mask.nii.gz")
    form.inputs["most"].setText("7")
    form.inputs["names"].setText("c;; d, e ")
    form.inputs["known"].tick(["y"])
    form.inputs["scales"].setText("[1, 2]")
    chosen = form.values()
    assert chosen.file == Path("/data/mask.nii.gz")
    assert (chosen.most, chosen.names, chosen.known) == (7, ("c", "d, e"), ("y",))
    assert chosen.scales == (1, 2)
    form.inputs["most"].setText("many")
    with pytest.raises(MedrlError, match="most: "):
        form.values()


def test_a_motion_is_the_scan_where_it_belongs():
    model = ViewerModel()
    scan = made_scan("RAS")
    image = add(model, image_layer(show(scan), name="moving"))
    turn = np.eye(4)
    turn[:3, 3] = (5.0, -7.0, 2.0)
    found = [Motion("moving", turn), Points((), np.empty((0, 3)))]
    layers = layers_of(found, STRAIGHT, {"moving": image}, name="align")
    moved = add(model, layers[0])
    # A voxel at x in its own world is shown at x minus the way.
    before = STRAIGHT.to_world(image.translate)
    np.testing.assert_allclose(STRAIGHT.to_world(moved.translate), before - turn[:3, 3])
    np.testing.assert_array_equal(moved.data, image.data)
    for layer in layers[1:]:
        assert len(add(model, layer).data) == 0


def test_labels_beyond_a_byte_are_kept():
    scan = made_scan()
    labels = torch.zeros((1, *scan.shape[1:]), dtype=torch.int32)
    labels[0, 3, 4, 5] = 700
    mask = Mask(MetaTensor(labels, affine=scan.affine), {700: "lymph node"})
    data, settings, _ = layers_of([mask], STRAIGHT, {}, name="box")[0]
    assert data.max() == 700
    assert settings["features"]["name"][700] == "lymph node"


@pytest.mark.parametrize("frame", [STRAIGHT, frame_of(made_scan(turn_deg=(20, -10, 5)).affine)])
def test_a_slice_cuts_boxes_where_they_are(frame):
    ends = np.array([[[-10.0, -20, -30], [10, 20, 30]], [[50, 50, 50], [60, 60, 60]]])
    corners = box_corners(ends, frame)
    whole = whole_edges(corners)
    assert len(whole) == 24
    np.testing.assert_allclose(
        np.sort(np.linalg.norm(whole[:12, 1], axis=1)), np.repeat([20, 40, 60], 4)
    )
    for across, at in ((0, 3.0), (1, -1.5), (2, 0.0)):
        edges, owners = cut_edges(corners, across, at)
        assert set(owners) == {0}
        np.testing.assert_allclose(edges[:, 0, across], at)
        np.testing.assert_allclose(edges[:, 1, across], 0)
        # The outline is closed and lies on the box.
        np.testing.assert_allclose(edges[:, 1].sum(axis=0) % 1e-9, 0, atol=1e-9)
        points = frame.to_world(np.concatenate([edges[:, 0], edges.sum(axis=1)]))
        nearest = np.abs(np.abs(points) - [10, 20, 30]).min(axis=1)
        assert nearest.max() < 1e-9
        assert len(edges) >= 4
    assert not len(cut_edges(corners, 0, 1000.0)[0])


def test_a_trajectory_with_boxes_and_extras_shows_both():
    model = ViewerModel()
    model.add_image(np.zeros((60, 60, 60)), translate=(-30, -30, -30), units=("mm",) * 3)
    positions = np.array([[0.0, 0, 0], [2, 0, 0], [4, 0, 0]])
    boxes = np.stack([positions - 3, positions + 3], axis=1)
    agent = AgentPath(
        "heart", 0, positions, np.full(3, 2.0), np.zeros((3, 2), int), np.arange(3.0),
        boxes_world=boxes, extras={"overlap": np.array([0.1, np.nan, 0.5]), "more": np.eye(3)},
    )  # fmt: skip
    view = AgentsView(model, STRAIGHT)
    view.show(Trajectory("boxer", (agent,)))
    tracks, _, wires = view.layers
    np.testing.assert_allclose(tracks.features["overlap"], [0.1, 0.1, 0.5])
    assert "more" not in tracks.features
    for moment in range(3):
        model.dims.set_point(range(1, 4), (0.0, 0, 0))
        model.dims.set_current_step(0, moment)
        model.dims.ndisplay = 3
        ends = STRAIGHT.to_world(np.concatenate([wires.data[:, 0], wires.data.sum(axis=1)]))
        np.testing.assert_allclose(ends.min(axis=0), boxes[moment, 0])
        np.testing.assert_allclose(ends.max(axis=0), boxes[moment, 1])
        model.dims.ndisplay = 2
        assert len(wires.data) == 4
