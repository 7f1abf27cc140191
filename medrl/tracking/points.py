"""Points found again in other scans of a patient: what is shown and written."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from monai.data.meta_tensor import MetaTensor
from numpy.typing import ArrayLike

from medrl.files import prepare_folder, stem_of
from medrl.landmark.detection import Detection, Landmark
from medrl.results import SavedFiles
from medrl.results.artifacts import File, picture_file, trajectory_file, write_files
from medrl.results.findings import Finding, Points
from medrl.results.provenance import file_of
from medrl.tracking.visits.follow import Followed, Follower
from medrl.trajectory import Trajectory, Watch
from medrl.volume.film import Film
from medrl.volume.points import write_markups, write_points_csv

if TYPE_CHECKING:
    from medrl.dicom import Pseudonyms
    from medrl.systems import Progress


@dataclass(frozen=True, eq=False)
class TrackedPoints:
    """Points of one scan in others of the same patient.

    Attributes:
        scans: V scans in which they were found again.
        visits: What was found in each.
        times: Number of each; 0 of a single scan, of a film from 1.
    """

    scans: tuple[MetaTensor, ...]
    visits: tuple[Followed, ...]
    times: tuple[int, ...]

    @property
    def detections(self) -> tuple[Detection, ...]:
        """What was found in each scan, as landmarks."""
        return tuple(
            Detection(
                tuple(
                    Landmark(name, point, "absent" if gone else "found", float(sure), "")
                    for name, point, gone, sure in zip(
                        visit.names,
                        visit.points_world,
                        visit.outside,
                        visit.confidence,
                        strict=True,
                    )
                ),
                visit.trajectory,
                visit.warnings,
                visit.seconds,
                scan,
            )
            for scan, visit in zip(self.scans, self.visits, strict=True)
        )

    @property
    def trajectory(self) -> Trajectory:
        """What the agents did, of the last scan."""
        return self.visits[-1].trajectory

    @property
    def warnings(self) -> tuple[str, ...]:
        """What the user should know, one line each."""
        lines = [line for visit in self.visits for line in visit.warnings]
        return tuple(dict.fromkeys(lines))

    @property
    def seconds(self) -> float:
        """Wall time."""
        return sum(visit.seconds for visit in self.visits)

    @property
    def confidence(self) -> float | None:
        """Expected share of the points whose error is below 5 mm; None if nobody judged."""
        sure = np.concatenate([visit.confidence[~visit.outside] for visit in self.visits])
        return float(sure.mean()) if len(sure) and np.isfinite(sure).all() else None

    def rows(self) -> list[dict[str, Any]]:
        """A row for each point in each scan."""
        found = []
        for time, detection in zip(self.times, self.detections, strict=True):
            for point in detection.landmarks:
                gone = point.status == "absent"
                x, y, z = (None if gone else float(one) for one in point.position_world)
                sure = None if gone or np.isnan(point.confidence) else point.confidence
                found.append(
                    {
                        **{"name": point.name, "x": x, "y": y, "z": z, "time": time},
                        "status": point.status,
                        "confidence": sure,
                    }
                )
        return found

    def findings(self) -> list[Finding]:
        """The points in the last scan."""
        visit = self.visits[-1]
        there = ~visit.outside
        names = tuple(name for name, own in zip(visit.names, there, strict=True) if own)
        return [Points(names, visit.points_world[there], visit.confidence[there])]

    def save(
        self,
        folder: str | Path,
        stem: str | None = None,
        *,
        picture: bool = True,
        pseudonyms: Pseudonyms | None = None,
        **_: Any,
    ) -> dict[str, Path]:
        """Write everything there is to keep, all of it or nothing.

        ``<stem>.mrk.json`` holds the points for 3D Slicer (of a film ``<stem>.timeN.mrk.json`` for
        each time), ``<stem>.csv`` all of them, ``<stem>.trajectory.json`` the agents' paths,
        ``<stem>.png`` a picture; those of a film are of its last time.

        Args:
            folder: Made if missing.
            stem: What the files are called; after the scan if left out.
            picture: Draw the picture.
            pseudonyms: Not used: points hold no identities.

        Returns:
            Paths by kind.

        Raises:
            MedrlError: If they cannot be written.
        """
        from medrl.landmark.picture import draw_detection

        stem = stem or stem_of(Path(file_of(self.scans[-1]) or "scan"))
        files: dict[str, File] = {}
        for time, detection in zip(self.times, self.detections, strict=True):
            there = {
                point.name: point.position_world
                for point in detection.landmarks
                if point.status != "absent"
            }
            part = f".time{time}" if len(self.times) > 1 else ""
            files[f"markups{part}"] = (f"{part}.mrk.json", _markups(there, stem))
        files["table"] = (".csv", lambda path: write_points_csv(path, self.rows()))
        files["trajectory"] = trajectory_file(self.trajectory)
        if picture:
            last = self.detections[-1]
            files["picture"] = picture_file(
                ".png", draw_detection, self.scans[-1], last, title=stem
            )
        return SavedFiles(write_files(prepare_folder(Path(folder)), stem, files))


def track_points(
    follower: Follower,
    data: MetaTensor | Film,
    points: Mapping[str, ArrayLike],
    *,
    earlier: MetaTensor | None,
    progress: Progress | None = None,
    watch: Watch | None = None,
) -> TrackedPoints:
    """Find points again.

    Args:
        follower: With a trained model.
        data: The later scan; or a scan of four dimensions, in whose first time they are marked.
        points: (3,) RAS mm by name.
        earlier: The scan in which they are marked; None of a scan of four dimensions.
        progress: Called with how much is done, and all there is.
        watch: Told of every step.

    Raises:
        MedrlError: If a point is not in the scan in which it is marked.
    """
    places = np.array([np.asarray(one, dtype=np.float64) for one in points.values()])
    how: dict[str, Any] = {"names": list(points), "progress": progress, "watch": watch}
    if isinstance(data, Film):
        scans = [data.scan(number) for number in range(len(data))]
        visits = follower.through_time(scans, places, **how)
        return TrackedPoints(tuple(scans[1:]), tuple(visits), tuple(range(1, len(scans))))
    assert earlier is not None
    return TrackedPoints((data,), (follower.follow(earlier, data, places, **how),), (0,))


def _markups(points: Mapping[str, Any], name: str) -> Any:
    return lambda path: write_markups(path, points, name=name)
