"""A log of a run for machines: one JSON object a line, as it happens.

Every line has ``event`` and ``time`` (ISO 8601 with zone).

| event | when | what else it says |
|---|---|---|
| ``start`` | work begins | ``medrl``, ``host``, ``process``, ``verb``, ``task`` (model, checksum, \
options of the task), ``options`` (of the command), ``cases`` (all), ``done`` and ``failed`` \
(before), ``todo``, ``left_out`` (files by reason) |
| ``case`` | a scan has ended | ``name``, ``status`` (``done`` or ``failed``), ``reason`` (of a \
failure, or null), ``seconds`` by stage (``reading``, ``working``, ``writing``; empty if it \
failed), ``warnings`` |
| ``end`` | the run is over | ``how`` (``finished``, ``interrupted``, or what went wrong), \
``done`` and ``failed`` (of all cases, now or before), ``wall_seconds`` |

A log without an ``end`` is that of a run that was killed, or still goes on. Runs on the same file
go on below each other. Names are those of files and folders; nothing is taken from what DICOM
files say of a patient.
"""

from __future__ import annotations

import json
import os
import platform
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Self, TextIO

import medrl
from medrl.batch.cases import Case
from medrl.batch.found import LeftOut
from medrl.batch.history import now
from medrl.batch.run import Plan, plan
from medrl.batch.task import CaseTask
from medrl.engines import Outcome
from medrl.errors import MedrlError


class EventLog:
    """Writes events; does nothing at all without a file."""

    def __init__(self, path: Path | None) -> None:
        """Open a file, to go on at its end.

        Args:
            path: The file; made if missing, its folder is not.

        Raises:
            MedrlError: If it cannot be written to.
        """
        self._path = path
        self._stream: TextIO | None = None
        self._began = time.monotonic()
        if path is not None:
            try:
                self._stream = path.open("a", encoding="utf-8")
            except OSError as error:
                raise MedrlError(f"cannot write the log {path}: {error.strerror}") from None

    def __enter__(self) -> Self:
        """Be closed when the block ends."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the file."""
        if self._stream is not None:
            self._stream.close()

    def start(
        self,
        task: CaseTask,
        known: Plan,
        options: Mapping[str, Any],
        left_out: Sequence[LeftOut] = (),
    ) -> None:
        """Work begins."""
        self._began = time.monotonic()
        self._write(
            "start",
            medrl=medrl.__version__,
            host=platform.node(),
            process=os.getpid(),
            verb=task.system.verb,
            task=task.fingerprint(),
            options=dict(options),
            cases=len(known.todo) + len(known.done) + len(known.failed),
            done=len(known.done),
            failed=len(known.failed),
            todo=len(known.todo),
            left_out=dict(Counter(one.reason for one in left_out).most_common()),
        )

    def case(self, outcome: Outcome) -> None:
        """A case has ended."""
        record = outcome.result
        status: Literal["done", "failed"] = "done" if outcome.error is None else "failed"
        self._write(
            "case",
            name=outcome.name,
            status=status,
            reason=outcome.error,
            seconds=record["seconds"] if record else {},
            warnings=record["warnings"] if record else [],
        )

    def end(self, how: str, cases: Sequence[Case], root: Path) -> None:
        """The run is over."""
        if self._stream is None:
            return
        known = plan(cases, root)
        wall = round(time.monotonic() - self._began, 1)
        self._write(
            "end", how=how, done=len(known.done), failed=len(known.failed), wall_seconds=wall
        )

    def _write(self, event: str, **content: Any) -> None:
        if self._stream is None:
            return
        try:
            line = json.dumps(
                {"event": event, "time": now(to="milliseconds"), **content}, allow_nan=False
            )
            self._stream.write(line + "\n")
            self._stream.flush()
        except OSError as error:
            raise MedrlError(f"cannot write the log {self._path}: {error.strerror}") from error
