"""`medrl register`: from two scans to files, and one clear line for whatever is wrong."""

import json
from dataclasses import dataclass, field
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
import torch
from scipy.ndimage import gaussian_filter

from medrl.registration import register
from medrl.registration.checks import check_pair
from medrl.registration.register import Registration
from medrl.registration.results import remarks
from medrl.trajectory import AgentPath, Trajectory
from medrl.volume.read import read
from medrl.volume.transform_files import write_transform
from medrl.volume.transform_forms import FORMS

#: 90 degrees about the z axis, and a shift; fixed to moving, RAS mm.
TRUE = np.array([[0, -1, 0, 6], [1, 0, 0, -4], [0, 0, 1, 2], [0, 0, 0, 1.0]])
SHAPE = (24, 26, 22)
KINDS = ("tfm", "matrix.txt", "nii.gz", "trajectory.json", "report.json")
PICTURES = ("before-after.png", "checkerboard.png")


def brick(path: Path, affine: np.ndarray, *, hole: bool = False) -> Path:
    noise = gaussian_filter(np.random.default_rng(0).normal(size=SHAPE), 2)
    voxels = (1000 * (noise - noise.min())).astype(np.float32)
    if hole:
        voxels[3, 4, 5] = np.nan
    nib.save(nib.Nifti1Image(voxels, affine), path)
    return path


def grid(*origin: float) -> np.ndarray:
    affine = np.diag([2.0, 2.0, 2.0, 1.0])
    affine[:3, 3] = origin
    return affine


@pytest.fixture
def fixed(tmp_path: Path) -> Path:
    return brick(tmp_path / "fixed.nii.gz", grid(-24, -26, -22))


@pytest.fixture
def moving(tmp_path: Path) -> Path:
    """The same voxels where the true transform brings them: moved back, they are the fixed ones."""
    return brick(tmp_path / "moving.nii.gz", TRUE @ grid(-24, -26, -22))


@dataclass
class Stub:
    """A registrar that knows the answer, checks as the real one does, and keeps what it is told."""

    confidence: float | None = 0.95
    told: dict = field(default_factory=dict)
    manifest: dict = field(default_factory=lambda: {"name": "stub"})

    def register(self, fixed, moving, **told) -> Registration:
        self.told.update(told)
        masks = (told["fixed_mask"], told["moving_mask"])
        check_pair(fixed, moving, *masks, told["transform"], told["initial_world"])
        agent = AgentPath(
            "moving scan", 0, np.zeros((1, 3)), np.array([8.0]), np.array([-1]), np.array([-1.0]),
            transforms=TRUE[None],
        )  # fmt: skip
        path = Trajectory("registration", (agent,), {"model": "stub"})
        notes = remarks(fixed, moving, started=told["initial_world"] is not None)
        return Registration(
            TRUE, told["transform"], self.confidence, 0.3, np.eye(4), told["refine"], path, fixed,
            moving, tuple(notes),
        )  # fmt: skip


@pytest.fixture
def stub(monkeypatch: pytest.MonkeyPatch) -> Stub:
    stub = Stub()
    monkeypatch.setattr(register.Registrar, "load", lambda *args, **kwargs: stub)
    return stub


def assert_one_line(ended, code: int, *parts: object) -> None:
    assert ended.code == code
    assert ended.out == ""
    (line,) = ended.err.splitlines()
    assert line.startswith("medrl: error: ")
    for part in parts:
        assert str(part) in line


def test_files(medrl, stub: Stub, fixed: Path, moving: Path, tmp_path: Path):
    out = tmp_path / "new" / "folder"
    ended = medrl("register", fixed, moving, "-o", out)
    assert (ended.code, ended.err) == (0, "")
    names = {f"moving_to_fixed.{kind}" for kind in (*KINDS, *PICTURES)}
    assert {p.name for p in out.iterdir()} == names
    assert all(f"wrote {out / name}" in ended.out for name in names)
    assert "trusted" in ended.out
    assert stub.told["refine"] is True
    assert stub.told["initial_world"] is None
    there = nib.load(out / "moving_to_fixed.nii.gz")
    wanted = nib.load(fixed)
    np.testing.assert_allclose(there.affine, wanted.affine, atol=1e-5)
    np.testing.assert_allclose(there.get_fdata(), wanted.get_fdata(), rtol=1e-3, atol=1)
    # The same by SimpleITK alone, from the files.
    image = sitk.Resample(
        sitk.ReadImage(str(moving)),
        sitk.ReadImage(str(fixed)),
        sitk.ReadTransform(str(out / "moving_to_fixed.tfm")),
    )
    inner = (slice(2, -2),) * 3
    voxels = sitk.GetArrayFromImage(image).transpose(2, 1, 0)[inner]
    np.testing.assert_allclose(voxels, wanted.get_fdata()[inner], rtol=1e-3, atol=1)
    np.testing.assert_array_equal(np.loadtxt(out / "moving_to_fixed.matrix.txt"), TRUE)


def test_report(medrl, stub: Stub, fixed: Path, moving: Path, tmp_path: Path):
    ended = medrl("register", fixed, moving, "-o", tmp_path, "--json", "--no-picture")
    report = ended.json()
    assert report["model"] == "stub"
    assert report["transform_world"] == TRUE.tolist()
    assert report["turn_deg"] == pytest.approx(90)
    assert report["trusted"] is True
    assert report["nmi_after"] > 1.8 > report["nmi_before"]
    files = report.pop("files")
    assert sorted(files) == ["matrix", "report", "scan", "trajectory", "transform"]
    assert report.pop("doubt") is None
    assert json.loads(Path(files["report"]).read_text()) == report


@pytest.mark.parametrize("form", ["matrix", "fsl"])
def test_the_start_is_what_it_is_named(medrl, stub: Stub, fixed, moving, tmp_path: Path, form: str):
    start = tmp_path / "start.mat"
    write_transform(start, TRUE, form=form, fixed=read(fixed), moving=read(moving))
    run = ("register", fixed, moving, "-o", tmp_path / "out", "--init", start, "--no-picture")
    ended = medrl(*run, "--init-form", form)
    assert ended.code == 0, ended.err
    np.testing.assert_allclose(stub.told["initial_world"], TRUE, atol=1e-6)
    assert f"started from {FORMS[form]}" in ended.err
    assert medrl(*run, "--init-form", "flirt").code == 2
    guessed = medrl(*run)
    assert guessed.code == 0, guessed.err
    assert "the transform to start from: taken as" in guessed.err
    np.testing.assert_allclose(stub.told["initial_world"], TRUE, atol=1e-6)


def test_options_reach_the_library(medrl, stub: Stub, fixed: Path, moving: Path, tmp_path: Path):
    start = tmp_path / "start.txt"
    np.savetxt(start, TRUE)
    masks = []
    for scan in (fixed, moving):
        image = nib.load(scan)
        voxels = image.get_fdata()
        mask = nib.Nifti1Image((voxels > voxels.mean()).astype(np.uint8), image.affine)
        masks.append(scan.with_name(f"mask_{scan.name}"))
        nib.save(mask, masks[-1])
    ended = medrl(
        *("register", fixed, moving, "-o", tmp_path / "out", "--transform", "affine"),
        *("--no-refine", "--init", start, "--fixed-mask", masks[0], "--moving-mask", masks[1]),
        *("--also", "ants", "fsl", "lta", "--no-picture"),
    )
    assert ended.code == 0
    (note,) = ended.err.splitlines()
    assert "started from a 4x4 world matrix" in note
    assert (stub.told["transform"], stub.told["refine"]) == ("affine", False)
    np.testing.assert_array_equal(stub.told["initial_world"], TRUE)
    assert torch.equal(stub.told["fixed_mask"], stub.told["moving_mask"])
    written = {p.name.removeprefix("moving_to_fixed.") for p in (tmp_path / "out").iterdir()}
    assert written == {*KINDS, "ants.mat", "fsl.mat", "lta"}
    text = (tmp_path / "out" / "moving_to_fixed.tfm").read_text()
    assert "AffineTransform" in text


def test_doubt_is_said(medrl, stub: Stub, fixed: Path, moving: Path, tmp_path: Path):
    """Before and after the output, whatever it is, and in the report; files are written."""
    stub.confidence = 0.07
    for options in ((), ("--json",), ("--no-picture",)):
        ended = medrl("register", fixed, moving, "-o", tmp_path / "out", *options)
        assert ended.code == 0
        first, last = ended.err.splitlines()
        for line in (first, last):
            assert line.startswith(f"medrl: warning: {moving}: NOT TRUSTED: confidence 0.07")
        report = json.loads((tmp_path / "out" / "moving_to_fixed.report.json").read_text())
        assert report["trusted"] is False
    stub.confidence = None
    ended = medrl("register", fixed, moving, "-o", tmp_path / "out", "--no-picture", "--json")
    assert "confidence unknown" in ended.err
    assert ended.json()["confidence"] is None


def test_scans_of_the_same_name(medrl, stub: Stub, fixed: Path, moving: Path, tmp_path: Path):
    for name, scan in (("ann", fixed), ("bob", moving)):
        (tmp_path / name).mkdir()
        scan.rename(tmp_path / name / "t1.nii.gz")
    scans = (tmp_path / "ann" / "t1.nii.gz", tmp_path / "bob" / "t1.nii.gz")
    medrl("register", *scans, "-o", tmp_path / "out", "--no-picture")
    names = {p.name for p in (tmp_path / "out").iterdir()}
    assert names == {f"bob_t1_to_ann_t1.{kind}" for kind in KINDS}


def test_scans_apart_in_the_world(medrl, stub: Stub, fixed: Path, tmp_path: Path):
    """Said, not refused: agents find what lies apart."""
    far = brick(tmp_path / "far.nii.gz", grid(700, 0, 0))
    ended = medrl("register", fixed, far, "-o", tmp_path / "out", "--no-picture")
    assert ended.code == 0
    assert f"medrl: note: {far}: does not overlap {fixed} in world" in ended.err
    start = tmp_path / "start.txt"
    np.savetxt(start, np.eye(4))
    ended = medrl("register", fixed, far, "-o", tmp_path / "out2", "--init", start)
    assert_one_line(ended, 1, fixed, far, "do not overlap after the initial transform")
    assert not list((tmp_path / "out2").iterdir())


def test_bad_scans(medrl, stub: Stub, fixed: Path, tmp_path: Path):
    hole = brick(tmp_path / "hole.nii.gz", grid(0, 0, 0), hole=True)
    flat = tmp_path / "flat.nii.gz"
    nib.save(nib.Nifti1Image(np.full(SHAPE, 3.0), np.eye(4)), flat)
    ramp = np.arange(np.prod(SHAPE) * 3, dtype=np.float32)
    slice_ = tmp_path / "slice.nii.gz"
    nib.save(nib.Nifti1Image(ramp[:900].reshape(30, 30), np.eye(4)), slice_)
    series = tmp_path / "series.nii.gz"
    nib.save(nib.Nifti1Image(ramp.reshape(*SHAPE, 3), np.eye(4)), series)
    missing = tmp_path / "missing.nii.gz"
    says = {hole: "NaN", flat: "blank", slice_: "2D", series: "channel", missing: "no such file"}
    for bad, reason in says.items():
        for pair in ((fixed, bad), (bad, fixed)):
            ended = medrl("register", *pair, "-o", tmp_path / "out")
            assert_one_line(ended, 1, bad, reason)
    assert not list((tmp_path / "out").iterdir())


def test_bad_masks_and_starts(medrl, stub: Stub, fixed: Path, moving: Path, tmp_path: Path):
    empty = tmp_path / "empty.nii.gz"
    nib.save(nib.Nifti1Image(np.zeros(SHAPE, np.uint8), nib.load(moving).affine), empty)
    ended = medrl("register", fixed, moving, "-o", tmp_path, "--moving-mask", empty)
    assert_one_line(ended, 1, empty, "excludes everything")
    wide = tmp_path / "wide.txt"
    np.savetxt(wide, TRUE @ np.diag([1.3, 1, 1, 1]))
    ended = medrl("register", fixed, moving, "-o", tmp_path, "--init", wide)
    assert_one_line(ended, 1, "wrong kind: it is affine, wanted is rigid")
    bent = tmp_path / "bspline.tfm"
    sitk.WriteTransform(sitk.BSplineTransform(3), str(bent))
    ended = medrl("register", fixed, moving, "-o", tmp_path, "--init", bent)
    assert_one_line(ended, 1, bent, "bends space")
    ended = medrl("register", fixed, moving, "-o", tmp_path, "--init", tmp_path / "none.tfm")
    assert_one_line(ended, 1, "none.tfm: no such file")


def test_bad_usage(medrl, fixed: Path, moving: Path, tmp_path: Path):
    ended = medrl("register", fixed, moving, "-o", tmp_path, "--model", "no-such-model")
    assert_one_line(ended, 2, "no-such-model")
    ended = medrl("register", fixed, moving, "-o", fixed / "out")
    assert_one_line(ended, 2, "cannot write into the output folder")
    assert medrl("register", fixed, moving, "-o", tmp_path, "--transform", "bspline").code == 2
    assert medrl("register", fixed, "-o", tmp_path).code == 2
