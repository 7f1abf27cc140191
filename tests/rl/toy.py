"""A learner of everything that a learner may have, on a corridor: small enough for tests."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Generator, Tensor, nn

from medrl.rl.checkpoint import State
from medrl.rl.dqn import DQN
from medrl.rl.learner import Learner
from medrl.rl.pool import Pool
from medrl.rl.replay import Replay
from medrl.rl.schedule import one_cycle

SIZE = 5


@dataclass(frozen=True)
class ToySettings:
    """How it learns."""

    steps: int = 30
    batch: int = 8
    agents: int = 4
    learning_rate: float = 1e-2
    mixed_precision: bool = False


class ToyLearner(Learner):
    """Agents walk to a goal, elsewhere in each of a pool's corridors; dropout draws globally."""

    settings: ToySettings

    def __init__(self, settings: ToySettings = ToySettings(), *, seed: int = 0) -> None:
        """Build it."""
        torch.manual_seed(seed)
        network = nn.Sequential(
            nn.Linear(2 * SIZE, 16),
            nn.BatchNorm1d(16),
            nn.ReLU(),
            nn.Dropout(0.2),
            nn.Linear(16, 2),
        )
        generator = Generator().manual_seed(seed)
        super().__init__(
            modules={"network": network},
            optimizers={"network": torch.optim.AdamW(network.parameters())},
            generator=generator,
            total_steps=settings.steps,
            settings=settings,
            mixed_precision=settings.mixed_precision,
        )
        self.network = network
        self.pool = Pool(self._corridor, size=3, sources=7, generator=generator)
        self.replay = Replay(128, generator=generator)
        self.dqn = DQN(network, inputs=["seen"], gamma=0.8, target_rate=0.1)
        self.corridor = torch.zeros(settings.agents, dtype=torch.int64)
        self.position = torch.zeros(settings.agents, dtype=torch.int64)

    def train_step(self) -> dict[str, float]:
        """Every agent takes a step, and the network learns from some of those before."""
        s = self.settings
        self._act()
        drawn = self.replay.sample(s.batch)
        self.network.train()
        with self.autocast():
            loss = self.dqn(
                {"seen": drawn["seen"]},
                drawn["action"],
                drawn["reward"],
                {"seen": drawn["after"]},
                drawn["terminated"],
            ).mean()
        rate = s.learning_rate * one_cycle(self.step, s.steps)
        self.optimize(loss, learning_rate=rate, clip=1.0)
        self.dqn.update_target()
        if self.step % 5 == 0:
            self.pool.renew()
        self.step += 1
        return {"loss": float(loss.detach()), "step": float(self.step)}

    def extra_state(self) -> State:
        """The rest."""
        return {
            "pool": self.pool.state_dict(),
            "replay": self.replay.state_dict(),
            "target": self.dqn.state_dict(),
            "agents": {"corridor": self.corridor, "position": self.position},
        }

    def load_extra_state(self, state: State) -> None:
        """Take it back."""
        self.pool.load_state_dict(state["pool"])
        self.replay.load_state_dict(state["replay"])
        self.dqn.load_state_dict(state["target"])
        self.corridor = state["agents"]["corridor"]
        self.position = state["agents"]["position"]

    def _act(self) -> None:
        seen = self._seen()
        self.network.eval()
        with torch.no_grad():
            action = self.network(seen).argmax(dim=1)
        explore = torch.rand(len(action), generator=self.generator) < 0.3
        other = torch.randint(2, (len(action),), generator=self.generator)
        action = torch.where(explore, other, action)
        self.position = (self.position + 2 * action - 1).clamp(0, SIZE - 1)
        goals = torch.tensor([self.pool[slot] for slot in self.corridor.tolist()])
        terminated = self.position == goals
        self.replay.extend(
            {
                "seen": seen,
                "action": action,
                "reward": terminated.float(),
                "after": self._seen(),
                "terminated": terminated,
            }
        )
        fresh = torch.randint(len(self.pool), (len(action),), generator=self.generator)
        self.corridor = torch.where(terminated, fresh, self.corridor)
        self.position = torch.where(terminated, 0, self.position)

    def _seen(self) -> Tensor:
        goals = torch.tensor([self.pool[slot] for slot in self.corridor.tolist()])
        hot = nn.functional.one_hot
        return torch.cat([hot(self.position, SIZE), hot(goals, SIZE)], dim=1).float()

    @staticmethod
    def _corridor(source: int, generator: Generator) -> int:
        """Where the goal is: anywhere but at the beginning."""
        return 1 + (source + int(torch.randint(SIZE, (), generator=generator))) % (SIZE - 1)


def make_toy(**settings: float) -> ToyLearner:
    """The same learner every time."""
    return ToyLearner(ToySettings(**settings))  # type: ignore[arg-type]
