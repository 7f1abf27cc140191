"""`medrl detect`: find landmarks in scans."""

from __future__ import annotations

import json
import os
import sys
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from medrl.cli import complain, debugging, unexpected
from medrl.cli.deidentify import pseudonyms_of, shown_line
from medrl.cli.terminal import check_device, detection_table, parse, progress_bars, stdout
from medrl.errors import MedrlError
from medrl.files import distinct_stems, prepare_folder
from medrl.landmark.results import dicom_report, landmark_rows, write_results

if TYPE_CHECKING:
    from rich.progress import Progress

    from medrl.dicom import Pseudonyms
    from medrl.landmark.detect import Detection, LandmarkDetector

#: What models of other tasks do, and with which command.
_OTHERS = {
    "seednet": "segments objects, it finds no landmarks: medrl segment",
    "registration": "aligns two scans, it finds no landmarks: medrl register",
}


@dataclass(frozen=True, kw_only=True)
class Detect:
    """Find landmarks in scans.

    Writes for each scan a 3D Slicer point list (.mrk.json), a table (.csv; RAS mm), every agent's
    path (.trajectory.json) and a picture (.png), and of a DICOM series a DICOM SR (.sr.dcm).
    """

    scans: Annotated[tuple[Path, ...], tyro.conf.Positional, tyro.conf.arg(metavar="SCAN...")]
    """NIfTI, NRRD, MHA/MHD files, or DICOM series as folders or .zip."""

    out: Annotated[Path, tyro.conf.arg(aliases=["-o"])]
    """Folder to write into; made if missing."""

    model: str = "brain-t1"
    """Name of a model (see `medrl models`) or the folder of one."""

    landmarks: tuple[str, ...] = ()
    """Report only these; all if left out."""

    device: str = "cpu"
    """cpu, cuda or cuda:N."""

    json: bool = False
    """Print a report in JSON instead of tables."""

    picture: bool = True
    """Draw the picture."""

    deidentify: bool = False
    """Results without names, dates, identifiers and paths: scans and patients go by pseudonyms."""

    key: Path | None = None
    """File with the key of the pseudonyms, made if missing; left out: one in your configuration
    folder. Keep it apart from the results."""


@dataclass(frozen=True)
class Done:
    """A scan that was searched, and what was written; its path, or a pseudonym."""

    scan: Path
    detection: Detection
    files: dict[str, Path]
    warnings: tuple[str, ...]

    def report(self) -> dict[str, Any]:
        """As in the JSON report."""
        return {
            "scan": str(self.scan),
            "status": "done",
            "files": {kind: str(path) for kind, path in self.files.items()},
            "space": "RAS mm",
            "landmarks": landmark_rows(self.detection),
            "warnings": list(self.warnings),
            "seconds": round(self.detection.seconds, 3),
        }


@dataclass(frozen=True)
class Failed:
    """A scan that could not be searched, and why."""

    scan: Path
    error: str

    def report(self) -> dict[str, Any]:
        """As in the JSON report."""
        return {"scan": str(self.scan), "status": "failed", "error": self.error}


def main(argv: Sequence[str]) -> int:
    """Run `medrl detect`.

    Args:
        argv: What follows `medrl detect` on the command line.

    Returns:
        Exit code: 0, or 1 if some scans failed.

    Raises:
        MedrlError: If nothing can be done: no such model, landmark or device, or an output folder
            that cannot be written to.
    """
    command: Detect = parse(Detect, argv, prog="medrl detect")
    if not command.scans:
        raise MedrlError("name at least one scan")
    prepare_folder(command.out)
    pseudonyms = pseudonyms_of(command.deidentify, command.key, command.out)
    device = check_device(command.device)

    from medrl.bundles import find, read_manifest
    from medrl.landmark.detect import LandmarkDetector

    task = read_manifest(find(command.model))["task"]
    if task in _OTHERS:
        raise MedrlError(f"{command.model} {_OTHERS[task]}")
    detector = LandmarkDetector.load(command.model, device=device)
    check_landmarks(detector, command.landmarks)
    scans = list({os.path.realpath(scan): scan for scan in command.scans}.values())
    stems = distinct_stems(scans)
    if pseudonyms is not None:
        stems = [pseudonyms.case(stem) for stem in stems]
    outcomes: list[Done | Failed] = []
    with progress_bars() as progress:
        every = progress.add_task("scans", total=len(scans), more="", visible=len(scans) > 1)
        for scan, stem in zip(scans, stems, strict=True):
            outcome = detect_one(
                detector,
                scan,
                folder=command.out,
                stem=stem,
                landmarks=command.landmarks,
                picture=command.picture,
                progress=progress,
                pseudonyms=pseudonyms,
            )
            if isinstance(outcome, Failed):
                complain(outcome.error)
            outcomes.append(outcome)
            progress.advance(every)
    done = [outcome for outcome in outcomes if isinstance(outcome, Done)]
    failed = len(outcomes) - len(done)
    if command.json:
        report = {
            "model": str(detector.manifest.get("name")),
            "done": len(done),
            "failed": failed,
            "scans": [outcome.report() for outcome in outcomes],
        }
        print(json.dumps(report, indent=1, allow_nan=False))
    elif len(outcomes) == 1 and done:
        show_one(done[0])
    elif done:
        show_many(done)
    if failed and len(outcomes) > 1:
        print(f"medrl: {failed} of {len(outcomes)} scans failed", file=sys.stderr)
    return 1 if failed else 0


def check_landmarks(detector: LandmarkDetector, landmarks: Sequence[str]) -> None:
    """Find out before any work that a model does not know a landmark.

    Raises:
        MedrlError: If it does not.
    """
    unknown = [name for name in landmarks if name not in detector.landmark_names]
    if unknown:
        raise MedrlError(
            f"the model does not know {', '.join(unknown)}; "
            f"it knows {', '.join(detector.landmark_names)}"
        )


def detect_one(
    detector: LandmarkDetector,
    scan: Path,
    *,
    folder: Path,
    stem: str,
    landmarks: Sequence[str],
    picture: bool,
    progress: Progress,
    pseudonyms: Pseudonyms | None = None,
) -> Done | Failed:
    """Read, search and write one scan; an error becomes part of the outcome.

    Args:
        detector: Model in memory.
        scan: What to read.
        folder: Where to write.
        stem: What the files are called.
        landmarks: Which to report; all if empty.
        picture: Draw the picture.
        progress: Bars to add one to.
        pseudonyms: Take the patient's identity out; the stem stands for the scan then.

    Returns:
        What became of it.
    """
    from medrl.volume.read import read

    label = scan if pseudonyms is None else Path(stem)

    def failed(error: str) -> Failed:
        return Failed(label, shown_line(error, label, [scan]))

    bar = progress.add_task(stem, total=None, more="reading")
    try:
        with warnings.catch_warnings():
            # They come back as remarks of the scan.
            warnings.simplefilter("ignore")
            volume = read(scan)
        volume.meta["filename_or_obj"] = str(label)
        progress.update(bar, more="searching")
        detection = detector.detect(
            volume,
            landmarks=landmarks or None,
            progress=lambda done, total: progress.update(bar, completed=done, total=total),
        )
        progress.update(bar, more="writing")
        drafted = dicom_report(volume, detection, pseudonyms=pseudonyms)
        files = write_results(folder, stem, volume, detection, picture=picture, report=drafted)
    except MedrlError as error:
        return failed(str(error))
    except MemoryError:
        return failed("does not fit in memory; crop or downsample it")
    except Exception as error:
        if debugging():
            raise
        return failed(unexpected(error))
    finally:
        progress.remove_task(bar)
    return Done(label, detection, files, (*drafted.remarks, *detection.warnings))


def show_one(done: Done) -> None:
    """Print the landmarks of a scan and the files that were written."""
    console = stdout()
    title = f"{done.scan} ({done.detection.seconds:.1f} s)"
    console.print(detection_table(done.detection, title=title))
    _note(done)
    for path in done.files.values():
        console.print(f"wrote {path}", markup=False, soft_wrap=True)


def show_many(outcomes: Sequence[Done]) -> None:
    """Print a line for each scan."""
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for column in ("scan", "found", "corrected", "absent", "doubtful", "seconds", "point list"):
        table.add_column(column, overflow="fold")
    for done in outcomes:
        landmarks = done.detection.landmarks
        states = [landmark.status for landmark in landmarks]
        doubtful = sum(lm.status != "absent" and lm.confidence < 0.5 for lm in landmarks)
        table.add_row(
            str(done.scan),
            *(str(states.count(status)) for status in ("found", "corrected", "absent")),
            str(doubtful),
            f"{done.detection.seconds:.1f}",
            str(done.files["markups"]),
        )
    stdout().print(table)
    for done in outcomes:
        _note(done)


def _note(done: Done) -> None:
    """Print what the user should know of a scan."""
    for line in done.warnings:
        text = line if str(done.scan) in line else f"{done.scan}: {line}"
        print(f"medrl: note: {text}", file=sys.stderr)
