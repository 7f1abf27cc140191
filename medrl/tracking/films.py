"""Objects followed through a film, with the film: what is shown and written."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from monai.data.meta_tensor import MetaTensor
from numpy.typing import NDArray

from medrl.files import prepare_folder, stem_of
from medrl.results import SavedFiles
from medrl.results.artifacts import File, trajectory_file, write_files
from medrl.results.film import Box, grey, write_overlay
from medrl.results.findings import Finding
from medrl.tracking.objects.detections import Detections
from medrl.tracking.objects.detector import find_blobs
from medrl.tracking.objects.follow import FollowSettings, Tracker
from medrl.tracking.objects.tracks import Tracks
from medrl.trajectory import Trajectory, Watch
from medrl.volume.film import Film
from medrl.volume.read import write_nifti

if TYPE_CHECKING:
    from medrl.dicom import Pseudonyms
    from medrl.systems import Progress
    from medrl.tracking.system import TrackOptions


@dataclass(frozen=True, eq=False)
class TrackedFilm:
    """A film and the tracks in it.

    Attributes:
        film: As it was given.
        tracks: What was followed.
    """

    film: Film
    tracks: Tracks

    @property
    def trajectory(self) -> Trajectory:
        """What the agents did."""
        return self.tracks.trajectory or Trajectory("tracking", ())

    @property
    def warnings(self) -> tuple[str, ...]:
        """What the user should know, one line each."""
        return (*map(str, self.film.meta.get("remarks", ())), *self.tracks.warnings)

    @property
    def seconds(self) -> float:
        """Wall time."""
        return self.tracks.seconds

    @property
    def confidence(self) -> None:
        """Nothing is said of the whole; every row of a track has its own."""
        return None

    def rows(self) -> list[dict[str, Any]]:
        """A row for each track."""
        tracks, found = self.tracks, []
        for track, first, last, mother in tracks.spans().tolist():
            mine = tracks.track == track
            found.append(
                {
                    "name": f"track {track}",
                    "first": first,
                    "last": last,
                    "frames": int(mine.sum()),
                    "coasted": int((tracks.detection[mine] < 0).sum()),
                    "mother": mother or None,
                    "confidence": float(tracks.confidence[mine].min()),
                }
            )
        return found

    def findings(self) -> list[Finding]:
        """None that stand still: tracks are in the trajectory."""
        return []

    def boxes(self) -> list[dict[int, Box]]:
        """Boxes of a film of pictures by track, of every frame: left, top, right, bottom."""
        found: list[dict[int, Box]] = [{} for _ in range(len(self.film))]
        for frame, track, box in zip(
            self.tracks.frame, self.tracks.track, self.tracks.box, strict=True
        ):
            (x0, y0, _), (x1, y1, _) = box + 0.5
            found[frame][int(track)] = (float(x0), float(y0), float(x1), float(y1))
        return found

    def masks(self) -> MetaTensor:
        """Labels (T, I, J, K) whose values are the tracks; boxes as ellipsoids."""
        i, j, k = self.film.frames.shape[2:]
        masks = self.tracks.masks(shape=(i, j, k)).astype(np.int32)
        return MetaTensor(torch.from_numpy(masks), affine=torch.from_numpy(self.film.affine))

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

        ``<stem>.tracks.csv`` as in the Multiple Object Tracking Challenge, ``<stem>.res_track.txt``
        as in the Cell Tracking Challenge, ``<stem>.seg.nii.gz`` masks whose values are the tracks,
        ``<stem>.trajectory.json`` the agents' boxes, ``<stem>.webp`` a film of pictures with them.

        Args:
            folder: Made if missing.
            stem: What the files are called; after the film if left out.
            picture: Write the film.
            pseudonyms: Not used: films of pictures hold no identities.

        Returns:
            Paths by kind.

        Raises:
            MedrlError: If they cannot be written.
        """
        stem = stem or stem_of(Path(str(self.film.meta.get("filename_or_obj") or "film")))
        spans = self.tracks.spans().tolist()
        lines = "".join(" ".join(map(str, row)) + "\n" for row in spans)
        files: dict[str, File] = {
            "tracks": (".tracks.csv", self.tracks.write_mot),
            "lineage": (".res_track.txt", lambda path: path.write_text(lines, encoding="utf-8")),
            "mask": (
                ".seg.nii.gz",
                lambda path: write_nifti(path, self.masks(), dtype=np.uint16),
            ),
            "trajectory": trajectory_file(self.trajectory),
        }
        if picture and self.film.flat:
            frames = self.film.frames[..., 0].permute(0, 3, 2, 1).numpy()
            shown: NDArray[np.uint8] = grey(frames)
            files["film"] = (".webp", lambda path: write_overlay(path, shown, boxes=self.boxes()))
        return SavedFiles(write_files(prepare_folder(Path(folder)), stem, files))


def track_film(
    tracker: Tracker,
    film: Film,
    detections: Detections | None,
    options: TrackOptions,
    *,
    earlier: Tracks | None = None,
    corrections: Any = (),
    progress: Progress | None = None,
    watch: Watch | None = None,
) -> TrackedFilm:
    """Follow objects through a film.

    Args:
        tracker: With a trained model.
        film: The film.
        detections: Boxes in its frames; blobs are looked for if None.
        options: How.
        earlier: Tracks that are to be corrected.
        corrections: What a person knows better of them.
        progress: Called with frames done and all frames.
        watch: Told of every frame.

    Raises:
        MedrlError: If detections and film do not go together.
    """
    x, y, z = (float(one) for one in film.spacing)
    if detections is None and earlier is None:
        assert options.blob_mm is not None
        detections = find_blobs(film.frames, diameter_mm=options.blob_mm, spacing=(x, y, z))
    if detections is not None:
        t, _, i, j, k = film.frames.shape
        detections.check_fits((t, i, j, k))
    tracks = tracker.follow(
        film.frames,
        detections,
        spacing=(x, y, z),
        affine=torch.from_numpy(film.affine),
        settings=FollowSettings(divides=options.divides, max_gap=options.max_gap),
        tracks=earlier,
        corrections=corrections,
        scan=str(film.meta.get("filename_or_obj") or ""),
        watch=watch,
        progress=progress,
    )
    return TrackedFilm(film, tracks)
