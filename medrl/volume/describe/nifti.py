"""What a NIfTI header says."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import nibabel as nib
import numpy as np

from medrl.volume._content import look, opened
from medrl.volume.describe.content import head
from medrl.volume.describe.header import Header, usable

_FORMS = {1: "scanner", 2: "aligned", 3: "Talairach", 4: "MNI", 5: "template"}
_UNITS = {1: "m", 2: "mm", 3: "um"}
_TO_MM = {1: 1000.0, 3: 0.001}
_SECONDS = {8: 1.0, 16: 1e-3, 24: 1e-6}
_INTENTS = {1002: "label map", 1003: "names of neurons", 1007: "vectors", 1006: "displacements"}
#: Enough for a header of either edition.
_HEADER = 540
_MOST_EXTENSIONS, _LONGEST = 16, 2**22


def nifti_header(path: Path) -> nib.Nifti1Header | None:
    """The header as it is stored, nothing mended; None of a file that has none."""
    try:
        start, _ = head(path, _HEADER)
        sizes = {int.from_bytes(start[:4], "little"), int.from_bytes(start[:4], "big")}
        if not sizes & {348, 540}:
            return None
        kind = nib.Nifti2Header if 540 in sizes else nib.Nifti1Header
        return kind(start[: max(sizes & {348, 540})], check=False)
    except Exception:
        # Parsers of damaged files fail in every way there is.
        return None


def nifti_extensions(path: Path) -> list[bytes]:
    """What a file's extensions hold, damaged ones left out."""
    found: list[bytes] = []
    header = nifti_header(path)
    if header is None:
        return found
    with opened(path, look(path).gzips) as read:
        at = 540 if isinstance(header, nib.Nifti2Header) else 348
        read(at)
        if read(4)[:1] != b"\x01":
            return found
        at += 4
        end = float(header["vox_offset"])
        order: Literal["big", "little"] = "big" if header.endianness == ">" else "little"
        while at + 8 <= end and len(found) < _MOST_EXTENSIONS:
            size = int.from_bytes(read(4), order)
            read(4)
            if not 8 < size <= min(_LONGEST, end - at):
                break
            found.append(read(size - 8).rstrip(b"\0"))
            at += size
    return found


def describe_nifti(path: Path) -> Header:
    """What a file's header says; nothing at all if it is none."""
    header = nifti_header(path)
    if header is None:
        return Header()
    count = int(header["dim"][0])
    sizes = [int(n) for n in header["dim"][1 : count + 1]] if 1 <= count <= 7 else []
    units = int(header["xyzt_units"])
    facts = {
        "byte order": "big-endian" if header.endianness == ">" else "little-endian",
        "sform": _form(int(header["sform_code"])),
        "qform": _form(int(header["qform_code"])),
        "unit": _UNITS.get(units & 7, "not stated"),
    }
    doubts = []
    seconds = None
    if not units & 7:
        doubts.append("its header does not state the unit of its voxel size: mm taken")
    if int(header["intent_code"]) in _INTENTS:
        facts["intent"] = _INTENTS[int(header["intent_code"])]
    slope, inter = float(header["scl_slope"]), float(header["scl_inter"])
    if np.isfinite([slope, inter]).all() and slope and (slope, inter) != (1.0, 0.0):
        facts["scaling"] = f"times {slope:g}" + (f" plus {inter:g}" if inter else "")
    if len(sizes) > 3 and sizes[3] > 1:
        step = float(header["pixdim"][4])
        unit = _SECONDS.get(units & 56)
        seconds = None if unit is None else step * unit
        facts["frame step"] = f"{step:g}, unit not stated" if unit is None else f"{step * unit:g} s"
        if seconds is not None and not seconds > 0:
            doubts.append(f"its frames are {seconds:g} s apart, which cannot be")
    with np.errstate(all="ignore"):
        affine = np.asarray(header.get_best_affine(), dtype=np.float64)
    affine[:3] *= _TO_MM.get(units & 7, 1.0)
    found = usable(affine)
    if found is not None and int(header["sform_code"]) > 0:
        stated = np.abs(np.asarray(header["pixdim"][1:4], dtype=np.float64))
        stated *= _TO_MM.get(units & 7, 1.0)
        real = np.linalg.norm(found[:3, :3], axis=0)
        if not np.allclose(stated, real, rtol=0.01):
            doubts.append(
                f"its header gives two voxel sizes: {_sizes(stated)} mm in pixdim, "
                f"{_sizes(real)} mm in the sform"
            )
    try:
        stored = str(header.get_data_dtype().newbyteorder("="))
    except Exception:
        stored = f"NIfTI code {int(header['datatype'])}"
    return Header(
        shape=(*sizes, 1, 1, 1)[:3] if sizes else (),
        channels=int(np.prod([max(n, 1) for n in sizes[3:]], dtype=np.int64)),
        affine=found,
        stored=stored,
        frame_step_s=seconds,
        facts=facts,
        doubts=tuple(doubts),
    )


def _form(code: int) -> str:
    return _FORMS.get(code, "unset" if code <= 0 else f"code {code}")


def _sizes(values: np.ndarray) -> str:
    return " x ".join(f"{value:.4g}" for value in values)
