"""BIDS datasets: which images they hold.

Brain Imaging Data Structure 1.10, https://bids-specification.readthedocs.io: "Common principles",
"Modality specific files: Magnetic Resonance Imaging, Positron Emission Tomography". CT has no
chapter yet; it is looked for as BIDS extension proposal 24 has it, ``ct/*_ct.nii.gz``.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pathspec import GitIgnoreSpec

from medrl.batch.bids_names import (
    ANATOMY,
    ENDINGS,
    MODALITIES,
    BidsName,
    Sidecars,
    no_anatomy,
    parse_name,
)
from medrl.batch.cases import Case, Source
from medrl.batch.found import Found, LeftOut, no_scan, odd_kind, walk
from medrl.errors import MedrlError
from medrl.files import has_odd_letters

DESCRIPTION = "dataset_description.json"
_IGNORE = ".bidsignore"
#: Folders that images of anatomy lie in.
_DATATYPES = ("anat", "ct", "pet")


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
    return MODALITIES.get(str(settings.get("modality", first)), ())


def find_images(root: Path, selection: Selection, skip: Path | None = None) -> Found:
    """A case for each image of a dataset that is meant; the others are left out, with a reason.

    Only what lies below the folders of participants is searched: not ``derivatives/``,
    ``sourcedata/`` and ``code/``.

    Args:
        root: Of the dataset.
        selection: Which images.
        skip: A folder that is passed over, such as that for results.

    Returns:
        Cases named by where the images lie, such as ``sub-01/ses-02/anat/sub-01_ses-02_T1w``.

    Raises:
        MedrlError: If there is no such participant.
    """
    participants = {label.removeprefix("sub-") for label in selection.participants}
    there = {path.name.removeprefix("sub-") for path in root.glob("sub-*") if path.is_dir()}
    if missing := sorted(participants - there):
        raise MedrlError(f"{root}: has no participant {', '.join(missing)}")
    left = [
        LeftOut(path, "a folder beside those of participants")
        for path in sorted(root.iterdir())
        if path.is_dir() and not path.name.startswith((".", "sub-")) and path != skip
    ]
    judge = _Judge(root, selection)
    taken: dict[str, list[Path]] = {}

    def leave(path: Path, reason: str) -> None:
        left.append(LeftOut(path, reason))

    for label in sorted(participants or there):
        listed: list[Path] = []
        for path in walk(root / f"sub-{label}", leave, skip):
            listed += _listed(path)
            if not judge.of_session(path):
                continue
            reason = judge.against(path)
            if reason is None:
                name = path.relative_to(root).as_posix().removesuffix(_ending(path) or "")
                taken.setdefault(name, []).append(path)
            else:
                leave(path, reason)
        gone = [path for path in listed if not (path.exists() or path.is_symlink())]
        left += [LeftOut(path, "listed in scans.tsv, and not there") for path in gone]
    twice = [path for paths in taken.values() if len(paths) > 1 for path in paths]
    left += [LeftOut(path, "there as .nii and as .nii.gz: leave one") for path in twice]
    cases = [
        Case(name, {"scan": Source(path)}, layout="bids")
        for name, (path, *more) in taken.items()
        if not more
    ]
    return Found(cases, left)


# -------------------------------------------------------------------------------------------------


class _Judge:
    """Decides which images of a dataset are taken."""

    def __init__(self, root: Path, selection: Selection) -> None:
        self._root = root
        self._ignored = _ignored(root)
        self._sidecars = Sidecars(root)
        self._sessions = {label.removeprefix("ses-") for label in selection.sessions}
        self._asked = selection.suffixes
        self._suffixes = selection.suffixes or selection.usual or ANATOMY

    def of_session(self, path: Path) -> bool:
        """Whether a file is of a session that is meant."""
        name = parse_name(path.name.partition(".")[0])
        label = None if name is None else name.entities.get("ses")
        return not self._sessions or label in self._sessions

    def against(self, path: Path) -> str | None:
        """Why a file is left out; None if it is taken."""
        relative = path.relative_to(self._root)
        ending = _ending(path)
        if ending is None:
            return no_scan(path)
        if reason := odd_kind(path):
            return reason
        datatype = relative.parts[-2]
        # As CT has no chapter in BIDS, datasets have to ignore its folders to be valid.
        new = datatype == "ct"
        listed = f"{relative.parent.parent.as_posix()}/" if new else relative.as_posix()
        if self._ignored.match_file(listed):
            return f"named in {_IGNORE}"
        if datatype not in _DATATYPES:
            return f"in {datatype}/, where BIDS has no images of anatomy"
        name = parse_name(path.name.removesuffix(ending))
        if name is None or has_odd_letters(relative.as_posix()):
            return "not named as BIDS has it"
        if not _lies_right(relative, name):
            return "named as of another participant or session than its folder"
        if name.suffix not in self._suffixes:
            which = "asked for" if self._asked else "what suits the model"
            return f"a {name.suffix}, which is not {which} ({', '.join(self._suffixes)})"
        whole = name.suffix in ANATOMY
        return no_anatomy(name, series=whole) or self._sidecars.against(path.parent, name)


def _ending(path: Path) -> str | None:
    return next((ending for ending in ENDINGS if path.name.endswith(ending)), None)


def _lies_right(relative: Path, name: BidsName) -> bool:
    """Whether a file's name says the same subject and session as its folders."""
    folders = [f"{key}-{name.entities[key]}" for key in ("sub", "ses") if key in name.entities]
    return list(relative.parts[:-2]) == folders


def _listed(path: Path) -> Iterator[Path]:
    """The images of anatomy that a ``scans.tsv`` names."""
    if not path.name.endswith("_scans.tsv"):
        return
    try:
        with path.open(encoding="utf-8-sig", newline="") as stream:
            names = [row.get("filename") or "" for row in csv.DictReader(stream, delimiter="\t")]
    except (OSError, ValueError, csv.Error):
        return  # it is no image, and says nothing that is needed
    for name in names:
        if name.endswith(ENDINGS) and name.startswith(_DATATYPES) and "\0" not in name:
            yield path.parent / name


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
