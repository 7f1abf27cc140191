"""Find landmarks in a scan: the public face of the landmark agents."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from monai.data.meta_tensor import MetaTensor
from numpy.typing import ArrayLike

from medrl.bundles.guard import doubted, not_made_for
from medrl.errors import MedrlError
from medrl.landmark.candidates import Array, Candidates, Status
from medrl.landmark.detection import DOUBTFUL, Detection, Landmark, warnings_of
from medrl.landmark.judging import load_model
from medrl.results.provenance import provenance
from medrl.systems import Progress, check_device
from medrl.trajectory import AgentPath, Trajectory
from medrl.trajectory.live import Watch
from medrl.volume.boxes import crop_to_box
from medrl.volume.read import read
from medrl.volume.space import as_box, depth_inside

if TYPE_CHECKING:
    from medrl.landmark.judging import Model

#: Of the validation landmarks that the prior placed, two in five were within 4 mm.
_CORRECTED_AT_MOST = 0.4
#: How near to a face of the scan a doubtful answer counts as a landmark beyond it, in voxels of the
#: finest scale. So much is seen around a box: with less, doubtful landmarks in it would be absent.
_NEAR_FACE = 10.0
#: No scan of a patient is turned by so much from what its header says, unless that is wrong.
_ODD_TURN_DEG = 60.0
#: How reasons begin that speak of another contrast (:class:`medrl.bundles.guard.Guard`).
_CONTRAST = "contrast"


class LandmarkDetector:
    """Finds the landmarks of one trained model in scans.

    >>> from medrl import LandmarkDetector
    >>> detector = LandmarkDetector.load("brain-t1")
    >>> detection = detector.detect(scan)
    >>> detection["Putamen_L_centroid"].position_world
    """

    def __init__(
        self,
        model: Model,
        *,
        manifest: dict[str, Any] | None = None,
        otherwise: Callable[[], LandmarkDetector] | None = None,
    ) -> None:
        """Use a model that is in memory already.

        Args:
            model: The trained agents.
            manifest: The bundle's ``model.json``, for provenance.
            otherwise: Makes the detector that gets the scans for which this model was not made;
                called when there is one.
        """
        self.model = model
        self.manifest = manifest or {"name": "unnamed"}
        self._infer = model.inference(name=str(self.manifest.get("name")))
        self._near_face_mm = _NEAR_FACE * model.settings.spacings[0]
        self._otherwise = None if otherwise is None else cache(otherwise)

    @classmethod
    def load(
        cls, name_or_dir: str | Path, *, device: str = "cpu", alone: bool = False
    ) -> LandmarkDetector:
        """Load a model that ships with medrl by its name, or any bundle folder.

        Args:
            name_or_dir: For example ``brain-t1``, or a path.
            device: Torch device: ``cpu``, ``cuda``, ``cuda:1``.
            alone: A model may name another that knows the same landmarks and gets the scans that it
                was itself not made for, as ``brain-t1`` names ``head-any``. Alone, it searches all.

        Returns:
            A detector, ready to use; loading takes a fraction of a second.

        Raises:
            MedrlError: If there is no such model, it is damaged, or the device is not there.
        """
        from medrl.bundles import find

        check_device(device)
        model, manifest = load_model(find(name_or_dir), device=device)
        name = None if alone else manifest.get("otherwise")
        otherwise = None if name is None else partial(cls.load, name, device=device, alone=True)
        return cls(model, manifest=manifest, otherwise=otherwise)

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
        scan: str | Path | MetaTensor,
        *,
        landmarks: Sequence[str] | None = None,
        box: ArrayLike | None = None,
        progress: Progress | None = None,
        watch: Watch | None = None,
    ) -> Detection:
        """Find landmarks.

        All agents start at the centre of what they see of the scan. The agents of all landmarks are
        run even if only some are asked for: the shape prior needs them, and together they cost
        little more.

        Args:
            scan: A file or folder (:func:`medrl.volume.read`), or a MetaTensor (1, I, J, K) with a
                voxel-to-world affine (RAS mm); any orientation, spacing and field of view.
            landmarks: Which to report; all if left out.
            box: (2, 3) RAS mm, smallest and largest coordinates of where to search: the agents see
                the scan cut to it, with 20 mm around, and landmarks outside it are absent.
            progress: Called with the agents that have ended and their number.
            watch: Called at every step with the agents of the landmarks asked for; those that
                search a second time do so as start 1. What it raises ends the search and comes out.

        Returns:
            Positions in RAS mm with status and confidence, and the paths.

        Raises:
            MedrlError: If the scan cannot be read, or cannot be what the model was trained for
                (several channels, one slice, constant, wrong modality), a landmark's name is
                unknown, or the box is none or outside the scan.
        """
        names = self.check(landmarks)
        (found,) = self._detect([scan], names, [box], progress=progress, watch=watch)
        if isinstance(found, MedrlError):
            raise found
        return found

    def detect_many(
        self,
        scans: Sequence[str | Path | MetaTensor],
        *,
        landmarks: Sequence[str] | None = None,
        boxes: Sequence[ArrayLike | None] | None = None,
        batch_size: int = 8,
    ) -> list[Detection | MedrlError]:
        """Find landmarks in many scans, the agents of several at a time in shared batches.

        The answers are those of :meth:`detect`, up to the rounding of sums over batches of other
        sizes. On a GPU it takes much less time; on a CPU hardly.

        Args:
            scans: As for :meth:`detect`, of any shapes.
            landmarks: Which to report; all if left out.
            boxes: Where to search in each scan, as for :meth:`detect`; None for all of it.
            batch_size: How many scans are searched at the same time; what bounds the memory.

        Returns:
            For each scan its detection, or why there is none. The seconds of scans that were
            searched together are shared out equally among them.

        Raises:
            MedrlError: If a landmark's name is unknown, there is not a box a scan, or `batch_size`
                is less than 1.
        """
        names = self.check(landmarks)
        boxes = [None] * len(scans) if boxes is None else boxes
        if len(boxes) != len(scans):
            raise MedrlError(f"there must be a box, or None, a scan: {len(boxes)} for {len(scans)}")
        if batch_size < 1:
            raise MedrlError(f"at least one scan must be searched at a time, not {batch_size}")
        return [
            found
            for part in (slice(n, n + batch_size) for n in range(0, len(scans), batch_size))
            for found in self._detect(scans[part], names, boxes[part])
        ]

    def candidates(self, scan: MetaTensor) -> Candidates:
        """Run the agents and the shape prior, without judging how sure the answers are.

        Args:
            scan: As for :meth:`detect`.

        Returns:
            Answers and evidence for all landmarks of the model.

        Raises:
            MedrlError: As :meth:`detect`.
        """
        (found,) = self._infer([scan])
        found = self._surer(found, ())
        if isinstance(found, MedrlError):
            raise found
        return found

    def check(self, landmarks: Sequence[str] | None) -> tuple[str, ...]:
        """Names of the landmarks that are to be reported: those asked for, or all.

        Raises:
            MedrlError: If one is unknown.
        """
        unknown = sorted(set(landmarks or ()) - set(self.model.names))
        if unknown:
            raise MedrlError(
                f"the model does not know {', '.join(unknown)}; "
                f"it knows {', '.join(self.model.names)}"
            )
        return tuple(landmarks or self.model.names)

    # ---------------------------------------------------------------------------------------------

    def _detect(
        self,
        scans: Sequence[str | Path | MetaTensor],
        names: Sequence[str],
        boxes: Sequence[ArrayLike | None],
        *,
        progress: Progress | None = None,
        watch: Watch | None = None,
    ) -> list[Detection | MedrlError]:
        """Search scans at the same time, and say how sure each answer is."""
        volumes = [_volume(scan) for scan in scans]
        began = time.perf_counter()
        seen = [
            _seen(volume, box, self._near_face_mm)
            for volume, box in zip(volumes, boxes, strict=True)
        ]
        usable = [volume for volume in seen if isinstance(volume, MetaTensor)]
        searched = self._infer(usable, record=names, progress=progress, watch=watch)
        several = iter(self._surer(one, names) for one in searched)
        found = [
            part if isinstance(part, MedrlError) else self._judged(next(several), names, scan, box)
            for part, scan, box in zip(seen, volumes, boxes, strict=True)
        ]
        found = [
            self._instead(one, scan, names, box)
            for one, scan, box in zip(found, volumes, boxes, strict=True)
        ]
        seconds = (time.perf_counter() - began) / max(1, len(usable))
        return [
            one if isinstance(one, MedrlError) else replace(one, seconds=seconds) for one in found
        ]

    def _instead(
        self,
        found: Detection | MedrlError,
        scan: MetaTensor | MedrlError,
        names: Sequence[str],
        box: ArrayLike | None,
    ) -> Detection | MedrlError:
        """What the other model finds, if it was made for a scan for which this one was not."""
        if isinstance(scan, MedrlError) or self._otherwise is None:
            return found
        why = (str(found),) if isinstance(found, MedrlError) else found.unfit
        # A T1 head that is only noisy, cut or of another size is not better known to the other one.
        if not isinstance(found, MedrlError) and not any(r.startswith(_CONTRAST) for r in why):
            return found
        other = self._otherwise() if why else self
        if other is self or not set(names) <= set(other.model.names):
            return found
        (instead,) = other._detect([scan], names, [box])
        if isinstance(instead, MedrlError) or instead.unfit:
            return found
        if (instead.confidence or 0.0) < DOUBTFUL:
            return found
        mine, its = self.manifest["name"], other.manifest["name"]
        line = f"searched by {its}, as {mine} is for other scans: {'; '.join(why)}"
        return replace(instead, warnings=(line, *instead.warnings), instead=why)

    def _judged(
        self,
        candidates: Candidates | MedrlError,
        names: Sequence[str],
        scan: MetaTensor | MedrlError,
        box: ArrayLike | None,
    ) -> Detection | MedrlError:
        """Say how sure the answers are; how long it took is not known yet."""
        if isinstance(candidates, MedrlError) or isinstance(scan, MedrlError):
            return candidates if isinstance(candidates, MedrlError) else scan
        sure = self._confidence(candidates)
        unfit = self._unfit(candidates, sure)
        # A doubtful answer near a face is most often a landmark beyond it.
        seen, positions = candidates.scan, candidates.positions_world
        depth = depth_inside(positions, seen.affine, tuple(seen.shape[1:]))
        beyond = (sure < DOUBTFUL) & (depth < self._near_face_mm)
        if box is not None:
            low, high = as_box(box)
            beyond |= ((positions < low) | (positions > high)).any(axis=1)
        statuses: list[Status] = [
            "absent" if far else status
            for far, status in zip(beyond, candidates.status, strict=True)
        ]
        sure[[status == "absent" for status in statuses]] = 0.0
        if unfit:
            sure = np.array([doubted(one, threshold=DOUBTFUL) for one in sure])
        landmarks = tuple(
            Landmark(name, positions[k], statuses[k], float(sure[k]), candidates.notes[k])
            for name in names
            for k in [self.model.names.index(name)]
        )
        made_by = provenance(
            self.manifest,
            scan,
            windows=candidates.windows,
            window_voxels=self.model.settings.window,
        )
        agents = tuple(_with_answer(candidates.paths[lm.name], lm) for lm in landmarks)
        trajectory = Trajectory("landmark", agents, made_by)
        lines = [not_made_for(str(self.manifest.get("name")), unfit)] if unfit else []
        lines += [str(remark) for remark in scan.meta.get("remarks", ())]
        if candidates.turned_deg > _ODD_TURN_DEG:
            lines.append(
                f"what is seen lies turned by {candidates.turned_deg:.0f} degrees from what the "
                "header says: the anatomy is believed, left is its left"
            )
        lines += warnings_of(landmarks, "this scan's field of view" if box is None else "the box")
        return Detection(landmarks, trajectory, tuple(lines), math.nan, scan, unfit)

    def _surer(
        self, candidates: Candidates | MedrlError, names: Sequence[str]
    ) -> Candidates | MedrlError:
        """What was found, or what is when the scan is searched as it lies, if that is surer."""
        if isinstance(candidates, MedrlError) or candidates.pose_sure:
            return candidates
        (other,) = self._infer([candidates.scan], record=names, as_given=True)
        if isinstance(other, MedrlError):
            return candidates
        mine, its = (
            np.nansum(self._confidence(one)[[status != "absent" for status in one.status]])
            for one in (candidates, other)
        )
        return other if its > mine else candidates

    def _confidence(self, candidates: Candidates) -> Array:
        """How sure each answer is, (K,), before anything is known of the scan as a whole."""
        sure = np.full(len(candidates.status), np.nan)
        if self.model.confidence is not None:
            sure = self.model.confidence(candidates.features)
        corrected = np.array([status == "corrected" for status in candidates.status])
        return np.where(corrected, np.minimum(sure, _CORRECTED_AT_MOST), sure)

    def _unfit(self, candidates: Candidates, sure: Array) -> tuple[str, ...]:
        """Why the model was not made for a scan: what it is like, and what the encoder sees.

        Of another contrast is also a scan where things have another brightness and the answers
        (confidence of each in `sure`) are doubtful for the most part.
        """
        guard, familiarity = self.model.guard, self.model.familiarity
        if guard is None:
            return ()
        reasons = guard.reasons(candidates.seen)
        there = np.array([status != "absent" for status in candidates.status])
        if not reasons and familiarity is not None and there.any():
            strangeness = float(np.median(candidates.strangeness[there]))
            doubtful = float(np.median(sure[there])) < DOUBTFUL
            if strangeness > familiarity.limit or doubtful:
                share = strangeness / familiarity.limit
                # Of heads that were laid straight only a part is seen; training saw all of them.
                frame = self.model.frame
                whole = frame is None or frame.template is None
                reasons = (guard.unfamiliar(candidates.scan if whole else candidates.seen, share),)
        return reasons


def _volume(scan: str | Path | MetaTensor) -> MetaTensor | MedrlError:
    """A scan that is in memory, or is read; or why it cannot be."""
    if isinstance(scan, MetaTensor):
        return scan
    try:
        return read(scan)
    except MedrlError as error:
        return error


def _seen(
    scan: MetaTensor | MedrlError, box: ArrayLike | None, margin_mm: float
) -> MetaTensor | MedrlError:
    """What the agents see of a scan; or why there is nothing."""
    if isinstance(scan, MedrlError) or box is None:
        return scan
    try:
        return crop_to_box(scan, box, margin_mm)
    except MedrlError as error:
        return error


def _with_answer(path: AgentPath, landmark: Landmark) -> AgentPath:
    confidence = None if np.isnan(landmark.confidence) else landmark.confidence
    return replace(
        path,
        outcome=f"{landmark.status} ({path.outcome})",
        confidence=confidence,
        answer_world=landmark.position_world,
    )
