"""Bad input on the command line: one clear line, an exit code, nothing half-written."""

import gzip
import os
import re
import shutil
import struct
import tempfile
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk


def missing(folder: Path, head: Path) -> Path:
    return folder / "missing.nii.gz"


def empty(folder: Path, head: Path) -> Path:
    path = folder / "empty.nii.gz"
    path.touch()
    return path


def truncated(folder: Path, head: Path) -> Path:
    path = folder / "truncated.nii.gz"
    content = head.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    return path


def truncated_plain(folder: Path, head: Path) -> Path:
    path = folder / "truncated.nii"
    content = gzip.decompress(head.read_bytes())
    path.write_bytes(content[: len(content) // 2])
    return path


def truncated_mha(folder: Path, head: Path) -> Path:
    path = folder / "truncated.mha"
    sitk.WriteImage(sitk.ReadImage(str(head)), str(path))
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    return path


def text(folder: Path, head: Path) -> Path:
    path = folder / "notes.nii.gz"
    path.write_text("not a scan\n" * 100)
    return path


def table(folder: Path, head: Path) -> Path:
    path = folder / "points.csv"
    path.write_text("name,x,y,z\nAC,0,0,0\n")
    return path


def empty_folder(folder: Path, head: Path) -> Path:
    path = folder / "series"
    path.mkdir()
    return path


def flat(folder: Path, head: Path) -> Path:
    path = folder / "flat.nii.gz"
    nib.save(
        nib.Nifti1Image(np.random.default_rng(0).random((64, 64), np.float32), np.eye(4)), path
    )
    return path


def one_slice(folder: Path, head: Path) -> Path:
    path = folder / "slice.nii.gz"
    volume = np.random.default_rng(0).random((64, 64, 1), np.float32)
    nib.save(nib.Nifti1Image(volume, np.eye(4)), path)
    return path


def zeros(folder: Path, head: Path) -> Path:
    path = folder / "zeros.nii.gz"
    nib.save(nib.Nifti1Image(np.zeros((40, 40, 40), np.int16), np.eye(4)), path)
    return path


def not_a_number(folder: Path, head: Path) -> Path:
    path = folder / "nan.nii.gz"
    volume = np.random.default_rng(0).random((40, 40, 40), np.float32)
    volume[3, 4, 5] = np.nan
    nib.save(nib.Nifti1Image(volume, np.eye(4)), path)
    return path


def giant_header(folder: Path, head: Path) -> Path:
    """A NIfTI header that declares 30000^3 voxels, and a kilobyte of them."""
    path = folder / "giant.nii"
    content = bytearray(gzip.decompress(head.read_bytes())[:1376])
    struct.pack_into("<4h", content, 40, 3, 30000, 30000, 30000)
    path.write_bytes(content)
    return path


def several_channels(folder: Path, head: Path) -> Path:
    path = folder / "series4d.nii.gz"
    volume = np.random.default_rng(0).random((30, 30, 30, 3), np.float32)
    nib.save(nib.Nifti1Image(volume, np.diag([4.0, 4, 4, 1])), path)
    return path


BAD: dict[Callable[[Path, Path], Path], str] = {
    missing: "no such file",
    empty: "empty",
    truncated: "truncated",
    truncated_plain: "truncated",
    truncated_mha: "truncated",
    text: "cannot be read|gzip|not a",
    table: "unknown format",
    empty_folder: "DICOM",
    flat: "2D",
    one_slice: "2D|slice",
    zeros: "blank",
    not_a_number: "NaN",
    giant_header: "declares",
    several_channels: "channel",
}


@pytest.mark.parametrize(("make", "words"), BAD.items(), ids=[make.__name__ for make in BAD])
def test_bad_scan(medrl, bundle: Path, head: Path, tmp_path: Path, make, words: str):
    out = tmp_path / "out"
    scan = make(tmp_path, head)
    ended = medrl("detect", scan, "-o", out, "--model", bundle)
    assert_one_line(ended, scan, words)
    assert ended.code == 1
    assert list(out.iterdir()) == []


def test_body_ct_for_the_models_of_heads(medrl, data_root: Path, tmp_path: Path):
    scan = data_root / "body_ct_mr" / "example_ct.nii.gz"
    ended = medrl("detect", scan, "-o", tmp_path, "--model", "brain-t1")
    assert_one_line(ended, scan, "looks like a CT.*trained on MR")
    assert ended.code == 1
    assert list(tmp_path.iterdir()) == []


def assert_one_line(ended, scan: Path, words: str):
    assert ended.out == ""
    assert ended.err.count("\n") == 1, ended.err
    assert ended.err.startswith("medrl: error: ")
    assert str(scan) in ended.err
    assert re.search(words, ended.err), ended.err
    assert "Traceback" not in ended.err
    assert "unexpected" not in ended.err


def test_output_folder_is_a_file(medrl, bundle: Path, head: Path, tmp_path: Path):
    (tmp_path / "out").write_text("mine")
    for out in (tmp_path / "out", tmp_path / "out" / "deeper"):
        ended = medrl("detect", head, "-o", out, "--model", bundle)
        assert ended.code == 2
        assert ended.err.count("\n") == 1
        assert "output folder" in ended.err
    assert (tmp_path / "out").read_text() == "mine"


def test_output_folder_is_not_writable(
    medrl, bundle: Path, head: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Found out before any scan is read; root may write anywhere, so the refusal is played."""
    out = tmp_path / "out"
    out.mkdir(mode=0o500)

    def refuse(*args, **kwargs):
        raise PermissionError(13, "Permission denied")

    if os.access(out, os.W_OK):
        monkeypatch.setattr(tempfile, "TemporaryFile", refuse)
    monkeypatch.setattr("medrl.volume.read.read", lambda path: pytest.fail("began to work"))
    ended = medrl("detect", head, "-o", out, "--model", bundle)
    assert ended.code == 2
    assert ended.err.count("\n") == 1
    assert "Permission denied" in ended.err
    assert list(out.iterdir()) == []


@pytest.mark.parametrize("what", ["draw_detection", "disk"])
def test_nothing_is_left_when_writing_fails(
    medrl, bundle: Path, head: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str
):
    def fail(*args, **kwargs):
        raise OSError(28, "No space left on device")

    if what == "draw_detection":
        monkeypatch.setattr("medrl.landmark.picture.draw_detection", fail)
    else:
        monkeypatch.setattr("medrl.trajectory.write_trajectory", fail)
    ended = medrl("detect", head, "-o", tmp_path, "--model", bundle)
    assert ended.code == 1
    assert ended.err.count("\n") == 1
    assert "No space left on device" in ended.err
    assert list(tmp_path.iterdir()) == []


def test_wrong_model_landmark_device(medrl, bundle: Path, head: Path, tmp_path: Path):
    out = tmp_path / "out"
    cases = {
        ("--model", "nowhere"): "there is no model 'nowhere'",
        ("--model", str(tmp_path)): "not the folder of a model",
        ("--model", str(bundle), "--landmarks", "AC", "Nose"): "does not know Nose",
        ("--model", str(bundle), "--device", "cuda:99"): "cuda:99",
        ("--model", str(bundle), "--device", "toaster"): "not a device",
    }
    for options, words in cases.items():
        ended = medrl("detect", head, "-o", out, *options)
        assert ended.code == 2, options
        assert ended.err.count("\n") == 1, ended.err
        assert words in ended.err
        assert list(out.iterdir()) == []


def test_damaged_model(medrl, bundle: Path, head: Path, tmp_path: Path):
    broken = tmp_path / "broken"
    shutil.copytree(bundle, broken)
    weights = broken / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-10])
    ended = medrl("detect", head, "-o", tmp_path / "out", "--model", broken)
    assert ended.code == 2
    assert ended.err.count("\n") == 1
    assert "damaged" in ended.err


def test_one_line_in_a_process_of_its_own(medrl_process, bundle: Path, head: Path, tmp_path: Path):
    """Libraries that write to the terminal past Python would show here."""
    scan = truncated_mha(tmp_path, head)
    ended = medrl_process("detect", scan, "-o", tmp_path / "out", "--model", bundle)
    assert ended.code == 1
    assert ended.out == ""
    assert ended.err.count("\n") == 1, ended.err
