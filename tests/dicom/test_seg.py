"""DICOM SEG, read back by highdicom and by nothing but pydicom, against the series' own files."""

import logging
import pickle
import zipfile

import highdicom
import numpy as np
import pydicom
import pytest
import torch
from monai.data.meta_tensor import MetaTensor
from read_back import frames_of, in_order, world_of

import medrl.dicom.objects
from medrl import read
from medrl.dicom import Maker, Segment, draft_segmentation
from medrl.dicom.objects import save
from medrl.volume.space import apply_affine, ras_to_lps

PLANES = ("axial", "axial downwards", "sagittal", "coronal", "oblique", "tilted gantry")
SEGMENTS = (Segment(1, "large", "whole"), Segment(2, "sm\u00e4ll", "whole"))
MAKER = Maker("hippocampus-t1", "1.2")


def labelled(scan) -> MetaTensor:
    """A map of what is bright and very bright in a scan, as a segmentation would give."""
    values = (scan.as_tensor() > 500).to(torch.uint8) + (scan.as_tensor() > 1500).to(torch.uint8)
    return MetaTensor(values, affine=scan.affine)


def written(path, scan, labels=None, **options) -> pydicom.Dataset:
    labels = labelled(scan) if labels is None else labels
    drafted = draft_segmentation(labels, scan, SEGMENTS, MAKER, **options)
    assert drafted.remarks == ()
    save(path, drafted.dataset)
    return pydicom.dcmread(path)


@pytest.mark.parametrize("how", ["folder", "zip", "shuffled frames", "a frame a file"])
@pytest.mark.parametrize("plane", PLANES)
def test_every_voxel_lies_on_the_pixel_of_the_image_it_is_of(
    make_series, voxels, tmp_path, plane, how
):
    series = make_series(voxels, plane, how=how)
    scan = series.read()
    dataset = written(tmp_path / "a.seg.dcm", scan)
    shared = dataset.SharedFunctionalGroupsSequence[0]
    orientation = shared.PlaneOrientationSequence[0].ImageOrientationPatient
    spacing = shared.PixelMeasuresSequence[0].PixelSpacing
    seen = {1: 0, 2: 0}
    world = []
    for segment, source, position, pixels in frames_of(dataset):
        image = series.files[source.ReferencedSOPInstanceUID]
        assert source.ReferencedSOPClassUID == image.SOPClassUID
        stored = image.pixel_array
        if "frames" in how:
            stored = stored[int(source.ReferencedFrameNumber) - 1]
        want = (stored > 1500) if segment == 2 else (stored > 500) & (stored <= 1500)
        np.testing.assert_array_equal(pixels, want)
        if how in ("folder", "zip"):
            place = image.ImagePositionPatient
        else:
            frame = int(source.get("ReferencedFrameNumber") or 1) - 1
            place = image.PerFrameFunctionalGroupsSequence[frame].PlanePositionSequence[0]
            place = place.ImagePositionPatient
        np.testing.assert_allclose(position, place, atol=1e-6)
        seen[segment] += int(pixels.sum())
        world.append(world_of(position, orientation, spacing, pixels))
    assert seen == {
        1: int(((voxels > 500) & (voxels <= 1500)).sum()),
        2: int((voxels > 1500).sum()),
    }
    # And where the scan's affine has them.
    inside = np.argwhere(scan[0].numpy() > 500)
    want = ras_to_lps(apply_affine(scan.affine, inside))
    np.testing.assert_allclose(in_order(np.concatenate(world)), in_order(want), atol=1e-3)


@pytest.mark.parametrize("plane", [plane for plane in PLANES if plane != "tilted gantry"])
def test_highdicom_reads_the_same_volume(make_series, voxels, tmp_path, plane):
    series = make_series(voxels, plane)
    scan = series.read()
    written(tmp_path / "a.seg.dcm", scan)
    volume = highdicom.seg.segread(tmp_path / "a.seg.dcm").get_volume(combine_segments=True)
    places = np.argwhere(volume.array > 0)
    found = in_order(volume.map_indices_to_reference(places))
    inside = np.argwhere(scan[0].numpy() > 500)
    want = in_order(ras_to_lps(apply_affine(scan.affine, inside)))
    np.testing.assert_allclose(found, want, atol=1e-3)
    assert (volume.array == 2).sum() == (voxels > 1500).sum()


def test_it_belongs_to_the_patient_the_study_and_the_frame_of_reference(
    make_series, voxels, tmp_path
):
    name = "山田^太郎"
    series = make_series(voxels, PatientName=name, SpecificCharacterSet="ISO_IR 192")
    dataset = written(tmp_path / "a.seg.dcm", series.read())
    image = next(iter(series.files.values()))
    for tag in (
        *("PatientName", "PatientID", "PatientBirthDate", "PatientSex", "PatientAge"),
        *("StudyInstanceUID", "StudyDate", "StudyTime", "StudyID", "AccessionNumber"),
        *("ReferringPhysicianName", "StudyDescription", "FrameOfReferenceUID"),
    ):
        assert dataset[tag].value == image[tag].value, tag
    assert str(dataset.PatientName) == name
    assert dataset.SeriesInstanceUID != image.SeriesInstanceUID
    (referenced,) = dataset.ReferencedSeriesSequence
    assert referenced.SeriesInstanceUID == image.SeriesInstanceUID
    known = {i.ReferencedSOPInstanceUID for i in referenced.ReferencedInstanceSequence}
    assert known == set(series.files)
    assert dataset.SegmentationType == "BINARY"
    assert [s.SegmentLabel for s in dataset.SegmentSequence] == ["large", "sm?ll"]
    kind = dataset.SegmentSequence[0].SegmentedPropertyTypeCodeSequence[0]
    assert (kind.CodeValue, kind.CodingSchemeDesignator) == ("5366008", "SCT")
    assert dataset.SegmentSequence[0].SegmentAlgorithmName == "hippocampus-t1"


def test_an_empty_mask_is_one_too(make_series, voxels, tmp_path):
    scan = make_series(voxels).read()
    nothing = MetaTensor(torch.zeros_like(labelled(scan).as_tensor()), affine=scan.affine)
    dataset = written(tmp_path / "a.seg.dcm", scan, nothing)
    assert not np.frombuffer(dataset.PixelData, np.uint8).any()


def test_a_real_ct(data_root, tmp_path):
    """Compressed slices; its anonymiser took the UIDs, so they get new ones."""
    files = sorted((data_root / "body_ct_mr" / "example_ct_dicom").iterdir())[5:10]
    folder = tmp_path / "ct"
    folder.mkdir()
    for number, file in enumerate(files):
        dataset = pydicom.dcmread(file)
        dataset.StudyInstanceUID, dataset.SeriesInstanceUID = "1.2.3", "1.2.3.4"
        dataset.SOPInstanceUID = f"1.2.3.4.{number + 1}"
        dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID
        dataset.save_as(folder / file.name)
    scan = read(folder)
    bone = MetaTensor((scan.as_tensor() > 300).to(torch.uint8), affine=scan.affine)
    drafted = draft_segmentation(bone, scan, SEGMENTS[:1], MAKER)
    save(tmp_path / "a.seg.dcm", drafted.dataset)
    images = {d.SOPInstanceUID: d for d in map(pydicom.dcmread, folder.iterdir())}
    count = 0
    for _, source, position, pixels in frames_of(pydicom.dcmread(tmp_path / "a.seg.dcm")):
        image = images[source.ReferencedSOPInstanceUID]
        hounsfield = image.pixel_array * float(image.RescaleSlope) + float(image.RescaleIntercept)
        np.testing.assert_array_equal(pixels, hounsfield > 300)
        np.testing.assert_allclose(position, image.ImagePositionPatient, atol=1e-9)
        count += 1
    assert count == 5


def test_nothing_is_made_of_a_scan_that_was_no_dicom(make_series, voxels):
    scan = make_series(voxels).read()
    del scan.meta["dicom"]
    drafted = draft_segmentation(labelled(scan), scan, SEGMENTS, MAKER)
    assert (drafted.dataset, drafted.remarks) == (None, ())


@pytest.mark.parametrize(
    ("tags", "said"),
    [
        ({"FrameOfReferenceUID": ""}, "no FrameOfReferenceUID"),
        ({"StudyInstanceUID": "", "SeriesInstanceUID": "1.2"}, "no StudyInstanceUID"),
    ],
)
def test_images_that_cannot_be_referred_to_are_a_remark(make_series, voxels, tags, said):
    scan = make_series(voxels, **tags).read()
    drafted = draft_segmentation(labelled(scan), scan, SEGMENTS, MAKER)
    assert drafted.dataset is None
    (remark,) = drafted.remarks
    assert remark.startswith("no .seg.dcm: ")
    assert said in remark


def test_frames_of_several_files_cannot_be_referred_to(make_series, voxels):
    scan = make_series(voxels, how="several files of frames").read()
    np.testing.assert_array_equal(scan.numpy()[0], voxels.transpose(2, 1, 0))
    (remark,) = draft_segmentation(labelled(scan), scan, SEGMENTS, MAKER).remarks
    assert (
        remark == "no .seg.dcm: its slices are frames of several files, which a SEG cannot refer to"
    )


def test_copies_under_one_uid_cannot_be_referred_to(make_series, voxels):
    series = make_series(voxels)
    for file in series.path.iterdir():
        dataset = pydicom.dcmread(file)
        dataset.SOPInstanceUID = "1.2.3"
        dataset.save_as(file)
    scan = read(series.path)
    (remark,) = draft_segmentation(labelled(scan), scan, SEGMENTS, MAKER).remarks
    assert "SOPInstanceUID" in remark


def test_without_highdicom_it_is_said_how_to_get_it(make_series, voxels, monkeypatch):
    monkeypatch.setattr(medrl.dicom.objects, "find_spec", lambda name: None)
    scan = make_series(voxels).read()
    (remark,) = draft_segmentation(labelled(scan), scan, SEGMENTS, MAKER).remarks
    assert remark.endswith("pip install 'medrl[dicom]'")


def test_values_that_libraries_refuse_are_carried_over_and_not_said(
    make_series, voxels, tmp_path, caplog, capfd, recwarn
):
    """A name without carets, a sex that is none, an identifier that is too long."""
    odd = {"PatientName": "SECRET ", "PatientSex": "SECRET", "PatientID": "SECRET" * 12}
    odd |= {"StudyDate": "SECRET", "StudyID": "SECRET" * 9}
    with pydicom.config.disable_value_validation():
        scan = make_series(voxels, **odd).read()
        want = dict(odd)
    with caplog.at_level(logging.DEBUG):
        dataset = written(tmp_path / "a.seg.dcm", scan)
        drafted = draft_segmentation(labelled(scan), scan, SEGMENTS, MAKER)
    assert "SECRET" in repr(drafted.dataset)
    said = capfd.readouterr()
    heard = [caplog.text, said.out, said.err, *(str(w.message) for w in recwarn), repr(scan)]
    assert not [text for text in heard if "SECRET" in text]
    with pydicom.config.disable_value_validation():
        assert str(dataset.PatientID) == want["PatientID"]


def test_a_segmentation_beside_its_series_is_not_taken_for_a_scan(make_series, voxels, tmp_path):
    series = make_series(voxels)
    written(series.path / "a.seg.dcm", series.read())
    np.testing.assert_array_equal(read(series.path).numpy()[0], voxels.transpose(2, 1, 0))
    with zipfile.ZipFile(tmp_path / "b.zip", "w") as archive:
        for file in series.path.iterdir():
            archive.write(file, file.name)
    assert read(tmp_path / "b.zip").shape == (1, 17, 22, 9)


def test_scans_from_dicom_still_make_batches(make_series, voxels):
    from monai.data import DataLoader, decollate_batch

    scan = make_series(voxels).read()
    (batch,) = DataLoader([{"image": scan}, {"image": scan}], batch_size=2)
    assert batch["image"].shape == (2, *scan.shape)
    first, _ = decollate_batch(batch)
    assert first["image"].meta["dicom"].instances == scan.meta["dicom"].instances
    again = pickle.loads(pickle.dumps(scan.meta["dicom"]))
    assert again.instances == scan.meta["dicom"].instances
    assert again.header == scan.meta["dicom"].header
