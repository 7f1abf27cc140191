"""Proof that a training goes on with the same bits, for the tests of every system's learners."""

from __future__ import annotations

import os
import random
import signal
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from medrl.engines.local import LocalEngine
from medrl.rl.checkpoint import load_checkpoint
from medrl.rl.jobs import Job, run_jobs
from medrl.rl.learner import Learner
from medrl.rl.stage import Progress, run_stage


def assert_resumes(make_learner: Callable[[], Learner], folder: Path, *, interrupt_at: int) -> None:
    """Train as a whole, and in two parts by two learners, and compare all that they hold.

    Args:
        make_learner: Builds the same learner each time, of a few steps in all.
        folder: For checkpoints; an empty one.
        interrupt_at: Steps done when the training is stopped, more than 0.
    """
    whole = make_learner()
    run_stage(whole, folder / "whole.safetensors")
    assert whole.step == whole.total_steps > interrupt_at

    path = folder / "parts.safetensors"
    first = make_learner()
    stop_at(first, interrupt_at)
    with suppress(InterruptedError):
        run_stage(first, path, checkpoint_every=interrupt_at)
    torch.rand(7)  # whatever else has drawn from the global generator
    second = make_learner()
    counted = count_steps(second)
    run_stage(second, path, resume=True)
    assert len(counted) == whole.total_steps - interrupt_at
    assert_same(second.state_dict(), whole.state_dict())


def stop_at(learner: Learner, step: int) -> None:
    """Let a learner raise when it is asked for more than so many steps."""
    train_step = learner.train_step

    def interrupted() -> dict[str, float]:
        if learner.step == step:
            raise InterruptedError
        return train_step()

    learner.train_step = interrupted  # type: ignore[method-assign]


def count_steps(learner: Learner) -> list[int]:
    """The steps that a learner takes from now on."""
    counted: list[int] = []
    train_step = learner.train_step

    def counting() -> dict[str, float]:
        counted.append(learner.step)
        return train_step()

    learner.train_step = counting  # type: ignore[method-assign]
    return counted


def assert_same(one: Any, other: Any, name: str = "state") -> None:
    """Compare nested states bit by bit."""
    assert type(one) is type(other), name
    if isinstance(one, Tensor):
        assert (one.shape, one.dtype) == (other.shape, other.dtype), name
        same = [t.detach().cpu().contiguous().flatten().view(torch.uint8) for t in (one, other)]
        assert torch.equal(*same), name
    elif isinstance(one, dict):
        assert list(one) == list(other), name
        for key, value in one.items():
            assert_same(value, other[key], f"{name}.{key}")
    elif isinstance(one, list | tuple):
        assert len(one) == len(other), name
        for index, parts in enumerate(zip(one, other, strict=True)):
            assert_same(*parts, f"{name}[{index}]")
    else:
        assert one == other or one != one, name


def assert_survives_kill(
    make_learner: Callable[[], Learner], folder: Path, *, kill_at: int, checkpoint_every: int = 2
) -> None:
    """Kill the worker process of a training by ``kill -9``, and compare what comes of it.

    Args:
        make_learner: Builds the same learner each time, also elsewhere: it can be pickled.
        folder: An empty one.
        kill_at: The kill falls anywhere into the step after so many, or beyond it, but before the
            last.
        checkpoint_every: Steps.
    """
    arguments = {"make_learner": make_learner, "checkpoint_every": checkpoint_every}
    whole = Job("whole", train_alone, arguments)
    killed = Job("killed", train_alone, {**arguments, "to_be_killed": True})
    run_jobs([whole], folder)
    killing: list[threading.Timer] = []

    def report(what: str, done: int, total: int, figures: Mapping[str, float]) -> None:
        if done == kill_at and not killing:
            pid = int(figures["pid"])
            delay = random.uniform(0, figures["seconds"])
            killing.append(threading.Timer(delay, os.kill, (pid, signal.SIGKILL)))
            killing[0].start()

    pids = run_jobs([killed], folder, LocalEngine(1), report=report)["killed"]
    assert killing
    assert len(set(pids)) == 2
    one, other = (
        load_checkpoint(folder / name / "stage.safetensors", signature=make_learner().signature())
        for name in ("whole", "killed")
    )
    assert_same(other["learner"], one["learner"])


def train_alone(
    folder: Path,
    report: Progress,
    *,
    make_learner: Callable[[], Learner],
    checkpoint_every: int,
    to_be_killed: bool = False,
) -> list[int]:
    """A job: train, and tell every step; returns the processes that have had a part in it."""
    with (folder / "pids").open("a") as pids:
        pids.write(f"{os.getpid()}\n")
    first = len((folder / "pids").read_text().split()) == 1
    learner = make_learner()
    train_step = learner.train_step

    def telling() -> dict[str, float]:
        if to_be_killed and first and learner.step == learner.total_steps - 1:
            time.sleep(60)
        began = time.perf_counter()
        figures = train_step()
        seconds = time.perf_counter() - began
        told = {"pid": os.getpid(), "seconds": seconds}
        report("step", learner.step, learner.total_steps, told)
        return figures

    learner.train_step = telling  # type: ignore[method-assign]
    run_stage(learner, folder / "stage.safetensors", resume=True, checkpoint_every=checkpoint_every)
    return [int(pid) for pid in (folder / "pids").read_text().split()]
