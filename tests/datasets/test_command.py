"""`medrl datasets`."""

import json
from pathlib import Path

import pytest

import medrl_datasets
from medrl.cli.datasets import main
from medrl.errors import MedrlError


def test_the_list_names_every_set(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 0
    listed = capsys.readouterr().out
    assert all(name in listed for name in medrl_datasets.names())
    assert main(["--json"]) == 0
    cards = json.loads(capsys.readouterr().out)
    assert [card["name"] for card in cards] == list(medrl_datasets.names())


def test_show_prints_the_card_without_a_copy(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MEDRL_DATA", raising=False)
    assert main(["show", "ixi_brain_t1"]) == 0
    out = capsys.readouterr().out
    assert "CC BY-SA 3.0" in out
    assert "Local copy: none" in out


def test_show_checks_a_copy(
    data_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["show", "sts_ct_pet", "--root", str(data_root / "sts_ct_pet"), "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["problems"] == []
    assert {split: len(subjects) for split, subjects in report["splits"].items()} == {
        "train": 16,
        "val": 3,
        "holdout": 5,
    }
    assert main(["show", "sts_ct_pet", "--root", str(tmp_path)]) == 1
    assert "missing: ct/STS_001.nii.gz" in capsys.readouterr().out


def test_export_prints_the_datalist(
    data_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = str(data_root / "afids_templates")
    assert main(["export", "afids_templates", "--root", root, "-o", str(tmp_path / "out")]) == 0
    datalist = json.loads(Path(capsys.readouterr().out.strip()).read_text())
    assert len(datalist["landmarks"]) == 32
    assert [len(datalist[key]) for key in ("training", "validation", "test")] == [6, 0, 1]


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(MedrlError, match="nowhere"):
        main(["show", "cranium_ct", "--root", str(tmp_path / "nowhere")])
