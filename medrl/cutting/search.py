"""How trained agents carry: they look, decide, and cut."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from medrl.agents import Decision, Rows
from medrl.agents.policy import masked
from medrl.cutting.dynamics import CUT, GONE, CutDynamics, CutState
from medrl.cutting.network import CutNetwork, PolicyNetwork

#: An object has ended where a cut is expected to overlap with it less than this.
LEAST = 0.5


@dataclass(frozen=True, eq=False)
class Sight(Rows):
    """What N agents make of what they see.

    Attributes:
        deep: (N, D, h, w), the deepest features.
        summary: (N, F).
        judged: (N, 2), logits that the object is there, and of the overlap that is expected.
        mask: (N, s, s), what they would cut out.
    """

    deep: Tensor
    summary: Tensor
    judged: Tensor
    mask: Tensor


def see(network: CutNetwork, dynamics: CutDynamics, state: CutState) -> Sight:
    """Look, and make the mask that would be cut."""
    seen = dynamics.observe(state)
    window = seen["window"].to(memory_format=torch.channels_last)
    features = network.encode(window, seen["told"])
    cut = network.cut(features, window, seen["told"])
    return Sight(
        features[-1],
        network.summary(features, seen["told"]),
        torch.stack([cut.present, cut.quality], dim=1),
        torch.sigmoid(cut.logits),
    )


class CutPolicy:
    """Moves where that is worth more than the cut by a margin, and ends where nothing is there.

    Whether the object is there any more is what the cutter says, which has seen far more ends of
    objects than the policy has in its walks.
    """

    def __init__(self, network: CutNetwork, policy: PolicyNetwork, *, margin: float = 1.0) -> None:
        """Decide with these networks.

        Args:
            network: What cuts.
            policy: What decides.
            margin: So much more a move must be worth.
        """
        self._network, self._policy, self._margin = network, policy, margin

    def __call__(self, dynamics: CutDynamics, state: CutState, memory: Tensor | None) -> Decision:
        """Decide, see :class:`medrl.agents.Policy`."""
        with torch.no_grad():
            sight = see(self._network, dynamics, state)
            values = self._policy(sight.deep, sight.summary, sight.judged)
        values = values.clone()
        values[:, :CUT] -= self._margin
        allowed = dynamics.allowed(state)
        gone = ended(sight, allowed, least=LEAST)
        value, action = masked(values[:, :GONE], allowed[:, :GONE]).max(dim=1)
        action = torch.where(gone, GONE, action)
        return Decision(
            action, value, extras={"mask": sight.mask, "quality": sight.judged[:, 1].sigmoid()}
        )


def ended(sight: Sight, allowed: Tensor, *, least: float) -> Tensor:
    """(N,) bool, where the object is not any more, or nothing worth keeping would be cut.

    Args:
        sight: What agents make of what they see.
        allowed: (N, A) bool, what they may do.
        least: Overlap with the truth that a cut must be expected to have.
    """
    present, quality = sight.judged.unbind(dim=1)
    return ((present < 0) | (quality.sigmoid() < least)) & allowed[:, GONE]


class StillPolicy:
    """Cuts in the last mask's box, and ends where that box holds nothing any more."""

    def __init__(self, network: CutNetwork, *, least: float = LEAST) -> None:
        """Cut with this network.

        Args:
            network: What cuts.
            least: See :func:`ended`.
        """
        self._network, self._least = network, least

    def __call__(self, dynamics: CutDynamics, state: CutState, memory: Tensor | None) -> Decision:
        """Cut, or end, by whether the network says that the object is there."""
        with torch.no_grad():
            sight = see(self._network, dynamics, state)
        gone = ended(sight, dynamics.allowed(state), least=self._least)
        action = torch.where(gone, GONE, CUT)
        return Decision(
            action,
            sight.judged[:, 0],
            extras={"mask": sight.mask, "quality": sight.judged[:, 1].sigmoid()},
        )
