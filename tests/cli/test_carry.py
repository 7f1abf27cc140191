"""`medrl carry` and `medrl batch carry`: scans and films, and one clear line for what is wrong."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from PIL import Image

from medrl.cutting.dynamics import View
from medrl.cutting.model import CutModel, ModelSettings

AFFINE = np.diag([-2.0, 2.0, 3.0, 1.0])
SHAPE = (20, 24, 8)


@pytest.fixture(scope="module")
def cutter(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that knows nothing."""
    torch.manual_seed(0)
    settings = ModelSettings(view=View(side=16, moves=2), widths=(4, 6, 8))
    model = CutModel(settings, settings.build_network().eval(), settings.build_policy().eval())
    return model.save(tmp_path_factory.mktemp("models") / "cutter", name="cutter", card={})


@pytest.fixture
def scans(tmp_path: Path) -> Path:
    """Two scans with outlines beside them, and one without."""
    folder = tmp_path / "scans"
    folder.mkdir()
    for number in range(3):
        rng = np.random.default_rng(number)
        scan = rng.normal(100, 10, SHAPE).astype(np.float32)
        scan[6:12, 8:16] += 100
        nib.save(nib.Nifti1Image(scan, AFFINE), folder / f"{number}.nii.gz")
        outline = np.zeros(SHAPE, dtype=np.uint8)
        outline[6:12, 8:16, 4] = 1 + number
        if number < 2:
            nib.save(nib.Nifti1Image(outline, AFFINE), folder / f"{number}.outline.nii.gz")
    return folder


@pytest.fixture
def film(tmp_path: Path) -> Path:
    folder = tmp_path / "film"
    folder.mkdir()
    for number in range(5):
        pixels = np.full((30, 40, 3), 60, dtype=np.uint8)
        pixels[8:20, 10 + number : 22 + number] = (200, 120, 40)
        Image.fromarray(pixels).save(folder / f"f{number}.png")
    return folder


def test_a_scan_from_one_slice(medrl, cutter: Path, scans: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    ended = medrl(
        *("carry", scans / "0.nii.gz", "--outline", scans / "0.outline.nii.gz"),
        *("--model", cutter, "-o", out, "--json"),
    )
    assert ended.code == 0, ended.err
    report = json.loads(ended.out)
    assert report["axis"] == 2
    assert report["objects"][0]["outlined"] == 1
    mask = nib.load(report["files"]["mask"])
    assert np.allclose(mask.affine, AFFINE)
    outlined = nib.load(scans / "0.outline.nii.gz").get_fdata()
    assert (np.asarray(mask.dataobj)[..., 4] == outlined[..., 4]).all()
    with (out / "0.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    assert [row["picture"] for row in rows if row["outlined"] == "1"] == ["4"]
    with Image.open(out / "0.webp") as shown:
        assert shown.n_frames == SHAPE[2]


def test_a_film_from_its_first_frame(medrl, cutter: Path, film: Path, tmp_path: Path) -> None:
    outline = np.zeros((30, 40), dtype=np.uint8)
    outline[8:20, 10:22] = 255
    Image.fromarray(outline).save(tmp_path / "o.png")
    ended = medrl(
        *("carry", film, "--outline", tmp_path / "o.png", "--at", "f0", "--model", cutter),
        *("-o", tmp_path / "out"),
    )
    assert ended.code == 0, ended.err
    mask = np.asarray(nib.load(tmp_path / "out" / "film.seg.nii.gz").dataobj)
    assert mask.shape == (40, 30, 1, 5)
    assert ((outline > 0) == mask[..., 0, 0].T).all()


def test_a_folder_of_scans_with_outlines_beside_them(
    medrl, cutter: Path, scans: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    table = tmp_path / "list.csv"
    table.write_text(
        "scan,outline\n" + "".join(f"{scans}/{n}.nii.gz,{scans}/{n}.outline.nii.gz\n" for n in "01")
    )
    ended = medrl("batch", "carry", table, out, "--model", cutter, "--workers", "1")
    assert ended.code == 0, ended.err
    assert (out / "scans" / "1" / "1.seg.nii.gz").is_file()
    ended = medrl("batch", "carry", scans / "?.nii.gz", tmp_path / "b", "--model", cutter)
    assert ended.code == 1
    assert (tmp_path / "b" / "0" / "0.seg.nii.gz").is_file()
    assert (
        "comes with no outline" in ended.err + (tmp_path / "b" / "failures.csv").read_text()
        if (tmp_path / "b" / "failures.csv").exists()
        else "comes with no outline" in ended.err + ended.out
    )


def test_a_folder_of_films_is_found(scans: Path, film: Path, tmp_path: Path) -> None:
    from medrl.batch.discover import discover
    from medrl.systems import by_verb

    found = discover(tmp_path, by_verb("carry"))
    assert {case.name for case in found} >= {"film", "scans/0"}
    assert "film" not in {case.name for case in discover(tmp_path, by_verb("detect"))}


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        ((), "comes with no outline"),
        (("--outline", "nothing.nii.gz"), "nothing.nii.gz: no such file"),
        (("--outline", "1.outline.nii.gz", "--axis", "7"), "--axis is 0, 1 or 2"),
        (("--outline", "1.outline.nii.gz", "--at", "3"), "--at is for films"),
    ],
)
def test_what_is_wrong_is_said_in_a_line(
    medrl, cutter: Path, scans: Path, tmp_path: Path, arguments: tuple[str, ...], line: str
) -> None:
    given = [scans / a if a.endswith(".nii.gz") else a for a in arguments]
    ended = medrl("carry", scans / "0.nii.gz", *given, "--model", cutter, "-o", tmp_path / "out")
    assert ended.code in (1, 2)
    (told,) = ended.err.splitlines()
    assert line in told
    assert not list((tmp_path / "out").glob("*")) if (tmp_path / "out").exists() else True
