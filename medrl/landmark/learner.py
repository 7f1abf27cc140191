"""Training the network of one scale: imitation of known values, then DQN on its own walks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from tensordict import TensorDict
from torch import Generator, Tensor
from torch.nn import functional as F

from medrl.agents import EpsilonGreedy, Space, Task
from medrl.data.augment import Augmentation
from medrl.landmark.data import LabelledScan
from medrl.landmark.dynamics import SearchDynamics, SearchState
from medrl.landmark.model import ModelSettings
from medrl.landmark.network import Prediction, laplace_loss
from medrl.landmark.rewards import RewardForm, optimal_values, step_rewards
from medrl.rl.checkpoint import State
from medrl.rl.dqn import DQN
from medrl.rl.env import AgentsEnv
from medrl.rl.learner import Learner
from medrl.rl.replay import Fields, Replay
from medrl.rl.scan_pool import ScanPool
from medrl.rl.schedule import one_cycle
from medrl.roi import crop
from medrl.volume.prepare import Preprocessing
from medrl.volume.pyramid import Pyramid, level_strides

#: Offsets are learned only where the landmark is this near (steps, any axis).
_OFFSET_RANGE = 6.0
#: Steps of a walk in the DQN phase.
_WALK = 24


@dataclass(frozen=True)
class LearnerSettings:
    """How one scale's network is built and trained.

    Attributes:
        spacings: Voxel size of every scale in mm, finest first.
        window: Side of the windows in voxels.
        channels: Channels of the convolutions.
        features: Width of the shared layer.
        dueling: Dueling heads (state value plus advantage).
        double: Double DQN.
        reward: Form of the reward.
        gamma: Discount of the action values, in imitation and in DQN.
        batch: Windows in a training batch.
        learning_rate: Peak of the one-cycle schedule of AdamW.
        dqn_learning_rate: Peak in the DQN phase.
        slots: Augmented scans in memory.
        refresh_every: Batches between two replacements of a scan.
        near: Distance in steps at which a landmark's weight in the loss has fallen to 1/e.
        agents: Agents that walk at a time in the DQN phase.
        epsilon: Share of random moves in the DQN phase.
        replay: Transitions remembered.
        imitation_weight: Weight of imitation in the DQN phase, where half of its batch are the
            agents' own states.
        window_hu: Hounsfield units between which a CT is looked at, where contrast may be any.
        augmentation: How training scans are changed.
    """

    spacings: tuple[float, ...] = (2.0, 4.0, 8.0)
    window: int = 25
    channels: tuple[int, ...] = (16, 32, 64)
    features: int = 256
    dueling: bool = True
    double: bool = True
    reward: RewardForm = "distance"
    gamma: float = 0.3
    batch: int = 128
    learning_rate: float = 2e-3
    dqn_learning_rate: float = 3e-4
    slots: int = 64
    refresh_every: int = 4
    near: float = 10.0
    agents: int = 128
    epsilon: float = 0.1
    replay: int = 16384
    imitation_weight: float = 1.0
    window_hu: tuple[float, float] | None = None
    augmentation: Augmentation = field(default_factory=Augmentation)

    def model_settings(self, *, modality: str = "any") -> ModelSettings:
        """Settings of the model that this training makes."""
        return ModelSettings(
            spacings=self.spacings,
            window=self.window,
            channels=self.channels,
            features=self.features,
            dueling=self.dueling,
            margin_mm=16 * self.spacings[0],
            modality=modality,
            preprocessing=Preprocessing(spacing=self.spacings[0], window_hu=self.window_hu),
        )


class _PlaceDynamics(SearchDynamics):
    """Agents that are told where they are, not shown it.

    Replay keeps places as well; windows are cropped where a network needs them, which is costly.
    """

    def __init__(self, scans: Sequence[Pyramid], *, landmarks: int, **options: Any) -> None:
        super().__init__(scans, landmarks=landmarks, **options)
        self.observation_spaces = {
            "scan": Space.choice(len(scans)),
            "position": Space((3,), torch.int64),
            "landmark": Space.choice(landmarks),
        }

    def observe(self, state: SearchState) -> dict[str, Tensor]:
        """Where agents are, and what each looks for."""
        return {"scan": state.scan, "position": state.position, "landmark": state.landmark}


class _TrainingTask(Task[SearchState]):
    """Agents start where the network is trained, on its level, and look for any landmark."""

    def __init__(self, learner: ScaleLearner, dynamics: _PlaceDynamics) -> None:
        self._learner = learner
        self._dynamics = dynamics

    def begin(self, count: int, generator: Generator, **given: Tensor) -> SearchState:
        """Put agents at places drawn by the learner's own generator."""
        learner = self._learner
        scan, position = learner.sample_positions(count)
        landmark = torch.randint(learner.pool.points.shape[1], (count,), generator=generator).to(
            scan.device
        )
        return self._dynamics.reset(scan, landmark, position, torch.full_like(scan, learner.level))

    def reward(self, before: SearchState, action: Tensor, after: SearchState) -> Tensor:
        """How much nearer a move came, in steps; 0 where the landmark is not labelled."""
        goal = self._learner.pool.points[before.scan, before.landmark]
        offset = (goal - before.position) / self._learner.stride
        rewards = step_rewards(offset, self._learner.settings.reward)
        return rewards.gather(-1, action[:, None])[:, 0].nan_to_num()


class ScaleLearner(Learner):
    """Owns the network of one scale, the scans it learns on, and the agents that walk in them."""

    settings: LearnerSettings

    def __init__(
        self,
        scans: Sequence[LabelledScan],
        *,
        level: int,
        settings: LearnerSettings,
        imitation_steps: int,
        dqn_steps: int,
        seed: int,
        device: str = "cpu",
    ) -> None:
        """Build the network.

        Args:
            scans: Training scans.
            level: Pyramid level that this network is for; 0 is the finest.
            settings: How to train.
            imitation_steps: Batches of imitation.
            dqn_steps: Batches of DQN after that.
            seed: Fixes every random choice.
            device: Torch device.
        """
        torch.manual_seed(seed)
        landmarks = scans[0].points_voxel.shape[0]
        self.network = settings.model_settings().build_network(landmarks).to(device)
        super().__init__(
            modules={"network": self.network},
            optimizers={"network": torch.optim.AdamW(self.network.parameters(), weight_decay=1e-4)},
            generator=Generator().manual_seed(seed),
            total_steps=imitation_steps + dqn_steps,
            settings=settings,
            device=device,
        )
        self.level = level
        self.imitation_steps = imitation_steps
        self.dqn_steps = dqn_steps
        self.pool = ScanPool(
            scans,
            slots=settings.slots,
            spacings=settings.spacings,
            augmentation=settings.augmentation,
            generator=self.generator,
            device=self.device,
        )
        self.stride = level_strides(settings.spacings)[level]
        self.replay = Replay(settings.replay, generator=self.generator)
        self._dqn = DQN(
            self.network,
            inputs=["window"],
            values=lambda prediction: prediction.values,
            gamma=settings.gamma,
            double=settings.double,
        )
        self._env: AgentsEnv[SearchState] | None = None
        self._explorer = EpsilonGreedy(
            self._values_of, epsilon=settings.epsilon, generator=self.generator
        )

    def signature(self) -> State:
        """Settings, and how much of what is learned on which scale."""
        steps = [self.imitation_steps, self.dqn_steps]
        return {**super().signature(), "level": self.level, "steps": steps}

    def extra_state(self) -> State:
        """Scans at hand, what was seen, the target network, and where agents are."""
        return {
            "pool": self.pool.state_dict(),
            "replay": self.replay.state_dict(),
            "target": self._dqn.state_dict(),
            "agents": None if self._env is None else self._env.state.state_dict(),
        }

    def load_extra_state(self, state: State) -> None:
        """Take them back."""
        self.pool.load_state_dict(state["pool"])
        self.replay.load_state_dict(state["replay"])
        self._dqn.load_state_dict(state["target"])
        self._env = None
        if state["agents"] is not None:
            self._env = self._new_environment()
            self._env.state = SearchState.from_state_dict(state["agents"]).to(self.device)

    def train_step(self) -> dict[str, float]:
        """Learn from one batch of whichever phase it is; the losses by name."""
        s = self.settings
        if self.step % s.refresh_every == 0 and self.step > 0:
            self.pool.refresh()
        done = self.step - self.imitation_steps
        with self.autocast():
            if done < 0:
                losses = self._imitation_losses()
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

    def _imitation_losses(self) -> dict[str, Tensor]:
        self.network.train()
        slot, position = self.sample_positions(self.settings.batch)
        return self._supervised(slot, position)

    def _supervised(self, slot: Tensor, position: Tensor) -> dict[str, Tensor]:
        """Regress all action values of all landmarks, and the offsets of near ones."""
        prediction: Prediction = self.network(self._windows(slot, position))
        offset, known = self._offsets(slot, position)
        target = optimal_values(offset, gamma=self.settings.gamma, form=self.settings.reward)
        weight = self._weights(offset, known)
        values = F.smooth_l1_loss(prediction.values, target, reduction="none", beta=0.5).mean(-1)
        near = known & (offset.abs().amax(dim=-1) < _OFFSET_RANGE)
        finish = torch.where(near, laplace_loss(prediction, offset), 0.0)
        return {
            "values": 10 * (values * weight).sum() / weight.sum(),
            "finish": 0.2 * finish.sum() / near.sum().clamp(min=1),
        }

    def sample_positions(self, count: int) -> tuple[Tensor, Tensor]:
        """Random places: near random landmarks on every scale, anywhere on the coarsest.

        Args:
            count: How many.

        Returns:
            Slots (N,) and lattice positions (N, 3) in voxels of the finest level, int64.
        """
        g = self.generator
        slot = torch.randint(len(self.pool), (count,), generator=g)
        landmark = torch.randint(self.pool.points.shape[1], (count,), generator=g)
        near = torch.exp(torch.rand((count, 1), generator=g) * 3.0 - 0.7)  # 0.5 to 10 steps
        spread = torch.randn((count, 3), generator=g) * near * self.stride
        shape = self.pool.shapes[slot]
        anywhere = torch.rand((count, 3), generator=g) * (shape + 16) - 8
        share = 0.6 if self.level == len(self.settings.spacings) - 1 else 0.05
        points = self.pool.points[slot, landmark].cpu()
        chosen = (torch.rand((count, 1), generator=g) < share) | points.isnan()
        position = torch.where(chosen, anywhere, points + spread)
        # Absent landmarks pull agents out of the scan; how far they may go is for the dynamics.
        position = torch.maximum(position, torch.tensor(-16.0)).minimum(shape + 15.0)
        lattice = (position / self.stride).round().long() * self.stride
        return slot.to(self.device), lattice.to(self.device)

    # Deep Q-learning -----------------------------------------------------------------------------

    def _dqn_losses(self) -> dict[str, Tensor]:
        self._collect()
        half = self.settings.batch // 2
        drawn = self._sample_replay(half)
        offset, known = self._offsets(drawn["slot"], drawn["position"])
        action = drawn["action"][:, None, None].expand(-1, offset.shape[1], 1)
        reward = step_rewards(offset.nan_to_num(), self.settings.reward).gather(-1, action)[..., 0]
        # Episodes end because an agent goes round in circles, not because the task is done: the
        # value of the next state always counts.
        loss = self._dqn(
            {"window": self._windows(drawn["slot"], drawn["position"])},
            drawn["action"],
            reward,
            {"window": self._windows(drawn["slot"], drawn["after"])},
            torch.zeros_like(reward, dtype=torch.bool),
        )
        weight = self._weights(offset, known)
        losses = {"td": 10 * (loss * weight).sum() / weight.sum()}
        own = self._sample_replay(half)
        slot, position = self.sample_positions(half)
        supervised = self._supervised(
            torch.cat([own["slot"], slot]), torch.cat([own["position"], position])
        )
        losses["values"] = self.settings.imitation_weight * supervised["values"]
        losses["finish"] = supervised["finish"]
        return losses

    def _sample_replay(self, count: int) -> Fields:
        """Transitions, less those whose scan has been replaced."""
        versions = self.pool.versions
        return self.replay.sample(
            count,
            device=self.device,
            valid=lambda drawn: versions[drawn["slot"]] == drawn["version"],
        )

    def _begin_dqn(self) -> None:
        """Freeze the normalisation statistics; moving ones would move the targets."""
        if self.imitation_steps == 0:
            self.network.train()
            with torch.no_grad():
                for _ in range(32):
                    self.network(self._windows(*self.sample_positions(self.settings.batch)))
        self.network.eval()
        self._dqn.copy_to_target()
        while len(self.replay) < self.settings.batch * 4:
            self._collect()

    def _collect(self) -> None:
        """Every agent takes one step, exploring now and then; those that ended start anew."""
        env = self._environment()
        before = env.state
        with torch.no_grad():
            decision = self._explorer(env.dynamics, before, None)
        after = env.step(TensorDict({"action": decision.action}, batch_size=env.batch_size))["next"]
        self.replay.extend(
            {
                "slot": before.scan,
                "version": self.pool.versions[before.scan],
                "position": before.position,
                "action": decision.action,
                "after": after["position"],
            }
        )
        env.maybe_reset(after)

    def _environment(self) -> AgentsEnv[SearchState]:
        """Where agents walk, in the scans at hand."""
        if self._env is None:
            self._env = self._new_environment()
            self._env.reset()
        for slot, pyramid in enumerate(self.pool.pyramids):
            if self._dynamics.scans[slot] is not pyramid:
                self._dynamics.replace_scan(slot, pyramid)
        return self._env

    def _new_environment(self) -> AgentsEnv[SearchState]:
        landmarks = self.pool.points.shape[1]
        self._dynamics = _PlaceDynamics(
            self.pool.pyramids, landmarks=landmarks, max_steps=_WALK, descends=False
        )
        return AgentsEnv(
            self._dynamics,
            _TrainingTask(self, self._dynamics),
            batch_size=[self.settings.agents],
            generator=self.generator,
            device=self.device,
        )

    def _values_of(self, seen: Mapping[str, Tensor]) -> Tensor:
        """Action values (N, 6) of agents for what each looks for."""
        prediction: Prediction = self.network(self._windows(seen["scan"], seen["position"]))
        rows = torch.arange(len(seen["landmark"]), device=self.device)
        return prediction.values[rows, seen["landmark"]]

    # Shared --------------------------------------------------------------------------------------

    def _windows(self, slot: Tensor, position: Tensor) -> Tensor:
        windows = crop(
            self.pool.pyramids,
            position // self.stride,
            self.settings.window,
            level=self.level,
            scan=slot,
        )
        return windows.contiguous(memory_format=torch.channels_last_3d)

    def _offsets(self, slot: Tensor, position: Tensor) -> tuple[Tensor, Tensor]:
        """Landmarks relative to positions, (N, K, 3) in steps, and which are labelled (N, K)."""
        offset = (self.pool.points[slot] - position[:, None]) / self.stride
        known = ~offset.isnan().any(dim=-1)
        return offset.nan_to_num(), known

    def _weights(self, offset: Tensor, known: Tensor) -> Tensor:
        """Attention to near landmarks: those are the ones an agent here is looking for."""
        distance = offset.square().sum(dim=-1).sqrt()
        return known * (torch.exp(-((distance / self.settings.near) ** 2)) + 0.02)
