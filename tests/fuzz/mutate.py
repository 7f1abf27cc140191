"""Ways to damage an input: bytes, header fields, text, JSON, archives, DICOM elements, names."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import math
import random
import re
import struct
import warnings
import zipfile
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import nibabel as nib
import numpy as np
import pydicom
from inputs import Files, Link, Seed, inflated, rehash
from pydicom.dataset import Dataset

#: Lies beside the input's folder, and must not be read.
SECRET = "../outside/secret.raw"
_PATHS = (SECRET, "/etc/passwd", "../../x", "..", ".", "/", "/dev/zero", "/dev/stdin", "a\0b", "%s")
_NUMBERS = (
    "0", "-1", "1", "2", "3", "7", "255", "65535", "65536", "2147483647", "-2147483648",
    "4294967296", "9223372036854775807", "-9223372036854775808", "18446744073709551616", "1e308",
    "-1e308", "1e400", "1e-320", "nan", "inf", "-inf", "0.5", "-0", "1_000", "0x10", "", " ",
    "9" * 400, "1" + "0" * 5000, "\u0661\u0662", "\u00b2", "+3", "1,5", "(1,2,3)", "none", "true",
)  # fmt: skip
_TEXTS = ("", " ", "x", "\0", "\xfe\xff\xd8\0", "%n%s", "A" * 70000,
          "../../x", "é\u202e", "'\"`$(id)", "\r", "\ufeff", "=:=", "[[1]")  # fmt: skip
_FLOATS = (0.0, -0.0, 1.0, -1.0, math.nan, math.inf, -math.inf, 1e308, -1e38, 1e38, 1e-320, 1e-30)
_INTS = (0, 1, -1, 2, 3, 4, 7, 127, 128, 255, 256, 32767, -32768, 65535, 2**31 - 1, -(2**31), 2**31,
         2**32 - 1, 2**40, 2**63 - 1, -(2**63))  # fmt: skip
#: Bytes that a bomb inflates to, far above what any seed may take.
_BOMB = 200 * 2**20


@dataclass(frozen=True)
class Mutated:
    """A damaged input.

    Attributes:
        seed: What it was made from.
        files: Its files.
        path: What is read, below the folder.
        steps: What was done to it.
        size: Bytes that count for the limit of memory: as stored, or as the seed inflates to.
    """

    seed: Seed
    files: Files
    path: str
    steps: tuple[str, ...]
    size: int


def mutate(seeds: Sequence[Seed], rng: random.Random) -> Mutated:
    """Damage one of the seeds, most often once, at times twice or thrice."""
    kinds = sorted({seed.kind for seed in seeds})
    weights = [_SHARE.get(kind, 1) for kind in kinds]
    kind = rng.choices(kinds, weights)[0]
    seed = rng.choice([seed for seed in seeds if seed.kind == kind])
    files, steps = dict(seed.files), []
    for _ in range(rng.choices((1, 2, 3), (6, 3, 1))[0]):
        name = rng.choice(_targets(seed, files))
        step, files = _one(seed, files, name, seeds, rng)
        steps.append(f"{name}: {step}")
    if kind == "bundle" and rng.random() < 0.7:
        files = rehash(files)
    stored = sum(len(content) for content in files.values() if isinstance(content, bytes))
    return Mutated(seed, files, seed.path, tuple(steps), max(stored, seed.size))


_SHARE = {"scan": 8, "dicom": 3, "points": 3, "bundle": 2, "transform": 2, "manifest": 2}


def _targets(seed: Seed, files: Files) -> list[str]:
    """Files that are worth damaging: those that are read, the header of a pair more often."""
    names = [name for name, content in files.items() if isinstance(content, bytes) and content]
    if seed.kind == "manifest" and seed.path:
        return [seed.path]
    heads = [name for name in names if name.endswith((".nhdr", ".mhd", "model.json"))]
    return (heads * 3 + names) or [seed.path]


def _one(
    seed: Seed, files: Files, name: str, seeds: Sequence[Seed], rng: random.Random
) -> tuple[str, Files]:
    """One damage to one file."""
    content = files.get(name)
    if not isinstance(content, bytes):
        return "left", files
    if rng.random() < 0.04:
        return _tree(files, name, rng)
    ways: list[tuple[Callable[[bytes, random.Random], bytes], int]] = [(_bytes, 4), (_structure, 2)]
    others = [
        other
        for one in seeds
        if one.kind == seed.kind
        for other in one.files.values()
        if isinstance(other, bytes) and other
    ]
    ways.append((lambda raw, r: _splice(raw, r.choice(others), r), 1))
    special = _special(name, content)
    if special is not None:
        ways.append((special, 8))
    way = rng.choices([w for w, _ in ways], [n for _, n in ways])[0]
    if special is not _zip and way is not special:
        changed = _within(content, way, rng)
    else:
        changed = way(content, rng)
    label = getattr(way, "__name__", "splice").strip("_<>")
    return label.replace("lambda", "splice"), {**files, name: changed}


def _special(name: str, content: bytes) -> Callable[[bytes, random.Random], bytes] | None:
    """What knows the format of a file."""
    lower = name.lower()
    if lower.endswith((".nii", ".nii.gz")):
        return _nifti
    if lower.endswith((".nrrd", ".nhdr", ".mha", ".mhd")):
        return _text_head
    if lower.endswith((".csv", ".tsv", ".fcsv", ".tfm", ".txt", ".lta")) or lower == "fsl.mat":
        return _text
    if lower.endswith(".json"):
        return _json
    if lower.endswith(".safetensors"):
        return _safetensors
    if lower.endswith(".zip"):
        return _zip
    if content[128:132] == b"DICM":
        return _dicom
    return None


def _within(
    content: bytes, way: Callable[[bytes, random.Random], bytes], rng: random.Random
) -> bytes:
    """Damage what is compressed before it is compressed, more often than not."""
    if content[:2] == b"\x1f\x8b" and rng.random() < 0.6:
        try:
            return gzip.compress(way(gzip.decompress(content), rng), mtime=0)
        except (OSError, EOFError, zlib.error):
            return way(content, rng)
    return way(content, rng)


# -------------------------------------------------------------------------------------------------
# Of any file.


def _place(length: int, rng: random.Random) -> int:
    """An offset, in the head of the file more often than not."""
    return rng.randrange(min(length, 400) if rng.random() < 0.6 else length) if length else 0


def _bytes(content: bytes, rng: random.Random) -> bytes:
    """Flip bits, or write extreme numbers over it."""
    out = bytearray(content)
    if not out:
        return rng.randbytes(8)
    way = rng.randrange(4)
    if way == 0:
        for _ in range(rng.choice((1, 1, 2, 4, 16))):
            out[_place(len(out), rng)] ^= 1 << rng.randrange(8)
    elif way == 1:
        for _ in range(rng.choice((1, 2, 8))):
            out[_place(len(out), rng)] = rng.choice((0, 1, 0x7F, 0x80, 0xFF, 0x0A, 0x20))
    elif way == 2:
        code = rng.choice(("h", "i", "q"))
        bits = 8 * struct.calcsize(code)
        value = (rng.choice(_INTS) + 2 ** (bits - 1)) % 2**bits - 2 ** (bits - 1)
        _over(out, struct.pack(rng.choice("<>") + code, value), rng)
    else:
        code = rng.choice("fd")
        value = rng.choice(_FLOATS)
        value = math.copysign(3e38, value) if code == "f" and 3e38 < abs(value) < 1e309 else value
        _over(out, struct.pack(rng.choice("<>") + code, value), rng)
    return bytes(out)


def _over(out: bytearray, what: bytes, rng: random.Random) -> None:
    at = _place(len(out), rng) // 2 * 2
    out[at : at + len(what)] = what


def _structure(content: bytes, rng: random.Random) -> bytes:
    """Cut off, cut out, double, or put something in."""
    a, b = sorted((rng.randrange(len(content) + 1), rng.randrange(len(content) + 1)))
    return rng.choice(
        (
            content[:a],
            content[: _place(len(content), rng)],
            content[:a] + content[b:],
            content[:b] + content[a:b] * rng.choice((1, 3, 40)) + content[b:],
            content[:a] + rng.randbytes(rng.choice((1, 4, 200))) + content[a:],
            content * rng.choice((2, 5)),
            content + b"\0" * rng.choice((1, 4096)),
            content[a:],
        )
    )


def _splice(content: bytes, other: bytes, rng: random.Random) -> bytes:
    """The start of one, the end of another."""
    return content[: rng.randrange(len(content) + 1)] + other[rng.randrange(len(other) + 1) :]


def _tree(files: Files, name: str, rng: random.Random) -> tuple[str, Files]:
    """What is wrong with the folder: missing files, links, folders where files should be."""
    way = rng.randrange(5)
    out = dict(files)
    if way == 0:
        del out[name]
        return "missing", out
    if way == 1:
        out[name] = Link(name.split("/")[-1])
        return "link to itself", out
    if way == 2:
        out[f"{name}/inside"] = out.pop(name)
        return "folder", out
    if way == 3:
        out[name] = b""
        return "empty", out
    out["loop"] = Link(".")
    return "loop", out


# -------------------------------------------------------------------------------------------------
# NIfTI.


def _nifti(content: bytes, rng: random.Random) -> bytes:
    """Set a field of the header to something extreme; at times a bomb follows it."""
    packed = inflated_or_none(content)
    raw = bytearray(content if packed is None else packed)
    second = raw[:4] in (b"\x1c\x02\0\0", b"\0\0\x02\x1c")
    dtype = (nib.Nifti2Header if second else nib.Nifti1Header).template_dtype
    names = [*dtype.names, *["dim", "datatype", "pixdim", "vox_offset"] * 3]
    for _ in range(rng.choice((1, 1, 2, 3))):
        field, offset = dtype.fields[rng.choice(names)][:2]
        base = field.subdtype[0] if field.subdtype else field
        offset += base.itemsize * rng.randrange(field.itemsize // base.itemsize)
        if base.kind in "iu":
            bits = 8 * base.itemsize
            codes = (*_INTS, 2, 4, 8, 16, 64, 128, 256, 511, 512, 768, 1024, 1536, 1792, 2304)
            value = np.array(rng.choice(codes) % 2**bits, f"u{base.itemsize}")
        elif base.kind == "f":
            value = np.array(rng.choice((*_FLOATS, 352.0, 1000.0, 1e9)))
            with np.errstate(over="ignore"):
                value = value.astype(base)
        else:
            value = np.frombuffer(rng.randbytes(base.itemsize), f"V{base.itemsize}")
        raw[offset : offset + base.itemsize] = value.tobytes()
    if packed is None:
        return bytes(raw)
    if rng.random() < 0.05:
        return _gzip_bomb(bytes(raw))
    return gzip.compress(bytes(raw), mtime=0)


def inflated_or_none(content: bytes) -> bytes | None:
    """What a gzip file holds; None if it is none, or damaged."""
    try:
        return inflated(content)
    except (OSError, EOFError, zlib.error):
        return None


def _gzip_bomb(start: bytes) -> bytes:
    """What inflates to some bytes and then very many."""
    return (gzip.compress(start, mtime=0) if start else b"") + _zeros(gzip.compress)


@cache
def _zeros(compress: Callable[[bytes], bytes]) -> bytes:
    return compress(b"\0" * _BOMB)


# -------------------------------------------------------------------------------------------------
# Text.


def _text_head(content: bytes, rng: random.Random) -> bytes:
    """NRRD and MetaImage: damage to the lines before the voxels, or a bomb in their place."""
    end = content.find(b"\n\n") + 2
    if content[:4] != b"NRRD" or end < 2:
        end = content.find(b"\n", content.find(b"ElementDataFile")) + 1
    end = end or len(content)
    head, rest = content[:end], content[end:]
    if rng.random() < 0.05 and rest[:2] in (b"\x1f\x8b", b"\x78\x9c", b"BZ"):
        if rest[:2] == b"\x1f\x8b":
            return head + _gzip_bomb(b"")
        return head + _zeros(bz2.compress if rest[:2] == b"BZ" else zlib.compress)
    return _text(head, rng) + rest


def _text(content: bytes, rng: random.Random) -> bytes:
    """Change a value or a number, or leave out, double, shuffle or add lines."""
    lines = content.decode("latin-1").split("\n")
    row = rng.randrange(len(lines))
    way = rng.randrange(10)
    if way < 3:
        numbers = list(re.finditer(r"-?\d+(?:\.\d+)?(?:[eE][-+]?\d+)?", "\n".join(lines)))
        if numbers:
            text, hit = "\n".join(lines), rng.choice(numbers)
            text = text[: hit.start()] + rng.choice(_NUMBERS) + text[hit.end() :]
            return text.encode("utf-8", "replace")
    elif way < 6:
        key, separator, _ = _split(lines[row])
        value = rng.choice((*_PATHS, *_NUMBERS, *_TEXTS))
        lines[row] = f"{key}{separator}{value}"
    elif way == 6:
        del lines[row]
    elif way == 7:
        lines.insert(row, rng.choice(lines))
    elif way == 8:
        lines.insert(row, rng.choice(_LINES))
    else:
        words = re.split(r"([\s,:=])", lines[row])
        rng.shuffle(words)
        lines[row] = "".join(words)
    return "\n".join(lines).encode("utf-8", "replace")


def _split(line: str) -> tuple[str, str, str]:
    for separator in (":=", ": ", " = ", "=", ",", "\t"):
        if separator in line:
            return line.partition(separator)
    return line, "", ""


_LINES = (
    *(f"data file: {path}" for path in _PATHS),
    *(f"ElementDataFile = {path}" for path in _PATHS),
    "datafile: LIST", "line skip: 99999999999", "byte skip: -1", "byteskip: 99999999999999",
    "byte skip: -99", "encoding: gzip", "encoding: bzip2", "encoding: hex", "type: block",
    "block size: 9999999999", "type: double", "endian: big", "kinds: vector domain domain domain",
    "space: scanner-xyz", "space dimension: 99", "dimension: 16", "sizes: 2 2 2 2 2 2",
    "CompressedData = True", "CompressedDataSize = -5", "CompressedDataSize = 99999999999",
    "ElementNumberOfChannels = 100000", "HeaderSize = -1", "HeaderSize = 99999999999",
    "BinaryDataByteOrderMSB = True", "BinaryData = False", "ObjectType = Tube",
    "Comment = " + "x" * 5000, "TransformMatrix = 1 0 0 0 1 0 0 0 0",
    "AnatomicalOrientation = ???", "NDims = 10", "NDims = 200", "ElementSize = 1", "DimSize = 1",
    "Modality = MET_MOD_X", "\0", ",,,,,,", '"', '"a\nb",1,2,3',
)  # fmt: skip


# -------------------------------------------------------------------------------------------------
# JSON and safetensors.

_VALUES: tuple[Any, ...] = (
    None, True, False, 0, -1, 1, 2**31, 2**63, 10**30, 1e308, 1e-320, -0.0, 0.5, "", "x", "../../x",
    "/etc/passwd", "1", [], {}, [[]], [None] * 3, [1, 2], [1e999, 2, 3], ["a", "b", "c"], {"a": 1},
    "\ud800", "\0", "x" * 100000, [[1.0] * 4] * 4, 10**400, 4096, 100000, 16777216, -5, [0], [0, 0],
    [-1], [1e9, 1e9], [4096, 4096, 4096], [3, "3"], {"name": "x"},
)  # fmt: skip
_RAW = ("NaN", "Infinity", "-Infinity", "1e999", "9" * 5000, "[" * 100000, '{"a":' * 5000, "'x'",
        "", "01", "\\u0000", '"\\ud800"', "[1,]", "//", "1" * 4301, "-")  # fmt: skip


def _json(content: bytes, rng: random.Random) -> bytes:
    """Put something else in the place of a value, drop, add or double a key; break the grammar."""
    try:
        tree = json.loads(content)
    except (ValueError, RecursionError):
        return _bytes(content, rng)
    way = rng.random()
    if way < 0.2:
        spots = list(re.finditer(rb"(?<=[:\[,])\s*[^\s:\[\]{},]+", content))
        if spots:
            hit = rng.choice(spots)
            raw = rng.choice(_RAW).encode()
            return content[: hit.start()] + b" " + raw + content[hit.end() :]
    if way < 0.3:
        keys = list(re.finditer(rb'"(\w+)"\s*:', content))
        if keys:
            hit = rng.choice(keys)
            value = json.dumps(rng.choice(_VALUES)).encode()
            return content[: hit.start()] + hit.group() + value + b"," + content[hit.start() :]
    spots = list(_nodes(tree))
    where, key = rng.choice(spots) if spots else (None, None)
    if where is None:
        tree = rng.choice(_VALUES)
    elif way < 0.45:
        del where[key]
    elif way < 0.55 and isinstance(where, list):
        where.extend(where[key : key + 1] * rng.choice((1, 2, 1000)))
    elif way < 0.55:
        where[rng.choice(("x", "", "../x", "\ud800", "version", "name"))] = rng.choice(_VALUES)
    else:
        where[key] = rng.choice(_VALUES)
    return json.dumps(tree, indent=1).encode()


def _nodes(tree: Any) -> list[tuple[Any, Any]]:
    """Every place of a value: what holds it, and its key there."""
    found: list[tuple[Any, Any]] = []
    rest = [tree]
    while rest:
        node = rest.pop()
        keys = list(node) if isinstance(node, dict) else range(len(node))
        for key in keys:
            found.append((node, key))
            if isinstance(node[key], dict | list):
                rest.append(node[key])
    return found


def _safetensors(content: bytes, rng: random.Random) -> bytes:
    """Damage the header, with a right or a wrong length before it."""
    length = int.from_bytes(content[:8], "little")
    head = _json(content[8 : 8 + length], rng) if rng.random() < 0.8 else content[8 : 8 + length]
    size = rng.choice((len(head), len(head), len(head), *[abs(n) for n in _INTS]))
    return size.to_bytes(8, "little") + head + content[8 + length :]


# -------------------------------------------------------------------------------------------------
# DICOM and zip.

_UIDS = ("../../x", "/etc/passwd", "1.2." + "9" * 70, "", "1..2", "1.2.840.10008.1.2.4.70",
         "1.2.840.10008.1.2.4.90", "1.2.840.10008.1.2.5", "1.2.840.10008.1.2.1.99",
         "1.2.840.10008.1.2.2", "1.2.840.10008.1.2.4.50", "1.2.840.10008.1.2.4.80",
         "1.2.840.10008.5.1.4.1.1.66.4")  # fmt: skip


def _dicom(content: bytes, rng: random.Random) -> bytes:
    """Put something else into an element, or leave it out."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            dataset = pydicom.dcmread(io.BytesIO(content))
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
            return _bytes(content, rng)


def _element(part: Dataset, tag: Any, rng: random.Random) -> None:
    element = part[tag]
    if rng.random() < 0.25 or element.VR == "SQ":
        del part[tag]
    elif element.VR == "UI":
        element._value = rng.choice(_UIDS)
    elif element.VR in ("DS", "IS"):
        many = element.VM
        values = [rng.choice(_NUMBERS)[:300] for _ in range(rng.choice((many, many, 0, 1, 2, 9)))]
        part.add(pydicom.DataElement(tag, "LO", "\\".join(values), already_converted=True))
    elif element.VR in ("US", "UL", "SS"):
        code = rng.choice(("US", "US", "UL", "LO", "FD"))
        value: Any = rng.choice((0, 1, 2, 3, 7, 8, 12, 16, 17, 32, 64, 255, 4096, 65535))
        if code == "LO":
            value = rng.choice(_TEXTS)[:60]
        part.add(pydicom.DataElement(tag, code, float(value) if code == "FD" else value))
    elif element.VR in ("OW", "OB"):
        raw = element.value
        element._value = _structure(raw if isinstance(raw, bytes) else b"\0" * 8, rng)
    else:
        element._value = rng.choice(_TEXTS)[:60]


def _zip(content: bytes, rng: random.Random) -> bytes:
    """An archive with odd names, links, lies or bombs, or the same one damaged inside or out."""
    members = _members(content)
    way = rng.randrange(12) if members else 0
    if way <= 1:
        return _bytes(content, rng)
    if way == 2:
        return _structure(content, rng)
    if way == 3:
        # Sizes, offsets and flags of the entries.
        out = bytearray(content)
        heads = [m.start() for m in re.finditer(rb"PK\x01\x02|PK\x03\x04|PK\x05\x06", content)]
        at = rng.choice(heads) + rng.randrange(4, 46)
        out[at : at + 4] = struct.pack("<I", rng.choice(_INTS) % 2**32)
        return bytes(out[: len(content)])
    buffer = io.BytesIO()
    with warnings.catch_warnings(), zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        warnings.simplefilter("ignore")
        bombed = False
        for number, (name, data) in enumerate(members):
            info = zipfile.ZipInfo(name)
            info.compress_type = zipfile.ZIP_DEFLATED
            if way == 4:
                odd = (*_PATHS, "..\\..\\x", "C:\\x", "C:x", "\\\\host\\x", "/../x", "a/../../x",
                       "", "x" * 40000, "a\nb", "?")  # fmt: skip
                info.filename = rng.choice(odd)
            elif way == 5:
                info.external_attr = 0o120777 << 16
                data = rng.choice(_PATHS).encode()
            elif way == 6 and not bombed:
                data, bombed = data + b"\0" * _BOMB, True
            elif way == 7:
                data = _dicom(data, rng)
            elif way == 8:
                data = _within(data, rng.choice((_bytes, _structure)), rng)
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
        out = out.replace(struct.pack("<I", _BOMB + len(members[0][1])), struct.pack("<I", 1000))
    return out


def _members(content: bytes) -> list[tuple[str, bytes]]:
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            return [(info.filename, archive.read(info)) for info in archive.infolist()]
    except Exception:
        # Of what has been damaged already, in whatever way.
        return []
