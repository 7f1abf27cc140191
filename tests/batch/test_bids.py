"""BIDS datasets in, BIDS derivatives out: names by the grammar of the specification."""

import csv
import json
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from medrl.batch.bids import Selection, suffixes_for
from medrl.batch.cases import Case
from medrl.batch.derivatives import arrange
from medrl.batch.discover import discover
from medrl.batch.run import plan, run
from medrl.batch.store import Record, Store
from medrl.engines.local import LocalEngine
from medrl.errors import MedrlError
from medrl.systems import by_verb

#: Entities in the order of the specification's appendix "Entities", those that derivatives of
#: anatomical images may have; from, to and mode as transforms have them (proposal 14).
ENTITIES = (
    *("ses", "task", "acq", "ce", "trc", "rec", "run", "mod", "echo", "flip", "inv", "mt", "part"),
    *("space", "from", "to", "mode", "split", "chunk", "atlas", "seg", "scale", "res", "den"),
    *("label", "desc"),
)
LEGAL = re.compile(
    r"sub-[0-9a-zA-Z+]+"
    + "".join(rf"(_{key}-[0-9a-zA-Z+]+)?" for key in ENTITIES)
    + r"_(?P<suffix>[0-9a-zA-Z]+)(?P<ending>(\.[0-9a-z]+)+)"
)


def make(root: Path, *names: str, **description: object) -> Path:
    """A dataset whose files hold their numbers."""
    root.mkdir(exist_ok=True)
    content = {"Name": "Toy", "BIDSVersion": "1.9.0", **description}
    (root / "dataset_description.json").write_text(json.dumps(content))
    for number, name in enumerate(names):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(str(number))
    return root


@pytest.fixture
def dataset(tmp_path):
    return make(
        tmp_path / "bids",
        "sub-01/ses-a/anat/sub-01_ses-a_T1w.nii.gz",
        "sub-01/ses-a/anat/sub-01_ses-a_T1w.json",
        "sub-01/ses-a/anat/sub-01_ses-a_run-2_T2w.nii",
        "sub-01/ses-b/anat/sub-01_ses-b_acq-x_T1w.nii.gz",
        "sub-01/ses-b/pet/sub-01_ses-b_trc-FDG_pet.nii.gz",
        "sub-02/anat/sub-02_T1w.nii.gz",
        "sub-02/anat/sub-02_inv-1_MP2RAGE.nii.gz",
        "sub-02/anat/sub-02_defacemask.nii.gz",
        "sub-02/func/sub-02_task-rest_bold.nii.gz",
        "sub-03/ct/sub-03_ct.nii.gz",
        # None of these belongs to the dataset's images.
        "sub-02/anat/sub-04_T1w.nii.gz",
        "sub-02/anat/T1w.nii.gz",
        "sub-02/ses-c/anat/sub-02_T1w.nii.gz",
        "derivatives/other/sub-01/anat/sub-01_desc-x_T1w.nii.gz",
        "sourcedata/sub-01/anat/sub-01_T1w.nii.gz",
        DatasetDOI="doi:10.0000/toy",
    )


def names(cases):
    return [case.stem for case in cases]


def test_images_are_found_by_entities_and_suffix(dataset):
    cases = discover(dataset, by_verb("detect"))
    assert [case.name for case in cases] == [
        "sub-01/ses-a/anat/sub-01_ses-a_T1w",
        "sub-01/ses-a/anat/sub-01_ses-a_run-2_T2w",
        "sub-01/ses-b/anat/sub-01_ses-b_acq-x_T1w",
        "sub-01/ses-b/pet/sub-01_ses-b_trc-FDG_pet",
        "sub-02/anat/sub-02_T1w",
        "sub-03/ct/sub-03_ct",
    ]
    assert all(case.sources["scan"].path.is_file() for case in cases)
    chosen = Selection(participants=("sub-01", "02"), suffixes=("T1w",))
    found = names(discover(dataset, by_verb("detect"), selection=chosen))
    assert found == ["sub-01_ses-a_T1w", "sub-01_ses-b_acq-x_T1w", "sub-02_T1w"]
    chosen = Selection(sessions=("b",), usual=("T1w", "pet"))
    found = names(discover(dataset, by_verb("detect"), selection=chosen))
    assert found == ["sub-01_ses-b_acq-x_T1w", "sub-01_ses-b_trc-FDG_pet"]
    found = names(discover(dataset, by_verb("detect"), selection=Selection(suffixes=("MP2RAGE",))))
    assert found == ["sub-02_inv-1_MP2RAGE"]


def test_the_model_says_which_images_suit_it():
    from medrl.bundles import find, read_manifest

    def usual(name):
        return suffixes_for(read_manifest(find(name)))

    assert usual("brain-t1") == usual("hippocampus-t1") == ("T1w",)
    assert usual("rigid-head") == ()
    assert usual("sarcoma-pet-ct") == ("pet",)
    bare = {"card": {}, "settings": {"modality": "MR"}}
    assert "FLAIR" in suffixes_for(bare)
    assert "ct" not in suffixes_for(bare)


@pytest.mark.parametrize(
    ("lines", "left"),
    [
        ("*_T1w.nii.gz", "B"),
        ("sub-01/", "D"),
        ("sub-01/ses-a", "CD"),
        ("/sub-0[!2]/**", "D"),
        ("# nothing\n\nsub-0?/ses-?/anat/*acq*", "ABD"),
        ("sub-01/**\n!sub-01/ses-a/", "D"),
        ("*.nii*\n!*_T2w.nii\n", "B"),
        ("**/ses-a/**", "CD"),
        ("sub-01/**/anat", "D"),
        ("ses-a/anat", "ABCD"),
        ("*_T1w.nii.gz/", "ABCD"),
        ("run-2", "ABCD"),
    ],
)
def test_what_bidsignore_names_is_left_out(dataset, lines, left):
    paths = {
        "A": "sub-01/ses-a/anat/sub-01_ses-a_T1w.nii.gz",
        "B": "sub-01/ses-a/anat/sub-01_ses-a_run-2_T2w.nii",
        "C": "sub-01/ses-b/anat/sub-01_ses-b_acq-x_T1w.nii.gz",
        "D": "sub-02/anat/sub-02_T1w.nii.gz",
    }
    (dataset / ".bidsignore").write_text(lines)
    cases = discover(dataset, by_verb("detect"), selection=Selection(suffixes=("T1w", "T2w")))
    found = {case.sources["scan"].path.relative_to(dataset).as_posix() for case in cases}
    assert found == {paths[letter] for letter in left}
    if git := shutil.which("git"):  # whose syntax it is
        subprocess.run([git, "init", "-q", dataset], check=True)
        (dataset / ".gitignore").write_text(lines)
        said = subprocess.run(
            [git, "-C", dataset, "check-ignore", "--no-index", *paths.values()],
            capture_output=True,
            text=True,
            check=False,
        )
        assert set(said.stdout.split()) == set(paths.values()) - found


@pytest.mark.parametrize(("lines", "there"), [("ct", True), ("**/ct/", True), ("sub-03/", False)])
def test_ct_may_be_listed_in_bidsignore_as_bids_does_not_know_it(dataset, lines, there):
    (dataset / ".bidsignore").write_text(lines)
    assert ("sub-03_ct" in names(discover(dataset, by_verb("detect")))) == there


def test_wrong_choices_are_one_line(dataset, tmp_path):
    with pytest.raises(MedrlError, match="no participant 09"):
        discover(dataset, by_verb("detect"), selection=Selection(participants=("01", "09")))
    with pytest.raises(MedrlError, match="no such images"):
        discover(dataset, by_verb("detect"), selection=Selection(suffixes=("bold",)))
    (tmp_path / "plain").mkdir()
    with pytest.raises(MedrlError, match="no BIDS dataset"):
        discover(tmp_path / "plain", by_verb("detect"), selection=Selection(participants=("01",)))
    with pytest.raises(MedrlError, match="derivatives/medrl"):
        discover(dataset, by_verb("detect"), leave_out=dataset / "sub-01" / "..")
    (dataset / "dataset_description.json").write_text("{")
    with pytest.raises(MedrlError, match="JSON"):
        discover(dataset, by_verb("detect"))


#: Names of images in sub-01/anat, and why they are left out; None if they are taken.
IMAGES = {
    "T1w": None,
    "rec-norm_T1w": None,
    "acq-highres_ce-gad_run-2_T1w": None,
    "part-mag_T2starw": None,
    "part-phase_T2starw": "a phase image (part-phase)",
    "part-real_T1w": "a real part (part-real)",
    "part-imag_T1w": "an imaginary part (part-imag)",
    "echo-1_T2starw": "one echo of several (echo-1)",
    "inv-2_part-mag_T1w": "one inversion of several (inv-2)",
    "flip-1_mt-on_T1w": "one flip angle of several (flip-1)",
    "acq-scout_T1w": "a localizer (acq-scout)",
    "acq-Localizer_T2w": "a localizer (acq-Localizer)",
    "mod-T1w_defacemask": "a defacemask, which is not what suits the model",
    "T1map": "a T1map, which",
    "dseg": "a dseg, which",
    "inv-1_MP2RAGE": "a MP2RAGE, which",
    "acq-told_T2starw": "a phase image (ImageType PHASE in its sidecar)",
    "acq-told_T2w": "a localizer (ImageType LOCALIZER in its sidecar)",
    "acq-mag_T2starw": None,
    "acq-broken_T1w": None,
    "acq-fetched_T1w": None,
}


def test_what_names_and_sidecars_say_against_an_image(tmp_path):
    paths = {key: f"sub-01/anat/sub-01_{key}.nii.gz" for key in IMAGES}
    root = make(tmp_path / "bids", *paths.values(), "sub-01/func/sub-01_task-rest_bold.nii.gz")
    make(root, "sub-01/anat/sub-01_FLAIR.nii", "sub-01/anat/sub-01_FLAIR.nii.gz")
    make(root, "sourcedata/sub-01_T1w.nii.gz", "code/x.nii.gz", "sub-01/anat/notes.txt")
    sidecars = {
        "T2starw.json": {"ImageType": ["ORIGINAL", "PRIMARY", "M", "ND"]},
        "sub-01/anat/sub-01_acq-told_T2starw.json": {
            "ImageType": ["ORIGINAL", "PRIMARY", "ND", "PHASE"]
        },
        "acq-told_T2w.json": {"ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"]},
        "sub-01/sub-01_acq-mag_T2starw.json": {"ImageType": ["ORIGINAL", "PRIMARY", "M", "FFE"]},
    }
    for name, content in sidecars.items():
        (root / name).write_text(json.dumps(content))
    (root / "sub-01/anat/sub-01_acq-broken_T1w.json").write_text("{")
    (root / paths["acq-fetched_T1w"]).unlink()
    (root / paths["acq-fetched_T1w"]).symlink_to(".git/annex/objects/x")
    listed = ["filename", "anat/sub-01_T1w.nii.gz", "anat/sub-01_run-9_T1w.nii.gz"]
    (root / "sub-01" / "sub-01_scans.tsv").write_text("\n".join(listed) + "\n")
    found = discover(root, by_verb("detect"))
    taken = {case.stem.removeprefix("sub-01_") for case in found}
    assert taken == {key for key, reason in IMAGES.items() if reason is None}
    said = {one.path.relative_to(root).as_posix(): one.reason for one in found.left_out}
    for key, reason in IMAGES.items():
        if reason is not None:
            assert said[paths[key]].startswith(reason)
    for ending in (".nii", ".nii.gz"):
        assert "leave one" in said[f"sub-01/anat/sub-01_FLAIR{ending}"]
    assert "in func/" in said["sub-01/func/sub-01_task-rest_bold.nii.gz"]
    assert "beside those of participants" in said["sourcedata"]
    assert "beside those of participants" in said["code"]
    assert said["sub-01/anat/notes.txt"] == "no scan by its name"
    assert "not there" in said["sub-01/anat/sub-01_run-9_T1w.nii.gz"]
    # What is asked for by its suffix may be one of several; a phase image is never anatomy.
    make(root, "sub-01/anat/sub-01_inv-2_part-phase_MP2RAGE.nii.gz")
    asked = discover(root, by_verb("detect"), selection=Selection(suffixes=("MP2RAGE",)))
    assert names(asked) == ["sub-01_inv-1_MP2RAGE"]


def test_derivatives_are_folders_like_any_other(tmp_path):
    root = make(tmp_path / "d", "sub-01/anat/sub-01_desc-x_T1w.nii.gz", DatasetType="derivative")
    (case,) = discover(root, by_verb("detect"))
    assert case.layout == "folder"


# -------------------------------------------------------------------------------------------------

RESULTS = {
    "detect": (".mrk.json", ".csv", ".trajectory.json", ".png"),
    "segment": (".seg.nii.gz", ".seeds.mrk.json", ".trajectory.json", ".png"),
    "register": (
        *(".tfm", ".matrix.txt", ".nii.gz", ".trajectory.json", ".report.json"),
        *(".before-after.png", ".checkerboard.png"),
    ),
}
EXPECTED = {
    "detect": {
        *("space-T1w_desc-medrl_landmarks" + e for e in (".mrk.json", ".tsv", ".json", ".png")),
        *("space-T1w_desc-medrl_agents" + e for e in (".trajectory.json", ".json")),
    },
    "segment": {
        *("space-T1w_desc-medrl_dseg" + e for e in (".nii.gz", ".tsv", ".json", ".png")),
        *("space-T1w_desc-medrl_seeds" + e for e in (".mrk.json", ".json")),
        *("space-T1w_desc-medrl_agents" + e for e in (".trajectory.json", ".json")),
    },
    "register": {
        *("from-T1w_to-MNI_mode-image_desc-medrl_xfm" + e for e in (".tfm", ".txt", ".json")),
        "from-T1w_to-MNI_mode-image_desc-medrlbeforeafter_xfm.png",
        "from-T1w_to-MNI_mode-image_desc-medrlcheckerboard_xfm.png",
        *(
            "from-T1w_to-MNI_mode-image_desc-medrl_agents" + e
            for e in (".trajectory.json", ".json")
        ),
        *("space-MNI_desc-medrl_T1w" + e for e in (".nii.gz", ".json")),
    },
}


@pytest.mark.parametrize("verb", list(RESULTS))
def test_results_are_named_as_bids_has_it(dataset, tmp_path, verb):
    system = by_verb(verb)
    shared = {"fixed": tmp_path / "tpl-MNI_res-01_T1w.nii.gz"} if verb == "register" else {}
    selection = Selection(participants=("01",), sessions=("b",), suffixes=("T1w",))
    (case,) = discover(dataset, system, shared=shared, selection=selection)
    folder = tmp_path / "work"
    folder.mkdir()
    for ending in RESULTS[verb]:
        (folder / f"{case.stem}{ending}").write_text(
            "name,x,note\nAC,1.5,\n" if ending == ".csv" else '{"trusted": true}'
        )
    rows = [{"label": 1, "target": "whole", "object": "left"}]
    picture = f"{case.stem}{'.before-after' if verb == 'register' else ''}.png"
    record = arrange(folder, case, Record(rows, picture=picture), system)
    prefix = "sub-01_ses-b_acq-x_"
    there = {path.name for path in folder.iterdir()}
    assert there == {prefix + name for name in EXPECTED[verb]}
    assert record.picture in there
    assert record.picture.endswith(".png")
    for name in there:
        assert LEGAL.fullmatch(name), name
    source = "bids:raw:sub-01/ses-b/anat/sub-01_ses-b_acq-x_T1w.nii.gz"
    for name in there:
        if name.endswith(".json") and not name.endswith((".mrk.json", ".trajectory.json")):
            sidecar = json.loads((folder / name).read_text())
            assert sidecar["Sources"][0] == source
            if "space-T1w" in name:
                assert sidecar["SpatialReference"] == source
    if verb == "detect":
        table = folder / f"{prefix}space-T1w_desc-medrl_landmarks.tsv"
        assert table.read_text() == "name\tx\tnote\nAC\t1.5\tn/a\n"
    if verb == "segment":
        table = folder / f"{prefix}space-T1w_desc-medrl_dseg.tsv"
        assert table.read_text() == "index\tname\n1\twhole\n"
    if verb == "register":
        sidecar = folder / f"{prefix}from-T1w_to-MNI_mode-image_desc-medrl_xfm.json"
        assert json.loads(sidecar.read_text())["Registration"] == {"trusted": True}
        image = json.loads((folder / f"{prefix}space-MNI_desc-medrl_T1w.json").read_text())
        assert {"SpatialReference", "SkullStripped"} <= image.keys()


def test_entities_of_the_source_keep_their_order(tmp_path):
    root = make(tmp_path / "bids", "sub-1/anat/sub-1_acq-a_run-1_chunk-2_T1w.nii.gz")
    (case,) = discover(root, by_verb("detect"))
    (tmp_path / "work").mkdir()
    (tmp_path / "work" / f"{case.stem}.mrk.json").write_text("{}")
    arrange(tmp_path / "work", case, Record([]), by_verb("detect"))
    for path in (tmp_path / "work").iterdir():
        assert LEGAL.fullmatch(path.name), path.name
        assert path.name.startswith("sub-1_acq-a_run-1_space-T1w_chunk-2_desc-medrl_landmarks")


# -------------------------------------------------------------------------------------------------


@pytest.fixture
def task(tmp_path):
    from stub_task import StubTask

    return StubTask(tmp_path / "log.txt")


TO_BE_KILLED = """
import sys
from pathlib import Path
from medrl.batch.discover import discover
from medrl.engines.local import LocalEngine
from medrl.batch.run import run
stubs, log, where, out = sys.argv[1:]
sys.path.insert(0, stubs)
from medrl.systems import by_verb
from stub_task import StubTask
run(StubTask(Path(log)), discover(where, by_verb("detect")), Path(out), LocalEngine(1))
"""


def published(out):
    """Files of results, below the folders of subjects."""
    return sorted(p.relative_to(out).as_posix() for p in out.glob("sub-*/**/*") if p.is_file())


def test_a_run_leaves_a_derivative_dataset(task, dataset, tmp_path):
    out = dataset / "derivatives" / "medrl"
    cases = discover(dataset, by_verb("detect"))
    assert run(task, cases, out, LocalEngine(2)).done == len(cases)
    for name in published(out):
        assert LEGAL.fullmatch(Path(name).name), name
    assert len(published(out)) == 3 * len(cases)
    description = json.loads((out / "dataset_description.json").read_text())
    assert description["DatasetType"] == "derivative"
    assert description["GeneratedBy"][0]["Name"] == "medrl"
    assert description["SourceDatasets"] == [{"URL": "../..", "DOI": "doi:10.0000/toy"}]
    raw = (out / description["DatasetLinks"]["raw"]).resolve()
    assert raw == dataset.resolve()
    for path in out.glob("sub-*/**/*_landmarks.json"):
        for source in json.loads(path.read_text())["Sources"]:
            assert (raw / source.removeprefix("bids:raw:")).is_file()
    with (out / "results.csv").open() as stream:
        assert [row["case"] for row in csv.DictReader(stream)] == sorted(c.name for c in cases)
    # Once more, and from the dataset anew: nothing is left to do, nothing of it is an input.
    assert [c.name for c in discover(dataset, by_verb("detect"))] == [c.name for c in cases]
    assert plan(cases, out).todo == ()
    # What somebody has removed is done again.
    (out / published(out)[0]).unlink()
    assert len(plan(cases, out).todo) == 1
    assert run(task, cases, out, LocalEngine(1)).done == len(cases)
    assert len(published(out)) == 3 * len(cases)


def test_a_case_that_was_done_when_the_run_was_killed_is_put_in_place(
    task, dataset, tmp_path, monkeypatch
):
    out = tmp_path / "out"
    system = by_verb("detect")
    cases = discover(dataset, system, selection=Selection(participants=("02",)))
    (case,) = cases
    store = Store(out)
    folder = store.work_folder(case)
    for ending in (".mrk.json", ".csv"):
        (folder / f"{case.stem}{ending}").write_text("{}")
    moves = []
    replace_file = Path.replace

    def replace_once(self, target):
        if "sub-02/anat" in str(target):
            moves.append(target)
            if len(moves) > 1:
                raise KeyboardInterrupt  # as if killed between two files
        return replace_file(self, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", replace_once)
        with pytest.raises(KeyboardInterrupt):
            store.finish(case, folder, arrange(folder, case, Record([]), system), {})
    assert len(published(out)) == 1
    assert store.record(case) is not None
    run(task, cases, out, LocalEngine(1))
    assert len(published(out)) == 3
    assert not task.log.exists()


def test_kill_9_of_a_run_on_a_dataset(task, tmp_path):
    labels = [f"{number:02}" for number in range(12)]
    root = make(tmp_path / "bids", *(f"sub-{n}/anat/sub-{n}_T1w.nii.gz" for n in labels))
    for image in root.glob("sub-*/anat/*"):
        image.write_text("slow")
    out, cases = tmp_path / "out", discover(root, by_verb("detect"))
    process = subprocess.Popen(
        [sys.executable, "-c", TO_BE_KILLED, Path(__file__).parent / "stubs", task.log, root, out]
    )
    end = time.monotonic() + 60
    while len(published(out)) < 8:
        assert time.monotonic() < end
        assert process.poll() is None
        time.sleep(0.02)
    process.kill()
    process.wait()
    done = [case.name for case in cases if Store(out).record(case) is not None]
    assert 0 < len(done) < 12
    assert run(task, cases, out, LocalEngine(1)).done == 12
    assert len(published(out)) == 12 * 3
    again = task.log.read_text().split()
    assert all(again.count(name) == 1 for name in done)


def test_results_travel_from_one_output_folder_to_another(dataset, tmp_path):
    case = discover(dataset, by_verb("detect"))[0]
    near, far = Store(tmp_path / "near"), Store(tmp_path / "far")
    folder = far.work_folder(case)
    (folder / f"{case.stem}.mrk.json").write_text("points")
    far.finish(case, folder, Record([]), {"working": 1.0})
    before = published(far.root)
    near.put(case, far.take(case))
    assert published(near.root) == before
    assert published(far.root) == []
    assert near.record(case)["seconds"] == {"working": 1.0}
    assert far.record(case) is None


def test_other_datasets_are_not_written_into(task, dataset, tmp_path):
    cases = discover(dataset, by_verb("detect"))
    with pytest.raises(MedrlError, match=re.escape(os.path.join("derivatives", "medrl"))):
        run(task, cases, dataset, LocalEngine(1))
    for by in ([{"Name": "fMRIPrep"}], ["fMRIPrep"], []):
        other = make(tmp_path / "other", DatasetType="derivative", GeneratedBy=by)
        with pytest.raises(MedrlError, match="has not made"):
            run(task, cases, other, LocalEngine(1))
    assert json.loads((dataset / "dataset_description.json").read_text())["Name"] == "Toy"


def test_odd_descriptions_do_no_harm(task, tmp_path):
    odd = {"Name": "\ud800 {x} \n", "DatasetDOI": ["10"], "GeneratedBy": "us"}
    root = make(tmp_path / "bids", "sub-1/anat/sub-1_T1w.nii.gz", **odd)
    out = tmp_path / "out"
    assert run(task, discover(root, by_verb("detect")), out, LocalEngine(1)).done == 1
    description = json.loads((out / "dataset_description.json").read_text())
    assert description["SourceDatasets"] == [{"URL": root.resolve().as_uri()}]
    assert (out / "README.md").read_text().startswith("# medrl detect: ")


def test_cases_of_datasets_survive_json(dataset):
    case = discover(dataset, by_verb("detect"))[0]
    again = Case.of_plain(json.loads(json.dumps(case.plain())))
    assert (again.layout, again.folder) == ("bids", "sub-01/ses-a/anat")
