"""Films against what Pillow, imageio and nibabel wrote."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
from PIL import Image

from medrl.errors import MedrlError
from medrl.volume.film import read_film


def _pixels(count: int = 3, colour: bool = True) -> np.ndarray:
    shape = (count, 12, 20, 3) if colour else (count, 12, 20)
    return np.random.default_rng(0).integers(0, 256, shape).astype(np.uint8)


def test_a_folder_is_read_in_the_order_of_its_numbers(tmp_path: Path) -> None:
    pixels = _pixels()
    for name, one in zip(("9", "10", "11"), pixels, strict=True):
        Image.fromarray(one).save(tmp_path / f"{name}.png")
    film = read_film(tmp_path)
    assert film.names == ("9", "10", "11")
    assert film.frames.shape == (3, 3, 20, 12, 1)
    assert (film.frames[..., 0].permute(0, 3, 2, 1).numpy() == pixels).all()


def test_a_picture_lies_where_itk_puts_it(tmp_path: Path) -> None:
    for number, one in enumerate(_pixels(2, colour=False)):
        Image.fromarray(one).save(tmp_path / f"{number}.png")
    film = read_film(tmp_path)
    image = sitk.ReadImage(str(tmp_path / "0.png"))
    lps = image.TransformContinuousIndexToPhysicalPoint((5.0, 7.0))
    assert np.allclose((film.affine @ [5, 7, 0, 1])[:2], [-lps[0], -lps[1]])
    assert film.frames[0, 0, 5, 7, 0] == image.GetPixel(5, 7)


@pytest.mark.parametrize("ending", [".gif", ".tif"])
def test_files_of_several_pictures_are_films(tmp_path: Path, ending: str) -> None:
    pictures = [Image.fromarray(np.full((6, 9), 60 * n, dtype=np.uint8)) for n in range(3)]
    path = tmp_path / f"film{ending}"
    pictures[0].save(path, save_all=True, append_images=pictures[1:])
    film = read_film(path)
    assert film.frames.shape == (3, 1, 9, 6, 1)
    assert film.frames.mean(dim=(1, 2, 3, 4)).tolist() == [0, 60, 120]


def test_a_video_is_read(tmp_path: Path) -> None:
    iio = pytest.importorskip("imageio.v3")
    pytest.importorskip("av")
    frames = np.zeros((8, 32, 48, 3), dtype=np.uint8)
    for number in range(8):
        frames[number, :, : 6 * number, 0] = 255
    path = tmp_path / "film.mp4"
    iio.imwrite(path, frames, plugin="pyav", codec="libx264", fps=8)
    film = read_film(path)
    assert film.frames.shape == (8, 3, 48, 32, 1)
    assert abs(float(film.frames[4, 0, :24].mean()) - 255) < 12
    assert float(film.frames[4, 0, 30:].mean()) < 12


def test_a_scan_of_four_dimensions_is_a_film(tmp_path: Path) -> None:
    affine = np.diag([-2.0, 2.0, 3.0, 1.0])
    values = np.random.default_rng(0).normal(size=(5, 6, 7, 4)).astype(np.float32)
    nib.save(nib.Nifti1Image(values, affine), tmp_path / "cine.nii.gz")
    film = read_film(tmp_path / "cine.nii.gz")
    assert film.frames.shape == (4, 1, 5, 6, 7)
    assert np.allclose(film.frames[:, 0].numpy(), np.moveaxis(values, -1, 0))
    assert np.allclose(film.affine, affine)
    assert not film.flat


def test_frames_of_different_size_are_refused_by_name(tmp_path: Path) -> None:
    Image.fromarray(np.zeros((6, 9), np.uint8)).save(tmp_path / "0.png")
    Image.fromarray(np.zeros((6, 8), np.uint8)).save(tmp_path / "1.png")
    with pytest.raises(MedrlError, match=r"different size: 9 x 6, and 1 is 8 x 6"):
        read_film(tmp_path)


def test_what_is_no_film_is_refused_in_a_line(tmp_path: Path) -> None:
    Image.fromarray(np.zeros((6, 9), np.uint8)).save(tmp_path / "0.png")
    with pytest.raises(MedrlError, match="a single picture"):
        read_film(tmp_path)
    (tmp_path / "1.png").write_bytes(b"\x89PNG\r\n")
    with pytest.raises(MedrlError, match=r"1\.png: cannot be read as a picture"):
        read_film(tmp_path)
    (tmp_path / "film.mp4").write_bytes(b"no video")
    with pytest.raises(MedrlError, match=r"film\.mp4"):
        read_film(tmp_path / "film.mp4")
    with pytest.raises(MedrlError, match="no such file"):
        read_film(tmp_path / "nothing.gif")
    affine = np.eye(4)
    nib.save(
        nib.Nifti1Image(np.arange(64, dtype="f4").reshape(4, 4, 4), affine), tmp_path / "a.nii.gz"
    )
    with pytest.raises(MedrlError, match="one time"):
        read_film(tmp_path / "a.nii.gz")
