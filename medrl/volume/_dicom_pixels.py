"""Stored pixel values of DICOM files, by pydicom, or by GDCM for what pydicom has no decoder for.

Neither is asked for more than that: GDCM gets a copy that has no rescaling, no photometric
interpretation and no patient.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pydicom
from numpy.typing import NDArray
from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

from medrl.errors import MedrlError
from medrl.volume._subprocess_io import decode

_FLOATS = ("FloatPixelData", "DoubleFloatPixelData")
_SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"
_KEPT = (
    *("Rows", "Columns", "NumberOfFrames", "SamplesPerPixel", "PixelRepresentation"),
    *("BitsAllocated", "BitsStored", "HighBit"),
)


class PixelReader:
    """Decodes the files of a series."""

    def __init__(self, path: Path, files: Sequence[Path]) -> None:
        """Read nothing yet.

        Args:
            path: What the user named, for messages.
            files: All that will be asked for.
        """
        self._path, self._files = path, files
        # GDCM is asked for all files of a kind at once: it is a process of its own.
        self._decoded: dict[Path, NDArray[np.generic]] = {}

    def read(self, file: Path) -> tuple[pydicom.Dataset, NDArray[np.generic]]:
        """A file's dataset, and its stored values (frames, rows, columns).

        Raises:
            MedrlError: If they cannot be decoded.
        """
        dataset = pydicom.dcmread(file, force=True)
        try:
            _name_syntax(dataset)
            stored = dataset.pixel_array
        except (RuntimeError, NotImplementedError):
            if file not in self._decoded:
                self._by_gdcm(dataset.file_meta.TransferSyntaxUID)
            stored = self._decoded.pop(file)
        except MedrlError as error:
            raise MedrlError(f"{self._path}: {file.name} {error}") from None
        except Exception as error:
            raise self._undecodable(file, type(error).__name__) from error
        rows, columns = int(dataset.Rows), int(dataset.Columns)
        if stored.shape[-2:] != (rows, columns):
            raise MedrlError(
                f"{self._path}: the pixels of a slice do not fit its header; export it anew"
            )
        return dataset, stored.reshape(-1, rows, columns)

    def _by_gdcm(self, syntax: str) -> None:
        with tempfile.TemporaryDirectory(prefix="medrl-") as folder:
            copies: dict[Path, Path] = {}
            for number, file in enumerate(self._files):
                dataset = pydicom.dcmread(file, force=True)
                if dataset.file_meta.get("TransferSyntaxUID") != syntax:
                    continue
                copies[file] = Path(folder) / f"{number}.dcm"
                try:
                    _bare(dataset).save_as(copies[file], enforce_file_format=True)
                except Exception as error:
                    raise self._undecodable(file, type(error).__name__) from error
            try:
                arrays = decode(list(copies.values()))
            except MedrlError as error:
                raise MedrlError(f"{self._path}: the pixels of a slice: {error}") from error
            self._decoded.update(zip(copies, arrays, strict=True))

    def _undecodable(self, file: Path, reason: str) -> MedrlError:
        return MedrlError(
            f"{self._path}: the pixels of {file.name} cannot be decoded: they are truncated, "
            f"damaged or of an unknown variant ({reason}); copy or export it again"
        )


def _name_syntax(dataset: pydicom.Dataset) -> None:
    """Say how pixels are encoded where a file does not, as files without preamble do not."""
    if not any(tag in dataset for tag in ("PixelData", *_FLOATS)):
        raise MedrlError("holds no pixels, or is truncated; copy or export it again")
    if dataset.file_meta.get("TransferSyntaxUID"):
        return
    if "PixelData" in dataset and dataset["PixelData"].is_undefined_length:
        raise MedrlError("does not say how its pixels are compressed; export it anew")
    implicit, little = dataset.original_encoding
    plain = ImplicitVRLittleEndian if implicit else ExplicitVRLittleEndian
    dataset.file_meta.TransferSyntaxUID = plain if little else ExplicitVRBigEndian


def _bare(dataset: pydicom.Dataset) -> pydicom.Dataset:
    """A copy of the pixels, and of no more than it takes to decode them."""
    bare = pydicom.Dataset()
    bare.file_meta = pydicom.dataset.FileMetaDataset()
    bare.file_meta.TransferSyntaxUID = dataset.file_meta.TransferSyntaxUID
    bare.file_meta.MediaStorageSOPClassUID = bare.SOPClassUID = _SECONDARY_CAPTURE
    bare.file_meta.MediaStorageSOPInstanceUID = bare.SOPInstanceUID = "1.2"
    bare.PhotometricInterpretation = "MONOCHROME2"
    for tag in _KEPT:
        if tag in dataset:
            bare[tag] = dataset[tag]
    bare["PixelData"] = dataset["PixelData"]
    return bare
