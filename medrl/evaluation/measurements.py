"""Long rows of what was measured: case, group, method, metric, value."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from medrl.errors import MedrlError

Array = NDArray[np.float64]

#: Name of the metric that :func:`measure` adds: how long a method took.
SECONDS = "seconds"


class Named(Protocol):
    """What is measured on: anything with a name, which is its case."""

    @property
    def name(self) -> str:
        """Unique among the cases."""


S = TypeVar("S", bound=Named)
L = TypeVar("L")
A = TypeVar("A")


@dataclass(frozen=True)
class Row:
    """One figure.

    Attributes:
        case: What it was measured on.
        group: A part of the case (a landmark, a target) or a kind of cases (a degree of
            difficulty); empty if there is none.
        method: Who answered.
        metric: What was measured, with its unit: ``error_mm``, ``dice``.
        value: The figure; NaN is a miss: the method gave no answer where one was due.
        subject: Whose case it is; cases of one subject are not independent.
    """

    case: str
    group: str
    method: str
    metric: str
    value: float
    subject: str


@dataclass(frozen=True)
class Failure:
    """What went wrong.

    Attributes:
        case: On which case.
        method: Whose failure it is; empty if the case itself could not be used.
        reason: One line.
    """

    case: str
    method: str
    reason: str


@dataclass(frozen=True)
class Measurements:
    """Rows, and what went wrong."""

    rows: tuple[Row, ...] = ()
    failures: tuple[Failure, ...] = ()

    def __add__(self, other: Measurements) -> Measurements:
        return Measurements(self.rows + other.rows, self.failures + other.failures)

    def select(self, **wanted: str | Sequence[str]) -> Measurements:
        """The rows with certain entries, ``select(method="agents", group=("a", "b"))``."""
        allowed = {key: {v} if isinstance(v, str) else set(v) for key, v in wanted.items()}
        rows = (r for r in self.rows if all(getattr(r, key) in v for key, v in allowed.items()))
        return replace(self, rows=tuple(rows))

    def unique(self, column: str) -> tuple[str, ...]:
        """The different entries of a column, in the order in which they first appear."""
        return tuple(dict.fromkeys(getattr(row, column) for row in self.rows))

    def by(self, column: str) -> dict[str, Measurements]:
        """The rows of each entry of a column."""
        parts: dict[str, list[Row]] = {}
        for row in self.rows:
            parts.setdefault(getattr(row, column), []).append(row)
        return {key: replace(self, rows=tuple(rows)) for key, rows in parts.items()}

    @property
    def values(self) -> Array:
        """The value of every row."""
        return np.array([row.value for row in self.rows], dtype=np.float64)

    @property
    def subjects(self) -> list[str]:
        """The subject of every row."""
        return [row.subject for row in self.rows]

    def column(self, metric: str, method: str) -> dict[tuple[str, str], float]:
        """The values of one method by case and group."""
        chosen = (r for r in self.rows if r.metric == metric and r.method == method)
        return {(row.case, row.group): row.value for row in chosen}

    def records(self) -> list[dict[str, Any]]:
        """A dictionary for each row, as tables of files want them."""
        return [asdict(row) for row in self.rows]


def measure(
    samples: Sequence[S],
    methods: Mapping[str, Callable[[L], A]],
    metrics: Mapping[str, Callable[[L, A], float | Mapping[str, float]]],
    *,
    load: Callable[[S], L] | None = None,
    groups: Callable[[L], Iterable[str]] = lambda _: ("",),
    subject: Callable[[S], str] = lambda sample: sample.name,
    failed: Mapping[str, float] | None = None,
    clock: Callable[[], float] = time.perf_counter,
    progress: Callable[[int, int, str], None] | None = None,
) -> Measurements:
    """Let every method answer every case, and measure the answers.

    A method fails by raising :class:`~medrl.errors.MedrlError`. It is measured nevertheless: with
    the value in ``failed``, or a miss, in every group of the case. So is an answer that leaves a
    group out.

    Args:
        samples: The cases, each with a name.
        methods: By name, from a loaded case to an answer.
        metrics: By name, from a loaded case and an answer to a value, or to values by group.
        load: Reads a case, once for all methods; a case with which that fails is listed and left
            out. If None, methods take the cases as they are.
        groups: The groups in which an answer is due: those landmarks that are in the scan. Metrics
            may have values in others, too.
        subject: Whose case it is.
        failed: Values by metric that stand for no answer, such as a Dice of 0; NaN if left out.
        clock: For the metric ``seconds``, by default of the wall; `time.process_time` is the CPU's.
        progress: Called with the cases done, their number, and the name of the next.

    Returns:
        The rows, in the order of cases, methods, metrics and groups, and all failures.
    """
    rows: list[Row] = []
    failures: list[Failure] = []
    for number, sample in enumerate(samples):
        if progress is not None:
            progress(number, len(samples), sample.name)
        try:
            loaded: Any = sample if load is None else load(sample)
            due = tuple(groups(loaded))
        except MedrlError as error:
            failures.append(Failure(sample.name, "", str(error)))
            continue
        for method, answer_to in methods.items():
            began = clock()
            found: dict[str, float | Mapping[str, float]] = {}
            try:
                answer = answer_to(loaded)
                seconds = clock() - began
                found = {name: metric(loaded, answer) for name, metric in metrics.items()}
            except MedrlError as error:
                seconds = clock() - began
                failures.append(Failure(sample.name, method, str(error)))
            whose = subject(sample)
            for metric_name in metrics:
                missed = (failed or {}).get(metric_name, float("nan"))
                value = found.get(metric_name, missed)
                by_group = value if isinstance(value, Mapping) else dict.fromkeys(due, value)
                rows += [
                    Row(sample.name, group, method, metric_name, float(figure), whose)
                    for group, figure in {**dict.fromkeys(due, missed), **by_group}.items()
                ]
            rows.append(Row(sample.name, "", method, SECONDS, seconds, whose))
    if progress is not None:
        progress(len(samples), len(samples), "")
    return Measurements(tuple(rows), tuple(failures))
