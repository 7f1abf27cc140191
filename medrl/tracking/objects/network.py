"""What the agents think of their actions: one network, whose parameters all of them share."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from medrl.tracking.objects.dynamics import View
from medrl.tracking.objects.features import OWN, PAIR


class TrackNetwork(nn.Module):
    """From what an agent sees to the values of its actions.

    A candidate is encoded together with the agent, and so is every rival at it; the mean of what
    the rivals there send goes to the candidate (a round of messages as in CommNet, Sukhbaatar et
    al. 2016, along the pairs that could be matched), and the largest and the mean of all candidates
    to the actions that need none. The values of candidates do not depend on their order.
    """

    def __init__(self, *, view: View, width: int = 64) -> None:
        """Build it.

        Args:
            view: What agents see.
            width: Of all layers.
        """
        super().__init__()
        self.candidates = view.candidates
        self.pair = nn.Sequential(nn.Linear(PAIR, width), nn.ReLU(), nn.Linear(width, width))
        self.own = nn.Sequential(nn.Linear(OWN, width), nn.ReLU(), nn.Linear(width, width))
        self.message = nn.Sequential(nn.ReLU(), nn.Linear(width, width))
        self.merge = nn.Sequential(nn.ReLU(), nn.Linear(2 * width, width), nn.ReLU())
        self.match = nn.Sequential(nn.Linear(3 * width, width), nn.ReLU(), nn.Linear(width, 1))
        self.alone = nn.Sequential(nn.Linear(3 * width, width), nn.ReLU(), nn.Linear(width, 4))

    def forward(self, own: Tensor, pairs: Tensor, rivals: Tensor) -> Tensor:
        """Values (N, K + 4), see :mod:`medrl.tracking.objects.dynamics`.

        Args:
            own: (N, O).
            pairs: (N, K, F), zeros where there is no candidate.
            rivals: (N, K, R, F), zeros where there is no rival.
        """
        self_ = self.own(own)
        there, real = pairs[..., -1:], rivals[..., -1:]
        message = (self.message(self.pair(rivals)) * real).sum(dim=2)
        message = message / real.sum(dim=2).clamp(min=1)
        encoded = self.pair(pairs) + self_[:, None]
        encoded = self.merge(torch.cat([encoded, message], dim=2)) * there
        mean = encoded.sum(dim=1) / there.sum(dim=1).clamp(min=1)
        around = torch.cat([self_, mean, encoded.amax(dim=1)], dim=1)
        rest = around[:, None, self_.shape[1] :].expand(-1, self.candidates, -1)
        match = self.match(torch.cat([encoded, rest], dim=2))[..., 0]
        return torch.cat([match, self.alone(around)], dim=1)
