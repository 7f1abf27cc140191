"""Moved markups: where 3D Slicer, by its own reading of the file, would show them."""

import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from medrl.errors import MedrlError
from medrl.volume.moved_markups import move_markups
from medrl.volume.points import read_markups
from medrl.volume.space import apply_affine, box_corners
from medrl.volume.transform_files import to_itk

LPS = np.diag([-1.0, -1, 1, 1])
TURN = Rotation.from_euler("xyz", (20, -35, 50), degrees=True).as_matrix()
OWN = Rotation.from_euler("zxy", (15, 25, -40), degrees=True).as_matrix()
RIGID = np.eye(4)
RIGID[:3, :3], RIGID[:3, 3] = TURN, (12.5, -40, 33)
SIMILAR = RIGID @ np.diag([1.5, 1.5, 1.5, 1])
MIRROR = RIGID @ np.diag([-1.0, 1, 1, 1])
SHEAR = RIGID @ np.array([[1, 0.3, 0, 0], [0, 0.9, 0.1, 0], [0, 0, 1.2, 0], [0, 0, 0, 1]])
TRANSFORMS = {"rigid": RIGID, "similar": SIMILAR, "mirror": MIRROR, "shear": SHEAR}


def flip(system: str) -> np.ndarray:
    return LPS if system == "LPS" else np.eye(4)


def point(label: str, xyz, **more: Any) -> dict[str, Any]:
    return {"label": label, "position": list(map(float, xyz)), **more}


def markup_of(kind: str, system: str = "LPS", **more: Any) -> dict[str, Any]:
    return {"type": kind, "name": f"my {kind}", "coordinateSystem": system, **more}


def moved(tmp_path: Path, transform: np.ndarray, *markups: dict[str, Any], **root: Any):
    """The markups after the transform, the remarks, and how many points there were."""
    source, target = tmp_path / "a.mrk.json", tmp_path / "b.mrk.json"
    source.write_text(json.dumps({**root, "markups": list(markups)}))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        count = move_markups(source, target, transform)
    return json.loads(target.read_text()), [str(w.message) for w in caught], count


def by_itk(transform: np.ndarray, points_ras) -> np.ndarray:
    itk = to_itk(transform)
    points = np.asarray(points_ras, dtype=float).reshape(-1, 3) * (-1, -1, 1)
    return np.array([itk.TransformPoint(p) for p in points.tolist()]) * (-1, -1, 1)


@pytest.mark.parametrize("kind", ["Fiducial", "Line", "Angle", "Curve", "ClosedCurve"])
@pytest.mark.parametrize("system", ["LPS", "RAS", 0, 1, "1"])
def test_points_of_every_kind(tmp_path: Path, kind: str, system):
    """As ITK maps them; everything that is no place is what it was."""
    more = {"id": "7", "description": "seen", "associatedNodeID": "vtkMRMLScalarVolumeNode1"}
    more |= {"selected": False, "locked": True, "visibility": False, "positionStatus": "defined"}
    points = [point("a", (1, 2, 3), **more), point("b", (-4, 5, 6))]
    display = {"color": [0.1, 0.2, 0.3], "glyphScale": 2.5, "textScale": 3.0}
    told = {"locked": True, "labelFormat": "%N-%d", "lastUsedControlPointNumber": 9}
    mine = markup_of(kind, system, controlPoints=points, display=display, **told)
    content, remarks, count = moved(tmp_path, RIGID, mine, **{"@schema": "mine", "x": 1})
    assert (count, remarks) == (2, [])
    assert (content["@schema"], content["x"]) == ("mine", 1)
    (markup,) = content["markups"]
    sign = 1 if str(system) in ("RAS", "0") else -1
    was = np.array([p["position"] for p in points]) * (sign, sign, 1)
    now = np.array([p["position"] for p in markup["controlPoints"]]) * (sign, sign, 1)
    np.testing.assert_allclose(now, by_itk(RIGID, was), atol=1e-9)
    for p in (*markup["controlPoints"], *points):
        del p["position"]
    assert markup == mine


@pytest.mark.parametrize("name", ["rigid", "similar", "mirror"])
@pytest.mark.parametrize("system", ["LPS", "RAS"])
def test_box(tmp_path: Path, name: str, system: str):
    """Its eight corners go where ITK maps them."""
    transform = TRANSFORMS[name]
    f = flip(system)

    def corners(markup: dict[str, Any]) -> np.ndarray:
        axes = np.reshape(markup["orientation"], (3, 3))
        half = np.array(markup["size"]) / 2
        local = box_corners(-half, half)
        return apply_affine(f, local @ axes.T + markup["center"])

    box = markup_of(
        "ROI",
        system,
        roiType="Box",
        center=[5.0, -6.0, 7.0],
        orientation=(f[:3, :3] @ OWN).ravel().tolist(),
        size=[10.0, 20.0, 30.0],
        insideOut=True,
        controlPoints=[point("R-1", (5, -6, 7))],
    )
    content, _, count = moved(tmp_path, transform, box)
    (after,) = content["markups"]
    assert (count, after["insideOut"], after["roiType"]) == (1, True, "Box")
    wanted, found = by_itk(transform, corners(box)), corners(after)
    distances = np.linalg.norm(wanted[:, None] - found[None], axis=-1)
    np.testing.assert_allclose(distances.min(axis=1), 0, atol=1e-9)
    np.testing.assert_allclose(distances.min(axis=0), 0, atol=1e-9)
    assert np.linalg.det(np.reshape(after["orientation"], (3, 3))) > 0
    np.testing.assert_allclose(after["controlPoints"][0]["position"], after["center"], atol=1e-9)


def test_a_box_is_not_sheared(tmp_path: Path):
    box = markup_of("ROI", center=[0.0, 0, 0], orientation=OWN.ravel().tolist(), size=[1.0, 2, 3])
    with pytest.raises(MedrlError, match=r"a\.mrk\.json: the ROI 'my ROI' would be sheared"):
        moved(tmp_path, SHEAR, box)
    assert not (tmp_path / "b.mrk.json").exists()


def slicer_plane(markup: dict[str, Any]) -> tuple[np.ndarray, np.ndarray]:
    """Object to world (RAS) as Slicer reads it, with rows of both matrices turned; the bounds."""
    f = flip(markup["coordinateSystem"])
    base, within = (f @ np.reshape(markup[k], (4, 4)) for k in ("baseToNode", "objectToBase"))
    return base @ within, np.reshape(markup["planeBounds"], (2, 2))


@pytest.mark.parametrize("name", list(TRANSFORMS))
@pytest.mark.parametrize("system", ["LPS", "RAS"])
@pytest.mark.parametrize("offset", [(0.0, 0, 0), (3.0, -2, 0)])
def test_plane(tmp_path: Path, name: str, system: str, offset):
    transform, f = TRANSFORMS[name], flip(system)
    base, within = np.eye(4), np.eye(4)
    base[:3, :3], base[:3, 3], within[:3, 3] = OWN, (5, -6, 7), offset
    place = base @ within
    plane = markup_of(
        "Plane",
        system,
        planeType="PointNormal",
        sizeMode="absolute",
        autoScalingFactor=1.0,
        center=apply_affine(f, place[:3, 3]).tolist(),
        normal=(f[:3, :3] @ OWN[:, 2]).tolist(),
        objectToBase=(f @ within).ravel().tolist(),
        baseToNode=(f @ base).ravel().tolist(),
        orientation=(f[:3, :3] @ OWN).ravel().tolist(),
        size=[20.0, 10.0, 0.0],
        planeBounds=[-10.0, 10.0, -4.0, 6.0],
        controlPoints=[point("P-1", apply_affine(f, place[:3, 3]))],
    )
    content, remarks, _ = moved(tmp_path, transform, plane)
    (after,) = content["markups"]
    there, bounds = slicer_plane(after)
    # Its origin, and its points by ITK: they lie in the plane, its front on the same side.
    np.testing.assert_allclose(there[:3, 3], by_itk(transform, place[:3, 3])[0], atol=1e-9)
    np.testing.assert_allclose(apply_affine(f, after["center"]), there[:3, 3], atol=1e-9)
    np.testing.assert_allclose(there[:3, :3].T @ there[:3, :3], np.eye(3), atol=1e-9)
    assert np.linalg.det(there[:3, :3]) > 0
    np.testing.assert_allclose(
        f[:3, :3] @ np.reshape(after["orientation"], (3, 3)), there[:3, :3], atol=1e-9
    )
    np.testing.assert_allclose(f[:3, :3] @ after["normal"], there[:3, 2], atol=1e-9)
    inside = apply_affine(place, [[3, 0, 0], [0, 5, 0], [-7, 2, 0], [0, 0, 4]])
    local = apply_affine(np.linalg.inv(there), by_itk(transform, inside))
    np.testing.assert_allclose(local[:3, 2], 0, atol=1e-9)
    assert local[3, 2] > 0
    edges = apply_affine(place, [[-10, 0, 0], [10, 0, 0], [0, -4, 0], [0, 6, 0]])
    ends = apply_affine(np.linalg.inv(there), by_itk(transform, edges))
    np.testing.assert_allclose(bounds[0], sorted(ends[:2, 0]), atol=1e-9)
    np.testing.assert_allclose(bounds[1], sorted(ends[2:, 1]), atol=1e-9)
    np.testing.assert_allclose(after["size"][:2], np.ptp(bounds, axis=1), atol=1e-9)
    assert any("edges are sheared" in r for r in remarks) == (name == "shear")


def test_axes_of_points_turn(tmp_path: Path):
    one = point("a", (1, 2, 3), orientation=(LPS[:3, :3] @ OWN).ravel().tolist())
    content, _, _ = moved(tmp_path, SIMILAR, markup_of("Fiducial", controlPoints=[one]))
    (after,) = content["markups"][0]["controlPoints"]
    axes = LPS[:3, :3] @ np.reshape(after["orientation"], (3, 3))
    np.testing.assert_allclose(axes, TURN @ OWN, atol=1e-9)


def test_points_that_are_not_placed(tmp_path: Path):
    points = [
        point("A", (1, 2, 3), positionStatus="defined"),
        point("B", (0, 0, 0), positionStatus="undefined"),
        point("C", (0, 0, 0), positionStatus="missing"),
        point("D", (9, 9, 9), positionStatus="preview"),
        {"label": "E"},
    ]
    content, remarks, count = moved(tmp_path, RIGID, markup_of("Fiducial", controlPoints=points))
    assert count == 1
    assert [p["label"] for p in content["markups"][0]["controlPoints"]] == ["A"]
    assert remarks[0].endswith("not placed are left out: 'B', 'C', 'D', 'E'")
    with pytest.raises(MedrlError, match="no points that are placed"):
        moved(tmp_path, RIGID, markup_of("Fiducial", controlPoints=points[1:]))


def test_measurements_are_kept_if_they_still_hold(tmp_path: Path):
    measured = [{"name": "length", "enabled": True, "value": 10.0, "units": "mm"}]
    line = markup_of("Line", controlPoints=[point("a", (1, 2, 3))], measurements=measured)
    content, remarks, _ = moved(tmp_path, RIGID, line)
    assert (content["markups"][0]["measurements"], remarks) == (measured, [])
    content, remarks, _ = moved(tmp_path, SIMILAR, line)
    (left,) = content["markups"][0]["measurements"]
    assert left == {"name": "length", "enabled": True, "units": "mm"}
    assert "measurements of the Line 'my Line' are left out" in remarks[0]


def test_units_and_systems_of_the_whole_file(tmp_path: Path):
    """Said once, at the top; and another unit in one markup of several."""
    first = {"type": "Fiducial", "name": "a", "controlPoints": [point("A", (1000, 2000, 3000))]}
    second = {**first, "name": "b", "coordinateUnits": "cm", "coordinateSystem": "LPS"}
    second["controlPoints"] = [point("B", (1, 2, 3))]
    shared = {"coordinateSystem": "RAS", "coordinateUnits": ["um", "UCUM", "micrometer"]}
    content, _, count = moved(tmp_path, RIGID, first, second, **shared)
    assert count == 2
    np.testing.assert_allclose(
        [m.points_world[0] for m in read_markups(tmp_path / "b.mrk.json")],
        by_itk(RIGID, [(1, 2, 3), (-10, -20, 30)]),
        atol=1e-9,
    )
    assert [m["coordinateUnits"] for m in content["markups"]] == [shared["coordinateUnits"], "cm"]


def test_what_may_be_a_place_and_is_not_known_is_told(tmp_path: Path):
    odd = markup_of(
        "TubeLesion", axis=[0.0, 0, 1], color="red", controlPoints=[point("a", (1, 2, 3))]
    )
    content, remarks, _ = moved(tmp_path, RIGID, odd)
    assert content["markups"][0]["axis"] == [0.0, 0, 1]
    assert "axis of the TubeLesion 'my TubeLesion' may be places" in remarks[0]


@pytest.mark.parametrize(
    ("markup", "says"),
    [
        (markup_of("ROI", center=[1, 2]), "center of the ROI 'my ROI' is not 3 finite numbers"),
        (markup_of("ROI", center=[1, 2, 3], size="big"), "size of the ROI"),
        (markup_of("ROI", orientation=[0] * 9), "orientation of the ROI 'my ROI' is singular"),
        (markup_of("ROI", orientation=(2 * OWN).ravel().tolist()), "no matrix of unit vectors"),
        (markup_of("Plane", normal=[0, 0, 0]), "no direction"),
        (markup_of("Plane", baseToNode=[1] * 16), "baseToNode of the Plane 'my Plane' is singular"),
        (
            markup_of("Fiducial", "IJK", controlPoints=[point("a", (1, 2, 3))]),
            "neither LPS nor RAS",
        ),
        (markup_of("Fiducial", 2, controlPoints=[point("a", (1, 2, 3))]), "neither LPS nor RAS"),
        (markup_of("Fiducial", controlPoints=[point("a", (1, 2))]), "position of 'a'"),
        (markup_of("Fiducial", controlPoints=7), "not a list of points"),
    ],
)
def test_damaged_markups(tmp_path: Path, markup, says: str):
    with pytest.raises(MedrlError, match=says) as caught:
        moved(tmp_path, RIGID, markup)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "b.mrk.json").exists()
