"""What every learner is: modules and optimizers by name, one step, and a state that is complete."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import asdict
from typing import Any

import torch
from torch import Generator, Tensor, nn
from torch.optim import Optimizer

from medrl.rl.checkpoint import State
from medrl.rl.optimize import optimize


class Learner(ABC):
    """Something that learns step by step, and can be stopped after any of them.

    A subclass hands its modules and optimizers over by name and writes :meth:`train_step`. What
    else its next step depends on it adds by :meth:`extra_state` and takes back by
    :meth:`load_extra_state`: replay, target networks, the order of a sampler, agents on their way
    (``Rows.state_dict()``), pools of scans as the seeds they were made from. A learner that gets
    the state of another goes on with the same bits, on the same machine and with the same number
    of threads (``torch.set_num_threads``, which is up to whoever runs it).

    All choices come from ``generator``. Where something draws from PyTorch's global generator all
    the same (dropout, the first weights of a network), that is reproduced, too: its state is saved
    and set again.

    Attributes:
        modules: What learns, by name; with their buffers, and whether they are in training mode.
        optimizers: What changes the weights, by name.
        generator: Source of all choices, on the CPU.
        total_steps: Steps in all.
        settings: A dataclass: what a checkpoint must have been written with.
        device: Where the modules are.
        scaler: Scales the loss in mixed precision.
        step: Steps done; :meth:`train_step` counts.
    """

    def __init__(
        self,
        *,
        modules: Mapping[str, nn.Module],
        optimizers: Mapping[str, Optimizer],
        generator: Generator,
        total_steps: int,
        settings: Any = None,
        device: str | torch.device = "cpu",
        mixed_precision: bool | None = None,
    ) -> None:
        """Name the parts.

        Args:
            modules: What learns, on ``device`` already.
            optimizers: What changes the weights.
            generator: Source of all choices.
            total_steps: Steps in all.
            settings: A dataclass that says how.
            device: Torch device.
            mixed_precision: Compute in float16 (bfloat16 on the CPU) where that is safe; left
                out, on CUDA only.
        """
        self.modules = dict(modules)
        self.optimizers = dict(optimizers)
        self.generator = generator
        self.total_steps = total_steps
        self.settings = settings
        self.device = torch.device(device)
        self.step = 0
        mixed = self.device.type == "cuda" if mixed_precision is None else mixed_precision
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=mixed)

    @abstractmethod
    def train_step(self) -> dict[str, float]:
        """Learn from one batch, and count the step.

        Returns:
            Figures worth showing, by name; not every step has all of them.
        """

    def autocast(self) -> AbstractContextManager[None]:
        """The precision of the forward pass."""
        return torch.autocast(self.device.type, enabled=self.scaler.is_enabled())

    def optimize(
        self, loss: Tensor, *, learning_rate: float, clip: float, optimizer: str = "network"
    ) -> None:
        """Take one step down a loss; see :func:`medrl.rl.optimize.optimize`."""
        optimize(
            loss,
            self.optimizers[optimizer],
            learning_rate=learning_rate,
            clip=clip,
            scaler=self.scaler,
        )

    def extra_state(self) -> State:
        """What the next step depends on beyond what the base class knows."""
        return {}

    def load_extra_state(self, state: State) -> None:  # noqa: B027 - not everyone has some
        """Take back what :meth:`extra_state` gave."""

    def signature(self) -> State:
        """What a checkpoint must have been written with, in terms of JSON."""
        settings = {} if self.settings is None else asdict(self.settings)
        return {"total_steps": self.total_steps, **settings}

    def state_dict(self) -> State:
        """Everything that the next step depends on; tensors are not copied."""
        state = {
            "step": self.step,
            "modules": {name: module.state_dict() for name, module in self.modules.items()},
            "evaluating": {
                name: [path for path, part in module.named_modules() if not part.training]
                for name, module in self.modules.items()
            },
            "optimizers": {name: one.state_dict() for name, one in self.optimizers.items()},
            "scaler": self.scaler.state_dict(),
            "generator": self.generator.get_state(),
            "global_generator": torch.get_rng_state(),
            "extra": self.extra_state(),
        }
        if self.device.type == "cuda":
            state["cuda_generator"] = torch.cuda.get_rng_state(self.device)
        return state

    def load_state_dict(self, state: State) -> None:
        """Go on from the state of a learner that was built in the same way."""
        for name, module in self.modules.items():
            module.load_state_dict(state["modules"][name])
            evaluating = set(state["evaluating"][name])
            for path, part in module.named_modules():
                part.training = path not in evaluating
        for name, optimizer in self.optimizers.items():
            optimizer.load_state_dict(state["optimizers"][name])
        if self.scaler.is_enabled():
            self.scaler.load_state_dict(state["scaler"])
        self.load_extra_state(state["extra"])
        # After all that, as making parts anew may draw.
        self.step = state["step"]
        self.generator.set_state(state["generator"])
        torch.set_rng_state(state["global_generator"])
        if self.device.type == "cuda":
            torch.cuda.set_rng_state(state["cuda_generator"], self.device)
