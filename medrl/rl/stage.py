"""One stage of a training, run to its end with checkpoints and logs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Protocol

import torch
from torch import Generator, nn

from medrl.rl.checkpoint import load_checkpoint, save_checkpoint

#: Called with what is being done, the steps done, all steps, and numbers worth showing.
Progress = Callable[[str, int, int, Mapping[str, float]], None]

_CHECKPOINT_EVERY = 100
_REPORT_EVERY = 20


class Learner(Protocol):
    """What every stage has: a step that learns from one batch, and a number of them."""

    step: int

    @property
    def optimizer(self) -> torch.optim.Optimizer:
        """What changes the weights."""

    @property
    def generator(self) -> Generator:
        """Source of all choices."""

    @property
    def total_steps(self) -> int:
        """Batches in all."""

    def train_step(self) -> dict[str, float]:
        """Learn from one batch; figures by name."""


def run_stage(
    learner: Learner, network: nn.Module, path: Path, *, logs: Path, resume: bool, report: Progress
) -> None:
    """Train to the end, from the stage's checkpoint if there is one.

    Args:
        learner: What learns.
        network: What it changes.
        path: The checkpoint.
        logs: Folder for TensorBoard.
        resume: Go on from the checkpoint.
        report: Called now and then.

    Raises:
        MedrlError: If the checkpoint is damaged or was written with other settings.
    """
    from torch.utils.tensorboard import SummaryWriter

    if resume and path.exists():
        learner.step = load_checkpoint(
            path, network=network, optimizer=learner.optimizer, generator=learner.generator
        )
    sums: dict[str, float] = {}
    counts: dict[str, int] = {}
    with SummaryWriter(str(logs / path.stem)) as log:
        while learner.step < learner.total_steps:
            for name, value in learner.train_step().items():
                sums[name] = sums.get(name, 0.0) + value
                counts[name] = counts.get(name, 0) + 1
            last = learner.step == learner.total_steps
            if learner.step % _REPORT_EVERY == 0 or last:
                means = {name: value / counts[name] for name, value in sums.items()}
                for name, value in means.items():
                    log.add_scalar(name, value, learner.step)
                report(path.stem, learner.step, learner.total_steps, means)
                sums, counts = {}, {}
            if learner.step % _CHECKPOINT_EVERY == 0 or last:
                save_checkpoint(
                    path,
                    step=learner.step,
                    network=network,
                    optimizer=learner.optimizer,
                    generator=learner.generator,
                )
