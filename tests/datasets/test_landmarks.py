"""Landmarks of the data sets, derived again from labels or compared with what is published."""

import csv
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
from nibabel.affines import apply_affine

from medrl_datasets import (
    afids_templates,
    ct_lung_pair,
    fetal_atlas_t2,
    ixi_brain_t1,
    mouse_skull_ct,
)
from medrl_datasets import msd_hippocampus as hippocampus


@pytest.mark.parametrize("split", ["train", "val", "holdout"])
def test_ixi_centroids_are_those_of_the_label_maps(split: str, data_root: Path) -> None:
    root = data_root / "ixi_brain_t1"
    with (root / "labels.csv").open(newline="") as stream:
        value = {row["Name"]: int(row["Index"]) for row in csv.DictReader(stream)}
    landmarks = ixi_brain_t1.DATASET.landmarks(root)
    for subject in ixi_brain_t1.DATASET.splits(root)[split][:3]:
        label = nib.load(root / "labels" / f"{subject}.nii.gz")
        array = np.asarray(label.dataobj)
        assert set(landmarks[subject]) == set(ixi_brain_t1.DATASET.card.landmarks)
        for landmark, region in ixi_brain_t1.CENTROIDS.items():
            voxels = np.argwhere(array == value[region])
            centroid = apply_affine(label.affine, voxels).mean(axis=0)
            assert np.linalg.norm(centroid - landmarks[subject][landmark]) < 0.1, landmark


def test_ixi_names_left_and_right_as_the_world_does(data_root: Path) -> None:
    for points in ixi_brain_t1.DATASET.landmarks(data_root / "ixi_brain_t1").values():
        for name in points:
            if "_L_" in name:
                assert points[name][0] < points[name.replace("_L_", "_R_")][0]


def test_afids_points_carry_anatomical_names(data_root: Path) -> None:
    landmarks = afids_templates.DATASET.landmarks(data_root / "afids_templates")
    for points in landmarks.values():
        assert tuple(points) == afids_templates.LANDMARKS
        assert 20 < np.linalg.norm(points["AC"] - points["PC"]) < 35
    np.testing.assert_allclose(
        landmarks["Colin27_T1w_ch2"]["AC"], [0.547527528125, 4.007721875, -5.85731125]
    )


def test_lung_points_lie_in_the_scan_as_simpleitk_places_it(data_root: Path) -> None:
    root = data_root / "ct_lung_pair"
    landmarks = ct_lung_pair.DATASET.landmarks(root)
    distances = [
        np.linalg.norm(landmarks["baseline"][p] - landmarks["followup"][p])
        for p in ct_lung_pair.DATASET.card.landmarks
    ]
    assert np.mean(distances) == pytest.approx(35.3, abs=0.1)
    for case in ct_lung_pair.DATASET.datalist(root)["test"]:
        mask = sitk.ReadImage(case["label"])
        inside = [
            mask[mask.TransformPhysicalPointToIndex((-x, -y, z))]
            for x, y, z in landmarks[case["subject"]].values()
        ]
        assert np.mean(np.array(inside) > 0) > 0.9


def test_fetal_landmarks_lie_in_the_brain(data_root: Path) -> None:
    root = data_root / "fetal_atlas_t2"
    for subject, points in fetal_atlas_t2.DATASET.landmarks(root).items():
        tissue = nib.load(root / subject / "parcellation.nii.gz")
        array = np.asarray(tissue.dataobj)
        for name, point in points.items():
            i, j, k = np.round(apply_affine(np.linalg.inv(tissue.affine), point)).astype(int)
            assert array[i - 1 : i + 2, j - 1 : j + 2, k - 1 : k + 2].any(), name
            if name.endswith("_L"):
                assert point[0] < points[name.removesuffix("_L") + "_R"][0]


def test_hippocampus_points_of_a_bar() -> None:
    mask = np.zeros((5, 20, 5), dtype=np.uint8)
    mask[2, 2:8, 2] = hippocampus.POSTERIOR
    mask[2, 8:18, 2] = hippocampus.ANTERIOR
    affine = np.diag([2.0, 1.0, 1.0, 1.0])
    affine[:3, 3] = (10, -5, 3)
    points = hippocampus.points_of(mask, affine)
    assert set(points) == set(hippocampus.LANDMARKS)
    expected = {
        "anterior_centroid": 7.5,
        "anterior_tip": 11.5,
        "hippocampus_centroid": 4.5,
        "posterior_centroid": -0.5,
        "posterior_tip": -2.5,
    }
    for name, y in expected.items():
        np.testing.assert_allclose(points[name], [14, y, 5])


def test_mouse_skull_points_lie_where_nibabel_places_their_voxels(data_root: Path) -> None:
    root = data_root / "mouse_skull_ct"
    landmarks = mouse_skull_ct.DATASET.landmarks(root)
    assert len(landmarks) == 40
    with (root / "landmarks.csv").open(newline="") as stream:
        rows = [row for row in csv.DictReader(stream) if row["specimen"] == "AKR_J"]
    affine = nib.load(mouse_skull_ct.DATASET.files(root, "AKR_J")["image"]).affine
    for row in rows:
        place = apply_affine(affine, [float(row[axis]) for axis in "ijk"])
        found = landmarks["AKR_J"][f"{int(row['landmark']):02d}"]
        assert np.linalg.norm(place - found) < 0.01
