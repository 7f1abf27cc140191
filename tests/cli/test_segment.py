"""`medrl segment`: from seeds to files, and one clear line for whatever is wrong."""

import json
from dataclasses import asdict
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch

from medrl.bundles import network_tensors, save
from medrl.data.targets import Target
from medrl.seednet.model import ModelSettings, SeedModel
from medrl.systems import by_verb
from medrl.volume.boxes import box_row, write_boxes, write_boxes_csv
from medrl.volume.channels import Channel

CENTER = np.array([-8.0, 22.0, 15.0])
SEED = "fg:-8,22,15"
SHAPE = (24, 26, 20)
KINDS = (".seg.nii.gz", ".seeds.mrk.json", ".trajectory.json", ".png")


def make_bundle(folder: Path, *channels: Channel) -> Path:
    """A model that knows nothing: its prior is faint everywhere, its agent expects nothing."""
    torch.manual_seed(0)
    settings = ModelSettings(
        channels=channels or (Channel("MR"),),
        targets=(Target("hippocampus"), Target("anterior", (2,))),
        spacing=2.0,
        half_width=8,
        widths=(4, 4, 4, 4),
    )
    model = SeedModel(settings, settings.build_network().eval())
    manifest = {
        "format": "medrl-bundle",
        "version": 1,
        "name": folder.name,
        "task": "seednet",
        "settings": asdict(settings),
        "card": {"title": "Random weights for seeds", "licence": "CC0"},
        "metrics": {},
        "versions": {"medrl": "0"},
    }
    return save(folder, network_tensors(model.network), manifest, half=False)


@pytest.fixture(scope="module")
def seeder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_bundle(tmp_path_factory.mktemp("models") / "seeder")


@pytest.fixture(scope="module")
def scan(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bright ball in noise, flipped and turned, CENTER in its middle."""
    turn = np.radians(10)
    affine = np.eye(4)
    affine[:3, :3] = np.array(
        [[-np.cos(turn), -np.sin(turn), 0], [-np.sin(turn), np.cos(turn), 0], [0, 0, 1]]
    ) @ np.diag([2.0, 2.0, 2.5])
    affine[:3, 3] = CENTER - affine[:3, :3] @ ((np.array(SHAPE) - 1) / 2)
    voxel = np.stack(np.meshgrid(*[np.arange(n) for n in SHAPE], indexing="ij"), -1)
    distance = np.linalg.norm(nib.affines.apply_affine(affine, voxel) - CENTER, axis=-1)
    noise = np.random.default_rng(0).uniform(0, 40, SHAPE)
    path = tmp_path_factory.mktemp("scans") / "ball.nii.gz"
    nib.save(nib.Nifti1Image((400 * (distance < 12) + noise).astype(np.float32), affine), path)
    return path


def assert_one_line(ended, code: int, *parts: str) -> None:
    assert ended.code == code
    assert ended.out == ""
    (line,) = ended.err.splitlines()
    assert line.startswith("medrl: error: ")
    for part in parts:
        assert part in line


def test_files(medrl, seeder: Path, scan: Path, tmp_path: Path):
    out = tmp_path / "new" / "folder"
    ended = medrl(
        "segment", scan, "--seed", SEED, "--seed", "bg:-8,22,33", "--model", seeder, "-o", out
    )
    assert ended.code == 0, ended.err
    assert sorted(p.name for p in out.iterdir()) == sorted(f"ball{kind}" for kind in KINDS)
    assert "hippocampus" in ended.out
    image, source = nib.load(out / "ball.seg.nii.gz"), nib.load(scan)
    assert image.shape == source.shape
    np.testing.assert_allclose(image.affine, source.affine, atol=1e-5)
    mask = np.asarray(image.dataobj)
    inverse = np.linalg.inv(source.affine)
    for point, label in ((CENTER, 1), (CENTER + np.array([0, 0, 18.0]), 0)):
        voxel = np.floor(nib.affines.apply_affine(inverse, point) + 0.5).astype(int)
        assert mask[tuple(voxel)] == label
    (markup,) = json.loads((out / "ball.seeds.mrk.json").read_text())["markups"]
    labels = [point["label"] for point in markup["controlPoints"]]
    assert labels[:2] == ["fg-1", "bg-1"]
    np.testing.assert_allclose(markup["controlPoints"][0]["position"], CENTER * (-1, -1, 1))
    record = json.loads((out / "ball.trajectory.json").read_text())
    assert record["task"] == "seednet"


def test_the_same_seeds_in_all_forms(medrl, seeder: Path, scan: Path, tmp_path: Path):
    """RAS, LPS, and the file of the first run give the same mask."""
    options = ("--model", seeder, "--no-picture", "--json", "--target", "anterior")
    first = medrl("segment", scan, "--seed", SEED, "-o", tmp_path / "a", *options)
    report = first.json()
    assert report["objects"][0]["target"] == "anterior"
    assert report["seeds"][0]["points"] == [CENTER.tolist()]
    forms = {
        "b": ("--seed", "fg:8,-22,15", "--space", "LPS"),
        "c": ("--seeds", tmp_path / "a" / "ball.seeds.mrk.json"),
    }
    mask = nib.load(report["files"]["mask"]).get_fdata()
    for name, form in forms.items():
        again = medrl("segment", scan, *form, "-o", tmp_path / name, *options).json()
        np.testing.assert_array_equal(nib.load(again["files"]["mask"]).get_fdata(), mask)
        assert again["objects"][0]["user_seeds"] == 1
    alone = medrl("segment", scan, "--seed", SEED, "-o", tmp_path / "d", "--no-agent", *options)
    assert alone.json()["objects"][0]["agent_seeds"] == 0
    none = medrl("segment", scan, "--seed", SEED, "-o", tmp_path / "e", "--max-seeds", 0, *options)
    assert none.json()["objects"][0]["outcome"] == "placing"


def test_images_of_several_channels(medrl, scan: Path, tmp_path: Path):
    bundle = make_bundle(tmp_path / "both", Channel("CT", "hounsfield"), Channel("PET", "suv"))
    source = nib.load(scan)
    pet, ct = tmp_path / "pet.nii.gz", tmp_path / "ct.nii.gz"
    nib.save(nib.Nifti1Image(source.get_fdata() / 50, source.affine), pet)
    nib.save(nib.Nifti1Image(source.get_fdata() * 3 - 900, source.affine), ct)
    run = ("--seed", SEED, "--model", bundle, "--no-picture", "--no-agent", "--json")
    for number, images in enumerate(
        (
            (ct,),
            (pet, "--channel", "PET"),
            (ct, "--image", f"PET={pet}"),
            ("--image", f"PET={pet}", "--image", f"CT={ct}"),
        )
    ):
        ended = medrl("segment", *images, *run, "-o", tmp_path / str(number))
        assert ended.code == 0, ended.err
    assert Path(ended.json()["files"]["mask"]).name == "pet.seg.nii.gz"
    bad = {
        (ct, "--channel", "MR"): (1, "not at MR"),
        (ct, "--image", "PET"): (2, "CHANNEL=PATH"),
        (ct, "--channel", "PET", "--image", f"PET={pet}"): (2, "same channel"),
        ("--image", f"PET={ct}"): (1, "looks like a CT"),
        ("--channel", "PET", "--image", f"PET={pet}"): (2, "--channel says what SCAN is"),
    }
    for images, (code, message) in bad.items():
        assert_one_line(medrl("segment", *images, *run, "-o", tmp_path / "bad"), code, message)


def test_a_box_in_place_of_seeds(medrl, seeder: Path, scan: Path, tmp_path: Path):
    """Typed in both spaces, in files, in a manifest: the same mask, with nothing outside it."""
    low, high = CENTER - np.array([14, 12, 10]), CENTER + np.array([13, 12, 11])
    boxes, table = tmp_path / "boxes.mrk.json", tmp_path / "one.csv"
    write_boxes(boxes, {"ball": [low, high], "other": [low - 5, high]})
    write_boxes_csv(table, [box_row("ball", [low, high])])
    typed = ",".join(map(str, (*low, *high)))
    flipped = ",".join(map(str, (*(low * (-1, -1, 1)), *(high * (-1, -1, 1)))))
    options = ("--model", seeder, "--no-picture", "--json")
    forms = {
        "a": (typed,),
        "b": (flipped, "--space", "LPS"),
        "c": (f"{boxes}:ball",),
        "d": (table,),
    }
    masks = []
    for name, form in forms.items():
        ended = medrl("segment", scan, "--box", *form, "-o", tmp_path / name, *options)
        assert ended.code == 0, ended.err
        report = ended.json()
        assert report["objects"][0]["user_seeds"] == 1
        masks.append(nib.load(report["files"]["mask"]).get_fdata())
    (tmp_path / "list.csv").write_text(f"scan,box\n{scan},boxes.mrk.json:ball\n")
    batch = ("--model", seeder, "--no-picture")
    ended = medrl("batch", "segment", tmp_path / "list.csv", tmp_path / "e", *batch)
    assert ended.code == 0, ended.err
    (mask,) = (tmp_path / "e").rglob("*.seg.nii.gz")
    for other in (*masks[1:], nib.load(mask).get_fdata()):
        np.testing.assert_array_equal(other, masks[0])
    assert masks[0].any()
    where = nib.affines.apply_affine(nib.load(scan).affine, np.argwhere(masks[0]))
    assert (where >= low).all()
    assert (where <= high).all()
    seeded = ("--seed", SEED, "--box", typed, "--no-agent")
    report = medrl("segment", scan, *seeded, "-o", tmp_path / "f", *options).json()
    assert [seed["points"] for seed in report["seeds"]] == [[CENTER.tolist()]]
    wrong = {
        boxes: (2, "name one, as in"),
        f"{boxes}:none": (2, "no box 'none'; it has ball, other"),
        "1,2,3": (2, "neither x0,y0,z0,x1,y1,z1"),
        "500,0,0,600,1,1": (1, "outside the scan, which covers"),
    }
    for box, (code, message) in wrong.items():
        ended = medrl("segment", scan, "--box", box, "-o", tmp_path / "bad", *options)
        assert_one_line(ended, code, message)


def test_wrong_usage(medrl, seeder: Path, bundle: Path, scan: Path, tmp_path: Path):
    out = tmp_path / "out"
    wrong = {
        (scan,): "at least one seed inside the object",
        (scan, "--seed", "bg:1,2,3"): "at least one seed inside the object",
        (scan, "--seed", "1,2,3"): "fg:x,y,z",
        (scan, "--seeds", tmp_path / "none.mrk.json"): "no such file",
        ("--seed", SEED): "name a scan",
        (scan, "--seed", SEED, "--target", "liver"): "it has hippocampus, anterior",
        (scan, "--seed", SEED, "--max-seeds", "-1"): "negative",
        (scan, "--seed", SEED, "--device", "abacus"): "not a device",
        (scan, "--seed", SEED, "--model", bundle): "is a landmark model",
    }
    for arguments, message in wrong.items():
        model = () if "--model" in arguments else ("--model", seeder)
        assert_one_line(medrl("segment", *arguments, *model, "-o", out), 2, message)
    assert not out.exists() or list(out.iterdir()) == []


def test_scans_that_cannot_be_segmented(medrl, seeder: Path, scan: Path, tmp_path: Path):
    source = nib.load(scan)
    ct = tmp_path / "ct.nii.gz"
    nib.save(nib.Nifti1Image(source.get_fdata() * 3 - 900, source.affine), ct)
    thin = tmp_path / "thin.nii.gz"
    nib.save(nib.Nifti1Image(source.get_fdata()[:, :, 9:12], source.affine), thin)
    out = tmp_path / "out"
    bad = {
        (tmp_path / "none.nii.gz", SEED): "no such file",
        (scan, "fg:-8,22,150"): "outside the scan, which covers",
        (scan, SEED, "--seed", "bg:-8,22,15.3"): "same voxel",
        (ct, SEED): "looks like a CT",
        (thin, SEED): "a volume, not a slice",
    }
    for (path, *seeds), message in bad.items():
        ended = medrl("segment", path, "--seed", *seeds, "--model", seeder, "-o", out)
        assert_one_line(ended, 1, str(path), message)
    assert list(out.iterdir()) == []


def test_which_model_ships(monkeypatch, seeder: Path, tmp_path: Path):
    import medrl.bundles
    from medrl.bundles import Bundle, read_manifest

    both = make_bundle(tmp_path / "both", Channel("CT", "hounsfield"), Channel("PET", "suv"))
    shipped = [Bundle(p.name, p, read_manifest(p)) for p in (both, seeder)]
    monkeypatch.setattr(medrl.bundles, "available", lambda: shipped)
    system = by_verb("segment")
    given = system.given()
    assert system.choose_model(given, ["scan"]) == "seeder"
    assert system.choose_model(given, ["PET"]) == "both"
    assert system.choose_model(given, ["PET", "CT"]) == "both"
    with pytest.raises(medrl.errors.MedrlError, match="segments US: name one"):
        system.choose_model(given, ["US"])


def test_other_commands_know_such_models(medrl, seeder: Path, scan: Path, tmp_path: Path):
    ended = medrl("detect", scan, "-o", tmp_path, "--model", seeder)
    assert_one_line(ended, 2, "medrl segment")
    card = medrl("info", seeder)
    assert card.code == 0
    for text in ("Random weights for seeds", "hippocampus", "anterior", "MR"):
        assert text in card.out
