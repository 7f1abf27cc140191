"""The files of one result: all of them, or none."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medrl.files import all_or_nothing

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from medrl.dicom import Drafted
    from medrl.trajectory import Trajectory

#: Ending of a file's name, and what writes it.
File = tuple[str, Callable[[Path], object]]


def write_files(folder: Path, stem: str, files: Mapping[str, File]) -> dict[str, Path]:
    """Write the files of one result, all of them or none.

    Args:
        folder: Existing folder.
        stem: What the files are called.
        files: By kind.

    Returns:
        Paths by kind.

    Raises:
        MedrlError: If they cannot be written.
    """
    paths = {kind: folder / f"{stem}{ending}" for kind, (ending, _) in files.items()}
    with all_or_nothing(paths) as drafts:
        for kind, (_, write) in files.items():
            write(drafts[kind])
    return paths


def trajectory_file(trajectory: Trajectory) -> File:
    """The record of what agents did."""
    from medrl.trajectory import write_trajectory

    return ".trajectory.json", lambda path: write_trajectory(path, trajectory)


def picture_file(ending: str, draw: Callable[..., Figure], *what: object, **how: Any) -> File:
    """A picture, drawn when it is written; `draw` gives a figure of `what`."""
    from medrl.results.picture import save_picture

    return ending, lambda path: save_picture(path, draw(*what, **how))


def dicom_files(kind: str, ending: str, drafted: Drafted | None) -> dict[str, File]:
    """A DICOM object, where there is one."""
    dataset = None if drafted is None else drafted.dataset
    if dataset is None:
        return {}
    from medrl.dicom.objects import save

    return {kind: (ending, lambda path: save(path, dataset))}
