"""Landmarks as DICOM Structured Reports: measurement reports, TID 1500, in 3D (PS3.3 A.35.13)."""

from __future__ import annotations

import math
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pydicom
from numpy.typing import NDArray

from medrl.dicom.codes import ANATOMY, SCHEME, private_code
from medrl.dicom.deidentify import Pseudonyms
from medrl.dicom.objects import Drafted, Maker, draft, new_uid, plain, stamp
from medrl.volume.dicom_origin import DicomOrigin
from medrl.volume.space import ras_to_lps

if TYPE_CHECKING:
    from monai.data.meta_tensor import MetaTensor

_CERTAINTY = ("111012", "DCM", "Certainty of Finding")
_PERCENT = ("%", "UCUM", "Percent")
_PROCEDURE = ("363679005", "SCT", "Imaging procedure")
_OUTCOME = ("search-outcome", SCHEME, "Outcome of the search")
#: medrl as a device that observes, always the same.
_DEVICE_UID = f"2.25.{uuid.uuid5(uuid.NAMESPACE_DNS, 'medrl').int}"


@dataclass(frozen=True, eq=False)
class ReportedPoint:
    """A landmark.

    Attributes:
        name: Its name.
        position_world: (3,) RAS mm.
        confidence: 0 to 1; NaN if unknown.
        status: Such as ``found``.
    """

    name: str
    position_world: NDArray[np.float64]
    confidence: float
    status: str


def draft_report(
    scan: MetaTensor,
    points: Sequence[ReportedPoint],
    maker: Maker,
    *,
    pseudonyms: Pseudonyms | None = None,
) -> Drafted:
    """Put landmarks of a DICOM scan into a Comprehensive 3D SR.

    Each is a measurement group (TID 1410) with its name as tracking identifier, a POINT in the
    frame of reference of the scan (SCOORD3D, LPS mm), the Certainty of Finding in percent where it
    is known, and how it was found. The evidence lists the images of the series. Nobody has verified
    it, and it says so.

    Args:
        scan: As read; its ``meta["dicom"]`` says which images it is.
        points: Landmarks that are in the scan.
        maker: Who found them.
        pseudonyms: Take the patient's identity out; None to carry it over, as archives file by it.

    Returns:
        The object; or none if the scan was no DICOM or there are no landmarks, and a remark if its
        images cannot be referred to or highdicom is not installed.
    """

    def make(origin: DicomOrigin, images: list[pydicom.Dataset]) -> pydicom.Dataset:
        return _report(images, points, maker)

    return draft(scan, ".sr.dcm", make, pseudonyms) if points else Drafted()


def _report(
    images: list[pydicom.Dataset], points: Sequence[ReportedPoint], maker: Maker
) -> pydicom.Dataset:
    import highdicom
    from highdicom import sr

    device = sr.DeviceObserverIdentifyingAttributes(
        uid=_DEVICE_UID,
        name="medrl",
        manufacturer_name="medrl",
        model_name=plain(maker.model, 64),
    )
    observer = sr.ObserverContext(
        observer_type=sr.CodedConcept("121007", "DCM", "Device"),
        observer_identifying_attributes=device,
    )
    report = sr.MeasurementReport(
        observation_context=sr.ObservationContext(observer_device_context=observer),
        procedure_reported=sr.CodedConcept(*_PROCEDURE),
        imaging_measurements=[_group(images[0], point, maker) for point in points],
    )
    return sr.Comprehensive3DSR(
        evidence=images,
        content=report,
        is_complete=True,
        is_final=False,
        is_verified=False,
        coding_schemes=[
            highdicom.coding_schemes.CodingSchemeIdentificationItem(
                designator=SCHEME, name="medrl landmarks", responsible_organization="medrl"
            )
        ],
        **stamp("SR", maker, f"medrl {maker.model}"),
    )


def _group(image: pydicom.Dataset, point: ReportedPoint, maker: Maker) -> Any:
    """A landmark as a measurement group."""
    from highdicom import sr

    name = plain(point.name, 64) or "landmark"
    measurements = []
    if not math.isnan(point.confidence):
        measurements = [
            sr.Measurement(
                name=sr.CodedConcept(*_CERTAINTY),
                value=round(100 * point.confidence, 2),
                unit=sr.CodedConcept(*_PERCENT),
            )
        ]
    status = plain(point.status, 16)
    return sr.PlanarROIMeasurementsAndQualitativeEvaluations(
        tracking_identifier=sr.TrackingIdentifier(uid=new_uid(), identifier=name),
        referenced_region=sr.ImageRegion3D(
            graphic_type="POINT",
            graphic_data=ras_to_lps(point.position_world).reshape(1, 3),
            frame_of_reference_uid=str(image.FrameOfReferenceUID),
        ),
        finding_category=sr.CodedConcept(*ANATOMY),
        finding_type=sr.CodedConcept(*private_code(name)),
        algorithm_id=sr.AlgorithmIdentification(
            name=plain(maker.model, 64), version=plain(maker.version, 64)
        ),
        measurements=measurements,
        qualitative_evaluations=[
            sr.QualitativeEvaluation(
                name=sr.CodedConcept(*_OUTCOME),
                value=sr.CodedConcept(*private_code(status)),
            )
        ],
    )
