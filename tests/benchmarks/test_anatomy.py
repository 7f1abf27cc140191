import numpy as np
import pytest
from evaluation.anatomy import MIDLINE_FIDUCIALS, CommissureFrame, anatomy
from evaluation.ixi import LANDMARKS
from scipy.spatial.transform import Rotation

from medrl_datasets import afids_templates


def fiducials_in_frame() -> dict[str, np.ndarray]:
    """Midline fiducials at x = 0, AC and PC 26 mm apart about the origin."""
    rng = np.random.default_rng(0)
    points = {n: rng.uniform(-40, 40, 3) * (0, 1, 1) for n in MIDLINE_FIDUCIALS}
    return {**points, "AC": np.array([0.0, 13.0, 0.0]), "PC": np.array([0.0, -13.0, 0.0])}


def test_frame_undoes_a_rigid_motion() -> None:
    rotation = Rotation.from_euler("xyz", [10, -15, 20], degrees=True)
    shift = np.array([5.0, -30.0, 12.0])
    moved = {name: rotation.apply(p) + shift for name, p in fiducials_in_frame().items()}
    frame = CommissureFrame.of(moved)
    for inside in ([1.0, 2.0, 3.0], [-20.0, 5.0, -8.0]):
        np.testing.assert_allclose(frame(rotation.apply(inside) + shift), inside, atol=1e-9)
    assert np.linalg.det(frame.axes) == pytest.approx(1)


def test_relations_between_landmarks_hold_in_labelled_heads(data_root, monkeypatch) -> None:
    """Heads have no fiducials, so those of a template stand in after a rigid fit of the heads."""
    monkeypatch.setenv("MEDRL_DATA", str(data_root.resolve()))
    from evaluation import ixi

    fiducials = afids_templates.DATASET.landmarks(data_root / "afids_templates")["MNI152Lin_T1w"]
    pairs = [n for n in LANDMARKS if "_R_" in n]
    for shape in ixi.shapes("train"):
        head = dict(zip(LANDMARKS, shape, strict=True))
        mates = [(head[n], head[n.replace("_R_", "_L_")]) for n in pairs]
        x = np.mean([right - left for right, left in mates], axis=0)
        x /= np.linalg.norm(x)
        y = head["CC_genu_anterior"] - head["CC_splenium_posterior"]
        y -= y @ x * x
        y /= np.linalg.norm(y)
        axes = np.stack([x, y, np.cross(x, y)])
        middle = np.mean([(right + left) / 2 for right, left in mates], axis=0)
        frame = CommissureFrame.of(fiducials)
        in_frame = {n: (p - middle) @ axes.T for n, p in head.items()}
        world = {n: p @ frame.axes + frame.origin for n, p in in_frame.items()}
        held = {check.name: check.holds for check in anatomy(world, fiducials)}
        own = [n for n in held if "AFIDs" not in n and "AC" not in n and "horn" not in n]
        own = [n for n in own if "culmen" not in n and "PMJ" not in n]
        assert [n for n in own if not held[n]] == []


def test_a_landmark_on_the_wrong_side_is_noticed(data_root) -> None:
    fiducials = afids_templates.DATASET.landmarks(data_root / "afids_templates")["MNI152Lin_T1w"]
    points = {name: np.zeros(3) for name in LANDMARKS}
    points["Thalamus_L_centroid"] = np.array([11.0, -17.0, 8.0])
    points["Thalamus_R_centroid"] = np.array([11.0, -17.0, 8.0])
    del points["CC_genu_anterior"]
    lateral = {c.name: c.holds for c in anatomy(points, fiducials)}
    assert lateral["thalamus R: lateral"]
    assert not lateral["thalamus L: lateral"]
    assert not any("genu" in name for name in lateral)
