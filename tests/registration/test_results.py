"""What a registration leaves on disk, against SimpleITK; and its pictures."""

import json
import math
from dataclasses import dataclass, field
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
import torch
from monai.data.meta_tensor import MetaTensor
from scipy.ndimage import gaussian_filter
from scipy.spatial.transform import Rotation

from medrl.errors import MedrlError
from medrl.registration import results
from medrl.registration.picture import draw_before_after, draw_checkerboard
from medrl.registration.results import registration_report, write_results
from medrl.trajectory import AgentPath, Trajectory, read_trajectory
from medrl.volume.itk import to_sitk
from medrl.volume.read import read, write_nifti
from medrl.volume.resample import move_scan
from medrl.volume.space import apply_affine
from medrl.volume.transform_files import read_transform, to_itk

TURN = Rotation.from_euler("xyz", (10, -15, 20), degrees=True)


def transform_of(shift=(4.0, -6.0, 8.0)) -> np.ndarray:
    matrix = np.eye(4)
    matrix[:3, :3] = TURN.as_matrix()
    matrix[:3, 3] = shift
    return matrix


@dataclass(frozen=True, eq=False)
class Answer:
    """Stands in for `medrl.registration.register.Registration`."""

    transform_world: np.ndarray = field(default_factory=transform_of)
    kind: str = "rigid"
    confidence: float = 0.97
    predicted_error_mm: float = 0.4
    agent_transform_world: np.ndarray = field(default_factory=transform_of)
    refined: bool = True
    trusted: bool = True
    fixed: MetaTensor | None = None
    moving: MetaTensor | None = None
    warnings: tuple[str, ...] = ("look",)
    seconds: float = 1.23456

    @property
    def trajectory(self) -> Trajectory:
        agent = AgentPath(
            "rigid", 0, np.zeros((1, 3)), [8.0], np.array([-1]), [math.nan],
            transforms=self.transform_world[None],
        )  # fmt: skip
        return Trajectory("registration", (agent,), {"model": "rigid-head"})


def blobs(shape, affine, name) -> MetaTensor:
    """Smooth noise in an ellipsoid, in air."""
    noise = gaussian_filter(np.random.default_rng(0).normal(size=shape), 2)
    grid = np.stack(np.meshgrid(*[np.linspace(-1.3, 1.3, n) for n in shape], indexing="ij"))
    voxels = (500 + 4000 * noise) * ((grid**2).sum(axis=0) < 1)
    tensor = torch.from_numpy(np.maximum(voxels, 0).astype(np.float32))[None]
    return MetaTensor(tensor, affine=torch.tensor(affine), meta={"filename_or_obj": name})


@pytest.fixture(scope="module")
def moving() -> MetaTensor:
    affine = np.diag([-2.0, 2.0, 2.5, 1.0])
    affine[:3, 3] = (38, -40, -45)
    return blobs((40, 42, 36), affine, "/data/moving.nii.gz")


@pytest.fixture(scope="module")
def fixed(moving: MetaTensor) -> MetaTensor:
    """The moving scan as SimpleITK resamples it, on an oblique grid."""
    turn = Rotation.from_euler("z", 9, degrees=True).as_matrix()
    affine = np.eye(4)
    affine[:3, :3] = turn @ np.diag([2.0, 2.2, 2.4])
    affine[:3, 3] = (-45, -48, -42)
    grid = MetaTensor(torch.zeros(1, 44, 42, 38), affine=torch.tensor(affine))
    voxels = resampled(moving, transform_of(), grid, sitk.sitkLinear)
    meta = {"filename_or_obj": "/data/fixed.nii.gz"}
    return MetaTensor(torch.from_numpy(voxels)[None], affine=grid.affine, meta=meta)


def resampled(moving, matrix, grid, how) -> np.ndarray:
    """What SimpleITK makes of it."""
    image = sitk.Resample(to_sitk(moving), to_sitk(grid), to_itk(matrix), how, 0.0)
    return sitk.GetArrayFromImage(image).transpose(2, 1, 0)


def test_moved_as_by_simpleitk(fixed: MetaTensor, moving: MetaTensor):
    after = move_scan(moving, transform_of(), fixed)
    np.testing.assert_allclose(after.affine, fixed.affine)
    inner = (slice(4, -4),) * 3
    np.testing.assert_allclose(after.numpy()[0][inner], fixed.numpy()[0][inner], atol=12)
    labels = MetaTensor((moving.as_tensor() // 100), affine=moving.affine)
    found = move_scan(labels, transform_of(), fixed, nearest=True).numpy()[0]
    wanted = resampled(labels, transform_of(), fixed, sitk.sitkNearestNeighbor)
    # Where two voxels are equally near, either is right.
    assert (found == wanted).mean() > 0.999
    assert set(np.unique(found)) <= set(np.unique(labels.numpy()))


def test_files(tmp_path: Path, fixed: MetaTensor, moving: MetaTensor):
    pytest.importorskip("nitransforms")
    answer = Answer(fixed=fixed, moving=moving)
    also = ("ants", "fsl", "lta")
    files, report = write_results(tmp_path, "m_to_f", answer, also=also)
    endings = (
        *("tfm", "matrix.txt", "nii.gz", "trajectory.json", "report.json", "ants.mat"),
        *("fsl.mat", "lta", "before-after.png", "checkerboard.png"),
    )
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted(f"m_to_f.{e}" for e in endings)
    assert set(files.values()) == set(tmp_path.iterdir())
    for kind in ("transform", "matrix", *also):
        matrix = read_transform(files[kind], fixed=fixed, moving=moving)
        np.testing.assert_allclose(matrix, answer.transform_world, atol=1e-4)
    assert type(sitk.ReadTransform(str(files["transform"]))) is sitk.Euler3DTransform
    image = nib.load(files["scan"])
    assert image.shape == tuple(fixed.shape[1:])
    np.testing.assert_allclose(image.affine, fixed.affine, atol=1e-5)
    (agent,) = read_trajectory(files["trajectory"]).agents
    np.testing.assert_array_equal(agent.transforms[-1], answer.transform_world)
    assert json.loads(files["report"].read_text()) == report


def test_the_moved_scan_lies_on_a_scan_with_two_forms(
    tmp_path: Path, fixed: MetaTensor, moving: MetaTensor, with_two_forms, lies_on
):
    write_nifti(tmp_path / "fixed.nii", fixed)
    with_two_forms(tmp_path / "fixed.nii")
    with pytest.warns(UserWarning, match="sform .* and qform .* disagree"):
        there = read(tmp_path / "fixed.nii")
    (tmp_path / "out").mkdir()
    answer = Answer(fixed=there, moving=moving)
    files, _ = write_results(tmp_path / "out", "m_to_f", answer, picture=False)
    lies_on(files["scan"], tmp_path / "fixed.nii")


def test_report(fixed: MetaTensor, moving: MetaTensor):
    answer = Answer(fixed=fixed, moving=moving)
    before, after = (move_scan(moving, m, fixed) for m in (np.eye(4), answer.transform_world))
    report = registration_report(answer, before=before, after=after)
    assert (report["fixed"], report["moving"]) == ("/data/fixed.nii.gz", "/data/moving.nii.gz")
    product = np.array(report["transform_world"]) @ np.array(report["inverse_world"])
    np.testing.assert_allclose(product, np.eye(4), atol=1e-12)
    assert report["turn_deg"] == pytest.approx(np.degrees(TURN.magnitude()))
    middle = apply_affine(fixed.affine, (np.array(fixed.shape[1:]) - 1) / 2)
    moved = apply_affine(answer.transform_world, middle)
    assert report["shift_mm"] == pytest.approx(np.linalg.norm(moved - middle))
    assert 1 <= report["nmi_before"] < 1.2 < report["nmi_after"] <= 2
    assert 0.7 < report["overlap"] <= 1
    known = [report[key] for key in ("model", "warnings", "seconds")]
    assert known == ["rigid-head", ["look"], 1.235]


def test_report_of_a_failure(fixed: MetaTensor, moving: MetaTensor):
    """Nothing in common, nothing known: None, and valid JSON."""
    far, scans = transform_of((900, 0, 0)), {"fixed": fixed, "moving": moving}
    answer = Answer(far, confidence=None, predicted_error_mm=math.inf, **scans)
    after = move_scan(moving, answer.transform_world, fixed)
    report = registration_report(answer, before=after, after=after)
    assert report["overlap"] == 0
    unknown = ("nmi_after", "confidence", "predicted_error_mm")
    assert [report[key] for key in unknown] == [None] * 3
    json.dumps(report, allow_nan=False)
    draw_before_after(fixed, after, after, report)


def test_all_or_nothing(tmp_path: Path, fixed: MetaTensor, moving: MetaTensor, monkeypatch):
    def broken(*args: object, **kwargs: object) -> None:
        raise MedrlError("no")

    monkeypatch.setattr(results, "write_nifti", broken)
    (tmp_path / "x.tfm").write_text("of an earlier run")
    with pytest.raises(MedrlError, match="no"):
        write_results(tmp_path, "x", Answer(fixed=fixed, moving=moving), picture=False)
    assert [p.name for p in tmp_path.iterdir()] == ["x.tfm"]
    assert (tmp_path / "x.tfm").read_text() == "of an earlier run"


def test_a_matrix_that_is_not_of_its_kind(tmp_path: Path, fixed: MetaTensor, moving: MetaTensor):
    wide = transform_of() @ np.diag([1.2, 1, 1, 1])
    with pytest.raises(MedrlError, match="not rigid but affine"):
        write_results(tmp_path, "x", Answer(wide, fixed=fixed, moving=moving), picture=False)
    assert not list(tmp_path.iterdir())


def colourfulness(figure) -> list[float]:
    """Of each panel, the share of pixels that are not grey."""
    figure.canvas.draw()
    pixels = np.asarray(figure.canvas.buffer_rgba())[..., :3].astype(int)
    out = []
    for panel in figure.axes:
        (x0, y0), (x1, y1) = panel.get_window_extent().get_points().astype(int)
        part = pixels[pixels.shape[0] - y1 : pixels.shape[0] - y0, x0:x1]
        out.append(float((np.ptp(part, axis=-1) > 60).mean()))
    return out


def test_picture_is_grey_where_scans_agree(fixed: MetaTensor, moving: MetaTensor):
    before = move_scan(moving, np.eye(4), fixed)
    report = registration_report(Answer(fixed=fixed, moving=moving), before=before, after=fixed)
    figure = draw_before_after(fixed, before, fixed, report, title="x")
    coloured = colourfulness(figure)
    assert len(coloured) == 6
    assert min(coloured[:3]) > 0.02
    assert max(coloured[3:]) < 0.002


def test_checkerboard_shows_both(fixed: MetaTensor, moving: MetaTensor):
    """Of a blank moved scan, about half of the fixed one is left."""
    report = registration_report(Answer(fixed=fixed, moving=moving), before=fixed, after=fixed)

    def brightness(after: MetaTensor) -> float:
        figure = draw_checkerboard(fixed, after, report)
        return sum(panel.images[-1].get_array().sum() for panel in figure.axes)

    nothing = MetaTensor(torch.zeros_like(fixed.as_tensor()), affine=fixed.affine)
    assert brightness(nothing) / brightness(fixed) == pytest.approx(0.5, abs=0.12)


@pytest.mark.parametrize("trusted", [True, False])
def test_doubt_is_in_the_picture(fixed: MetaTensor, moving: MetaTensor, trusted: bool):
    answer = Answer(trusted=trusted, confidence=0.1, fixed=fixed, moving=moving)
    report = registration_report(answer, before=fixed, after=fixed)
    for figure in (
        draw_before_after(fixed, fixed, fixed, report),
        draw_checkerboard(fixed, fixed, report),
    ):
        texts = " ".join(text.get_text() for text in figure.texts)
        assert ("NOT TRUSTED" in texts) is not trusted
        assert "confidence 0.10" in texts
