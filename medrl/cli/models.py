"""`medrl models`: list the trained models."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

from medrl.cli.terminal import parse, stdout
from medrl.systems import get


@dataclass(frozen=True, kw_only=True)
class Models:
    """List the trained models that come with medrl."""

    json: bool = False
    """Print JSON."""


def main(argv: Sequence[str]) -> int:
    """Run `medrl models`.

    Args:
        argv: What follows `medrl models` on the command line.

    Returns:
        Exit code 0.

    Raises:
        MedrlError: If a model is damaged.
    """
    command: Models = parse(Models, argv, prog="medrl models")

    from rich.table import Table

    from medrl.bundles import available

    bundles = available()
    systems = {bundle.name: get(bundle.manifest["task"]) for bundle in bundles}
    contents = {b.name: systems[b.name].contents(b.manifest) for b in bundles}
    kinds = sorted({kind for known in contents.values() for kind in known})
    if command.json:
        print(
            json.dumps(
                [
                    {
                        "name": bundle.name,
                        "path": str(bundle.path),
                        "task": bundle.manifest["task"],
                        "title": bundle.manifest["card"].get("title", ""),
                        **{kind: contents[bundle.name].get(kind, []) for kind in kinds},
                    }
                    for bundle in bundles
                ],
                indent=1,
            )
        )
        return 0
    table = Table(box=None, pad_edge=False)
    for column in ("name", "task", "finds", "what", "MiB"):
        table.add_column(column)
    for bundle in bundles:
        size = sum(file.stat().st_size for file in bundle.path.iterdir() if file.is_file())
        table.add_row(
            bundle.name,
            bundle.manifest["task"],
            systems[bundle.name].finds(bundle.manifest),
            str(bundle.manifest["card"].get("title", "")),
            f"{size / 2**20:.1f}",
        )
    console = stdout()
    console.print(table)
    console.print("`medrl info NAME` shows a model's card; --model also takes a folder.")
    return 0
