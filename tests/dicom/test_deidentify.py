"""What is left of a patient in objects that are to leave the house."""

import json
import stat
from pathlib import Path

import numpy as np
import pydicom
import pytest
import torch
from monai.data.meta_tensor import MetaTensor

from medrl.batch.cases import Case, Source
from medrl.dicom import (
    Maker,
    Pseudonyms,
    ReportedPoint,
    Segment,
    draft_report,
    draft_segmentation,
)
from medrl.dicom.deidentify import default_key_file, without_paths
from medrl.dicom.objects import save
from medrl.errors import MedrlError

MAKER = Maker("brain-t1", "1.2")
POINTS = (ReportedPoint("AC", np.array([1.0, 2.0, 3.0]), 0.5, "found"),)


@pytest.fixture
def pseudonyms() -> Pseudonyms:
    return Pseudonyms(b"k" * 32)


def both(scan, folder: Path, pseudonyms) -> dict[str, Path]:
    """A segmentation and a report of a scan, written."""
    mask = MetaTensor((scan.as_tensor() > 500).to(torch.uint8), affine=scan.affine)
    drafts = {
        "SEG": draft_segmentation(mask, scan, [Segment(1, "a", "a")], MAKER, pseudonyms=pseudonyms),
        "SR": draft_report(scan, POINTS, MAKER, pseudonyms=pseudonyms),
    }
    paths = {kind: folder / f"{kind}.dcm" for kind in drafts}
    for kind, drafted in drafts.items():
        save(paths[kind], drafted.dataset)
    return paths


@pytest.mark.parametrize("how", ["folder", "frames"])
def test_nothing_of_the_patient_the_dates_and_the_identifiers_is_left(
    make_series, voxels, tmp_path, pseudonyms, how
):
    series = make_series(voxels, how=how)
    source = next(iter(series.files.values()))
    gone = {str(v) for v in (*series.files, source.StudyInstanceUID, source.SeriesInstanceUID)}
    gone |= {source.FrameOfReferenceUID, "Doe", "Jane", "MRN-4711", "19610203", "ACC-99", "ST-1"}
    gone |= {"20260102", "101112", "follow-up", "Grey", "065Y"}
    for path in both(series.read(), tmp_path, pseudonyms).values():
        content = path.read_bytes()
        assert not [text for text in gone if text.encode() in content]
        dataset = pydicom.dcmread(path)
        times = [e for e in dataset.iterall() if e.VR in ("DA", "TM", "DT") and e.value]
        assert len(times) > 3
        assert not [e for e in times if e.value not in ("19000101", "000000", "19000101000000")]
        assert dataset.PatientIdentityRemoved == "YES"
        method = dataset.DeidentificationMethodCodeSequence[0]
        assert (method.CodeValue, method.CodingSchemeDesignator) == ("113100", "DCM")
        # Of type 1 and 2, and there all the same.
        for tag in ("StudyDate", "PatientBirthDate", "PatientSex", "AccessionNumber", "StudyID"):
            assert dataset[tag].value in ("", None), tag
        assert dataset.ContentDate == "19000101"


def test_objects_of_one_patient_and_study_still_belong_together(
    make_series, voxels, tmp_path, pseudonyms
):
    first = make_series(voxels, where="first")
    source = next(iter(first.files.values()))
    same = {
        tag: source[tag].value for tag in ("StudyInstanceUID", "FrameOfReferenceUID", "PatientID")
    }
    second = make_series(voxels, "axial", where="second", PatientName="Doe^J.", **same)
    other = make_series(voxels, where="other", PatientID="MRN-4712")
    found = {}
    for name, series in (("first", first), ("second", second), ("other", other)):
        (tmp_path / f"{name}-out").mkdir()
        paths = both(series.read(), tmp_path / f"{name}-out", pseudonyms)
        found[name] = {kind: pydicom.dcmread(path) for kind, path in paths.items()}
    seg, report = found["first"]["SEG"], found["first"]["SR"]
    for tag in ("StudyInstanceUID", "PatientID"):
        assert seg[tag] == report[tag] == found["second"]["SEG"][tag]
        assert seg[tag] != found["other"]["SEG"][tag]
    assert seg.FrameOfReferenceUID == found["second"]["SEG"].FrameOfReferenceUID
    images = {
        i.ReferencedSOPInstanceUID
        for i in seg.ReferencedSeriesSequence[0].ReferencedInstanceSequence
    }
    assert images == {pseudonyms.uid(uid) for uid in first.files}
    evidence = report.CurrentRequestedProcedureEvidenceSequence[0].ReferencedSeriesSequence[0]
    assert evidence.SeriesInstanceUID == seg.ReferencedSeriesSequence[0].SeriesInstanceUID
    assert all(pydicom.uid.UID(uid).is_valid for uid in images)


def test_pseudonyms_hang_on_the_key(pseudonyms):
    other = Pseudonyms(b"l" * 32)
    assert pseudonyms.uid("1.2.3") == Pseudonyms(b"k" * 32).uid("1.2.3") != other.uid("1.2.3")
    assert pseudonyms.case("a") != other.case("a")
    assert pseudonyms.fingerprint != other.fingerprint
    assert pseudonyms.uid(pydicom.uid.CTImageStorage) == pydicom.uid.CTImageStorage
    assert (b"k" * 32).hex() not in repr(pseudonyms)


def test_patients_without_identifiers_are_told_apart_by_their_study(pseudonyms):
    def header(**tags):
        dataset = pydicom.Dataset()
        for tag, value in tags.items():
            setattr(dataset, tag, value)
        return dataset

    one = pseudonyms.patient(header(PatientID="", StudyInstanceUID="1.2"))
    assert one != pseudonyms.patient(header(PatientID="", StudyInstanceUID="1.3"))
    assert pseudonyms.patient(header(PatientID="7")) == pseudonyms.patient(
        header(PatientID="7", StudyInstanceUID="1.3")
    )


def test_the_key_is_made_once_and_for_its_owner_only(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    first = Pseudonyms.load()
    file = default_key_file()
    assert file.is_relative_to(tmp_path)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert Pseudonyms.load().fingerprint == first.fingerprint
    assert Pseudonyms.load(tmp_path / "own.key").fingerprint != first.fingerprint
    assert list(file.parent.iterdir()) == [file]


@pytest.mark.parametrize("content", ["", "no key", "00", "\u00e4"])
def test_a_file_that_is_no_key_is_refused(tmp_path, content):
    (tmp_path / "key").write_text(content)
    with pytest.raises(MedrlError, match="no key"):
        Pseudonyms.load(tmp_path / "key")


def test_lines_without_paths(tmp_path, monkeypatch):
    folder = tmp_path / "Doe^Jane (1961)"
    (folder / "sub").mkdir(parents=True)
    (folder / "sub" / "DOE1.dcm").write_text("x")
    (folder / "a").write_text("x")
    monkeypatch.chdir(tmp_path)
    line = f"{folder}: a slice, sub/DOE1.dcm, of {folder.name}: [Errno 2] '{folder}/a'"
    said = without_paths(line, [folder], "case-1")
    assert "Doe" not in said
    assert "DOE" not in said
    assert "slice" in said
    assert str(tmp_path) not in said
    assert "Doe" not in without_paths("Doe^Jane (1961) is bad", [Path("Doe^Jane (1961)")], "c")


def test_a_case_under_a_pseudonym_says_nothing_of_where_it_lies(pseudonyms):
    sources = {"scan": Source(Path("/data/sub-Doe/anat/sub-Doe_T1w.nii.gz"), "1.2.3")}
    name = "sub-Doe/anat/sub-Doe_T1w"
    case = Case(name, sources, {"seeds": "/data/Doe.mrk.json"}, layout="bids").under(pseudonyms)
    assert case.sources == sources
    assert case.folder == case.name == case.stem
    assert case == Case(name, sources, dict(case.options)).under(pseudonyms)
    written = json.dumps(case.plain())
    assert not [said for said in ("Doe", "data", "1.2.3") if said in written + case.name]
    assert "Doe" not in case.discreet("/data/Doe.mrk.json: is damaged; /copies/data/sub-Doe/anat")
    assert Case.of_plain(json.loads(written)).folder == case.folder
