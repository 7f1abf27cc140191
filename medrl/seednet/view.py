"""Inputs of a seed network besides the image: where seeds are, and how the mask stands."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from medrl.seednet.dynamics import SeedState
from medrl.seednet.geometry import seed_maps
from medrl.seednet.network import SEED_SCALES, STRIDE


def nearness(seeds: Tensor) -> Tensor:
    """Seed maps (N, 4, I, J, K) at both of the network's ranges, from seeds (N, I, J, K) int8."""
    near = seed_maps(seeds, scale=SEED_SCALES[0])
    return torch.cat([near, near ** (SEED_SCALES[0] / SEED_SCALES[1])], dim=1)


def agent_view(state: SeedState, prior: Tensor, *, max_seeds: int) -> Tensor:
    """What an agent knows of its own work, averaged over the cells of its grid.

    Args:
        state: N agents.
        prior: (N, I, J, K) float32, the probability that the network sees from the user's seeds.
        max_seeds: Seeds that an agent may place.

    Returns:
        (N, 7, I/2, J/2, K/2) float32: probability, prior, mask, uncertainty 4p(1 - p), nearness to
        background seeds and to foreground seeds, share of the seeds that are left.
    """
    p = state.probability
    own = torch.stack([p, prior, state.mask.float(), 4 * p * (1 - p)], dim=1)
    pooled = F.avg_pool3d(torch.cat([own, seed_maps(state.seeds, scale=SEED_SCALES[1])], 1), STRIDE)
    left = 1 - state.steps.float() / max_seeds
    share = left[:, None, None, None, None].expand(-1, 1, *pooled.shape[2:])
    return torch.cat([pooled, share], dim=1)
