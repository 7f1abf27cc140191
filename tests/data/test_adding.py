"""Scans of several channels in a datalist; those of one are tested with landmarks."""

import json

import pytest

from medrl.data.adding import add_sample
from medrl.errors import MedrlError


def read(path):
    return json.loads(path.read_text())


def write(path, things):
    path.write_text(json.dumps(things))


def test_a_scan_of_several_channels_is_one_case(tmp_path):
    images = {name: tmp_path / f"{name}.nii.gz" for name in ("PET", "CT")}
    for path in images.values():
        path.write_bytes(b"")
    options = {"key": "boxes", "read": read, "write": write}
    datalist = tmp_path / "d.json"
    add_sample(datalist, images, {"tumour": 1}, **options)
    add_sample(datalist, dict(reversed(images.items())), {"node": 2}, **options)
    add_sample(datalist, images["PET"], {"tumour": 3}, **options)
    both, alone = json.loads(datalist.read_text())["training"]
    assert both["image"] == {"PET": "PET.nii.gz", "CT": "CT.nii.gz"}
    assert read(tmp_path / both["boxes"]) == {"tumour": 1, "node": 2}
    assert alone["image"] == "PET.nii.gz"
    assert read(tmp_path / alone["boxes"]) == {"tumour": 3}
    images["CT"].unlink()
    with pytest.raises(MedrlError, match=r"CT.nii.gz does not exist"):
        add_sample(datalist, images, {"tumour": 1}, **options)
