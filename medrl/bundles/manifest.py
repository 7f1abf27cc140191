"""What `model.json` says of a model, and whether it says it right."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import version
from typing import Any, NotRequired, TypedDict, cast

import medrl
from medrl.errors import MedrlError

FORMAT = "medrl-bundle"
VERSION = 1


class WeightsEntry(TypedDict):
    """What `model.safetensors` must hold; written by :func:`medrl.bundles.save`."""

    sha256: str
    tensors: dict[str, list[int]]


class Manifest(TypedDict):
    """Contents of `model.json`.

    ``settings`` is what the code of the task needs to build the network and prepare a scan.
    ``card`` says what a person should know: title, intended use, training data, licence.
    ``metrics`` are figures on held-out scans. ``landmarks`` is there for landmark models.
    """

    format: str
    version: int
    name: str
    task: str
    landmarks: NotRequired[list[str]]
    settings: dict[str, Any]
    card: dict[str, Any]
    metrics: dict[str, Any]
    versions: dict[str, Any]
    weights: NotRequired[WeightsEntry]


def new_manifest(
    *, name: str, task: str, settings: Mapping[str, Any], card: Mapping[str, Any]
) -> dict[str, Any]:
    """Contents of the `model.json` of a model that has just been trained, without figures yet.

    Args:
        name: Name of the model.
        task: The system it belongs to.
        settings: What that system's code needs to run it.
        card: What a person should know.
    """
    return {
        "format": FORMAT,
        "version": VERSION,
        "name": name,
        "task": task,
        "settings": dict(settings),
        "card": dict(card),
        "metrics": {},
        "versions": {"medrl": medrl.__version__, "torch": version("torch")},
    }


def check_manifest(content: object, *, source: str) -> Manifest:
    """Check the contents of a `model.json`.

    Args:
        content: What the JSON file holds.
        source: How to name the file in an error.

    Returns:
        The same object, typed.

    Raises:
        MedrlError: If it is not a manifest of this format and version, or an entry is missing or
            of the wrong type.
    """
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise MedrlError(f"{source} is not the description of a medrl model (format {FORMAT!r})")
    version = content.get("version")
    if isinstance(version, int) and version > VERSION:
        raise MedrlError(
            f"{source} was written by a newer medrl (format version {version}, this one reads "
            f"{VERSION}): upgrade medrl"
        )
    if version != VERSION or isinstance(version, bool):
        raise MedrlError(f"{source} has format version {version!r}, not {VERSION}")
    for key in ("name", "task"):
        if not isinstance(content.get(key), str) or not content[key].strip():
            raise MedrlError(f"{source}: {key!r} must be a text")
    for key in ("settings", "card", "metrics", "versions"):
        if not isinstance(content.get(key), dict):
            raise MedrlError(f"{source}: {key!r} must be an object")
    if content["task"] == "landmark" or "landmarks" in content:
        _check_landmarks(content.get("landmarks"), source)
    if "weights" in content:
        _check_weights(content["weights"], source)
    return cast(Manifest, content)


def named(manifest: Manifest, key: str) -> list[str]:
    """Names of what a model's settings list, such as ``targets`` or ``channels``; none if not."""
    entries = manifest["settings"].get(key)
    if not isinstance(entries, list):
        return []
    return [str(e["name"]) for e in entries if isinstance(e, dict) and "name" in e]


def _check_landmarks(names: object, source: str) -> None:
    """Names must be texts, each once."""
    if not isinstance(names, list) or not names:
        raise MedrlError(f"{source}: 'landmarks' must be a list of names")
    if not all(isinstance(name, str) and name.strip() for name in names):
        raise MedrlError(f"{source}: every landmark must have a name")
    if len(set(names)) != len(names):
        raise MedrlError(f"{source}: a landmark is named twice")


def _check_weights(weights: object, source: str) -> None:
    """The checksum must be one, and every tensor have a shape."""
    if not isinstance(weights, dict):
        raise MedrlError(f"{source}: 'weights' must be an object")
    digest, tensors = weights.get("sha256"), weights.get("tensors")
    if (
        not isinstance(digest, str)
        or len(digest) != 64
        or set(digest.lower()) - set("0123456789abcdef")
    ):
        raise MedrlError(f"{source}: 'sha256' of the weights must be 64 hexadecimal digits")
    if not isinstance(tensors, dict) or not all(
        isinstance(shape, list) and all(isinstance(n, int) and n >= 0 for n in shape)
        for shape in tensors.values()
    ):
        raise MedrlError(f"{source}: 'tensors' must map names to shapes")
