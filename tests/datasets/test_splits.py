"""Splits and datalists of every data set, against the files themselves."""

import csv
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk

import medrl_datasets
from medrl.errors import MedrlError

WITH_SPLITS = ("ixi_brain_t1", "msd_hippocampus", "spine_mr_lumbar", "sts_ct_pet")
LOCAL = tuple(name for name in medrl_datasets.names() if name != "mni152")


def grid(path: str) -> tuple[tuple[int, ...], np.ndarray]:
    """Shape and geometry as SimpleITK reads them; of a film those of a frame, and how many."""
    if Path(path).is_dir():
        frames = sorted(Path(path).iterdir())
        return (*sitk.ReadImage(str(frames[0])).GetSize(), len(frames)), np.zeros(1)
    image = sitk.ReadImage(path)
    geometry = [*image.GetSpacing(), *image.GetOrigin(), *image.GetDirection()]
    return image.GetSize(), np.array(geometry)


@pytest.mark.parametrize("name", WITH_SPLITS)
def test_splits_are_those_of_the_file_and_disjoint(name: str, data_root: Path) -> None:
    dataset = medrl_datasets.get(name)
    with (data_root / name / "splits.csv").open(newline="") as stream:
        expected = {(row["subject"], row["split"]) for row in csv.DictReader(stream)}
    splits = dataset.splits(data_root / name)
    assert {(s, split) for split, subjects in splits.items() for s in subjects} == expected
    subjects = [subject for group in splits.values() for subject in group]
    assert len(subjects) == len(set(subjects)) == len(expected)


@pytest.mark.parametrize("name", LOCAL)
def test_holdout_is_the_cards_and_never_trained_on(name: str, data_root: Path) -> None:
    dataset = medrl_datasets.get(name)
    root = data_root / name
    card, splits, datalist = dataset.card, dataset.splits(root), dataset.datalist(root)
    assert set(splits["holdout"]) == set(card.holdout)
    trained_on = {case["subject"] for key in ("training", "validation") for case in datalist[key]}
    assert not trained_on & set(card.holdout)
    assert {case["subject"] for case in datalist["test"]} == set(card.holdout)
    for case in datalist["training"] + datalist["validation"]:
        files = [value for key, value in case.items() if key != "subject"]
        assert not [f for f in files for held in card.holdout if held in f]


@pytest.mark.parametrize("name", LOCAL)
def test_every_file_exists_and_labels_share_the_grid(name: str, data_root: Path) -> None:
    datalist = medrl_datasets.get(name).datalist(data_root / name)
    for cases in datalist.values():
        for case in cases:
            paths = [Path(value) for key, value in case.items() if key != "subject"]
            assert all(path.exists() for path in paths)
        for case in cases[:4]:
            for image, label in (("image", "label"), ("pet", "pet_label"), ("image", "subregions")):
                if label in case:
                    (shape, geometry), (other, others) = grid(case[image]), grid(case[label])
                    assert shape == other
                    np.testing.assert_allclose(geometry, others, atol=1e-3)


@pytest.mark.parametrize("name", LOCAL)
def test_local_copy_is_the_one_expected(name: str, data_root: Path) -> None:
    assert medrl_datasets.get(name).verify(data_root / name) == ()


def test_verify_names_what_is_missing_and_what_differs(data_root: Path, tmp_path: Path) -> None:
    source = data_root / "cranium_ct"
    (tmp_path / "copyright").write_bytes((source / "copyright").read_bytes() + b"\n")
    problems = medrl_datasets.get("cranium_ct").verify(tmp_path)
    assert set(problems) == {"differs: copyright", "missing: cranium_ct.nii.gz"}


def test_mni152_is_the_template_that_nilearn_loads() -> None:
    nilearn_datasets = pytest.importorskip("nilearn.datasets", reason="needs the extra samples")
    from medrl_datasets import mni152

    root = mni152.installed_root()
    assert mni152.DATASET.verify(root) == ()
    (case,) = mni152.DATASET.datalist(root)["test"]
    ours, theirs = nib.load(case["image"]), nilearn_datasets.load_mni152_template(resolution=1)
    np.testing.assert_allclose(ours.affine, theirs.affine)
    values = ours.get_fdata()
    np.testing.assert_allclose(values / values.max(), theirs.get_fdata(), atol=1e-6)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("subject,part\na,train\n", "no column split"),
        ("subject,split\nSTS_001,train\n", "held out"),
        ("subject,split\na,train\na,val\n", "twice"),
        ("subject,split\na,test\n", "'test'"),
        ("subject,split\na\n", "too few fields"),
    ],
)
def test_a_broken_split_file_is_refused(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "splits.csv").write_text(text)
    with pytest.raises(MedrlError, match=message):
        medrl_datasets.get("sts_ct_pet").splits(tmp_path)


def test_a_missing_split_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(MedrlError, match=r"splits\.csv"):
        medrl_datasets.get("sts_ct_pet").splits(tmp_path)


def test_an_unknown_name_lists_the_known_ones() -> None:
    with pytest.raises(MedrlError, match="ixi_brain_t1"):
        medrl_datasets.get("ixi")


def test_root_of_follows_the_variable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "cranium_ct").mkdir()
    monkeypatch.setenv("MEDRL_DATA", str(tmp_path))
    assert medrl_datasets.root_of("cranium_ct") == tmp_path / "cranium_ct"
    with pytest.raises(MedrlError, match="not a folder"):
        medrl_datasets.root_of("ct_lung_pair")
    monkeypatch.delenv("MEDRL_DATA")
    with pytest.raises(MedrlError, match="MEDRL_DATA"):
        medrl_datasets.root_of("cranium_ct")
