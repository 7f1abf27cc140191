"""What the agents find in scans and what the shape prior says of it, before anyone judges."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

import numpy as np
import torch
from monai.data.meta_tensor import MetaTensor
from numpy.typing import NDArray

from medrl.errors import MedrlError
from medrl.landmark.dynamics import LEFT
from medrl.landmark.model import LandmarkModel
from medrl.landmark.paths import in_world
from medrl.landmark.search import SearchResult, StepRecord
from medrl.landmark.shape import ShapeVerdict
from medrl.trajectory.live import Watch
from medrl.volume.pyramid import Pyramid, build_pyramid
from medrl.volume.space import depth_inside, voxel_to_world, world_to_voxel
from medrl.volume.validation import check_volume, in_hounsfield

Array = NDArray[np.float64]
Status = Literal["found", "absent", "corrected", "by hand"]

#: A search that ends this near to what the shape prior expects is not an outlier, whatever the
#: Mahalanobis distance says (mm).
_TOLERABLE_MM = 5.0
_OFF = "from where the others expect it"


@dataclass(frozen=True, eq=False)
class Examination:
    """What the agents found in a scan, before anyone says how sure it is; K landmarks of the model.

    Attributes:
        answers_world: (K, 3) RAS mm.
        status: Of each landmark.
        notes: Of each landmark.
        features: (K, F), see :data:`medrl.landmark.confidence.FEATURES`.
        result: The search itself.
        pyramid: What the agents walked in.
    """

    answers_world: Array
    status: tuple[Status, ...]
    notes: tuple[str, ...]
    features: Array
    result: SearchResult
    pyramid: Pyramid


class Examiner:
    """Sends a model's agents through scans, those of several scans in shared batches."""

    def __init__(self, model: LandmarkModel, *, name: str) -> None:
        """Be ready.

        Args:
            model: The trained agents.
            name: What errors call it.
        """
        self.model = model
        self._name = name
        self._searcher = model.searcher()

    def examine(
        self,
        scans: Sequence[MetaTensor],
        *,
        progress: Callable[[int, int], None] | None = None,
        watch: Watch | None = None,
    ) -> list[Examination | MedrlError]:
        """Run the agents and the shape prior.

        Args:
            scans: M of them, each (1, I, J, K) with a voxel-to-world affine (RAS mm).
            progress: Called with the agents that have ended and their number.
            watch: Called at every step with the agents of all landmarks; only for a single scan.

        Returns:
            Answers and evidence for all landmarks of the model, or why a scan cannot be examined;
            in the order of the scans. What one scan is makes no difference to the others.
        """
        prepared = [self._prepared(scan) for scan in scans]
        fit = [n for n, pyramid in enumerate(prepared) if isinstance(pyramid, Pyramid)]
        pyramids = [pyramid for pyramid in prepared if isinstance(pyramid, Pyramid)]
        looks = self._first_look(pyramids, progress, watch)
        drafts = [
            self._draft(scans[n], pyramid, result)
            for n, pyramid, result in zip(fit, pyramids, looks, strict=True)
        ]
        doubts = [doubt for draft in drafts for doubt in draft.doubts()]
        for doubt, result in zip(doubts, self._second_look(doubts, watch), strict=True):
            self._amend(doubt, result)
        examined = dict(zip(fit, drafts, strict=True))
        return [
            pyramid if isinstance(pyramid, MedrlError) else examined[n].done()
            for n, pyramid in enumerate(prepared)
        ]

    @property
    def _nearest_mm(self) -> float:
        """What an agent finds nearer to a face, half a voxel, is as likely beyond it."""
        return self.model.settings.spacings[0] / 2

    def _prepared(self, scan: MetaTensor) -> Pyramid | MedrlError:
        """What agents walk in, or why they cannot."""
        settings = self.model.settings
        try:
            check_volume(scan)
            if settings.modality == "MR" and in_hounsfield(scan):
                raise MedrlError(
                    "this looks like a CT (values in Hounsfield units), but the model "
                    f"{self._name} was trained on MRI"
                )
            pyramid = build_pyramid(settings.preprocessing(scan), spacings=settings.spacings)
        except MedrlError as error:
            return error
        return pyramid.to(self._searcher.device)

    def _first_look(
        self,
        pyramids: Sequence[Pyramid],
        progress: Callable[[int, int], None] | None,
        watch: Watch | None,
    ) -> list[SearchResult]:
        """One agent a landmark in every scan, from its centre; a result for each scan."""
        if not pyramids:
            return []
        count = len(self.model.names)
        centers = torch.tensor([p.levels[0].shape[1:] for p in pyramids], dtype=torch.float32) / 2
        return self._search(
            pyramids,
            scan=torch.arange(len(pyramids)).repeat_interleave(count),
            landmark=torch.arange(count).repeat(len(pyramids)),
            start=centers.repeat_interleave(count, dim=0),
            progress=progress,
            watch=watch,
        ).split()

    def _draft(self, scan: MetaTensor, pyramid: Pyramid, result: SearchResult) -> _Draft:
        """What the agents of one scan found, and what the shape prior says of it."""
        answers = voxel_to_world(result.answer.numpy(), pyramid.affines[0])
        draft = _Draft(scan, pyramid, result, answers, self._features(result))
        present = (draft.depth(answers) >= self._nearest_mm) & (result.status.numpy() != LEFT)
        draft.status = ["found" if there else "absent" for there in present]
        draft.notes = ["" for _ in present]
        if self.model.shape is not None:
            draft.verdict = self.model.shape.judge(np.where(present[:, None], answers, np.nan))
            draft.features[:, 4] = draft.verdict.surprise
        return draft

    def _second_look(self, doubts: Sequence[_Doubt], watch: Watch | None) -> list[SearchResult]:
        """Search again from where the other landmarks expect those that were rejected."""
        if not doubts:
            return []
        starts = [
            world_to_voxel(d.verdict.expected_world[d.landmarks], d.draft.pyramid.affines[0])
            for d in doubts
        ]
        counts = torch.tensor([len(doubt.landmarks) for doubt in doubts])
        return self._search(
            [doubt.draft.pyramid for doubt in doubts],
            scan=torch.arange(len(doubts)).repeat_interleave(counts),
            landmark=torch.from_numpy(np.concatenate([doubt.landmarks for doubt in doubts])),
            start=torch.from_numpy(np.concatenate(starts)),
            level=min(1, len(self.model.settings.spacings) - 1),
            attempt=1,
            watch=watch,
        ).split()

    def _amend(self, doubt: _Doubt, again: SearchResult) -> None:
        """Take what the second look found, or else what the other landmarks expect."""
        draft, verdict = doubt.draft, doubt.verdict
        answers = voxel_to_world(again.answer.numpy(), draft.pyramid.affines[0])
        features = self._features(again)
        for row, k in enumerate(doubt.landmarks):
            expected, away = verdict.expected_world[k], verdict.residual_mm[k]
            distance = float(np.linalg.norm(answers[row] - expected))
            if int(again.status[row]) != LEFT and distance < max(_TOLERABLE_MM, away / 2):
                draft.answers[k], draft.status[k] = answers[row], "found"
                draft.features[k] = features[row]
                draft.features[k, 4] = verdict.surprise[k] * distance / away
                draft.notes[k] = f"first found {away:.0f} mm {_OFF}; searched again"
            else:
                draft.answers[k], draft.status[k] = expected, "corrected"
                draft.notes[k] = f"found {away:.0f} mm {_OFF}; their expectation is given"
            if draft.depth(draft.answers[k]) < self._nearest_mm:
                draft.status[k] = "absent"

    def _search(
        self,
        pyramids: Sequence[Pyramid],
        *,
        scan: torch.Tensor,
        landmark: torch.Tensor,
        start: torch.Tensor,
        level: int | None = None,
        attempt: int = 0,
        progress: Callable[[int, int], None] | None = None,
        watch: Watch | None = None,
    ) -> SearchResult:
        device = self._searcher.device
        names = [self.model.names[k] for k in landmark.tolist()]

        def on_step(record: StepRecord) -> None:
            if watch is not None:
                watch(in_world([record], pyramids[0], names, attempt))

        return self._searcher.run(
            pyramids,
            scan=scan.to(device),
            landmark=landmark.to(device),
            start=start.to(device),
            level=level,
            progress=progress,
            on_step=on_step if watch is not None else None,
        )

    def _features(self, result: SearchResult) -> Array:
        """What the confidence is computed from, one row an agent; the shape column still empty."""
        spacings = np.array(self.model.settings.spacings)
        step_mm = spacings[result.level.numpy()]
        columns = [
            np.exp(result.log_scale.numpy()) * step_mm,
            result.spread.numpy() * step_mm,
            result.jump.numpy() * spacings[0],
            result.value.numpy(),
            np.full(len(step_mm), np.nan),
        ]
        return np.stack(columns, axis=1).astype(np.float64)


@dataclass(eq=False)
class _Draft:
    """An examination under way."""

    scan: MetaTensor
    pyramid: Pyramid
    result: SearchResult
    answers: Array
    features: Array
    status: list[Status] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    verdict: ShapeVerdict | None = None

    def depth(self, points_world: Array) -> Array:
        """How far inside the scan points lie (mm)."""
        return depth_inside(points_world, self.scan.affine, tuple(self.scan.shape[1:]))

    def doubts(self) -> list[_Doubt]:
        """What the shape prior rejects, if there is a prior and anything that it rejects."""
        if self.verdict is None:
            return []
        off = self.verdict.outlier & (self.verdict.residual_mm > _TOLERABLE_MM)
        return [_Doubt(self, self.verdict, np.flatnonzero(off))] if off.any() else []

    def done(self) -> Examination:
        """Nothing more is to be changed."""
        return Examination(
            answers_world=self.answers,
            status=tuple(self.status),
            notes=tuple(self.notes),
            features=self.features,
            result=self.result,
            pyramid=self.pyramid,
        )


class _Doubt(NamedTuple):
    """Landmarks of a scan that the shape prior does not take for what they should be."""

    draft: _Draft
    verdict: ShapeVerdict
    landmarks: NDArray[np.int64]
