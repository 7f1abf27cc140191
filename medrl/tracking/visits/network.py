"""A network that says where an agent's point may be, and the policy that walks by it."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from medrl.agents import Decision
from medrl.tracking.visits.dynamics import MOVES, VisitDynamics, VisitState
from medrl.tracking.visits.policy import offsets_of, subvoxel

#: Channels beside the levels: how unlike, distance from where neighbours expect it, round.
_CHANNELS = 3


class BeliefNetwork(nn.Module):
    """From what an agent sees and hears to a distribution over all offsets in its sight.

    Three convolutions over the map of offsets, on top of the two terms that
    :class:`medrl.tracking.visits.policy.JointDescent` weighs; these weights are learned, too, one
    pair for each level.
    """

    def __init__(self, *, levels: int, width: int = 8) -> None:
        """Make it.

        Args:
            levels: Pyramid levels.
            width: Channels of the convolutions.
        """
        super().__init__()
        self.levels = levels
        self.layers = nn.Sequential(
            nn.Conv3d(_CHANNELS + levels, width, 3, padding=1),
            nn.LeakyReLU(0.1),
            nn.Conv3d(width, width, 3, padding=1),
            nn.LeakyReLU(0.1),
            nn.Conv3d(width, 1, 3, padding=1),
        )
        self.log_weights = nn.Parameter(torch.tensor([[4.5, 0.5]] * levels))

    def forward(self, observation: Mapping[str, Tensor]) -> Tensor:
        """Log-probabilities (N, S^3) of the offsets, in the order of what agents see.

        Args:
            observation: ``sees`` (N, S, S, S), ``heard`` (N, 3) in steps, ``level`` (N,) and
                ``share`` (N,), how much of the rounds is over.
        """
        sees, level = observation["sees"], observation["level"]
        side = sees.shape[1]
        grid = offsets_of(side // 2).to(sees)
        square = (grid[None] - observation["heard"][:, None]).square().sum(dim=2)
        apart = square.clamp(max=4.0 * side).view_as(sees)
        lowest = sees.amin(dim=(1, 2, 3), keepdim=True)
        scale = (sees.mean(dim=(1, 2, 3), keepdim=True) - lowest).clamp(min=1e-3)
        share = observation["share"][:, None, None, None].expand_as(sees)
        kind = nn.functional.one_hot(level, self.levels).to(sees)[:, :, None, None, None]
        planes = torch.stack([(sees - lowest) / scale, apart / side, share], dim=1)
        planes = torch.cat([planes, kind.expand(-1, -1, *sees.shape[1:])], dim=1)
        weights = self.log_weights.exp()[level][:, :, None, None, None]
        coupled = weights[:, 0] * (sees - lowest) + weights[:, 1] * apart * share / side
        return (self.layers(planes)[:, 0] - coupled).flatten(1).log_softmax(dim=1)


class BeliefPolicy:
    """Each agent takes the step that saves it most steps, as far as it can tell.

    The value of a move is the expected fall of the number of steps that are left (their sum over
    the axes), under the network's distribution. It tells its neighbours the likeliest offset.
    """

    def __init__(self, network: BeliefNetwork) -> None:
        """Walk by this network."""
        self.network = network

    @torch.no_grad()
    def __call__(
        self, dynamics: VisitDynamics, state: VisitState, memory: Tensor | None
    ) -> Decision:
        """Decide, see :class:`medrl.agents.Policy`; the value is in steps."""
        belief = self.network(observed(dynamics, state))
        values = move_values(belief, state.offset, dynamics.view.search)
        values = values.masked_fill(~dynamics.allowed(state), -torch.inf)
        # Of moves of equal value the last counts: agents that need not move stay.
        value, back = values.flip(1).max(dim=1)
        grid = offsets_of(dynamics.view.search)
        best = grid[belief.argmax(dim=1)]
        side = 2 * dynamics.view.search + 1
        sub = subvoxel(-belief.view(-1, side, side, side), best)
        message = state.origin + dynamics.to_mm(state, best.double() + sub)
        return Decision(len(MOVES) - 1 - back, value, extras={"message": message})


def observed(dynamics: VisitDynamics, state: VisitState) -> dict[str, Tensor]:
    """What the network looks at: the observation, and how much of the rounds is over (N,)."""
    share = (state.steps / max(1, dynamics.view.rounds - 1)).clamp(max=1.0).float()
    return {**dynamics.observe(state), "share": share}


def move_values(belief: Tensor, offset: Tensor, search: int) -> Tensor:
    """Expected steps that each move saves, (N, 7).

    Args:
        belief: (N, S^3) log-probabilities of where the point is.
        offset: (N, 3) where the agents stand.
        search: Radius of what they see.
    """
    side = 2 * search + 1
    chance = belief.exp().view(-1, side, side, side)
    axis = torch.arange(-search, search + 1)
    saved = []
    for number in range(3):
        others = [a + 1 for a in range(3) if a != number]
        marginal = chance.sum(dim=others)
        left = (axis[None] - offset[:, number, None]).abs()
        for sign in (1, -1):
            after = (axis[None] - offset[:, number, None] - sign).abs()
            saved.append((marginal * (left - after)).sum(dim=1))
    return torch.stack([*saved, torch.zeros_like(saved[0])], dim=1)
