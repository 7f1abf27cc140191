"""`medrl evaluate` and `medrl train` on scans made for them."""

import csv
import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from medrl.bundles import load_weights, read_manifest

NAMES = ("AC", "PC")


@pytest.fixture(scope="module")
def datalist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Scans with two blobs each, and where they are."""
    folder = tmp_path_factory.mktemp("blobs")
    rng = np.random.default_rng(0)
    shape = np.array([28, 30, 26])
    grid = np.stack(np.meshgrid(*[np.arange(n) for n in shape], indexing="ij"), -1)
    content: dict[str, list[dict[str, str]]] = {}
    for split, count in (("training", 6), ("validation", 1), ("test", 3)):
        content[split] = []
        for n in range(count):
            points = rng.uniform(8, shape - 8, (2, 3))
            distance = np.linalg.norm(grid - points[:, None, None, None], axis=-1)
            volume = np.exp(-((distance / 4) ** 2)).max(axis=0) * 100 + rng.random(shape) * 5
            name = f"{split}{n}"
            image = nib.Nifti1Image(volume.astype(np.float32), np.diag([2.0, 2, 2, 1]))
            nib.save(image, folder / f"{name}.nii.gz")
            rows = [
                f"{label},{x},{y},{z}" for label, (x, y, z) in zip(NAMES, 2 * points, strict=True)
            ]
            (folder / f"{name}.csv").write_text("\n".join(["name,x,y,z", *rows]) + "\n")
            content[split].append({"image": f"{name}.nii.gz", "landmarks": f"{name}.csv"})
    path = folder / "datalist.json"
    path.write_text(json.dumps(content))
    return path


def test_evaluate(medrl, bundle: Path, datalist: Path, tmp_path: Path):
    ended = medrl(
        "evaluate", "landmark", "--model", bundle, "--data", datalist, "-o", tmp_path, "--json"
    )
    assert ended.code == 0
    summary = json.loads((tmp_path / "evaluation.json").read_text())
    assert ended.json() == summary
    assert summary["scans"] == 3
    assert set(summary["methods"]) == {"agents", "mean position"}

    # The figures once more, from the single errors; the mean position from the point files.
    with (tmp_path / "rows.csv").open(newline="") as stream:
        rows = [r for r in csv.DictReader(stream) if r["metric"] == "error_mm" and r["value"]]
    for method, figures in summary["methods"].items():
        errors = [float(r["value"]) for r in rows if r["method"] == method]
        assert figures["all"]["mean"] == pytest.approx(np.mean(errors), abs=1e-3)
        assert figures["all"]["p95"] == pytest.approx(np.percentile(errors, 95), abs=1e-3)
    mean = np.mean([points(datalist, "training", n)["AC"] for n in range(6)], axis=0)
    first = next(
        r for r in rows if (r["case"], r["group"], r["method"]) == ("test0", "AC", "mean position")
    )
    error = np.linalg.norm(mean - points(datalist, "test", 0)["AC"])
    assert float(first["value"]) == pytest.approx(error, abs=1e-3)
    with (tmp_path / "landmarks.csv").open(newline="") as stream:
        assert {r["landmark"] for r in csv.DictReader(stream)} >= {"all", "AC", "PC"}


def points(datalist: Path, split: str, n: int) -> dict[str, np.ndarray]:
    with (datalist.parent / f"{split}{n}.csv").open(newline="") as stream:
        return {r["name"]: np.array([float(r[a]) for a in "xyz"]) for r in csv.DictReader(stream)}


def test_evaluate_prints_a_table(medrl, bundle: Path, datalist: Path, tmp_path: Path):
    options = ("--model", bundle, "--data", datalist, "-o", tmp_path, "--split", "validation")
    ended = medrl("evaluate", "landmark", *options)
    assert ended.code == 0
    for word in ("median", "95 %", "> 10 mm", "mean position", "AC", "called absent"):
        assert word in ended.out


def test_bad_datalists(medrl, bundle: Path, tmp_path: Path):
    data = tmp_path / "datalist.json"
    for content, words in (
        (None, "cannot be read"),
        ("{", "not a JSON"),
        ('{"test": []}', '"training"'),
        ('{"training": [{"image": "a.nii"}]}', '"landmarks"'),
        ('{"training": [{"image": "a.nii", "landmarks": "a.csv"}]}', "does not exist"),
    ):
        if content is not None:
            data.write_text(content)
        for command in (
            ("evaluate", "landmark", "--model", bundle),
            ("train", "landmark"),
        ):
            ended = medrl(*command, "--data", data, "-o", tmp_path / "out")
            assert ended.code == 2
            assert ended.err.count("\n") == 1
            assert words in ended.err


def test_train(medrl, datalist: Path, head: Path, tmp_path: Path):
    card, licence = tmp_path / "card.json", tmp_path / "licence.txt"
    card.write_text('{"title": "Two blobs", "intended_use": "tests"}')
    licence.write_text("Public domain.\n")
    out = tmp_path / "out"
    settings = {
        "name": "blobs",
        "imitation-steps": (4, 4),
        "dqn-steps": (2, 2),
        "learner.spacings": (2.0, 4.0),
        "learner.window": 9,
        "learner.channels": (4, 8),
        "learner.features": 16,
        "learner.batch": 8,
        "learner.slots": 2,
        "learner.agents": 4,
        "learner.replay": 64,
        "card": card,
        "licence": licence,
    }
    options = [
        word
        for key, value in settings.items()
        for word in (f"--{key}", *(value if isinstance(value, tuple) else (value,)))
    ]
    ended = medrl("train", "landmark", "--data", datalist, "-o", out, *options)
    assert ended.code == 0, ended.err
    assert "2mm: " in ended.out
    manifest = read_manifest(out / "blobs")
    assert manifest["landmarks"] == list(NAMES)
    assert manifest["card"]["title"] == "Two blobs"
    evaluation = json.loads((out / "evaluation" / "evaluation.json").read_text())
    figures = manifest["metrics"]["test"]["error_mm"]["agents"]
    assert figures == evaluation["methods"]["agents"]["all"]
    assert load_weights(out / "blobs")
    assert (out / "blobs" / "LICENSE").read_text() == "Public domain.\n"
    assert list((out / "logs").rglob("events*"))
    assert medrl("detect", head, "-o", tmp_path / "d", "--model", out / "blobs").code == 0

    again = medrl("train", "landmark", "--data", datalist, "-o", out, *options)
    assert again.code == 2
    assert "resume" in again.err
