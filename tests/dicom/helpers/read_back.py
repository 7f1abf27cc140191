"""DICOM objects read back by nothing but pydicom and NumPy."""

import numpy as np


def frames_of(dataset):
    """Segment number, source instance and frame, position and pixels of each frame; no library."""
    size = dataset.Rows * dataset.Columns
    bits = np.unpackbits(np.frombuffer(dataset.PixelData, np.uint8), bitorder="little")
    for number, groups in enumerate(dataset.PerFrameFunctionalGroupsSequence):
        shared = dataset.SharedFunctionalGroupsSequence[0]
        named = groups if "SegmentIdentificationSequence" in groups else shared
        segment = named.SegmentIdentificationSequence[0].ReferencedSegmentNumber
        source = groups.DerivationImageSequence[0].SourceImageSequence[0]
        position = np.array(groups.PlanePositionSequence[0].ImagePositionPatient, dtype=float)
        pixels = bits[number * size : (number + 1) * size].reshape(dataset.Rows, dataset.Columns)
        yield int(segment), source, position, pixels.astype(bool)


def world_of(position, orientation, spacing, pixels):
    """Where set pixels are, LPS mm (PS3.3 C.7.6.2.1.1)."""
    cosines = np.array(orientation, dtype=float)
    rows, columns = np.nonzero(pixels)
    right, down = cosines[:3] * float(spacing[1]), cosines[3:] * float(spacing[0])
    return position + columns[:, None] * right + rows[:, None] * down


def in_order(points):
    return points[np.lexsort(points.round(2).T)]


def items(dataset, kind):
    """All content items of a value type, in order; no library."""
    found = []
    for item in dataset.get("ContentSequence", ()):
        if item.ValueType == kind:
            found.append(item)
        found += items(item, kind)
    return found


def meaning(item):
    return item.ConceptNameCodeSequence[0].CodeMeaning
