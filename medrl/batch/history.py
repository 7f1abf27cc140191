"""When, where and with which options an output folder was worked on."""

from __future__ import annotations

import json
import os
import platform
import secrets
import time
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

import medrl
from medrl.batch.store import Store
from medrl.files import atomic_path

#: What every entry says.
_KEYS = {"started", "ended", "end", "wall_seconds", "host", "system", "medrl", "shard", "options"}


class Entry:
    """One run; it is written down when it begins, so that one that is killed can be seen, too."""

    def __init__(self, store: Store, options: Mapping[str, Any], *, shard: str, todo: int) -> None:
        """Write down that a run begins.

        Args:
            store: The output folder.
            options: What the user has asked for, in terms of JSON.
            shard: Which part of all cases it is.
            todo: How many cases it has to do.

        Raises:
            MedrlError: If it cannot be written.
        """
        self._began = time.monotonic()
        self._content: dict[str, Any] = {
            "started": now(),
            "ended": None,
            "end": None,
            "wall_seconds": None,
            "host": platform.node(),
            "system": f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores",
            "process": os.getpid(),
            "medrl": medrl.__version__,
            "shard": shard or None,
            "options": dict(options),
            "todo": todo,
            "done": 0,
            "failed": 0,
        }
        stamp = datetime.now().strftime("%Y%m%d-%H%M%S-%f")
        self._path = store.own("runs") / f"{stamp}-{secrets.token_hex(3)}.json"
        self._write()

    def count(self, *, failed: bool) -> None:
        """Note that a case has ended."""
        self._content["failed" if failed else "done"] += 1

    def end(self, how: str) -> None:
        """Write down that the run has ended.

        Args:
            how: ``finished``, ``interrupted``, or a line that says what went wrong.

        Raises:
            MedrlError: If it cannot be written.
        """
        wall = round(time.monotonic() - self._began, 1)
        self._content |= {"ended": now(), "end": how, "wall_seconds": wall}
        self._write()

    def _write(self) -> None:
        with atomic_path(self._path) as temporary:
            temporary.write_text(json.dumps(self._content, indent=1), encoding="utf-8")


def entries(store: Store) -> list[dict[str, Any]]:
    """What is known of the runs on an output folder, the first one first."""
    found = [_read(path) for path in sorted(store.own("runs").glob("[0-9]*.json"))]
    return [content for content in found if content is not None]


def now(*, to: str = "seconds") -> str:
    """The time, with its zone, as ISO 8601 has it, to seconds or milliseconds."""
    return datetime.now().astimezone().isoformat(timespec=to)


def _read(path: Path) -> dict[str, Any] | None:
    """An entry; None if somebody has damaged it, which is no reason to lose the tables."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    return content if isinstance(content, dict) and content.keys() >= _KEYS else None
