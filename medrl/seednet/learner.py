"""Teach a seed agent the value of a seed: imitation of an oracle, then DQN on its own states."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from tensordict import TensorDict, TensorDictBase
from torch import Generator, Tensor
from torch.nn import functional as F

from medrl.rl.checkpoint import State
from medrl.rl.dqn import DQN, MASKED, n_step_returns
from medrl.rl.env import AgentsEnv
from medrl.rl.learner import Learner
from medrl.rl.replay import Fields, SequenceReplay
from medrl.seednet.dynamics import SeedState, Windows
from medrl.seednet.model import GAIN_UNIT, SeedModel
from medrl.seednet.network import STRIDE
from medrl.seednet.oracle import oracle_actions
from medrl.seednet.rewards import RewardSettings
from medrl.seednet.sampling import Sampler
from medrl.seednet.task import SeedTask
from medrl.walker.segmenter import FOREGROUND, NONE


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
        replay: Steps remembered.
        explore: Share of actions that are drawn from the best ``explore_among`` instead of taken.
        explore_among: See there.
        oracle: Share of windows that the oracle acts in during imitation, at the beginning; falls
            to none.
        wrong_click: Share of windows whose user also makes a wrong click near the boundary.
        radii: Half the sides of the cubes that a seed may be taken to correct when nobody has
            tried it, voxels; the one that gains most counts. One next to a prior, which leaves
            only small errors; a segmenter without a prior is moved further by each seed.
        imitation_weight: Weight of the imitation loss during DQN.
        reward: Of a seed.
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
    radii: tuple[int, ...] = (2,)
    imitation_weight: float = 0.05
    reward: RewardSettings = field(default_factory=RewardSettings)


class TrainingTask(SeedTask):
    """Windows that are drawn anew for every episode, all at once, with their users."""

    def __init__(self, model: SeedModel, sampler: Sampler, settings: AgentSettings) -> None:
        """Draw from a sampler, and let a model see the windows."""
        dynamics = copy.copy(model.dynamics)
        dynamics.fit(sampler.window)
        shape = (settings.windows, *sampler.window)
        empty = torch.zeros(shape, dtype=torch.bool, device=model.device)
        super().__init__(dynamics, empty, reward=settings.reward)
        self._model = model
        self._sampler = sampler
        self._wrong_click = settings.wrong_click

    def begin(self, count: int, generator: Generator, **given: Tensor) -> SeedState:
        """Draw windows, let their users click, and encode them."""
        sample = self._sampler.draw(count).to(self._model.device)
        seeds = sample.click.clone()
        for n in range(count):
            if bool(torch.rand((), generator=generator) < self._wrong_click):
                _misclick(seeds[n], sample.truth[n], generator)
        self.put(sample.image, sample.target, sample.truth, seeds)
        return self.dynamics.reset(seeds)

    def put(self, image: Tensor, target: Tensor, truth: Tensor, clicks: Tensor) -> None:
        """Put the dynamics on windows (N, C, I, J, K) with their targets, truths and clicks."""
        self.image, self.target, self.truth, self.clicks = image, target, truth, clicks
        self.encoded = self._model.encode(image, target)
        prior = self._model.prior(self.encoded, clicks)
        self.dynamics.windows = Windows(self.encoded.system, prior)


def _misclick(seeds: Tensor, truth: Tensor, generator: Generator) -> None:
    """Label a voxel close outside the object (I, J, K) as foreground, as a hasty user does."""
    near = F.max_pool3d(truth[None, None].float(), 3, 1, 1)[0, 0] > 0
    rim = (near & ~truth & (seeds == NONE)).nonzero()
    if len(rim) > 0:
        i, j, k = rim[int(torch.randint(len(rim), (), generator=generator))]
        seeds[i, j, k] = FOREGROUND


class AgentLearner(Learner):
    """Windows in which agents place seeds, a memory of that, and the value head's optimizer."""

    settings: AgentSettings

    def __init__(
        self, model: SeedModel, sampler: Sampler, settings: AgentSettings, *, generator: Generator
    ) -> None:
        """Train the value head of a model whose perception is trained, on the model's device."""
        self.network = model.network
        self._head = self.network.learn_values()
        super().__init__(
            modules={"network": self.network},
            optimizers={"network": torch.optim.Adam(self._head.parameters())},
            generator=generator,
            total_steps=settings.imitation_steps + settings.dqn_steps,
            settings=settings,
            device=model.device,
        )
        self._sampler = sampler
        self.task = TrainingTask(model, sampler, settings)
        self.env = AgentsEnv(
            self.task.dynamics,
            self.task,
            batch_size=[settings.windows],
            generator=generator,
            device=self.device,
        )
        self.replay = SequenceReplay(settings.replay // settings.windows, generator=generator)
        # What the encoder made of a window is kept once for all steps in it, by number.
        self._windows: dict[int, tuple[Tensor, ...]] = {}
        self._numbers = torch.arange(0)
        self._guided = torch.zeros(settings.windows, dtype=torch.bool)
        self._seen: TensorDictBase | None = None
        self._dice = 0.0
        self._dqn = DQN(
            self._head,
            inputs=("half", "view", "target"),
            gamma=settings.gamma,
            masked=True,
            double=settings.double,
            target_rate=settings.target_rate,
        )

    def train_step(self) -> dict[str, float]:
        """Let every agent place one seed, and learn from one batch; figures by name."""
        s = self.settings
        figures = self._act()
        while len(self.replay) < s.returns + 1:
            self._act()
        steps, mask = self.replay.sample(s.batch, s.returns + 1, device=self.device)
        before = self._state(steps, torch.zeros_like(steps["action"][:, 0]))
        imitating = self.step < s.imitation_steps
        with self.autocast():
            values = self._head(before["half"], before["view"], before["target"]).float()
        imitation = F.smooth_l1_loss(values, steps["gains"][:, 0].float())
        loss = imitation * (1.0 if imitating else s.imitation_weight)
        figures["imitation"] = float(imitation.detach())
        if not imitating:
            rewards, count = n_step_returns(
                steps["reward"][:, : s.returns], mask[:, : s.returns], gamma=s.gamma
            )
            ended = steps["ended"].gather(1, count[:, None] - 1)[:, 0]
            after = self._state(steps, torch.where(ended, 0, count))
            difference = self._dqn(
                before, steps["action"][:, 0], rewards, after, ended, steps=count
            ).mean()
            loss = loss + difference
            figures["dqn"] = float(difference.detach())
        rate = s.learning_rate * (1 - 0.9 * self.step / self.total_steps)
        self.optimize(loss, learning_rate=rate, clip=5.0)
        self._dqn.update_target()
        self.step += 1
        return figures

    @torch.no_grad()
    def _act(self) -> dict[str, float]:
        """One step of every agent; figures by name."""
        begins = self._seen is None
        seen = self._begin() if self._seen is None else self._seen
        state = self.env.state
        gains = expected_gains(state.mask, self.task.truth, radii=self.settings.radii)
        action = self._choose(seen, state)
        step = TensorDict({"action": action}, batch_size=self.env.batch_size, device=self.device)
        self._seen = after = self.env.step(step)["next"]
        reward = GAIN_UNIT * after["reward"][:, 0]
        self.replay.extend(
            {
                "view": seen["view"].half(),
                "allowed": seen["action_mask"],
                "gains": gains.half(),
                "action": action,
                "reward": reward,
                "ended": after["done"][:, 0],
                "window": self._numbers,
            },
            begins=torch.full_like(state.active, begins),
            active=state.active,
        )
        figures = {"reward": float(reward[state.active].mean())}
        if bool(after["done"].all()):
            self._seen = None
            figures |= {
                "dice_before": self._dice,
                "dice_after": float(after["dice"].mean()),
                "seeds": float(self.env.state.steps.float().mean()),
            }
        return figures

    def _begin(self) -> TensorDictBase:
        """New windows for all agents."""
        s = self.settings
        seen: TensorDictBase = self.env.reset()
        left = max(0, s.imitation_steps - self.step) / max(1, s.imitation_steps)
        guided = torch.rand(s.windows, generator=self.generator) < s.oracle * left
        self._guided = guided.to(self.device)
        self._dice = float(seen["dice"].mean())
        held = set(self.replay.held("window").flatten().tolist()) if len(self.replay) else set()
        self._windows = {n: window for n, window in self._windows.items() if n in held}
        first = int(self._numbers[-1]) + 1 if len(self._numbers) else 0
        self._numbers = first + torch.arange(s.windows)
        encoded = self.task.encoded
        for row, number in enumerate(self._numbers.tolist()):
            self._windows[number] = (encoded.features.half[row], encoded.target[row])
        return seen

    def _choose(self, seen: TensorDictBase, state: SeedState) -> Tensor:
        """The agents' actions, with exploration, and the oracle's where it acts."""
        s = self.settings
        encoded = self.task.encoded
        values = self._head(encoded.features.half, seen["view"], encoded.target)
        values = values.masked_fill(~seen["action_mask"], MASKED)
        best = values.topk(min(s.explore_among, values.shape[1]), dim=1).indices
        draw = torch.randint(best.shape[1], (len(best), 1), generator=self.generator)
        tries = torch.rand(len(best), generator=self.generator) < s.explore
        draw, tries = draw.to(self.device), tries.to(self.device)
        action = torch.where(tries, best.gather(1, draw)[:, 0], values.argmax(dim=1))
        if bool(self._guided.any()):
            truth = self.task.truth
            oracle = oracle_actions(self.task.dynamics, state, truth, generator=self.generator)
            action = torch.where(self._guided, oracle, action)
        return action

    def _state(self, steps: Fields, index: Tensor) -> dict[str, Tensor]:
        """What the head takes of the index-th (N,) of some sequences of steps."""
        row = torch.arange(len(index), device=self.device)
        known = [self._windows[n] for n in steps["window"][:, 0].tolist()]
        return {
            "half": torch.stack([half for half, _ in known]),
            "view": steps["view"][row, index].float(),
            "target": torch.stack([target for _, target in known]),
            "allowed": steps["allowed"][row, index],
        }

    # What goes on -------------------------------------------------------------------------------

    def extra_state(self) -> State:
        """Replay, target network, which patients come next, and the episode under way."""
        numbers = sorted(self._windows)
        episode: State = {}
        if self._seen is not None:
            task = self.task
            episode = {
                "put": {name: getattr(task, name) for name in _PUT},
                "state": self.env.state.state_dict(),
                "guided": self._guided,
                "dice": self._dice,
            }
        return {
            "sampler": self._sampler.state_dict(),
            "target": self._dqn.state_dict(),
            "replay": self.replay.state_dict(),
            "windows": {
                "numbers": numbers,
                **{
                    name: torch.stack([self._windows[n][part] for n in numbers])
                    for part, name in enumerate(("half", "target"))
                    if numbers
                },
            },
            "numbers": self._numbers,
            "episode": episode,
        }

    def load_extra_state(self, state: State) -> None:
        """Take it back."""
        self._sampler.load_state_dict(state["sampler"])
        self._dqn.load_state_dict(state["target"])
        self.replay.load_state_dict(state["replay"])
        windows = state["windows"]
        self._windows = {
            n: tuple(windows[part][row].to(self.device) for part in ("half", "target"))
            for row, n in enumerate(windows["numbers"])
        }
        self._numbers = state["numbers"]
        self._seen = None
        if episode := state["episode"]:
            self.task.put(*(episode["put"][name].to(self.device) for name in _PUT))
            self.env.state = SeedState.from_state_dict(episode["state"]).to(self.device)
            self._guided, self._dice = episode["guided"].to(self.device), episode["dice"]
            self._seen = self.env.observe()


#: What :meth:`TrainingTask.put` takes, in order.
_PUT = ("image", "target", "truth", "clicks")


def expected_gains(mask: Tensor, truth: Tensor, *, radii: Sequence[int]) -> Tensor:
    """What every action would gain if a seed set all voxels near it to its label.

    The dense form of the oracle that imitation learns from: instead of one best seed it values all
    of them, wrong ones too. In per cent of Dice, to first order.

    Args:
        mask: (N, I, J, K) bool.
        truth: (N, I, J, K) bool.
        radii: A seed corrects so many voxels along each axis, whichever is best.

    Returns:
        (N, A) float32, in the order of the actions; STOP gains 0.
    """
    volume = (mask.flatten(1).sum(dim=1) + truth.flatten(1).sum(dim=1)).float() / 2 + 1
    gains = []
    for label in (0, 1):
        flips = mask if label == 0 else ~mask
        right = flips & (truth if label == 1 else ~truth)
        signed = right.float() - (flips & ~right).float()
        near = torch.stack([_box_sum(signed, radius) for radius in radii]).amax(dim=0)
        # The seed goes to the voxel of the cell that gains most among those to be changed.
        cell = F.max_pool3d(near.masked_fill(~flips, -torch.inf), STRIDE)
        cell = torch.where(cell.isinf(), F.avg_pool3d(near, STRIDE).clamp(max=0), cell)
        gains.append(GAIN_UNIT * cell.flatten(1) / volume[:, None])
    return F.pad(torch.cat(gains, dim=1), (0, 1))


def _box_sum(volume: Tensor, radius: int) -> Tensor:
    """Sums over cubes of radius voxels to each side, of (N, I, J, K)."""
    for axis in (1, 2, 3):
        size = volume.shape[axis]
        sums = torch.cat([torch.zeros_like(volume.narrow(axis, 0, 1)), volume.cumsum(axis)], axis)
        at = torch.arange(size, device=volume.device)
        above = sums.index_select(axis, (at + radius + 1).clamp(max=size))
        volume = above - sums.index_select(axis, (at - radius).clamp(min=0))
    return volume
