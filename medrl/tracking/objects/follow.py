"""Follow objects through a film or 4D scan: the public face."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

import medrl
from medrl.agents.rollout import Transition
from medrl.errors import MedrlError
from medrl.tracking.objects.corrections import Correction, pinned
from medrl.tracking.objects.detections import Detections
from medrl.tracking.objects.dynamics import TrackDynamics, TrackState
from medrl.tracking.objects.model import TrackModel
from medrl.tracking.objects.policy import Together
from medrl.tracking.objects.scene import Pins, Scene
from medrl.tracking.objects.tracks import Tracks
from medrl.tracking.objects.walk import Finish, Log, Notes, finished, walk
from medrl.trajectory import AgentPath, Step, Trajectory, Watch


@dataclass(frozen=True)
class FollowSettings:
    """How objects are followed.

    Attributes:
        divides: Objects may divide, as cells do.
        max_gap: Frames without a detection after which a track ends; the model's own if None.
        images: Look at the frames, not only at boxes.
        finish: What is made of the agents' walk once the whole film is known.
    """

    divides: bool = True
    max_gap: int | None = None
    images: bool = True
    finish: Finish = field(default_factory=Finish)


class Tracker:
    """Follows objects with a trained model."""

    def __init__(self, model: TrackModel, *, name: str = "", manifest: Mapping[str, Any]) -> None:
        """Use a model.

        Args:
            model: The model.
            name: Its name, for the record.
            manifest: Contents of its ``model.json``.
        """
        self.model, self.name, self.manifest = model, name, manifest

    @classmethod
    def load(cls, name_or_dir: str | Path = "tracks", *, device: str = "cpu") -> Tracker:
        """Load a model that ships with medrl, or a folder.

        Raises:
            MedrlError: If there is none, or it is damaged.
        """
        from medrl.bundles import find

        folder = find(name_or_dir)
        model, manifest = TrackModel.load(folder, device=device)
        return cls(model, name=str(manifest["name"]), manifest=manifest)

    def follow(
        self,
        frames: Tensor | None,
        detections: Detections | None = None,
        *,
        spacing: tuple[float, float, float] = (1.0, 1.0, 1.0),
        affine: Tensor | None = None,
        settings: FollowSettings | None = None,
        tracks: Tracks | None = None,
        corrections: Sequence[Correction] = (),
        scan: str = "",
        watch: Watch | None = None,
        progress: Callable[[int, int], None] | None = None,
    ) -> Tracks:
        """Give objects one identity through all frames.

        Agents walk through the film frame by frame; what hangs at the ends of their tracks without
        a detection is left out, and gaps between detections are filled, afterwards, with the whole
        film known.

        Args:
            frames: (T, C, I, J, K) float32; None where there are only detections.
            detections: In voxel coordinates; identities in them are not looked at. Those of
                ``tracks`` if left out.
            spacing: Between voxels, in mm.
            affine: (4, 4), voxel to world; from the spacing alone if left out.
            settings: How.
            tracks: An earlier answer that is to be corrected.
            corrections: What a person knows better. What lies before the first of them stays.
            scan: Name of the film, for the record.
            watch: Told of every frame.
            progress: Called with frames done and all frames.

        Returns:
            The tracks.

        Raises:
            MedrlError: If frames, detections or corrections do not make sense together.
        """
        began = time.perf_counter()
        chosen = settings or FollowSettings()
        view = self.model.settings.view
        gap = view.max_gap if chosen.max_gap is None else chosen.max_gap
        view = replace(view, divides=view.divides and chosen.divides, max_gap=gap)
        pins = None
        if corrections and tracks is None:
            raise MedrlError("corrections need the tracks that they correct")
        if tracks is not None and corrections:
            detections, pins = pinned(tracks, corrections, max_gap=gap)
        if detections is None:
            raise MedrlError("there are no detections to follow")
        scene = Scene.of(
            detections,
            frames=frames,
            spacing=spacing,
            affine=affine,
            pins=pins,
            images=chosen.images,
            length=None if tracks is None else tracks.length,
        )
        dynamics = TrackDynamics([scene], view=view)
        policy = Together(self.model.values)
        notes = Notes(dynamics, lambda transition: self.model.sure(policy.margin))

        def on_step(transition: Transition[TrackState]) -> None:
            notes(transition)
            if watch is not None:
                watch(_step(dynamics, transition, time.perf_counter() - began))
            if progress is not None:
                progress(int(transition.before.frame[0]) + 1, scene.length)

        walk(dynamics, policy, on_step=on_step)
        log = finished(notes.log(0), scene.box.numpy(), chosen.finish)
        log = _split(log, {} if tracks is None else dict(tracks.parent))
        log = _renumbered(log, pins)
        result = Tracks(
            frame=log.frame,
            track=log.track,
            box=log.box / scene.spacing.numpy(),
            detection=log.row,
            confidence=log.sure,
            label=np.where(log.row >= 0, detections.label[log.row], 0) if len(log.row) else log.row,
            parent=log.parent,
            length=scene.length,
            detections=detections,
            warnings=_warnings(log, detections, frames is None),
            seconds=time.perf_counter() - began,
        )
        return replace(result, trajectory=self._trajectory(result, scene, scan))

    def _trajectory(self, tracks: Tracks, scene: Scene, scan: str) -> Trajectory:
        """One path a track; actions are 0 for matched and 1 for coasted, values confidences."""
        affine = scene.affine.numpy()
        paths = []
        for one in tracks.ids:
            mine = tracks.track == one
            world = tracks.box[mine] @ affine[:3, :3].T + affine[:3, 3]
            paths.append(
                AgentPath(
                    f"track {one}",
                    0,
                    positions_world=world.mean(axis=1),
                    scales_mm=np.full(len(world), float(scene.spacing.min())),
                    actions=(tracks.detection[mine] < 0).astype(np.int64),
                    values=tracks.confidence[mine],
                    boxes_world=world,
                    extras={"frame": tracks.frame[mine].astype(np.float64)},
                    value_unit="probability",
                    outcome="followed",
                    confidence=float(tracks.confidence[mine].min()),
                )
            )
        return Trajectory(
            "tracking",
            tuple(paths),
            {"scan": scan, "model": self.name, "version": medrl.__version__},
        )


def _step(dynamics: TrackDynamics, transition: Transition[TrackState], seconds: float) -> Step:
    """What tracks did in a frame, for whoever watches."""
    after = transition.after
    rows = torch.nonzero(~after.birth & (after.hits > 0))[:, 0]
    kept = after.select(rows)
    places = dynamics.places(kept)
    value = transition.decision.value
    return Step(
        names=tuple(f"track {one}" for one in kept.track.tolist()),
        starts=np.zeros(len(rows), np.int64),
        positions_world=places.position_world.numpy(),
        scales_mm=places.scale_mm.numpy(),
        actions=transition.decision.action[rows].numpy(),
        values=np.full(len(rows), np.nan) if value is None else value[rows].double().numpy(),
        times=np.full(len(rows), seconds),
        boxes_world=None if places.box_world is None else places.box_world.numpy(),
        extras={name: values.numpy() for name, values in (places.extras or {}).items()},
    )


def _split(log: Log, known: Mapping[int, int]) -> Log:
    """Mothers end where a daughter begins; what followed of them is another daughter."""
    track, parent = log.track.copy(), {**log.parent}
    parent |= {t: p for t, p in known.items() if t in track and p in track and t not in parent}
    new = int(track.max(initial=0)) + 1
    order = sorted(
        (int(log.frame[track == child].min()), child) for child in log.parent if child not in known
    )
    for frame, child in order:
        mother = parent[child]
        rest = (track == mother) & (log.frame >= frame)
        if not (track[~rest] == mother).any():
            # Both begin in one frame: they are sisters at best.
            del parent[child]
            continue
        if rest.any():
            track[rest] = new
            moved = {
                t: new
                for t, p in parent.items()
                if p == mother and t != child and log.frame[track == t].min() > frame
            }
            parent |= moved
            parent[new] = mother
            new += 1
    return log._replace(track=track, parent=parent)


def _renumbered(log: Log, pins: Pins | None) -> Log:
    """Identities 1, 2, 3, in the order in which they begin; those of an earlier answer stay."""
    kept: NDArray[np.int64] = np.zeros(0, np.int64) if pins is None else pins.tracks.numpy()
    ids, first = np.unique(log.track, return_index=True)
    begins = np.array([log.frame[log.track == one].min() for one in ids])
    fresh = ~np.isin(ids, kept)
    order = np.lexsort((first, begins))
    names = {int(one): int(one) for one in ids[~fresh]}
    number = int(kept.max(initial=0))
    for one in ids[order][fresh[order]]:
        number += 1
        names[int(one)] = number
    track = np.array([names[int(one)] for one in log.track], dtype=np.int64)
    parent = {names[t]: names[p] for t, p in log.parent.items() if t in names and p in names}
    rows = np.lexsort((log.frame, track))
    return Log(log.frame[rows], track[rows], log.box[rows], log.row[rows], log.sure[rows], parent)


def _warnings(log: Log, detections: Detections, blind: bool) -> tuple[str, ...]:
    said = []
    if not len(detections):
        said.append("there are no detections, so there are no tracks")
    elif not len(log.frame):
        said.append("no object was seen twice, so there are no tracks")
    if blind:
        said.append("no frames were given: objects are told apart by their boxes alone")
    return tuple(said)
