"""Outlines as people hand them over, and lines about what cannot be."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from PIL import Image

from medrl.cutting.outlines import read_outlines
from medrl.errors import MedrlError
from medrl.volume.film import Film
from medrl.volume.read import read

AFFINE = np.diag([2.0, 3.0, 4.0, 1.0])


@pytest.fixture
def film() -> Film:
    return Film(torch.zeros(4, 3, 20, 12, 1), names=("a", "b", "c", "d"))


@pytest.fixture
def scan(tmp_path: Path):
    values = np.random.default_rng(0).normal(size=(8, 9, 10)).astype(np.float32)
    nib.save(nib.Nifti1Image(values, AFFINE), tmp_path / "scan.nii.gz")
    return read(tmp_path / "scan.nii.gz")


def write_mask(path: Path, affine: np.ndarray = AFFINE, value: int = 3) -> Path:
    mask = np.zeros((8, 9, 10), dtype=np.uint8)
    mask[2:5, 3:6, 4] = value
    nib.save(nib.Nifti1Image(mask, affine), path)
    return path


def write_picture(path: Path, size: tuple[int, int] = (20, 12), value: int = 255) -> Path:
    pixels = np.zeros(size[::-1], dtype=np.uint8)
    pixels[2:5, 6:15] = value
    Image.fromarray(pixels).save(path)
    return path


def test_a_label_map_is_taken_as_it_is(tmp_path: Path, scan) -> None:
    found = read_outlines([write_mask(tmp_path / "m.nii.gz")], scan, at=None)
    assert found.names == {3: "object"}
    assert np.argwhere(found.labels == 3).min(axis=0).tolist() == [2, 3, 4]


def test_pictures_belong_to_the_frames_of_their_names(tmp_path: Path, film: Film) -> None:
    write_picture(tmp_path / "b.png")
    write_picture(tmp_path / "d.png", value=1)
    found = read_outlines([tmp_path], film, at=None)
    assert sorted(found.labels) == [1, 3]
    assert found.names == {1: "object"}
    # Pictures are rows of columns, films columns of rows.
    assert found.labels[1][6:15, 2:5, 0].all()
    assert int((found.labels[1] > 0).sum()) == 27


def test_a_single_picture_says_by_itself_or_is_told_where_it_belongs(
    tmp_path: Path, film: Film
) -> None:
    path = write_picture(tmp_path / "anything.png")
    assert list(read_outlines([path], film, at="c").labels) == [2]
    assert list(read_outlines([path], film, at="3").labels) == [3]
    with pytest.raises(MedrlError, match="no frame anything in the film"):
        read_outlines([path], film, at=None)


def test_what_cannot_be_is_said_in_a_line(tmp_path: Path, film: Film, scan) -> None:
    with pytest.raises(MedrlError, match="the outline is empty"):
        read_outlines([write_mask(tmp_path / "e.nii.gz", value=0)], scan, at=None)
    moved = AFFINE.copy()
    moved[0, 3] = 5
    with pytest.raises(MedrlError, match="does not lie on the grid"):
        read_outlines([write_mask(tmp_path / "g.nii.gz", moved)], scan, at=None)
    with pytest.raises(MedrlError, match="which slices"):
        read_outlines([write_mask(tmp_path / "h.nii.gz")], scan, at="3")
    with pytest.raises(MedrlError, match="is 19 x 12 x 1, the film 20 x 12 x 1"):
        read_outlines([write_picture(tmp_path / "a.png", (19, 12))], film, at=None)
    with pytest.raises(MedrlError, match="no frame 9"):
        read_outlines([write_picture(tmp_path / "9.png")], film, at=None)
    again = tmp_path / "again"
    again.mkdir()
    write_picture(tmp_path / "b.png")
    write_picture(again / "b.png")
    with pytest.raises(MedrlError, match="frame 1 is outlined twice"):
        read_outlines([tmp_path / "b.png", again], film, at=None)
    nothing = write_picture(tmp_path / "c.png", value=0)
    with pytest.raises(MedrlError, match="the outline is empty"):
        read_outlines([nothing], film, at=None)
