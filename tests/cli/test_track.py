"""`medrl track` with the models that ship: objects of a film, points of another visit."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from PIL import Image
from scipy.ndimage import gaussian_filter

from medrl.volume.points import read_points, write_markups


@pytest.fixture
def film(tmp_path: Path) -> tuple[Path, np.ndarray]:
    """Two discs that pass each other, and their boxes (T, 2, 2, 2), (x, y)."""
    folder = tmp_path / "film"
    folder.mkdir()
    rows, columns = np.mgrid[:60, :80]
    boxes = np.zeros((12, 2, 2, 2))
    for frame in range(12):
        pixels = np.random.default_rng(frame).normal(40, 4, (60, 80))
        for number, (x, y, value) in enumerate(
            ((10 + 5 * frame, 20, 200), (66 - 5 * frame, 38, 120))
        ):
            pixels[(columns - x) ** 2 + (rows - y) ** 2 <= 36] = value
            boxes[frame, number] = [[x - 6, y - 6], [x + 7, y + 7]]
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(folder / f"{frame:02d}.png")
    return folder, boxes


def test_objects_keep_their_identity(medrl, film, tmp_path: Path) -> None:
    folder, boxes = film
    table = tmp_path / "boxes.csv"
    lines = ["frame,x0,y0,x1,y1"]
    for frame, both in enumerate(boxes):
        lines += [f"{frame},{a[0]},{a[1]},{b[0]},{b[1]}" for a, b in both]
    table.write_text("\n".join(lines))
    out = tmp_path / "out"
    ended = medrl("track", folder, "--detections", table, "-o", out, "--json")
    assert ended.code == 0, ended.err
    assert len(json.loads(ended.out)["rows"]) == 2
    with (out / "film.tracks.csv").open() as stream:
        rows = [[float(cell) for cell in row] for row in csv.reader(stream)]
    assert len(rows) == 24
    for row in rows:
        frame, track, left = int(row[0]) - 1, int(row[1]), row[2]
        first = {int(r[1]): r[2] for r in rows if r[0] == 1}
        number = 0 if first[track] == min(first.values()) else 1
        assert left == pytest.approx(boxes[frame, number, 0, 0] + 1)
    masks = nib.load(out / "film.seg.nii.gz")
    assert masks.shape == (80, 60, 1, 12)
    assert (out / "film.res_track.txt").read_text().split() == [
        *("1", "0", "11", "0"),
        *("2", "0", "11", "0"),
    ]
    with Image.open(out / "film.webp") as shown:
        assert shown.n_frames == 12


def test_blobs_are_found_where_nobody_detected_them(medrl, film, tmp_path: Path) -> None:
    folder, _ = film
    ended = medrl("track", folder, "--blob-mm", "13", "-o", tmp_path / "out", "--json")
    assert ended.code == 0, ended.err
    assert len(json.loads(ended.out)["rows"]) >= 2


def test_points_are_found_again(medrl, tmp_path: Path) -> None:
    affine = np.diag([2.0, 2.0, 2.0, 1.0])
    noise = np.random.default_rng(0).normal(size=(48, 48, 48))
    values = (500 * gaussian_filter(noise, 2.0)).astype(np.float32)
    nib.save(nib.Nifti1Image(values, affine), tmp_path / "first.nii.gz")
    moved = affine.copy()
    moved[:3, 3] = (6, -4, 2)
    nib.save(nib.Nifti1Image(values, moved), tmp_path / "second.nii.gz")
    points = {"a": [40.0, 44.0, 50.0], "b": [60.0, 40.0, 38.0]}
    write_markups(tmp_path / "marks.mrk.json", points)
    ended = medrl(
        *("track", tmp_path / "second.nii.gz", "--earlier", tmp_path / "first.nii.gz"),
        *("--marks", tmp_path / "marks.mrk.json", "-o", tmp_path / "out"),
    )
    assert ended.code == 0, ended.err
    found = read_points(tmp_path / "out" / "second.mrk.json")
    for name, place in points.items():
        assert np.linalg.norm(found[name] - np.array(place) - [6, -4, 2]) < 2.0


@pytest.mark.parametrize(
    ("arguments", "line"),
    [((), "comes with no detections"), (("--detections", "no.csv"), "no.csv: no such file")],
)
def test_what_is_wrong_is_said_in_a_line(medrl, film, tmp_path, arguments, line) -> None:
    ended = medrl("track", film[0], *arguments, "-o", tmp_path / "out")
    assert ended.code in (1, 2)
    (told,) = ended.err.splitlines()
    assert line in told


def test_identities_given_twice_are_refused(medrl, film, tmp_path: Path) -> None:
    table = tmp_path / "twice.csv"
    table.write_text("frame,track,x0,y0,x1,y1\n0,1,2,2,9,9\n0,1,20,20,29,29\n")
    ended = medrl("track", film[0], "--detections", table, "-o", tmp_path / "out")
    assert ended.code == 1
    assert "identity 1 is given twice in frame 0" in ended.err
