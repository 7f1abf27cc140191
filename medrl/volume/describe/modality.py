"""What kind of image a scan is: said by somebody, or guessed from its values."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from medrl.files import stem_of
from medrl.volume.labels import judge_labels, stated_as_labels

if TYPE_CHECKING:
    from monai.data.meta_tensor import MetaTensor

_SAMPLE = 100_000
#: Suffixes of BIDS names.
_SUFFIXES = {
    **dict.fromkeys(("T1w", "T2w", "PDw", "FLAIR", "T2starw", "UNIT1", "inplaneT1"), "MR"),
    **dict.fromkeys(("inplaneT2", "angio", "bold", "dwi", "sbref", "epi", "asl", "MP2RAGE"), "MR"),
    "ct": "CT",
    "pet": "PET",
}
#: What ends of names stand for, in any case.
_CONTRASTS = {
    **dict.fromkeys(("t1w", "t1"), "T1w"),
    **dict.fromkeys(("t2w", "t2"), "T2w"),
    **dict.fromkeys(("pdw", "pd"), "PDw"),
    **{name.casefold(): name for name in ("FLAIR", "T2starw", "bold", "dwi", "swi", "angio")},
}


@dataclass(frozen=True)
class Modality:
    """What kind of image a scan is.

    Attributes:
        name: ``CT``, ``MR``, ``PET``, ``label map``, ``mask``, or what a DICOM header says;
            ``unknown`` if nothing does.
        source: Who says so, in words.
        guessed: Whether that is but a guess.
    """

    name: str
    source: str
    guessed: bool

    @property
    def labels(self) -> bool:
        """Whether it is no image, but regions."""
        return self.name in ("mask", "label map")


def modality_of(scan: MetaTensor, path: Path, stated: str) -> Modality:
    """Tell what kind of image a scan is.

    Args:
        scan: MetaTensor (C, I, J, K).
        path: Its file.
        stated: What its header says, such as a DICOM Modality; empty if nothing.
    """
    if stated:
        return Modality(stated, "its header says so", False)
    judged = judge_labels(scan[0].numpy(), stated=stated_as_labels(path))
    if judged.labels:
        kind = "mask" if float(scan.max()) <= 1 else "label map"
        return Modality(kind, judged.reason, True)
    suffix = stem_of(path).rpartition("_")[2]
    if suffix in _SUFFIXES:
        return Modality(_SUFFIXES[suffix], f"its name ends in _{suffix}", False)
    return _guess(scan)


def stated_by_name(path: Path) -> str:
    """The modality that the suffix of a BIDS name stands for; empty if there is none."""
    return _SUFFIXES.get(stem_of(path).rpartition("_")[2], "")


def contrast_by_name(path: Path) -> str:
    """The contrast that the end of a name states, as BIDS has it, such as ``T2w``; or nothing."""
    return _CONTRASTS.get(re.split(r"[_\-. ]", stem_of(path))[-1].casefold(), "")


def _guess(scan: MetaTensor) -> Modality:
    from medrl.volume.validation import in_hounsfield

    values = scan.as_tensor().flatten()[:: max(1, scan.numel() // _SAMPLE)].double().numpy()
    low, high = float(values.min()), float(values.max())
    if in_hounsfield(scan):
        return Modality("CT", "many values lie far below zero, as those of air in HU", True)
    whole = np.array_equal(values, np.rint(values))
    if low < -100 and low >= -4096 and high <= 32767 and whole:
        return Modality("CT", "whole numbers on both sides of zero, as HU are", True)
    if low >= 0 and not whole and high > 1.5:
        middle, top = np.percentile(values[values > 0], [50, 99.9]) if high > 0 else (0, 0)
        if top > 12 * middle and high < 200:
            return Modality("PET", "few values stand far above the others, as SUV do", True)
    if low >= 0 and high <= 1.0 + 1e-6:
        return Modality("unknown", "values from 0 to 1: scaled, or a probability", True)
    return Modality("MR", "values without a unit, as of MR, ultrasound or micro-CT", True)
