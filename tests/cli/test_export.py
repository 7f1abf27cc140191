"""`medrl export`: MONAI's own command runs what comes out."""

import csv
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
from monai.bundle import ConfigParser


def read_positions(path: Path) -> dict[str, list[float]]:
    with path.open(newline="") as stream:
        return {r["name"]: [float(r[a]) for a in "xyz"] for r in csv.DictReader(stream)}


def test_monai_runs_the_bundle(medrl, bundle: Path, head: Path, tmp_path: Path):
    exported = tmp_path / "exported"
    assert medrl("export", bundle, "--format", "monai-bundle", "-o", exported).code == 0
    files = {str(p.relative_to(exported)) for p in exported.rglob("*") if p.is_file()}
    assert files == {
        "LICENSE",
        "configs/inference.json",
        "configs/metadata.json",
        "docs/README.md",
        "models/model.json",
        "models/model.safetensors",
    }
    out = tmp_path / "by_monai"
    done = subprocess.run(
        [
            *(sys.executable, "-m", "monai.bundle", "run"),
            *("--config_file", "configs/inference.json", "--meta_file", "configs/metadata.json"),
            *("--images", str([str(head)]), "--output_dir", str(out)),
        ],
        cwd=exported,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    medrl("detect", head, "-o", tmp_path / "by_medrl", "--model", bundle, "--no-picture")
    ours, theirs = (read_positions(tmp_path / f / "head.csv") for f in ("by_medrl", "by_monai"))
    assert ours.keys() == theirs.keys()
    np.testing.assert_allclose(list(ours.values()), list(theirs.values()), atol=1e-3)


def test_metadata(medrl, bundle: Path, tmp_path: Path):
    """What the specification of the MONAI Bundle asks for."""
    medrl("export", bundle, "-o", tmp_path / "b")
    metadata = json.loads((tmp_path / "b" / "configs" / "metadata.json").read_text())
    for key in ("version", "monai_version", "pytorch_version", "numpy_version", "changelog"):
        assert metadata[key]
    for key in ("task", "description", "authors", "copyright", "required_packages_version"):
        assert metadata[key]
    image = metadata["network_data_format"]["inputs"]["image"]
    assert (image["num_channels"], image["spatial_shape"]) == (1, [9, 9, 9])
    assert "pred" in metadata["network_data_format"]["outputs"]
    parser = ConfigParser()
    parser.read_config(tmp_path / "b" / "configs" / "inference.json")
    assert parser.get("evaluator")["_target_"] == "medrl.bundles.monai.ScanEvaluator"


def test_refusals(medrl, bundle: Path, tmp_path: Path):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine").touch()
    ended = medrl("export", bundle, "-o", tmp_path / "full")
    assert (ended.code, ended.err.count("\n")) == (2, 1)
    assert "not empty" in ended.err
    assert medrl("export", "nowhere", "-o", tmp_path / "b").code == 2
    (tmp_path / "file").touch()
    assert "cannot write" in medrl("export", bundle, "-o", tmp_path / "file" / "b").err
    assert sorted(p.name for p in tmp_path.iterdir()) == ["file", "full"]
