"""Align two scans: the public face of the registration agents."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.data.meta_tensor import MetaTensor
from numpy.typing import ArrayLike, NDArray

from medrl.errors import MedrlError
from medrl.registration.checks import check_pair
from medrl.registration.confidence import features
from medrl.registration.dynamics import RegistrationDynamics
from medrl.registration.model import RegistrationModel
from medrl.registration.refine import refine as refine_transform
from medrl.registration.search import Walk, orientations, search, starting_points
from medrl.registration.similarity import similarity
from medrl.registration.transforms import Kind, move
from medrl.results.provenance import file_of, provenance
from medrl.trajectory import AgentPath, Trajectory, Watch
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
        confidence: Probability, 0 to 1, that the mean error is below 2 mm.
        predicted_error_mm: Mean error to be expected.
        agent_transform_world: (4, 4) the agents' own answer, before refinement.
        refined: Whether it is refined; False too if the scans overlap too little for that, or
            refinement made them less alike, and the agents' own answer was kept.
        path: Every transform that the winning agent passed.
        threshold: Confidence below which the answer is not to be trusted.
    """

    transform_world: NDArray[np.float64]
    kind: Kind
    confidence: float
    predicted_error_mm: float
    agent_transform_world: NDArray[np.float64]
    refined: bool
    path: Trajectory
    threshold: float = 0.5

    @property
    def trusted(self) -> bool:
        """Whether the model stands by its answer."""
        return self.confidence >= self.threshold


@dataclass(frozen=True, eq=False)
class Candidate:
    """An answer that could be given.

    Attributes:
        walk: How an agent came to it.
        center_world: (3,) the pivot of its steps, in fixed space.
        agent_world: (4, 4) where it ended.
        transform_world: (4, 4) after refinement.
        refined: Whether refinement was kept.
        features: See :data:`medrl.registration.confidence.FEATURES`.
    """

    walk: Walk
    center_world: NDArray[np.float64]
    agent_world: NDArray[np.float64]
    transform_world: NDArray[np.float64]
    refined: bool
    features: NDArray[np.float64]


class Registrar:
    """Aligns scans with one trained model.

    >>> from medrl import Registrar
    >>> registrar = Registrar.load("rigid-head")
    >>> registration = registrar.register(fixed, moving)
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

        if device.startswith("cuda") and not torch.cuda.is_available():
            raise MedrlError(f"device {device} is not available here: use --device cpu")
        model, manifest = RegistrationModel.load(find(name_or_dir), device=device)
        return cls(model, manifest=manifest)

    def register(
        self,
        fixed: MetaTensor,
        moving: MetaTensor,
        *,
        transform: Kind = "rigid",
        refine: bool = True,
        fixed_mask: MetaTensor | None = None,
        moving_mask: MetaTensor | None = None,
        initial_world: ArrayLike | None = None,
        watch: Watch | None = None,
    ) -> Registration:
        """Find the transform that brings the moving scan onto the fixed one.

        Agents start in 24 orientations with the scans' centres together, or at the given start.
        If that leads to nothing that can be trusted, others start in the orientations between.

        Args:
            fixed: MetaTensor (1, I, J, K) with its affine (voxel to RAS mm).
            moving: The same; another contrast, pose and field of view.
            transform: What may change.
            refine: End with mutual information (:mod:`medrl.registration.refine`).
            fixed_mask: (1, I, J, K) where the fixed scan counts, on any grid.
            moving_mask: Where the moving scan counts.
            initial_world: (4, 4) fixed world to moving world to start from.
            watch: Told of the agents that are still there at every step
                (:func:`medrl.registration.search.search`); those in the orientations between are
                numbered from 24 on. What it raises ends the registration, and comes out of it.

        Returns:
            The transform and how much it is to be trusted.

        Raises:
            MedrlError: If a scan is not a 3D volume with something to see, a mask leaves nothing,
                or the start is no transform of the kind wanted.
        """
        check_pair(fixed, moving, fixed_mask, moving_mask, transform, initial_world)
        look = partial(
            self.candidates,
            fixed,
            moving,
            transform=transform,
            refine=refine,
            fixed_mask=fixed_mask,
            moving_mask=moving_mask,
            initial_world=initial_world,
            watch=watch,
        )
        confidence = self.model.settings.confidence

        def sure_of(candidate: Candidate) -> float:
            return float("nan") if confidence is None else float(confidence(candidate.features))

        best = look()[0]
        sure = sure_of(best)
        if confidence is not None and initial_world is None and sure < confidence.threshold:
            best = max(best, look(between=True)[0], key=sure_of)
            sure = sure_of(best)
        # Without calibration the network's own word, which is rougher.
        expected = float(
            np.expm1(best.features[1]) if confidence is None else confidence.error_mm(best.features)
        )
        return Registration(
            transform_world=best.transform_world,
            kind=transform,
            confidence=sure,
            predicted_error_mm=expected,
            agent_transform_world=best.agent_world,
            refined=best.refined,
            path=self._trajectory(best, sure, fixed, moving),
            threshold=0.5 if confidence is None else confidence.threshold,
        )

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
        """The most promising answers, the best first.

        Args:
            fixed: See :meth:`register`.
            moving: See there.
            transform: See there.
            refine: See there.
            fixed_mask: See there.
            moving_mask: See there.
            initial_world: See there.
            between: Start in the orientations between the usual ones.
            count: How many at most.
            watch: See there.
        """
        model = self.model
        scans = (model.prepare(fixed, fixed_mask), model.prepare(moving, moving_mask))
        if initial_world is None:
            centers = (torch.from_numpy(scan.center_world) for scan in scans)
            starts = starting_points(*centers, between=between)
        else:
            starts = torch.tensor(np.asarray(initial_world, dtype=np.float64))[None]
        levels = [
            (network, model.dynamics(index, *scans)) for index, network in enumerate(model.networks)
        ]
        walks = search(
            levels,
            starts,
            kind=transform,
            settings=model.settings.search,
            first=len(orientations()) if between else 0,
            watch=watch,
        )[:count]
        found = []
        for walk in walks:
            agent = walk.transforms[-1].numpy()
            final, better = agent, False
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
                    better = self._holds(levels[-1][1], agent, refined)
                    final = refined if better else agent
            around = scans[0].center_world + _AROUND_MM * np.concatenate([np.eye(3), -np.eye(3)])
            apart = apply_affine(final, around) - apply_affine(agent, around)
            moved = float(np.linalg.norm(apart, axis=1).mean())
            said = features(levels, torch.from_numpy(final), moved)
            found.append(Candidate(walk, scans[0].center_world, agent, final, better, said))
        return found

    @staticmethod
    def _holds(
        dynamics: RegistrationDynamics, agent: NDArray[np.float64], refined: NDArray[np.float64]
    ) -> bool:
        """Whether the agents find a refined answer about as good as their own, or better."""
        both = torch.from_numpy(np.stack([agent, refined]))
        own, other = similarity(dynamics.fixed, dynamics.look_moving(both)).tolist()
        return bool(other >= _HOLDS * own)

    def _trajectory(
        self, candidate: Candidate, confidence: float, fixed: MetaTensor, moving: MetaTensor
    ) -> Trajectory:
        """Where the agent brought the middle of the fixed scan at each step."""
        walk = candidate.walk
        middle = torch.from_numpy(candidate.center_world)[None]
        agent = AgentPath(
            name="moving scan",
            start=walk.start,
            positions_world=move(walk.transforms, middle)[:, 0].numpy(),
            scales_mm=walk.spacings.double().numpy(),
            actions=np.full(len(walk.errors), -1),
            values=-walk.errors.numpy(),
            value_unit="mm",
            outcome="best of its walk",
            confidence=None if np.isnan(confidence) else confidence,
            transforms=walk.transforms.numpy(),
        )
        made_by = provenance(self.manifest, fixed, moving=file_of(moving))
        return Trajectory("registration", (agent,), made_by)
