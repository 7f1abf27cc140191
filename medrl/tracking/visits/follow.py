"""Find in a later scan what was marked in an earlier one: the public face."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from monai.data.meta_tensor import MetaTensor
from numpy.typing import ArrayLike, NDArray

from medrl.agents import Recorder
from medrl.agents.rollout import Transition
from medrl.errors import MedrlError
from medrl.results.provenance import provenance
from medrl.systems import Progress, check_device
from medrl.tracking.visits.dynamics import Pair, VisitDynamics, VisitState
from medrl.tracking.visits.field import Field, surface_of_box
from medrl.tracking.visits.model import VisitModel
from medrl.tracking.visits.start import Start, register, tidy
from medrl.tracking.visits.support import support_points
from medrl.tracking.visits.walk import Walked, features, first_rows, walk, walk_back
from medrl.trajectory import Trajectory, Watch
from medrl.volume.pyramid import Pyramid, build_pyramid
from medrl.volume.space import apply_affine, as_affine, as_box, inside, same_grid, voxel_to_world
from medrl.volume.validation import check_volume

Array = NDArray[np.float64]

#: Confidence below which a point is warned about.
DOUBTFUL = 0.5
#: Points on a mask that agents of their own are given.
_MASK_POINTS = 60


@dataclass(frozen=True, eq=False)
class Followed:
    """Points of an earlier scan in a later one.

    Attributes:
        names: Of the N points.
        points_world: (N, 3) RAS mm in the later scan.
        confidence: (N,) probability that each is within 5 mm of the truth; NaN where the model
            was never calibrated.
        start_world: (N, 3) RAS mm, where the registration had put them.
        outside: (N,) bool, the point lies outside the later scan.
        field: From anywhere in the earlier world near the points to the later one.
        trajectory: What the agents of the points did.
        warnings: One line each.
        seconds: What it took.
    """

    names: tuple[str, ...]
    points_world: Array
    confidence: Array
    start_world: Array
    outside: NDArray[np.bool_]
    field: Field
    trajectory: Trajectory
    warnings: tuple[str, ...]
    seconds: float


@dataclass(frozen=True, eq=False)
class _Seen:
    """A scan made ready for agents."""

    scan: MetaTensor
    pyramid: Pyramid


class Follower:
    """Follows points, boxes and masks from one scan of a patient to others.

    >>> from medrl.tracking.visits.follow import Follower
    >>> follower = Follower.load("visits")
    >>> follower.follow(earlier, later, points_world).points_world
    """

    def __init__(self, model: VisitModel, *, manifest: dict[str, Any] | None = None) -> None:
        """Use a model that is in memory already."""
        self.model = model
        self.manifest = manifest or {"name": "unnamed"}

    @classmethod
    def load(cls, name_or_dir: str | Path = "visits", *, device: str = "cpu") -> Follower:
        """Load a model that ships with medrl by its name, or any bundle folder.

        Raises:
            MedrlError: If there is no such model, it is damaged, or the device is not there.
        """
        from medrl.bundles import find

        check_device(device)
        model, manifest = VisitModel.load(find(name_or_dir))
        return cls(model, manifest=manifest)

    def follow(
        self,
        earlier: MetaTensor,
        later: MetaTensor,
        points_world: ArrayLike,
        *,
        names: Sequence[str] | None = None,
        start: Start | None = None,
        progress: Progress | None = None,
        watch: Watch | None = None,
    ) -> Followed:
        """Find points again.

        Args:
            earlier: MetaTensor (1, I, J, K) in which they are marked, voxel to RAS mm.
            later: MetaTensor (1, I', J', K') of the same patient.
            points_world: (N, 3) RAS mm in the earlier scan.
            names: Of the points; ``p1`` to ``pN`` if left out.
            start: A registration to begin from; made if left out.
            progress: Called with how much is done of how much.
            watch: Told of every step of the points' agents.

        Returns:
            Where they are.

        Raises:
            MedrlError: If a scan is unusable, a point is not finite or not in the earlier scan, or
                names are not N different ones.
        """
        began = time.perf_counter()
        points, labels = self._checked(earlier, points_world, names)
        tell = progress or _silent
        tell(0, 4)
        start = start or register(earlier, later)
        tell(1, 4)
        one, two = self._seen(earlier), self._seen(later)
        team = self._team(one, points)
        pair = Pair(one.pyramid, two.pyramid, start.affine_world)
        record = _Record(labels, watch)
        walked = self._walk(pair, team, on_step=record)
        tell(3, 4)
        confidence = self._confidence(pair, walked)
        tell(4, 4)
        source = provenance(self.manifest, earlier)
        return self._answer(two, walked, confidence, record.trajectory(source), labels, began)

    def follow_box(
        self, earlier: MetaTensor, later: MetaTensor, box_world: ArrayLike, **options: Any
    ) -> tuple[Array, Followed]:
        """Carry a box along.

        Args:
            earlier: MetaTensor (1, I, J, K).
            later: MetaTensor (1, I', J', K').
            box_world: (2, 3) RAS mm, lowest and highest corner.
            **options: As :meth:`follow` takes.

        Returns:
            The box (2, 3) in the later scan, and what its agents found.

        Raises:
            MedrlError: As :meth:`follow`; if it is no box, or not in the scan.
        """
        box = as_box(box_world)
        points = surface_of_box(box)
        within = inside(points, earlier.affine, tuple(earlier.shape[1:]))
        if not within.any():
            raise MedrlError("the box does not lie in the earlier scan")
        found = self.follow(earlier, later, points[within], **options)
        return found.field.carry_box(box), found

    def follow_mask(
        self, earlier: MetaTensor, later: MetaTensor, mask: MetaTensor, **options: Any
    ) -> tuple[MetaTensor, Followed]:
        """Carry a mask along.

        Args:
            earlier: MetaTensor (1, I, J, K).
            later: MetaTensor (1, I', J', K').
            mask: MetaTensor (1, I, J, K) on the grid of the earlier scan, above 0 inside.
            **options: As :meth:`follow` takes.

        Returns:
            The mask on the later scan's grid, uint8, and what its agents found.

        Raises:
            MedrlError: As :meth:`follow`; if the mask is empty or on another grid.
        """
        shape = tuple(earlier.shape[1:])
        if tuple(mask.shape[1:]) != shape or not same_grid(mask.affine, earlier.affine, shape):
            raise MedrlError("the mask is not on the grid of the earlier scan")
        voxels = np.argwhere(mask.as_tensor()[0].numpy() > 0)
        if not len(voxels):
            raise MedrlError("the mask is empty: there is nothing to follow")
        chosen = voxels[:: max(1, len(voxels) // _MASK_POINTS)]
        points = voxel_to_world(chosen, as_affine(earlier.affine))
        found = self.follow(earlier, later, points, **options)
        return found.field.carry_mask(mask, later), found

    def through_time(
        self,
        frames: Sequence[MetaTensor],
        points_world: ArrayLike,
        *,
        names: Sequence[str] | None = None,
        progress: Progress | None = None,
        watch: Watch | None = None,
    ) -> list[Followed]:
        """Find points of the first frame of a 4D scan in all the others.

        Frames share one world, so nothing is registered. Each frame is compared with the first;
        agents begin once where the points were in the first frame and once where they were in the
        one before, and the end at which scans are more alike counts.

        Args:
            frames: T scans, MetaTensor (1, I, J, K) each.
            points_world: (N, 3) RAS mm in the first frame.
            names: Of the points; ``p1`` to ``pN`` if left out.
            progress: Called with how many frames are done of how many.
            watch: Told of every step of the points' agents.

        Returns:
            T - 1 answers, for the second frame and those after it.

        Raises:
            MedrlError: As :meth:`follow`; if there are fewer than two frames.
        """
        if len(frames) < 2:
            raise MedrlError("points are followed through two frames or more")
        points, labels = self._checked(frames[0], points_world, names)
        tell = progress or _silent
        first = self._seen(frames[0])
        team = self._team(first, points)
        found: list[Followed] = []
        before = np.zeros_like(team)
        for number, frame in enumerate(frames[1:], start=1):
            began = time.perf_counter()
            tell(number - 1, len(frames) - 1)
            seen = self._seen(frame)
            pair = Pair(first.pyramid, seen.pyramid, np.eye(4))
            record = _Record(labels, watch)
            walked = self._walk(pair, team, on_step=record)
            if np.abs(before).max() > 0.5 * self.model.settings.spacings[0]:
                walked = walked.choose(self._walk(pair, team, displacement=before))
            before = walked.displacement
            confidence = self._confidence(pair, walked)
            path = record.trajectory(provenance(self.manifest, frame))
            found.append(self._answer(seen, walked, confidence, path, labels, began))
        tell(len(frames) - 1, len(frames) - 1)
        return found

    def _checked(
        self, earlier: MetaTensor, points_world: ArrayLike, names: Sequence[str] | None
    ) -> tuple[Array, list[str]]:
        check_volume(earlier)
        points = np.asarray(points_world, dtype=np.float64)
        if points.ndim != 2 or points.shape[1:] != (3,) or not len(points):
            raise MedrlError(f"points must be (N, 3) in mm, not of shape {points.shape}")
        if not np.isfinite(points).all():
            raise MedrlError("the points to follow must be finite")
        labels = [f"p{n}" for n in range(1, len(points) + 1)] if names is None else list(names)
        if len(labels) != len(points) or len(set(labels)) != len(labels):
            raise MedrlError(f"{len(points)} points need as many different names")
        within = inside(points, earlier.affine, tuple(earlier.shape[1:]))
        if not within.all():
            missing = labels[int(np.argmin(within))]
            raise MedrlError(f"the point {missing!r} does not lie in the earlier scan")
        return points, labels

    def _seen(self, scan: MetaTensor) -> _Seen:
        check_volume(scan)
        return _Seen(scan, build_pyramid(tidy(scan), spacings=self.model.settings.spacings))

    def _team(self, seen: _Seen, points: Array) -> Array:
        """The points asked, then those that support them."""
        settings = self.model.settings
        more = support_points(
            seen.pyramid,
            points,
            count=settings.support,
            reach_mm=settings.reach_mm,
            level=min(1, len(settings.spacings) - 1),
        )
        return np.concatenate([points, more])

    def _walk(
        self,
        pair: Pair,
        points: Array,
        *,
        displacement: Array | None = None,
        on_step: Callable[[Transition[VisitState], VisitDynamics], None] | None = None,
    ) -> Walked:
        settings = self.model.settings
        return walk(
            pair,
            points,
            view=settings.view,
            policy=self.model.policy(),
            neighbours=settings.neighbours,
            displacement=displacement,
            on_step=on_step,
        )

    def _confidence(self, pair: Pair, walked: Walked) -> Array:
        """Probability (N,) for the whole team."""
        settings = self.model.settings
        if self.model.confidence is None:
            return np.full(len(walked.points_world), np.nan)
        back = walk_back(
            pair,
            walked,
            view=settings.view,
            policy=self.model.policy(),
            neighbours=settings.neighbours,
        )
        return self.model.confidence(features(walked, back))

    def _answer(
        self,
        seen: _Seen,
        walked: Walked,
        confidence: Array,
        trajectory: Trajectory,
        names: list[str],
        began: float,
    ) -> Followed:
        count = len(names)
        found = walked.later_world[:count]
        outside = ~inside(found, seen.scan.affine, tuple(seen.scan.shape[1:]))
        warnings = [f"{names[k]}: outside the later scan" for k in np.flatnonzero(outside)]
        doubtful = np.flatnonzero((confidence[:count] < DOUBTFUL) & ~outside)
        warnings += [
            f"{names[k]}: may be more than 5 mm off (confidence {confidence[k]:.2f})"
            for k in doubtful
        ]
        weight = np.where(np.isnan(confidence), 1.0, confidence).clip(0.01, 1.0)
        field = Field(walked.points_world, walked.displacement, weight, walked.start_world)
        return Followed(
            tuple(names),
            found,
            confidence[:count],
            apply_affine(walked.start_world, walked.points_world[:count]),
            outside,
            field,
            trajectory,
            tuple(warnings),
            time.perf_counter() - began,
        )


class _Record:
    """Takes down what the agents of the points asked do, not those of the support."""

    def __init__(self, names: list[str], watch: Watch | None) -> None:
        self._names = names
        self._watch = watch
        self._recorder: Recorder | None = None

    def __call__(self, transition: Transition[VisitState], dynamics: VisitDynamics) -> None:
        if self._recorder is None:
            self._recorder = Recorder(
                dynamics, self._names, value_unit="minus dissimilarity", watch=self._watch
            )
        self._recorder(first_rows(transition, len(self._names)))

    def trajectory(self, source: dict[str, str | int | float]) -> Trajectory:
        """The record, once the walk has ended."""
        if self._recorder is None:
            raise MedrlError("nobody has walked")
        return self._recorder.trajectory("tracking", source)


def _silent(done: int, total: int) -> None:
    pass
