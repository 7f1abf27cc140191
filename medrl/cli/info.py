"""`medrl info`: what a scan is, what a model is, or what is installed here."""

from __future__ import annotations

import json
import os
import platform
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Annotated, Any

import tyro

from medrl import __version__
from medrl.cli import complain
from medrl.cli.scan_facts import render, scan_facts
from medrl.cli.terminal import parse, stdout
from medrl.errors import MedrlError
from medrl.files import SCAN_ENDINGS

_PACKAGES = ("torch", "monai", "numpy", "SimpleITK", "nibabel", "torchrl", "nilearn", "napari")


@dataclass(frozen=True, kw_only=True)
class Info:
    """Say what scans are, and which models fit them; of a model show its card.

    Without a name, versions and devices.
    """

    names: Annotated[
        tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="[SCAN|MODEL...]")
    ] = ()
    """NIfTI, NRRD, MHA/MHD files, DICOM series as folder or .zip; names of models (see `medrl
    models`) or their folders."""

    series: str | None = None
    """SeriesInstanceUID of the series that is meant, where a folder holds several."""

    header: bool = False
    """Look at headers only: quick, and of scans of any size."""

    json: bool = False
    """Print JSON: an object, or a list of them for several names."""


def main(argv: Sequence[str]) -> int:
    """Run `medrl info`.

    Args:
        argv: What follows `medrl info` on the command line.

    Returns:
        Exit code: 0, or 1 if some scans cannot be read.

    Raises:
        MedrlError: If there is no such model or it is damaged.
    """
    command: Info = parse(Info, argv, prog="medrl info")
    if not command.names:
        _show_system(command.json)
        return 0
    from medrl.bundles import find

    models = {name: find(name) for name in command.names if not _is_scan(name)}
    shown: list[dict[str, Any]] = []
    failed = False
    for number, name in enumerate(command.names):
        if number and not command.json:
            print()
        if name in models:
            shown.append(_show_model(models[name], command.json))
            continue
        facts = _facts(name, command)
        failed |= facts["error"] is not None
        shown.append(facts)
        if not command.json:
            for line in render(facts):
                print(line)
        if facts["error"] is not None:
            sys.stdout.flush()
            complain(facts["error"])
    if command.json:
        print(json.dumps(shown if len(shown) > 1 else shown[0], indent=1, ensure_ascii=False))
    return int(failed)


def _facts(name: str, command: Info) -> dict[str, Any]:
    """What there is to know of a scan; of one that is not there no more than that."""
    try:
        return scan_facts(Path(name), series=command.series, header_only=command.header)
    except MedrlError as error:
        return {"path": name, "error": str(error)}


def _is_scan(name: str) -> bool:
    """Whether a name is that of a scan, not of a model."""
    from medrl.bundles.folder import MANIFEST_FILE

    path = Path(name)
    if path.is_dir():
        return not (path / MANIFEST_FILE).is_file()
    return path.name != MANIFEST_FILE and (
        path.exists() or os.sep in name or name.lower().endswith(SCAN_ENDINGS)
    )


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


def _show_model(folder: Path, as_json: bool) -> dict[str, Any]:
    """Show a model's card, unless it is wanted as JSON, and give its manifest."""
    from medrl.bundles import read_manifest

    manifest = read_manifest(folder)
    if not as_json:
        from rich.markdown import Markdown

        from medrl.bundles.card import render_card

        console = stdout()
        console.print(Markdown(render_card(manifest)))
        console.print(f"\nfolder: {folder}", markup=False, soft_wrap=True)
    return {"path": str(folder), **manifest}
