"""Results as DICOM: masks as SEG, landmarks as SR, with the patient's identity or without."""

from medrl.dicom.deidentify import Pseudonyms
from medrl.dicom.objects import Drafted, Maker
from medrl.dicom.seg import Segment, draft_segmentation
from medrl.dicom.sr import ReportedPoint, draft_report

__all__ = [
    "Drafted",
    "Maker",
    "Pseudonyms",
    "ReportedPoint",
    "Segment",
    "draft_report",
    "draft_segmentation",
]
