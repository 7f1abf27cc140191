"""Damage to files of any kind, what it is made of, and NIfTI."""

from __future__ import annotations

import gzip
import math
import random
import struct
import zlib
from collections.abc import Callable
from functools import cache

import nibabel as nib
import numpy as np
from inputs import inflated

#: Lies beside the input's folder, and must not be read.
SECRET = "../outside/secret.raw"
PATHS = (SECRET, "/etc/passwd", "../../x", "..", ".", "/", "/dev/zero", "/dev/stdin", "a\0b", "%s")
NUMBERS = (
    "0", "-1", "1", "2", "3", "7", "255", "65535", "65536", "2147483647", "-2147483648",
    "4294967296", "9223372036854775807", "-9223372036854775808", "18446744073709551616", "1e308",
    "-1e308", "1e400", "1e-320", "nan", "inf", "-inf", "0.5", "-0", "1_000", "0x10", "", " ",
    "9" * 400, "1" + "0" * 5000, "\u0661\u0662", "\u00b2", "+3", "1,5", "(1,2,3)", "none", "true",
)  # fmt: skip
TEXTS = ("", " ", "x", "\0", "\xfe\xff\xd8\0", "%n%s", "A" * 70000,
          "../../x", "é\u202e", "'\"`$(id)", "\r", "\ufeff", "=:=", "[[1]")  # fmt: skip
FLOATS = (0.0, -0.0, 1.0, -1.0, math.nan, math.inf, -math.inf, 1e308, -1e38, 1e38, 1e-320, 1e-30)
INTS = (0, 1, -1, 2, 3, 4, 7, 127, 128, 255, 256, 32767, -32768, 65535, 2**31 - 1, -(2**31), 2**31,
         2**32 - 1, 2**40, 2**63 - 1, -(2**63))  # fmt: skip
#: Bytes that a bomb inflates to, far above what any seed may take.
BOMB = 200 * 2**20


def within(
    content: bytes, way: Callable[[bytes, random.Random], bytes], rng: random.Random
) -> bytes:
    """Damage what is compressed before it is compressed, more often than not."""
    if content[:2] == b"\x1f\x8b" and rng.random() < 0.6:
        try:
            return gzip.compress(way(gzip.decompress(content), rng), mtime=0)
        except (OSError, EOFError, zlib.error):
            return way(content, rng)
    return way(content, rng)


def _place(length: int, rng: random.Random) -> int:
    """An offset, in the head of the file more often than not."""
    return rng.randrange(min(length, 400) if rng.random() < 0.6 else length) if length else 0


def scribble(content: bytes, rng: random.Random) -> bytes:
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
        value = (rng.choice(INTS) + 2 ** (bits - 1)) % 2**bits - 2 ** (bits - 1)
        _over(out, struct.pack(rng.choice("<>") + code, value), rng)
    else:
        code = rng.choice("fd")
        value = rng.choice(FLOATS)
        value = math.copysign(3e38, value) if code == "f" and 3e38 < abs(value) < 1e309 else value
        _over(out, struct.pack(rng.choice("<>") + code, value), rng)
    return bytes(out)


def _over(out: bytearray, what: bytes, rng: random.Random) -> None:
    at = _place(len(out), rng) // 2 * 2
    out[at : at + len(what)] = what


def restructure(content: bytes, rng: random.Random) -> bytes:
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


def splice(content: bytes, other: bytes, rng: random.Random) -> bytes:
    """The start of one, the end of another."""
    return content[: rng.randrange(len(content) + 1)] + other[rng.randrange(len(other) + 1) :]


def nifti(content: bytes, rng: random.Random) -> bytes:
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
            codes = (*INTS, 2, 4, 8, 16, 64, 128, 256, 511, 512, 768, 1024, 1536, 1792, 2304)
            value = np.array(rng.choice(codes) % 2**bits, f"u{base.itemsize}")
        elif base.kind == "f":
            value = np.array(rng.choice((*FLOATS, 352.0, 1000.0, 1e9)))
            with np.errstate(over="ignore"):
                value = value.astype(base)
        else:
            value = np.frombuffer(rng.randbytes(base.itemsize), f"V{base.itemsize}")
        raw[offset : offset + base.itemsize] = value.tobytes()
    if packed is None:
        return gzip.compress(bytes(raw), mtime=0) if rng.random() < 0.05 else bytes(raw)
    if rng.random() < 0.05:
        return gzip_bomb(bytes(raw))
    if rng.random() < 0.1:
        once = gzip.compress(bytes(raw), mtime=0)
        return rng.choice((once + b"junk", once * 2, gzip.compress(once, mtime=0), bytes(raw)))
    return gzip.compress(bytes(raw), mtime=0)


def inflated_or_none(content: bytes) -> bytes | None:
    """What a gzip file holds; None if it is none, or damaged."""
    try:
        return inflated(content)
    except (OSError, EOFError, zlib.error):
        return None


def gzip_bomb(start: bytes) -> bytes:
    """What inflates to some bytes and then very many."""
    return (gzip.compress(start, mtime=0) if start else b"") + zeros(gzip.compress)


@cache
def zeros(compress: Callable[[bytes], bytes]) -> bytes:
    return compress(b"\0" * BOMB)
