"""The registration widget in a real napari: clicked through, judged by SimpleITK and by pixels."""

import gc
import json
import threading
from types import SimpleNamespace

import napari
import numpy as np
import pytest
import SimpleITK as sitk
import torch
from monai.data.meta_tensor import MetaTensor
from qtpy.QtCore import Qt
from qtpy.QtWidgets import QFileDialog
from scipy.ndimage import binary_erosion, gaussian_filter
from scipy.spatial.transform import Rotation

from medrl import read
from medrl.errors import MedrlError
from medrl.registration.register import Registration
from medrl.registration.search import starting_points
from medrl.trajectory import AgentPath, Step, Trajectory
from medrl.volume.itk import to_sitk
from medrl.volume.space import apply_affine
from medrl.volume.transform_files import from_itk, to_itk
from medrl_napari.register import answers
from medrl_napari.register.blend import ALIGNED, CHECKERBOARD
from medrl_napari.register.widget import RegisterWidget
from medrl_napari.scans import add, frame_of_viewer, image_layer, labels_layer, show
from medrl_napari.writers import write_scan

#: Agents that are still there at each of the scripted steps; the last one gives the answer.
CROWDS = (range(24), (3, 7, 1, 20), (7, 3), (7,))
SCALES = (8.0, 8.0, 4.0, 4.0)
OBLIQUE = (20.0, -15.0, 10.0)


def rigid(turn=(12.0, -9.0, 20.0), shift=(5.0, -7.0, 4.0)):
    matrix = np.eye(4)
    matrix[:3, :3] = Rotation.from_rotvec(turn, degrees=True).as_matrix()
    matrix[:3, 3] = shift
    return matrix


TRUE = rigid()


def transform_at(number, step):
    """Where the agent of a start has got to at a step; number 7 comes to the answer."""
    begin = starting_points(torch.zeros(3).double(), torch.zeros(3).double())[number].numpy()
    if number == 7 and step > 0:
        return TRUE @ rigid((0, 0, 9.0 * (3 - step)), (0, 0, 0))
    return rigid((0, 0, number), (step, 0, 0)) @ begin


class Scripted:
    """Stands in for a registrar; its agents do what is written above, one step at a time."""

    def __init__(self, *, gate=None, error=None, trusted=True):
        self.manifest = {"name": "scripted"}
        self.model = SimpleNamespace(steps=len(SCALES))
        self.gate, self.error, self.trusted = gate, error, trusted
        self.asked = []

    def register(self, fixed, moving, *, watch, **options):
        self.asked.append((fixed, moving, options))
        for number, (crowd, scale) in enumerate(zip(CROWDS, SCALES, strict=True)):
            if self.gate is not None:
                assert self.gate.acquire(timeout=60)
            if self.error is not None and number == 2:
                raise self.error
            rows = np.array(crowd)
            watch(
                Step(
                    names=tuple(f"start {row}" for row in rows),
                    starts=rows,
                    positions_world=np.zeros((len(rows), 3)),
                    scales_mm=np.full(len(rows), scale),
                    actions=np.full(len(rows), -1),
                    values=np.linspace(0.9, 0.1, len(rows)),
                    transforms=np.array([transform_at(row, number) for row in rows]),
                )
            )
        transforms = np.array([transform_at(7, step) for step in range(4)])
        path = AgentPath(
            name="moving scan",
            start=7,
            positions_world=np.zeros((4, 3)),
            scales_mm=np.array(SCALES),
            actions=np.full(4, -1),
            values=-np.array([40.0, 12.0, 5.0, 1.5]),
            transforms=transforms,
        )
        return Registration(
            transform_world=TRUE,
            kind="rigid",
            confidence=0.93 if self.trusted else 0.07,
            predicted_error_mm=0.7 if self.trusted else 23.0,
            agent_transform_world=transforms[-1],
            refined=True,
            trajectory=Trajectory("registration", (path,), {"model": "scripted"}),
            fixed=fixed,
            moving=moving,
        )


def scan(seed, *, turn=(0.0, 0.0, 0.0), shape=(48, 52, 44), name=""):
    """Smooth noise, bright in the middle, about the world's origin, in voxels of 1.5 mm."""
    affine = rigid(turn, (0, 0, 0)) @ np.diag([-1.5, 1.5, 1.5, 1.0])
    affine[:3, 3] = -affine[:3, :3] @ (np.array(shape) - 1) / 2
    noise = gaussian_filter(np.random.default_rng(seed).normal(size=shape), 3)
    voxels = torch.from_numpy((500 + 3000 * noise).astype(np.float32))[None]
    made = MetaTensor(voxels, affine=torch.from_numpy(affine))
    made.meta["filename_or_obj"] = name
    return made


def resampled(moving, fixed, transform):
    """The moving scan on the fixed one's grid (I, J, K) by SimpleITK; NaN where it does not lie."""
    args = (to_sitk(fixed), to_itk(transform), sitk.sitkLinear)
    values = sitk.GetArrayFromImage(sitk.Resample(to_sitk(moving), *args)).T
    ones = sitk.Cast(to_sitk(moving) * 0 + 1, sitk.sitkFloat32)
    inside = sitk.GetArrayFromImage(sitk.Resample(ones, *args)).T
    # At the very border ITK repeats the last voxel.
    return np.where(binary_erosion(inside > 0.999, iterations=2), values, np.nan)


def agree(array, wanted):
    seen = np.isfinite(wanted)
    assert seen.mean() > 0.2
    np.testing.assert_allclose(array[seen], wanted[seen], atol=0.5)


@pytest.fixture(scope="module")
def window(qapp):
    """One napari for all tests here."""
    viewer = napari.Viewer(show=True)
    viewer.window.resize(1000, 760)
    # napari collects garbage whenever a layer goes; what is there by now need not be looked at.
    gc.collect()
    gc.freeze()
    yield viewer
    viewer.close()
    gc.unfreeze()


@pytest.fixture
def viewer(window, qapp):
    yield window
    window.layers.clear()
    window.reset_view()
    qapp.processEvents()


@pytest.fixture
def scans(viewer):
    """An oblique scan that stays and a straight one that is moved, as layers."""
    fixed = scan(1, turn=OBLIQUE, name="/data/fixed.nii.gz")
    moving = scan(2, shape=(50, 46, 48), name="/data/moving.nii.gz")
    one = add(viewer, image_layer(show(fixed), name="fixed"))
    two = add(viewer, image_layer(show(moving, frame=frame_of_viewer(viewer)), name="moving"))
    return SimpleNamespace(fixed=fixed, moving=moving, layers=(one, two))


@pytest.fixture
def widget(viewer, qtbot):
    made = RegisterWidget(viewer)
    made.dock = viewer.window.add_dock_widget(made, name="register", area="right")
    qtbot.waitExposed(made)
    yield made
    jobs = [made.job] if made.job is not None else []
    # First: napari 0.9.2 under Mesa ends the process if a dock goes when the lowest of several
    # layers has gone before it, and then the last one goes.
    viewer.layers.clear()
    if made.parent() is not None:
        viewer.window.remove_dock_widget(made.dock)
    for job in jobs:
        qtbot.waitUntil(lambda job=job: not job.working)


@pytest.fixture
def scripted(monkeypatch):
    def put(**options):
        registrar = Scripted(**options)
        monkeypatch.setattr(answers, "load_model", lambda name: registrar)
        return registrar

    return put


def click(qtbot, button):
    assert button.isEnabled()
    qtbot.mouseClick(button, Qt.MouseButton.LeftButton)


def run(qtbot, widget, *, sharp=True):
    click(qtbot, widget.run_button)
    qtbot.waitUntil(lambda: not widget.running, timeout=30000)
    if sharp:
        qtbot.waitUntil(lambda: widget.view.sharp, timeout=30000)


def step(qtbot, gate, widget, count):
    """Let one more step happen, and wait until it is seen."""
    gate.release()

    def seen():
        cells = [widget.table.item(row, 3) for row in range(widget.table.rowCount())]
        walking = sum(cell.text().startswith("walking") for cell in cells)
        return walking == count and f"{count} agents" in widget.status.text()

    qtbot.waitUntil(seen, timeout=30000)


def row_of(table, number):
    return next(r for r in range(table.rowCount()) if table.item(r, 0).text() == str(number))


def looks(layers):
    return [(la.colormap.name, la.opacity, la.blending, la.visible) for la in layers]


def layer_grid(fixed, array_ijk):
    return show(fixed).to_layer_grid(array_ijk)


def test_a_registration_is_watched_and_ends_on_the_fixed_scans_grid(
    scans, widget, scripted, qtbot, viewer
):
    gate = threading.Semaphore(0)
    registrar = scripted(gate=gate)
    before = looks(scans.layers)
    assert (widget.form.fixed.layer, widget.form.moving.layer) == scans.layers
    click(qtbot, widget.run_button)
    assert not widget.run_button.isEnabled()
    step(qtbot, gate, widget, 24)
    assert widget.table.rowCount() == 24
    assert viewer.layers[-1].name == ALIGNED
    assert not scans.layers[1].visible
    step(qtbot, gate, widget, 4)
    # The best of those who are there is shown, coarsely: its mean over blocks is that of ITK's.
    aligned = viewer.layers[ALIGNED]
    assert np.allclose(aligned.scale, 3.0)
    assert [widget.table.item(r, 0).text() for r in range(4)] == ["3", "7", "1", "20"]
    assert widget.table.item(0, 3).text() == "walking (8 mm, step 2)"
    assert widget.table.item(row_of(widget.table, 0), 3).text() == "dropped (8 mm, step 1)"
    assert "4 agents" in widget.status.text()
    assert (widget.progress.value(), widget.progress.maximum()) == (2, 4)
    wanted = layer_grid(scans.fixed, resampled(scans.moving, scans.fixed, transform_at(3, 1)))
    z, y, x = (n // 2 for n in wanted.shape)
    means = wanted[: 2 * z, : 2 * y, : 2 * x].reshape(z, 2, y, 2, x, 2).mean(axis=(1, 3, 5))
    seen = np.isfinite(means)
    assert np.corrcoef(aligned.data[seen], means[seen])[0, 1] > 0.98
    gate.release(2)
    qtbot.waitUntil(lambda: not widget.running and widget.view.sharp, timeout=30000)

    assert widget.table.item(0, 3).text() == "best (4 mm, step 4)"
    assert widget.status.text().startswith("Trusted: confidence 0.93, predicted error 0.7 mm")
    assert widget.step_label.text() == "refined"
    agree(aligned.data, layer_grid(scans.fixed, resampled(scans.moving, scans.fixed, TRUE)))
    np.testing.assert_allclose(aligned.translate, scans.layers[0].translate)
    np.testing.assert_allclose(aligned.scale, scans.layers[0].scale)
    (asked,) = registrar.asked
    np.testing.assert_array_equal(asked[0].affine, scans.fixed.affine)
    np.testing.assert_array_equal(asked[1].numpy(), scans.moving.numpy())
    assert asked[2] == {
        "transform": "rigid",
        "refine": True,
        "fixed_mask": None,
        "moving_mask": None,
        "initial_world": None,
    }
    click(qtbot, widget.apply)
    qtbot.waitUntil(lambda: not widget.running)
    assert [la.name for la in viewer.layers] == ["fixed", "moving", "moving on fixed"]
    assert looks(scans.layers) == before


def test_starts_and_steps_can_be_looked_at(scans, widget, scripted, qtbot, viewer):
    scripted()
    run(qtbot, widget)
    table = widget.table
    cell = table.visualItemRect(table.item(row_of(table, 20), 1))
    table.scrollToItem(table.item(row_of(table, 20), 1))
    cell = table.visualItemRect(table.item(row_of(table, 20), 1))
    qtbot.mouseClick(table.viewport(), Qt.MouseButton.LeftButton, pos=cell.center())
    assert table.chosen == 20
    qtbot.waitUntil(lambda: widget.view.sharp, timeout=30000)
    aligned = viewer.layers[ALIGNED]
    wanted = resampled(scans.moving, scans.fixed, transform_at(20, 1))
    agree(aligned.data, layer_grid(scans.fixed, wanted))
    # The angles are those of the orientation in which it set out.
    said = [
        float(t.strip("\N{DEGREE SIGN}")) for t in table.item(row_of(table, 20), 1).text().split()
    ]
    turn = Rotation.from_euler("xyz", said, degrees=True).as_matrix()
    np.testing.assert_allclose(turn, transform_at(20, 0)[:3, :3], atol=0.05)

    widget.steps.setFocus()
    for _ in range(3):
        qtbot.keyClick(widget.steps, Qt.Key.Key_Left)
    assert table.chosen is None
    assert widget.step_label.text() == "2 of 4, at 8 mm: about 12.0 mm off"
    qtbot.waitUntil(lambda: widget.view.sharp, timeout=30000)
    wanted = resampled(scans.moving, scans.fixed, transform_at(7, 1))
    agree(aligned.data, layer_grid(scans.fixed, wanted))
    qtbot.keyClick(widget.steps, Qt.Key.Key_End)
    qtbot.waitUntil(lambda: widget.view.sharp, timeout=30000)
    agree(aligned.data, layer_grid(scans.fixed, resampled(scans.moving, scans.fixed, TRUE)))


def test_the_checkerboards_squares_come_from_the_right_scan(scans, widget, scripted, qtbot, viewer):
    scripted()
    click(qtbot, widget.bar.buttons["checkerboard"])
    widget.bar.slider.setValue(12)
    run(qtbot, widget)
    board, fixed = viewer.layers[CHECKERBOARD], scans.layers[0]
    assert fixed.visible
    assert not viewer.layers[ALIGNED].visible
    # By distance from the outer corner of the fixed scan's grid, 12 mm to a square.
    index = np.stack(np.meshgrid(*map(np.arange, board.data.shape), indexing="ij"), -1)
    squares = np.floor((index + 0.5) * 1.5 / 12).astype(int).sum(axis=-1) % 2
    np.testing.assert_array_equal(np.isfinite(board.data), squares == 1)
    wanted = layer_grid(scans.fixed, resampled(scans.moving, scans.fixed, TRUE))
    agree(board.data, np.where(squares == 1, wanted, np.nan))
    # What is seen: two scans of one grey each would be seen in two tints.
    for layer in (board, fixed):
        layer.contrast_limits = (-1e6, -0.9e6)
    where = project(viewer, board, index_in_view(viewer, board))
    shot = screenshot(viewer)
    shown = shot[tuple(where.T)].astype(int)
    odd = squares[tuple(index_in_view(viewer, board).T)] == 1
    assert 0.3 < odd.mean() < 0.7
    assert (shown[odd, 0] > shown[odd, 1]).all()
    assert (shown[~odd, 1] > shown[~odd, 0]).all()
    widget.bar.slider.setValue(40)
    assert np.isfinite(viewer.layers[CHECKERBOARD].data[0, 0, :26]).sum() == 0
    click(qtbot, widget.bar.buttons["moving"])
    assert CHECKERBOARD not in viewer.layers


def screenshot(viewer):
    shot = viewer.screenshot(canvas_only=True, flash=False)[..., :3]
    assert shot.std() > 5
    return shot


def index_in_view(viewer, layer):
    """Voxels of the slice that is shown, away from the layer's edges and the squares' borders."""
    z = round(float(layer.world_to_data(viewer.dims.point)[0]))
    n = np.arange(layer.data.shape[1] * layer.data.shape[2])
    y, x = np.unravel_index(n, layer.data.shape[1:])
    inner = (y % 8 > 1) & (y % 8 < 6) & (x % 8 > 1) & (x % 8 < 6)
    return np.stack([np.full_like(y, z), y, x], -1)[inner & (y < 40) & (x < 40)]


def project(viewer, layer, voxels):
    """Pixels (row, column) of a layer's voxels in a picture of the canvas, in 2D."""
    viewer.reset_view()
    world = np.array([layer.data_to_world(v) for v in voxels])[:, 1:]
    shot = viewer.screenshot(canvas_only=True, flash=False)
    apart = (world - np.array(viewer.camera.center)[-2:]) * viewer.camera.zoom
    pixels = np.rint(apart + (np.array(shot.shape[:2]) - 1) / 2).astype(int)
    assert (pixels >= 0).all()
    assert (pixels < shot.shape[:2]).all()
    return pixels


def test_the_blend_is_white_where_scans_agree_and_coloured_where_not(
    viewer, widget, scripted, qtbot, scans
):
    scripted()
    run(qtbot, widget)
    fixed, aligned = scans.layers[0], viewer.layers[ALIGNED]
    spots = index_in_view(viewer, fixed)
    pixels = tuple(project(viewer, fixed, spots).T)

    def colours(first, second):
        """With either scan all black or all white."""
        for layer, bright in ((fixed, first), (aligned, second)):
            layer.contrast_limits = (-2e6, -1e6) if bright else (1e6, 2e6)
        return screenshot(viewer)[pixels].astype(int)

    np.testing.assert_allclose(np.median(colours(True, True), axis=0), [255, 255, 255], atol=3)
    np.testing.assert_allclose(np.median(colours(True, False), axis=0), [51, 217, 89], atol=3)
    np.testing.assert_allclose(np.median(colours(False, True), axis=0), [204, 38, 166], atol=3)
    widget.bar.slider.setValue(75)
    assert (fixed.opacity, aligned.opacity) == (0.5, 1.0)
    widget.bar.slider.setValue(20)
    assert fixed.opacity == 1.0
    assert aligned.opacity == pytest.approx(0.4)


def test_one_scan_alone_and_both_in_turn(viewer, widget, scripted, qtbot, scans):
    scripted()
    run(qtbot, widget, sharp=False)
    fixed, aligned = scans.layers[0], viewer.layers[ALIGNED]

    def seen():
        return fixed.visible, aligned.visible

    assert seen() == (True, True)
    click(qtbot, widget.bar.buttons["fixed"])
    assert seen() == (True, False)
    click(qtbot, widget.bar.buttons["moving"])
    assert seen() == (False, True)
    click(qtbot, widget.bar.buttons["flicker"])
    widget.bar.slider.setValue(1)
    for _ in range(2):
        qtbot.waitUntil(lambda: seen() == (True, False))
        qtbot.waitUntil(lambda: seen() == (False, True))
    click(qtbot, widget.bar.buttons["blend"])
    assert seen() == (True, True)


@pytest.mark.parametrize("how", ["cancel", "fixed", "moving"])
def test_what_ends_a_run_halfway_leaves_all_as_it_was(viewer, widget, scripted, qtbot, scans, how):
    gate = threading.Semaphore(0)
    scripted(gate=gate)
    before = looks(scans.layers)
    click(qtbot, widget.run_button)
    step(qtbot, gate, widget, 24)
    job = widget.job
    if how == "cancel":
        click(qtbot, widget.cancel_button)
        assert widget.status.text() == "Cancelled."
    else:
        viewer.layers.remove(how)
        told = f"Cancelled: {how} was taken away."
        qtbot.waitUntil(lambda: widget.status.text() == told)
    assert not widget.running
    assert ALIGNED not in viewer.layers
    assert looks(scans.layers) == before
    assert not widget.apply.isEnabled()
    gate.release(9)
    qtbot.waitUntil(lambda: not job.working)
    if how == "cancel":
        run(qtbot, widget, sharp=False)
        assert widget.status.text().startswith("Trusted")
    else:
        click(qtbot, widget.run_button)
        assert "cannot be moved onto itself" in widget.status.text()


def test_the_preview_taken_away_is_not_forced_upon_anyone(viewer, widget, scripted, qtbot, scans):
    gate = threading.Semaphore(0)
    scripted(gate=gate)
    click(qtbot, widget.run_button)
    step(qtbot, gate, widget, 24)
    viewer.layers.remove(ALIGNED)
    qtbot.waitUntil(lambda: scans.layers[1].visible)
    step(qtbot, gate, widget, 4)
    assert ALIGNED not in viewer.layers
    gate.release(2)
    qtbot.waitUntil(lambda: not widget.running and widget.view.sharp, timeout=30000)
    assert ALIGNED in viewer.layers


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (MedrlError("nothing in the scan stands out"), "nothing in the scan stands out"),
        (RuntimeError("no kernel"), "unexpected RuntimeError: no kernel"),
    ],
)
def test_a_model_that_fails(viewer, widget, scripted, qtbot, scans, error, words):
    scripted(error=error)
    before = looks(scans.layers)
    run(qtbot, widget, sharp=False)
    assert words in widget.status.text()
    assert looks(scans.layers) == before
    assert [la.name for la in viewer.layers] == ["fixed", "moving"]
    assert not widget.apply.isEnabled()
    scripted()
    run(qtbot, widget, sharp=False)
    assert widget.apply.isEnabled()


def test_the_widget_closed_while_agents_walk(viewer, widget, scripted, qtbot, scans):
    gate = threading.Semaphore(0)
    scripted(gate=gate)
    before = looks(scans.layers)
    click(qtbot, widget.run_button)
    step(qtbot, gate, widget, 24)
    job = widget.job
    widget.dock.destroyOnClose()
    assert looks(scans.layers) == before
    assert [la.name for la in viewer.layers] == ["fixed", "moving"]
    gate.release(9)
    qtbot.waitUntil(lambda: not job.working)
    viewer.layers.remove("moving")
    add(viewer, image_layer(show(scans.moving, frame=frame_of_viewer(viewer)), name="again"))


def test_an_answer_that_is_not_to_be_trusted_is_said_to_be_so(
    viewer, widget, scripted, qtbot, scans
):
    scripted(trusted=False)
    run(qtbot, widget, sharp=False)
    assert widget.status.text().startswith("NOT TRUSTED: confidence 0.07, predicted error 23.0 mm")
    assert "ffd43b" in widget.status.styleSheet()


def test_wrong_input_is_refused_in_one_line(viewer, widget, qtbot):
    click(qtbot, widget.run_button)
    assert "open two scans first" in widget.status.text()
    add(viewer, image_layer(show(scan(1)), name="only"))
    click(qtbot, widget.run_button)
    assert widget.status.text() == "only cannot be moved onto itself: choose another scan"
    flat = MetaTensor(torch.ones(1, 20, 20, 20), affine=torch.eye(4).double())
    add(viewer, image_layer(show(flat), name="flat"))
    assert widget.form.moving.layer is viewer.layers["flat"]
    # By the real model's own check.
    run(qtbot, widget, sharp=False)
    assert widget.status.text() == "flat: every voxel is 1: the scan is blank"
    assert [la.name for la in viewer.layers] == ["only", "flat"]


def test_masks_start_and_kind_reach_the_agents(
    viewer, widget, scripted, qtbot, scans, tmp_path, monkeypatch
):
    registrar = scripted()
    mask = np.zeros(scans.fixed.shape[1:], np.uint8)
    mask[5:20, 8:30, 3:9] = 4
    add(viewer, labels_layer(show(scans.fixed), mask, name="mask"))
    widget.form.fixed_mask.setCurrentText("mask")
    widget.form.kind.setCurrentText("affine")
    click(qtbot, widget.form.refine)
    widget.form.start.setCurrentText("from where they lie")
    run(qtbot, widget, sharp=False)
    fixed, _, options = registrar.asked[0]
    np.testing.assert_array_equal(options["fixed_mask"].numpy()[0], mask > 0)
    np.testing.assert_allclose(options["fixed_mask"].affine, fixed.affine)
    np.testing.assert_array_equal(options["initial_world"], np.eye(4))
    assert (options["transform"], options["refine"]) == ("affine", False)
    assert options["moving_mask"] is None
    sitk.WriteTransform(to_itk(TRUE), str(tmp_path / "near.tfm"))
    choose_file(monkeypatch, "getOpenFileName", tmp_path / "near.tfm")
    click(qtbot, widget.load_transform)
    assert widget.form.start.currentText() == "from near.tfm"
    run(qtbot, widget, sharp=False)
    np.testing.assert_allclose(registrar.asked[1][2]["initial_world"], TRUE, atol=1e-9)
    click(qtbot, widget.form.swap)
    run(qtbot, widget, sharp=False)
    np.testing.assert_array_equal(registrar.asked[2][0].numpy(), scans.moving.numpy())
    np.testing.assert_array_equal(registrar.asked[2][2]["moving_mask"].numpy()[0], mask > 0)


def choose_file(monkeypatch, dialog, path):
    """What a user chooses in a dialog; nothing if they close it."""
    answer = str(path or "")
    many = answer if dialog == "getExistingDirectory" else (answer, "")
    monkeypatch.setattr(QFileDialog, dialog, lambda *args, **kwargs: many)


def test_what_is_applied_and_saved_is_what_simpleitk_makes_of_it(
    viewer, widget, scripted, qtbot, scans, tmp_path, monkeypatch
):
    scripted()
    run(qtbot, widget, sharp=False)
    wanted = resampled(scans.moving, scans.fixed, TRUE)
    click(qtbot, widget.apply)
    qtbot.waitUntil(lambda: not widget.running)
    layer = viewer.layers["moving on fixed"]
    write_scan(str(tmp_path / "layer.nii.gz"), *layer.as_layer_data_tuple()[:2])
    for dialog in ("getExistingDirectory", "getSaveFileName"):
        choose_file(monkeypatch, dialog, None)
    click(qtbot, widget.save)
    click(qtbot, widget.save_transform)
    assert not widget.running
    assert sorted(p.name for p in tmp_path.iterdir()) == ["layer.nii.gz"]
    choose_file(monkeypatch, "getExistingDirectory", tmp_path)
    click(qtbot, widget.save)
    qtbot.waitUntil(lambda: not widget.running, timeout=60000)
    files = sorted(path.name for path in tmp_path.glob("moving_to_fixed.*"))
    assert len(files) == 7
    told = widget.status.text()
    assert told.startswith("Saved ")
    assert sorted(told.removeprefix("Saved ").removesuffix(f" in {tmp_path}.").split(", ")) == files
    for file in ("layer.nii.gz", "moving_to_fixed.nii.gz"):
        image = sitk.ReadImage(str(tmp_path / file))
        # Voxel for voxel in the fixed scan's own oblique grid.
        np.testing.assert_allclose(image.GetOrigin(), to_sitk(scans.fixed).GetOrigin(), atol=1e-3)
        agree(sitk.GetArrayFromImage(image).T, wanted)
    itk = sitk.ReadTransform(str(tmp_path / "moving_to_fixed.tfm"))
    np.testing.assert_allclose(from_itk(itk), TRUE, atol=1e-6)
    report = json.loads((tmp_path / "moving_to_fixed.report.json").read_text())
    assert (report["model"], report["trusted"]) == ("scripted", True)
    for ending in (".tfm", ".h5", ".txt", ""):
        path = tmp_path / f"own{ending}"
        choose_file(monkeypatch, "getSaveFileName", path)
        click(qtbot, widget.save_transform)
        found = path if ending else path.with_suffix(".tfm")
        assert widget.status.text() == f"wrote {found}"
        matrix = np.loadtxt(found) if ending == ".txt" else from_itk(sitk.ReadTransform(str(found)))
        np.testing.assert_allclose(matrix, TRUE, atol=1e-6)


def test_a_loaded_transform_is_shown_and_applied(
    viewer, widget, qtbot, scans, tmp_path, monkeypatch
):
    itk = sitk.AffineTransform(3)
    itk.SetMatrix([1.05, 0.1, 0.0, -0.1, 0.95, 0.05, 0.0, 0.02, 1.0])
    itk.SetTranslation((4.0, -3.0, 2.0))
    sitk.WriteTransform(itk, str(tmp_path / "mine.h5"))
    choose_file(monkeypatch, "getOpenFileName", tmp_path / "mine.h5")
    click(qtbot, widget.load_transform)
    qtbot.waitUntil(lambda: widget.view.sharp, timeout=30000)
    wanted = resampled(scans.moving, scans.fixed, from_itk(itk))
    agree(viewer.layers[ALIGNED].data, layer_grid(scans.fixed, wanted))
    assert not widget.save.isEnabled()
    click(qtbot, widget.apply)
    qtbot.waitUntil(lambda: not widget.running)
    agree(viewer.layers["moving on fixed"].data, layer_grid(scans.fixed, wanted))
    (tmp_path / "broken.tfm").write_text("nothing")
    choose_file(monkeypatch, "getOpenFileName", tmp_path / "broken.tfm")
    click(qtbot, widget.load_transform)
    assert "broken.tfm: is damaged" in widget.status.text()


def test_a_fixed_scan_that_lies_askew_in_the_viewer(
    viewer, widget, qtbot, scans, tmp_path, monkeypatch
):
    """The second scan's layer is resampled; what is shown over it is shown on that layer's grid."""
    sitk.WriteTransform(to_itk(TRUE), str(tmp_path / "back.tfm"))
    choose_file(monkeypatch, "getOpenFileName", tmp_path / "back.tfm")
    click(qtbot, widget.form.swap)
    click(qtbot, widget.load_transform)
    qtbot.waitUntil(lambda: widget.view.sharp, timeout=30000)
    layer, aligned = scans.layers[1], viewer.layers[ALIGNED]
    assert aligned.data.shape == layer.data.shape
    corner, *ends = frame_of_viewer(viewer).to_world(
        [aligned.data_to_world(v) for v in np.eye(4, 3, k=-1)]
    )
    place = np.eye(4)
    place[:3, :3], place[:3, 3] = (np.array(ends) - corner).T, corner
    grid = MetaTensor(torch.zeros(1, *aligned.data.shape), affine=torch.from_numpy(place))
    agree(aligned.data, resampled(scans.fixed, grid, TRUE))
    click(qtbot, widget.apply)
    qtbot.waitUntil(lambda: not widget.running)
    kept = viewer.layers["fixed on moving"].metadata["medrl"].scan
    np.testing.assert_allclose(kept.affine, scans.moving.affine)
    agree(kept.numpy()[0], resampled(scans.fixed, scans.moving, TRUE))


def test_a_model_from_a_folder(widget, qtbot, scans, tmp_path, monkeypatch):
    choice = widget.form.model
    assert choice.model == "rigid-head"
    choose_file(monkeypatch, "getExistingDirectory", None)
    choice.setCurrentIndex(choice.count() - 1)
    choice.activated.emit(choice.count() - 1)
    assert choice.model == "rigid-head"
    choose_file(monkeypatch, "getExistingDirectory", tmp_path)
    choice.setCurrentIndex(choice.count() - 1)
    choice.activated.emit(choice.count() - 1)
    assert choice.model == str(tmp_path)
    run(qtbot, widget, sharp=False)
    assert str(tmp_path) in widget.status.text()
    assert not widget.apply.isEnabled()


def test_the_model_that_ships_brings_a_turned_head_home(viewer, widget, qtbot):
    pytest.importorskip("nilearn")
    from medrl.volume.resample import resample_isotropic
    from medrl_datasets import mni152

    (case,) = mni152.DATASET.datalist(mni152.installed_root())["test"]
    head = resample_isotropic(read(case["image"]), spacing=2.5)
    fixed = MetaTensor(
        head.as_tensor(), affine=torch.from_numpy(rigid((10, 5, 0), (0, 0, 0))) @ head.affine
    )
    truth = rigid((25.0, -35.0, 60.0), (30.0, -12.0, 25.0))
    # On another grid of other voxels, about where it comes to lie: SimpleITK turns the head.
    place, shape = np.diag([-2.6, 2.5, 2.4, 1.0]), (90, 95, 100)
    middle = apply_affine(truth @ fixed.affine.numpy(), (np.array(fixed.shape[1:]) - 1) / 2)
    place[:3, 3] = middle - place[:3, :3] @ (np.array(shape) - 1) / 2
    grid = MetaTensor(torch.zeros(1, *shape), affine=torch.from_numpy(place))
    image = sitk.Resample(to_sitk(fixed), to_sitk(grid), to_itk(np.linalg.inv(truth)))
    voxels = torch.from_numpy(sitk.GetArrayFromImage(image).T.copy())[None]
    moving = MetaTensor(voxels, affine=grid.affine)
    layer = add(viewer, image_layer(show(fixed), name="head"))
    add(viewer, image_layer(show(moving, frame=frame_of_viewer(viewer)), name="turned"))
    click(qtbot, widget.run_button)
    qtbot.waitUntil(lambda: ALIGNED in viewer.layers, timeout=60000)
    qtbot.waitUntil(lambda: not widget.running, timeout=60000)
    qtbot.waitUntil(lambda: widget.view.sharp, timeout=60000)
    assert widget.status.text().startswith("Trusted: confidence")
    assert widget.table.rowCount() == 24
    brain = np.argwhere(fixed.numpy()[0] > 0.3 * fixed.numpy().max())[::500]
    points = apply_affine(fixed.affine.numpy(), brain)
    apart = apply_affine(widget.answer.transform_world, points) - apply_affine(truth, points)
    assert np.linalg.norm(apart, axis=1).mean() < 1
    aligned = viewer.layers[ALIGNED]
    assert aligned.data.shape == layer.data.shape
    assert np.corrcoef(aligned.data.ravel(), layer.data.ravel())[0, 1] > 0.98
    # White, where green and magenta lie over each other.
    shot = screenshot(viewer).astype(int)
    bright = shot.min(axis=-1) > 100
    assert bright.mean() > 0.05
    assert (np.ptp(shot[bright], axis=-1) < 40).mean() > 0.9
