"""Tracking agents as the rest of the house knows them."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

from medrl.errors import MedrlError
from medrl.systems import Artifact, Progress, System

if TYPE_CHECKING:
    from monai.data.meta_tensor import MetaTensor

    from medrl.results.findings import Finding
    from medrl.tracking.films import TrackedFilm
    from medrl.tracking.points import TrackedPoints
    from medrl.trajectory import Watch
    from medrl.volume.film import Film

OBJECTS, VISITS = "tracks", "visits"


@dataclass(frozen=True)
class TrackOptions:
    """What may be chosen."""

    divides: bool = True
    """Objects may divide, as cells do."""

    max_gap: int | None = None
    """Frames without a detection after which a track ends; as the model was trained if left out."""

    point_size: float | None = None
    """Width in voxels of detections that are points."""

    blob_mm: float | None = None
    """Without detections: find blobs of about this diameter, in millimetres (pixels of a film)."""


@dataclass(frozen=True)
class Given:
    """What comes with a scan."""

    detections: Path | None = None
    """Boxes in every frame of a film (.csv): frame,x0,y0,x1,y1 with a header, or as in the MOT
    challenge."""

    earlier: Path | None = None
    """Another scan of the same patient in which points are marked: they are found again in SCAN."""

    marks: Path | None = None
    """Points (.mrk.json, .fcsv, .csv) in the earlier scan, or in the first time of a scan of four
    dimensions."""


class _Case(NamedTuple):
    """A film with detections, or two scans with points."""

    data: MetaTensor | Film
    detections: Any = None
    earlier: MetaTensor | None = None
    points: dict[str, Any] | None = None


class TrackingSystem(System):
    """Follows objects through films, and points through visits."""

    name = "tracking"
    verb = "track"
    summary = "follow objects through films, and points through visits and times"
    description = """Follow objects through films, and points through visits and times.

Of a film (a folder of pictures, a video, a scan of four dimensions) with --detections, boxes in its
frames become tracks: writes them as in the MOT challenge (.tracks.csv) and the Cell Tracking
Challenge (.res_track.txt), masks whose values are the tracks (.seg.nii.gz), the agents' boxes
(.trajectory.json) and a film (.webp). With --earlier and --marks, points of an earlier scan of the
same patient are found again in SCAN; with --marks alone, those of the first time of a scan of four
dimensions in all others: writes them for 3D Slicer (.mrk.json), as a table (.csv), the agents'
paths and a picture."""
    options = TrackOptions
    given = Given
    films = True
    artifacts: ClassVar[Mapping[str, Artifact]] = {
        ".tracks.csv": Artifact("tracks", ".csv", "Tracks as in the MOT challenge"),
        ".res_track.txt": Artifact("tracks", ".txt", "Tracks as in the Cell Tracking Challenge"),
        ".seg.nii.gz": Artifact("dseg", ".nii.gz", "Masks whose values are the tracks"),
        ".mrk.json": Artifact("landmarks", ".mrk.json", "Points found again; RAS+ mm"),
        ".csv": Artifact(
            "landmarks",
            ".tsv",
            "Points found again",
            {
                "name": {"Description": "Of the point"},
                "time": {"Description": "From 0; of a single scan 0"},
                **{axis: {"Description": "RAS+ world coordinate", "Units": "mm"} for axis in "xyz"},
                "status": {"Description": "found, or absent: outside of the image"},
                "confidence": {"Description": "That the error is below 5 mm, from 0 to 1"},
            },
        ),
        ".trajectory.json": Artifact("agents", ".trajectory.json", "The path of every agent"),
        ".png": Artifact("landmarks", ".png", "Points in the image"),
        ".webp": Artifact("tracks", ".webp", "A film of the tracks"),
    }
    group = "name"

    # Using a model ------------------------------------------------------------------------------

    def check_given(self, given: Given, scans: Collection[str]) -> None:
        """Refuse what does not go together."""
        if given.detections is not None and given.marks is not None:
            raise MedrlError("name detections of a film, or marks of a scan, not both")
        if given.earlier is not None and given.marks is None:
            raise MedrlError("--earlier is a scan with marked points: name them by --marks")
        for path in (given.detections, given.earlier, given.marks):
            if path is not None and not path.exists():
                raise MedrlError(f"{path}: no such file or folder")

    def choose_model(self, given: Given, scans: Collection[str]) -> str:
        """The model for points where some are marked, else that for objects."""
        return VISITS if given.marks is not None else OBJECTS

    def load(self, bundle: Path, *, device: str = "cpu") -> Any:
        """The tracker of a model for objects, or the follower of one for points."""
        from medrl.bundles import read_manifest

        if read_manifest(bundle)["settings"].get("kind") == VISITS:
            from medrl.tracking.visits.follow import Follower

            return Follower.load(bundle, device=device)
        from medrl.tracking.objects.follow import Tracker

        return Tracker.load(bundle, device=device)

    def check(self, predictor: Any, options: TrackOptions) -> None:
        """Refuse sizes and gaps that cannot be."""
        if options.max_gap is not None and options.max_gap < 0:
            raise MedrlError("--max-gap must not be negative")
        if options.blob_mm is not None and options.blob_mm <= 0:
            raise MedrlError("--blob-mm must be above 0")

    def read(
        self, predictor: Any, scans: Mapping[str, Any], given: Given, options: TrackOptions
    ) -> _Case:
        """A film with its detections, or scans with points."""
        from medrl.tracking.objects.detections import read_detections
        from medrl.tracking.objects.follow import Tracker
        from medrl.volume.film import Film, film_of
        from medrl.volume.points import read_points
        from medrl.volume.read import read

        data = scans["scan"]
        if isinstance(predictor, Tracker):
            if given.marks is not None:
                raise MedrlError("the model follows objects of films, not marks: --model visits")
            film = data if isinstance(data, Film) else film_of(data)
            found = None
            if given.detections is not None:
                found = read_detections(given.detections, size=options.point_size)
            elif options.blob_mm is None:
                raise MedrlError(
                    "comes with no detections: name a table of boxes by --detections, or let blobs "
                    "be found by --blob-mm DIAMETER"
                )
            return _Case(film, found)
        if given.marks is None:
            raise MedrlError("comes with no marks: name points of the earlier scan by --marks")
        points = read_points(given.marks)
        if given.earlier is not None:
            if isinstance(data, Film):
                raise MedrlError("points are found again in scans, not in films of pictures")
            return _Case(data, earlier=read(given.earlier), points=points)
        film = data if isinstance(data, Film) else film_of(data)
        if film.flat:
            raise MedrlError("points are found again in scans, not in films of pictures")
        return _Case(film, points=points)

    def predict(
        self,
        predictor: Any,
        data: Sequence[_Case],
        options: TrackOptions,
        *,
        progress: Progress | None = None,
        watch: Watch | None = None,
    ) -> list[TrackedFilm | TrackedPoints]:
        """Follow, one case after the other."""
        from medrl.tracking.films import track_film
        from medrl.tracking.points import track_points
        from medrl.volume.film import Film

        found: list[TrackedFilm | TrackedPoints] = []
        for case in data:
            if case.points is None:
                assert isinstance(case.data, Film)
                found.append(
                    track_film(
                        predictor,
                        case.data,
                        case.detections,
                        options,
                        progress=progress,
                        watch=watch,
                    )
                )
            else:
                found.append(
                    track_points(
                        predictor,
                        case.data,
                        case.points,
                        earlier=case.earlier,
                        progress=progress,
                        watch=watch,
                    )
                )
        return found

    # What came of it ----------------------------------------------------------------------------

    def rows(self, result: TrackedFilm | TrackedPoints) -> list[dict[str, Any]]:
        """A row for each track, or for each point in each time."""
        return result.rows()

    def findings(self, result: TrackedFilm | TrackedPoints) -> list[Finding]:
        """Points where they were found, of the last time; tracks are in the trajectory."""
        return result.findings()

    def sidecar(self, scan: Path) -> Mapping[str, str]:
        """Detections beside a film, or marks beside a scan of four dimensions."""
        from medrl.files import without_ending

        stem = without_ending(scan.name)
        own = {
            "detections": scan.with_name(f"{stem}.detections.csv"),
            "marks": scan.with_name(f"{stem}.marks.mrk.json"),
        }
        return {name: str(path) for name, path in own.items() if path.is_file()}

    def contents(self, manifest: Mapping[str, Any]) -> dict[str, list[str]]:
        """It follows whatever is detected or marked."""
        return {}

    def finds(self, manifest: Mapping[str, Any]) -> str:
        """What a model follows."""
        points = manifest["settings"].get("kind") == VISITS
        return "marked points in another scan" if points else "detected objects through a film"
