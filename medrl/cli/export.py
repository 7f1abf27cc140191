"""`medrl export`: turn a model into a bundle for MONAI's own tools."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from medrl.cli.output import say
from medrl.cli.terminal import parse


@dataclass(frozen=True, kw_only=True)
class Export:
    """Turn a model into a bundle for MONAI's own tools (`python -m monai.bundle run`)."""

    model: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="MODEL")]
    """Name of a model (see `medrl models`) or the folder of one."""

    out: Annotated[Path, tyro.conf.arg(aliases=["-o"])]
    """Folder of the new bundle; must not exist or be empty."""

    format: Literal["monai-bundle"] = "monai-bundle"
    """Layout of the bundle."""


def main(argv: Sequence[str]) -> int:
    """Run `medrl export`.

    Args:
        argv: What follows `medrl export` on the command line.

    Returns:
        Exit code 0.

    Raises:
        MedrlError: If there is no such model or the folder cannot be written.
    """
    command: Export = parse(Export, argv, prog="medrl export")

    from medrl.bundles import find
    from medrl.bundles.monai import export

    folder = export(find(command.model), command.out)
    say(f"wrote {folder}")
    say(
        f"run it: cd {folder} && python -m monai.bundle run --config_file configs/inference.json "
        "--images \"['SCAN.nii.gz']\" --output_dir OUT"
    )
    return 0
