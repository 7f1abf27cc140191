"""Frames of points that are known: closed forms, rigid moves, wrong and absent points."""

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from medrl.alignment.frames import fit_acpc, fit_mni, needed, template_points
from medrl.errors import MedrlError
from medrl_datasets.afids_templates import LANDMARKS
from tests.alignment.conftest import moved

#: A head that is symmetric about x = 0, with AC in the origin.
SYMMETRIC = {
    "AC": (0, 0, 0), "PC": (0, -26, 0), "PMJ": (0, -25, -18), "genu of CC": (0, 30, 8),
    "splenium of CC": (0, -40, 12), "R MB": (2, -10, -10), "L MB": (-2, -10, -10),
    "R AL temporal horn": (34, -8, -22), "L AL temporal horn": (-34, -8, -22),
    "R superior LMS": (13, -28, -5), "L superior LMS": (-13, -28, -5),
}  # fmt: skip


def symmetric() -> dict[str, np.ndarray]:
    return {name: np.array(place, dtype=float) for name, place in SYMMETRIC.items()}


def rigid(seed: int) -> np.ndarray:
    matrix = np.eye(4)
    matrix[:3, :3] = Rotation.random(random_state=seed).as_matrix()
    matrix[:3, 3] = np.random.default_rng(seed).uniform(-80, 80, 3)
    return matrix


def turned_deg(one: np.ndarray, other: np.ndarray) -> float:
    return float(np.degrees(Rotation.from_matrix(one[:3, :3].T @ other[:3, :3]).magnitude()))


@pytest.mark.parametrize("seed", range(6))
def test_a_symmetric_head_that_is_moved_is_told_where_it_was(seed):
    matrix = rigid(seed)
    found = fit_acpc(moved(symmetric(), matrix))
    np.testing.assert_allclose(found.transform_world, matrix, atol=1e-9)
    assert found.figures["ac_pc_mm"] == pytest.approx(26)
    assert found.figures["plane_rms_mm"] == pytest.approx(0, abs=1e-9)
    assert not found.doubts


def test_the_origin_may_lie_between_the_commissures():
    found = fit_acpc(symmetric(), origin="midpoint")
    np.testing.assert_allclose(found.transform_world[:3, 3], (0, -13, 0))


@pytest.mark.parametrize("name", ["Colin27_T1w_ch2", "MNI305_T1w", "MNI152NLin2009aSym_T1w"])
def test_the_frame_of_real_points_is_rigid_and_moves_with_the_head(templates, name):
    points = templates[name]
    frame = fit_acpc(points).transform_world
    there = moved(points, np.linalg.inv(frame))
    np.testing.assert_allclose(there["AC"], 0, atol=1e-9)
    np.testing.assert_allclose(there["PC"][[0, 2]], 0, atol=1e-9)
    assert there["PC"][1] < 0 < there["R AL temporal horn"][0]
    assert there["PMJ"][2] < 0 < there["R LV at AC"][2]
    np.testing.assert_allclose(frame[:3, :3].T @ frame[:3, :3], np.eye(3), atol=1e-12)
    assert np.linalg.det(frame[:3, :3]) == pytest.approx(1)
    matrix = rigid(3)
    np.testing.assert_allclose(
        fit_acpc(moved(points, matrix)).transform_world, matrix @ frame, atol=1e-6
    )


def test_the_plane_of_a_symmetric_template_is_its_own(templates):
    frame = fit_acpc(templates["MNI152NLin2009aSym_T1w"]).transform_world
    assert np.degrees(np.arccos(frame[0, 0])) < 1.0  # its halves mirror each other at x = 0


def test_few_wrong_points_do_no_harm(templates):
    points = dict(templates["Colin27_T1w_ch2"])
    right = fit_acpc(points).transform_world
    for name, off in {
        "PMJ": (15, 0, 0), "culmen": (-20, 5, 0), "R AL temporal horn": (0, 0, 25),
        "L inferior LMS": (0, 0, -12),
    }.items():  # fmt: skip
        points[name] = points[name] + off
    assert turned_deg(fit_acpc(points).transform_world, right) < 1.0


@pytest.mark.parametrize(
    ("gone", "line"),
    [
        (("AC",), "AC is not in the scan"),
        (("AC", "PC"), "AC and PC are not in the scan"),
        (tuple(n for n in SYMMETRIC if n[:2] in ("R ", "L ")), "tells right from left"),
    ],
)
def test_what_is_missing_for_the_frame_is_said(gone, line):
    points = {name: place for name, place in symmetric().items() if name not in gone}
    with pytest.raises(MedrlError, match=line):
        fit_acpc(points)


def test_how_sure_the_roll_is():
    points = {name: symmetric()[name] for name in ("AC", "PC", "R MB", "L MB")}
    assert "how the head is rolled" in fit_acpc(points).doubts[0]
    near = {name: points[name] * (1, 1, 0.1) for name in points}
    with pytest.raises(MedrlError, match="too few points beside AC and PC"):
        fit_acpc(near)


def test_commissures_too_far_apart_are_refused_or_doubted():
    points = symmetric()
    with pytest.raises(MedrlError, match=r"70\.0 mm apart"):
        fit_acpc(points | {"PC": np.array([0.0, -70, 0])})
    assert "36.0 mm apart" in fit_acpc(points | {"PC": np.array([0.0, -36, 0])}).doubts[0]


def affine(seed: int = 0) -> np.ndarray:
    matrix = rigid(seed)
    matrix[:3, :3] = matrix[:3, :3] @ (
        np.diag([1.1, 0.9, 1.05]) + np.array([[0, 0.05, 0], [0, 0, -0.04], [0.02, 0, 0]])
    )
    return matrix


def test_an_affine_copy_of_the_template_comes_back():
    matrix = affine()
    found = fit_mni(moved(template_points(), matrix))
    np.testing.assert_allclose(found.transform_world, matrix, atol=1e-9)
    assert found.figures["residual_mm"] == pytest.approx(0, abs=1e-9)


def test_wrong_points_are_left_out_of_the_affine_transform():
    matrix, points = affine(1), moved(template_points(), affine(1))
    wrong = ("AC", "culmen", "L AL temporal horn", "R ventral occipital horn", "PMJ")
    for n, name in enumerate(wrong):
        points[name] = points[name] + np.array([30.0 - 7 * n, 12, -25 + 9 * n])
    found = fit_mni(points)
    np.testing.assert_allclose(found.transform_world, matrix, atol=1e-9)
    assert set(found.residuals_mm) - set(found.used) == set(wrong)


def test_points_count_as_much_as_they_weigh():
    # Of twelve points one is off; weighted least squares solved by normal equations.
    points = {name: place for name, place in list(template_points().items())[8:24]}
    points["R LV at AC"] = points["R LV at AC"] + (0, 3.0, 0)
    weights = dict.fromkeys(points, 1.0) | {"R LV at AC": 0.25}
    found = fit_mni(points, weights)
    x = np.array([[*place, 1] for place in points.values()])
    w = np.diag(list(weights.values()))
    y = np.array([template_points()[name] for name in points])
    expected = np.linalg.solve(x.T @ w @ x, x.T @ w @ y).T
    np.testing.assert_allclose(np.linalg.inv(found.transform_world)[:3], expected, atol=1e-9)


def test_one_template_lies_on_the_other(templates):
    found = fit_mni(templates["Colin27_T1w_ch2"])
    assert found.figures["residual_mm"] < 2.5
    assert np.abs(found.transform_world[:3, :3] - np.eye(3)).max() < 0.2


@pytest.mark.parametrize(
    ("names", "line"),
    [
        (LANDMARKS[:7], "7 of the points"),
        (("AC", "PC", "genu of CC", "splenium of CC", "PMJ", "culmen", "pineal gland",
          "intermammillary sulcus", "infracollicular sulcus"), "in one plane"),
    ],
)  # fmt: skip
def test_what_is_missing_for_mni_space_is_said(names, line):
    points = {name: template_points()[name] for name in names}
    with pytest.raises(MedrlError, match=line):
        fit_mni(points)


def test_the_points_that_ship_are_those_of_the_experts(templates):
    own, theirs = template_points(), templates["MNI152NLin2009cAsym_T1w_brain"]
    assert tuple(own) == LANDMARKS
    for name in LANDMARKS:
        np.testing.assert_allclose(own[name], theirs[name], atol=6e-4)


def test_a_model_must_know_the_points():
    assert needed("acpc", LANDMARKS) == needed("mni", LANDMARKS) == ""
    assert "AC and PC" in needed("acpc", ["Putamen_L_centroid"])
    assert "left and right" in needed("acpc", ["AC", "PC", "PMJ", "R MB"])
    assert "0 of the 8" in needed("mni", ["Putamen_L_centroid"])
