"""Looking for landmarks by their maps."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from monai.data.meta_tensor import MetaTensor

from medrl.errors import MedrlError
from medrl.landmark.candidates import Candidates, Preparation, Prepared, Status, of_usable
from medrl.landmark.parts.maps import fine_look, peaks
from medrl.systems import Progress
from medrl.trajectory import Recording, Step, Watch
from medrl.volume.space import apply_affine

if TYPE_CHECKING:
    from medrl.landmark.parts.model import PartModel


class PartInference:
    """Runs a part detector: the coarse maps, what they say of each other, then the fine maps."""

    def __init__(self, model: PartModel, *, name: str) -> None:
        """Be ready.

        Args:
            model: The trained detector.
            name: What errors call it.
        """
        self._model = model
        self._device = next(model.detector.parameters()).device
        self._prepared = Preparation(model, name=name, device=self._device)

    def __call__(
        self,
        scans: Sequence[MetaTensor],
        *,
        record: Sequence[str] = (),
        progress: Progress | None = None,
        watch: Watch | None = None,
        as_given: bool = False,
    ) -> list[Candidates | MedrlError]:
        """Look for all landmarks of the model.

        Args:
            scans: M of them, each (1, I, J, K) with a voxel-to-world affine (RAS mm).
            record: Landmarks whose two looks are recorded and watched.
            progress: Called with the landmarks that have been found and their number.
            watch: Called after each look.
            as_given: As of :class:`medrl.landmark.inference.Inference`.

        Returns:
            Candidates for all landmarks, or why a scan cannot be searched; in the order of the
            scans.
        """

        def found(usable: list[Prepared], numbers: list[int]) -> list[Candidates]:
            return [
                self._found(one, scans[n], record, progress, watch)
                for one, n in zip(usable, numbers, strict=True)
            ]

        prepared = [self._prepared(scan, as_given=as_given) for scan in scans]
        return of_usable(prepared, found)

    @torch.inference_mode()
    def _found(
        self,
        prepared: Prepared,
        scan: MetaTensor,
        record: Sequence[str],
        progress: Progress | None,
        watch: Watch | None,
    ) -> Candidates:
        model, pyramid = self._model, prepared.pyramid
        names, spacings = model.names, model.settings.spacings
        recording = Recording()

        def looked(voxels: torch.Tensor, level: int, spread_mm: torch.Tensor) -> None:
            world = apply_affine(pyramid.affines[level], voxels.double().numpy(force=True))
            rows = [n for n, name in enumerate(names) if name in record]
            if rows:
                step = Step(
                    names=tuple(names[n] for n in rows),
                    starts=np.zeros(len(rows), dtype=np.int64),
                    positions_world=world[rows],
                    scales_mm=np.full(len(rows), spacings[level]),
                    actions=np.full(len(rows), -1),
                    values=spread_mm.double().numpy(force=True)[rows],
                    value_unit="mm",
                )
                recording.add(step)
                if watch is not None:
                    watch(step)

        maps = model.detector(pyramid.levels[-2], pyramid.levels[-1])
        if model.spatial is not None:
            maps = model.spatial(maps)
        log = maps.log_probability()
        coarse, coarse_spread = peaks(log.there.exp())
        coarse_spread = coarse_spread * spacings[-1]
        looked(coarse, len(spacings) - 1, coarse_spread)
        middle = (coarse * spacings[-1] / spacings[0]).round()
        landmark = torch.arange(len(names), device=self._device)
        window = model.settings.window
        fine, spread = fine_look(model.fine, pyramid, middle, landmark, window=window)
        spread = spread * spacings[0]
        looked(fine, 0, spread)
        if progress is not None:
            progress(len(names), len(names))
        positions = apply_affine(pyramid.affines[0], fine.double().numpy(force=True))
        there = self._prepared.inside(scan, positions) & (log.gone.exp() < 0.5).numpy(force=True)
        status: list[Status] = ["found" if one else "absent" for one in there]
        jump = (fine - coarse * spacings[-1] / spacings[0]).norm(dim=1) * spacings[0]
        highest = log.there.flatten(1).amax(dim=1)
        unknown = torch.full_like(highest, torch.nan)
        features = torch.stack([spread, coarse_spread, jump, highest, unknown], dim=1)
        return Candidates(
            scan,
            prepared.seen,
            positions,
            features.double().numpy(force=True),
            status,
            [""] * len(names),
            np.full(len(names), np.nan),
            paths={path.name: path for path in recording.trajectory().agents},
            windows=len(names),
            turned_deg=prepared.turned_deg,
        )
