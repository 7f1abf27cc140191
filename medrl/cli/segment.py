"""`medrl segment`: segment an object of a scan from seeds."""

from __future__ import annotations

import json
import math
import sys
import time
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from medrl.cli import complain, debugging, unexpected
from medrl.cli.deidentify import pseudonyms_of, shown_line
from medrl.cli.terminal import check_device, parse, progress_bars, stdout
from medrl.errors import MedrlError
from medrl.files import prepare_folder, stem_of

if TYPE_CHECKING:
    from medrl.dicom import Pseudonyms
    from medrl.seednet.seeds import Seed
    from medrl.seednet.session import SeedSession

#: What segments a single scan unless told otherwise, if it is there.
_DEFAULT = "hippocampus-t1"

#: What models of other tasks do, and with which command.
_OTHERS = {
    "landmark": "is a landmark model, it segments nothing: medrl detect",
    "registration": "is a registration model, it segments nothing: medrl register",
}


@dataclass(frozen=True, kw_only=True)
class Segment:
    """Segment an object of a scan from seeds; an agent adds its own until it stops.

    Writes a mask in the scan's own grid (.seg.nii.gz), the seeds as 3D Slicer points
    (.seeds.mrk.json), what the agent did (.trajectory.json) and a picture (.png), and of a DICOM
    series the mask as a DICOM SEG (.seg.dcm).
    """

    scan: Annotated[Path | None, tyro.conf.Positional, tyro.conf.arg(metavar="SCAN")] = None
    """NIfTI, NRRD, MHA/MHD file, or DICOM series as folder or .zip. May be left out where --image
    names the scans; the mask then comes in the grid of the first."""

    out: Annotated[Path, tyro.conf.arg(aliases=["-o"])]
    """Folder to write into; made if missing."""

    seed: tyro.conf.UseAppendAction[tuple[str, ...]] = ()
    """fg:x,y,z inside the object or bg:x,y,z outside it, world millimetres; may be repeated. More
    triples, each after another colon, make a scribble."""

    seeds: tyro.conf.UseAppendAction[tuple[Path, ...]] = ()
    """3D Slicer points (.mrk.json) whose names, or whose list's name, say fg or bg."""

    space: Literal["RAS", "LPS"] = "RAS"
    """Space of the coordinates of --seed; files state their own."""

    model: str | None = None
    """Name of a model (see `medrl models`) or the folder of one; found from the images if left
    out."""

    target: str | None = None
    """Which of the model's kinds of object; its first if left out."""

    channel: str | None = None
    """What SCAN is, such as PET, for a model that looks at several images."""

    image: tyro.conf.UseAppendAction[tuple[str, ...]] = ()
    """CHANNEL=PATH, another image of the same patient in the same space; may be repeated."""

    agent: bool = True
    """Let the agent add seeds."""

    max_seeds: int | None = None
    """Seeds that the agent may place at most."""

    device: str = "cpu"
    """cpu, cuda or cuda:N."""

    json: bool = False
    """Print a report in JSON instead of a table."""

    picture: bool = True
    """Draw the picture."""

    deidentify: bool = False
    """Results without names, dates, identifiers and paths: scan and patient go by pseudonyms."""

    key: Path | None = None
    """File with the key of the pseudonyms, made if missing; left out: one in your configuration
    folder. Keep it apart from the results."""


def main(argv: Sequence[str]) -> int:
    """Run `medrl segment`.

    Args:
        argv: What follows `medrl segment` on the command line.

    Returns:
        Exit code: 0, or 1 if the scan could not be segmented.

    Raises:
        MedrlError: If nothing can be done: no seeds, no such model, target or device, or an output
            folder that cannot be written to.
    """
    command: Segment = parse(Segment, argv, prog="medrl segment")
    images = _images(command)
    if command.max_seeds is not None and command.max_seeds < 0:
        raise MedrlError("--max-seeds must not be negative")
    seeds = _seeds(command)
    prepare_folder(command.out)
    pseudonyms = pseudonyms_of(command.deidentify, command.key, command.out)
    device = check_device(command.device)

    from medrl.bundles import find, read_manifest
    from medrl.seednet.session import SeedSession

    name = command.model or choose_model([channel for channel, _ in images if channel])
    task = read_manifest(find(name))["task"]
    if task in _OTHERS:
        raise MedrlError(f"{name} {_OTHERS[task]}")
    session = SeedSession.load(name, device=device)
    session.model.target_index(command.target)
    scan = images[0][1]
    stem = stem_of(scan)
    places = [path for _, path in images]
    if pseudonyms is not None:
        stem = pseudonyms.case(stem)
        scan = Path(stem)
    try:
        began = time.perf_counter()
        remarks = _segment(session, command, images, seeds, hidden=pseudonyms is not None)
        files, more = _write(session, command, stem, pseudonyms)
        remarks += more
        seconds = time.perf_counter() - began
    except MedrlError as error:
        complain(shown_line(str(error), scan, places))
        return 1
    except MemoryError:
        complain(f"{scan}: does not fit in memory; crop or downsample it")
        return 1
    except Exception as error:
        if debugging():
            raise
        complain(shown_line(unexpected(error), scan, places))
        return 1
    if command.json:
        print(json.dumps(report(session, scan, files, remarks, seconds), indent=1, allow_nan=False))
    else:
        show(session, scan, files, remarks, seconds)
    return 0


def choose_model(channels: Sequence[str]) -> str:
    """The shipped model for images of some channels, or for a scan of which nothing is known.

    Raises:
        MedrlError: If none fits.
    """
    from medrl.bundles import available

    looks_at = {
        bundle.name: [channel["name"] for channel in bundle.manifest["settings"]["channels"]]
        for bundle in available()
        if bundle.manifest["task"] == "seednet"
    }
    if channels:
        fitting = [name for name, known in looks_at.items() if set(channels) <= set(known)]
    else:
        fitting = [name for name, known in looks_at.items() if len(known) == 1]
    if not fitting:
        what = " and ".join(channels) or "a single scan"
        raise MedrlError(f"no model that ships with medrl segments {what}: name one with --model")
    return _DEFAULT if _DEFAULT in fitting else fitting[0]


def report(
    session: SeedSession,
    scan: Path,
    files: dict[str, Path],
    remarks: Sequence[str],
    seconds: float,
) -> dict[str, Any]:
    """What was done, ready for JSON; coordinates are RAS mm."""
    from medrl.seednet.results import object_rows

    seeds = []
    for seed in session.seeds:
        gain = None if math.isnan(seed.expected_gain) else seed.expected_gain
        points = [[float(value) for value in point] for point in seed.points_world]
        seeds.append(
            {"label": seed.label_name, "who": seed.who, "points": points, "expected_gain": gain}
        )
    return {
        "scan": str(scan),
        "model": str(session.manifest.get("name")),
        "space": "RAS mm",
        "files": {kind: str(path) for kind, path in files.items()},
        "objects": object_rows(session),
        "seeds": seeds,
        "warnings": list(remarks),
        "seconds": round(seconds, 3),
    }


def show(
    session: SeedSession,
    scan: Path,
    files: dict[str, Path],
    remarks: Sequence[str],
    seconds: float,
) -> None:
    """Print a table of the objects and the files that were written."""
    from rich.table import Table
    from rich.text import Text

    from medrl.seednet.results import object_rows

    title = Text(f"{scan} ({seconds:.1f} s)")
    table = Table(title=title, title_justify="left", box=None, pad_edge=False)
    table.add_column("object", no_wrap=True)
    for column in ("volume ml", "your seeds", "agent's seeds", "expected gain in Dice"):
        table.add_column(column, justify="right")
    table.add_column("agent")
    for row in object_rows(session):
        table.add_row(
            Text(row["object"]),
            f"{row['volume_ml']:.2f}",
            str(row["user_seeds"]),
            str(row["agent_seeds"]),
            f"{row['expected_gain']:.3f}",
            row["outcome"],
        )
    console = stdout()
    console.print(table)
    for line in remarks:
        print(f"medrl: note: {line}", file=sys.stderr)
    for path in files.values():
        console.print(f"wrote {path}", markup=False, soft_wrap=True)


def _images(command: Segment) -> list[tuple[str | None, Path]]:
    """Channels, None where it must be found out, and files; the first gives the grid."""
    images: list[tuple[str | None, Path]] = []
    if command.scan is not None:
        images.append((command.channel, command.scan))
    elif command.channel is not None:
        raise MedrlError("--channel says what SCAN is: name one, or use --image")
    for text in command.image:
        channel, sign, path = text.partition("=")
        if not (channel and sign and path):
            raise MedrlError(f"--image {text!r} is not of the form CHANNEL=PATH")
        images.append((channel, Path(path)))
    if not images:
        raise MedrlError("name a scan")
    named = [channel for channel, _ in images if channel is not None]
    if len(set(named)) < len(named):
        raise MedrlError("two images are of the same channel")
    return images


def _seeds(command: Segment) -> list[Seed]:
    """The user's seeds, of the command line and of files."""
    from medrl.seednet.seeds import parse_seed, read_seeds

    seeds = [parse_seed(text, space=command.space) for text in command.seed]
    for path in command.seeds:
        seeds += [seed for seed in read_seeds(path) if seed.who == "user"]
    if not any(seed.label for seed in seeds):
        raise MedrlError("place at least one seed inside the object: --seed fg:x,y,z")
    return seeds


def _segment(
    session: SeedSession,
    command: Segment,
    images: Sequence[tuple[str | None, Path]],
    seeds: Sequence[Seed],
    *,
    hidden: bool,
) -> list[str]:
    """Read and segment; what the user should know of the files, whose names may be hidden."""
    from medrl.seednet.images import name_images
    from medrl.volume.read import read

    channels = session.model.settings.channels
    with progress_bars() as progress:
        name = "scan" if hidden else stem_of(images[0][1])
        bar = progress.add_task(name, total=None, more="reading")
        volumes = {}
        remarks: list[str] = []
        for number, (channel, path) in enumerate(images):
            with warnings.catch_warnings():
                # They come back as remarks of the scan.
                warnings.simplefilter("ignore")
                volume = read(path)
            label = f"image {number + 1}" if hidden else str(path)
            volume.meta["filename_or_obj"] = label
            remarks += [f"{label}: {remark}" for remark in volume.meta.get("remarks", ())]
            named = [name for name, _ in images if name is not None]
            left = [c for c in channels if c.name not in named]
            # What the scan is that no one has named: the channel that is left, or by its values.
            if channel is None and number == 0:
                channel = next(iter(name_images(volume, left or channels)))
            volumes[str(channel)] = volume
        progress.update(bar, more="preparing")
        session.set_scan(volumes)
        session.new_object(target=command.target)
        progress.update(bar, more="segmenting")
        session.add_seeds(seeds)
        if command.agent:
            session.accept_all(max_seeds=command.max_seeds)
    return remarks


def _write(
    session: SeedSession, command: Segment, stem: str, pseudonyms: Pseudonyms | None
) -> tuple[dict[str, Path], list[str]]:
    """Write the results; their files, and what the user should know of them."""
    from medrl.seednet.results import dicom_segmentation, write_results

    masks = dicom_segmentation(session, pseudonyms=pseudonyms)
    files = write_results(command.out, stem, session, picture=command.picture, segmentation=masks)
    return files, list(masks.remarks)
