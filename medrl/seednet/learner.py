"""Teach a seed agent what a seed is worth: imitation of an oracle, then DQN on its own states."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from tensordict import TensorDict
from torch import Generator, Tensor
from torch.nn import functional as F

from medrl.rl.checkpoint import State
from medrl.rl.dqn import DQN, MASKED
from medrl.rl.learner import Learner
from medrl.seednet.dynamics import SeedState
from medrl.seednet.model import GAIN_UNIT, Scene, SeedModel
from medrl.seednet.network import STRIDE
from medrl.seednet.oracle import oracle_actions
from medrl.seednet.rewards import RewardSettings, dice, seed_rewards
from medrl.seednet.sampling import Sampler
from medrl.seednet.view import agent_view
from medrl.walker.segmenter import FOREGROUND, NONE

#: Parts of a state, in the order in which the value head takes them.
_INPUTS = ("half", "view", "target")
#: The same, and what is allowed there.
_STATE = (*_INPUTS, "allowed")


@dataclass(frozen=True)
class AgentSettings:
    """Learning of the value head; the rest of the network stays as it is.

    Attributes:
        imitation_steps: Batches of imitation.
        dqn_steps: Batches of DQN after that.
        windows: Windows whose agents act side by side.
        batch: States in a batch.
        learning_rate: Of Adam, falling to a tenth.
        gamma: Discount.
        returns: Rewards summed before the value of a later state is taken (n-step returns).
        double: Double DQN.
        target_rate: Share of the weights mixed into the target network a step.
        replay: States remembered.
        explore: Share of actions that are drawn from the best ``explore_among`` instead of taken.
        explore_among: See there.
        oracle: Share of windows that the oracle acts in during imitation, at the beginning; falls
            to none.
        wrong_click: Share of windows whose user also makes a wrong click near the boundary.
        mends: Half the sides of the cubes that a seed may be taken to mend when nobody has tried
            it, voxels; the one that is worth most counts. One next to a prior, which leaves only
            small errors; a segmenter without a prior is moved further by each seed.
        imitate_on: Weight of the imitation loss during DQN.
        reward: What a seed is worth.
    """

    imitation_steps: int = 250
    dqn_steps: int = 350
    windows: int = 8
    batch: int = 12
    learning_rate: float = 1e-3
    gamma: float = 0.95
    returns: int = 3
    double: bool = True
    target_rate: float = 0.01
    replay: int = 1500
    explore: float = 0.25
    explore_among: int = 50
    oracle: float = 0.5
    wrong_click: float = 0.1
    mends: tuple[int, ...] = (2,)
    imitate_on: float = 0.05
    reward: RewardSettings = field(default_factory=RewardSettings)


class AgentLearner(Learner):
    """Windows in which agents place seeds, a memory of that, and the value head's optimizer."""

    settings: AgentSettings

    def __init__(
        self, model: SeedModel, sampler: Sampler, settings: AgentSettings, *, generator: Generator
    ) -> None:
        """Set up.

        Args:
            model: A model whose network can see already; its value head learns.
            sampler: Where windows come from.
            settings: How.
            generator: Source of all choices.
        """
        self.model = model
        self.network = model.network
        self._head = self.network.learn_values()
        super().__init__(
            modules={"network": self.network},
            optimizers={"network": torch.optim.Adam(self._head.parameters())},
            generator=generator,
            total_steps=settings.imitation_steps + settings.dqn_steps,
            settings=settings,
        )
        self._sampler = sampler
        self._memory: list[TensorDict] = []
        self._oldest = 0
        self._episode: _Episode | None = None
        self._dqn = DQN(
            self._head,
            inputs=_INPUTS,
            gamma=settings.gamma**settings.returns,
            masked=True,
            double=settings.double,
            target_rate=settings.target_rate,
        )

    def extra_state(self) -> State:
        """Which patients come next, and the target network."""
        return {"sampler": self._sampler.state_dict(), "target": self._dqn.state_dict()}

    def load_extra_state(self, state: State) -> None:
        """Take them back."""
        self._sampler.load_state_dict(state["sampler"])
        self._dqn.load_state_dict(state["target"])

    def train_step(self) -> dict[str, float]:
        """Let every agent place one seed, and learn from one batch; figures by name."""
        s = self.settings
        figures = self._act()
        batch = self._recall()
        imitating = self.step < s.imitation_steps
        values = self._head(batch["half"], batch["view"], batch["target"])
        imitation = F.smooth_l1_loss(values, batch["worth"].to(values.dtype))
        loss = imitation * (1.0 if imitating else s.imitate_on)
        figures["imitation"] = float(imitation.detach())
        if not imitating:
            after = batch["next"]
            difference = self._dqn(
                batch,
                batch["action"],
                after["reward"][:, 0],
                after,
                after["terminated"][:, 0],
            ).mean()
            loss = loss + difference
            figures["dqn"] = float(difference.detach())
        rate = s.learning_rate * (1 - 0.9 * self.step / self.total_steps)
        self.optimize(loss, learning_rate=rate, clip=5.0)
        self._dqn.update_target()
        self.step += 1
        return figures

    # Acting ------------------------------------------------------------------------------------

    @torch.no_grad()
    def _act(self) -> dict[str, float]:
        if self._episode is None:
            self._episode = self._begin()
        episode, dynamics = self._episode, self.model.dynamics
        state = episode.state
        view = agent_view(state, episode.prior, max_seeds=dynamics.max_seeds)
        allowed = dynamics.allowed(state)
        action = self._choose(episode, view, allowed)
        place, label = dynamics.place(state, action, prior=episode.prior)
        after = dynamics.step(episode.scene.system, state, action, prior=episode.prior)
        reward = GAIN_UNIT * seed_rewards(
            state.mask, after.mask, episode.truth, place, label, self.settings.reward
        )
        worth = torch.stack(
            [
                expected_worth(state.mask[n], episode.truth[n], mends=self.settings.mends)
                for n in range(len(action))
            ]
        )
        episode.note(
            TensorDict(
                {
                    "half": episode.scene.features.half,
                    "view": view.half(),
                    "target": episode.scene.target,
                    "allowed": allowed,
                    "worth": worth.half(),
                    "action": action,
                    "reward": reward,
                    "acted": state.placing,
                    "ended": ~after.placing,
                },
                batch_size=[len(action)],
            )
        )
        episode.state = after
        figures = {"reward": float(reward[state.placing].mean())}
        if not bool(after.placing.any()):
            self._remember(episode)
            start, end = episode.dice()
            figures |= {
                "dice_before": start,
                "dice_after": end,
                "seeds": float(after.steps.float().mean()),
            }
            self._episode = None
        return figures

    def _begin(self) -> _Episode:
        s = self.settings
        sample = self._sampler.draw(s.windows)
        scene = self.model.look(sample.image, sample.target)
        seeds = sample.click.clone()
        for n in range(s.windows):
            if self._chance(s.wrong_click):
                self._misclick(seeds[n], sample.truth[n])
        prior = self.model.prior(scene, seeds)
        state = self.model.dynamics.reset(scene.system, seeds, prior=prior)
        left = max(0, s.imitation_steps - self.step) / max(1, s.imitation_steps)
        share = s.oracle * left
        guided = torch.rand(s.windows, generator=self.generator) < share
        return _Episode(scene, sample.truth, prior, state, guided)

    def _choose(self, episode: _Episode, view: Tensor, allowed: Tensor) -> Tensor:
        """The agents' actions, with exploration, and the oracle's where it acts."""
        s = self.settings
        values = self._head(episode.scene.features.half, view, episode.scene.target)
        values = values.masked_fill(~allowed, MASKED)
        best = values.topk(min(s.explore_among, values.shape[1]), dim=1).indices
        draw = torch.randint(best.shape[1], (len(best), 1), generator=self.generator)
        tries = torch.rand(len(best), generator=self.generator) < s.explore
        action = torch.where(tries, best.gather(1, draw)[:, 0], values.argmax(dim=1))
        if bool(episode.guided.any()):
            oracle = oracle_actions(
                self.model.dynamics, episode.state, episode.truth, generator=self.generator
            )
            action = torch.where(episode.guided, oracle, action)
        return action

    def _misclick(self, seeds: Tensor, truth: Tensor) -> None:
        """Label a voxel close outside the object (I, J, K) as foreground, as a hasty user does."""
        near = F.max_pool3d(truth[None, None].float(), 3, 1, 1)[0, 0] > 0
        rim = (near & ~truth & (seeds == NONE)).nonzero()
        if len(rim) > 0:
            i, j, k = rim[int(torch.randint(len(rim), (), generator=self.generator))]
            seeds[i, j, k] = FOREGROUND

    # Memory ------------------------------------------------------------------------------------

    def _remember(self, episode: _Episode) -> None:
        """Add the transitions of an episode with their n-step returns."""
        for transition in episode.transitions(self.settings.returns, self.settings.gamma):
            if len(self._memory) < self.settings.replay:
                self._memory.append(transition)
            else:
                self._memory[self._oldest] = transition
                self._oldest = (self._oldest + 1) % self.settings.replay

    def _recall(self) -> TensorDict:
        while not self._memory:
            self._act()
        drawn = torch.randint(
            len(self._memory), (self.settings.batch,), generator=self.generator
        ).tolist()
        batch: TensorDict = torch.stack([self._memory[n] for n in drawn])
        return batch.apply(lambda t: t.float() if t.dtype == torch.float16 else t)

    def _chance(self, probability: float) -> bool:
        return bool(torch.rand((), generator=self.generator) < probability)


@dataclass(eq=False)
class _Episode:
    """What goes on in N windows at a time."""

    scene: Scene
    truth: Tensor
    prior: Tensor
    state: SeedState
    guided: Tensor
    records: list[TensorDict] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._first = self.state.mask

    def note(self, record: TensorDict) -> None:
        self.records.append(record)

    def dice(self) -> tuple[float, float]:
        """Mean overlap at the beginning and now."""
        first, now = (dice(mask, self.truth).mean() for mask in (self._first, self.state.mask))
        return float(first), float(now)

    def transitions(self, returns: int, gamma: float) -> Sequence[TensorDict]:
        """One for each action, with the sum of up to ``returns`` rewards and the state after."""
        out = []
        for n in range(len(self.truth)):
            path = [record[n] for record in self.records if bool(record["acted"][n])]
            for t, start in enumerate(path):
                ahead = path[t : t + returns]
                total = sum(gamma**m * float(step["reward"]) for m, step in enumerate(ahead))
                ended = bool(ahead[-1]["ended"])
                following = start if ended else path[t + returns]
                out.append(
                    TensorDict(
                        {
                            **{key: start[key] for key in (*_STATE, "action", "worth")},
                            "next": {
                                **{key: following[key] for key in _STATE},
                                "reward": torch.tensor([total]),
                                "done": torch.tensor([ended]),
                                "terminated": torch.tensor([ended]),
                            },
                        }
                    )
                )
        return out


def expected_worth(mask: Tensor, truth: Tensor, *, mends: Sequence[int]) -> Tensor:
    """What every action would be worth if a seed set all voxels near it to its label.

    The dense form of the oracle that imitation learns from: instead of one best seed it values all
    of them, wrong ones too. In per cent of Dice, to first order.

    Args:
        mask: (I, J, K) bool.
        truth: (I, J, K) bool.
        mends: A seed reaches so many voxels along each axis, whichever is best.

    Returns:
        (A,) float32, in the order of the actions; STOP is worth 0.
    """
    volume = float(mask.sum() + truth.sum()) / 2 + 1
    gains = []
    for label in (0, 1):
        flips = mask if label == 0 else ~mask
        right = flips & (truth if label == 1 else ~truth)
        signed = right.float() - (flips & ~right).float()
        near = torch.stack([_box_sum(signed[None], radius) for radius in mends]).amax(dim=0)
        # The seed goes to the voxel of the cell that is most worth it among those to be changed.
        cell = F.max_pool3d(near.masked_fill(~flips, -torch.inf), STRIDE)
        cell = torch.where(cell.isinf(), F.avg_pool3d(near, STRIDE).clamp(max=0), cell)
        gains.append(GAIN_UNIT * cell.flatten() / volume)
    return torch.cat([*gains, torch.zeros(1)])


def _box_sum(volume: Tensor, radius: int) -> Tensor:
    """Sums over cubes of radius voxels to each side, of (1, I, J, K)."""
    for axis in (1, 2, 3):
        size = volume.shape[axis]
        sums = torch.cat([torch.zeros_like(volume.narrow(axis, 0, 1)), volume.cumsum(axis)], axis)
        at = torch.arange(size)
        above = sums.index_select(axis, (at + radius + 1).clamp(max=size))
        volume = above - sums.index_select(axis, (at - radius).clamp(min=0))
    return volume
