"""One stage of a training, run to its end with checkpoints and logs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import torch

from medrl.errors import MedrlError
from medrl.rl.checkpoint import MISFITS, load_checkpoint, misfit, save_checkpoint
from medrl.rl.learner import Learner

#: Called with what is being done, the steps done, all steps, and numbers worth showing.
Progress = Callable[[str, int, int, Mapping[str, float]], None]

_REPORT_EVERY = 20


def checkpoint_folder(out: Path, *, resume: bool) -> Path:
    """Where a training keeps its checkpoints, ``out/checkpoints``; it is not made yet.

    Raises:
        MedrlError: If there are some, of a training that is not to be resumed.
    """
    checkpoints = out.absolute() / "checkpoints"
    if checkpoints.exists() and not resume:
        raise MedrlError(f"{out} holds checkpoints already: resume, or choose another folder")
    return checkpoints


def run_stage(
    learner: Learner,
    path: Path,
    *,
    logs: Path | None = None,
    resume: bool = False,
    report: Progress = lambda *_: None,
    checkpoint_every: int = 100,
) -> None:
    """Train to the end, from the stage's checkpoint if there is one.

    A stage that is complete is not run again: the learner gets the state it had at its end.

    Args:
        learner: What learns.
        path: The checkpoint; its stem is the name of the stage.
        logs: Folder for TensorBoard: the means of every 20 steps.
        resume: Go on from the checkpoint.
        report: Called with these means, too.
        checkpoint_every: Steps from one checkpoint to the next; there is one at the end as well.

    Raises:
        MedrlError: If the checkpoint is damaged or was written with other settings.
    """
    means = _Means()
    if resume and path.exists():
        state = load_checkpoint(path, signature=learner.signature())
        try:
            learner.load_state_dict(state["learner"])
            means = _Means(**state["means"])
        except MISFITS as error:
            raise misfit(path, "does not fit these settings and data") from error
    total = learner.total_steps
    if learner.step == total:
        report(path.stem, total, total, {})
        return
    with _tensorboard(logs and logs / path.stem, learner.step) as log:
        while learner.step < total:
            means.add(learner.train_step())
            last = learner.step == total
            if learner.step % _REPORT_EVERY == 0 or last:
                figures = means.take()
                log(figures, learner.step)
                report(path.stem, learner.step, total, figures)
            if learner.step % checkpoint_every == 0 or last:
                state = {"learner": learner.state_dict(), "means": vars(means)}
                save_checkpoint(path, state, signature=learner.signature())


@contextmanager
def reproducible(seed: int, *, threads: int) -> Iterator[None]:
    """Everything from one seed, on so many CPU threads; afterwards both are as they were.

    The bits of a training depend on the number of threads, so it does not follow from the machine.

    Args:
        seed: Of PyTorch's global generator, from which networks get their first weights.
        threads: For PyTorch's operations.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            yield
    finally:
        torch.set_num_threads(before)


class _Means:
    """Means of figures since they were last taken; not every step has all of them."""

    def __init__(
        self, sums: dict[str, float] | None = None, counts: dict[str, int] | None = None
    ) -> None:
        self.sums = sums or {}
        self.counts = counts or {}

    def add(self, figures: Mapping[str, float]) -> None:
        for name, value in figures.items():
            self.sums[name] = self.sums.get(name, 0.0) + value
            self.counts[name] = self.counts.get(name, 0) + 1

    def take(self) -> dict[str, float]:
        means = {name: value / self.counts[name] for name, value in self.sums.items()}
        self.sums, self.counts = {}, {}
        return means


@contextmanager
def _tensorboard(
    folder: Path | None, step: int
) -> Iterator[Callable[[Mapping[str, float], int], None]]:
    """Writes figures of a step; what an interrupted run has written beyond ``step`` is hidden."""
    if folder is None:
        yield lambda figures, step: None
        return
    from torch.utils.tensorboard import SummaryWriter

    with SummaryWriter(str(folder), purge_step=step + 1 if step else None) as writer:

        def write(figures: Mapping[str, float], step: int) -> None:
            for name, value in figures.items():
                writer.add_scalar(name, value, step)

        yield write
