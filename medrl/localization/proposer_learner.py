"""Training the proposer: focal loss of centres, and distances of the faces."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Generator, Tensor
from torch.nn import functional as F

from medrl.localization.data import LabelledScan
from medrl.localization.learner import LearnerSettings
from medrl.localization.model import ModelSettings
from medrl.localization.network import CELL, padded
from medrl.localization.training_scans import TrainingScans
from medrl.rl.checkpoint import State
from medrl.rl.learner import Learner
from medrl.rl.schedule import one_cycle


class ProposerLearner(Learner):
    """Owns the proposer and the scans it learns on."""

    settings: LearnerSettings

    def __init__(
        self,
        scans: Sequence[LabelledScan],
        *,
        model: ModelSettings,
        settings: LearnerSettings,
        steps: int,
        seed: int,
        device: str = "cpu",
    ) -> None:
        """Build the network; arguments as of :class:`BoxLearner`."""
        torch.manual_seed(seed)
        self.network = model.build_proposer(scans[0].targets).to(device)
        super().__init__(
            modules={"network": self.network},
            optimizers={"network": torch.optim.AdamW(self.network.parameters(), weight_decay=1e-4)},
            generator=Generator().manual_seed(seed),
            total_steps=steps,
            settings=settings,
            device=device,
            mixed_precision=settings.mixed_precision,
        )
        self._target = scans[0].target.to(device)
        self.level = model.proposal_level
        self.stride = CELL * model.strides[self.level]
        self._scans = TrainingScans(
            scans,
            spacings=model.spacings,
            slots=settings.slots,
            augmentation=settings.augmentation,
            generator=self.generator,
            device=device,
            normalized=bool(model.channels),
        )

    def extra_state(self) -> State:
        """Scans at hand."""
        return {"pool": self._scans.pool.state_dict()}

    def load_extra_state(self, state: State) -> None:
        """Take them back."""
        self._scans.pool.load_state_dict(state["pool"])

    def train_step(self) -> dict[str, float]:
        """Learn from a few whole scans."""
        pool = self._scans.pool
        if self.step:
            pool.refresh()
        self.network.train()
        order = torch.randperm(len(pool), generator=self.generator)
        slots = order[: self.settings.proposals].tolist()
        volumes = [pool.pyramids[slot].levels[self.level] for slot in slots]
        with self.autocast():
            heat, faces = self.network(_stacked(volumes))
            truth = self._scans.truth[slots].to(self.device)
            losses = proposal_losses(
                heat.float(), faces.float(), truth.float() / self.stride, self._target
            )
        rate = self.settings.learning_rate * one_cycle(self.step, self.total_steps)
        self.optimize(losses["heat"] + 2 * losses["faces"], learning_rate=rate, clip=5.0)
        self.step += 1
        return {name: float(value.detach()) for name, value in losses.items()}


def proposal_losses(
    heat: Tensor, faces: Tensor, truth: Tensor, target: Tensor
) -> dict[str, Tensor]:
    """Focal loss of the centres (Zhou et al. 2019, eq. 1), and L1 of the faces seen near them.

    Args:
        heat: (N, K, I, J, L) logits.
        faces: (N, K, 6, I, J, L) distances, cells.
        truth: (N, R, 2, 3) boxes of objects in cells; NaN of what is not in the scan.
        target: (R,) int64, which target each object is.
    """
    axes = [torch.arange(side, device=heat.device).float() for side in heat.shape[2:]]
    cell = torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1)
    center, size = truth.mean(dim=2), truth[:, :, 1] - truth[:, :, 0]
    sigma = (0.15 * size).clamp(min=0.75)
    parts = [
        ((axis - center[..., n, None]) / sigma[..., n, None]).square().nan_to_num(nan=torch.inf)
        for n, axis in enumerate(axes)
    ]
    # The square of a distance is the sum of those along the axes.
    i, j, k = parts
    away = i[..., :, None, None] + j[..., None, :, None] + k[..., None, None, :]
    at_middle = away == away.flatten(2).amin(dim=2)[:, :, None, None, None]
    at_middle &= away.isfinite()
    own = [target == one for one in range(heat.shape[1])]
    distance = torch.stack([away[:, rows].amin(dim=1) for rows in own], dim=1)
    hit = torch.stack([at_middle[:, rows].any(dim=1) for rows in own], dim=1)
    chance, wanted = heat.sigmoid(), torch.exp(-distance / 2)
    miss = (1 - wanted).square().square() * chance.square() * F.logsigmoid(-heat)
    focal = miss.sum() - miss[hit].sum()
    focal = focal + ((1 - chance[hit]).square() * F.logsigmoid(heat[hit])).sum()
    # Faces count where the middle is near.
    n, row, *place = torch.nonzero((away < 4) & (away == distance[:, target]), as_tuple=True)
    at, box, head = cell[tuple(place)], truth[n, row], target[row]
    goal = torch.cat([at - box[:, 0], box[:, 1] - at], dim=1)
    weight = torch.where(hit, 1.0, wanted)[n, head, *place]
    error = (faces.movedim(2, -1)[n, head, *place] - goal).abs().mean(dim=1) * weight
    return {
        "heat": -focal / hit.sum().clamp(min=1),
        "faces": error.sum() / weight.sum().clamp(min=1e-6),
    }


def _stacked(volumes: Sequence[Tensor]) -> Tensor:
    """Scans of different shapes as one batch, zeros behind their ends."""
    sides = [max(volume.shape[axis] for volume in volumes) for axis in (1, 2, 3)]
    batch = volumes[0].new_zeros((len(volumes), volumes[0].shape[0], *sides))
    for one, volume in zip(batch, volumes, strict=True):
        i, j, k = volume.shape[1:]
        one[:, :i, :j, :k] = volume
    return padded(batch)
