"""`medrl train registration` and `medrl evaluate registration` on scans made for them."""

import csv
import json
from functools import partial
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from medrl.bundles import read_manifest
from medrl.cli import main
from medrl.registration import refine
from medrl.registration import train as recipe
from medrl.registration.calibrate import calibrate
from medrl.registration.network import LevelSettings

SHAPE, SPACING = (30, 36, 32), 5.0
OPTIONS = (
    "--name", "heads", "--threads", 1,
    "--imitation.steps", 2, "--imitation.batch", 4, "--imitation.pairs", 2,
    "--reinforcement.steps", 1, "--reinforcement.agents", 2, "--reinforcement.horizon", 2,
    "--reinforcement.pairs", 2,
)  # fmt: skip


@pytest.fixture(scope="module", autouse=True)
def quick():
    """Small networks, a short refinement, and one round of calibration."""
    small = {"channels": (4, 8), "strides": (2, 2), "squeeze": 4, "features": 16, "memory": 8}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(recipe, "COARSE", LevelSettings(spacing=10.0, window=12, **small))
        patch.setattr(recipe, "FINE", LevelSettings(spacing=5.0, window=16, **small))
        patch.setattr(recipe, "calibrate", partial(calibrate, rounds=2))
        patch.setattr(recipe, "_COMPARED", 4)
        patch.setattr(refine, "_SCHEDULE", ((2, 1.0, 2_000, 5, 1.0),))
        yield


def head_like(seed: int) -> np.ndarray:
    """Ellipsoids with texture in a larger one, in air."""
    rng = np.random.default_rng(seed)
    grid = np.stack(np.meshgrid(*[np.linspace(-1.2, 1.2, n) for n in SHAPE], indexing="ij"), -1)
    values = 500.0 * ((grid**2).sum(axis=-1) < 1)
    for center, axes, bright in (
        ((0.2, 0.4, 0.2), (0.3, 0.2, 0.3), 150.0),
        ((-0.4, -0.2, 0.0), (0.2, 0.4, 0.3), 900.0),
        ((0.2, -0.5, -0.4), (0.4, 0.2, 0.2), 250.0),
    ):
        apart = (grid - center - rng.uniform(-0.05, 0.05, 3)) / axes
        values[(apart**2).sum(axis=-1) < 1] = bright
    texture = gaussian_filter(rng.normal(size=SHAPE), 1.5)
    values *= 1 + 0.2 * texture / texture.std()
    return (values.clip(0) + rng.uniform(0, 20, SHAPE)).astype(np.float32)


@pytest.fixture(scope="module")
def datalist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("heads")
    affine = np.diag([SPACING, SPACING, SPACING, 1.0])
    affine[:3, 3] = (-70, -90, -60)
    content: dict[str, list[dict[str, str]]] = {}
    for split, count in (("training", 2), ("validation", 1), ("test", 1)):
        content[split] = []
        for n in range(count):
            name = f"{split}{n}.nii.gz"
            nib.save(nib.Nifti1Image(head_like(10 * len(content) + n), affine), folder / name)
            content[split].append({"image": name})
    path = folder / "datalist.json"
    path.write_text(json.dumps(content))
    return path


@pytest.fixture(scope="module")
def trained(datalist: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a short training leaves behind; it measures the model, too."""
    out = tmp_path_factory.mktemp("run")
    (out / "card.json").write_text('{"title": "Heads", "intended_use": "tests"}')
    (out / "licence.txt").write_text("Public domain.\n")
    files = ("--card", out / "card.json", "--licence", out / "licence.txt")
    line = ("train", "registration", "--data", datalist, "-o", out, *OPTIONS, *files)
    assert main([str(word) for word in line]) == 0
    return out


def test_training_completes_the_bundle(trained: Path) -> None:
    manifest = read_manifest(trained / "heads")
    assert manifest["task"] == "registration"
    assert manifest["card"]["title"] == "Heads"
    assert (trained / "heads" / "LICENSE").read_text() == "Public domain.\n"
    evaluation = json.loads((trained / "evaluation" / "evaluation.json").read_text())
    assert evaluation["model"] == "heads"
    assert list(evaluation["bands"]) == ["10", "30", "60", "any"]
    assert manifest["metrics"]["test"]["bands"] == evaluation["bands"]
    # The figures once more, from the single errors.
    with (trained / "evaluation" / "rows.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    errors = {
        (r["group"], r["method"]): float(r["value"]) for r in rows if r["metric"] == "error_mm"
    }
    for band, figures in evaluation["bands"].items():
        assert figures["cases"] == 1
        for method, values in figures["methods"].items():
            assert values["median_error_mm"] == pytest.approx(errors[band, method])
            assert values["right"] == (errors[band, method] < 2)
    right = sum(error < 2 for (_, method), error in errors.items() if method == "medrl")
    told = evaluation["confidence"]
    assert (told["right"], told["wrong"]) == (right, 4 - right)
    trusted = [r["value"] for r in rows if (r["method"], r["metric"]) == ("medrl", "trusted")]
    doubted = sum(float(value) == 0 for value in trusted)
    assert told["right_flagged"] + told["wrong_flagged"] == doubted


def test_cases_do_not_depend_on_the_bands_chosen(
    medrl, trained: Path, datalist: Path, tmp_path: Path
) -> None:
    options = ("--model", trained / "heads", "--data", datalist, "-o", tmp_path)
    ended = medrl("evaluate", "registration", *options, "--bands", 30, "--json")
    assert ended.code == 0, ended.err
    summary = json.loads((tmp_path / "evaluation.json").read_text())
    assert ended.json() == summary
    evaluation = json.loads((trained / "evaluation" / "evaluation.json").read_text())
    assert summary["bands"] == {"30": evaluation["bands"]["30"]}
    moved = summary["bands"]["30"]["methods"]["identity"]["median_error_mm"]
    assert 2 < moved < 100


def test_evaluation_prints_tables_and_names_what_failed(
    medrl, trained: Path, datalist: Path, tmp_path: Path
) -> None:
    flat = tmp_path / "flat.nii.gz"
    nib.save(nib.Nifti1Image(np.full((9, 9, 9), 7.0, np.float32), np.eye(4)), flat)
    good = {"image": str(datalist.parent / "validation0.nii.gz")}
    data = tmp_path / "mixed.json"
    data.write_text(json.dumps({"training": [good], "test": [{"image": str(flat)}, good]}))
    options = ("--model", trained / "heads", "--data", data, "-o", tmp_path / "out")
    ended = medrl("evaluate", "registration", *options, "--bands", "any", "10")
    assert ended.code == 1
    assert ended.err.count("\n") == 1
    assert str(flat) in ended.err
    for word in ("any turn, 60 mm", "10 deg, 10 mm", "SimpleITK", "agent alone", "identity",
                 "/1", "were not trusted", "wrote"):  # fmt: skip
        assert word in ended.out
    data.write_text(json.dumps({"training": [good], "test": [{"image": str(flat)}]}))
    ended = medrl("evaluate", "registration", *options)
    assert ended.code == 2
    assert "no scan could be used" in ended.err


def test_what_cannot_be_measured_or_learned_from_is_refused(
    medrl, trained: Path, datalist: Path, bundle: Path, tmp_path: Path
) -> None:
    scan = {"image": str(datalist.parent / "test0.nii.gz")}
    contents = {
        "alone": {"training": [scan]},
        "unnamed": {"training": [scan, {"label": "a.nii"}]},
        "missing": {"training": [scan], "validation": [{"image": "gone.nii.gz"}]},
    }
    lists = {name: tmp_path / f"{name}.json" for name in (*contents, "none")}
    for name, content in contents.items():
        lists[name].write_text(json.dumps(content))
    model = ("--model", trained / "heads")
    evaluate, train = ("evaluate", "registration"), ("train", "registration")
    for line, words in (
        ((*evaluate, *model, "--data", lists["alone"]), "no scans in the split 'test'"),
        ((*evaluate, *model, "--data", lists["unnamed"]), 'entry 1 of "training" needs "image"'),
        ((*evaluate, *model, "--data", lists["missing"]), "gone.nii.gz does not exist"),
        ((*evaluate, *model, "--data", lists["none"]), "cannot be read"),
        ((*evaluate, "--model", bundle, "--data", datalist), "is a landmark model"),
        ((*evaluate, "--model", "nobody", "--data", datalist), "no model 'nobody'"),
        ((*train, "--data", lists["alone"]), 'no "validation" scans'),
        ((*train, "--data", lists["unnamed"]), 'entry 1 of "training" needs "image"'),
        ((*train, "--data", lists["missing"]), "gone.nii.gz does not exist"),
        ((*train, "--data", lists["none"]), "cannot be read"),
        ((*train, "--data", datalist, "--card", tmp_path / "gone"), "cannot be read"),
        ((*train, "--data", datalist, *OPTIONS, "-o", trained), "resume"),
    ):
        out = () if "-o" in line else ("-o", tmp_path / "out")
        ended = medrl(*line, *out)
        assert ended.code == 2, words
        assert ended.err.count("\n") == 1
        assert words in ended.err
    assert medrl(*evaluate, *model, "--data", datalist, "-o", tmp_path, "--bands", 45).code == 2


def test_other_commands_say_what_the_model_is_for(
    medrl, trained: Path, datalist: Path, tmp_path: Path
) -> None:
    scan, model = datalist.parent / "test0.nii.gz", trained / "heads"
    out = ("-o", tmp_path / "out")
    for line, words in (
        (("detect", scan, "--model", model, *out), "medrl register"),
        (("segment", scan, "--seed", "fg:0,0,0", "--model", model, *out), "medrl register"),
        (("export", model, *out), "only models that take one scan"),
    ):
        ended = medrl(*line)
        assert ended.code == 2
        assert ended.err.count("\n") == 1
        assert words in ended.err
        assert str(model) in ended.err
    card = medrl("info", model).out
    assert "registration" in card
    assert "Heads" in card


def test_models_says_what_a_registration_model_finds(
    medrl, trained: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from medrl.bundles import folder

    monkeypatch.setattr(folder, "_SHIPPED", trained)
    (line,) = (line for line in medrl("models").out.splitlines() if line.startswith("heads"))
    assert "the transform between two scans" in line
    (model,) = medrl("models", "--json").json()
    assert (model["name"], model["task"]) == ("heads", "registration")
