"""What is a label map and what is an image, and what the regions of a label map are called."""

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from scipy.ndimage import gaussian_filter, zoom
from scipy.spatial import cKDTree

from medrl.volume.label_names import find_label_names, read_label_table
from medrl.volume.labels import judge_labels, stated_as_labels

SHAPE = (40, 48, 36)


def parcels(count: int, *, ids=None, seed: int = 0) -> np.ndarray:
    """A ball cut into regions: each voxel belongs to the nearest of some random centers."""
    rng = np.random.default_rng(seed)
    grid = np.stack(np.meshgrid(*map(np.arange, SHAPE), indexing="ij"), -1).astype(float)
    centers = rng.uniform(0, SHAPE, (count, 3))
    found = cKDTree(centers).query(grid)[1]
    ids = np.arange(1, count + 1) if ids is None else np.asarray(ids)
    inside = ((grid - np.array(SHAPE) / 2) ** 2).sum(-1) < 17**2
    return np.where(inside, ids[found], 0)


def tissue(seed: int = 0) -> np.ndarray:
    """Smooth anatomy with noise, 0 to 1, air around it."""
    rng = np.random.default_rng(seed)
    smooth = gaussian_filter(rng.normal(size=SHAPE), 3)
    smooth = (smooth - smooth.min()) / np.ptp(smooth)
    return np.where(parcels(1) > 0, smooth, 0) + rng.uniform(0, 0.02, SHAPE)


@pytest.mark.parametrize(
    "volume",
    [
        parcels(1),
        parcels(5),
        parcels(60),
        parcels(120),
        parcels(100, ids=1000 + 137 * np.arange(100)),  # as FreeSurfer's, up to 14175 and beyond
        parcels(90, ids=576073732 + 10007 * np.arange(90)),  # as the Allen atlas'
        parcels(90).astype(np.float32),
        np.zeros(SHAPE, np.uint8),
        np.ones(SHAPE, np.float32),
    ],
)
def test_label_maps_are_known(volume: np.ndarray) -> None:
    assert judge_labels(volume).labels


@pytest.mark.parametrize(
    ("levels", "kind"),
    [
        *((levels, kind) for levels in (60, 200, 255) for kind in (np.uint8, np.int16, np.float32)),
        (4000, np.int16),
        (4000, np.float32),
    ],
)
def test_images_of_whole_numbers_are_no_labels(levels: int, kind: type) -> None:
    assert not judge_labels((tissue() * levels / tissue().max()).astype(kind)).labels


def test_a_windowed_ct_is_no_label_map() -> None:
    """Its bone is one large region of 255."""
    image = np.clip(tissue() * 900, 0, 255).astype(np.uint8)
    assert (image == 255).sum() > 0.5 * (parcels(1) > 0).sum()
    assert not judge_labels(image).labels


def test_other_images_are_no_labels() -> None:
    image = tissue()
    assert not judge_labels(image.astype(np.float32)).labels
    assert not judge_labels((image * 1e-4).astype(np.float32)).labels  # not few whole numbers: 0
    hounsfield = np.rint(image * 2000 - 1000).astype(np.int16)
    judged = judge_labels(hounsfield)
    assert not judged.labels
    assert "below zero" in judged.reason
    # A name does not make labels of it.
    assert not judge_labels(np.rint(image * 255), stated="its name").labels


def test_points_of_single_voxels_are_labels() -> None:
    volume = np.zeros(SHAPE, np.int16)
    rng = np.random.default_rng(0)
    for number in range(1, 46):
        volume[tuple(rng.integers(0, SHAPE))] = number
    assert judge_labels(volume).labels


def test_labels_that_a_slope_has_spread_are_labels(tmp_path: Path) -> None:
    image = nib.Nifti1Image(parcels(90).astype(np.float64), np.eye(4))
    image.set_data_dtype(np.int16)
    nib.save(image, tmp_path / "a.nii.gz")
    values = nib.load(tmp_path / "a.nii.gz").get_fdata(dtype=np.float32)
    assert not np.array_equal(values, np.rint(values))
    assert judge_labels(values).labels


def test_a_name_or_a_header_decides_where_regions_are_tiny() -> None:
    tiny = zoom(parcels(120), 0.22, order=0)
    assert not judge_labels(tiny).labels
    assert judge_labels(tiny, stated="its name").labels


@pytest.mark.parametrize(
    ("name", "stated"),
    [
        ("sub-01_space-T1w_dseg.nii.gz", "its name"),
        ("sub-ct_seg-vert_label-22_msk.nii.gz", "its name"),
        ("case-label.nii.gz", "its name"),
        ("aparc+aseg.nii.gz", "its name"),
        ("annotation_25.nrrd", "its name"),
        ("a.seg.nrrd", "its name"),
        ("sub-ct_label-22_ct.nii.gz", ""),
        ("sub-01_probseg.nii.gz", ""),
        ("parcel_T1w.nii.gz", ""),
        ("unmasked.nii.gz", ""),
    ],
)
def test_what_a_name_says(tmp_path: Path, name: str, stated: str) -> None:
    (tmp_path / name).write_bytes(b"")
    assert stated_as_labels(tmp_path / name) == stated


def test_what_an_intent_says(tmp_path: Path) -> None:
    image = nib.Nifti1Image(np.zeros((4, 4, 4), np.uint8), np.eye(4))
    image.header.set_intent("label")
    nib.save(image, tmp_path / "a.nii.gz")
    assert stated_as_labels(tmp_path / "a.nii.gz") == "its header"


def test_real_files(data_root: Path) -> None:
    """One of every set; all thousand were tried when the limits were set."""
    labels = (
        *("ixi_brain_t1/labels", "msd_hippocampus/labels", "spine_mr_lumbar/labels"),
        *("sts_ct_pet/pet_gtv",),
    )
    images = (
        *("ixi_brain_t1/t1", "msd_hippocampus/images", "spine_mr_lumbar/images"),
        *("sts_ct_pet/pet", "sts_ct_pet/ct", "mouse_skull_ct/images"),
    )
    for folder in (*labels, *images):
        file = sorted((data_root / folder).glob("*.nii.gz"))[0]
        volume = np.asanyarray(nib.load(file).dataobj)
        assert judge_labels(volume).labels == (folder in labels), folder


# Names ------------------------------------------------------------------------------------------

NAMES = {1: "spleen", 2: "left kidney", 14175: "wm_rh_S_temporal"}
RED = (1.0, 0.0, 0.0)
TABLES = {
    "map.ctbl": "# Color\n0 Background 0 0 0 0\n1 spleen 255 0 0 255\n2 left_kidney 0 255 0 255\n"
    "14175 wm_rh_S_temporal 1 2 3 255\n",
    "FreeSurferColorLUT.txt": "#No. Label Name:   R G B A\n\n0  Unknown  0 0 0 0\n"
    "1     spleen           255 0 0 0\n2  left-kidney  0 1 2 0\n14175 wm_rh_S_temporal 9 9 9 0\n",
    "map.label": "################\n# ITK-SnAP Label Description File\n"
    '    0     0    0    0        0  0  0    "Clear Label"\n'
    '    1   255    0    0        1  1  1    "spleen"\n'
    '    2     0  255    0        1  1  1    "left kidney"\n'
    '14175     0  255    0        1  1  1    "wm_rh_S_temporal"\n',
    "map_dseg.tsv": "index\tname\tabbreviation\tcolor\n1\tspleen\tSPL\t#ff0000\n"
    "2\tleft kidney\tLK\t#00ff00\n14175\twm_rh_S_temporal\tX\t#010203\n",
    "dseg.tsv": "index\tname\n1\tspleen\n2\tleft kidney\n14175\twm_rh_S_temporal\n",
    "labels.csv": "Index,Code,Name\n1,MUSE_1,spleen\n2,MUSE_2,left kidney\n"
    "14175,MUSE_3,wm_rh_S_temporal\n",
    "structure_tree.csv": "id,atlas_id,name,acronym,color_hex_triplet\n"
    '1,-1,spleen,SPL,FF0000\n2,0,"left kidney",LK,00FF00\n14175,5,wm_rh_S_temporal,X,010203\n',
    "slicer.labels.csv": "LabelValue,Name,Color_R,Color_G,Color_B,Color_A\n1,spleen,255,0,0,255\n"
    "2,left kidney,0,255,0,255\n14175,wm_rh_S_temporal,1,2,3,255\n",
    "labels.txt": "1: spleen\n2: left kidney\n14175: wm_rh_S_temporal\n",
    "map.json": json.dumps({"spleen": 1, "left kidney": 2, "wm_rh_S_temporal": 14175}),
    "labels.json": json.dumps({"1": "spleen", "2": "left kidney", "14175": "wm_rh_S_temporal"}),
    "dataset.json": json.dumps(
        {
            "name": "nnU-Net",
            "channel_names": {"0": "CT"},
            "labels": {"background": 0, "spleen": 1, "left kidney": 2, "wm_rh_S_temporal": 14175},
            "numTraining": 7,
        }
    ),
    "class_map.json": json.dumps(
        {"labels": {"0": "bg", "1": "spleen", "2": "left kidney", "14175": "wm_rh_S_temporal"}}
    ),
    "label_names.json": json.dumps(
        [{"id": n, "name": name, "rgb": [255, 0, 0]} for n, name in NAMES.items()]
    ),
}
COLORED = {name for name in TABLES if name.startswith(("map.ctbl", "Free", "map.label", "map_"))}
COLORED |= {"structure_tree.csv", "slicer.labels.csv", "label_names.json"}


@pytest.mark.parametrize("table", TABLES)
def test_tables_beside_a_map(tmp_path: Path, table: str) -> None:
    (tmp_path / table).write_text(TABLES[table])
    (tmp_path / "notes.txt").write_text("1 this is no table\n")
    found = find_label_names(tmp_path / "map.nii.gz", [0, 1, 2, 14175])
    assert found is not None
    assert found.source.name == table
    names = {n: found.names[n].replace("_", " ").replace("-", " ") for n in NAMES}
    assert names == {n: name.replace("_", " ") for n, name in NAMES.items()}
    assert (found.colors.get(1) == RED) == (table in COLORED)


def test_names_in_a_folder_above_are_found(tmp_path: Path) -> None:
    (tmp_path / "labelsTr").mkdir()
    (tmp_path / "dataset.json").write_text(TABLES["dataset.json"])
    found = find_label_names(tmp_path / "labelsTr" / "case_001.nii.gz", [1, 2])
    assert found is not None
    assert found.names[2] == "left kidney"


def test_names_of_another_map_are_not_taken(tmp_path: Path) -> None:
    (tmp_path / "labels.csv").write_text(TABLES["labels.csv"])
    assert find_label_names(tmp_path / "map.nii.gz", [5, 6, 7, 8, 1]) is None
    assert find_label_names(tmp_path / "map.nii.gz", []) is None


def test_the_own_table_comes_first(tmp_path: Path) -> None:
    (tmp_path / "labels.csv").write_text(TABLES["labels.csv"])
    (tmp_path / "map.json").write_text(json.dumps({"liver": 1, "stomach": 2}))
    found = find_label_names(tmp_path / "map.nii.gz", [1, 2])
    assert found is not None
    assert found.names[1] == "liver"


def test_names_of_freesurfer_where_it_is_installed(tmp_path: Path, monkeypatch) -> None:
    home, work = tmp_path / "freesurfer", tmp_path / "a" / "b" / "c" / "d"
    home.mkdir()
    work.mkdir(parents=True)
    (home / "FreeSurferColorLUT.txt").write_text(TABLES["FreeSurferColorLUT.txt"])
    assert find_label_names(work / "aparc+aseg.nii.gz", [1, 14175]) is None
    monkeypatch.setenv("FREESURFER_HOME", str(home))
    found = find_label_names(work / "aparc+aseg.nii.gz", [1, 14175])
    assert found is not None
    assert found.names[14175] == "wm_rh_S_temporal"


def test_names_inside_the_file(tmp_path: Path) -> None:
    table = (
        "<?xml version='1.0'?><CaretExtension><VolumeInformation Index='0'><LabelTable>"
        "<Label Key='1' Red='1.0' Green='0.0' Blue='0.0' Alpha='1'><![CDATA[spleen]]></Label>"
        "<Label Key='2' Red='0.0' Green='1.0' Blue='0.0' Alpha='1'><![CDATA[left kidney]]></Label>"
        "</LabelTable></VolumeInformation></CaretExtension>"
    )
    image = nib.Nifti1Image(parcels(2).astype(np.uint8), np.eye(4))
    image.header.extensions.append(nib.nifti1.Nifti1Extension(0, table.encode()))
    nib.save(image, tmp_path / "a.nii.gz")
    found = find_label_names(tmp_path / "a.nii.gz", [0, 1, 2])
    assert found is not None
    assert (found.names[2], found.colors[1]) == ("left kidney", RED)

    head = (
        "NRRD0004\ntype: uchar\ndimension: 3\nsizes: 2 2 2\nencoding: raw\n"
        "Segment0_Name:=spleen\nSegment0_LabelValue:=1\nSegment0_Color:=1 0 0\nSegment0_Layer:=0\n"
        "Segment1_Name:=left kidney\nSegment1_LabelValue:=2\nSegment1_Layer:=0\n\n"
    )
    (tmp_path / "a.seg.nrrd").write_bytes(head.encode() + bytes([0, 1, 2, 0, 0, 1, 2, 0]))
    found = find_label_names(tmp_path / "a.seg.nrrd", [0, 1, 2])
    assert found is not None
    assert (found.names[2], found.colors[1]) == ("left kidney", RED)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\xff\xfe\x00",
        b"{",
        b"[[[",
        b'{"labels": null}',
        b'[{"id": []}]',
        b"index\tname\n",
        b'"',
        b"1" * 400,
        b'{"labels": {"a": [1, 2], "b": {}}}',
        b"[" * 100_000,
    ],
)
@pytest.mark.parametrize("ending", ["csv", "tsv", "json", "txt", "ctbl"])
def test_damaged_tables_are_passed_over(tmp_path: Path, ending: str, content: bytes) -> None:
    (tmp_path / f"labels.{ending}").write_bytes(content)
    assert find_label_names(tmp_path / "map.nii.gz", [1, 2]) is None


def test_large_ids_keep_all_digits(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("id,name\n9007199254740993,root\n312782574,area\n")
    assert read_label_table(tmp_path / "a.csv")[9007199254740993][0] == "root"
