"""Teach a seed network to see: the prior given a user's seeds, and the edges of each target."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Generator, Tensor
from torch.nn import functional as F

from medrl.rl.checkpoint import State
from medrl.rl.learner import Learner
from medrl.rl.schedule import one_cycle
from medrl.seednet.network import Features, SeedNetwork
from medrl.seednet.oracle import oracle_seeds
from medrl.seednet.sampling import Sample, Sampler
from medrl.seednet.view import nearness


@dataclass(frozen=True)
class PerceptionSettings:
    """Supervised learning of encoder, edges and prior.

    Attributes:
        steps: Batches.
        batch: Windows in each.
        learning_rate: At its highest; rises for the first 5 % and falls to zero as a cosine.
        weight_decay: Of AdamW.
        edge_weight: Of the edge loss next to the prior's.
        cut_weight: How much more an edge across the boundary counts than one inside.
        corrections: Largest number of simulated corrections of the prior's own errors that a
            batch is shown besides the first click.
        corrected: Share of batches that are shown any.
        click_weight: How much more a voxel next to a seed counts than one far away: a network
            must obey the user before it may know better.
    """

    steps: int = 2500
    batch: int = 4
    learning_rate: float = 3e-3
    weight_decay: float = 1e-4
    edge_weight: float = 0.5
    cut_weight: float = 2.0
    corrections: int = 6
    corrected: float = 0.75
    click_weight: float = 6.0


class PerceptionLearner(Learner):
    """One optimizer over everything but the value head."""

    settings: PerceptionSettings

    def __init__(
        self,
        network: SeedNetwork,
        sampler: Sampler,
        settings: PerceptionSettings,
        *,
        generator: Generator,
        device: str = "cpu",
    ) -> None:
        """Prepare to learn.

        Args:
            network: What learns.
            sampler: Where windows come from.
            settings: How.
            generator: Source of the simulated user's choices.
            device: Torch device; the network is brought there.
        """
        network.to(device)
        parameters = [
            parameter
            for name, parameter in network.named_parameters()
            if not name.startswith("value_head.")
        ]
        optimizer = torch.optim.AdamW(parameters, weight_decay=settings.weight_decay)
        super().__init__(
            modules={"network": network},
            optimizers={"network": optimizer},
            generator=generator,
            total_steps=settings.steps,
            settings=settings,
            device=device,
        )
        self.network = network
        self._sampler = sampler

    def extra_state(self) -> State:
        """Which patients come next."""
        return {"sampler": self._sampler.state_dict()}

    def load_extra_state(self, state: State) -> None:
        """Take that back."""
        self._sampler.load_state_dict(state["sampler"])

    def train_step(self) -> dict[str, float]:
        """Learn from one batch; the losses by name."""
        s = self.settings
        sample = self._sampler.draw(s.batch).to(self.device)
        self.network.train()
        with self.autocast():
            features = self.network.encode(sample.image)
            seeds = self._corrected(features, sample)
            near = nearness(seeds)
            logits = self.network.prior(features, near, sample.target)
            embedding = self.network.edge_embedding(features, sample.target)
            weights = 1 + s.click_weight * near[:, :2].amax(dim=1).sqrt()
            prior = prior_loss(logits, sample.truth, weights)
            edges = edge_loss(embedding, sample.truth, cut_weight=s.cut_weight)
            loss = prior + s.edge_weight * edges
        rate = s.learning_rate * one_cycle(self.step, s.steps)
        self.optimize(loss, learning_rate=rate, clip=2.0)
        self.step += 1
        return {"prior": float(prior.detach()), "edges": float(edges.detach())}

    @torch.no_grad()
    def _corrected(self, features: Features, sample: Sample) -> Tensor:
        """The click, and what a user would add to it who sees the prior (Sofiiuk et al. 2022)."""
        seeds = sample.click.clone()
        if float(torch.rand((), generator=self.generator)) >= self.settings.corrected:
            return seeds
        rounds = 1 + int(torch.randint(self.settings.corrections, (), generator=self.generator))
        seen = Features(features.full.detach(), features.half.detach(), features.quarter.detach())
        self.network.prior_head.eval()
        for _ in range(rounds):
            mask = self.network.prior(seen, nearness(seeds), sample.target) > 0
            voxels, labels = oracle_seeds(mask, sample.truth, generator=self.generator)
            rows = (labels >= 0).nonzero()[:, 0]
            i, j, k = voxels[rows].unbind(dim=1)
            seeds[rows, i, j, k] = labels[rows].to(seeds.dtype)
        self.network.prior_head.train()
        return seeds


def prior_loss(logits: Tensor, truth: Tensor, weights: Tensor) -> Tensor:
    """Cross-entropy, weighted, plus soft Dice loss of logits against masks; all (N, I, J, K)."""
    wanted = truth.float()
    entropy = F.binary_cross_entropy_with_logits(logits, wanted, weight=weights)
    probability = logits.sigmoid()
    both = (probability * wanted).sum(dim=(1, 2, 3))
    overlap = (2 * both + 1) / ((probability + wanted).sum(dim=(1, 2, 3)) + 1)
    return 2 * entropy + (1 - overlap).mean()


def edge_loss(embedding: Tensor, truth: Tensor, *, cut_weight: float) -> Tensor:
    """Cross-entropy of "both ends of this edge have the same label".

    The probability of that is the edge's weight, exp(-|e_i - e_j|^2).

    Args:
        embedding: (N, E, I, J, K).
        truth: (N, I, J, K) bool.
        cut_weight: Weight of edges whose ends differ.
    """
    loss, count = embedding.new_zeros(()), 0.0
    for axis in range(3):
        size = truth.shape[axis + 1] - 1
        near, far = (embedding.narrow(axis + 2, start, size) for start in (0, 1))
        distance = (near - far).square().sum(dim=1)
        same = truth.narrow(axis + 1, 0, size) == truth.narrow(axis + 1, 1, size)
        # -log(w) inside, -log(1 - w) across.
        across = -torch.log(-torch.expm1(-distance) + 1e-4)
        loss = loss + torch.where(same, distance, cut_weight * across).sum()
        count += same.numel()
    return loss / count
