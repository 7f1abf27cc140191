"""DICOM SR, read back by highdicom and by pydicom alone."""

import highdicom
import numpy as np
import pydicom
import pytest
from read_back import items, meaning

from medrl.dicom import Maker, ReportedPoint, draft_report
from medrl.dicom.objects import save

MAKER = Maker("brain-t1", "1.2")
#: RAS mm.
POINTS = (
    ReportedPoint("AC", np.array([12.3456, -34.5678, 56.789]), 0.875, "found"),
    ReportedPoint("Putamen \\ li\u00dfks", np.array([-0.001, 250.25, -300.75]), 0.25, "corrected"),
    ReportedPoint("by a person", np.array([1.0, 2.0, 3.0]), np.nan, "by hand"),
)


def written(path, scan, points=POINTS, **options) -> pydicom.Dataset:
    drafted = draft_report(scan, points, MAKER, **options)
    assert drafted.remarks == ()
    save(path, drafted.dataset)
    return pydicom.dcmread(path)


@pytest.mark.parametrize(
    "how", ["folder", "zip", "frames", "a frame a file", "several files of frames"]
)
@pytest.mark.parametrize("plane", ["axial", "sagittal", "oblique"])
def test_points_lie_where_they_were_found(make_series, voxels, tmp_path, plane, how):
    series = make_series(voxels, plane, how=how)
    dataset = written(tmp_path / "a.sr.dcm", series.read())
    image = next(iter(series.files.values()))
    places = items(dataset, "SCOORD3D")
    assert {place.GraphicType for place in places} == {"POINT"}
    assert {p.ReferencedFrameOfReferenceUID for p in places} == {image.FrameOfReferenceUID}
    lps = np.array([place.GraphicData for place in places], dtype=float)
    want = np.array([p.position_world for p in POINTS]) * (-1, -1, 1)
    np.testing.assert_allclose(lps, want, atol=1e-3)
    names = [i.TextValue for i in items(dataset, "TEXT") if meaning(i) == "Tracking Identifier"]
    assert names == ["AC", "Putamen ? li?ks", "by a person"]
    assert dataset.StudyInstanceUID == image.StudyInstanceUID
    assert str(dataset.PatientName) == "Doe^Jane"
    (study,) = dataset.CurrentRequestedProcedureEvidenceSequence
    (evidence,) = study.ReferencedSeriesSequence
    assert evidence.SeriesInstanceUID == image.SeriesInstanceUID
    listed = {i.ReferencedSOPInstanceUID for i in evidence.ReferencedSOPSequence}
    assert listed == set(series.files)
    kinds = {i.ReferencedSOPClassUID for i in evidence.ReferencedSOPSequence}
    assert kinds == {image.SOPClassUID}


def test_highdicom_takes_it_for_a_measurement_report(make_series, voxels, tmp_path):
    written(tmp_path / "a.sr.dcm", make_series(voxels).read())
    document = highdicom.sr.srread(tmp_path / "a.sr.dcm")
    assert isinstance(document, highdicom.sr.Comprehensive3DSR)
    assert document.VerificationFlag == "UNVERIFIED"
    groups = document.content.get_planar_roi_measurement_groups()
    assert [group.tracking_identifier for group in groups] == [
        "AC",
        "Putamen ? li?ks",
        "by a person",
    ]
    sure = [[(m.name.meaning, m.value, m.unit.value) for m in g.get_measurements()] for g in groups]
    assert sure == [
        [("Certainty of Finding", 87.5, "%")],
        [("Certainty of Finding", 25.0, "%")],
        [],
    ]
    evaluations = [e for group in groups for e in group.get_qualitative_evaluations()]
    outcomes = [e.value.meaning for e in evaluations if e.name.meaning == "Outcome of the search"]
    assert outcomes == ["found", "corrected", "by hand"]
    np.testing.assert_allclose(
        groups[0].roi.value, POINTS[0].position_world[None] * (-1, -1, 1), atol=1e-3
    )


def test_no_landmarks_no_report(make_series, voxels):
    drafted = draft_report(make_series(voxels).read(), (), MAKER)
    assert (drafted.dataset, drafted.remarks) == (None, ())
