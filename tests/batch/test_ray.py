"""The Ray engine on a cluster of two nodes, which this machine plays."""

import contextlib
import csv
import json
import socket
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from medrl import LandmarkDetector, read
from medrl.batch.cases import Case, Source
from medrl.batch.discover import discover
from medrl.batch.run import run
from medrl.batch.task import SystemTask, parse_given
from medrl.cli.demo import write_template
from medrl.engines.payload import are_here, pack, stamps, unpack
from medrl.engines.pipeline import depth
from medrl.errors import MedrlError
from medrl.landmark.system import DetectOptions
from medrl.seednet.system import Given
from medrl.systems import by_verb
from medrl.trajectory import read_trajectory
from medrl.volume.points import read_points

ray = pytest.importorskip("ray")

from ray.cluster_utils import Cluster  # noqa: E402
from stub_task import StubTask  # noqa: E402

from medrl.engines import ray as engine_module  # noqa: E402
from medrl.engines.ray import RayEngine  # noqa: E402


@pytest.fixture(scope="module")
def cluster():
    """Two nodes of one core each; the first is the head."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_AUTH_MODE", "disabled")
        patch.setenv("PYTHONPATH", str(Path(__file__).parent / "stubs"), prepend=":")
        node = {"num_cpus": 1}
        nodes = Cluster(initialize_head=True, head_node_args=node)
        nodes.second = nodes.add_node(**node)
        nodes.wait_for_nodes()
        yield nodes
        nodes.shutdown()


@pytest.fixture
def batch(cluster, tmp_path, monkeypatch):
    """Runs stub scans of given contents on the cluster; tells how it ended, and how each."""

    def start(*contents, timeout=None, on_end=None, **options):
        # Relative to where the actors do not run.
        monkeypatch.chdir(tmp_path)
        folder = Path("in")
        folder.mkdir()
        for number, content in enumerate(contents):
            (folder / f"case{number:02d}.nii").write_text(content)
        told = {}

        def ended(outcome):
            assert outcome.name not in told
            told[outcome.name] = outcome.error
            if on_end is not None:
                on_end(len(told))

        engine = RayEngine(address=cluster.address, **options)
        cases = discover(folder, by_verb("detect"))
        task = StubTask(tmp_path / "log")
        return run(task, cases, Path("out"), engine, timeout=timeout, on_end=ended), told

    return start


def rows(out):
    with (out / "results.csv").open() as stream:
        return Counter(row["case"] for row in csv.DictReader(stream))


def test_what_fails_is_listed_and_the_rest_goes_on(batch, tmp_path):
    contents = ["1", "refuse", "crash", "2", "crash once", "hang", "memory", "3"]
    summary, told = batch(*contents, timeout=5)
    assert (summary.done, summary.failed) == (4, 4)
    failed = {contents[int(name[4:])]: error for name, error in told.items() if error}
    assert set(failed) == {"refuse", "crash", "hang", "memory"}
    assert failed["refuse"] == "this is no scan"
    assert "died twice" in failed["crash"]
    assert "reading took longer than 5 s" in failed["hang"]
    assert "memory" in failed["memory"]
    assert rows(tmp_path / "out") == {f"case{n:02d}": 1 for n in (0, 3, 4, 7)}


def test_without_a_shared_file_system_bytes_cross(batch, tmp_path, monkeypatch):
    @contextlib.contextmanager
    def unseen(root):
        yield tmp_path / "elsewhere" / "token"

    monkeypatch.setattr(engine_module, "_token", unseen)
    monkeypatch.setattr(engine_module, "stamps", lambda case: [("/no/such/file", 1, 1)])
    # What is sent is what is read: the files themselves are changed once they are packed.
    real = engine_module.pack

    def pack(case):
        payload = real(case)
        assert list(payload) == [str(case.sources["scan"].path)]
        case.sources["scan"].path.write_text("refuse")
        return payload

    monkeypatch.setattr(engine_module, "pack", pack)
    summary, told = batch("1", "2", "bug", "3")
    assert (summary.done, summary.failed) == (3, 1)
    assert "KeyError" in told["case02"]
    for number, content in ((0, "1"), (1, "2"), (3, "3")):
        folder = tmp_path / "out" / f"case{number:02d}"
        assert (folder / "whole.txt").read_text() == content
        known = json.loads((folder / "case.json").read_text())
        source = tmp_path / "in" / f"case{number:02d}.nii"
        assert known["case"]["sources"]["scan"]["path"] == str(source)
    assert rows(tmp_path / "out") == {"case00": 1, "case01": 1, "case03": 1}


def test_landmarks_are_those_of_this_machine(cluster, tmp_path, monkeypatch):
    pytest.importorskip("nilearn")
    (tmp_path / "in").mkdir()
    write_template(tmp_path / "in" / "head.nii.gz")
    monkeypatch.setattr(engine_module, "stamps", lambda case: [("/no/such/file", 1, 1)])
    cases = discover(tmp_path / "in", by_verb("detect"))
    out = tmp_path / "out"
    summary = run(
        SystemTask("landmark", "brain-t1", DetectOptions(), picture=False),
        cases,
        out,
        RayEngine(1, address=cluster.address),
    )
    assert (summary.done, summary.failed) == (1, 0)
    found = LandmarkDetector.load("brain-t1").detect(read(tmp_path / "in" / "head.nii.gz"))
    there = read_points(out / "head" / "head.mrk.json")
    assert len(there) > 20
    for name, place in there.items():
        np.testing.assert_allclose(place, found[name].position_world, atol=1e-3)
    # The path is that of the scan, not of the copy that was read.
    trajectory = read_trajectory(out / "head" / "head.trajectory.json")
    assert trajectory.provenance["scan"] == str(tmp_path / "in" / "head.nii.gz")


def test_other_versions_are_refused(batch, monkeypatch):
    monkeypatch.setattr("medrl.__version__", "0.0.0")
    with pytest.raises(MedrlError, match=r"a node has medrl .*, this machine 0\.0\.0"):
        batch("1")


def test_nodes_without_room_are_not_waited_for(batch, monkeypatch):
    monkeypatch.setattr(engine_module, "_START", 3)
    with pytest.raises(MedrlError, match="no node of the cluster has 1 GPU"):
        batch("1", device="cuda")


def test_a_lost_node_costs_no_scan(batch, cluster, tmp_path):
    def on_end(count):
        if count == 4:
            cluster.remove_node(cluster.second, allow_graceful=False)

    summary, told = batch(*["slow"] * 12, on_end=on_end)
    assert (summary.done, summary.failed) == (12, 0)
    assert set(told.values()) == {None}
    assert rows(tmp_path / "out") == {f"case{n:02d}": 1 for n in range(12)}
    # What was in flight there was done again, and nothing else.
    log = Counter((tmp_path / "log").read_text().split())
    assert len(log) == 12
    assert sum(log.values()) <= 12 + depth(1)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"workers": 0}, "--workers"),
        ({"gpus": 0}, "--gpus"),
        ({"device": "cuda:1"}, "Ray chooses which GPU"),
    ],
)
def test_options_that_make_no_sense(options, said):
    with pytest.raises(MedrlError, match=said):
        RayEngine(**options)


def test_where_nobody_listens_it_says_so(tmp_path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # and does not listen
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        engine = RayEngine(address=address)
        case = Case("a", {"scan": Source(tmp_path / "a.nii")})
        with pytest.raises(MedrlError, match=f"cannot reach a Ray cluster at {address}: "):
            run(StubTask(tmp_path / "log"), [case], tmp_path / "out", engine)


def test_a_payload_holds_what_belongs_to_a_scan(tmp_path):
    scan, other = tmp_path / "in" / "a.nhdr", tmp_path / "in" / "b.raw"
    scan.parent.mkdir()
    scan.write_text("NRRD0004\ntype: short\ndata file: a.raw\n\n")
    (scan.parent / "a.raw").write_bytes(b"voxels")
    other.write_bytes(b"others")
    seeds = tmp_path / "in" / "a.seeds.mrk.json"
    seeds.write_text("{}")
    dicom = tmp_path / "dicom"
    (dicom / "deep").mkdir(parents=True)
    (dicom / "deep" / "1.dcm").write_bytes(b"image")
    boxes = tmp_path / "in" / "b.json"
    boxes.write_text("[]")
    options = {"seeds": str(seeds), "n": "1", "box": f"{boxes}:L3"}
    case = Case("a", {"scan": Source(scan), "CT": Source(dicom)}, options)
    payload = pack(case)
    assert sorted(Path(name).name for name in payload) == [
        "1.dcm",
        "a.nhdr",
        "a.raw",
        "a.seeds.mrk.json",
        "b.json",
    ]
    there = unpack(case, payload, tmp_path / "copies")
    assert there == case
    assert there.here(dicom).is_relative_to(tmp_path / "copies")
    assert (there.here(scan).parent / "a.raw").read_bytes() == b"voxels"
    assert there.here(case.options["seeds"]).read_text() == "{}"
    given = parse_given(Given, there)
    assert given.seeds == (there.here(seeds),)
    assert given.box == f"{there.here(boxes)}:L3"
    # The same files are known again; changed ones are not.
    known = stamps(case)
    assert len(known) == 5
    assert are_here(known)
    seeds.write_text("{ }")
    assert not are_here(known)
