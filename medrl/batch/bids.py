"""BIDS datasets: which images they hold, and what their names say.

Brain Imaging Data Structure 1.10, https://bids-specification.readthedocs.io: "Common principles",
"Modality specific files: Magnetic Resonance Imaging, Positron Emission Tomography". CT has no
chapter yet; it is looked for as BIDS extension proposal 24 has it, ``ct/*_ct.nii.gz``.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pathspec import GitIgnoreSpec

from medrl.batch.cases import Case, Source
from medrl.errors import MedrlError

DESCRIPTION = "dataset_description.json"
_IGNORE = ".bidsignore"
#: Folders that images of anatomy lie in.
_DATATYPES = ("anat", "ct", "pet")
#: Images of one volume that show anatomy, by modality; parametric maps, parts of multi-echo and
#: inversion recordings, and two images in one file (PDT2) are taken only if they are asked for.
_SUFFIXES: dict[str, tuple[str, ...]] = {
    "MR": (
        *("T1w", "T2w", "PDw", "T2starw", "FLAIR", "inplaneT1", "inplaneT2", "angio", "UNIT1"),
        *("T2star", "FLASH", "PD"),
    ),
    "CT": ("ct",),
    "PET": ("pet",),
}
_NAME = re.compile(
    r"(?P<entities>sub-[0-9a-zA-Z+]+(?:_[a-z]+-[0-9a-zA-Z+]+)*)_(?P<suffix>[0-9a-zA-Z]+)"
)
_ENDINGS = (".nii.gz", ".nii")


@dataclass(frozen=True)
class Selection:
    """Which images of a dataset are meant.

    Attributes:
        participants: Labels, with or without ``sub-``; all if empty.
        sessions: Labels, with or without ``ses-``; all, and images without any, if empty.
        suffixes: Such as ``T1w``; the usual ones if empty.
        usual: Those that suit the model; all that show anatomy if empty.
    """

    participants: tuple[str, ...] = ()
    sessions: tuple[str, ...] = ()
    suffixes: tuple[str, ...] = ()
    usual: tuple[str, ...] = ()

    @property
    def given(self) -> bool:
        """Whether the user has chosen anything, which only a BIDS dataset can answer."""
        return bool(self.participants or self.sessions or self.suffixes)


@dataclass(frozen=True)
class BidsName:
    """What the name of a file says.

    Attributes:
        entities: Labels by key, in the order of the name: ``sub``, ``ses``, ``acq``, ...
        suffix: What kind of image it is, such as ``T1w``.
    """

    entities: dict[str, str]
    suffix: str


def parse_name(stem: str) -> BidsName | None:
    """Take a file's name, without its ending, apart; None if BIDS has no such names."""
    match = _NAME.fullmatch(stem)
    if match is None:
        return None
    pairs = [part.split("-", 1) for part in match["entities"].split("_")]
    entities = dict(pairs)
    return BidsName(entities, match["suffix"]) if len(entities) == len(pairs) else None


def is_raw_dataset(folder: Path) -> bool:
    """Whether a folder is a BIDS dataset of raw data; derivatives are folders like any other."""
    if not (folder / DESCRIPTION).is_file():
        return False
    known = read_description(folder)
    return "BIDSVersion" in known and known.get("DatasetType", "raw") == "raw"


def read_description(folder: Path) -> dict[str, Any]:
    """What a dataset says of itself.

    Raises:
        MedrlError: If that cannot be read.
    """
    path = folder / DESCRIPTION
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, RecursionError) as error:
        raise MedrlError(f"{path}: cannot be read as JSON: {error}") from error
    if not isinstance(content, dict):
        raise MedrlError(f"{path}: does not describe a dataset")
    return content


def suffixes_for(manifest: Any) -> tuple[str, ...]:
    """The suffixes of images that a model is for.

    Args:
        manifest: Of the model; its card may name them as ``contrasts``. Otherwise its modality
            or the first of its images (channels) decides.

    Returns:
        None at all if that leaves it open.
    """
    named = manifest["card"].get("contrasts")
    if isinstance(named, list):
        return tuple(str(suffix) for suffix in named)
    settings = manifest["settings"]
    channels = settings.get("channels") or ()
    first = channels[0].get("name") if channels and isinstance(channels[0], dict) else None
    return _SUFFIXES.get(str(settings.get("modality", first)), ())


def find_images(root: Path, selection: Selection) -> list[Case]:
    """A case for each image of a dataset that is meant.

    ``derivatives/``, ``sourcedata/``, ``code/``, whatever ``.bidsignore`` names, and files whose
    names are not as BIDS has them or contradict their folders are left out.

    Args:
        root: Of the dataset.
        selection: Which images.

    Returns:
        Cases named by where the images lie, such as ``sub-01/ses-02/anat/sub-01_ses-02_T1w``.

    Raises:
        MedrlError: If there is no such participant, or an image is there twice.
    """
    participants = {label.removeprefix("sub-") for label in selection.participants}
    sessions = {label.removeprefix("ses-") for label in selection.sessions}
    there = {path.name.removeprefix("sub-") for path in root.glob("sub-*") if path.is_dir()}
    if missing := sorted(participants - there):
        raise MedrlError(f"{root}: has no participant {', '.join(missing)}")
    ignored = _ignored(root)
    everything = tuple(suffix for one in _SUFFIXES.values() for suffix in one)
    suffixes = selection.suffixes or selection.usual or everything
    cases: dict[str, Case] = {}
    for label in sorted(participants or there):
        for path in _files(root / f"sub-{label}"):
            relative = path.relative_to(root)
            ending = next((e for e in _ENDINGS if path.name.endswith(e)), None)
            # As CT has no chapter in BIDS, datasets have to ignore its folders to be valid.
            new = relative.parts[-2] == "ct"
            listed = f"{relative.parent.parent.as_posix()}/" if new else relative.as_posix()
            if ending is None or ignored.match_file(listed):
                continue
            name = parse_name(path.name.removesuffix(ending))
            if name is None or name.suffix not in suffixes or not _lies_right(relative, name):
                continue
            if sessions and name.entities.get("ses") not in sessions:
                continue
            case = relative.as_posix().removesuffix(ending)
            if case in cases:
                raise MedrlError(f"{root / case}: is there as .nii and as .nii.gz; leave one")
            cases[case] = Case(case, {"scan": Source(path)}, layout="bids")
    return list(cases.values())


# -------------------------------------------------------------------------------------------------


def _files(subject: Path) -> Iterable[Path]:
    """The files of a subject in folders of anatomy, of all sessions and none."""
    for above in (subject, *sorted(subject.glob("ses-*"))):
        for datatype in _DATATYPES:
            yield from sorted((above / datatype).glob("sub-*"))


def _lies_right(relative: Path, name: BidsName) -> bool:
    """Whether a file's name says the same subject and session as its folders."""
    folders = [f"{key}-{name.entities[key]}" for key in ("sub", "ses") if key in name.entities]
    return list(relative.parts[:-2]) == folders


def _ignored(root: Path) -> GitIgnoreSpec:
    """Paths, relative to the root, that a dataset's ``.bidsignore`` names."""
    try:
        lines = (root / _IGNORE).read_text(encoding="utf-8-sig").splitlines()
    except FileNotFoundError:
        lines = []
    except (OSError, UnicodeDecodeError) as error:
        raise MedrlError(f"{root / _IGNORE}: cannot be read: {error}") from error
    try:
        return GitIgnoreSpec.from_lines(lines)
    except ValueError as error:
        raise MedrlError(f"{root / _IGNORE}: {error}") from error


def root_of(cases: Sequence[Case]) -> Path | None:
    """The dataset that cases come from; None if they come from none."""
    case = next((case for case in cases if case.layout == "bids"), None)
    if case is None:
        return None
    return case.source.path.parents[case.name.count("/")]
