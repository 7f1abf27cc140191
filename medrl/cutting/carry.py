"""Carry an outline through slices or frames: the public face of the cutting agents."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from monai.data.meta_tensor import MetaTensor
from numpy.typing import NDArray

from medrl.agents import Recorder, Transition, rollout
from medrl.cutting.answer import Carried, Thing
from medrl.cutting.dynamics import CUT, CutDynamics, CutState, Stack
from medrl.cutting.model import CutModel
from medrl.cutting.network import for_inference
from medrl.cutting.outlines import Outlines, film_outlines, scan_outlines
from medrl.cutting.pieces import Cuts, Key, Piece, joined, pieces_of
from medrl.cutting.search import CutPolicy, StillPolicy
from medrl.cutting.stack import film_stacks, scan_stack
from medrl.errors import MedrlError
from medrl.files import is_film
from medrl.results.provenance import provenance
from medrl.systems import Progress, check_device
from medrl.trajectory.live import Watch
from medrl.volume.film import Film, read_film
from medrl.volume.read import read, read_labels
from medrl.volume.space import as_affine

#: Outlined pictures by stack and object.
_Outlined = dict[tuple[int, int], dict[int, NDArray[np.bool_]]]
#: Expected overlap below which a picture is to be looked at.
DOUBTFUL = 0.6


class Carrier:
    """Carries outlines through scans or films with one trained model.

    >>> from medrl import Carrier
    >>> carrier = Carrier.load("carry-scans")
    >>> carried = carrier.carry(scan, one_outlined_slice)
    >>> carried.labels
    """

    def __init__(self, model: CutModel, *, manifest: dict[str, Any] | None = None) -> None:
        """Use a model that is in memory already.

        Args:
            model: The trained agents.
            manifest: The bundle's ``model.json``, for provenance.
        """
        self.model = model
        self.manifest = manifest or {"name": "unnamed"}
        self._network = for_inference(model.network)
        self._policy = CutPolicy(self._network, model.policy)

    @classmethod
    def load(cls, name_or_dir: str | Path, *, device: str = "cpu") -> Carrier:
        """Load a model that ships with medrl by its name, or any bundle folder.

        Raises:
            MedrlError: If there is no such model, it is damaged, or the device is not there.
        """
        from medrl.bundles import find

        check_device(device)
        model, manifest = CutModel.load(find(name_or_dir), device=device)
        return cls(model, manifest=manifest)

    @property
    def card(self) -> dict[str, Any]:
        """The model card: training data, licence, intended use."""
        return dict(self.manifest.get("card", {}))

    def carry(
        self,
        scan: str | Path | MetaTensor | Film,
        outlines: Outlines | str | Path | MetaTensor | Mapping[int, NDArray[np.int64]],
        *,
        axis: int | None = None,
        earlier: Carried | None = None,
        policy: Literal["still", "moving"] = "still",
        progress: Progress | None = None,
        watch: Watch | None = None,
    ) -> Carried:
        """Carry what is outlined on some slices or frames through all others.

        Args:
            scan: A scan (C, I, J, K), or a film; files are read (:func:`medrl.volume.read`,
                :func:`medrl.volume.film.read_film`). In a scan of four dimensions outlines are
                carried through time, in every slice by itself.
            outlines: Of a scan a label map on its grid in which the outlined slices are filled; of
                a film label maps (I, J[, K]) by the number of the frame.
            axis: The axis that slices follow one another along; left out, the one along which
                least is outlined, of a film of volumes that of the thickest slices.
            earlier: What came of outlines that these are a correction of: only what they touch is
                carried again.
            policy: ``still``: agents cut in the box of the last mask; ``moving``: they may move
                both boxes first, which has not made masks better where it was measured
                (``benchmarks/cutting_accuracy.py``).
            progress: Called with the pictures that are done and their number.
            watch: Called at every step of the agents; what it raises ends it.

        Returns:
            Labels on the grid of the scan or film, how sure they are in every picture, and the
            agents' paths.

        Raises:
            MedrlError: If a file cannot be read, the outlines are empty, of a slice or frame that
                is not there or of another grid, or the model is for other pictures.
        """
        data = _opened(scan)
        known = _outlines(outlines, data)
        began = time.perf_counter()
        axis = _axis(data, known) if axis is None else axis
        stacks = self._stacks(data, axis)
        outlined = _by_stack(known, data, axis)
        pieces = pieces_of(outlined, [len(stack) for stack in stacks])
        same = {} if earlier is None or earlier.axis != axis else earlier.cuts
        todo = [piece for piece in pieces if piece.key not in same]
        dynamics = self.model.dynamics(stacks)
        cuts = {piece.key: same[piece.key] for piece in pieces if piece.key in same}
        names = [_called(known.names[piece.value], piece) for piece in todo]
        recorder = Recorder(dynamics, names, watch=watch)
        if todo:
            decides = self._policy if policy == "moving" else StillPolicy(self._network)
            cuts |= self._walk(dynamics, todo, outlined, decides, recorder, progress)
        shape = dynamics.shape
        things = []
        for value, name in known.names.items():
            through = {
                stack: joined(
                    masks,
                    [(p, cuts[p.key]) for p in pieces if (p.stack, p.value) == (stack, value)],
                    shape,
                )
                for (stack, own), masks in outlined.items()
                if own == value
            }
            drawn = {
                stack: tuple(sorted(masks))
                for (stack, own), masks in outlined.items()
                if own == value
            }
            things.append(Thing(value, name, through, drawn))
        record = recorder.trajectory("cutting", provenance(self.manifest, _first(data)))
        return Carried(
            data=data,
            axis=axis,
            things=tuple(things),
            trajectory=record,
            warnings=_warnings(things, data),
            seconds=time.perf_counter() - began,
            cuts=cuts,
        )

    def _stacks(self, data: MetaTensor | Film, axis: int) -> list[Stack]:
        """The pictures, with as many channels as the model looks at."""
        channels = self.model.settings.in_channels
        stacks = (
            film_stacks(data, axis)
            if isinstance(data, Film)
            else [scan_stack(data.as_tensor(), as_affine(data.affine), axis)]
        )
        found = stacks[0].pictures.shape[1]
        if found == channels:
            return stacks
        if found == 1:
            return [_with(stack, stack.pictures.expand(-1, channels, -1, -1)) for stack in stacks]
        if channels == 1:
            return [_with(s, s.pictures.mean(dim=1, keepdim=True)) for s in stacks]
        raise MedrlError(f"the model looks at pictures of {channels} channels, not of {found}")

    def _walk(
        self,
        dynamics: CutDynamics,
        pieces: list[Piece],
        outlined: _Outlined,
        policy: CutPolicy | StillPolicy,
        recorder: Recorder,
        progress: Progress | None,
    ) -> dict[Key, Cuts]:
        """Let agents carry all pieces at once."""
        device = dynamics.device
        masks = np.stack([outlined[p.stack, p.value][p.begin] for p in pieces])
        stack = torch.tensor([piece.stack for piece in pieces], device=device)
        first = dynamics.first[stack]
        begin = first + torch.tensor([piece.begin for piece in pieces], device=device)
        direction = torch.tensor([piece.direction for piece in pieces], device=device)
        seen = dynamics.outlined(begin, torch.from_numpy(masks).float().to(device))
        state = dynamics.reset(
            stack,
            begin + direction,
            direction,
            last=seen,
            reference=seen,
            last_allowed=first + torch.tensor([piece.last for piece in pieces], device=device),
            bound=torch.tensor([piece.bound for piece in pieces], device=device),
        )
        found = [Cuts() for _ in pieces]
        total = sum(abs(piece.last - piece.begin) for piece in pieces)
        done = 0

        def on_step(step: Transition[CutState]) -> None:
            nonlocal done
            recorder(step)
            extras = step.decision.extras or {}
            for place in torch.nonzero(step.decision.action == CUT)[:, 0].tolist():
                row = int(step.rows[place])
                found[row].add(
                    int(step.before.picture[place] - first[row]),
                    extras["mask"][place],
                    step.before.context[place],
                    float(extras["quality"][place]),
                )
                done += 1
            if progress is not None:
                progress(done, total)

        walked = rollout(dynamics, policy, state, on_step=on_step)
        recorder.end(walked.state)
        for cuts, status in zip(found, walked.state.status.tolist(), strict=True):
            cuts.outcome = dynamics.outcomes[status]
            # A cut of nothing is none.
            if cuts.outcome == "lost" and cuts.pictures:
                for kept in (cuts.pictures, cuts.windows, cuts.boxes, cuts.quality):
                    kept.pop()
        return {piece.key: cuts for piece, cuts in zip(pieces, found, strict=True)}


def _opened(scan: str | Path | MetaTensor | Film) -> MetaTensor | Film:
    if isinstance(scan, Film | MetaTensor):
        return scan
    if is_film(scan):
        return read_film(scan)
    data = read(scan)
    if data.shape[0] > 1:
        from medrl.volume.film import film_of

        return film_of(data)
    return data


def _outlines(
    outlines: Outlines | str | Path | MetaTensor | Mapping[int, NDArray[np.int64]],
    data: MetaTensor | Film,
) -> Outlines:
    if isinstance(outlines, Outlines):
        return outlines
    if isinstance(outlines, str | Path):
        outlines = read_labels(outlines)
    if isinstance(data, Film):
        if isinstance(outlines, MetaTensor):
            masks = outlines.as_tensor().numpy().astype(np.int64)
            return film_outlines({n: one for n, one in enumerate(masks) if one.any()}, data)
        return film_outlines(outlines, data)
    if not isinstance(outlines, MetaTensor):
        raise MedrlError("outlines on slices of a scan are a label map on its grid")
    return scan_outlines(outlines, data)


def _axis(data: MetaTensor | Film, known: Outlines) -> int:
    """Along which slices follow one another, where nobody says."""
    if isinstance(data, Film):
        return 2 if data.flat else int(np.argmax(data.spacing))
    assert isinstance(known.labels, np.ndarray)
    used = [
        int((known.labels != 0).any(axis=tuple(o for o in range(3) if o != axis)).sum())
        for axis in range(3)
    ]
    return int(np.argmin(used))


def _by_stack(known: Outlines, data: MetaTensor | Film, axis: int) -> _Outlined:
    """Outlines as pictures, by stack, object and picture."""
    outlined: _Outlined = {}
    if isinstance(known.labels, np.ndarray):
        if axis not in (0, 1, 2):
            raise MedrlError("an axis is 0, 1 or 2")
        slices = np.moveaxis(known.labels, axis, 0)
        pictures = [(0, number, labels) for number, labels in enumerate(slices)]
    else:
        pictures = [
            (stack, frame, labels)
            for frame, whole in known.labels.items()
            for stack, labels in enumerate(np.moveaxis(whole, axis, 0))
        ]
    for stack, number, labels in pictures:
        for value in known.names:
            mask = labels == value
            if mask.any():
                outlined.setdefault((stack, value), {})[number] = mask
    return outlined


def _with(stack: Stack, pictures: torch.Tensor) -> Stack:
    return Stack(pictures, stack.spacing, stack.step_mm, stack.affine)


def _first(data: MetaTensor | Film) -> MetaTensor:
    return data.scan(0) if isinstance(data, Film) else data


def _called(name: str, piece: Piece) -> str:
    """What an agent is called."""
    way = "onwards" if piece.direction > 0 else "back"
    return f"{name}, {way} from {piece.begin}" + (f", {piece.stack}" if piece.stack else "")


def _warnings(things: list[Thing], data: MetaTensor | Film) -> tuple[str, ...]:
    lines = [str(remark) for remark in data.meta.get("remarks", ())]
    for thing in things:
        picture, sure = thing.worst
        if sure < DOUBTFUL:
            what = "frame" if isinstance(data, Film) else "slice"
            lines.append(
                f"{thing.name}: look at {what} {picture}, where the mask is least sure "
                f"(expected overlap {sure:.2f}); outline it there to have it carried anew"
            )
    return tuple(lines)
