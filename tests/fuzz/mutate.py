"""Ways to damage an input, and which of them each file is up for."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from damage import nifti, restructure, scribble, splice, within
from damage_archives import dicom, zip_archive
from damage_text import json_tree, safetensors, text_head, text_lines
from inputs import Files, Link, Seed, rehash


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
    ways: list[tuple[Callable[[bytes, random.Random], bytes], int]] = [
        (scribble, 4),
        (restructure, 2),
    ]
    others = [
        other
        for one in seeds
        if one.kind == seed.kind
        for other in one.files.values()
        if isinstance(other, bytes) and other
    ]
    ways.append((lambda raw, r: splice(raw, r.choice(others), r), 1))
    special = _special(name, content)
    if special is not None:
        ways.append((special, 8))
    way = rng.choices([w for w, _ in ways], [n for _, n in ways])[0]
    if special is not zip_archive and way is not special:
        changed = within(content, way, rng)
    else:
        changed = way(content, rng)
    label = getattr(way, "__name__", "splice").strip("_<>")
    return label.replace("lambda", "splice"), {**files, name: changed}


_TEXTS = (".csv", ".tsv", ".fcsv", ".tfm", ".txt", ".lta", ".dat", ".1d", ".xfm")


def _special(name: str, content: bytes) -> Callable[[bytes, random.Random], bytes] | None:
    """What knows the format of a file."""
    lower = name.lower()
    if lower.endswith((".nii", ".nii.gz")):
        return nifti
    if lower.endswith((".nrrd", ".nhdr", ".mha", ".mhd")):
        return text_head
    if lower.endswith(_TEXTS) or lower in ("fsl.mat", "world.mat"):
        return text_lines
    if lower.endswith(".json"):
        return json_tree
    if lower.endswith(".safetensors"):
        return safetensors
    if lower.endswith(".zip"):
        return zip_archive
    if content[128:132] == b"DICM":
        return dicom
    return None


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
