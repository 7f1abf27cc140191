"""Training box agents: imitation of known values, then DQN on their own walks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from tensordict import TensorDict
from torch import Generator, Tensor
from torch.nn import functional as F

from medrl.agents import Space
from medrl.agents.policy import masked
from medrl.data.augment import Augmentation
from medrl.localization.data import LabelledScan
from medrl.localization.dynamics import TRIGGER, TRIGGERED, BoxDynamics, BoxState
from medrl.localization.model import ModelSettings
from medrl.localization.network import Prediction, laplace_loss
from medrl.localization.task import BoxTask, Rewards, disturbed, optimal_values
from medrl.localization.training_scans import TrainingScans
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
#: Share of the others that begins at something else.
_ASTRAY = 0.2


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
        mixed_precision: Compute the proposer in bfloat16 (float16 on CUDA): three times as fast on
            processors with matrix units.
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
            rotation_deg=20.0,
            scaling=0.15,
            crop_probability=0.8,
            bias=0.7,
            gamma=0.6,
            scanner_probability=0.5,
            pad_probability=0.3,
        )
    )
    mixed_precision: bool = True


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
        self.targets, self._target = scans[0].targets, scans[0].target.to(device)
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
        self._scans = TrainingScans(
            scans,
            spacings=model.spacings,
            slots=settings.slots,
            augmentation=settings.augmentation,
            generator=self.generator,
            device=device,
            normalized=bool(model.channels),
        )
        self.replay = Replay(settings.replay, generator=self.generator)
        self._dqn = DQN(
            self.network,
            inputs=["window", "wide", "told", "target"],
            values=lambda prediction: prediction.values,
            gamma=settings.rewards.gamma,
            double=settings.double,
            masked=True,
        )
        self._live: BoxTask | None = None
        self._env: AgentsEnv[BoxState] | None = None

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
        self._live = self._env = None
        if state["agents"] is not None:
            self._env = self._environment()
            self._env.state = BoxState.from_state_dict(state["agents"]).to(self.device)

    def train_step(self) -> dict[str, float]:
        """Learn from one batch of whichever phase it is; the losses by name."""
        s = self.settings
        if self.step % s.refresh_every == 0 and self.step > 0:
            self._refresh()
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
    def task(self) -> BoxTask:
        """What is known of the scans at hand; made when first asked for."""
        if self._live is None:
            pyramids, view = self._scans.pool.pyramids, self.model.view
            dynamics = _PlaceDynamics(pyramids, targets=self.targets, view=view)
            truth = self._scans.truth.to(self.device)
            rewards = self.settings.rewards
            self._live = BoxTask(dynamics, truth, target=self._target, rewards=rewards)
        return self._live

    def _refresh(self) -> None:
        """Replace a scan; the agents in it begin anew."""
        slots = self._scans.pool.refresh()
        if self._live is None:
            return
        for slot in slots:
            self._live.dynamics.replace_scan(slot, self._scans.pool.pyramids[slot])
        self._live.truth = self._scans.truth.to(self.device)
        if self._env is not None:
            gone = torch.isin(self._env.state.scan, torch.tensor(slots, device=self.device))
            mask = TensorDict({"_reset": gone[:, None]}, batch_size=self._env.batch_size)
            self._env.reset(mask)

    def _drawn(self, count: int) -> tuple[BoxState, Tensor]:
        """Agents at random boxes in the middle of a walk, and the true boxes (N, 2, 3)."""
        g, dynamics, known_boxes = self.generator, self.task.dynamics, self.task.truth
        there = ~known_boxes.isnan().any(dim=(2, 3))
        seen = torch.stack([there[:, self._target == k].any(1) for k in range(self.targets)], 1)
        known, missing = torch.nonzero(there), torch.nonzero(~seen)
        absent = min(int(count * _ABSENT), len(missing))
        scan, row = known[torch.randint(len(known), (count - absent,), generator=g)].T
        target, truth = self._target[row], known_boxes[scan, row]
        if absent:
            lost = missing[torch.randint(len(missing), (absent,), generator=g)]
            scan, target = torch.cat([torch.stack([scan, target], dim=1), lost]).T
            truth = torch.cat([truth, truth.new_full((absent, 2, 3), torch.nan)])
        # Who looks for what is not there looks at something else of the same scan, where there is
        # something; so do some of the others: that is how look-alikes are told apart.
        others = torch.multinomial(there[scan].float().cpu() + 1e-6, 1, generator=g)[:, 0]
        lent = known_boxes[scan, others.to(self.device)]
        any_known = known[torch.randint(len(known), (count,), generator=g)]
        lent = torch.where(lent.isnan(), known_boxes[any_known[:, 0], any_known[:, 1]], lent)
        astray = (torch.rand(count, generator=g) < _ASTRAY).to(self.device)
        astray |= truth.isnan().any(dim=(1, 2))
        box = disturbed(torch.where(astray[:, None, None], lent, truth), g)
        share = torch.randint(len(self.model.view.shares), (count,), generator=g).to(self.device)
        state = dynamics.reset(scan, target, box, share)
        made = torch.randint(-TRIGGER, TRIGGER, (count, self.model.view.history), generator=g)
        return _with_history(state, made.clamp(min=-1).to(self.device)), truth

    def _supervised(self, state: BoxState, truth: Tensor) -> dict[str, Tensor]:
        """Regress all action values, and the faces of near targets."""
        rewards, dynamics = self.settings.rewards, self.task.dynamics
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
        """The agents' environment, in the scans at hand."""
        return AgentsEnv(
            self.task.dynamics,
            self.task,
            batch_size=[self.settings.agents],
            generator=self.generator,
            device=self.device,
        )

    def _collect(self) -> None:
        """Every agent takes one step, exploring now and then; those that ended start anew."""
        if self._env is None:
            self._env = self._environment()
            self._env.reset()
        env = self._env
        before = env.state
        with torch.no_grad():
            action = self._explore(before)
        told = env.step(TensorDict({"action": action}, batch_size=env.batch_size))["next"]
        after = env.state
        self.replay.extend(
            {
                "slot": before.scan,
                "version": self._scans.pool.versions[before.scan],
                "target": before.target,
                **{f"before.{k}": v for k, v in _kept(before).items()},
                **{f"after.{k}": v for k, v in _kept(after).items()},
                "action": action,
                "reward": told["reward"][:, 0],
                "terminated": after.status == TRIGGERED,
            }
        )
        env.maybe_reset(told)

    def _explore(self, state: BoxState) -> Tensor:
        """Greedy actions; a share of them by chance, guided by the reward."""
        s, dynamics = self.settings, self.task.dynamics
        allowed = dynamics.allowed(state)
        seen = BoxDynamics.observe(dynamics, state)
        action = masked(self.network(*seen.values()).values, allowed).argmax(dim=1)
        others = allowed
        if s.guided:
            better = (self.task.worth(state) > 0) & allowed
            others = torch.where(better.any(dim=1, keepdim=True), better, allowed)
        other = torch.multinomial(others.float().cpu(), 1, generator=self.generator)[:, 0]
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
        truths = torch.cat([self.task.goal(own), truth])
        supervised = self._supervised(both, truths)
        losses["values"] = self.settings.imitation_weight * supervised["values"]
        losses["faces"] = supervised["faces"]
        return losses

    def _state_of(self, drawn: Fields, when: str) -> BoxState:
        state = self.task.dynamics.reset(
            drawn["slot"], drawn["target"], drawn[f"{when}.box"], drawn[f"{when}.share"]
        )
        return _with_history(state, drawn[f"{when}.history"])

    def _seen(self, drawn: Fields, when: str) -> dict[str, Tensor]:
        state = self._state_of(drawn, when)
        allowed = self.task.dynamics.allowed(state)
        return {**BoxDynamics.observe(self.task.dynamics, state), "allowed": allowed}


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


def _kept(state: BoxState) -> Fields:
    """What replay remembers of agents."""
    return {"box": state.box, "share": state.share, "history": state.history}


def _with_history(state: BoxState, history: Tensor) -> BoxState:
    return replace(state, history=history)
