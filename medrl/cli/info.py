"""`medrl info`: what is installed here, or what a model is."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Annotated, Any

import tyro

from medrl import __version__
from medrl.cli.terminal import parse, stdout

_PACKAGES = ("torch", "monai", "numpy", "SimpleITK", "nibabel", "torchrl", "nilearn", "napari")


@dataclass(frozen=True, kw_only=True)
class Info:
    """Show versions and devices; with a model, its card and figures."""

    model: Annotated[str | None, tyro.conf.Positional, tyro.conf.arg(metavar="MODEL")] = None
    """Name of a model (see `medrl models`) or the folder of one."""

    json: bool = False
    """Print JSON."""


def main(argv: Sequence[str]) -> int:
    """Run `medrl info`.

    Args:
        argv: What follows `medrl info` on the command line.

    Returns:
        Exit code 0.

    Raises:
        MedrlError: If there is no such model or it is damaged.
    """
    command: Info = parse(Info, argv, prog="medrl info")
    if command.model is None:
        _show_system(command.json)
    else:
        _show_model(command.model, command.json)
    return 0


def system() -> dict[str, Any]:
    """Versions, devices and the folder of data sets."""
    import torch

    packages = {}
    for name in _PACKAGES:
        try:
            packages[name] = version(name)
        except PackageNotFoundError:
            packages[name] = "not installed"
    devices = [f"cpu, {os.cpu_count()} cores, {torch.get_num_threads()} threads"]
    devices += [
        f"cuda:{index}, {torch.cuda.get_device_name(index)}"
        for index in range(torch.cuda.device_count())
    ]
    return {
        "medrl": __version__,
        "python": f"{platform.python_version()} on {platform.platform()}",
        "packages": packages,
        "devices": devices,
        "data": os.environ.get("MEDRL_DATA") or "MEDRL_DATA is not set",
    }


def _show_system(as_json: bool) -> None:
    facts = system()
    if as_json:
        print(json.dumps(facts, indent=1))
        return
    rows = [("medrl", facts["medrl"]), ("Python", facts["python"]), *facts["packages"].items()]
    rows += [("device", device) for device in facts["devices"]]
    rows += [("data sets", facts["data"])]
    for name, value in rows:
        print(f"{name:<12}{value}")


def _show_model(name: str, as_json: bool) -> None:
    from rich.markdown import Markdown

    from medrl.bundles import find, read_manifest
    from medrl.bundles.card import render_card

    folder = find(name)
    manifest = read_manifest(folder)
    if as_json:
        print(json.dumps({"path": str(folder), **manifest}, indent=1, ensure_ascii=False))
        return
    console = stdout()
    console.print(Markdown(render_card(manifest)))
    console.print(f"\nfolder: {folder}", markup=False, soft_wrap=True)
