"""Masks as DICOM Segmentation objects (PS3.3 A.51)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pydicom

from medrl.dicom.codes import property_codes
from medrl.dicom.deidentify import Pseudonyms
from medrl.dicom.objects import Drafted, Maker, draft, new_uid, plain, stamp
from medrl.errors import MedrlError
from medrl.volume.dicom_origin import DicomOrigin

if TYPE_CHECKING:
    from monai.data.meta_tensor import MetaTensor


@dataclass(frozen=True)
class Segment:
    """One label of a mask.

    Attributes:
        number: In the mask.
        name: What the user calls it.
        target: What the model says it is.
    """

    number: int
    name: str
    target: str


def draft_segmentation(
    labels: MetaTensor,
    scan: MetaTensor,
    segments: Sequence[Segment],
    maker: Maker,
    *,
    pseudonyms: Pseudonyms | None = None,
) -> Drafted:
    """Put a label map of a DICOM scan into a binary SEG that refers to the scan's own images.

    Every slice with something of a segment becomes a frame with the position of its image, so
    tilted and unevenly spaced series are right to the voxel, too.

    Args:
        labels: MetaTensor (1, I, J, K) of whole numbers in the scan's grid; 0 is background.
        scan: As read; its ``meta["dicom"]`` says which images it is.
        segments: Numbered from 1 without gaps.
        maker: Who made the mask.
        pseudonyms: Take the patient's identity out; None to carry it over, as archives file by it.

    Returns:
        The object; or none if the scan was no DICOM, and a remark if its images cannot be referred
        to or highdicom is not installed.
    """

    def make(origin: DicomOrigin, images: list[pydicom.Dataset]) -> pydicom.Dataset:
        return _segmentation(labels, origin, images, segments, maker)

    return draft(scan, ".seg.dcm", make, pseudonyms)


def _segmentation(
    labels: MetaTensor,
    origin: DicomOrigin,
    images: list[pydicom.Dataset],
    segments: Sequence[Segment],
    maker: Maker,
) -> pydicom.Dataset:
    import highdicom

    if origin.is_multi_frame and len(images) > 1:
        raise MedrlError("its slices are frames of several files, which a SEG cannot refer to")
    values = labels.as_tensor()[0].numpy(force=True).astype(np.uint8)
    frames = np.ascontiguousarray(values.transpose(2, 1, 0))  # slices, rows, columns
    size = (len(origin.positions_lps), int(images[0].Rows), int(images[0].Columns))
    if frames.shape != size:
        raise MedrlError("the mask is not in the grid of the scan's images")
    if origin.is_multi_frame:
        frames = frames[np.argsort(origin.frames)]
    return highdicom.seg.Segmentation(
        source_images=images,
        pixel_array=frames,
        segmentation_type="BINARY",
        segment_descriptions=[_description(segment, maker) for segment in segments],
        content_label="MEDRL",
        content_description=plain(f"Segmentation by {maker.model}; for research", 64),
        **stamp("SEG", maker, f"medrl {maker.model}"),
    )


def _description(segment: Segment, maker: Maker) -> Any:
    import highdicom

    category, kind = property_codes(maker.model, segment.target)
    return highdicom.seg.SegmentDescription(
        segment_number=segment.number,
        segment_label=plain(segment.name, 64) or str(segment.number),
        segmented_property_category=highdicom.sr.CodedConcept(*category),
        segmented_property_type=highdicom.sr.CodedConcept(*kind),
        # A person places seeds, an agent adds others.
        algorithm_type="SEMIAUTOMATIC",
        algorithm_identification=highdicom.AlgorithmIdentificationSequence(
            name=plain(maker.model, 64),
            family=highdicom.sr.CodedConcept("123110", "DCM", "Artificial Intelligence"),
            version=plain(maker.version, 64),
        ),
        tracking_id=plain(segment.name, 64) or str(segment.number),
        tracking_uid=new_uid(),
    )
