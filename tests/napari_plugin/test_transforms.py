"""Transform files on selected layers, against what SimpleITK does with the same files."""

import napari
import numpy as np
import pytest
import SimpleITK as sitk
import torch
from monai.data.meta_tensor import MetaTensor
from napari.components import ViewerModel
from scipy.ndimage import gaussian_filter

from medrl import read
from medrl.errors import MedrlError
from medrl.volume.itk import to_sitk
from medrl.volume.space import lps_to_ras, ras_to_lps
from medrl.volume.transform_files import from_itk, write_transform
from medrl_napari.points import points_layer
from medrl_napari.scans import add, frame_of_viewer, image_layer, labels_layer, show, shown_of
from medrl_napari.transforms import read_transform_file
from medrl_napari.writers import write_labels, write_points, write_scan

OBLIQUE = (25.0, -10.0, 5.0)
TURNS = [(0.0, 0.0, 0.0), OBLIQUE]


@pytest.fixture
def viewer(monkeypatch):
    model = ViewerModel()
    monkeypatch.setattr("napari.current_viewer", lambda: model)
    return model


@pytest.fixture
def smooth(make_scan):
    """A scan without edges, so that interpolating it twice costs nothing."""

    def make(orientation="RAS", turn_deg=(0.0, 0.0, 0.0)):
        scan = make_scan(
            orientation, shape=(40, 44, 36), spacing=(2.0, 2.0, 2.0), turn_deg=turn_deg
        )
        voxels = 40 * gaussian_filter(scan.numpy()[0], 5, mode="reflect")
        return MetaTensor(torch.from_numpy(voxels)[None], affine=scan.affine)

    return make


def rigid(shift=(7.0, -4.0, 11.0)):
    """ITK's own transform, fixed to moving, LPS."""
    transform = sitk.Euler3DTransform()
    transform.SetCenter((10.0, -20.0, 30.0))
    transform.SetRotation(0.3, -0.2, 0.4)
    transform.SetTranslation(shift)
    return transform


def affine():
    transform = sitk.AffineTransform(3)
    transform.SetMatrix([1.1, 0.15, 0.0, -0.1, 0.9, 0.1, 0.05, 0.0, 1.05])
    transform.SetTranslation((3.0, 5.0, -2.0))
    return transform


def written(transform, path):
    sitk.WriteTransform(transform, str(path))
    return str(path)


def world_of(layer, viewer, voxels_zyx):
    """Where voxels of a layer lie in the patient, RAS mm."""
    there = np.array([layer.data_to_world(voxel) for voxel in voxels_zyx])
    return frame_of_viewer(viewer).to_world(there)


def itk_values(image, points_lps, interpolator=sitk.sitkLinear):
    """Of an image at places; NaN outside."""
    values = np.full(len(points_lps), np.nan)
    for row, point in enumerate(points_lps):
        index = np.array(image.TransformPhysicalPointToContinuousIndex(point))
        if (index > 1).all() and (index < np.array(image.GetSize()) - 2).all():
            values[row] = image.EvaluateAtPhysicalPoint(point, interpolator)
    return values


@pytest.mark.parametrize("transform", [rigid(), affine()], ids=["rigid", "sheared"])
@pytest.mark.parametrize("turn_deg", TURNS)
@pytest.mark.parametrize("ending", [".tfm", ".h5"])
def test_each_voxel_comes_to_where_simpleitk_takes_it_from(
    viewer, smooth, tmp_path, transform, turn_deg, ending
):
    scan = smooth("LPS", turn_deg)
    layer = add(viewer, image_layer(show(scan), name="moving"))
    layer.contrast_limits = (5.0, 60.0)
    (found,) = read_transform_file(written(transform, tmp_path / f"found{ending}"))
    moved = add(viewer, found)
    assert moved.name == "moving (found)"
    assert tuple(moved.contrast_limits) == (5.0, 60.0)
    voxels = np.random.default_rng(0).integers(0, moved.data.shape, (400, 3))
    places = [transform.TransformPoint(p) for p in ras_to_lps(world_of(moved, viewer, voxels))]
    wanted = itk_values(to_sitk(scan), places)
    seen = np.isfinite(wanted)
    assert seen.sum() > 60
    values = moved.data[tuple(voxels[seen].T)]
    assert np.ptp(wanted[seen]) > 50
    np.testing.assert_allclose(values, wanted[seen], atol=0.01 * np.ptp(wanted[seen]))
    # And it is saved there: in ITK's eyes the transform leads from the file to the scan.
    file = tmp_path / "moved.nii.gz"
    write_scan(str(file), *moved.as_layer_data_tuple()[:2])
    image = sitk.ReadImage(str(file))
    corner, size = np.zeros(3), np.array(image.GetSize())
    indices = np.random.default_rng(1).uniform(corner + 2, size - 3, (400, 3))
    points = [image.TransformContinuousIndexToPhysicalPoint(i) for i in indices.tolist()]
    wanted = itk_values(to_sitk(scan), [transform.TransformPoint(p) for p in points])
    values = itk_values(image, points)
    both = np.isfinite(wanted) & np.isfinite(values)
    assert both.sum() > 60
    # Interpolated twice; half a voxel would be thrice as far off.
    assert np.abs(values[both] - wanted[both]).mean() < 0.01 * np.ptp(wanted[both])


def test_a_rigid_transform_leaves_the_voxels_of_the_saved_scan_alone(viewer, smooth, tmp_path):
    scan = smooth("SAL")
    add(viewer, image_layer(show(scan), name="moving"))
    (found,) = read_transform_file(written(rigid(), tmp_path / "found.tfm"))
    moved = shown_of(add(viewer, found)).scan
    np.testing.assert_array_equal(moved.numpy(), scan.numpy())
    inverse = np.linalg.inv(from_itk(rigid()))
    np.testing.assert_allclose(moved.affine, inverse @ scan.affine.numpy(), atol=1e-9)


@pytest.mark.parametrize("turn_deg", TURNS)
def test_points_go_with_the_moving_scan(viewer, smooth, tmp_path, turn_deg):
    add(viewer, image_layer(show(smooth("RAS", turn_deg)), name="scan"))
    world = np.random.default_rng(0).uniform(-50, 50, (5, 3))
    frame = frame_of_viewer(viewer)
    layer = add(viewer, points_layer(list("abcde"), world, frame, name="marks"))
    layer.metadata["medrl"]["seeds"] = ["of where they were"]
    viewer.layers.selection = {layer}
    (found,) = read_transform_file(written(rigid(), tmp_path / "found.tfm"))
    moved = add(viewer, found)
    assert list(moved.features["name"]) == list("abcde")
    inverse = rigid().GetInverse()
    wanted = lps_to_ras([inverse.TransformPoint(p) for p in ras_to_lps(world).tolist()])
    np.testing.assert_allclose(frame.to_world(moved.data), wanted, atol=1e-6)
    write_points(str(tmp_path / "p.mrk.json"), *moved.as_layer_data_tuple()[:2])
    from medrl.volume.points import read_points

    back = read_points(tmp_path / "p.mrk.json")
    np.testing.assert_allclose(list(back.values()), wanted, atol=1e-4)


def test_points_in_time_and_in_a_grid_of_their_own_keep_both(viewer, smooth, tmp_path):
    add(viewer, image_layer(show(smooth()), name="scan"))
    data = np.array([[3.0, 10.0, 20.0, 30.0], [4.0, -5.0, 1.0, 2.0]])
    place = {"scale": (1, 2, 1, 0.5), "translate": (0, 5, -6, 7)}
    layer = viewer.add_points(data, **place)
    viewer.layers.selection = {layer}
    (found,) = read_transform_file(written(rigid(), tmp_path / "found.tfm"))
    moved = add(viewer, found)
    np.testing.assert_array_equal(moved.data[:, 0], [3.0, 4.0])
    to_world = frame_of_viewer(viewer).to_world
    before, after = (
        to_world([la.data_to_world(row)[1:] for row in la.data]) for la in (layer, moved)
    )
    inverse = rigid().GetInverse()
    wanted = lps_to_ras([inverse.TransformPoint(p) for p in ras_to_lps(before).tolist()])
    np.testing.assert_allclose(after, wanted, atol=1e-6)


def test_labels_go_with_it_and_keep_their_numbers(viewer, smooth, tmp_path):
    scan = smooth("LAS")
    labels = np.digitize(scan.numpy()[0], [1980, 2000, 2020]).astype(np.uint8)
    assert set(np.unique(labels)) == {0, 1, 2, 3}
    layer = add(viewer, labels_layer(show(scan), labels, name="mask"))
    viewer.layers.selection = {layer}
    (found,) = read_transform_file(written(rigid(), tmp_path / "found.tfm"))
    moved = add(viewer, found)
    assert set(np.unique(moved.data)) == {0, 1, 2, 3}
    write_labels(str(tmp_path / "m.nii.gz"), *moved.as_layer_data_tuple()[:2])
    file = sitk.ReadImage(str(tmp_path / "m.nii.gz"))
    image = to_sitk(MetaTensor(torch.from_numpy(labels)[None].float(), affine=scan.affine))
    again = sitk.Resample(image, file, rigid(), sitk.sitkNearestNeighbor)
    agree = sitk.GetArrayFromImage(again) == sitk.GetArrayFromImage(file)
    assert agree.mean() > 0.999


def test_several_selected_layers_go_together(viewer, smooth, tmp_path):
    scan = smooth()
    one = add(viewer, image_layer(show(scan), name="one"))
    two = add(viewer, points_layer(["a"], [[1.0, 2, 3]], frame_of_viewer(viewer), name="two"))
    add(viewer, image_layer(show(scan), name="not selected"))
    viewer.layers.selection = {one, two}
    found = read_transform_file(written(rigid(), tmp_path / "t.tfm"))
    assert [(layer[1]["name"], layer[2]) for layer in found] == [
        ("one (t)", "image"),
        ("two (t)", "points"),
    ]


def test_matrices_of_fsl_and_freesurfer_mean_the_same(viewer, smooth, tmp_path):
    fixed, moving = smooth("RAS"), smooth("LPI", OBLIQUE)
    add(viewer, image_layer(show(fixed), name="fixed"))
    layer = add(viewer, image_layer(show(moving, frame=frame_of_viewer(viewer)), name="moving"))
    viewer.layers.selection = {layer}
    (wanted,) = read_transform_file(written(rigid(), tmp_path / "t.tfm"))
    for form, ending in (("fsl", ".mat"), ("lta", ".lta"), ("matrix", ".txt"), ("ants", ".mat")):
        path = tmp_path / f"{form}{ending}"
        write_transform(path, from_itk(rigid()), form=form, fixed=fixed, moving=moving)
        (found,) = read_transform_file(str(path), form=form)
        np.testing.assert_allclose(found[1]["translate"], wanted[1]["translate"], atol=1e-3)
        # Files of text hold six or seven digits.
        np.testing.assert_allclose(found[0], wanted[0], atol=0.1)


def test_labels_of_any_size_go_with_the_moving_scan(viewer, smooth, tmp_path):
    """Ids that no float holds, where the labels are resampled."""
    scan = smooth("RAS", OBLIQUE)
    add(viewer, image_layer(show(scan), name="scan"))
    ids = np.array([576073732, 2**53 + 1, 2**62 + 3])
    drawn = np.zeros(shown_of(viewer.layers["scan"]).shape, np.int64)
    drawn[10:20, 10:20, 8:30] = np.repeat(ids, [4, 3, 3])[:, None, None]
    place = {k: getattr(viewer.layers["scan"], k) for k in ("scale", "translate")}
    layer = viewer.add_labels(drawn, name="atlas", **place)
    viewer.layers.selection = {layer}
    (found,) = read_transform_file(written(rigid(), tmp_path / "found.tfm"))
    np.testing.assert_array_equal(np.unique(found[0]), [0, *ids])


def test_what_cannot_be_done_is_said_in_one_line(viewer, smooth, tmp_path):
    path = written(rigid(), tmp_path / "found.tfm")
    with pytest.raises(MedrlError, match=r"found\.tfm moves what is selected") as caught:
        read_transform_file(path)
    assert "\n" not in str(caught.value)
    layer = add(viewer, image_layer(show(smooth()), name="moving"))
    viewer.layers.selection.clear()
    with pytest.raises(MedrlError, match="moves what is selected"):
        read_transform_file(path)
    viewer.layers.selection = {viewer.add_shapes([[[0, 0, 0], [0, 1, 1]]], shape_type="path")}
    with pytest.raises(MedrlError, match="moves what is selected"):
        read_transform_file(path)
    viewer.layers.selection = {layer}
    bent = sitk.BSplineTransformInitializer(to_sitk(smooth()), [2, 2, 2])
    with pytest.raises(MedrlError, match="not linear"):
        read_transform_file(written(bent, tmp_path / "bent.tfm"))
    (tmp_path / "broken.h5").write_bytes(b"nothing")
    with pytest.raises(MedrlError, match=r"broken\.h5: is damaged"):
        read_transform_file(str(tmp_path / "broken.h5"))
    (tmp_path / "fsl.mat").write_text("1 0 0 0\n0 1 0 0\n0 0 1 0\n0 0 0 1\n")
    with pytest.raises(MedrlError, match=r"may be a 4x4 world .*FSL.*name its form"):
        read_transform_file(str(tmp_path / "fsl.mat"))
    assert read_transform_file(str(tmp_path / "fsl.mat"), form="matrix")
    assert len(viewer.layers) == 2


def test_through_naparis_own_door(open_viewer, smooth, tmp_path):
    """Open a scan, select it, open a transform: as a user does, but for the dialog."""
    viewer = open_viewer
    scan = smooth()
    (layer,) = viewer.open(str(_saved(scan, tmp_path)), plugin="medrl")
    viewer.layers.selection = {layer}
    (moved,) = viewer.open(written(rigid(), tmp_path / "found.tfm"), plugin="medrl")
    assert list(viewer.layers) == [layer, moved]
    np.testing.assert_allclose(moved.scale, layer.scale)
    spot = np.array(layer.data.shape) // 2
    (world,) = world_of(layer, viewer, [spot])
    brought = lps_to_ras(rigid().GetInverse().TransformPoint(ras_to_lps(world).tolist()))
    value = moved.get_value(frame_of_viewer(viewer).to_napari(brought), world=True)
    nearby = layer.data[tuple(slice(s - 1, s + 2) for s in spot)]
    assert nearby.min() <= value <= nearby.max()
    assert napari.current_viewer() is viewer


def _saved(scan, folder):
    from medrl.volume.read import write_nifti

    write_nifti(folder / "scan.nii.gz", scan)
    assert read(folder / "scan.nii.gz").shape == scan.shape
    return folder / "scan.nii.gz"
