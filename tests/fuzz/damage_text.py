"""Damage to text: headers, tables, JSON, and the JSON in front of weights."""

from __future__ import annotations

import bz2
import json
import random
import re
import zlib
from typing import Any

from damage import INTS, NUMBERS, PATHS, TEXTS, gzip_bomb, scribble, zeros


def text_head(content: bytes, rng: random.Random) -> bytes:
    """NRRD and MetaImage: damage to the lines before the voxels, or a bomb in their place."""
    end = content.find(b"\n\n") + 2
    if content[:4] != b"NRRD" or end < 2:
        end = content.find(b"\n", content.find(b"ElementDataFile")) + 1
    end = end or len(content)
    head, rest = content[:end], content[end:]
    if rng.random() < 0.05 and rest[:2] in (b"\x1f\x8b", b"\x78\x9c", b"BZ"):
        if rest[:2] == b"\x1f\x8b":
            return head + gzip_bomb(b"")
        return head + zeros(bz2.compress if rest[:2] == b"BZ" else zlib.compress)
    return text_lines(head, rng) + rest


def text_lines(content: bytes, rng: random.Random) -> bytes:
    """Change a value or a number, or leave out, double, shuffle or add lines."""
    lines = content.decode("latin-1").split("\n")
    row = rng.randrange(len(lines))
    way = rng.randrange(10)
    if way < 3:
        numbers = list(re.finditer(r"-?\d+(?:\.\d+)?(?:[eE][-+]?\d+)?", "\n".join(lines)))
        if numbers:
            text, hit = "\n".join(lines), rng.choice(numbers)
            text = text[: hit.start()] + rng.choice(NUMBERS) + text[hit.end() :]
            return text.encode("utf-8", "replace")
    elif way < 6:
        key, separator, _ = _split(lines[row])
        value = rng.choice((*PATHS, *NUMBERS, *TEXTS))
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
    *(f"data file: {path}" for path in PATHS),
    *(f"ElementDataFile = {path}" for path in PATHS),
    "datafile: LIST", "line skip: 99999999999", "byte skip: -1", "byteskip: 99999999999999",
    "byte skip: -99", "encoding: gzip", "encoding: bzip2", "encoding: hex", "type: block",
    "block size: 9999999999", "type: double", "endian: big", "kinds: vector domain domain domain",
    "space: scanner-xyz", "space dimension: 99", "dimension: 16", "sizes: 2 2 2 2 2 2",
    "CompressedData = True", "CompressedDataSize = -5", "CompressedDataSize = 99999999999",
    "ElementNumberOfChannels = 100000", "HeaderSize = -1", "HeaderSize = 99999999999",
    "BinaryDataByteOrderMSB = True", "BinaryData = False", "ObjectType = Tube",
    "Comment = " + "x" * 5000, "TransformMatrix = 1 0 0 0 1 0 0 0 0",
    "AnatomicalOrientation = ???", "NDims = 10", "NDims = 200", "ElementSize = 1", "DimSize = 1",
    "data file: LIST", "data file: part%d.raw 0 2 1", "data file: %d 99999999 0 -1 2",
    "ElementDataFile = LIST", "ElementDataFile = part%02d.raw 0 2 1", "ElementDataFile = %s 0 2 1",
    "space units: \"cm\" \"cm\" \"cm\"", "space units: \"\" \"mm\"", "units: mm mm mm",
    "axis mins: 1 2 3", "axis maxs: 1 2 3", "axismins: nan -inf 1e308", "centers: node cell ???",
    "space: left-posterior-superior-time", "space: RAST", "old min: -1", "spacings: 1 -2 nan",
    "space directions: none none (0,0,0) (1,1,1)", "space directions: (1,0,0,0)",
    "kinds: list list",
    "Segment0_Layer:=7", "Segment0_LabelValue:=x", "Segment99999999999_Name:=y", "key:=value",
    "DistanceUnits = cm", "DistanceUnits = x", "ElementToIntensityFunctionSlope = 1e308",
    "ElementToIntensityFunctionOffset = nan", "CenterOfRotation = 1", "ElementSpacing : -1 2 3",
    "AnatomicalOrientation = LLL", "HeaderSize = 7",
    "Modality = MET_MOD_X", "\0", ",,,,,,", '"', '"a\nb",1,2,3',
)  # fmt: skip


_VALUES: tuple[Any, ...] = (
    None, True, False, 0, -1, 1, 2**31, 2**63, 10**30, 1e308, 1e-320, -0.0, 0.5, "", "x", "../../x",
    "/etc/passwd", "1", [], {}, [[]], [None] * 3, [1, 2], [1e999, 2, 3], ["a", "b", "c"], {"a": 1},
    "\ud800", "\0", "x" * 100000, [[1.0] * 4] * 4, 10**400, 4096, 100000, 16777216, -5, [0], [0, 0],
    [-1], [1e9, 1e9], [4096, 4096, 4096], [3, "3"], {"name": "x"},
)  # fmt: skip
_RAW = ("NaN", "Infinity", "-Infinity", "1e999", "9" * 5000, "[" * 100000, '{"a":' * 5000, "'x'",
        "", "01", "\\u0000", '"\\ud800"', "[1,]", "//", "1" * 4301, "-")  # fmt: skip


def json_tree(content: bytes, rng: random.Random) -> bytes:
    """Put something else in the place of a value, drop, add or double a key; break the grammar."""
    try:
        tree = json.loads(content)
    except (ValueError, RecursionError):
        return scribble(content, rng)
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


def safetensors(content: bytes, rng: random.Random) -> bytes:
    """Damage the header, with a right or a wrong length before it."""
    length = int.from_bytes(content[:8], "little")
    head = (
        json_tree(content[8 : 8 + length], rng) if rng.random() < 0.8 else content[8 : 8 + length]
    )
    size = rng.choice((len(head), len(head), len(head), *[abs(n) for n in INTS]))
    return size.to_bytes(8, "little") + head + content[8 + length :]
