"""Training what decides: double DQN on the agents' own walks, with the cutter as it is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Generator, Tensor

from medrl.agents.policy import masked
from medrl.cutting.dynamics import CUT, GONE, CutState, context_of
from medrl.cutting.learner import LearnerSettings
from medrl.cutting.model import ModelSettings
from medrl.cutting.network import CutNetwork, for_inference
from medrl.cutting.samples import Source
from medrl.cutting.search import Sight, see
from medrl.cutting.training_stacks import TrainingStacks
from medrl.cutting.windows import at_least, box_of_mask
from medrl.rl.checkpoint import State
from medrl.rl.dqn import DQN
from medrl.rl.learner import Learner
from medrl.rl.replay import Replay
from medrl.rl.schedule import one_cycle

#: Agents whose boxes are moved away from where they are, and how far, in shares of their size.
_ASTRAY, _FAR = 0.5, 0.35
#: Pictures beyond the object that an agent may come to.
_BEYOND = 2
_LOST = 0.15
_INPUTS = ("deep", "summary", "judged")


class PolicyLearner(Learner):
    """Owns the policy network, the stacks it learns on, and the agents in them."""

    settings: LearnerSettings

    def __init__(
        self,
        cutter: CutNetwork,
        sources: Sequence[Source],
        *,
        model: ModelSettings,
        settings: LearnerSettings,
        steps: int,
        seed: int,
        device: str = "cpu",
    ) -> None:
        """Build the network.

        Args:
            cutter: What cuts; it stays as it is.
            sources: Labelled scans and films.
            model: What is trained.
            settings: How to train.
            steps: Batches.
            seed: Fixes every random choice.
            device: Torch device.
        """
        torch.manual_seed(seed)
        self.network = model.build_policy().to(device)
        super().__init__(
            modules={"network": self.network},
            optimizers={"network": torch.optim.AdamW(self.network.parameters(), weight_decay=1e-4)},
            generator=Generator().manual_seed(seed),
            total_steps=steps,
            settings=settings,
            device=device,
            mixed_precision=False,
        )
        self._cutter = for_inference(cutter)
        self.stacks = TrainingStacks(
            sources,
            view=model.view,
            slots=settings.slots,
            changes=settings.changes,
            rewards=settings.rewards,
            generator=self.generator,
            device=device,
        )
        self.replay = Replay(settings.replay, generator=self.generator)
        self._dqn = DQN(self.network, inputs=_INPUTS, gamma=settings.rewards.gamma, masked=True)
        self._state: CutState | None = None

    def extra_state(self) -> State:
        """Stacks at hand, what was seen, the target network, and where agents are."""
        return {
            "pool": self.stacks.state_dict(),
            "replay": self.replay.state_dict(),
            "target": self._dqn.state_dict(),
            "agents": None if self._state is None else self._state.state_dict(),
        }

    def load_extra_state(self, state: State) -> None:
        """Take them back."""
        self.stacks.load_state_dict(state["pool"])
        self.replay.load_state_dict(state["replay"])
        self._dqn.load_state_dict(state["target"])
        self._state = None
        if state["agents"] is not None:
            self._state = CutState.from_state_dict(state["agents"]).to(self.device)

    def train_step(self) -> dict[str, float]:
        """Every agent takes a step; a batch of what they remember is learned from."""
        s = self.settings
        if self.step == 0:
            self.network.eval()
            self._dqn.copy_to_target()
            while len(self.replay) < 4 * s.policy_batch:
                self._collect()
        figures = self._collect()
        drawn = self.replay.sample(s.policy_batch, device=self.device)
        loss = self._dqn(
            {name: drawn[f"before.{name}"].float() for name in _INPUTS}
            | {"allowed": drawn["before.allowed"]},
            drawn["action"],
            drawn["reward"],
            {name: drawn[f"after.{name}"].float() for name in _INPUTS}
            | {"allowed": drawn["after.allowed"]},
            drawn["terminated"],
        ).mean()
        rate = s.policy_learning_rate * one_cycle(self.step, self.total_steps)
        self.optimize(loss, learning_rate=rate, clip=5.0)
        self._dqn.update_target()
        self.step += 1
        return {"td": float(loss.detach()), **figures}

    def _collect(self) -> dict[str, float]:
        """Every agent takes a step, exploring now and then; those that ended start anew."""
        s, task = self.settings, self.stacks.task
        if self._state is None:
            self._state = self._astray(task.begin(s.batch, self.generator))
        elif s.refresh and int(torch.randint(6, (1,), generator=self.generator)) == 0:
            slots = torch.tensor(self.stacks.refresh(s.refresh), device=self.device)
            self._restart(torch.nonzero(torch.isin(self._state.stack, slots))[:, 0])
        state, dynamics = self._state, task.dynamics
        with torch.no_grad():
            sight = see(self._cutter, dynamics, state)
            allowed = dynamics.allowed(state)
            values = masked(self.network(sight.deep, sight.summary, sight.judged), allowed)
            action = self._explored(state, values.argmax(dim=1), allowed)
        first = task.overlap_of(state, sight.mask)
        after = dynamics.step(state, action, mask=sight.mask)
        moves = (action != CUT) & (action != GONE)
        second, later = first, sight
        with torch.no_grad():
            if moves.any():
                later = see(self._cutter, dynamics, after)
                second = torch.where(moves, task.overlap_of(after, later.mask), first)
        reward = task.reward_of(state, action, first, second)
        self.replay.extend(
            {
                **_kept("before", sight, allowed),
                **_kept("after", later, dynamics.allowed(after)),
                "action": action,
                "reward": reward,
                # A picture is an episode of its own: what comes after a cut is the next one's.
                "terminated": ~moves,
            }
        )
        present = task.present[state.picture]
        cuts, gone = action == CUT, action == GONE
        figures = {"reward": float(reward.mean()), "moves": float(moves.float().mean())}
        if (cuts & present).any():
            figures["overlap"] = float(first[cuts & present].mean())
        if (cuts | gone).any():
            figures["right end"] = float((gone == ~present)[cuts | gone].float().mean())
        past = (state.picture - state.last.picture).abs() >= _BEYOND
        over = ~after.active | (cuts & ((first < _LOST) | ~present)) | (past & ~present & ~moves)
        fresh = cuts & after.active & ~over
        self._state = after
        rows = torch.nonzero(fresh)[:, 0]
        if len(rows):
            self._state = self._state.put(rows, self._astray(self._state.select(rows)))
        self._restart(torch.nonzero(over)[:, 0])
        return figures

    def _explored(self, state: CutState, action: Tensor, allowed: Tensor) -> Tensor:
        """Some of the actions by chance, guided by where the truth is."""
        s, task, g = self.settings, self.stacks.task, self.generator
        others = allowed
        if s.guided:
            box, there = box_of_mask(task.truth[state.picture])
            tried, _ = task.dynamics.destinations(state)
            size = (box[:, 1] - box[:, 0])[:, None, None]
            off = ((tried - box[:, None]) / size).abs().mean(dim=(2, 3))
            now = ((state.object - box)[:, None] / size).abs().mean(dim=(2, 3))
            better = (off < now - 1e-3) | (torch.arange(off.shape[1]) >= 8).to(off.device)
            others = torch.where(there[:, None], allowed & better, allowed)
        # Agents end often enough by chance that what a cut is worth is known everywhere.
        weight = others.float()
        weight[:, CUT] = 2.0
        other = torch.multinomial(weight.cpu(), 1, generator=g)[:, 0].to(action)
        explores = torch.rand(len(action), generator=g) < s.epsilon
        return torch.where(explores.to(action.device), other, action)

    def _astray(self, state: CutState) -> CutState:
        """Agents, some of them with boxes that are off, as after a fast movement."""
        g, count = self.generator, len(state)
        size = state.object[:, 1] - state.object[:, 0]
        normal = torch.randn((2, count, 2), generator=g).to(size)
        spread = _FAR * torch.rand((count, 1), generator=g).to(size)
        middle = state.object.mean(dim=1) + size * spread * normal[0].clamp(-2, 2)
        half = size / 2 * (0.5 * spread * normal[1]).clamp(-0.4, 0.4).exp()
        box = at_least(torch.stack([middle - half, middle + half], dim=1), 3.0)
        shape = torch.tensor(self.stacks.task.dynamics.shape, device=box.device)
        inside = ((box.mean(1) > 0) & (box.mean(1) < shape - 1)).all(dim=1)
        away = (torch.rand(count, generator=g).to(size) < _ASTRAY) & inside
        new = torch.where(away[:, None, None], box, state.object)
        return replace(state, object=new, context=context_of(new))

    def _restart(self, rows: Tensor) -> None:
        if len(rows) and self._state is not None:
            fresh = self._astray(self.stacks.task.begin(len(rows), self.generator))
            self._state = self._state.put(rows, fresh)


def _kept(when: str, sight: Sight, allowed: Tensor) -> dict[str, Tensor]:
    """What the policy reads of a state, in half precision."""
    fields = {"deep": sight.deep, "summary": sight.summary, "judged": sight.judged}
    kept = {f"{when}.{name}": field.half() for name, field in fields.items()}
    return kept | {f"{when}.allowed": allowed}
