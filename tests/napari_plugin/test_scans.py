"""Scans are shown straight and come back voxel for voxel; SimpleITK knows where voxels lie."""

import itertools

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
import torch
from monai.data.meta_tensor import MetaTensor
from napari.components import ViewerModel

from medrl.errors import MedrlError
from medrl_napari.scans import (
    add,
    center_views,
    frame_of_viewer,
    image_layer,
    image_layers,
    labels_layer,
    scan_layers,
    show,
    shown_of,
)
from medrl_napari.space import STRAIGHT, Frame, frame_of

OBLIQUE = (30.0, -12.0, 7.0)
ORIENTATIONS = [
    "".join(letters)
    for axes in itertools.permutations(("RL", "AP", "SI"))
    for letters in itertools.product(*axes)
]


def itk_position(scan: MetaTensor, voxel: tuple[int, ...]) -> np.ndarray:
    """Where ITK puts a voxel, in RAS."""
    matrix = np.diag([-1, -1, 1]) @ np.asarray(scan.affine)[:3, :3]
    spacing = np.linalg.norm(matrix, axis=0)
    image = sitk.Image([int(n) for n in scan.shape[1:]], sitk.sitkUInt8)
    image.SetSpacing(spacing.tolist())
    image.SetDirection((matrix / spacing).ravel().tolist())
    image.SetOrigin((np.diag([-1, -1, 1]) @ np.asarray(scan.affine)[:3, 3]).tolist())
    lps = image.TransformIndexToPhysicalPoint([int(v) for v in voxel])
    return np.array(lps) * (-1, -1, 1)


@pytest.mark.parametrize("orientation", ORIENTATIONS)
@pytest.mark.parametrize("turn", [(0.0, 0.0, 0.0), OBLIQUE])
def test_a_picked_voxel_is_where_itk_says(make_scan, orientation, turn):
    scan = make_scan(orientation, turn_deg=turn)
    shown = show(scan)
    layer = add(ViewerModel(), image_layer(shown, name="scan"))
    voxel = (3, 11, 20)
    picked = np.argwhere(layer.data == scan[0][voxel].item())
    assert len(picked) == 1
    world = shown.frame.to_world(layer.data_to_world(picked[0]))
    np.testing.assert_allclose(world, itk_position(scan, voxel), atol=1e-6)
    np.testing.assert_allclose(shown.frame.to_napari(world), layer.data_to_world(picked[0]))


@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_straight_layers_run_to_feet_back_and_left(make_scan, orientation):
    layer = add(ViewerModel(), image_layer(show(make_scan(orientation)), name="scan"))
    assert (np.asarray(layer.scale) > 0).all()
    step = np.array([layer.data_to_world(row) for row in np.eye(3)]) - layer.data_to_world((0,) * 3)
    for axis, side in enumerate([(0, 0, -1), (0, -1, 0), (-1, 0, 0)]):
        # In RAS: towards the feet, to the back, to the left.
        moved = STRAIGHT.to_world(step[axis])
        np.testing.assert_allclose(moved / np.linalg.norm(moved), side, atol=1e-12)


@pytest.mark.parametrize("orientation", ["RAS", "LPS", "SLA", "PIR"])
@pytest.mark.parametrize("turn", [(0.0, 0.0, 0.0), OBLIQUE])
def test_a_mask_comes_back_voxel_for_voxel(make_scan, orientation, turn):
    scan = make_scan(orientation, turn_deg=turn)
    shown = show(scan)
    mask = np.random.default_rng(1).integers(0, 5, scan.shape[1:]).astype(np.uint8)
    there = shown.to_layer_grid(mask)
    assert there.shape == shown.shape == shown.images()[0].shape
    np.testing.assert_array_equal(shown.to_scan_grid(there), mask)


def test_layers_share_the_scans_memory(make_scan):
    scan = make_scan("LPS")
    image = image_layer(show(scan), name="scan")[0]
    assert np.shares_memory(image, scan.numpy())


def test_a_mask_layer_is_its_own(make_scan):
    scan = make_scan()
    mask = np.zeros(scan.shape[1:], dtype=np.uint8)
    data, settings, kind = labels_layer(show(scan), mask, name="mask")
    assert kind == "labels"
    assert not np.shares_memory(data, mask)
    np.testing.assert_allclose(settings["scale"], show(scan).scale)


def test_gantry_tilt_is_undone_and_kept(make_scan):
    scan = make_scan()
    affine = np.asarray(scan.affine).copy()
    affine[:3, 2] += (0.0, 0.8, 0.0)
    tilted = MetaTensor(scan.as_tensor(), affine=torch.from_numpy(affine))
    shown = show(tilted)
    assert not shown.resampled
    back = shown.frame.to_world(shown.scale * shown.images()[0].shape * 0 + shown.translate)
    np.testing.assert_allclose(back, nib.affines.apply_affine(affine, [29, 35, 23]), atol=1e-9)


def test_an_oblique_scan_in_a_straight_frame_shows_the_right_places(make_scan):
    scan = make_scan(shape=(40, 40, 40), spacing=(1.0, 1.0, 1.0), turn_deg=OBLIQUE)
    ball = np.linalg.norm(np.indices((40, 40, 40)).T - (12, 25, 18), axis=-1).T < 5
    bright = MetaTensor(torch.from_numpy(ball)[None].float(), affine=scan.affine)
    shown = show(bright, frame=STRAIGHT)
    assert shown.resampled
    layer = add(ViewerModel(), image_layer(shown, name="ball"))
    center = np.argwhere(layer.data > 0.5).mean(axis=0)
    world = STRAIGHT.to_world(layer.data_to_world(center))
    np.testing.assert_allclose(world, itk_position(scan, (12, 25, 18)), atol=0.1)
    # Back on the scan's grid a mask is the same but for its skin.
    again = shown.to_scan_grid(shown.to_layer_grid(ball.astype(np.uint8)))
    overlap = 2 * (again * ball).sum() / (again.sum() + ball.sum())
    assert overlap > 0.9


def test_a_frame_resamples_only_what_lies_otherwise(make_scan):
    one, same, other = (
        make_scan(turn_deg=OBLIQUE),
        make_scan("PIR", turn_deg=OBLIQUE),
        make_scan(turn_deg=(0, 0, 30)),
    )
    frame = show(one).frame
    assert not show(same, frame=frame).resampled
    assert show(other, frame=frame).resampled


def test_frames_know_each_other():
    assert frame_of(np.diag([-2.0, 3.0, 1.0, 1.0])) is STRAIGHT
    turned = np.eye(4)
    turned[:2, :2] = [[0.8, -0.6], [0.6, 0.8]]
    assert not frame_of(turned).same_as(STRAIGHT)
    assert frame_of(turned).same_as(Frame(turned[:3, :3]))


def test_a_viewer_takes_the_frame_of_its_first_scan(make_scan):
    viewer = ViewerModel()
    assert frame_of_viewer(viewer) is STRAIGHT
    viewer.add_points(np.zeros((1, 3)))
    oblique = show(make_scan(turn_deg=OBLIQUE))
    add(viewer, image_layer(oblique, name="scan"))
    assert frame_of_viewer(viewer) is oblique.frame


def test_layers_of_others_are_taken_at_napari_s_word(make_scan):
    viewer = ViewerModel()
    data = np.random.default_rng(0).random((5, 6, 7))
    layer = viewer.add_image(data, scale=(3, 2, 1), translate=(10, 20, 30))
    shown = shown_of(layer)
    voxel = np.argwhere(shown.images()[0] == np.float32(data[1, 2, 3]))[0]
    at = shown.scale * voxel + shown.translate
    np.testing.assert_allclose(at, layer.data_to_world((1, 2, 3)))
    world = nib.affines.apply_affine(np.asarray(shown.scan.affine), (1, 2, 3))
    np.testing.assert_allclose(world, (-33, -24, -13))


def test_layers_of_others_lie_in_the_viewers_frame(make_scan):
    viewer = ViewerModel()
    oblique = show(make_scan("SLA", turn_deg=OBLIQUE))
    own = add(viewer, image_layer(oblique, name="scan"))
    copy = viewer.add_image(own.data.copy(), scale=own.scale, translate=own.translate)
    shown = shown_of(copy, viewer=viewer)
    voxel = np.argwhere(shown.scan.numpy()[0] == own.data[1, 2, 3])[0]
    world = nib.affines.apply_affine(np.asarray(shown.scan.affine), voxel)
    there = oblique.frame.to_world(own.data_to_world((1, 2, 3)))
    np.testing.assert_allclose(world, there, atol=1e-9)
    # Its voxels come back in the layer's own order.
    np.testing.assert_array_equal(shown.to_layer_grid(shown.to_scan_grid(copy.data)), copy.data)


@pytest.mark.parametrize("case", ["flat", "colours", "askew"])
def test_layers_that_are_no_scans_are_refused(case):
    viewer = ViewerModel()
    layer = {
        "flat": lambda: viewer.add_image(np.zeros((5, 5))),
        "colours": lambda: viewer.add_image(np.zeros((5, 5, 5, 3), dtype=np.uint8), rgb=True),
        "askew": lambda: viewer.add_image(np.ones((5, 5, 5)), rotate=(20, 0, 0)),
    }[case]()
    with pytest.raises(MedrlError, match="layer"):
        shown_of(layer)


def test_channels_become_layers_and_series_a_slider(make_scan):
    few = image_layers(show(make_scan(channels=3)), name="scan")
    assert [settings["visible"] for _, settings, _ in few] == [True, False, False]
    (series, settings, _), *rest = image_layers(show(make_scan(channels=12)), name="scan")
    assert not rest
    assert series.shape[0] == 12
    assert len(settings["scale"]) == 4


def test_scans_are_shown_with_a_contrast_that_suits_them(make_scan):
    scan = make_scan()
    ct = MetaTensor(scan.as_tensor() * 20 - 1000, affine=scan.affine)
    assert image_layer(show(ct), name="ct")[1]["contrast_limits"] == (-160.0, 240.0)
    both = MetaTensor(torch.cat([scan.as_tensor(), scan.as_tensor() * 7]), affine=scan.affine)
    (_, first, _), (_, second, _) = image_layers(show(both), name="two")
    np.testing.assert_allclose(
        np.multiply(first["contrast_limits"], 7), second["contrast_limits"], rtol=1e-5
    )


def test_centering_keeps_the_time(make_scan):
    viewer = ViewerModel()
    layer = add(viewer, image_layer(show(make_scan(channels=12)), name="series"))
    viewer.dims.set_current_step(0, 7)
    target = layer.data_to_world((7, 5, 6, 7))[1:]
    center_views(viewer, target)
    assert viewer.dims.current_step[0] == 7
    np.testing.assert_allclose(viewer.dims.point[1:], target, atol=1e-9)
    assert not scan_layers(viewer)


def test_napari_says_nothing_about_units(make_scan, caplog):
    viewer = ViewerModel()
    with caplog.at_level("WARNING"):
        for layer in image_layers(show(make_scan(channels=2)), name="scan"):
            add(viewer, layer)
    assert {str(unit) for unit in viewer.layers[0].units} == {"millimeter"}
    assert not caplog.records
