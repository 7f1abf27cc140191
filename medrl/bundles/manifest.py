"""What `model.json` says of a model, and whether it says it right."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, NotRequired, TypedDict, cast

import medrl
from medrl.errors import MedrlError

if TYPE_CHECKING:
    from medrl.bundles.guard import Guard

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
    ``metrics`` are figures on held-out scans. ``guard`` is a :class:`medrl.bundles.Guard`. Systems
    may add lists of names, such as ``landmarks``.
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
    guard: NotRequired[dict[str, Any]]
    weights: NotRequired[WeightsEntry]


def new_manifest(
    *,
    name: str,
    task: str,
    settings: Mapping[str, Any],
    card: Mapping[str, Any],
    guard: Guard | None = None,
) -> dict[str, Any]:
    """Contents of the `model.json` of a model that has just been trained, without figures yet.

    Args:
        name: Name of the model.
        task: The system it belongs to.
        settings: What that system's code needs to run it.
        card: What a person should know.
        guard: What its training scans were like.
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
        **({} if guard is None else {"guard": asdict(guard)}),
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
    for key, value in content.items():
        if isinstance(value, list):
            check_names(content, key, source=source)
    if not isinstance(content.get("guard", {}), dict):
        raise MedrlError(f"{source}: 'guard' must be an object")
    if "weights" in content:
        _check_weights(content["weights"], source)
    return cast(Manifest, content)


def check_names(content: Mapping[str, Any], key: str, *, source: str) -> tuple[str, ...]:
    """Names that a `model.json` lists, such as those of landmarks.

    Raises:
        MedrlError: If it lists none, one is empty or there twice.
    """
    names = content.get(key)
    if not isinstance(names, list) or not names:
        raise MedrlError(f"{source}: {key!r} must be a list of names")
    if not all(isinstance(name, str) and name.strip() for name in names):
        raise MedrlError(f"{source}: every one of the {key} must have a name")
    if len(set(names)) != len(names):
        raise MedrlError(f"{source}: one of the {key} is named twice")
    return tuple(names)


def named(manifest: Manifest) -> dict[str, list[str]]:
    """What a model knows, by kind, such as landmarks, targets or channels.

    These are lists of names in the manifest itself, and of objects with a name in its settings.
    """
    kinds: dict[str, list[str]] = {}
    for key, entries in {**manifest, **manifest["settings"]}.items():
        if isinstance(entries, list) and entries:
            names = [entry.get("name") if isinstance(entry, dict) else entry for entry in entries]
            if all(isinstance(name, str) for name in names):
                kinds[key] = [str(name) for name in names]
    return kinds


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
