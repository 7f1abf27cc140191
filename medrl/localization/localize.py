"""Box what is in a scan: the public face of the box agents."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.data.meta_tensor import MetaTensor
from numpy.typing import NDArray
from torch import Tensor

from medrl.agents import Recorder, Transition
from medrl.bundles.guard import doubted, not_made_for
from medrl.errors import MedrlError
from medrl.localization.answer import DOUBTFUL, Array, Box, Localization
from medrl.localization.choice import choose_objects, every_once, look_at
from medrl.localization.dynamics import BoxDynamics, BoxState
from medrl.localization.model import BoxModel
from medrl.localization.search import LOG_ERROR, BoxPolicy, Candidates, propose, walk
from medrl.results.provenance import provenance
from medrl.systems import Progress, check_device
from medrl.trajectory.live import Watch
from medrl.volume.boxes import box_of_scan
from medrl.volume.channels import name_images, stacked
from medrl.volume.pyramid import Pyramid, build_pyramid
from medrl.volume.read import scan_of
from medrl.volume.space import as_affine, inside
from medrl.volume.validation import check_volume, in_hounsfield


@dataclass(frozen=True, eq=False)
class Found:
    """What the agents say of one scan, before anyone judges how sure that is.

    Attributes:
        scan: As it was given.
        names: Of R objects: each target, and of a kind all that were found.
        target: (R,) int64, which target each is.
        there: (R,) bool, whether it is in the scan.
        boxes_world: (R, 2, 3) RAS mm; of what is not there where it was looked for last.
        proposed_world: (R, 2, 3) RAS mm, where the agents began.
        features: (R, F) what a confidence is conditioned on; NaN of what is not there.
        encoded: (R, E) what the network's encoders make of what is there; NaN likewise.
    """

    scan: MetaTensor
    names: tuple[str, ...]
    target: NDArray[np.int64]
    there: np.ndarray[Any, np.dtype[np.bool_]]
    boxes_world: Array
    proposed_world: Array
    features: Array
    encoded: Array


class Localizer:
    """Boxes the targets of one trained model in scans.

    >>> from medrl import Localizer
    >>> localizer = Localizer.load("brain-boxes")
    >>> localizer.localize(scan)["Hippocampus_L"].corners_world
    """

    def __init__(self, model: BoxModel, *, manifest: dict[str, Any] | None = None) -> None:
        """Use a model that is in memory already.

        Args:
            model: The trained agents.
            manifest: The bundle's ``model.json``, for provenance.
        """
        self.model = model
        self.manifest = manifest or {"name": "unnamed"}
        self._network = model.network.for_inference()
        self._proposer = model.proposer.for_inference()
        self._several = [k for k, name in enumerate(model.names) if name in model.kinds]
        self._device = next(model.proposer.parameters()).device

    @classmethod
    def load(cls, name_or_dir: str | Path, *, device: str = "cpu") -> Localizer:
        """Load a model that ships with medrl by its name, or any bundle folder.

        Raises:
            MedrlError: If there is no such model, it is damaged, or the device is not there.
        """
        from medrl.bundles import find

        check_device(device)
        model, manifest = BoxModel.load(find(name_or_dir), device=device)
        return cls(model, manifest=manifest)

    @property
    def target_names(self) -> tuple[str, ...]:
        """Names of everything the model boxes."""
        return self.model.names

    @property
    def card(self) -> dict[str, Any]:
        """The model card: training data, licence, intended use."""
        return dict(self.manifest.get("card", {}))

    def check(self, targets: Sequence[str] | None) -> tuple[str, ...]:
        """Names of the targets that are to be reported: those asked for, or all.

        Raises:
            MedrlError: If one is unknown.
        """
        unknown = sorted(set(targets or ()) - set(self.model.names))
        if unknown:
            raise MedrlError(
                f"the model does not know {', '.join(unknown)}; "
                f"it knows {', '.join(self.model.names)}"
            )
        return tuple(targets or self.model.names)

    def localize(
        self,
        scan: str | Path | MetaTensor | Mapping[str, str | Path | MetaTensor],
        *,
        targets: Sequence[str] | None = None,
        progress: Progress | None = None,
        watch: Watch | None = None,
    ) -> Localization:
        """Box targets.

        Args:
            scan: A file or folder (:func:`medrl.volume.read`), or a MetaTensor (1, I, J, K) with a
                voxel-to-world affine (RAS mm); any orientation, spacing and field of view. For a
                model that looks at several images, one of each by the name of its channel; boxes
                are looked for in the field of view of the first.
            targets: Which to report; all if left out. All are looked for: which is which shows in
                how they lie to each other.
            progress: Called with the agents that have ended and their number.
            watch: Called at every step of the agents; what it raises ends the search.

        Returns:
            Boxes along the world's axes, RAS mm, with status and confidence, and the paths.

        Raises:
            MedrlError: If the scan cannot be read, or cannot be what the model was trained for, or
                a target is unknown.
        """
        wanted = self.check(targets)
        images = self._images(scan)
        volume = next(iter(images.values()))
        began = time.perf_counter()
        found, recorder = self._find(self.looked_at(images), progress=progress, watch=watch)
        unfit = self._unfit(images, found)
        sure = np.full(len(found.names), np.nan)
        if self.model.confidence is not None:
            sure = self.model.confidence(found.features)
        if unfit:
            sure = np.array([doubted(one, threshold=DOUBTFUL) for one in sure])
        view = box_of_scan(as_affine(volume.affine), tuple(volume.shape[1:]))
        boxes = tuple(
            _box(found.names[row], found.boxes_world[row], bool(found.there[row]), sure[row], view)
            for target in wanted
            for row in np.flatnonzero(found.target == self.model.names.index(target))
            if found.there[row] or target not in self.model.kinds
        )
        record = recorder.trajectory("localization", provenance(self.manifest, volume))
        told = {box.name for box in boxes}
        record = replace(record, agents=tuple(a for a in record.agents if a.name in told))
        lines = [not_made_for(str(self.manifest.get("name")), unfit)] if unfit else []
        lines += [str(remark) for remark in volume.meta.get("remarks", ())]
        doubtful = [b.name for b in boxes if b.status == "found" and b.confidence < DOUBTFUL]
        if doubtful and not unfit:
            lines.append(f"more likely wrong than right: {', '.join(doubtful)}")
        seconds = time.perf_counter() - began
        return Localization(boxes, record, tuple(lines), seconds, volume, unfit)

    def _unfit(self, images: Mapping[str, MetaTensor], found: Found) -> tuple[str, ...]:
        """Why the model was not made for a scan: what it is like, and what the encoders see."""
        guard, familiarity = self.model.guard, self.model.familiarity
        if guard is None:
            return ()
        reasons = [r for name, image in images.items() for r in guard.reasons(image, channel=name)]
        if not reasons and familiarity is not None and found.there.any():
            encoded, target = found.encoded[found.there], found.target[found.there]
            share = familiarity.typical(encoded, target) / familiarity.limit
            if share > 1:
                reasons.append(guard.unfamiliar(next(iter(images.values())), share))
        return tuple(reasons)

    def looked_at(
        self, scan: str | Path | MetaTensor | Mapping[str, str | Path | MetaTensor]
    ) -> MetaTensor:
        """All that the model looks at, as one scan (C, I, J, K).

        Raises:
            MedrlError: As :meth:`localize`.
        """
        images, settings = self._images(scan), self.model.settings
        if not settings.channels:
            return images[""]
        return stacked(images, settings.channels, settings.spacings[0])

    def _images(
        self, scan: str | Path | MetaTensor | Mapping[str, str | Path | MetaTensor]
    ) -> dict[str, MetaTensor]:
        """Images by channel, the one that answers lie in first; one of no name if there is one."""
        named = scan if isinstance(scan, Mapping) else {"": scan}
        images = {name: scan_of(one) for name, one in named.items()}
        if self.model.settings.channels:
            one = images.get("") if len(images) == 1 else None
            return name_images(images if one is None else one, self.model.settings.channels)
        if len(images) != 1:
            raise MedrlError("the model looks at a single image")
        return {"": next(iter(images.values()))}

    def find(self, scan: MetaTensor, *, normalized: bool = False) -> Found:
        """Run proposer and agents, without judging how sure the answers are.

        Args:
            scan: MetaTensor (C, I, J, K), all channels that the model looks at.
            normalized: It is on the model's grid and scale already.

        Raises:
            MedrlError: As :meth:`localize`.
        """
        return self._find(scan, normalized=normalized)[0]

    def dynamics(self, scan: MetaTensor, *, normalized: bool = False) -> BoxDynamics:
        """What agents live in, in a scan (C, I, J, K); arguments as of :meth:`prepare`.

        Raises:
            MedrlError: As :meth:`localize`.
        """
        return self.model.dynamics([self.prepare(scan, normalized=normalized)])

    def prepare(self, scan: MetaTensor, *, normalized: bool = False) -> Pyramid:
        """A scan as the agents see it.

        Args:
            scan: MetaTensor (C, I, J, K), all channels that the model looks at.
            normalized: It is on the model's grid and scale already.

        Raises:
            MedrlError: If it cannot be what the model was trained for.
        """
        settings = self.model.settings
        if normalized:
            return build_pyramid(scan, spacings=settings.spacings).to(self._device)
        if not settings.channels:
            check_volume(scan)
        if settings.modality == "MR" and in_hounsfield(scan):
            raise MedrlError(
                "this looks like a CT (values in Hounsfield units), but the model was trained on MR"
            )
        prepared = settings.preprocessing(scan)
        return build_pyramid(prepared, spacings=settings.spacings).to(self._device)

    def _find(
        self,
        scan: MetaTensor,
        *,
        normalized: bool = False,
        progress: Progress | None = None,
        watch: Watch | None = None,
    ) -> tuple[Found, Recorder]:
        dynamics = self.dynamics(scan, normalized=normalized)
        policy = BoxPolicy(self._network)
        chosen = choose_objects(self.model, dynamics, policy, self._proposed(dynamics))
        names, target, row = chosen.names, chosen.target, chosen.row
        rows = np.flatnonzero(row >= 0)
        own = chosen.candidates.select(torch.from_numpy(row[rows]).to(dynamics.device))
        state = dynamics.reset(torch.zeros_like(own.target), own.target, own.box)
        recorder = Recorder(dynamics, [names[n] for n in rows], watch=watch)
        count, ended = len(state), 0

        def on_step(step: Transition[BoxState]) -> None:
            nonlocal ended
            recorder(step)
            ended += int((~step.after.active).sum())
            if progress is not None:
                progress(ended, count)

        walked = walk(dynamics, policy, state, own.heat, on_step=on_step)
        recorder.end(walked.state)
        affine, shape = as_affine(scan.affine), tuple(scan.shape[1:])
        boxes = np.tile(box_of_scan(affine, shape), (len(row), 1, 1))
        proposed, features = boxes.copy(), np.full((len(row), walked.features.shape[1]), np.nan)
        boxes[rows] = dynamics.to_world(state.scan, walked.answer.box).numpy(force=True)
        proposed[rows] = dynamics.to_world(state.scan, state.box).numpy(force=True)
        features[rows] = walked.features
        encoded = np.full((len(row), walked.encoded.shape[1]), np.nan)
        encoded[rows] = walked.encoded
        # Near the end of the scan, where a middle is not seen well, both looks must have it inside.
        first = boxes.copy()
        first[rows] = dynamics.to_world(state.scan, chosen.seen[row[rows]]).numpy(force=True)
        there = row >= 0
        for looked in (first, boxes):
            there &= inside(looked.mean(axis=1), affine, shape)
        for k in self._several:
            # Agents that began at different objects may have come to the same one.
            of_kind = np.flatnonzero(there & (target == k))
            once = every_once(boxes[of_kind], -features[of_kind, LOG_ERROR])
            there[np.delete(of_kind, once)] = False
        return Found(scan, names, target, there, boxes, proposed, features, encoded), recorder

    def candidates(self, dynamics: BoxDynamics) -> tuple[Candidates, Tensor, Array]:
        """Where targets of the only scan may be, for fitting :attr:`BoxModel.plausible`.

        Returns:
            Candidates, boxes that agents see from there, and features; see
            :func:`medrl.localization.choice.look_at`.
        """
        found = self._proposed(dynamics)
        return (found, *look_at(dynamics, BoxPolicy(self._network), found))

    def _proposed(self, dynamics: BoxDynamics) -> Candidates:
        level = self.model.settings.proposal_level
        return propose(self._proposer, dynamics, scan=0, level=level, several=self._several)


def _box(name: str, corners: Array, there: bool, sure: float, view: Array) -> Box:
    """A box as it is told: cut to the field of view, and so noted."""
    if not there:
        return Box(name, corners, "absent", 0.0)
    cut = np.stack([np.maximum(corners[0], view[0]), np.minimum(corners[1], view[1])])
    if (cut[1] <= cut[0]).any():
        return Box(name, corners, "absent", 0.0)
    beyond = float(np.abs(cut - corners).max())
    note = f"reaches {beyond:.0f} mm beyond the scan" if beyond > 2.0 else ""
    return Box(name, cut, "found", sure, note)


__all__ = ["Box", "Found", "Localization", "Localizer"]
