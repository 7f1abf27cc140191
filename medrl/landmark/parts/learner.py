"""Training the maps: detector alone, spatial model alone, then both together; and the fine map."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Generator, Tensor
from torch.nn import functional as F

from medrl.data.augment import Augmentation
from medrl.landmark.data import LabelledScan
from medrl.landmark.learner import LearnerSettings
from medrl.landmark.parts.maps import cross_entropy, displacements, target
from medrl.landmark.parts.model import PartSettings
from medrl.landmark.parts.network import FineNetwork, Maps
from medrl.rl.checkpoint import State
from medrl.rl.learner import Learner
from medrl.rl.scan_pool import ScanPool
from medrl.rl.schedule import one_cycle
from medrl.roi import crop
from medrl.volume.augment import rotation_matrix
from medrl.volume.pyramid import level_strides

#: Turned copies of each training scan that displacements are taken from.
_COPIES = 8
#: How far from its landmark the middle of a fine window lies, voxels: most often, and at most.
_OFF, _FARTHEST = 3.0, 8.0


@dataclass(frozen=True)
class PartSteps:
    """Batches of each stage.

    Attributes:
        detector: The detector of the coarse maps alone.
        spatial: The spatial model on its maps, which do not change.
        joint: Both together.
        fine: The map of the finest scale.
        scans: Scans in a batch of coarse maps.
        windows: Windows in a batch of fine ones.
    """

    detector: int = 900
    spatial: int = 150
    joint: int = 250
    fine: int = 900
    scans: int = 2
    windows: int = 24


class _ScanLearner(Learner):
    """What both learners share: augmented scans in memory."""

    settings: LearnerSettings

    def __init__(
        self,
        scans: Sequence[LabelledScan],
        *,
        settings: LearnerSettings,
        modules: dict[str, torch.nn.Module],
        steps: int,
        generator: Generator,
        device: str,
    ) -> None:
        parameters = [p for module in modules.values() for p in module.parameters()]
        super().__init__(
            modules=modules,
            optimizers={"network": torch.optim.AdamW(parameters, weight_decay=1e-4)},
            generator=generator,
            total_steps=steps,
            settings=settings,
            device=device,
        )
        self.pool = ScanPool(
            scans,
            slots=settings.slots,
            spacings=settings.spacings,
            augmentation=settings.augmentation,
            generator=generator,
            device=device,
        )

    def extra_state(self) -> State:
        """Scans at hand."""
        return {"pool": self.pool.state_dict()}

    def load_extra_state(self, state: State) -> None:
        """Take them back."""
        self.pool.load_state_dict(state["pool"])

    def _refresh(self, every: int) -> None:
        if self.step % every == 0 and self.step > 0:
            self.pool.refresh()


class MapLearner(_ScanLearner):
    """Owns the coarse maps: the detector and the spatial model."""

    def __init__(
        self,
        scans: Sequence[LabelledScan],
        *,
        settings: LearnerSettings,
        steps: PartSteps,
        seed: int,
        device: str = "cpu",
    ) -> None:
        """Build the networks.

        Args:
            scans: Training scans.
            settings: Scales, augmentation and learning rate.
            steps: Batches of each stage.
            seed: Fixes every random choice.
            device: Torch device.
        """
        torch.manual_seed(seed)
        model = PartSettings.of(settings)
        generator = Generator().manual_seed(seed)
        self.stride = level_strides(settings.spacings)[-1]
        turned = _turned_points(scans, settings.augmentation, generator) / self.stride
        self.network = model.build_detector(scans[0].points_voxel.shape[0]).to(device)
        self.spatial = model.build_spatial(*displacements(turned)).to(device)
        self.steps = steps
        super().__init__(
            scans,
            settings=settings,
            modules={"network": self.network, "spatial": self.spatial},
            steps=steps.detector + steps.spatial + steps.joint,
            generator=generator,
            device=device,
        )

    def signature(self) -> State:
        """Settings, and the batches of each stage."""
        return {**super().signature(), "steps": [*vars(self.steps).values()]}

    def train_step(self) -> dict[str, float]:
        """Learn from a few scans in whichever stage it is; the losses by name."""
        s, steps = self.settings, self.steps
        self._refresh(s.refresh_every)
        ends = (steps.detector, steps.detector + steps.spatial, self.total_steps)
        stage = next(number for number, end in enumerate(ends) if self.step < end)
        start, length = (0, *ends)[stage], (steps.detector, steps.spatial, steps.joint)[stage]
        rate = s.learning_rate * one_cycle(self.step - start, length)
        # What is learned already moves less when both learn together.
        rate *= (1.0, 5.0, 0.3)[stage]
        losses: dict[str, Tensor] = {}
        slots = torch.randint(len(self.pool), (steps.scans,), generator=self.generator)
        with self.autocast():
            for slot in slots.tolist():
                for name, loss in self._losses(slot, stage).items():
                    losses[name] = losses.get(name, torch.zeros(())) + loss / len(slots)
        self.optimize(torch.stack(list(losses.values())).sum(), learning_rate=rate, clip=5.0)
        self.step += 1
        return {name: float(value.detach()) for name, value in losses.items()}

    def _losses(self, slot: int, stage: int) -> dict[str, Tensor]:
        pyramid, points = self.pool.pyramids[slot], self.pool.points[slot]
        with torch.set_grad_enabled(stage != 1):
            maps: Maps = self.network(pyramid.levels[-2], pyramid.levels[-1])
        i, j, k = maps.there.shape[1:]
        wanted = target(points / self.stride, (i, j, k))
        known = ~points.isnan().any(dim=1)
        losses = {}
        if stage != 1:
            losses["detector"] = cross_entropy(maps, wanted, known)
        if stage != 0:
            losses["spatial"] = cross_entropy(self.spatial(maps), wanted, known)
        return losses


class FineLearner(_ScanLearner):
    """Owns the map of the finest scale."""

    def __init__(
        self,
        scans: Sequence[LabelledScan],
        *,
        settings: LearnerSettings,
        steps: PartSteps,
        seed: int,
        device: str = "cpu",
    ) -> None:
        """Build the network; see :class:`MapLearner`."""
        torch.manual_seed(seed)
        self.network = FineNetwork(scans[0].points_voxel.shape[0]).to(device)
        self.windows = steps.windows
        super().__init__(
            scans,
            settings=settings,
            modules={"network": self.network},
            steps=steps.fine,
            generator=Generator().manual_seed(seed),
            device=device,
        )

    def train_step(self) -> dict[str, float]:
        """Learn from one batch of windows."""
        s = self.settings
        self._refresh(s.refresh_every)
        with self.autocast():
            loss = self._loss()
        rate = s.learning_rate * one_cycle(self.step, self.total_steps)
        self.optimize(loss, learning_rate=rate, clip=5.0)
        self.step += 1
        return {"fine": float(loss.detach())}

    def _loss(self) -> Tensor:
        g, side = self.generator, self.settings.window
        points = self.pool.points.cpu()
        size = self.pool.shapes[:, None]
        there = ((points >= 0) & (points <= size - 1)).all(dim=2).nonzero()
        slot, landmark = there[torch.randint(len(there), (self.windows,), generator=g)].unbind(1)
        point = points[slot, landmark]
        off = torch.randn((self.windows, 3), generator=g) * _OFF
        middle = (point + off.clamp(-_FARTHEST, _FARTHEST)).round()
        seen = crop(self.pool.pyramids, middle.to(self.device), side, level=0, scan=slot)
        logits = self.network(seen, landmark.to(self.device))
        wanted = target((point - middle + side // 2).to(self.device), (side,) * 3).there
        return (
            -(wanted * F.log_softmax(logits.flatten(1), dim=1).view_as(wanted))
            .sum((1, 2, 3))
            .mean()
        )


def _turned_points(
    scans: Sequence[LabelledScan], augmentation: Augmentation, generator: Generator
) -> Tensor:
    """Points (M, K, 3) of training scans, turned and scaled as their copies are."""
    out = []
    for scan in scans:
        for _ in range(_COPIES):
            angles = (2 * torch.rand(3, generator=generator, dtype=torch.float64) - 1) * (
                math.radians(augmentation.rotation_deg)
            )
            scales = 1 + augmentation.scaling * (2 * torch.rand(3, generator=generator) - 1)
            posed = bool(torch.rand((), generator=generator) < augmentation.pose_probability)
            turn = rotation_matrix(angles).float() if posed else torch.eye(3)
            out.append((scan.points_voxel * (scales if posed else 1.0)) @ turn.T)
    return torch.stack(out)
