"""Damage to DICOM elements and to zip archives."""

from __future__ import annotations

import io
import random
import re
import struct
import warnings
import zipfile
from typing import Any

import pydicom
from damage import BOMB, INTS, NUMBERS, PATHS, TEXTS, restructure, scribble, within
from pydicom.dataset import Dataset

_UIDS = ("../../x", "/etc/passwd", "1.2." + "9" * 70, "", "1..2", "1.2.840.10008.1.2.4.70",
         "1.2.840.10008.1.2.4.90", "1.2.840.10008.1.2.5", "1.2.840.10008.1.2.1.99",
         "1.2.840.10008.1.2.2", "1.2.840.10008.1.2.4.50", "1.2.840.10008.1.2.4.80",
         "1.2.840.10008.5.1.4.1.1.66.4")  # fmt: skip


def dicom(content: bytes, rng: random.Random) -> bytes:
    """Put something else into an element, or leave it out."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            dataset = pydicom.dcmread(io.BytesIO(content), force=True)
            part: Dataset = dataset.file_meta if rng.random() < 0.15 else dataset
            for _ in range(rng.choice((1, 1, 2))):
                element = rng.choice(list(part))
                while element.VR == "SQ" and element.value and rng.random() < 0.7:
                    part = rng.choice(list(element.value))
                    element = rng.choice(list(part))
                _element(part, element.tag, rng)
            out = io.BytesIO()
            dataset.save_as(out, enforce_file_format=False)
            return out.getvalue()
        except Exception:
            # What cannot be written as DICOM is damaged as bytes.
            return scribble(content, rng)


def _element(part: Dataset, tag: Any, rng: random.Random) -> None:
    element = part[tag]
    if rng.random() < 0.25 or element.VR == "SQ":
        del part[tag]
    elif element.VR == "UI":
        element._value = rng.choice(_UIDS)
    elif element.VR in ("DS", "IS"):
        many = element.VM
        values = [rng.choice(NUMBERS)[:300] for _ in range(rng.choice((many, many, 0, 1, 2, 9)))]
        part.add(pydicom.DataElement(tag, "LO", "\\".join(values), already_converted=True))
    elif element.VR in ("US", "UL", "SS"):
        code = rng.choice(("US", "US", "UL", "LO", "FD"))
        value: Any = rng.choice((0, 1, 2, 3, 7, 8, 12, 16, 17, 32, 64, 255, 4096, 65535))
        if code == "LO":
            value = rng.choice(TEXTS)[:60]
        part.add(pydicom.DataElement(tag, code, float(value) if code == "FD" else value))
    elif element.VR in ("OW", "OB"):
        raw = element.value
        element._value = restructure(raw if isinstance(raw, bytes) else b"\0" * 8, rng)
    else:
        element._value = rng.choice(TEXTS)[:60]


def zip_archive(content: bytes, rng: random.Random) -> bytes:
    """An archive with odd names, links, lies or bombs, or the same one damaged inside or out."""
    members = _members(content)
    way = rng.randrange(12) if members else 0
    if way <= 1:
        return scribble(content, rng)
    if way == 2:
        return restructure(content, rng)
    if way == 3:
        # Sizes, offsets and flags of the entries.
        out = bytearray(content)
        heads = [m.start() for m in re.finditer(rb"PK\x01\x02|PK\x03\x04|PK\x05\x06", content)]
        at = rng.choice(heads) + rng.randrange(4, 46)
        out[at : at + 4] = struct.pack("<I", rng.choice(INTS) % 2**32)
        return bytes(out[: len(content)])
    buffer = io.BytesIO()
    with warnings.catch_warnings(), zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        warnings.simplefilter("ignore")
        bombed = False
        for number, (name, data) in enumerate(members):
            info = zipfile.ZipInfo(name)
            info.compress_type = zipfile.ZIP_DEFLATED
            if way == 4:
                odd = (*PATHS, "..\\..\\x", "C:\\x", "C:x", "\\\\host\\x", "/../x", "a/../../x",
                       "", "x" * 40000, "a\nb", "?")  # fmt: skip
                info.filename = rng.choice(odd)
            elif way == 5:
                info.external_attr = 0o120777 << 16
                data = rng.choice(PATHS).encode()
            elif way == 6 and not bombed:
                data, bombed = data + b"\0" * BOMB, True
            elif way == 7:
                data = dicom(data, rng)
            elif way == 8:
                data = within(data, rng.choice((scribble, restructure)), rng)
            elif way == 9:
                info.filename = "same"
            elif way == 10 and number == 0:
                for extra in range(500):
                    archive.writestr(f"{extra}", b"x")
            elif way == 11:
                info.compress_type = rng.choice((0, 8, 12, 14))
            archive.writestr(info, data)
    out = buffer.getvalue()
    if way == 6 and rng.random() < 0.5:
        # The bomb is said to be small.
        out = out.replace(struct.pack("<I", BOMB + len(members[0][1])), struct.pack("<I", 1000))
    return out


def _members(content: bytes) -> list[tuple[str, bytes]]:
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            return [(info.filename, archive.read(info)) for info in archive.infolist()]
    except Exception:
        # Of what has been damaged already, in whatever way.
        return []
