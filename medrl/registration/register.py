"""Align two scans: the public face of the registration agents."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.data.meta_tensor import MetaTensor
from numpy.typing import ArrayLike, NDArray

from medrl.bundles.guard import doubted, not_made_for
from medrl.errors import MedrlError
from medrl.files import joint_stem, prepare_folder
from medrl.registration.checks import check_pair, name_of
from medrl.registration.confidence import features, strangeness
from medrl.registration.dynamics import RegistrationDynamics
from medrl.registration.model import RegistrationModel
from medrl.registration.refine import refine as refine_transform
from medrl.registration.results import (
    Also,
    moved_scans,
    registration_report,
    remarks,
    write_results,
)
from medrl.registration.search import Walk, orientations, search, starting_points
from medrl.registration.similarity import similarity
from medrl.registration.transforms import Kind
from medrl.results.provenance import file_of, provenance
from medrl.trajectory import Step, Trajectory, Watch
from medrl.volume.space import apply_affine

#: Where agent and refinement are compared: this far from the centre on each axis.
_AROUND_MM = 70.0
#: Share of the similarity that refinement, which looks at all of the scans and not just at the
#: agents' window, may cost.
_HOLDS = 0.98


@dataclass(frozen=True, eq=False)
class Registration:
    """How two scans fit together.

    Attributes:
        transform_world: (4, 4) fixed world to moving world, RAS mm.
        kind: ``rigid``, ``similarity`` or ``affine``.
        confidence: Probability, 0 to 1, that the mean error is below 2 mm; None if the model is
            not calibrated.
        predicted_error_mm: Mean error to be expected.
        agent_transform_world: (4, 4) the agents' own answer, before refinement.
        refined: Whether it is refined; False too if the scans overlap too little for that, or
            refinement made them less alike, and the agents' own answer was kept.
        trajectory: Every transform that the winning agent passed.
        fixed: The scan that stays, (1, I, J, K).
        moving: The scan that is moved.
        warnings: What the user should know, one line each; the first says so if the model was not
            made for the scans.
        seconds: Wall time from preprocessing to answer.
        threshold: Confidence below which the answer is not to be trusted.
        unfit: Why the model was not made for the scans, one line each; it is not trusted then.
    """

    transform_world: NDArray[np.float64]
    kind: Kind
    confidence: float | None
    predicted_error_mm: float
    agent_transform_world: NDArray[np.float64]
    refined: bool
    trajectory: Trajectory
    fixed: MetaTensor
    moving: MetaTensor
    warnings: tuple[str, ...] = ()
    seconds: float = 0.0
    threshold: float = 0.5
    unfit: tuple[str, ...] = ()
    _report: dict[str, Any] = field(default_factory=dict, init=False, repr=False)

    @property
    def trusted(self) -> bool:
        """Whether the model stands by its answer."""
        return self.confidence is not None and self.confidence >= self.threshold

    @property
    def doubt(self) -> str | None:
        """Why nobody should use it without a look at it, in a few words; None if it is trusted."""
        if self.trusted:
            return None
        sure = "unknown" if self.confidence is None else f"{self.confidence:.2f}"
        return f"NOT TRUSTED: confidence {sure}, predicted error {self.predicted_error_mm:.1f} mm"

    def report(self) -> dict[str, Any]:
        """What :func:`medrl.registration.results.registration_report` says."""
        if not self._report:
            before, after = moved_scans(self)
            self._report.update(registration_report(self, before=before, after=after))
        return dict(self._report)

    def save(
        self,
        folder: str | Path,
        stem: str | None = None,
        *,
        picture: bool = True,
        also: Sequence[Also] = (),
    ) -> dict[str, Path]:
        """Write what there is to keep, all of it or nothing.

        Args:
            folder: Made if missing.
            stem: What the files are called; ``<moving>_to_<fixed>`` if None.
            picture: Draw pictures.
            also: Other forms of the transform: ``ants``, ``fsl``, ``lta``.

        Returns:
            Paths by kind, see :func:`medrl.registration.results.write_results`.

        Raises:
            MedrlError: If they cannot be written.
        """
        prepare_folder(Path(folder))
        if stem is None:
            named = (self.moving, "moving"), (self.fixed, "fixed")
            stem = joint_stem([Path(name_of(*one)) for one in named])
        files, report = write_results(Path(folder), stem, self, also=also, picture=picture)
        self._report.update(report)
        return files


@dataclass(frozen=True, eq=False)
class Candidate:
    """An answer that could be given.

    Attributes:
        walk: How an agent came to it.
        agent_world: (4, 4) where it ended.
        transform_world: (4, 4) after refinement.
        refined: Whether refinement was kept.
        features: See :data:`medrl.registration.confidence.FEATURES`.
        strangeness: How unlike training the scans look, as a share of what is allowed.
    """

    walk: Walk
    agent_world: NDArray[np.float64]
    transform_world: NDArray[np.float64]
    refined: bool
    features: NDArray[np.float64]
    strangeness: float


class Registrar:
    """Aligns scans with one trained model.

    >>> from medrl import Registrar
    >>> registrar = Registrar.load("rigid-head")
    >>> registration = registrar.register("fixed.nii.gz", "moving.nii.gz")
    >>> registration.transform_world, registration.confidence
    """

    def __init__(self, model: RegistrationModel, *, manifest: dict[str, Any] | None = None) -> None:
        """Use a model that is in memory already.

        Args:
            model: The trained agents.
            manifest: The bundle's ``model.json``, for provenance.
        """
        self.model = model
        self.manifest = manifest or {"name": "unnamed"}

    @classmethod
    def load(cls, name_or_dir: str | Path = "rigid-head", *, device: str = "cpu") -> Registrar:
        """Load a model that ships with medrl by its name, or any bundle folder.

        Args:
            name_or_dir: For example ``rigid-head``, or a path.
            device: Torch device: ``cpu``, ``cuda``, ``cuda:1``.

        Raises:
            MedrlError: If there is no such model, it is damaged, or the device is not there.
        """
        from medrl.bundles import find
        from medrl.systems import check_device

        check_device(device)
        model, manifest = RegistrationModel.load(find(name_or_dir), device=device)
        return cls(model, manifest=manifest)

    def register(
        self,
        fixed: str | Path | MetaTensor,
        moving: str | Path | MetaTensor,
        *,
        transform: Kind = "rigid",
        refine: bool = True,
        fixed_mask: str | Path | MetaTensor | None = None,
        moving_mask: str | Path | MetaTensor | None = None,
        initial_world: ArrayLike | None = None,
        progress: Callable[[int, int], None] | None = None,
        watch: Watch | None = None,
    ) -> Registration:
        """Find the transform that brings the moving scan onto the fixed one.

        Agents start in 24 orientations with the scans' centres together, or at the given start.
        If that leads to nothing that can be trusted, others start in the orientations between.

        Args:
            fixed: A file, or a MetaTensor (1, I, J, K) with its affine (voxel to RAS mm).
            moving: The same; another contrast, pose and field of view.
            transform: What may change.
            refine: End with mutual information (:mod:`medrl.registration.refine`).
            fixed_mask: (1, I, J, K) where the fixed scan counts, on any grid.
            moving_mask: Where the moving scan counts.
            initial_world: (4, 4) fixed world to moving world to start from.
            progress: Told of the steps made and the number of steps there may be.
            watch: Told of the agents that are still there at every step
                (:func:`medrl.registration.search.search`); those in the orientations between are
                numbered from 24 on. What it raises ends the registration, and comes out of it.

        Returns:
            The transform and how much it is to be trusted.

        Raises:
            MedrlError: If a scan is not a 3D volume with something to see, a mask leaves nothing,
                or the start is no transform of the kind wanted.
        """
        fixed, moving = _scan(fixed), _scan(moving)
        fixed_seen, moving_seen = (
            None if mask is None else _scan(mask, mask=True) for mask in (fixed_mask, moving_mask)
        )
        began = time.perf_counter()
        check_pair(fixed, moving, fixed_seen, moving_seen, transform, initial_world)
        confidence = self.model.settings.confidence
        again = confidence is not None and initial_world is None
        look = partial(
            self.candidates,
            fixed,
            moving,
            transform=transform,
            refine=refine,
            fixed_mask=fixed_seen,
            moving_mask=moving_seen,
            initial_world=initial_world,
            watch=_Counting(watch, progress, (1 + again) * self.model.steps),
        )

        def confidence_of(candidate: Candidate) -> float:
            return 0.0 if confidence is None else float(confidence(candidate.features))

        best = look()[0]
        if again and confidence is not None and confidence_of(best) < confidence.threshold:
            best = max(best, look(between=True)[0], key=confidence_of)
        unfit = self._unfit(fixed, moving, best)
        sure = None if confidence is None else confidence_of(best)
        if unfit and sure is not None and confidence is not None:
            sure = doubted(sure, threshold=confidence.threshold)
        # Without calibration the network's own word, which is rougher.
        expected = float(
            np.expm1(best.features[1]) if confidence is None else confidence.error_mm(best.features)
        )
        found = Registration(
            transform_world=best.transform_world,
            kind=transform,
            confidence=sure,
            predicted_error_mm=expected,
            agent_transform_world=best.agent_world,
            refined=best.refined,
            trajectory=self._trajectory(best, sure, fixed, moving),
            fixed=fixed,
            moving=moving,
            threshold=0.5 if confidence is None else confidence.threshold,
            unfit=unfit,
        )
        told = [not_made_for(str(self.manifest.get("name")), unfit)] if unfit else []
        told += remarks(fixed, moving, started=initial_world is not None)
        if found.doubt:
            told.append(found.doubt)
        return replace(found, warnings=tuple(told), seconds=time.perf_counter() - began)

    def candidates(
        self,
        fixed: MetaTensor,
        moving: MetaTensor,
        *,
        transform: Kind = "rigid",
        refine: bool = True,
        fixed_mask: MetaTensor | None = None,
        moving_mask: MetaTensor | None = None,
        initial_world: ArrayLike | None = None,
        between: bool = False,
        count: int = 1,
        watch: Watch | None = None,
    ) -> list[Candidate]:
        """The most promising answers, the best first; arguments as :meth:`register` takes them.

        Args:
            fixed: MetaTensor (1, I, J, K).
            moving: MetaTensor (1, I, J, K).
            transform: What may change.
            refine: End with mutual information.
            fixed_mask: Where the fixed scan counts.
            moving_mask: Where the moving scan counts.
            initial_world: (4, 4) to start from.
            between: Start in the orientations between the usual ones.
            count: How many at most.
            watch: Told of every step.
        """
        model = self.model
        scans = (model.prepare(fixed, fixed_mask), model.prepare(moving, moving_mask))
        if initial_world is None:
            centers = (torch.from_numpy(scan.center_world) for scan in scans)
            starts = starting_points(*centers, between=between)
        else:
            starts = torch.tensor(np.asarray(initial_world, dtype=np.float64))[None]
        dynamics = model.dynamics(*scans, kind=transform)
        walks = search(
            dynamics,
            model.networks,
            starts,
            settings=model.settings.search,
            first=len(orientations()) if between else 0,
            watch=watch,
        )[:count]
        found = []
        for walk in walks:
            agent = walk.transform_world.numpy()
            final, refined, better = agent, agent, False
            if refine:
                with suppress(MedrlError):  # without enough overlap the agents' answer stands
                    refined = refine_transform(
                        fixed,
                        moving,
                        agent,
                        kind=transform,
                        fixed_mask=fixed_mask,
                        moving_mask=moving_mask,
                    )
                    better = _holds(dynamics, agent, refined)
                    final = refined if better else agent
            around = scans[0].center_world + _AROUND_MM * np.concatenate([np.eye(3), -np.eye(3)])
            # Kept or not: where the answer is wrong, refinement wanders off.
            apart = apply_affine(refined, around) - apply_affine(agent, around)
            moved = float(np.linalg.norm(apart, axis=1).mean())
            through = torch.from_numpy(final)
            described = features(dynamics, model.networks, through, moved)
            strange = strangeness(dynamics, model.networks, model.familiarity, through)
            found.append(Candidate(walk, agent, final, better, described, strange))
        return found

    def _unfit(self, fixed: MetaTensor, moving: MetaTensor, answer: Candidate) -> tuple[str, ...]:
        """Why the model was not made for two scans: what they are like, and how they look to it."""
        guard = self.model.guard
        if guard is None:
            return ()
        reasons = [
            f"{role} scan, {reason}"
            for role, scan in (("fixed", fixed), ("moving", moving))
            for reason in guard.reasons(scan)
        ]
        if not reasons and answer.strangeness > 1:
            reasons.append(
                "anatomy or pose: where one scan lies on the other, what it sees is "
                f"{answer.strangeness:.1f} times as unlike its training as is allowed"
            )
        return tuple(reasons)

    def _trajectory(
        self, candidate: Candidate, confidence: float | None, fixed: MetaTensor, moving: MetaTensor
    ) -> Trajectory:
        """Where the winning agent brought the middle of the fixed scan at each step."""
        path = replace(candidate.walk.path, name="moving scan", confidence=confidence)
        made_by = provenance(self.manifest, fixed, moving=file_of(moving))
        return Trajectory("registration", (path,), made_by)


class _Counting:
    """Tells how far a registration is, and passes on what its agents do."""

    def __init__(
        self, watch: Watch | None, progress: Callable[[int, int], None] | None, total: int
    ) -> None:
        self._watch = watch
        self._progress = progress
        self._total = total
        self._done = 0

    def __call__(self, step: Step) -> None:
        self._done += 1
        if self._progress is not None:
            self._progress(self._done, self._total)
        if self._watch is not None:
            self._watch(step)


def _holds(
    dynamics: RegistrationDynamics, agent: NDArray[np.float64], refined: NDArray[np.float64]
) -> bool:
    """Whether the agents find a refined answer about as good as their own, or better."""
    both = torch.from_numpy(np.stack([agent, refined])).to(dynamics.pivot)
    pair = torch.zeros(2, dtype=torch.int64, device=both.device)
    own, other = similarity(dynamics.fixed(0, pair), dynamics.look_moving(0, pair, both)).tolist()
    return bool(other >= _HOLDS * own)


def _scan(given: str | Path | MetaTensor, *, mask: bool = False) -> MetaTensor:
    """A scan as it is, or read; what its reader remarks is told with the result."""
    if not isinstance(given, str | Path):
        return given
    from medrl.volume.read import read

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return read(given, allow_constant=mask)
