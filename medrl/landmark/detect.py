"""Find landmarks in a scan: the public face of the landmark agents."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import torch
from monai.data.meta_tensor import MetaTensor
from numpy.typing import NDArray

import medrl
from medrl.errors import MedrlError
from medrl.landmark.dynamics import LEFT
from medrl.landmark.model import LandmarkModel
from medrl.landmark.paths import in_world, only, paths_of
from medrl.landmark.search import SearchResult, StepRecord
from medrl.landmark.shape import ShapeVerdict
from medrl.trajectory import AgentPath, Trajectory
from medrl.trajectory.live import Watch
from medrl.volume.fitness import check_volume, in_hounsfield
from medrl.volume.pyramid import Pyramid, build_pyramid
from medrl.volume.space import depth_inside, voxel_to_world, world_to_voxel

Array = NDArray[np.float64]
Status = Literal["found", "absent", "corrected", "by hand"]

#: A detection this unlikely to be right is worth a warning.
_DOUBTFUL = 0.5
#: Of the validation landmarks that the prior placed, two in five were within 4 mm.
_CORRECTED_AT_MOST = 0.4
#: How near to a face of the scan a doubtful answer counts as a landmark beyond it (mm).
_NEAR_FACE_MM = 20.0
#: A search that ends this near to what the shape prior expects is not an outlier, whatever the
#: Mahalanobis distance says (mm).
_TOLERABLE_MM = 5.0


@dataclass(frozen=True, eq=False)
class Landmark:
    """One landmark of one scan.

    Attributes:
        name: Its name.
        position_world: (3,) RAS mm. For an absent landmark the place, usually outside the scan,
            where its agent ended.
        status: ``found``; ``absent`` (not in this scan's field of view); ``corrected`` (the shape
            prior rejected what the agent found, the position is what the other landmarks expect);
            ``by hand`` (a person put it there).
        confidence: Probability, 0 to 1, that the error is below 4 mm; for an absent landmark,
            that it is truly absent is not judged and this is 0; NaN where nobody judged.
        note: What is unusual, in words; empty if nothing is.
    """

    name: str
    position_world: Array
    status: Status
    confidence: float
    note: str


@dataclass(frozen=True, eq=False)
class Detection:
    """Everything that came out of one scan.

    Attributes:
        landmarks: In the order asked for.
        trajectory: Every agent's path.
        warnings: What the user should know, one line each.
        seconds: Wall time from preprocessing to answer.
    """

    landmarks: tuple[Landmark, ...]
    trajectory: Trajectory
    warnings: tuple[str, ...]
    seconds: float

    def __getitem__(self, name: str) -> Landmark:
        """The landmark of that name."""
        for landmark in self.landmarks:
            if landmark.name == name:
                return landmark
        raise KeyError(name)


@dataclass(frozen=True, eq=False)
class Examination:
    """What the agents found, before anyone says how sure it is; K landmarks of the model.

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


class LandmarkDetector:
    """Finds the landmarks of one trained model in scans.

    >>> from medrl import LandmarkDetector
    >>> detector = LandmarkDetector.load("brain-t1")
    >>> detection = detector.detect(scan)
    >>> detection["Putamen_L_centroid"].position_world
    """

    def __init__(self, model: LandmarkModel, *, manifest: dict[str, Any] | None = None) -> None:
        """Use a model that is in memory already.

        Args:
            model: The trained agents.
            manifest: The bundle's ``model.json``, for provenance.
        """
        self.model = model
        self.manifest = manifest or {"name": "unnamed"}
        self._searcher = model.searcher()

    @classmethod
    def load(cls, name_or_dir: str, *, device: str = "cpu") -> LandmarkDetector:
        """Load a model that ships with medrl by its name, or any bundle folder.

        Args:
            name_or_dir: For example ``brain-t1``, or a path.
            device: Torch device: ``cpu``, ``cuda``, ``cuda:1``.

        Returns:
            A detector, ready to use; loading takes a fraction of a second.

        Raises:
            MedrlError: If there is no such model, it is damaged, or the device is not there.
        """
        from medrl.bundles import find

        if device.startswith("cuda") and not torch.cuda.is_available():
            raise MedrlError(f"device {device} is not available here: use --device cpu")
        model, manifest = LandmarkModel.load(find(name_or_dir), device=device)
        return cls(model, manifest=manifest)

    @property
    def landmark_names(self) -> tuple[str, ...]:
        """Names of all landmarks the model knows."""
        return self.model.names

    @property
    def card(self) -> dict[str, Any]:
        """The model card: training data, licence, intended use."""
        return dict(self.manifest.get("card", {}))

    def detect(
        self,
        scan: MetaTensor,
        *,
        landmarks: Sequence[str] | None = None,
        progress: Callable[[int, int], None] | None = None,
        watch: Watch | None = None,
    ) -> Detection:
        """Find landmarks.

        All agents start at the scan's centre. The agents of all landmarks are run even if only
        some are asked for: the shape prior needs them, and together they cost little more.

        Args:
            scan: MetaTensor (1, I, J, K) with a voxel-to-world affine (RAS mm); any orientation,
                spacing and field of view.
            landmarks: Which to report; all if left out.
            progress: Called with the agents that have ended and their number.
            watch: Called at every step with the agents of the landmarks asked for; those that
                search a second time do so as start 1. What it raises ends the search and comes out.

        Returns:
            Positions in RAS mm with status and confidence, and the paths.

        Raises:
            MedrlError: If the scan cannot be what the model was trained for (several channels,
                one slice, constant, wrong modality), or a landmark's name is unknown.
        """
        began = time.perf_counter()
        names = self._wanted(landmarks)
        exam = self.examine(scan, progress=progress, watch=watch and only(names, watch))
        sure = np.full(len(exam.status), np.nan)
        if self.model.confidence is not None:
            sure = self.model.confidence(exam.features)
        corrected = np.array([said == "corrected" for said in exam.status])
        sure = np.where(corrected, np.minimum(sure, _CORRECTED_AT_MOST), sure)
        # A doubtful answer near a face is most often a landmark beyond it.
        depth = depth_inside(exam.answers_world, scan.affine, tuple(scan.shape[1:]))
        beyond = (sure < _DOUBTFUL) & (depth < _NEAR_FACE_MM)
        status: list[Status] = [
            "absent" if far else said for far, said in zip(beyond, exam.status, strict=True)
        ]
        sure[[said == "absent" for said in status]] = 0.0
        found = tuple(
            Landmark(name, exam.answers_world[k], status[k], float(sure[k]), exam.notes[k])
            for name in names
            for k in [self.model.names.index(name)]
        )
        paths = paths_of(exam.result, exam.pyramid, self.model.names)
        provenance: dict[str, str | int | float] = {
            "scan": str(scan.meta.get("filename_or_obj", "")),
            "model": str(self.manifest.get("name")),
            "medrl": medrl.__version__,
            "windows": exam.result.evaluated,
            "window_voxels": self.model.settings.window,
        }
        agents = tuple(_with_outcome(paths[landmark.name], landmark) for landmark in found)
        trajectory = Trajectory("landmark", agents, provenance)
        return Detection(found, trajectory, _warnings(found), time.perf_counter() - began)

    def examine(
        self,
        scan: MetaTensor,
        *,
        progress: Callable[[int, int], None] | None = None,
        watch: Watch | None = None,
    ) -> Examination:
        """Run the agents and the shape prior, without judging how sure the answers are.

        Args:
            scan: As for :meth:`detect`.
            progress: As for :meth:`detect`.
            watch: As for :meth:`detect`, with the agents of all landmarks.

        Returns:
            Answers and evidence for all landmarks of the model.

        Raises:
            MedrlError: As :meth:`detect`.
        """
        self._refuse_unfit(scan)
        pyramid = self._pyramid(scan)
        count = len(self.model.names)
        center = torch.tensor(pyramid.levels[0].shape[1:], dtype=torch.float32) / 2
        result = self._search(
            pyramid, np.arange(count), center.expand(count, 3), progress=progress, watch=watch
        )
        answers = voxel_to_world(result.answer.cpu().numpy(), pyramid.affines[0])
        shape = tuple(scan.shape[1:])
        # What an agent finds less than half a voxel from a face is as likely beyond it.
        least = self.model.settings.spacings[0] / 2
        present = depth_inside(answers, scan.affine, shape) >= least
        present &= result.status.cpu().numpy() != LEFT
        status: list[Status] = ["found" if there else "absent" for there in present]
        notes = ["" for _ in status]
        features = self._features(result)
        if self.model.shape is not None:
            verdict = self.model.shape.judge(np.where(present[:, None], answers, np.nan))
            features[:, 4] = verdict.surprise
            rejected = verdict.outlier & (verdict.residual_mm > _TOLERABLE_MM)
            for k in np.flatnonzero(rejected):
                answers[k], status[k], notes[k], features[k] = self._second_look(
                    pyramid, int(k), verdict, features[k], watch=watch
                )
                if depth_inside(answers[k], scan.affine, shape) < least:
                    status[k] = "absent"
        return Examination(answers, tuple(status), tuple(notes), features, result, pyramid)

    # ---------------------------------------------------------------------------------------------

    def _wanted(self, landmarks: Sequence[str] | None) -> tuple[str, ...]:
        unknown = sorted(set(landmarks or ()) - set(self.model.names))
        if unknown:
            raise MedrlError(
                f"the model does not know {', '.join(unknown)}; "
                f"it knows {', '.join(self.model.names)}"
            )
        return tuple(landmarks or self.model.names)

    def _refuse_unfit(self, scan: MetaTensor) -> None:
        check_volume(scan)
        if self.model.settings.modality == "MR" and in_hounsfield(scan):
            raise MedrlError(
                "this looks like a CT (values in Hounsfield units), but the model "
                f"{self.manifest.get('name')} was trained on MRI"
            )

    def _pyramid(self, scan: MetaTensor) -> Pyramid:
        prepared = self.model.settings.preprocessing(scan)
        pyramid = build_pyramid(prepared, spacings=self.model.settings.spacings)
        return pyramid.to(self._searcher.device)

    def _search(
        self,
        pyramid: Pyramid,
        landmarks: NDArray[np.int64],
        start: torch.Tensor,
        *,
        level: int | None = None,
        attempt: int = 0,
        progress: Callable[[int, int], None] | None = None,
        watch: Watch | None = None,
    ) -> SearchResult:
        device = self._searcher.device
        landmark = torch.as_tensor(landmarks, device=device)
        names = [self.model.names[k] for k in landmarks]

        def on_step(record: StepRecord) -> None:
            if watch is not None:
                watch(in_world([record], pyramid, names, attempt))

        return self._searcher.run(
            [pyramid],
            scan=torch.zeros_like(landmark),
            landmark=landmark,
            start=start.to(device),
            level=level,
            progress=progress,
            on_step=on_step if watch is not None else None,
        )

    def _features(self, result: SearchResult) -> Array:
        """What the confidence is computed from, one row an agent; the shape column still empty."""
        spacings = np.array(self.model.settings.spacings)
        step_mm = spacings[result.level.cpu().numpy()]
        columns = [
            np.exp(result.log_scale.cpu().numpy()) * step_mm,
            result.spread.cpu().numpy() * step_mm,
            result.jump.cpu().numpy() * spacings[0],
            result.value.cpu().numpy(),
            np.full(len(step_mm), np.nan),
        ]
        return np.stack(columns, axis=1).astype(np.float64)

    def _second_look(
        self,
        pyramid: Pyramid,
        k: int,
        verdict: ShapeVerdict,
        features: Array,
        *,
        watch: Watch | None,
    ) -> tuple[Array, Status, str, Array]:
        """Search again from where the other landmarks expect the rejected one."""
        expected = verdict.expected_world[k]
        away = verdict.residual_mm[k]
        start = torch.from_numpy(world_to_voxel(expected, pyramid.affines[0]))[None]
        level = min(1, len(pyramid.levels) - 1)
        again = self._search(pyramid, np.array([k]), start, level=level, attempt=1, watch=watch)
        answer = voxel_to_world(again.answer.cpu().numpy()[0], pyramid.affines[0])
        distance = float(np.linalg.norm(answer - expected))
        if int(again.status[0]) != LEFT and distance < max(_TOLERABLE_MM, away / 2):
            renewed = self._features(again)[0]
            renewed[4] = verdict.surprise[k] * distance / away
            note = f"first found {away:.0f} mm from where the others expect it; searched again"
            return answer, "found", note, renewed
        note = f"found {away:.0f} mm from where the others expect it; their expectation is given"
        return expected, "corrected", note, features


def _with_outcome(path: AgentPath, landmark: Landmark) -> AgentPath:
    confidence = None if np.isnan(landmark.confidence) else landmark.confidence
    return replace(
        path,
        outcome=f"{landmark.status} ({path.outcome})",
        confidence=confidence,
        answer_world=landmark.position_world,
    )


def _warnings(landmarks: Sequence[Landmark]) -> tuple[str, ...]:
    """Lines about what is not as one would wish."""
    lines = []
    there = [lm for lm in landmarks if lm.status != "absent"]
    absent = [lm.name for lm in landmarks if lm.status == "absent"]
    corrected = [lm.name for lm in landmarks if lm.status == "corrected"]
    doubtful = [lm.name for lm in there if lm.confidence < _DOUBTFUL]
    if not there:
        lines.append("no landmark was found: is this the anatomy the model was trained for?")
    elif absent:
        lines.append(f"not in this scan's field of view: {', '.join(absent)}")
    if corrected:
        lines.append(f"placed by the shape prior, not by an agent: {', '.join(corrected)}")
    if there and len(doubtful) > len(there) / 2:
        lines.append(
            "most landmarks are doubtful: check that the scan shows the anatomy and contrast "
            "that the model was trained for"
        )
    elif doubtful:
        lines.append(f"doubtful, look at them: {', '.join(doubtful)}")
    return tuple(lines)
