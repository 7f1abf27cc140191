"""What the agents find in scans, and what the shape prior makes of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import torch
from monai.data.meta_tensor import MetaTensor
from torch import Tensor

from medrl.agents import Recorder
from medrl.errors import MedrlError
from medrl.landmark.candidates import (
    Array,
    Candidates,
    Preparation,
    Prepared,
    Status,
    of_usable,
)
from medrl.landmark.dynamics import LEFT, SearchDynamics
from medrl.landmark.model import LandmarkModel
from medrl.landmark.network import LandmarkNetwork
from medrl.landmark.parts.maps import fine_look
from medrl.landmark.parts.network import FineNetwork
from medrl.landmark.search import Progress, SearchPolicy, SearchResult, search
from medrl.landmark.shape import ShapeAssessment
from medrl.landmark.turning import Turning
from medrl.trajectory import AgentPath, Recording, Step, Watch
from medrl.volume.space import apply_affine, world_to_voxel

#: A search that ends this near to what the shape prior expects is not an outlier, whatever the
#: Mahalanobis distance says (voxels of the finest scale).
_TOLERABLE = 2.5
_OFF = "from where the others expect it"
#: A fine map that sees a landmark this near to where its agent does counts as much as the agent
#: (voxels of the finest scale); further away it sees something else.
_AGREES = 1.5


class Inference:
    """Sends a model's agents through scans, those of several scans in shared batches."""

    def __init__(self, model: LandmarkModel, *, name: str) -> None:
        """Be ready.

        Args:
            model: The trained agents; its networks are copied.
            name: What errors call it.
        """
        self._model = model
        self._networks = [network.for_inference() for network in model.networks]
        self._tolerable_mm = _TOLERABLE * model.settings.spacings[0]
        turning = None
        if model.frame is not None and model.frame.template is None:
            turning = Turning(
                self._networks, model.settings.spacings, model.settings.window, model.frame.expected
            )
        device = next(self._networks[0].parameters()).device
        self._prepared = Preparation(model, name=name, device=device, turning=turning)

    def __call__(
        self,
        scans: Sequence[MetaTensor],
        *,
        record: Sequence[str] = (),
        progress: Progress | None = None,
        watch: Watch | None = None,
        as_given: bool = False,
    ) -> list[Candidates | MedrlError]:
        """Run the agents and the shape prior.

        Args:
            scans: M of them, each (1, I, J, K) with a voxel-to-world affine (RAS mm).
            record: Landmarks whose agents are recorded and watched.
            progress: Called with the agents that have ended and their number.
            watch: Called at every step with those agents; only for a single scan. Those that
                search a second time do so as start 1.
            as_given: Search scans as they lie, where networks would say how that is.

        Returns:
            Candidates for all landmarks of the model, or why a scan cannot be searched; in the
            order of the scans. What one scan is makes no difference to the others.
        """

        def found(usable: list[Prepared], numbers: list[int]) -> list[Candidates]:
            run = _Run(self._model, self._networks, usable, record, watch)
            return self._candidates(run, [scans[n] for n in numbers], progress)

        prepared = [self._prepared(scan, as_given=as_given) for scan in scans]
        return of_usable(prepared, found)

    def _candidates(
        self, run: _Run, scans: Sequence[MetaTensor], progress: Progress | None
    ) -> list[Candidates]:
        """One agent a landmark in every scan, from its centre; outliers search again."""
        count = len(self._model.names)
        result = run.search(
            scan=torch.arange(len(scans)).repeat_interleave(count),
            landmark=torch.arange(count).repeat(len(scans)),
            start=run.start,
            progress=progress,
        )
        found, outliers = [], []
        for n, scan in enumerate(scans):
            own = result.select(result.state.scan == n)
            positions = run.positions_world(own)
            features = self._features(own)
            present = self._prepared.inside(scan, positions) & (own.state.status.numpy() != LEFT)
            status: list[Status] = ["found" if there else "absent" for there in present]
            unseen = np.full(count, np.nan)
            candidates = Candidates(
                scan, run.seen[n], positions, features, status, [""] * count, unseen
            )
            found.append(candidates)
            if self._model.shape is not None:
                shape = self._model.shape.assess(np.where(present[:, None], positions, np.nan))
                features[:, 4] = shape.mahalanobis
                off = shape.outlier & (shape.residual_mm > self._tolerable_mm)
                outliers += [_Outlier(n, int(k), shape) for k in np.flatnonzero(off)]
        if outliers:
            self._search_again(run, outliers, found)
        if self._model.fine is not None:
            for n, candidates in enumerate(found):
                self._look_again(run, n, candidates, self._model.fine)
        for n, candidates in enumerate(found):
            candidates.strangeness = run.strangeness(n, candidates.positions_world)
            candidates.paths = run.paths(n, result)
            candidates.windows += int(run.policy.windows[n])
            candidates.turned_deg = run.turned_deg[n]
            candidates.pose_sure = run.pose_sure[n]
        return found

    def _search_again(
        self, run: _Run, outliers: Sequence[_Outlier], found: Sequence[Candidates]
    ) -> None:
        """Search from where the other landmarks expect it; take what is found, or else that."""
        expected = np.stack([one.expected_world for one in outliers])
        scan = torch.tensor([one.scan for one in outliers])
        affines = run.dynamics.affines
        start = run.dynamics.to_voxel(
            scan.to(affines.device), torch.from_numpy(expected).to(affines.device)
        )
        result = run.search(
            scan=scan,
            landmark=torch.tensor([one.landmark for one in outliers]),
            start=start,
            level=min(1, run.dynamics.coarsest),
            attempt=1,
        )
        positions, features = run.positions_world(result), self._features(result)
        for row, one in enumerate(outliers):
            candidates, k, away = found[one.scan], one.landmark, one.residual_mm
            distance = float(np.linalg.norm(positions[row] - expected[row]))
            left = int(result.state.status[row]) == LEFT
            if not left and distance < max(self._tolerable_mm, away / 2):
                candidates.positions_world[k], candidates.status[k] = positions[row], "found"
                candidates.features[k] = features[row]
                candidates.features[k, 4] = one.shape.mahalanobis[k] * distance / away
                candidates.notes[k] = f"first found {away:.0f} mm {_OFF}; searched again"
            else:
                candidates.positions_world[k], candidates.status[k] = expected[row], "corrected"
                candidates.notes[k] = f"found {away:.0f} mm {_OFF}; their expectation is given"
            if not self._prepared.inside(candidates.scan, candidates.positions_world[k]):
                candidates.status[k] = "absent"

    @torch.inference_mode()
    def _look_again(self, run: _Run, scan: int, candidates: Candidates, fine: FineNetwork) -> None:
        """Meet the fine map halfway, where it sees a landmark near to where its agent does."""
        rows = np.array([k for k, status in enumerate(candidates.status) if status == "found"])
        if not len(rows):
            return
        pyramid = run.dynamics.scans[scan]
        own = world_to_voxel(candidates.positions_world[rows], pyramid.affines[0])
        near = torch.from_numpy(own).round().to(run.dynamics.device)
        landmark = torch.from_numpy(rows).to(run.dynamics.device)
        window = self._model.settings.window
        seen, _ = fine_look(fine, pyramid, near, landmark, window=window)
        said = seen.double().numpy(force=True)
        agrees = np.linalg.norm(said - own, axis=1) <= _AGREES
        met = np.where(agrees[:, None], (said + own) / 2, own)
        candidates.positions_world[rows] = apply_affine(pyramid.affines[0], met)
        candidates.windows += len(rows)

    def _features(self, result: SearchResult) -> Array:
        """What the confidence is computed from, one row an agent; the shape column still empty."""
        spacings = np.array(self._model.settings.spacings)
        step_mm = spacings[result.state.level.numpy()]
        columns = [
            np.exp(result.answer.log_scale.numpy()) * step_mm,
            result.answer.spread.numpy() * step_mm,
            result.jump.numpy() * spacings[0],
            result.value.numpy(),
            np.full(len(step_mm), np.nan),
        ]
        return np.stack(columns, axis=1).astype(np.float64)


class _Outlier(NamedTuple):
    """A landmark that the shape prior does not take for what it should be."""

    scan: int
    landmark: int
    shape: ShapeAssessment

    @property
    def expected_world(self) -> Array:
        return np.asarray(self.shape.expected_world[self.landmark])

    @property
    def residual_mm(self) -> float:
        return float(self.shape.residual_mm[self.landmark])


class _Run:
    """Searches in some scans at the same time."""

    def __init__(
        self,
        model: LandmarkModel,
        networks: Sequence[LandmarkNetwork],
        scans: Sequence[Prepared],
        record: Sequence[str],
        watch: Watch | None,
    ) -> None:
        self.dynamics = model.dynamics([scan.pyramid for scan in scans])
        self.start = torch.cat([scan.start for scan in scans])
        self.seen = [scan.seen for scan in scans]
        self.turned_deg = [scan.turned_deg for scan in scans]
        self.pose_sure = [scan.pose_sure for scan in scans]
        self.policy = SearchPolicy(networks)
        self._finest = networks[0]
        self._familiarity = model.familiarity
        self._names = model.names
        self._record = record
        self._watch = watch and _only(record, watch)
        self._recording = Recording()

    def search(
        self,
        *,
        scan: Tensor,
        landmark: Tensor,
        start: Tensor,
        level: int | None = None,
        attempt: int = 0,
        progress: Progress | None = None,
    ) -> SearchResult:
        """Let agents walk; the result is on the CPU. Recorded is the first attempt."""
        dynamics, device = self.dynamics, self.dynamics.device
        levels = None if level is None else torch.full((len(scan),), level, device=device)
        state = dynamics.reset(scan.to(device), landmark.to(device), start.to(device), levels)
        recorder = Recorder(
            dynamics,
            [self._names[k] for k in landmark],
            starts=scan.tolist() if attempt == 0 else [attempt] * len(scan),
            value=lambda step: step.decision.value * dynamics.spacings[step.before.level],  # type: ignore[operator]
            value_unit="mm",
            watch=self._watch,
        )
        if attempt == 0:
            self._recording = recorder.recording
        on_step = recorder if self._record else None
        return search(dynamics, self.policy, state, progress=progress, on_step=on_step).to("cpu")

    def positions_world(self, result: SearchResult) -> Array:
        """(N, 3) RAS mm, where agents say that their landmarks are."""
        world = self.dynamics.to_world(
            result.state.scan.to(self.dynamics.device),
            result.answer.position.to(self.dynamics.device),
        )
        return world.numpy(force=True)

    def strangeness(self, scan: int, positions_world: Array) -> Array:
        """(K,) how unlike training it looks around the landmarks, K positions (RAS mm)."""
        if self._familiarity is None:
            return np.full(len(positions_world), np.nan)
        features = around(self.dynamics, self._finest, scan, positions_world)
        return self._familiarity(features, np.arange(len(features)))

    def paths(self, scan: int, result: SearchResult) -> dict[str, AgentPath]:
        """The agents of a scan that were recorded, by name."""
        own = result.state.status[result.state.scan == scan]
        outcome = dict(zip(self._names, own.tolist(), strict=True))
        return {
            path.name: replace(path, start=0, outcome=self.dynamics.outcomes[outcome[path.name]])
            for path in self._recording.trajectory().agents
            if path.start == scan and path.name in self._record
        }


@torch.inference_mode()
def around(
    dynamics: SearchDynamics, finest: LandmarkNetwork, scan: int, positions_world: Array
) -> Array:
    """What the encoder of the finest scale sees around some places of a scan.

    Args:
        dynamics: With the scan.
        finest: The network of the finest scale.
        scan: Which of the scans.
        positions_world: (N, 3) RAS mm.

    Returns:
        (N, F).
    """
    which = torch.full((len(positions_world),), scan, device=dynamics.device)
    world = torch.from_numpy(np.ascontiguousarray(positions_world)).to(dynamics.device)
    voxels = dynamics.to_voxel(which, world).round().long()
    features: Tensor = finest.encoder(dynamics.windows(which, voxels, 0))
    return features.double().numpy(force=True)


def _only(names: Sequence[str], watch: Watch) -> Watch:
    """A watch that is told of some agents only, and not at all when none of them moved."""

    def selective(step: Step) -> None:
        rows = [name in names for name in step.names]
        if any(rows):
            watch(step.select(rows))

    return selective
