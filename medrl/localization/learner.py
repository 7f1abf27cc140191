"""Training box agents: imitation of known values, then DQN on their own walks; and the proposer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from tensordict import TensorDict
from torch import Generator, Tensor
from torch.nn import functional as F

from medrl.agents import EpsilonGreedy, Space
from medrl.data.augment import Augmentation
from medrl.data.pool import ScanPool
from medrl.localization.data import LabelledScan, boxes_of
from medrl.localization.dynamics import TRIGGER, TRIGGERED, BoxDynamics, BoxState
from medrl.localization.model import ModelSettings
from medrl.localization.network import CELL, Prediction, laplace_loss, padded
from medrl.localization.task import BoxTask, Rewards, disturbed, optimal_values
from medrl.rl.checkpoint import State
from medrl.rl.dqn import DQN
from medrl.rl.env import AgentsEnv
from medrl.rl.learner import Learner
from medrl.rl.replay import Fields, Replay
from medrl.rl.schedule import one_cycle

#: Faces farther away than this are not learned (steps of the window).
_FAR = 14.0
#: Share of a batch that looks for something which is not in its scan.
_ABSENT = 0.15


@dataclass(frozen=True)
class LearnerSettings:
    """How the networks are trained.

    Attributes:
        rewards: What actions are worth.
        batch: Boxes in a training batch.
        learning_rate: Peak of the one-cycle schedule of AdamW.
        dqn_learning_rate: Peak in the DQN phase.
        double: Double DQN.
        guided: Random actions are drawn from those of positive reward, where there is one
            (Caicedo and Lazebnik 2015), not from all.
        epsilon: Share of random actions.
        agents: Agents that walk at a time in the DQN phase.
        replay: Transitions remembered.
        imitation_weight: Weight of imitation in the DQN phase.
        slots: Augmented scans in memory.
        refresh_every: Batches of boxes between two replacements of a scan.
        proposals: Scans in a batch of the proposer.
        augmentation: How training scans are changed.
    """

    rewards: Rewards = field(default_factory=Rewards)
    batch: int = 96
    learning_rate: float = 2e-3
    dqn_learning_rate: float = 3e-4
    double: bool = True
    guided: bool = True
    epsilon: float = 0.15
    agents: int = 96
    replay: int = 16384
    imitation_weight: float = 1.0
    slots: int = 32
    refresh_every: int = 3
    proposals: int = 4
    augmentation: Augmentation = field(
        default_factory=lambda: Augmentation(
            rotation_deg=20.0, crop_probability=0.6, pad_probability=0.3
        )
    )


class _Scans:
    """Augmented scans at hand, and the boxes in them."""

    def __init__(
        self,
        scans: Sequence[LabelledScan],
        model: ModelSettings,
        settings: LearnerSettings,
        generator: Generator,
        device: str,
    ) -> None:
        self.pool = ScanPool(
            scans,
            slots=settings.slots,
            spacings=model.spacings,
            augmentation=settings.augmentation,
            generator=generator,
            device=device,
        )
        self._targets = scans[0].shapes.shape[0]

    @property
    def truth(self) -> Tensor:
        """Boxes (slots, K, 2, 3) float64; NaN where the middle of one is not in the scan."""
        points = self.pool.points
        boxes = boxes_of(points.view(len(points) * self._targets, -1, 3)).double()
        boxes = boxes.view(len(points), self._targets, 2, 3)
        center, shape = boxes.mean(dim=2), self.pool.shapes[:, None].to(boxes)
        inside = ((center >= -0.5) & (center <= shape - 0.5)).all(dim=-1)
        return torch.where(inside[..., None, None], boxes, torch.nan)


class BoxLearner(Learner):
    """Owns the network that walks, the scans it learns on, and the agents in them."""

    settings: LearnerSettings

    def __init__(
        self,
        scans: Sequence[LabelledScan],
        *,
        model: ModelSettings,
        settings: LearnerSettings,
        imitation_steps: int,
        dqn_steps: int,
        seed: int,
        device: str = "cpu",
    ) -> None:
        """Build the network.

        Args:
            scans: Training scans.
            model: What is trained.
            settings: How to train.
            imitation_steps: Batches of imitation.
            dqn_steps: Batches of DQN after that.
            seed: Fixes every random choice.
            device: Torch device.
        """
        torch.manual_seed(seed)
        self.targets = scans[0].shapes.shape[0]
        self.network = model.build_network(self.targets).to(device)
        super().__init__(
            modules={"network": self.network},
            optimizers={"network": torch.optim.AdamW(self.network.parameters(), weight_decay=1e-4)},
            generator=Generator().manual_seed(seed),
            total_steps=imitation_steps + dqn_steps,
            settings=settings,
            device=device,
        )
        self.model = model
        self.imitation_steps, self.dqn_steps = imitation_steps, dqn_steps
        self._scans = _Scans(scans, model, settings, self.generator, device)
        self.replay = Replay(settings.replay, generator=self.generator)
        self._dqn = DQN(
            self.network,
            inputs=["window", "wide", "told", "target"],
            values=lambda prediction: prediction.values,
            gamma=settings.rewards.gamma,
            double=settings.double,
            masked=True,
        )
        self._env: AgentsEnv[BoxState] | None = None
        self._begun: BoxDynamics | None = None
        self._kept_versions = torch.zeros(0, dtype=torch.int64)

    def signature(self) -> State:
        """Settings, and how much of what is learned."""
        return {**super().signature(), "steps": [self.imitation_steps, self.dqn_steps]}

    def extra_state(self) -> State:
        """Scans at hand, what was seen, the target network, and where agents are."""
        return {
            "pool": self._scans.pool.state_dict(),
            "replay": self.replay.state_dict(),
            "target": self._dqn.state_dict(),
            "agents": None if self._env is None else self._env.state.state_dict(),
        }

    def load_extra_state(self, state: State) -> None:
        """Take them back."""
        self._scans.pool.load_state_dict(state["pool"])
        self.replay.load_state_dict(state["replay"])
        self._dqn.load_state_dict(state["target"])
        self._begun = self._env = None
        if state["agents"] is not None:
            env = self._environment()
            env.state = BoxState.from_state_dict(state["agents"]).to(self.device)

    def train_step(self) -> dict[str, float]:
        """Learn from one batch of whichever phase it is; the losses by name."""
        s = self.settings
        if self.step % s.refresh_every == 0 and self.step > 0:
            self._scans.pool.refresh()
            self._begun = None
        done = self.step - self.imitation_steps
        with self.autocast():
            if done < 0:
                self.network.train()
                losses = self._supervised(*self._drawn(s.batch))
                rate = s.learning_rate * one_cycle(self.step, self.imitation_steps)
            else:
                if done == 0:
                    self._begin_dqn()
                losses = self._dqn_losses()
                rate = s.dqn_learning_rate * one_cycle(done, self.dqn_steps)
        self.optimize(torch.stack(list(losses.values())).sum(), learning_rate=rate, clip=5.0)
        if done >= 0:
            self._dqn.update_target()
        self.step += 1
        return {name: float(value.detach()) for name, value in losses.items()}

    # Imitation -----------------------------------------------------------------------------------

    @property
    def dynamics(self) -> BoxDynamics:
        """What agents live in: the scans at hand."""
        if self._begun is None:
            self._begun = _PlaceDynamics(
                self._scans.pool.pyramids, targets=self.targets, view=self.model.view
            )
            self._truth = self._scans.truth.to(self.device)
        return self._begun

    def _drawn(self, count: int) -> tuple[BoxState, Tensor]:
        """Agents at random boxes in the middle of a walk, and the true boxes (N, 2, 3)."""
        g, dynamics = self.generator, self.dynamics
        there = ~self._truth.isnan().any(dim=(2, 3))
        known, missing = torch.nonzero(there), torch.nonzero(~there)
        absent = min(int(count * _ABSENT), len(missing))
        rows = known[torch.randint(len(known), (count - absent,), generator=g)]
        if absent:
            others = missing[torch.randint(len(missing), (absent,), generator=g)]
            rows = torch.cat([rows, others])
        scan, target = rows.T
        # Who looks for what is not there looks at something else.
        lender = known[torch.randint(len(known), (count,), generator=g)]
        truth = self._truth[scan, target]
        lent = self._truth[lender[:, 0], lender[:, 1]]
        box = disturbed(torch.where(truth.isnan(), lent, truth), g)
        share = torch.randint(len(self.model.view.shares), (count,), generator=g).to(self.device)
        state = dynamics.reset(scan, target, box, share)
        made = torch.randint(-TRIGGER, TRIGGER, (count, self.model.view.history), generator=g)
        return _with_history(state, made.clamp(min=-1).to(self.device)), truth

    def _supervised(self, state: BoxState, truth: Tensor) -> dict[str, Tensor]:
        """Regress all action values, and the faces of near targets."""
        rewards, dynamics = self.settings.rewards, self.dynamics
        prediction: Prediction = self.network(*BoxDynamics.observe(dynamics, state).values())
        target = optimal_values(dynamics, state.box, state.share, truth, rewards).float()
        there = ~truth.isnan().any(dim=(1, 2))
        weight = there[:, None].expand_as(target).float().clone()
        weight[:, TRIGGER] = 1.0
        values = F.smooth_l1_loss(prediction.values, target, reduction="none", beta=0.5)
        step = dynamics.window_step(state.box)[:, None].float()
        offset = ((truth - state.box).float() / step).nan_to_num()
        near = there & (offset.abs().amax(dim=(1, 2)) < _FAR)
        faces = torch.where(near, laplace_loss(prediction, offset), 0.0)
        return {
            "values": 2 * (values * weight).sum() / weight.sum(),
            "faces": faces.sum() / near.sum().clamp(min=1),
        }

    # Deep Q-learning -----------------------------------------------------------------------------

    def _begin_dqn(self) -> None:
        """Freeze the normalisation statistics; moving ones would move the targets."""
        self.network.eval()
        self._dqn.copy_to_target()
        while len(self.replay) < self.settings.batch * 4:
            self._collect()

    def _environment(self) -> AgentsEnv[BoxState]:
        """The agents' environment, in the scans at hand; agents of a scan that left begin anew."""
        dynamics = self.dynamics
        if self._env is None or self._env.dynamics is not dynamics:
            task = BoxTask(dynamics, self._truth, rewards=self.settings.rewards)
            env = AgentsEnv(
                dynamics,
                task,
                batch_size=[self.settings.agents],
                generator=self.generator,
                device=self.device,
            )
            before = self._env
            env.reset()
            if before is not None:
                kept = ~self._truth[before.state.scan, before.state.target].isnan().any(dim=(1, 2))
                kept &= before.state.active & (self._versions(before.state) == self._kept_versions)
                env.state = before.state.where(kept, env.state)
            self._env = env
        self._kept_versions = self._versions(self._env.state)
        return self._env

    def _versions(self, state: BoxState) -> Tensor:
        return self._scans.pool.versions[state.scan]

    def _collect(self) -> None:
        """Every agent takes one step, exploring now and then; those that ended start anew."""
        env = self._environment()
        before = env.state
        with torch.no_grad():
            action = self._explore(before)
        told = env.step(TensorDict({"action": action}, batch_size=env.batch_size))["next"]
        after = env.state
        self.replay.extend(
            {
                "slot": before.scan,
                "version": self._versions(before),
                "target": before.target,
                **{f"before.{k}": v for k, v in _kept(before).items()},
                **{f"after.{k}": v for k, v in _kept(after).items()},
                "action": action,
                "reward": told["reward"][:, 0],
                "terminated": after.status == TRIGGERED,
            }
        )
        env.maybe_reset(told)
        self._kept_versions = self._versions(env.state)

    def _explore(self, state: BoxState) -> Tensor:
        """Greedy actions; a share of them by chance, guided by the reward."""
        s, dynamics = self.settings, self.dynamics
        policy = EpsilonGreedy(
            lambda _: self.network(*BoxDynamics.observe(dynamics, state).values()).values,
            epsilon=0.0 if s.guided else s.epsilon,
            generator=self.generator,
        )
        action = policy(dynamics, state, None).action
        if not s.guided:
            return action
        task = BoxTask(dynamics, self._truth, rewards=s.rewards)
        allowed = dynamics.allowed(state)
        better = (task.worth(state) > 0) & allowed
        better = torch.where(better.any(dim=1, keepdim=True), better, allowed)
        other = torch.multinomial(better.float().cpu(), 1, generator=self.generator)[:, 0]
        explores = torch.rand(len(action), generator=self.generator) < s.epsilon
        return torch.where(explores.to(self.device), other.to(self.device), action)

    def _dqn_losses(self) -> dict[str, Tensor]:
        self._collect()
        half = self.settings.batch // 2
        versions = self._scans.pool.versions
        drawn = self.replay.sample(
            half,
            device=self.device,
            valid=lambda one: versions[one["slot"].cpu()] == one["version"].cpu(),
        )
        loss = self._dqn(
            self._seen(drawn, "before"),
            drawn["action"],
            drawn["reward"],
            self._seen(drawn, "after"),
            drawn["terminated"],
        )
        losses = {"td": loss.mean()}
        state, truth = self._drawn(half)
        own = self._state_of(drawn, "before")
        both = BoxState.cat([own, state])
        truths = torch.cat([self._truth[own.scan, own.target], truth])
        supervised = self._supervised(both, truths)
        losses["values"] = self.settings.imitation_weight * supervised["values"]
        losses["faces"] = supervised["faces"]
        return losses

    def _state_of(self, drawn: Fields, when: str) -> BoxState:
        state = self.dynamics.reset(
            drawn["slot"], drawn["target"], drawn[f"{when}.box"], drawn[f"{when}.share"]
        )
        return _with_history(state, drawn[f"{when}.history"])

    def _seen(self, drawn: Fields, when: str) -> dict[str, Tensor]:
        state = self._state_of(drawn, when)
        allowed = self.dynamics.allowed(state)
        return {**BoxDynamics.observe(self.dynamics, state), "allowed": allowed}


class _PlaceDynamics(BoxDynamics):
    """Agents that are told what they hold, not shown it.

    Replay keeps boxes as well; windows are cropped where a network needs them, which is costly.
    """

    def __init__(self, scans: Sequence[Any], *, targets: int, **options: Any) -> None:
        super().__init__(scans, targets=targets, **options)
        self.observation_spaces = {"target": Space.choice(targets)}

    def observe(self, state: BoxState) -> dict[str, Tensor]:
        """What each agent looks for."""
        return {"target": state.target}


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
        self.network = model.build_proposer(scans[0].shapes.shape[0]).to(device)
        super().__init__(
            modules={"network": self.network},
            optimizers={"network": torch.optim.AdamW(self.network.parameters(), weight_decay=1e-4)},
            generator=Generator().manual_seed(seed),
            total_steps=steps,
            settings=settings,
            device=device,
        )
        self.level = model.proposal_level
        self.stride = CELL * model.strides[self.level]
        self._scans = _Scans(scans, model, settings, self.generator, device)

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
            losses = proposal_losses(heat, faces, truth.float() / self.stride)
        rate = self.settings.learning_rate * one_cycle(self.step, self.total_steps)
        self.optimize(losses["heat"] + 2 * losses["faces"], learning_rate=rate, clip=5.0)
        self.step += 1
        return {name: float(value.detach()) for name, value in losses.items()}


def proposal_losses(heat: Tensor, faces: Tensor, truth: Tensor) -> dict[str, Tensor]:
    """Focal loss of the centres (Zhou et al. 2019, eq. 1), and L1 of the faces seen near them.

    Args:
        heat: (N, K, I, J, L) logits.
        faces: (N, K, 6, I, J, L) distances, cells.
        truth: (N, K, 2, 3) boxes in cells; NaN of what is not in the scan.
    """
    axes = [torch.arange(side, device=heat.device).float() for side in heat.shape[2:]]
    cell = torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1)
    center, size = truth.mean(dim=2), truth[:, :, 1] - truth[:, :, 0]
    sigma = (0.15 * size).clamp(min=0.75)
    away = (cell - center[:, :, None, None, None]) / sigma[:, :, None, None, None]
    distance = away.square().sum(dim=-1).nan_to_num(nan=torch.inf)
    nearest = distance == distance.flatten(2).amin(dim=2)[:, :, None, None, None]
    hit = nearest & distance.isfinite()
    wanted = torch.where(hit, 1.0, torch.exp(-distance / 2))
    chance = heat.sigmoid()
    focal = torch.where(
        hit,
        (1 - chance) ** 2 * F.logsigmoid(heat),
        (1 - wanted) ** 4 * chance**2 * F.logsigmoid(-heat),
    )
    low = cell - truth[:, :, 0, None, None, None]
    high = truth[:, :, 1, None, None, None] - cell
    goal = torch.cat([low, high], dim=-1).movedim(-1, 2).nan_to_num()
    weight = torch.where(distance < 4, wanted, 0.0)
    error = (faces - goal).abs().mean(dim=2) * weight
    return {
        "heat": -focal.sum() / hit.sum().clamp(min=1),
        "faces": error.sum() / weight.sum().clamp(min=1),
    }


def _stacked(volumes: Sequence[Tensor]) -> Tensor:
    """Scans of different shapes as one batch, zeros behind their ends."""
    sides = [max(volume.shape[axis] for volume in volumes) for axis in (1, 2, 3)]
    batch = volumes[0].new_zeros((len(volumes), volumes[0].shape[0], *sides))
    for one, volume in zip(batch, volumes, strict=True):
        i, j, k = volume.shape[1:]
        one[:, :i, :j, :k] = volume
    return padded(batch)


def _kept(state: BoxState) -> Fields:
    """What replay remembers of agents."""
    return {"box": state.box, "share": state.share, "history": state.history}


def _with_history(state: BoxState, history: Tensor) -> BoxState:
    return replace(state, history=history)
