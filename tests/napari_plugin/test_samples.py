"""Sample data: what a new user sees after two clicks."""

import builtins

import napari
import numpy as np
import pytest
from napari.components import ViewerModel
from napari.layers import Layer

from medrl import LandmarkDetector
from medrl.cli.demo import write_template
from medrl.errors import MedrlError
from medrl.volume.read import read
from medrl_napari.samples import head, head_with_search, recorded_search, sample_scan

#: Centroids in the template's space, as its atlases have them (RAS mm).
ATLAS = {
    "Putamen_L_centroid": (-25, 1, 0),
    "Thalamus_R_centroid": (11, -18, 7),
    "Hippocampus_L_centroid": (-25, -23, -14),
    "Caudate_R_centroid": (13, 10, 11),
}


def test_the_head_is_the_demos(tmp_path):
    write_template(tmp_path / "head.nii.gz")
    written, sample = read(tmp_path / "head.nii.gz"), sample_scan()
    np.testing.assert_array_equal(written.affine, sample.affine)
    np.testing.assert_allclose(written.numpy(), sample.numpy(), rtol=1e-6)
    (layer,) = head()
    shown = Layer.create(*layer)
    assert shown.data.shape == (189, 233, 197)
    # The anterior commissure is the origin; above it the brain ends, 72 to 82 mm up.
    column = shown.data[:, *np.round(shown.world_to_data((0, 0, 0))).astype(int)[1:]]
    top = -shown.data_to_world((np.flatnonzero(column > 0.1)[0], 0, 0))[0]
    assert 65 < top < 85


def test_the_recorded_search_is_what_the_detector_does_today():
    recorded = recorded_search()
    found = LandmarkDetector.load("brain-t1").detect(sample_scan()).trajectory
    assert [agent.name for agent in recorded.agents] == [agent.name for agent in found.agents]
    assert recorded.provenance["model"] == "brain-t1"
    assert recorded.provenance["window_voxels"] == found.provenance["window_voxels"]
    for before, now in zip(recorded.agents, found.agents, strict=True):
        assert before.outcome == now.outcome
        np.testing.assert_allclose(before.positions_world, now.positions_world, atol=2e-3)
        np.testing.assert_array_equal(before.actions, now.actions)
        np.testing.assert_allclose(before.answer_world, now.answer_world, atol=0.05)


def test_the_search_shows_without_a_window():
    layers = [Layer.create(*layer) for layer in head_with_search()]
    viewer = ViewerModel()
    viewer.layers.extend(layers)
    kinds = [layer._type_string for layer in viewer.layers]
    assert kinds == ["image", "tracks", "points", "points"]
    landmarks = dict(zip(layers[-1].features["name"], layers[-1].data, strict=True))
    for name, place in ATLAS.items():
        assert np.linalg.norm(-landmarks[name][::-1] - place) < 5, name


def test_two_clicks_show_everything(open_viewer):
    viewer = open_viewer
    assert napari.current_viewer() is viewer
    for layer in head_with_search():
        viewer._add_layer_from_data(*layer)
    kinds = [layer._type_string for layer in viewer.layers]
    assert kinds.count("image") == kinds.count("tracks") == 1
    # Windows that follow the slider, too.
    windows = [layer for layer in viewer.layers if layer.name.endswith("windows")]
    assert len(windows) == 1
    viewer.dims.set_current_step(0, 0)
    coarse = np.linalg.norm(windows[0].data[:, 1], axis=1)
    # Whoever walks longest does so to the last moment; its slice shows its window.
    last = max(recorded_search().agents, key=len)
    viewer.dims.set_point(range(4), (len(last) - 1, *-last.positions_world[-1][::-1]))
    sizes = np.linalg.norm(windows[0].data[:, 1], axis=1)
    assert set(np.round(coarse, 3)) == {25.0 * 8}
    assert set(np.round(sizes, 3)) == {25.0 * 2}


def test_without_nilearn_there_is_one_clear_line(monkeypatch):
    real = builtins.__import__

    def refuse(name, *args, **kwargs):
        if name.startswith("nilearn"):
            raise ModuleNotFoundError("No module named 'nilearn'", name="nilearn")
        return real(name, *args, **kwargs)

    sample_scan.cache_clear()
    monkeypatch.setattr(builtins, "__import__", refuse)
    for sample in (head, head_with_search):
        with pytest.raises(MedrlError, match=r"pip install 'medrl\[samples\]'"):
            sample()
