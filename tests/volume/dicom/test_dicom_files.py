"""Which files are taken for DICOM, and what becomes of the others."""

import os
import struct
import zipfile

import numpy as np
import pydicom
import pytest
from dicom_writer import (
    AFFINE,
    STORED,
    bare,
    deflated,
    encoded,
    frames,
    item,
    plain,
    without_preamble,
)

from medrl import MedrlError, read
from medrl.batch.discover import discover
from medrl.systems import by_verb
from medrl.volume.dicom_files import is_dicom
from medrl.volume.series import list_series

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")

BARE = {
    "with meta": without_preamble,
    "implicit": bare(implicit_vr=True, little_endian=True),
    "explicit": bare(implicit_vr=False, little_endian=True),
    "big endian": bare(implicit_vr=False, little_endian=False),
}


def check(path, **options):
    scan = read(path, **options)
    np.testing.assert_array_equal(scan.numpy()[0].transpose(2, 1, 0), STORED)
    np.testing.assert_allclose(scan.affine, AFFINE, atol=1e-6)
    return scan


def zipped(folder, target):
    with zipfile.ZipFile(target, "w") as archive:
        for file in sorted(folder.rglob("*")):
            archive.write(file, file.relative_to(folder))
    return target


@pytest.mark.parametrize("how", BARE)
def test_files_without_preamble(tmp_path, how):
    folder = plain(tmp_path / "a", encode=BARE[how])
    for file in list(folder.iterdir()):
        file.rename(folder / f"IM{file.stem}")
    check(folder)
    check(zipped(folder, tmp_path / "a.zip"))
    check(frames(tmp_path / "enhanced", encode=BARE[how]))
    (series,) = list_series(folder)
    assert len(series.files) == len(STORED)


@pytest.mark.parametrize("last", [True, False])
@pytest.mark.parametrize("how", BARE)
def test_the_one_slice_without_preamble_is_part_of_its_series(tmp_path, how, last):
    folder = plain(tmp_path / "a")
    other = plain(tmp_path / "b", encode=BARE[how])
    name = "4.dcm" if last else "7.dcm"
    (folder / name).unlink()
    (other / name).rename(folder / f"slice.{'img' if last else 'dcm'}")
    check(folder)
    (case,) = discover(folder, by_verb("detect"))
    assert case.source.series == "1.2.9"
    assert len(list_series(folder)[0].files) == len(STORED)


def test_series_without_uid(tmp_path):
    """Those of one folder belong together, those of two do not."""
    first = plain(tmp_path / "p1", without=["SeriesInstanceUID"])
    check(first)
    assert [series.uid for series in list_series(first)] == ["no-uid"]
    check(zipped(first, tmp_path / "p1.zip"))
    (tmp_path / "p1.zip").unlink()
    plain(tmp_path / "p2", without=["SeriesInstanceUID"], SeriesNumber=7)
    with pytest.raises(MedrlError, match=r"2 DICOM series.*: p1/no-uid \(MR.*; p2/no-uid-7"):
        read(tmp_path)
    check(tmp_path, series="p2/no-uid-7")
    with pytest.raises(MedrlError, match="2 DICOM series"):
        read(zipped(tmp_path, tmp_path.with_suffix(".zip")))
    cases = discover(tmp_path, by_verb("detect"))
    assert [case.name for case in cases] == ["p1", "p2"]
    for case in cases:
        check(case.source.path, series=case.source.series)
    # Two studies, and two series, in one folder.
    for name, tags in {"x": {"StudyInstanceUID": "1.2.77"}, "y": {"SeriesNumber": 3}}.items():
        for file in plain(tmp_path / "z", without=["SeriesInstanceUID"], **tags).iterdir():
            file.rename(first / f"{name}{file.name}")
        (tmp_path / "z").rmdir()
    assert {series.uid for series in list_series(first)} == {"no-uid", "no-uid_2", "no-uid-3"}
    for case in discover(tmp_path, by_verb("detect")):
        check(case.source.path, series=case.source.series)


def test_deflated_files_are_read_and_those_that_inflate_without_end_are_not(tmp_path):
    folder = plain(tmp_path / "a", encode=deflated)
    check(folder)

    def bomb(made):
        made.private_block(0x0099, "x", create=True).add_new(1, "OB", bytes(100 * 2**20))
        return deflated(made)

    frames(folder / "z.dcm", encode=bomb)
    assert (folder / "z.dcm").stat().st_size < 2**18
    with pytest.raises(MedrlError, match=r"the first is z\.dcm \(it would inflate to too much\)"):
        read(folder)


@pytest.mark.parametrize("cut", [0, 140, 300, 400, 600])
@pytest.mark.parametrize("encode", [encoded, without_preamble])
def test_a_slice_that_cannot_be_read_is_named(tmp_path, encode, cut):
    folder = plain(tmp_path / "a", encode=encode)
    content = (folder / "4.dcm").read_bytes()
    (folder / "4.dcm").write_bytes(content[:cut])
    with pytest.raises(MedrlError, match=r"4\.dcm"):
        read(folder)
    (case,) = discover(folder, by_verb("detect"))
    with pytest.raises(MedrlError, match=r"4\.dcm"):
        read(case.source.path, series=case.source.series)


def test_what_is_lost_away_from_any_series_is_a_case_that_fails(tmp_path):
    plain(tmp_path / "good")
    folder = plain(tmp_path / "bad")
    for file in folder.iterdir():
        file.write_bytes(file.read_bytes()[:300])
    (tmp_path / "notes.dcm").write_text("no image " * 99)
    (tmp_path / "notes.txt").write_text("no image " * 99)
    cases = {case.name: case.source for case in discover(tmp_path, by_verb("detect"))}
    assert set(cases) == {"good", "bad", tmp_path.name}
    check(cases["good"].path, series=cases["good"].series)
    with pytest.raises(MedrlError, match=r"6 of its DICOM files cannot be read"):
        read(cases["bad"].path)
    with pytest.raises(MedrlError, match=r"no DICOM images \(notes\.dcm is none\)"):
        read(cases[tmp_path.name].path)


def test_what_is_called_dicom_and_is_none_is_a_remark(tmp_path):
    folder = plain(tmp_path / "a")
    (folder / "notes.dcm").write_text("no image " * 99)
    (remark,) = check(folder).meta["remarks"]
    assert remark.startswith("1 files that are called DICOM are none")
    assert remark.endswith("notes.dcm")
    (tmp_path / "b").mkdir()
    (folder / "notes.dcm").rename(tmp_path / "b" / "notes.dcm")
    with pytest.raises(MedrlError, match=r"no DICOM images \(notes\.dcm is none\)"):
        read(tmp_path / "b")


def test_other_files_beside_a_series_say_nothing(tmp_path):
    folder = plain(tmp_path / "a")
    rng = np.random.default_rng(0)
    report = pydicom.Dataset()
    report.SOPClassUID, report.SOPInstanceUID = "1.2.840.10008.5.1.4.1.1.88.11", "1.2.5"
    report.ContentSequence = [item(TextValue="all is well")]
    report.file_meta = pydicom.dataset.FileMetaDataset()
    report.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    report.file_meta.MediaStorageSOPClassUID = report.SOPClassUID
    report.file_meta.MediaStorageSOPInstanceUID = report.SOPInstanceUID
    report.save_as(folder / "report", enforce_file_format=True)
    (folder / "README").write_text("8 slices \x08\x00 of nothing\n" * 40)
    (folder / "DICOMDIR").write_bytes(b"x" * 300)
    (folder / "._9.dcm").write_bytes(b"\x00\x05\x16\x07" * 40)
    (folder / "noise").write_bytes(rng.bytes(5000))
    (folder / "zeros").write_bytes(bytes(5000))
    (folder / "tags").write_bytes(struct.pack("<HHI", 8, 5, 2**31) + rng.bytes(5000))
    (folder / "empty").touch()
    os.mkfifo(folder / "pipe")
    assert check(folder).meta["remarks"] == ()
    (case,) = discover(folder, by_verb("detect"))
    assert case.name == "a"


def test_noise_is_no_dicom():
    """Not even where it begins as a file without preamble would."""
    rng = np.random.default_rng(1)
    assert not any(is_dicom(rng.bytes(1024)) for _ in range(2000))
    for start in (b"\x08\x00\x05\x00", b"\x02\x00\x00\x00UL\x04\x00", b"\x08\x00\x05\x00CS"):
        assert not any(is_dicom(start + rng.bytes(1000)) for _ in range(2000))
    assert not is_dicom(b"")
    assert not is_dicom(b"\x08\x00\x05\x00CS\x0a\x00ISO_IR 100")


def test_more_files_than_one_series_has_are_no_limit_of_a_batch(tmp_path, monkeypatch):
    monkeypatch.setattr("medrl.volume.dicom_files.MOST_FILES", 5)
    plain(tmp_path / "a")
    assert [case.name for case in discover(tmp_path, by_verb("detect"))] == ["a"]
    with pytest.raises(MedrlError, match="more than 5 files"):
        read(tmp_path)


def test_napari_takes_dicom_by_what_it_holds(tmp_path):
    pytest.importorskip("napari")
    from medrl_napari.readers import get_reader

    (tmp_path / "notes").write_text("no image " * 99)
    for encode in (encoded, without_preamble):
        assert get_reader(str(frames(tmp_path / "IM0001", encode=encode))) is not None
    assert get_reader(str(tmp_path / "notes")) is None
