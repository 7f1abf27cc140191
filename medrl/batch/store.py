"""The output folder: what is done, what has failed, what is under way, and who may write.

A case is done when its folder is there with a ``case.json``: it is written elsewhere and renamed,
so what is there is whole, whenever and however the run was ended.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import secrets
import shutil
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from medrl.batch.cases import Case
from medrl.batch.tasks import Record
from medrl.errors import MedrlError
from medrl.files import atomic_path, prepare_folder

MARKER = "case.json"
_OWN = ".medrl"


class Store:
    """An output folder.

    Attributes:
        root: The folder.
    """

    def __init__(self, root: Path) -> None:
        """Take a folder; it and its parents are made if missing.

        Raises:
            MedrlError: If it cannot be written to.
        """
        self.root = prepare_folder(root)
        self._own = prepare_folder(root / _OWN)

    @contextlib.contextmanager
    def locked(self, shard: str = "") -> Iterator[None]:
        """Be the only run on this folder, or on a shard of it; over with the process in any case.

        Raises:
            MedrlError: If another run is.
        """
        path = self._own / f"lock{shard.replace('/', '-of-')}"
        with path.open("a+") as stream:
            try:
                fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                stream.seek(0)
                who = stream.read().strip() or "it does not say which"
                raise MedrlError(f"{self.root}: another run works on this folder ({who})") from None
            stream.truncate(0)
            stream.write(f"process {os.getpid()} on {os.uname().nodename}")
            stream.flush()
            yield

    def agree(self, facts: dict[str, Any]) -> None:
        """Begin or go on with results of some model and options.

        Raises:
            MedrlError: If the folder holds results of others.
        """
        path = self._own / "task.json"
        if path.exists():
            known = json.loads(path.read_text(encoding="utf-8"))
            other = [key for key in facts if known.get(key) != facts[key]]
            if other:
                raise MedrlError(
                    f"{self.root}: holds results of another run ({', '.join(sorted(other))} "
                    "differ); choose another folder"
                )
            return
        self._write(path, facts)

    def record(self, case: Case) -> dict[str, Any] | None:
        """What is known of a case that is done; None if it is not."""
        return _read(self.root / case.name / MARKER)

    def failure(self, case: Case) -> dict[str, Any] | None:
        """Why a case has failed; None if it has not."""
        return _read(self._failure(case))

    def records(self) -> dict[str, dict[str, Any]]:
        """What is known of all cases that are done, by name."""
        found = [_read(path) for path in self.root.rglob(MARKER) if _OWN not in path.parts]
        return _by_name(found)

    def failures(self) -> dict[str, dict[str, Any]]:
        """What is known of all cases that have failed, by name."""
        return _by_name([_read(path) for path in (self._own / "failed").glob("*.json")])

    def work_folder(self, case: Case) -> Path:
        """An empty folder for results that are not whole yet."""
        folder = self._own / "work" / f"{_token(case)}-{secrets.token_hex(4)}"
        folder.mkdir(parents=True)
        return folder

    def finish(self, case: Case, folder: Path, record: Record, seconds: dict[str, float]) -> None:
        """Make a case done: its work folder becomes its folder.

        Raises:
            MedrlError: If that cannot be.
        """
        content = {"case": case.plain(), **asdict(record), "seconds": seconds}
        self._write(folder / MARKER, content)
        self._settle(case, folder)

    def take(self, case: Case) -> dict[str, bytes]:
        """The files of a case that is done, by their paths in its folder, which is removed."""
        folder = self.root / case.name
        files = [file for file in sorted(folder.rglob("*")) if file.is_file()]
        content = {file.relative_to(folder).as_posix(): file.read_bytes() for file in files}
        shutil.rmtree(folder)
        return content

    def put(self, case: Case, files: dict[str, bytes]) -> None:
        """Make a case done with files that :meth:`take` took from another output folder.

        Raises:
            MedrlError: If they cannot be written.
        """
        folder = self.work_folder(case)
        try:
            for name, content in files.items():
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                (folder / name).write_bytes(content)
            self._settle(case, folder)
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def _settle(self, case: Case, folder: Path) -> None:
        """Rename a work folder to the case's own."""
        target = self.root / case.name
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            folder.rename(target)
        except OSError as error:
            shutil.rmtree(folder, ignore_errors=True)
            if self.record(case) is None:
                raise MedrlError(f"cannot write {target}: {error.strerror}") from None
        self._failure(case).unlink(missing_ok=True)

    def fail(self, case: Case, reason: str) -> None:
        """Note why a case has failed."""
        self._write(self._failure(case), {"case": case.plain(), "reason": reason})

    def sweep(self) -> None:
        """Take away what earlier runs left half done."""
        shutil.rmtree(self._own / "work", ignore_errors=True)

    def forget_failures(self) -> None:
        """Let what has failed be tried again."""
        shutil.rmtree(self._own / "failed", ignore_errors=True)

    # ---------------------------------------------------------------------------------------------

    def _failure(self, case: Case) -> Path:
        return self._own / "failed" / f"{_token(case)}.json"

    def _write(self, path: Path, content: dict[str, Any]) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_path(path) as temporary:
            temporary.write_text(json.dumps(content, indent=1, allow_nan=False), encoding="utf-8")


def _token(case: Case) -> str:
    """A short name for a case that any file system takes."""
    return hashlib.sha256(case.name.encode()).hexdigest()[:20]


def _by_name(found: list[dict[str, Any] | None]) -> dict[str, dict[str, Any]]:
    known = {str(content["case"]["name"]): content for content in found if content is not None}
    return dict(sorted(known.items()))


def _read(path: Path) -> dict[str, Any] | None:
    try:
        content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise MedrlError(f"{path}: cannot be read: {error}") from error
    return content
