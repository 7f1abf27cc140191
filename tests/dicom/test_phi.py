"""What DICOM headers say of a patient is in no output, no line and no name."""

import gzip
import zipfile
from pathlib import Path

import numpy as np
import pydicom
import pytest

from medrl import MedrlError, read
from medrl.cli import main
from medrl.dicom.deidentify import default_key_file

MARK = "ZQPHI"
#: Text of a header that may say who somebody is, or who has seen them.
TELLING = (
    *("PatientName", "PatientID", "PatientComments", "OtherPatientNames", "PatientAddress"),
    *("PatientMotherBirthName", "PatientTelephoneNumbers", "MedicalRecordLocator", "Occupation"),
    *("EthnicGroup", "AdditionalPatientHistory", "MedicalAlerts", "AdmissionID"),
    *("AccessionNumber", "InstitutionName", "InstitutionAddress", "InstitutionalDepartmentName"),
    *("ReferringPhysicianName", "PerformingPhysicianName", "OperatorsName", "StudyID"),
    *("NameOfPhysiciansReadingStudy", "RequestingPhysician", "PhysiciansOfRecord"),
    *("StudyDescription", "SeriesDescription", "ProtocolName", "ImageComments", "StationName"),
    *("RequestedProcedureDescription", "DeviceSerialNumber", "StudyComments", "PatientAge"),
)
BIRTH = "19610203"


def head() -> np.ndarray:
    """(slices, rows, columns): an ellipsoid in air."""
    axes = np.meshgrid(*[np.linspace(-1.2, 1.2, n) for n in (28, 40, 36)], indexing="ij")
    noise = np.random.default_rng(0).uniform(0, 60, (28, 40, 36))
    return (600 * (sum(a**2 for a in axes) < 1) + noise).astype(np.uint16)


def marked(dataset: pydicom.Dataset) -> pydicom.Dataset:
    """Fill a header with marks; some are longer than their kind may be, which libraries report."""
    for name in TELLING:
        dataset.add_new(name, pydicom.datadict.dictionary_VR(name), f"{MARK}-{name}" * 3)
    dataset.PatientBirthDate = BIRTH
    request = pydicom.Dataset()
    request.add_new("RequestedProcedureDescription", "LO", f"{MARK}-inner")
    dataset.RequestAttributesSequence = [request]
    private = dataset.private_block(0x0029, f"{MARK} CREATOR", create=True)
    private.add_new(0x10, "LT", f"{MARK}-private")
    return dataset


@pytest.fixture
def study(make_series, tmp_path, monkeypatch):
    """Build a folder of marked series: one is whole, others are damaged in ways of their own."""
    monkeypatch.setattr(pydicom.config.settings, "writing_validation_mode", 0)
    monkeypatch.setattr(pydicom.config.settings, "reading_validation_mode", 0)

    def damage(kind: str, number: int, dataset: pydicom.Dataset) -> None:
        if kind == "position" and number == 3:
            dataset.add_new("ImagePositionPatient", "LO", [f"{MARK}-a", "1", "2"])
        elif kind == "rows":
            dataset.add_new("Rows", "LO", f"{MARK}-rows")
        elif kind == "slope":
            dataset.add_new("RescaleSlope", "LO", f"{MARK}-slope")
            dataset.add_new("RescaleIntercept", "LO", f"{MARK}-intercept")
        elif kind == "place" and number == 3:
            del dataset.ImagePositionPatient
        elif kind == "short":
            dataset.PixelData = dataset.PixelData[:100]

    def build(name: str, kinds=("whole", "position", "rows", "slope", "place", "short")) -> Path:
        for kind in kinds:
            made = make_series(head(), "axial", where=f"{name}/{kind}")
            for number, file in enumerate(sorted(made.path.iterdir())):
                dataset = marked(pydicom.dcmread(file))
                damage(kind, number, dataset)
                dataset.save_as(file, enforce_file_format=True)
        return tmp_path / name

    return build


@pytest.fixture
def medrl(capfd, recwarn):
    """Run a command; its exit code, and all that it and its workers said."""

    def run(*arguments: object) -> tuple[int, str]:
        capfd.readouterr()
        code = main([str(argument) for argument in arguments])
        said = capfd.readouterr()
        assert "Traceback" not in said.err
        return code, said.out + said.err + "".join(str(w.message) for w in recwarn)

    return run


def telling(folder: Path, marks, *, but=()) -> list[str]:
    """Files below a folder whose names or bytes hold a mark."""
    found = []
    for file in folder.rglob("*"):
        content = file.read_bytes() if file.is_file() else b""
        if file.name.endswith(".gz"):
            content += gzip.decompress(content)
        if file.name.endswith(".parquet"):
            parquet = pytest.importorskip("pyarrow.parquet")
            content += str(parquet.read_table(file).to_pydict()).encode()
        names = str(file.relative_to(folder)).casefold()
        content = content.lower()
        for mark in marks:
            inside = mark.lower().encode() in content and not file.name.endswith(tuple(but))
            if inside or mark.casefold() in names:
                found.append(f"{names}: {mark}")
    return found


def test_a_batch_says_nothing_of_the_patients(study, tmp_path, medrl):
    folder, out = study("in", ("whole", "position", "slope", "place", "short")), tmp_path / "out"
    out.mkdir()
    code, said = medrl("batch", "detect", folder, out, "--json-log", out / "log.jsonl")
    assert code == 1
    assert "1 of 5 scans done, 4 failed" in said
    assert MARK not in said
    assert BIRTH not in said
    # An object for an archive does belong to the patient.
    report = out / "whole" / "whole.sr.dcm"
    assert telling(out, (MARK, BIRTH), but=(".sr.dcm",)) == []
    assert f"{MARK}-PatientName".encode() in report.read_bytes()
    for name in ("InstitutionName", "SeriesDescription", "private", "PatientAddress", "inner"):
        assert f"{MARK}-{name}".encode() not in report.read_bytes()
    assert (out / "results.csv").stat().st_size > 1000


def test_deidentified_results_hold_no_name_no_identifier_and_no_path(study, tmp_path, medrl):
    folder = study(f"{MARK}^Jane (1961)", ("whole", "position", "place"))
    for file in sorted(folder.rglob("*.dcm")):
        file.rename(file.with_name(f"{MARK}_{file.name}"))
    kinds = ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "FrameOfReferenceUID")
    headers = [pydicom.dcmread(file) for file in folder.rglob("*.dcm")]
    uids = {str(header[kind].value) for header in headers for kind in kinds}
    out, key = tmp_path / "out", tmp_path / "key"
    out.mkdir()
    line = ("batch", "detect", folder, out, "--deidentify", "--json-log", out / "log.jsonl")
    code, said = medrl(*line, "--key", key)
    assert code == 1
    assert "1 of 3 scans done, 2 failed" in said
    marks = (MARK, BIRTH, "Jane", *uids)
    assert [mark for mark in marks if mark in said] == []
    assert telling(out, marks) == []
    assert key.read_text() not in "".join(f.read_text("latin-1") for f in out.rglob("*.json"))
    (report,) = out.rglob("*.sr.dcm")
    assert pydicom.dcmread(report).PatientIdentityRemoved == "YES"
    # The plan tells whoever has the key which is which, and the same command goes on.
    _, plan = medrl(*line, "--key", key, "--dry-run")
    assert f"{report.parent.name}: scan {folder / 'whole'}" in plan
    code, again = medrl(*line, "--key", key)
    assert "3 of 3 scans have ended before" in again
    assert telling(out, marks) == []
    # Not with another key.
    code, other = medrl(*line, "--key", tmp_path / "other")
    assert code == 2
    assert "deidentified differ" in other


def test_segment_in_a_batch_and_alone(study, tmp_path, medrl):
    folder, out, key = study(f"{MARK}^Jane", ("whole",)), tmp_path / "out", tmp_path / "key"
    middle = read(folder).affine @ np.array([18, 20, 14, 1])
    seed = "fg:" + ",".join(f"{v:.2f}" for v in middle[:3])
    (tmp_path / "list.csv").write_text(f'scan,seeds\n{folder / "whole"},"{seed}"\n')
    options = ("--deidentify", "--key", key)
    code, said = medrl("batch", "segment", tmp_path / "list.csv", out, *options, "--no-picture")
    assert (code, MARK in said) == (0, False), said
    assert telling(out, (MARK, BIRTH, "Jane")) == []
    (masks,) = out.rglob("*.seg.dcm")
    assert pydicom.dcmread(masks).PatientID.startswith("medrl-")
    alone = tmp_path / "alone"
    code, said = medrl("segment", folder / "whole", "-o", alone, "--seed", seed, *options, "--json")
    assert (code, MARK in said) == (0, False), said
    assert telling(alone, (MARK, BIRTH, "Jane")) == []
    assert ".seg.dcm" in said
    one, other = (pydicom.dcmread(path) for path in (masks, *alone.glob("*.seg.dcm")))
    assert one.PatientID == other.PatientID
    assert one.PixelData == other.PixelData


def test_detect_alone(study, tmp_path, medrl, monkeypatch):
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "home"))
    folder = study(f"{MARK}^Jane", ("whole", "position"))
    out = tmp_path / "out"
    scans = (folder / "whole", folder / "position")
    code, said = medrl("detect", *scans, "-o", out, "--deidentify", "--no-picture")
    assert (code, MARK in said) == (1, False), said
    assert telling(out, (MARK, BIRTH, "Jane")) == []
    assert len(list(out.glob("case-*.sr.dcm"))) == 1
    assert default_key_file().is_file()


def test_errors_quote_no_value(study, tmp_path, recwarn):
    kinds = ("position", "rows", "slope", "place", "short")
    folder = study("in", kinds)
    for kind in kinds:
        archive = tmp_path / f"{kind}.zip"
        with zipfile.ZipFile(archive, "w") as out:
            for file in (folder / kind).iterdir():
                out.write(file, f"{MARK}/{file.name}")
        for path in (folder / kind, archive):
            with pytest.raises(MedrlError) as error:
                read(path)
            assert MARK not in str(error.value)
            assert "\n" not in str(error.value)
    with pytest.raises(MedrlError) as error:
        read(folder)  # several series
    assert MARK not in str(error.value)
    assert not [w for w in recwarn if MARK in str(w.message)]


def test_the_key_is_not_kept_among_the_results(tmp_path, medrl):
    out = tmp_path / "out"
    options = ("--deidentify", "--key", out / "key")
    code, said = medrl("batch", "detect", tmp_path, out, *options)
    assert code == 2
    assert "apart from the results" in said
    assert not (out / "key").exists()
