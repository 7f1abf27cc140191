"""A run: what is there to do, what is done already, and working through the rest."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from medrl.batch.cases import Case
from medrl.batch.derivatives import describe_dataset
from medrl.batch.found import LeftOut
from medrl.batch.history import Entry
from medrl.batch.report import write_report
from medrl.batch.store import Store
from medrl.batch.tables import write_left_out, write_tables
from medrl.batch.task import CaseTask
from medrl.engines import Engine, Outcome
from medrl.errors import MedrlError


@dataclass(frozen=True)
class Plan:
    """What a run would do.

    Attributes:
        todo: Cases to work on.
        done: Cases that are done already.
        failed: Cases that have failed before and are left so.
    """

    todo: tuple[Case, ...]
    done: tuple[Case, ...]
    failed: tuple[Case, ...]


@dataclass(frozen=True)
class Summary:
    """How many of a run's cases are done and have failed, now or before.

    Attributes:
        done: Those with results.
        failed: Those without.
        doubtful: Those of which nobody should use the results without a look at them.
    """

    done: int
    failed: int
    doubtful: int = 0


def plan(cases: Sequence[Case], root: Path, *, retry: bool = False) -> Plan:
    """Tell what is left to do.

    Args:
        cases: All there are.
        root: The output folder.
        retry: Try again what has failed before.
    """
    store = Store(root)
    todo, done, failed = [], [], []
    for case in cases:
        if store.record(case) is not None:
            done.append(case)
        elif not retry and store.failure(case) is not None:
            failed.append(case)
        else:
            todo.append(case)
    return Plan(tuple(todo), tuple(done), tuple(failed))


def run(
    task: CaseTask,
    cases: Sequence[Case],
    root: Path,
    engine: Engine,
    *,
    timeout: float | None = None,
    retry: bool = False,
    shard: str = "",
    options: Mapping[str, Any] | None = None,
    left_out: Sequence[LeftOut] = (),
    on_end: Callable[[Outcome], None] | None = None,
) -> Summary:
    """Work through the cases that are not done yet, and write the tables of the run.

    Args:
        task: What to do.
        cases: What to do it to.
        root: The output folder; a run that was ended there goes on.
        engine: Where it is done.
        timeout: Seconds that each of reading, working and writing may take.
        retry: Try again what has failed before.
        shard: Which part of all cases these are, such as ``1/4``: parts may run side by side.
        options: What ``run.json`` is to say of how the run was started, in terms of JSON.
        left_out: What was met beside the cases, for ``left_out.csv`` and the report.
        on_end: Called for each case that ends.

    Returns:
        How many are done and have failed.

    Raises:
        MedrlError: If the folder is in use or holds other results, or no case can be worked on.
        KeyboardInterrupt: If the user wants no more, or SIGTERM or SIGHUP says so; what is done
            stays and the tables say it, the report is left to the run that goes on.
    """
    store = Store(root)
    with store.locked(shard):
        store.agree(task.fingerprint())
        describe_dataset(root, cases, task.system, task.fingerprint())
        if not shard:
            store.sweep()
        for case in cases:
            store.put_in_place(case)
        if retry:
            store.forget_failures()
        write_left_out(store, left_out)
        left = plan(cases, root).todo
        entry = Entry(store, options or {}, shard=shard, todo=len(left))

        by_name = {case.name: case for case in left}

        def ended(outcome: Outcome) -> None:
            entry.count(failed=outcome.error is not None)
            if outcome.error is not None:
                case = by_name[outcome.name]
                outcome = replace(outcome, error=case.discreet(outcome.error))
                store.fail(case, str(outcome.error))
            if on_end is not None:
                on_end(outcome)

        trouble: MedrlError | KeyboardInterrupt | None = None
        try:
            with _ended_by_signals():
                engine.run(task, left, store, timeout=timeout, on_end=ended)
        except (MedrlError, KeyboardInterrupt) as error:
            trouble = error
        try:
            entry.end("finished" if trouble is None else str(trouble) or "interrupted")
            write_tables(store, {"verb": task.system.verb, "task": task.fingerprint()})
            if not isinstance(trouble, KeyboardInterrupt):
                write_report(store, task.system, task.fingerprint(), left_out)
        finally:
            if trouble is not None:
                raise trouble
    ended_now = plan(cases, root)
    records = [store.record(case) or {} for case in ended_now.done]
    doubtful = sum(bool(record.get("doubtful")) for record in records)
    return Summary(len(ended_now.done), len(ended_now.failed), doubtful)


@contextmanager
def _ended_by_signals() -> Iterator[None]:
    """Let SIGTERM, which schedulers send first, and SIGHUP do what Ctrl-C does.

    Not where somebody has decided otherwise, such as nohup; in threads nothing changes.
    """

    def end(number: int, _: object) -> None:
        raise KeyboardInterrupt(f"ended by {signal.Signals(number).name}")

    taken = []
    try:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGTERM, signal.SIGHUP):
                if signal.getsignal(number) is signal.SIG_DFL:
                    signal.signal(number, end)
                    taken.append(number)
        yield
    finally:
        for number in taken:
            signal.signal(number, signal.SIG_DFL)
