"""`medrl train seednet` and `medrl evaluate seednet` on scans made for them."""

import csv
import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from medrl.bundles import read_manifest


@pytest.fixture(scope="module")
def datalist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bright ball in noise; PET shows it too, but not for every patient."""
    folder = tmp_path_factory.mktemp("balls")
    rng = np.random.default_rng(0)
    shape = np.array([26, 28, 24])
    grid = np.stack(np.meshgrid(*[np.arange(n) for n in shape], indexing="ij"), -1)
    content: dict[str, list[dict[str, object]]] = {}
    for split, count in (("training", 3), ("validation", 1), ("test", 2)):
        content[split] = []
        for n in range(count):
            inside = np.linalg.norm(grid - shape / 2 - rng.uniform(-2, 2, 3), axis=-1) < 6
            files = {
                "ct": (60 + 100 * inside + 8 * rng.normal(size=shape)).astype(np.float32),
                "pet": (1 + 6 * inside + rng.random(shape)).astype(np.float32),
                "mask": (inside * np.where(grid[..., 1] > 14, 1, 2)).astype(np.uint8),
            }
            for name, array in files.items():
                nib.save(nib.Nifti1Image(array, np.eye(4)), folder / f"{split}{n}_{name}.nii.gz")
            image = {"CT": f"{split}{n}_ct.nii.gz"}
            if split != "test" or n == 0:
                image["PET"] = f"{split}{n}_pet.nii.gz"
            content[split].append({"image": image, "label": f"{split}{n}_mask.nii.gz"})
    path = folder / "datalist.json"
    path.write_text(json.dumps(content))
    return path


OPTIONS = (
    "--name", "balls", "--channels", "CT:hounsfield", "PET:suv",
    "--targets", "whole=1,2", "front=1", "--half-width", 10, "--threads", 1,
    "--sampling.window", 16, 16, 16, "--perception.steps", 2, "--perception.batch", 1,
    "--agent.imitation-steps", 1, "--agent.dqn-steps", 1, "--agent.windows", 2,
    "--agent.batch", 2,
)  # fmt: skip


@pytest.fixture(scope="module")
def trained(datalist: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a short training leaves behind; it measures the model, too."""
    from medrl.cli import main

    out = tmp_path_factory.mktemp("run")
    (out / "card.json").write_text('{"title": "Balls", "intended_use": "tests"}')
    (out / "licence.txt").write_text("Public domain.\n")
    files = ("--card", out / "card.json", "--licence", out / "licence.txt")
    line = ("train", "seednet", "--data", datalist, "-o", out, *OPTIONS, *files)
    assert main([str(word) for word in line]) == 0
    return out


def test_training_completes_the_bundle(trained: Path) -> None:
    manifest = read_manifest(trained / "balls")
    assert manifest["task"] == "seednet"
    assert manifest["card"]["title"] == "Balls"
    assert (trained / "balls" / "LICENSE").read_text() == "Public domain.\n"
    evaluation = json.loads((trained / "evaluation" / "evaluation.json").read_text())
    assert manifest["metrics"]["test"] == evaluation["targets"]
    assert set(evaluation["targets"]) == {"whole", "front"}
    assert evaluation["model"] == "balls"
    with (trained / "evaluation" / "rows.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    rows = [row for row in rows if row["metric"] == "dice"]
    methods = {row["method"] for row in rows}
    for target, figures in evaluation["targets"].items():
        assert set(figures["one_click"]) == methods
        for method, values in figures["one_click"].items():
            own = [
                float(row["value"])
                for row in rows
                if (row["group"], row["method"]) == (target, method)
            ]
            assert values["mean_dice"] == pytest.approx(np.mean(own), abs=1e-3)
            assert values["worst_dice"] == pytest.approx(min(own), abs=1e-3)


def test_evaluation_of_one_target_and_channel(
    medrl, trained: Path, datalist: Path, tmp_path: Path
) -> None:
    options = ("--model", trained / "balls", "--data", datalist, "-o", tmp_path, "--clicks", 1)
    chosen = ("--targets", "whole", "--channels", "CT")
    ended = medrl("evaluate", "seednet", *options, *chosen, "--json")
    assert ended.code == 0, ended.err
    summary = json.loads((tmp_path / "evaluation.json").read_text())
    assert ended.json() == summary
    assert list(summary["targets"]) == ["whole"]
    assert summary["channels"] == ["CT"]
    assert summary["targets"]["whole"]["cases"] == 2
    corrections = summary["targets"]["whole"]["dice_by_corrections"]
    assert all(len(path) == 2 for path in corrections.values())


def test_evaluation_prints_tables(medrl, trained: Path, datalist: Path, tmp_path: Path) -> None:
    options = ("--model", trained / "balls", "--data", datalist, "-o", tmp_path, "--clicks", 0)
    ended = medrl("evaluate", "seednet", *options, "--split", "validation")
    assert ended.code == 0, ended.err
    for word in ("whole: Dice from one click, 1 cases", "front", "worst", "network", "wrote"):
        assert word in ended.out
    assert "corrections" not in ended.out


def test_what_cannot_be_measured_is_refused(
    medrl, trained: Path, datalist: Path, bundle: Path, tmp_path: Path
) -> None:
    model = ("--model", trained / "balls")
    alone = tmp_path / "alone.json"
    content = json.loads(datalist.read_text())
    for case in content["training"]:
        case["image"] = {k: str(datalist.parent / f) for k, f in case["image"].items()}
        case["label"] = str(datalist.parent / case["label"])
    alone.write_text(json.dumps({"training": content["training"]}))
    for options, words in (
        ((*model, "--data", datalist, "--targets", "tail"), "no target 'tail'"),
        ((*model, "--data", datalist, "--channels", "MR"), "not at MR"),
        ((*model, "--data", datalist, "--channels", "PET"), "test1_mask has no image PET"),
        ((*model, "--data", datalist, "--clicks", "-1"), "--clicks"),
        ((*model, "--data", alone), "no scans in the split 'test'"),
        ((*model, "--data", tmp_path / "gone.json"), "cannot be read"),
        (("--model", bundle, "--data", datalist), "landmark model"),
        (("--model", "nobody", "--data", datalist), "no model 'nobody'"),
    ):
        ended = medrl("evaluate", "seednet", *options, "-o", tmp_path / "out")
        assert ended.code == 2, words
        assert ended.err.count("\n") == 1
        assert words in ended.err


def test_what_cannot_be_learned_from_is_refused(
    medrl, trained: Path, datalist: Path, tmp_path: Path
) -> None:
    bad = tmp_path / "bad.json"
    bad.write_text('{"training": [{"image": "a.nii"}]}')
    window = ("--sampling.window", 16, 16, 16)
    for options, words in (
        (("--data", bad), '"label"'),
        (("--data", datalist, "--targets", "a=b"), "NAME=LABEL"),
        (("--data", datalist), "the model knows ['MR']"),
        (("--data", datalist, *OPTIONS, "--card", tmp_path / "gone"), "cannot be read"),
        (("--data", datalist, *OPTIONS, "-o", trained), "resume"),
    ):
        ended = medrl("train", "seednet", "-o", tmp_path / "out", *window, *options)
        assert ended.code == 2, words
        assert ended.err.count("\n") == 1
        assert words in ended.err
