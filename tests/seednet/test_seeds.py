"""Seeds as typed, and as 3D Slicer has them."""

import json
from pathlib import Path

import numpy as np
import pytest

from medrl.errors import MedrlError
from medrl.seednet.seeds import Seed, parse_seed, read_seeds, write_seeds


def slicer_list(
    path: Path, names, *, name="F", system="LPS", kind="Fiducial", descriptions=None
) -> Path:
    """A file as Slicer's own module writes it, abridged."""
    points = [
        {
            "id": str(n),
            "label": label,
            "description": (descriptions or {}).get(label, ""),
            "associatedNodeID": "vtkMRMLScalarVolumeNode1",
            "position": [10.0 * n, -5.0, 3.0],
            "orientation": [-1, 0, 0, 0, -1, 0, 0, 0, 1],
            "selected": True,
            "positionStatus": "defined",
        }
        for n, label in enumerate(names, 1)
    ]
    points.append({"id": "9", "label": "next", "positionStatus": "preview", "position": [0, 0, 0]})
    markup = {
        "type": kind,
        "name": name,
        "coordinateSystem": system,
        "coordinateUnits": "mm",
        "controlPoints": points,
        "display": {"visibility": True},
    }
    path.write_text(json.dumps({"@schema": "markups-schema-v1.0.3.json#", "markups": [markup]}))
    return path


def test_typed():
    seed = parse_seed("fg:1.5,-2,3e1")
    assert (seed.label, seed.label_name, seed.who) == (1, "foreground", "user")
    np.testing.assert_array_equal(seed.position_world, [1.5, -2, 30])
    np.testing.assert_array_equal(
        parse_seed("bg:1,2,3", space="LPS").points_world, [[-1.0, -2.0, 3.0]]
    )
    scribble = parse_seed("Foreground:0,0,0:0,5,0:5,5,0")
    assert scribble.is_scribble
    assert scribble.points_world.shape == (3, 3)


@pytest.mark.parametrize(
    "text", ["1,2,3", "fg:1,2", "fg:1,2,x", "fg", "fg:", "fg:1,2,3:4", "fg:1,2,nan", "tumour:1,2,3"]
)
def test_typed_wrongly(text: str):
    with pytest.raises(MedrlError, match="seed"):
        parse_seed(text)


def test_round_trip(tmp_path: Path):
    seeds = [
        Seed(np.array([1.0, 2, 3]), 1),
        Seed(np.array([[0.0, 0, 0], [0, 5, 0], [5.25, 5, -1]]), 0),
        Seed(np.array([-4.0, 5, 6]), 0),
        Seed(np.array([7.0, 8, 9]), 1, "agent", 0.0125),
    ]
    path = tmp_path / "a.seeds.mrk.json"
    write_seeds(path, seeds, name="a")
    first, curve = json.loads(path.read_text())["markups"]
    assert (first["type"], first["coordinateSystem"]) == ("Fiducial", "LPS")
    assert [p["label"] for p in first["controlPoints"]] == ["fg-1", "bg-2", "agent-fg-1"]
    assert first["controlPoints"][0]["position"] == [-1, -2, 3]
    assert first["controlPoints"][2]["description"] == "foreground, agent, expected gain +0.0125"
    assert (curve["type"], curve["name"]) == ("Curve", "bg-1")

    back = read_seeds(path)
    order = [seeds[0], seeds[2], seeds[3], seeds[1]]
    assert [(s.label, s.who) for s in back] == [(s.label, s.who) for s in order]
    for seed, other in zip(back, order, strict=True):
        np.testing.assert_allclose(seed.points_world, other.points_world)


@pytest.mark.parametrize(
    ("names", "options", "labels"),
    [
        (("fg-1", "bg-1", "FG 2"), {}, [1, 0, 1]),
        (("foreground-1", "Background_2"), {}, [1, 0]),
        (("F-1", "F-2"), {"name": "foreground"}, [1, 1]),
        (("N-1", "N-2"), {"name": "PromptPoints negative"}, [0, 0]),
        (("1", "2"), {"descriptions": {"1": "object", "2": "outside"}}, [1, 0]),
        # A point's own name counts more than that of its list.
        (("bg-1", "x"), {"name": "fg"}, [0, 1]),
    ],
)
def test_lists_made_in_slicer(tmp_path: Path, names, options, labels):
    seeds = read_seeds(slicer_list(tmp_path / "F.mrk.json", names, **options))
    assert [seed.label for seed in seeds] == labels
    np.testing.assert_array_equal(seeds[1].position_world, [-20, 5, 3])


def test_the_files_name_and_ras(tmp_path: Path):
    path = slicer_list(tmp_path / "background.mrk.json", ("F-1",), system="RAS")
    (seed,) = read_seeds(path)
    assert seed.label == 0
    np.testing.assert_array_equal(seed.position_world, [10, -5, 3])
    curve = slicer_list(tmp_path / "b.mrk.json", ("1", "2"), name="fg line", kind="Curve")
    (scribble,) = read_seeds(curve)
    assert scribble.is_scribble


@pytest.mark.parametrize(
    ("names", "options", "message"),
    [
        (("F-1",), {}, "'F-1' says neither fg nor bg"),
        (("fg-bg-1",), {}, "says both"),
        ((), {}, "holds no seeds"),
        (("fg-1",), {"kind": "Plane"}, "holds no seeds"),
        (("fg-1",), {"system": "scanner"}, "neither LPS nor RAS"),
    ],
)
def test_files_that_say_too_little(tmp_path: Path, names, options, message: str):
    path = slicer_list(tmp_path / "F.mrk.json", names, **options)
    with pytest.raises(MedrlError, match=message) as error:
        read_seeds(path)
    assert str(error.value).startswith(str(path))


def test_voxels_of_a_scribble_touch_each_other():
    seed = Seed(np.array([[0.0, 0, 0], [7, 3, -2], [7, 9, 9]]), 1)
    affine = np.diag([-2.0, 1.0, 3.0, 1.0])
    voxels = seed.voxels(affine)
    assert len(np.unique(voxels, axis=0)) == len(voxels)
    ends = np.array([[0, 0, 0], [-3, 3, -1], [-3, 9, 3]])
    # 7 mm are 3.5 voxels of 2 mm: halves go up.
    for end in ends:
        assert (np.abs(voxels - end).max(axis=1) == 0).any()
    gaps = np.abs(voxels[:, None] - voxels[None]).max(axis=2)
    reached, todo = {0}, [0]
    while todo:
        for other in np.flatnonzero(gaps[todo.pop()] <= 1):
            if int(other) not in reached:
                reached.add(int(other))
                todo.append(int(other))
    assert len(reached) == len(voxels)
