"""One head CT, the sample of InVesalius."""

from __future__ import annotations

from pathlib import Path

from medrl_datasets.card import Card, Datalist, Splits
from medrl_datasets.local import all_held_out, build_datalist, verify_files

CARD = Card(
    name="cranium_ct",
    title="Cranium: one head CT, the sample of InVesalius",
    modality="CT, head, Hounsfield units",
    grid="163 x 163 x 108 voxels of 1.5 mm, left-posterior-superior",
    source="InVesalius, Centro de Tecnologia da Informacao Renato Archer",
    home="https://github.com/invesalius/invesalius3",
    licence="GPL-2: tests only, never ship it or anything made from it",
    weights="no",
    citation="InVesalius 3, Centro de Tecnologia da Informacao Renato Archer, Campinas, Brazil",
    labels="None",
    obtain="The sample of InVesalius 3; Debian packages it with the program",
    holdout=("cranium_ct",),
)


def card() -> Card:
    """Return the data card."""
    return CARD


def splits(root: Path) -> Splits:
    """Return the one scan as held out."""
    return all_held_out("cranium_ct")


def datalist(root: Path) -> Datalist:
    """List the one scan."""
    return build_datalist(
        splits(root),
        lambda subject: {"image": str(root / f"{subject}.nii.gz"), "subject": subject},
    )


def verify(root: Path) -> tuple[str, ...]:
    """Return what is missing from or differs in the copy at `root`, a line each."""
    return verify_files(root, CARD.name)
