"""Transforms in the files of ITK and of elastix, which says in its own words what ITK does."""

from __future__ import annotations

import math
import re
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import SimpleITK as sitk

from medrl.errors import MedrlError
from medrl.volume import _subprocess_io

BANNER = "#Insight Transform File"
_NOT_ITK = "cannot be read as a transform of ITK: it is damaged or of another kind"
_SEVERAL = "holds several transforms and does not say how they go together: give one by one"
#: A B-spline has many; a linear transform, composites included, does not.
_MOST_PARAMETERS = 10_000
_ELASTIX_ENTRY = re.compile(r'^\s*\((\w+)((?:\s+(?:"[^"]*"|[^\s"()]+))*)\s*\)\s*(?://.*)?$', re.M)
_INITIAL = ("InitialTransformParameterFileName", "InitialTransformParametersFileName")
#: Transforms of elastix that ITK has, and how many parameters they take.
_ELASTIX: dict[str, tuple[Callable[[], sitk.Transform], int]] = {
    "EulerTransform": (sitk.Euler3DTransform, 6),
    "SimilarityTransform": (sitk.Similarity3DTransform, 7),
    "AffineTransform": (lambda: sitk.AffineTransform(3), 12),
    "TranslationTransform": (lambda: sitk.TranslationTransform(3), 3),
}
#: So many files may come before one another.
_LONGEST_CHAIN = 8


def read_itk(file: Path, text: str) -> sitk.Transform:
    """A transform file of ITK, of whatever kind (.tfm, .txt, .h5, .mat).

    Args:
        file: It.
        text: What it holds.

    Raises:
        MedrlError: If it is none or damaged.
    """
    if not text.startswith(BANNER):
        text, said = _subprocess_io.transform_text(file)
        if "more than one transform" in said:
            raise MedrlError(_SEVERAL)
    _check(text)
    with tempfile.TemporaryDirectory(prefix="medrl-") as folder, no_itk_errors(_NOT_ITK):
        copy = Path(folder) / "transform.tfm"
        copy.write_text(text, encoding="utf-8")
        return sitk.ReadTransform(str(copy))


def is_elastix(text: str) -> bool:
    """Whether a text is a TransformParameters file of elastix."""
    return bool(re.search(r'^\s*\(Transform\s+"', text, re.M))


def read_elastix(file: Path, text: str, *, depth: int = 1) -> sitk.Transform:
    """A TransformParameters file of elastix: fixed to moving, LPS.

    Args:
        file: It; the transform that it builds on is looked for beside it.
        text: What it holds.
        depth: How many files were read to come to it.

    Raises:
        MedrlError: If it is damaged, not linear or not 3D, or builds on a file that is not there.
    """
    entries = {key: _words(rest) for key, rest in _ELASTIX_ENTRY.findall(text)}
    name = "".join(entries.get("Transform", []))
    if name not in _ELASTIX:
        raise MedrlError(
            f"is an elastix transform of the type {name!r}; medrl takes {', '.join(_ELASTIX)}"
        )
    make, count = _ELASTIX[name]
    parameters = _finite(entries.get("TransformParameters", []))
    center = _finite(entries.get("CenterOfRotationPoint", ["0", "0", "0"]))
    if entries.get("FixedImageDimension", ["3"]) != ["3"]:
        raise MedrlError("is an elastix transform of 2D or 4D points; medrl takes 3D")
    if len(parameters) != count or len(center) != 3:
        raise MedrlError(f"is damaged: an elastix {name} has {count} parameters, and a centre of 3")
    transform = make()
    with no_itk_errors("is damaged: ITK takes no such parameters"):
        if name != "TranslationTransform":
            transform.SetCenter(center)
        if name == "EulerTransform":
            transform.SetComputeZYX(entries.get("ComputeZYX") == ["true"])
        transform.SetParameters(parameters)
    before = next((entries[key][0] for key in _INITIAL if entries.get(key)), "NoInitialTransform")
    if before in ("NoInitialTransform", ""):
        return transform
    if entries.get("HowToCombineTransforms", ["Compose"]) != ["Compose"]:
        raise MedrlError("adds its transform to another one, which is not linear in general")
    return sitk.CompositeTransform([transform, _initial(file, before, depth)])


@contextmanager
def no_itk_errors(line: str) -> Iterator[None]:
    """Say in one line what ITK says in a page, addresses in memory included."""
    try:
        yield
    except RuntimeError as error:
        raise MedrlError(line) from error


def _initial(file: Path, named: str, depth: int) -> sitk.Transform:
    """What a file of elastix builds on: it is named in full, and has been moved along with it."""
    name = re.split(r"[/\\]", named)[-1]
    beside = file.parent / name
    if depth >= _LONGEST_CHAIN:
        raise MedrlError("builds on too many other files, or on itself")
    if name in ("", ".", "..") or not beside.is_file():
        raise MedrlError(f"builds on the transform {name!r}, which does not lie beside it")
    try:
        text = beside.read_text(encoding="utf-8")
        if text.startswith(BANNER):
            return read_itk(beside, text)
        if not is_elastix(text):
            raise MedrlError(f"builds on {name!r}, which is no transform of elastix")
        return read_elastix(beside, text, depth=depth + 1)
    except (OSError, UnicodeDecodeError) as error:
        raise MedrlError(f"builds on {name!r}, which cannot be read") from error


def _words(text: str) -> list[str]:
    return [quoted or plain for quoted, plain in re.findall(r'"([^"]*)"|([^\s"]+)', text)]


def _finite(words: list[str]) -> list[float]:
    return [float(word) for word in words] if _are_numbers(" ".join(words)) else []


def _check(text: str) -> None:
    """Refuse in ITK's text files what would end the process in C++."""
    named = numbered = False
    names: list[str] = []
    for line in text.splitlines():
        key, _, value = (part.strip() for part in line.partition(":"))
        if line.startswith("#") or not line.strip():
            continue
        if key == "Transform":
            named, numbered = True, False
            names.append(value)
            known = bool(re.fullmatch(r"[A-Za-z]\w{1,60}_(double|float)_\d_\d", value))
        elif key in ("Parameters", "FixedParameters"):
            known = named and not (key == "Parameters" and numbered) and _are_numbers(value)
            numbered = numbered or key == "Parameters"
        else:
            known = False
        if not known:
            raise MedrlError(_NOT_ITK)
    if len(names) > 1 and not names[0].startswith("CompositeTransform"):
        raise MedrlError(_SEVERAL)


def _are_numbers(text: str) -> bool:
    words = text.split()
    try:
        return len(words) <= _MOST_PARAMETERS and all(map(math.isfinite, map(float, words)))
    except ValueError:
        return False
