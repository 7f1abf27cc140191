"""Reading scans with masks, and what is said of datalists that are not right."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from medrl.data.datalist import NoSamplesError, read_samples, samples_of
from medrl.data.targets import Target, parse_target, read_mask
from medrl.errors import MedrlError
from medrl.seednet.data import dice, load_labelled, read_datalist
from medrl.volume.channels import Channel

CT, PET = Channel("CT", "hounsfield"), Channel("PET", "suv")
MakeBlob = Callable[..., tuple[NDArray[np.float32], NDArray[np.uint8]]]


def save(path: Path, array: NDArray[Any], affine: NDArray[np.float64] | None = None) -> None:
    nib.save(nib.Nifti1Image(array, np.eye(4) if affine is None else affine), path)


def test_targets_are_read_from_text() -> None:
    assert parse_target("tumour") == Target("tumour", (1,))
    assert parse_target("whole=1,2") == Target("whole", (1, 2))
    for text in ("", "=1", "a=0", "a=1,b", "a=-1", "a=1.5", "a=²"):
        with pytest.raises(MedrlError, match="NAME=LABEL"):
            parse_target(text)


def test_a_datalist_names_files_next_to_it(tmp_path: Path) -> None:
    (tmp_path / "scans").mkdir()
    for name in ("scans/a.nii.gz", "scans/b.nii.gz", "m.nii.gz"):
        (tmp_path / name).touch()
    content = {
        "training": [{"image": "scans/a.nii.gz", "label": "m.nii.gz", "age": 3}],
        "test": [{"image": {"PET": "scans/b.nii.gz", "CT": "scans/a.nii.gz"}, "label": "m.nii.gz"}],
    }
    path = tmp_path / "datalist.json"
    path.write_text(json.dumps(content))
    cases = read_datalist(path, ["CT", "PET"])
    assert {split: len(some) for split, some in cases.items()} == {
        "training": 1,
        "validation": 0,
        "test": 1,
    }
    assert cases["training"][0].images == {"CT": tmp_path / "scans/a.nii.gz"}
    assert list(cases["test"][0].images) == ["PET", "CT"]
    assert cases["test"][0].name == "m"


def test_the_datalist_of_the_decathlon(tmp_path: Path) -> None:
    """Plain names under "test", `./` before names, shadow files, a count that is wrong, a BOM."""
    for name in ("imagesTr/a.nii.gz", "labelsTr/a.nii.gz", "imagesTs/b.nii.gz"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    content = {
        "name": "Hippocampus",
        "labels": {"0": "background", "1": "Anterior"},
        "numTraining": 260,
        "numTest": 130,
        "training": [
            {"image": "./imagesTr/._a.nii.gz", "label": "./labelsTr/._a.nii.gz"},
            {"image": "./imagesTr/a.nii.gz", "label": "./labelsTr/a.nii.gz"},
        ],
        "validation": [{"image": "./imagesTs/b.nii.gz"}],
        "test": ["./imagesTs/b.nii.gz", "./imagesTs/._b.nii.gz"],
    }
    path = tmp_path / "dataset.json"
    path.write_text("\ufeff" + json.dumps(content), encoding="utf-8")
    with pytest.warns(UserWarning, match='1 scans of "test" come without'):
        samples = read_datalist(path, ["MR"])
    (one,) = samples["training"]
    assert one.images == {"MR": tmp_path / "imagesTr/a.nii.gz"}
    assert one.mask == tmp_path / "labelsTr/a.nii.gz"
    assert (samples["validation"], samples["test"]) == ([], [])
    with pytest.raises(NoSamplesError, match="no scans in the split 'test' to measure on"):
        samples_of(samples, "test", path)
    # Without labels they are scans all the same.
    found = read_samples(path, keys=("image",), sample=lambda entry: entry.file("image").name)
    assert found == {"training": ["a.nii.gz"], "validation": ["b.nii.gz"], "test": ["b.nii.gz"]}
    content["test"] = [{"image": "./imagesTs/b.nii.gz", "lable": "x"}]
    path.write_text(json.dumps(content))
    with pytest.raises(MedrlError, match='entry 0 of "test" needs "image" and "label"'):
        read_datalist(path, ["MR"])


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "cannot be read"),
        ("{", "not a JSON datalist"),
        ("\xff", "not a JSON datalist"),
        ("[1]", '"training"'),
        ('{"test": []}', '"training"'),
        ('{"training": 5}', "not a list"),
        ('{"training": ["a.nii"]}', 'entry 0 of "training" needs "image" and "label"'),
        ('{"training": [{"image": "here"}]}', '"label"'),
        ('{"training": [{"image": "gone.nii", "label": "here"}]}', "gone.nii does not exist"),
        ('{"training": [{"image": {"US": "here"}, "label": "here"}]}', "US"),
        ('{"training": [{"image": {}, "label": "here"}]}', "images"),
    ],
)
def test_bad_datalists_give_one_clear_line(tmp_path: Path, content: str | None, words: str) -> None:
    path = tmp_path / "datalist.json"
    (tmp_path / "here").touch()
    if content is not None:
        path.write_bytes(content.encode("latin-1"))
    with pytest.raises(MedrlError, match=words.replace("[", r"\[")) as caught:
        read_datalist(path, ["CT"])
    assert "\n" not in str(caught.value)


def test_a_mask_holds_the_labels_of_its_target(tmp_path: Path, make_blob: MakeBlob) -> None:
    _, labels = make_blob(0)
    save(tmp_path / "m.nii.gz", labels)
    for values in ((1,), (2,), (1, 2), (3,)):
        mask = read_mask(tmp_path / "m.nii.gz", Target("x", values))
        np.testing.assert_array_equal(mask.as_tensor()[0] > 0, np.isin(labels, values))


def test_masks_come_onto_the_grid_of_the_image(tmp_path: Path, make_blob: MakeBlob) -> None:
    image, labels = make_blob(3, shape=(30, 34, 28), noise=0.0)
    affine = np.diag([-1.5, 2.0, 1.2, 1.0])
    affine[:3, 3] = (20, -30, 5)
    save(tmp_path / "i.nii.gz", image, affine)
    # The mask as another program writes it: other axes, other directions, padded by two voxels.
    padded = np.pad(labels, 2)
    moved = affine.copy()
    moved[:3, 3] = nib.affines.apply_affine(affine, (-2, -2, -2))
    turned = nib.Nifti1Image(padded, moved).as_reoriented(np.array([[1, -1], [2, 1], [0, -1]]))
    nib.save(turned, tmp_path / "m.nii.gz")
    path = tmp_path / "datalist.json"
    path.write_text(json.dumps({"training": [{"image": "i.nii.gz", "label": "m.nii.gz"}]}))
    seen = []
    (case,) = load_labelled(
        read_datalist(path, ["CT"])["training"],
        channels=(CT,),
        targets=(Target("whole", (1, 2)), Target("front", (1,)), Target("back", (2,))),
        spacing=1.0,
        progress=lambda *counts: seen.append(counts),
    )
    assert seen == [(1, 1)]
    assert case.name == "m"
    whole, front, back = case.truth
    volume = case.grid.volumes[0]
    assert volume is not None
    # Where the image is bright, its mask is, wherever that is.
    assert dice(whole, volume > 140) > 0.97
    # Between its halves a voxel may be less than half of either.
    assert dice(whole, front | back) > 0.93
    assert not bool((front & back).any())
    ahead = case.grid.affine[1, 1] > 0
    assert ahead == (front.nonzero()[:, 1].float().mean() > back.nonzero()[:, 1].float().mean())
    expected = (labels > 0).sum() * 1.5 * 2.0 * 1.2
    assert float(whole.sum()) == pytest.approx(expected, rel=0.05)


def test_a_mask_without_the_wanted_labels_is_named(tmp_path: Path, make_blob: MakeBlob) -> None:
    image, labels = make_blob(0)
    save(tmp_path / "i.nii.gz", image)
    far = np.eye(4)
    far[:3, 3] = 500
    save(tmp_path / "other.nii.gz", (labels + 4 * (labels > 0)).astype(np.uint8))
    save(tmp_path / "far.nii.gz", labels, far)
    for name in ("other", "far"):
        path = tmp_path / "datalist.json"
        entry = {"image": "i.nii.gz", "label": f"{name}.nii.gz"}
        path.write_text(json.dumps({"training": [entry]}))
        cases = read_datalist(path, ["CT"])["training"]
        with pytest.raises(MedrlError, match=rf"{name}.nii.gz has none of the labels \[1, 2\]"):
            load_labelled(cases, channels=(CT,), targets=(Target("a", (2, 1)),), spacing=1.0)


def test_dice() -> None:
    a, b = np.zeros((2, 4, 4, 4), dtype=bool)
    assert dice(a, b) == 1.0
    a[0] = True
    assert dice(a, b) == 0.0
    b[:2] = True
    assert dice(torch.from_numpy(a), b) == pytest.approx(2 / 3)
