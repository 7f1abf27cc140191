"""Label maps of other programs: opened as labels, with every number and its name."""

import json

import nibabel as nib
import numpy as np
import pytest
from napari.components import ViewerModel

from medrl.errors import MedrlError
from medrl_napari import writers
from medrl_napari.label_maps import show_as_images, show_as_labels
from medrl_napari.readers import read_layers
from medrl_napari.scans import add

AFFINE = np.diag([-2.0, 2.0, 2.5, 1.0])


@pytest.fixture
def viewer(monkeypatch):
    """The viewer that is open, without a window."""
    model = ViewerModel()
    monkeypatch.setattr("napari.current_viewer", lambda: model)
    return model


def opened(viewer, path):
    return [add(viewer, layer) for layer in read_layers(str(path)) if layer[0] is not None]


def blocks(ids) -> np.ndarray:
    """A map of small blocks of each id, in turn, with a margin of background."""
    cells = np.resize(np.asarray(ids, dtype=np.int64), (5, 6, 5))
    return np.pad(np.kron(cells, np.ones((4, 4, 4), np.int64)), 3)


def saved(path, array, dtype):
    nib.save(nib.Nifti1Image(array.astype(dtype), AFFINE, dtype=dtype), path)
    return path


FREESURFER = 1000 + np.arange(100) * 133
ALLEN = 312782574 + np.arange(100) * 2654435


@pytest.mark.parametrize(
    ("ids", "stored", "shown"),
    [
        (np.arange(1, 118), np.uint8, np.uint8),  # TotalSegmentator
        (FREESURFER, np.int32, np.int32),
        (FREESURFER, np.float32, np.int32),
        (ALLEN, np.uint32, np.int32),
        (ALLEN * 100 + 1, np.int64, np.int64),
    ],
)
def test_every_number_is_shown(viewer, tmp_path, ids, stored, shown):
    array = blocks(ids)
    (layer,) = opened(viewer, saved(tmp_path / "map.nii.gz", array, stored))
    assert type(layer).__name__ == "Labels"
    assert layer.data.dtype == shown
    numbers, counts = np.unique(np.asarray(layer.data), return_counts=True)
    np.testing.assert_array_equal([numbers, counts], np.unique(array, return_counts=True))
    back = tmp_path / "back.nii.gz"
    data, meta, _ = layer.as_layer_data_tuple()
    assert writers.write_labels(str(back), data, meta) == [str(back)]
    np.testing.assert_array_equal(np.asanyarray(nib.load(back).dataobj), array)


def test_names_are_told_under_the_mouse(viewer, tmp_path):
    (tmp_path / "FreeSurferColorLUT.txt").write_text(
        "\n".join(f"{n}  region-{n}  {n % 256} 20 {n % 7} 0" for n in FREESURFER)
    )
    (layer,) = opened(viewer, saved(tmp_path / "aparc+aseg.nii.gz", blocks(FREESURFER), np.int32))
    number = int(FREESURFER[42])
    at = np.argwhere(np.asarray(layer.data) == number)[0]
    world = layer.data_to_world(at)
    assert layer.get_status(world, world=True)["value"] == f"{number}; name: region-{number}"
    assert f"region-{number}" in layer._get_tooltip_text(np.asarray(world), world=True)
    np.testing.assert_allclose(
        layer.get_color(number)[:3], [number % 256 / 255, 20 / 255, number % 7 / 255], atol=1e-3
    )
    assert layer.get_color(0) is None


def test_no_table_no_names(viewer, tmp_path):
    (layer,) = opened(viewer, saved(tmp_path / "map.nii.gz", blocks(FREESURFER), np.int32))
    assert layer.features.shape[1] == 0


def test_the_organs_of_totalsegmentator_have_their_names(viewer, data_root):
    (layer,) = opened(viewer, data_root / "body_ct_mr" / "example_seg_fast_force_split.nii.gz")
    named = dict(zip(layer.features["index"], layer.features["name"], strict=True))
    assert (named[1], named[5], len(named)) == ("spleen", "liver", 61)
    assert type(layer.colormap).__name__ == "DirectLabelColormap"


def test_regions_of_ixi_have_the_names_of_the_folder_above(viewer, data_root):
    file = sorted((data_root / "ixi_brain_t1" / "labels").iterdir())[0]
    (layer,) = opened(viewer, file)
    named = dict(zip(layer.features["index"], layer.features["name"], strict=True))
    assert named[4] == "3rdVentricle"


def test_a_ct_of_few_shades_is_an_image(viewer, data_root):
    """Sixty-four shades, in steps of four."""
    (layer,) = opened(viewer, data_root / "mouse_skull_ct" / "images" / "CBA_J.nii.gz")
    assert type(layer).__name__ == "Image"


def test_maps_of_several_channels_open_as_labels(viewer, tmp_path):
    two = np.stack([blocks([1]), blocks([3])], axis=-1)
    layers = opened(viewer, saved(tmp_path / "two.nii.gz", two, np.uint8))
    assert [type(layer).__name__ for layer in layers] == ["Labels", "Labels"]
    assert [(layer.name, layer.visible, int(np.max(layer.data))) for layer in layers] == [
        ("two 1", True, 1),
        ("two 2", False, 3),
    ]
    many = np.stack([blocks([n]) for n in range(1, 12)], axis=-1)
    (series,) = opened(viewer, saved(tmp_path / "many.nii.gz", many, np.uint8))
    assert (type(series).__name__, series.data.shape[0]) == ("Labels", 11)


def test_the_user_has_the_last_word(viewer, tmp_path):
    (tmp_path / "map.json").write_text(json.dumps({str(n): f"r{n}" for n in FREESURFER}))
    (layer,) = opened(viewer, saved(tmp_path / "map.nii.gz", blocks(FREESURFER), np.int32))
    before = np.asarray(layer.data).copy()
    viewer.layers.selection = {layer}
    show_as_images(viewer)
    (image,) = viewer.layers
    assert (type(image).__name__, image.name) == ("Image", "map")
    np.testing.assert_array_equal(image.data, before)
    np.testing.assert_array_equal(image.translate, layer.translate)
    viewer.layers.selection = {image}
    show_as_labels(viewer)
    (again,) = viewer.layers
    assert type(again).__name__ == "Labels"
    np.testing.assert_array_equal(again.data, before)
    assert list(again.features["name"]) == [f"r{n}" for n in FREESURFER]


def test_what_is_no_map_is_not_made_one(viewer, make_scan, tmp_path):
    nib.save(nib.Nifti1Image(make_scan().numpy()[0], AFFINE), tmp_path / "scan.nii.gz")
    (image,) = opened(viewer, tmp_path / "scan.nii.gz")
    viewer.layers.selection = {image}
    with pytest.raises(MedrlError, match=r"scan\.nii\.gz: holds values that are no whole numbers"):
        show_as_labels(viewer)
    assert list(viewer.layers) == [image]
    viewer.layers.selection.clear()
    with pytest.raises(MedrlError, match="select"):
        show_as_images(viewer)


def test_a_mask_drawn_on_a_scan_becomes_an_image_of_itself(viewer, make_scan, tmp_path):
    nib.save(nib.Nifti1Image(make_scan().numpy()[0], AFFINE), tmp_path / "scan.nii.gz")
    (scan,) = opened(viewer, tmp_path / "scan.nii.gz")
    drawn = np.zeros(scan.data.shape, np.uint8)
    drawn[3:9, 4:9, 5:9] = 7
    labels = viewer.add_labels(drawn, scale=scan.scale, translate=scan.translate, name="drawn")
    viewer.layers.selection = {labels}
    show_as_images(viewer)
    image = viewer.layers["drawn"]
    assert type(image).__name__ == "Image"
    np.testing.assert_array_equal(image.data, drawn)
    np.testing.assert_allclose(image.translate, scan.translate)


def test_large_numbers_are_drawn_in_the_colors_of_their_table(open_viewer, qapp, tmp_path):
    ids = ALLEN * 100 + 1
    rows = "\n".join(f"{n},area {n},{('FF0000', '00FF00')[k % 2]}" for k, n in enumerate(ids))
    (tmp_path / "structure_tree.csv").write_text(f"id,name,color_hex_triplet\n{rows}\n")
    path = saved(tmp_path / "annotation.nii.gz", blocks(ids), np.int64)
    open_viewer.show()
    for layer in read_layers(str(path)):
        add(open_viewer, layer).opacity = 1
    open_viewer.reset_view()
    qapp.processEvents()
    picture = open_viewer.screenshot(canvas_only=True, flash=False)[..., :3].reshape(-1, 3)
    red, green = (picture == (255, 0, 0)).all(-1), (picture == (0, 255, 0)).all(-1)
    assert min(red.sum(), green.sum()) > 1000
    assert (red | green | (picture == 0).all(-1)).mean() > 0.95
