"""Files through napari's own doors: opened by the plugin manager, saved by the layer list."""

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
import torch
from monai.data.meta_tensor import MetaTensor
from napari.components import ViewerModel
from npe2 import PluginManager, PluginManifest

import medrl_napari
from medrl.errors import MedrlError
from medrl.trajectory import AgentPath, Trajectory, read_trajectory, write_trajectory
from medrl.volume.points import read_points, write_curves, write_markups
from medrl.volume.read import write_nifti
from medrl_napari import readers, writers
from medrl_napari.readers import get_reader, holds_labels, read_layers
from medrl_napari.scans import KEY, add, frame_of_viewer
from medrl_napari.space import STRAIGHT

OBLIQUE = (30.0, -12.0, 7.0)


@pytest.fixture
def viewer(monkeypatch):
    """The viewer that is open, without a window."""
    model = ViewerModel()
    monkeypatch.setattr("napari.current_viewer", lambda: model)
    return model


def opened(viewer, path):
    """The layers of a file, as napari opens it with the plugin."""
    reader = get_reader(str(path))
    return [add(viewer, layer) for layer in reader(str(path)) if layer[0] is not None]


def saved(layer, write, path):
    """The file, as napari saves a layer with a writer of the plugin."""
    data, meta, _ = layer.as_layer_data_tuple()
    assert write(str(path), data, meta) == [str(path)]
    return path


def write_itk(path, scan):
    """Write a scan by SimpleITK, in LPS, to any of its formats."""
    flip = np.diag([-1.0, -1.0, 1.0])
    matrix = flip @ np.asarray(scan.affine)[:3, :3]
    spacing = np.linalg.norm(matrix, axis=0)
    image = sitk.GetImageFromArray(scan.numpy()[0].T)
    image.SetSpacing(spacing.tolist())
    image.SetDirection((matrix / spacing).ravel().tolist())
    image.SetOrigin((flip @ np.asarray(scan.affine)[:3, 3]).tolist())
    sitk.WriteImage(image, str(path))


def test_the_manifest_is_valid_and_all_it_names_is_there():
    from pathlib import Path

    manifest = PluginManifest.from_file(Path(medrl_napari.__file__).parent / "napari.yaml")
    manifest.validate_imports()
    widgets = {widget.display_name for widget in manifest.contributions.widgets}
    assert widgets == {
        "Detect landmarks",
        "Segment with seeds",
        "Localize organs",
        "Register scans",
        "Align scan",
        "Carry outlines",
        "Track objects",
        "Agents of any system",
        "Orthogonal views",
    }


def test_napari_finds_the_plugin_where_medrl_is_installed():
    manager = PluginManager()
    manager.discover()
    assert "medrl" in manager
    for name in ("a.nii.gz", "a.NRRD", "a.mha", "a.mrk.json", "a.trajectory.json", "a.tfm"):
        found = {reader.plugin_name for reader in manager.iter_compatible_readers(name)}
        assert "medrl" in found, name
    assert not {r.plugin_name for r in manager.iter_compatible_readers("a.png")} & {"medrl"}


@pytest.mark.parametrize("ending", ["nii.gz", "nrrd", "mha"])
@pytest.mark.parametrize("turn", [(0.0, 0.0, 0.0), OBLIQUE])
def test_a_scan_opens_where_it_lies(viewer, make_scan, tmp_path, ending, turn):
    scan = make_scan("LPS", turn_deg=turn)
    write_itk(tmp_path / f"head.{ending}", scan)
    (layer,) = opened(viewer, tmp_path / f"head.{ending}")
    assert layer.name == "head"
    voxel = (4, 9, 17)
    where = np.argwhere(np.isclose(layer.data, scan[0][voxel].item()))[0]
    world = frame_of_viewer(viewer).to_world(layer.data_to_world(where))
    truth = nib.affines.apply_affine(np.asarray(scan.affine), voxel)
    np.testing.assert_allclose(world, truth, atol=1e-3)


def test_a_dicom_folder_opens(viewer, data_root):
    folder = data_root / "body_ct_mr" / "example_ct_dicom"
    (layer,) = opened(viewer, folder)
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(folder)))
    image = reader.Execute()
    corner = np.array(image.TransformIndexToPhysicalPoint((2, 3, 4))) * (-1, -1, 1)
    voxel = layer.world_to_data(frame_of_viewer(viewer).to_napari(corner))
    assert layer.data[tuple(np.rint(voxel).astype(int))] == image[2, 3, 4]


def test_a_folder_of_several_series_opens_as_several_layers(viewer, data_root, tmp_path):
    files = sorted((data_root / "body_ct_mr" / "example_ct_dicom").iterdir())[:8]
    for number, file in enumerate(files):
        dataset = pydicom.dcmread(file)
        dataset.SeriesInstanceUID = "1.2.3" if number < 5 else "1.2.4"
        dataset.SeriesDescription = "large" if number < 5 else "small"
        dataset.save_as(tmp_path / f"{number}.dcm")
    lone = pydicom.dcmread(files[0])
    lone.SeriesInstanceUID = "1.2.5"
    lone.save_as(tmp_path / "scout.dcm")
    with pytest.warns(UserWarning, match=r"series .*: .*one DICOM slice"):
        layers = opened(viewer, tmp_path)
    assert [(layer.name, layer.data.shape[0], layer.visible) for layer in layers] == [
        ("large", 5, True),
        ("small", 3, False),
    ]


@pytest.mark.parametrize("orientation", ["RAS", "LPS", "SLA"])
@pytest.mark.parametrize("turn", [(0.0, 0.0, 0.0), OBLIQUE])
def test_a_drawn_mask_is_saved_voxel_for_voxel(viewer, make_scan, tmp_path, orientation, turn):
    scan = make_scan(orientation, turn_deg=turn)
    write_nifti(tmp_path / "scan.nii.gz", scan)
    (image,) = opened(viewer, tmp_path / "scan.nii.gz")
    # As napari's own "new labels" button makes them: they know nothing of the scan.
    labels = viewer.add_labels(
        np.zeros(image.data.shape, dtype=np.uint8), scale=image.scale, translate=image.translate
    )
    drawn = {(5, 6, 7): 1, (20, 30, 3): 2, (0, 0, 0): 3}
    for voxel, value in drawn.items():
        world = nib.affines.apply_affine(np.asarray(scan.affine), voxel)
        at = labels.world_to_data(frame_of_viewer(viewer).to_napari(world))
        labels.data[tuple(np.rint(at).astype(int))] = value
    back = nib.load(saved(labels, writers.write_labels, tmp_path / "mask.nii.gz"))
    truth = np.zeros(scan.shape[1:], dtype=np.uint8)
    for voxel, value in drawn.items():
        truth[voxel] = value
    np.testing.assert_array_equal(np.asarray(back.dataobj), truth)
    np.testing.assert_allclose(back.affine, nib.load(tmp_path / "scan.nii.gz").affine, atol=1e-5)
    assert back.get_data_dtype() == np.uint8


def test_a_drawn_mask_lies_on_a_scan_with_two_forms(
    viewer, make_scan, tmp_path, with_two_forms, lies_on
):
    write_nifti(tmp_path / "scan.nii", make_scan("LPS"))
    with_two_forms(tmp_path / "scan.nii")
    with pytest.warns(UserWarning, match="sform .* and qform .* disagree"):
        (image,) = opened(viewer, tmp_path / "scan.nii")
    labels = viewer.add_labels(
        np.ones(image.data.shape, dtype=np.uint8), scale=image.scale, translate=image.translate
    )
    saved(labels, writers.write_labels, tmp_path / "mask.nii.gz")
    lies_on(tmp_path / "mask.nii.gz", tmp_path / "scan.nii")


def test_a_picked_point_of_an_oblique_scan_is_saved_where_it_is(viewer, make_scan, tmp_path):
    scan = make_scan("PIR", turn_deg=OBLIQUE)
    write_nifti(tmp_path / "scan.nii.gz", scan)
    (image,) = opened(viewer, tmp_path / "scan.nii.gz")
    truth = nib.affines.apply_affine(np.asarray(scan.affine), (7.0, 8.0, 9.0))
    voxel = np.argwhere(np.isclose(image.data, scan[0][7, 8, 9].item()))[0]
    points = viewer.add_points([image.data_to_world(voxel)], features={"name": ["nasion"]})
    path = saved(points, writers.write_points, tmp_path / "points.mrk.json")
    np.testing.assert_allclose(read_points(path)["nasion"], truth, atol=0.01)
    assert json.loads(path.read_text())["markups"][0]["coordinateSystem"] == "LPS"
    (again,) = opened(viewer, path)
    np.testing.assert_allclose(again.data, points.data, atol=1e-4)


def test_a_mask_with_a_time_axis_is_saved_as_one(viewer, make_scan, tmp_path):
    scan = make_scan()
    write_nifti(tmp_path / "scan.nii", scan)
    (image,) = opened(viewer, tmp_path / "scan.nii")
    data = np.zeros((3, *image.data.shape), dtype=np.uint8)
    data[1, 2, 3, 4], data[2, 5, 6, 7] = 1, 2
    settings = {"scale": (1, *image.scale), "translate": (0, *image.translate)}
    labels = viewer.add_labels(data, **settings)
    back = nib.load(saved(labels, writers.write_labels, tmp_path / "mask.nii"))
    assert sorted(np.unique(np.asarray(back.dataobj))) == [0, 1, 2]


def test_labels_beyond_a_byte_keep_their_numbers(viewer, tmp_path):
    data = np.zeros((4, 5, 6), dtype=np.int32)
    data[1, 2, 3] = 70000
    path = saved(viewer.add_labels(data), writers.write_labels, tmp_path / "mask.nii")
    back = nib.load(path)
    assert int(np.asarray(back.dataobj).max()) == 70000
    # Without a scan napari's own place: (z, y, x) towards feet, back and left.
    where = np.argwhere(np.asarray(back.dataobj))[0]
    np.testing.assert_allclose(nib.affines.apply_affine(back.affine, where), (-3, -2, -1))


def test_a_scan_is_saved_with_its_geometry(viewer, make_scan, tmp_path):
    scan = make_scan("PSL", turn_deg=OBLIQUE)
    write_nifti(tmp_path / "scan.nii.gz", scan)
    (image,) = opened(viewer, tmp_path / "scan.nii.gz")
    back = nib.load(saved(image, writers.write_scan, tmp_path / "copy.nii.gz"))
    np.testing.assert_array_equal(back.get_fdata(dtype=np.float32), scan.numpy()[0])
    np.testing.assert_allclose(back.affine, np.asarray(scan.affine), atol=1e-4)


def test_masks_open_as_labels_and_images_do_not(viewer, make_scan, tmp_path):
    scan = make_scan()
    mask = MetaTensor((scan.as_tensor() > 90).float() * 3, affine=scan.affine)
    write_nifti(tmp_path / "mask.nii.gz", mask, dtype=np.uint8)
    (layer,) = opened(viewer, tmp_path / "mask.nii.gz")
    assert type(layer).__name__ == "Labels"
    assert np.count_nonzero(layer.data) == int((mask > 0).sum())
    assert not holds_labels(scan)
    assert not holds_labels(MetaTensor(scan.as_tensor().round(), affine=scan.affine))
    assert holds_labels(MetaTensor(torch.zeros(1, 9, 9, 9), affine=scan.affine))


def test_curves_and_points_of_one_file(viewer, tmp_path):
    write_curves(tmp_path / "path.mrk.json", {"way": np.array([[0, 0, 0], [10, 20, 30.0]])})
    (curve,) = opened(viewer, tmp_path / "path.mrk.json")
    np.testing.assert_allclose(curve.data[0], [[0, 0, 0], [-30, -20, -10]])
    write_markups(tmp_path / "two.mrk.json", {"a": (1, 2, 3), "b": (4, 5, 6)})
    (points,) = opened(viewer, tmp_path / "two.mrk.json")
    assert list(points.features["name"]) == ["a", "b"]
    np.testing.assert_allclose(points.data, [[-3, -2, -1], [-6, -5, -4]])


def test_older_slicer_points(viewer, tmp_path):
    lines = (
        "# Markups fiducial file version = 4.10",
        "# CoordinateSystem = 0",
        "# columns = id,x,y,z,ow,ox,oy,oz,vis,sel,lock,label,desc,associatedNodeID",
        "f0,1,2,3,0,0,0,1,1,1,0,AC,,",
    )
    (tmp_path / "old.fcsv").write_text("\n".join(lines) + "\n")
    (points,) = opened(viewer, tmp_path / "old.fcsv")
    np.testing.assert_allclose(points.data, [[-3, -2, -1]])


def test_a_trajectory_opens_replays_and_is_saved_again(viewer, tmp_path):
    steps = np.arange(12.0).reshape(4, 3)
    path = AgentPath("AC", 0, steps, np.array([4.0, 4, 2, 1]), np.zeros(4, int), np.ones(4))
    write_trajectory(tmp_path / "a.trajectory.json", Trajectory("landmark", (path,)))
    opened(viewer, tmp_path / "a.trajectory.json")
    tracks = next(layer for layer in viewer.layers if type(layer).__name__ == "Tracks")
    assert viewer.dims.nsteps[0] == 4
    back = saved(tracks, writers.write_agents, tmp_path / "b.trajectory.json")
    np.testing.assert_array_equal(read_trajectory(back).agents[0].positions_world, steps)
    with pytest.raises(MedrlError, match="agents"):
        writers.write_agents(str(tmp_path / "c.trajectory.json"), tracks.data, {"name": "x"})


def test_a_trajectory_of_the_first_edition_opens(viewer):
    folder = Path(__file__).parents[1] / "trajectory" / "data"
    opened(viewer, folder / "first_edition.trajectory.json")
    tracks = next(layer for layer in viewer.layers if type(layer).__name__ == "Tracks")
    assert len(tracks.data) == 5
    assert viewer.dims.nsteps[0] == 3


def test_later_scans_come_into_the_frame_of_the_first(viewer, make_scan, tmp_path):
    oblique, straight = make_scan(turn_deg=OBLIQUE), make_scan(seed=1)
    for name, scan in (("first", oblique), ("second", straight)):
        write_nifti(tmp_path / f"{name}.nii.gz", scan)
    layers = read_layers([str(tmp_path / "first.nii.gz"), str(tmp_path / "second.nii.gz")])
    first, second = (add(viewer, layer).metadata[KEY] for layer in layers)
    assert not first.resampled
    assert second.resampled
    assert second.frame is first.frame is frame_of_viewer(viewer)
    assert first.frame is not STRAIGHT


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.nii.gz", b"not a scan"),
        ("a.mrk.json", b"{"),
        ("a.trajectory.json", b"[]"),
        ("a.tfm", b"x"),
    ],
)
def test_damaged_files_are_refused_in_one_line(viewer, tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(MedrlError) as error:
        readers.read_layers(str(tmp_path / name))
    assert name in str(error.value)
    assert "\n" not in str(error.value)
    assert not viewer.layers


def test_other_files_are_left_to_others(tmp_path):
    assert get_reader(str(tmp_path / "a.png")) is None
    assert get_reader([]) is None
