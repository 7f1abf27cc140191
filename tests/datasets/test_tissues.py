"""Maps of tissues of real heads, against their labels and what a T1 scan looks like."""

from __future__ import annotations

import nibabel as nib
import numpy as np
import pytest

from medrl.data.contrast import TISSUES
from medrl.errors import MedrlError
from medrl.landmark.data import landmark_names, load_labelled, read_datalist
from medrl.volume.prepare import Preprocessing
from medrl_datasets import get
from medrl_datasets.export import export
from medrl_datasets.tissues import add_tissues


@pytest.fixture(scope="module")
def mapped(data_root, tmp_path_factory):
    """A training head with its labels and its map."""
    root = data_root / "ixi_brain_t1"
    entry = get("ixi_brain_t1").datalist(root)["training"][0]
    folder = tmp_path_factory.mktemp("tissues")
    datalist = {"training": [entry], "validation": [], "test": [entry]}
    found = add_tissues(datalist, folder)
    assert found["test"] == [entry]
    volumes = [np.asarray(nib.load(entry[key]).dataobj) for key in ("image", "label")]
    made = nib.load(found["training"][0]["tissues"])
    np.testing.assert_array_equal(made.affine, nib.load(entry["image"]).affine)
    return *volumes, np.asarray(made.dataobj)


def test_the_brain_is_as_its_labels_say(mapped):
    _, labels, tissues = mapped
    thalamus, ventricle, white = (np.isin(labels, v) for v in ((59, 60), (51, 52), (81, 82)))
    assert (tissues[thalamus] == TISSUES.index("grey matter")).all()
    assert (tissues[ventricle] == TISSUES.index("fluid")).all()
    assert (tissues[white] == TISSUES.index("white matter")).all()


def test_the_skull_is_dark_and_around_the_brain(mapped):
    volume, labels, tissues = mapped
    bone = tissues == TISSUES.index("bone")
    white = np.median(volume[np.isin(labels, (81, 82))])
    assert not (bone & (labels > 0)).any()
    assert np.median(volume[bone]) < 0.3 * white
    # An adult's skull has 500 to 1000 ml, of which what is near the brain is the larger part.
    assert 200 < bone.sum() * 8e-3 < 1000
    fat = volume[tissues == TISSUES.index("fat")]
    assert np.median(fat) > np.median(volume[tissues == TISSUES.index("muscle")])


def test_air_is_outside_the_head(mapped):
    volume, labels, tissues = mapped
    air = tissues == TISSUES.index("air")
    white = np.median(volume[np.isin(labels, (81, 82))])
    assert 0.3 < air.mean() < 0.8
    assert np.quantile(volume[air], 0.99) < 0.4 * white
    assert not (air & (labels > 0)).any()


def test_a_training_reads_them_on_its_grid(mapped, data_root, tmp_path):
    import json

    _, _, tissues = mapped
    root = data_root / "ixi_brain_t1"
    entry = get("ixi_brain_t1").datalist(root)["training"][0]
    affine = nib.load(entry["image"]).affine
    nib.save(nib.Nifti1Image(tissues, affine), tmp_path / "tissues.nii.gz")
    (tmp_path / "a.csv").write_text("name,x,y,z\nA,0,0,0\n")
    one = {"image": entry["image"], "landmarks": "a.csv", "tissues": "tissues.nii.gz"}
    (tmp_path / "list.json").write_text(json.dumps({"training": [one]}))
    samples = read_datalist(tmp_path / "list.json")["training"]
    (scan,) = load_labelled(samples, landmark_names(samples), Preprocessing())
    assert scan.tissues is not None
    counts = np.bincount(scan.tissues.numpy().ravel(), minlength=len(TISSUES))
    np.testing.assert_array_equal(counts, np.bincount(tissues.ravel(), minlength=len(TISSUES)))
    fluid = scan.volume[0][scan.tissues == TISSUES.index("fluid")].median()
    white = scan.volume[0][scan.tissues == TISSUES.index("white matter")].median()
    assert fluid < white


def test_other_sets_have_no_tissues(data_root, tmp_path):
    with pytest.raises(MedrlError, match="leave out --tissues"):
        export("spine_mr_lumbar", data_root / "spine_mr_lumbar", tmp_path, tissues=True)
