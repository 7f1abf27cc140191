"""The output folder: what is done, what has failed, what is under way, and who may write.

A case is done when its folder is there with a ``case.json``: it is written elsewhere and renamed,
so what is there is whole, whenever and however the run was ended.

The files of a BIDS derivative share folders. Those of a case are put together in a folder of its
own all the same, which is renamed when they are complete, and go one by one from there to where
they belong: a run that is ended in between has the case done, and the next one puts the rest in
place.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import platform
import secrets
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from medrl.batch.cases import MARKER, Case
from medrl.batch.thumbnails import make_thumbnail
from medrl.engines import Output
from medrl.errors import MedrlError
from medrl.files import atomic_path, prepare_folder

_OWN = ".medrl"


@dataclass(frozen=True)
class Record:
    """What became of a case.

    Attributes:
        rows: For the table of the run.
        warnings: What the user should know, one line each.
        picture: Name of a picture among its files, if there is one.
        doubtful: Whether nobody should use it without a look at it; the first warning says why.
    """

    rows: list[dict[str, Any]]
    warnings: list[str] = field(default_factory=list)
    picture: str | None = None
    doubtful: bool = False


class Store(Output[Case]):
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

    def at(self, root: Path) -> Store:
        """An output folder in another place."""
        return Store(root)

    @contextlib.contextmanager
    def locked(self, shard: str = "") -> Iterator[None]:
        """Be the only run on this folder, or on a shard of it; over with the process in any case.

        Raises:
            MedrlError: If another run is.
        """
        path = self._own / f"lock{shard.replace('/', '-of-')}"
        holder = path.with_name(f"{path.name}.holder")
        lock = FileLock(path, timeout=0)
        try:
            lock.acquire()
        except Timeout:
            known = holder.read_text(encoding="utf-8") if holder.exists() else ""
            who = known or "it does not say which"
            raise MedrlError(f"{self.root}: another run works on this folder ({who})") from None
        try:
            holder.write_text(f"process {os.getpid()} on {platform.node()}", encoding="utf-8")
            yield
        finally:
            lock.release()

    def agree(self, fingerprint: dict[str, Any]) -> None:
        """Begin or go on with results of some model and options.

        Raises:
            MedrlError: If the folder holds results of others.
        """
        path = self._own / "task.json"
        known = _load(path)
        if known is not None:
            other = [key for key in fingerprint if known.get(key) != fingerprint[key]]
            if other:
                raise MedrlError(
                    f"{self.root}: holds results of another run ({', '.join(sorted(other))} "
                    "differ); choose another folder"
                )
            return
        self._write(path, fingerprint)

    def record(self, case: Case) -> dict[str, Any] | None:
        """What is known of a case that is done; None if it is not."""
        return _if_of(case, self._whole(self._home(case)))

    def failure(self, case: Case) -> dict[str, Any] | None:
        """Why a case has failed; None if it has not."""
        return _if_of(case, _read(self._failure(case)))

    def records(self) -> dict[str, dict[str, Any]]:
        """What is known of all cases that are done, by name."""
        homes = [path.parent for path in self.root.rglob(MARKER) if _OWN not in path.parts]
        homes += [path.parent for path in (self._own / "done").glob(f"*/{MARKER}")]
        return _by_name([self._whole(home) for home in homes])

    def failures(self) -> dict[str, dict[str, Any]]:
        """What is known of all cases that have failed, by name."""
        return _by_name([_read(path) for path in (self._own / "failed").glob("*.json")])

    def own(self, name: str) -> Path:
        """A folder for what is known of the runs, made if missing."""
        folder = self._own / name
        folder.mkdir(exist_ok=True)
        return folder

    def work_folder(self, case: Case) -> Path:
        """An empty folder for results that are not whole yet."""
        folder = self._own / "work" / f"{_token(case)}-{secrets.token_hex(4)}"
        folder.mkdir(parents=True)
        return folder

    def finish(
        self, case: Case, folder: Path, record: Record, seconds: Mapping[str, float]
    ) -> dict[str, Any]:
        """Make a case done: its work folder becomes its folder.

        Returns:
            What is known of the case from now on, in terms of JSON.

        Raises:
            MedrlError: If that cannot be.
        """
        content = {"case": case.plain(), **asdict(record)}
        content["seconds"] = {phase: round(value, 3) for phase, value in seconds.items()}
        if case.layout == "bids":
            content["files"] = sorted(path.name for path in folder.iterdir())
        if record.picture is not None:
            make_thumbnail(folder / record.picture, self._thumbnail(case))
        self._write(folder / MARKER, content)
        self._settle(case, folder)
        return content

    def thumbnail(self, case: Case, picture: str) -> bytes | None:
        """A small JPEG of the picture of a case that is done; None if that cannot be read.

        Raises:
            MedrlError: If it is not there yet and cannot be written.
        """
        path = self._thumbnail(case)
        if not path.exists() and not make_thumbnail(self.root / case.folder / picture, path):
            return None
        return path.read_bytes()

    def take(self, case: Case) -> dict[str, bytes]:
        """The files of a case that is done, by their paths in its folder, which is removed."""
        home = self._home(case)
        files = [file for file in sorted(home.rglob("*")) if file.is_file()]
        content = {file.relative_to(home).as_posix(): file.read_bytes() for file in files}
        if case.layout == "bids":
            for name in (self.record(case) or {}).get("files", ()):
                file = self.root / case.folder / name
                content[name] = file.read_bytes()
                file.unlink()
        shutil.rmtree(home)
        return content

    def put(self, case: Case, files: Mapping[str, bytes]) -> None:
        """Make a case done with files that :meth:`take` took from another output folder.

        Raises:
            MedrlError: If they cannot be written.
        """
        self._thumbnail(case).unlink(missing_ok=True)
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
        target = self._home(case)
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            if (target / MARKER).exists() and self.record(case) is None:
                shutil.rmtree(target, ignore_errors=True)  # of another scan, or not whole
            folder.rename(target)
        except OSError as error:
            shutil.rmtree(folder, ignore_errors=True)
            if self.record(case) is None:
                raise MedrlError(f"cannot write {target}: {error.strerror}") from None
        self.put_in_place(case)
        self._failure(case).unlink(missing_ok=True)

    def put_in_place(self, case: Case) -> None:
        """Bring what is still in the folder of a case of a BIDS dataset to where it belongs.

        Raises:
            MedrlError: If that cannot be; the case is then not done.
        """
        home = self._home(case)
        if case.layout != "bids" or not home.is_dir():
            return
        place = self.root / case.folder
        try:
            place.mkdir(parents=True, exist_ok=True)
            for file in sorted(home.iterdir()):
                if file.name != MARKER:
                    with contextlib.suppress(FileNotFoundError):  # another run was faster
                        file.replace(place / file.name)
        except OSError as error:
            shutil.rmtree(home, ignore_errors=True)
            raise MedrlError(f"cannot write into {place}: {error.strerror}") from error

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

    def _thumbnail(self, case: Case) -> Path:
        return self.own("thumbnails") / f"{_token(case)}.jpg"

    def _home(self, case: Case) -> Path:
        """The folder that a case is done with."""
        if case.layout == "bids":
            return self._own / "done" / _token(case)
        return self.root / case.name

    def _whole(self, home: Path) -> dict[str, Any] | None:
        """What is known of the case of a folder; None if it is not done or its files are gone."""
        content = _read(home / MARKER)
        if content is None:
            return None
        place = self.root / Case.of_plain(content["case"]).folder
        # Files go from the one to the other, so they are looked for in this order.
        there = all(
            (home / name).exists() or (place / name).exists() for name in content.get("files", ())
        )
        return content if there else None

    def _failure(self, case: Case) -> Path:
        return self._own / "failed" / f"{_token(case)}.json"

    def _write(self, path: Path, content: dict[str, Any]) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_path(path) as temporary:
            temporary.write_text(json.dumps(content, indent=1, allow_nan=False), encoding="utf-8")


def _token(case: Case) -> str:
    """A short name for a case that any file system takes."""
    return hashlib.sha256(os.fsencode(case.name)).hexdigest()[:20]


def _if_of(case: Case, known: dict[str, Any] | None) -> dict[str, Any] | None:
    """What is known under the name of a case, unless it is of other scans that were called so.

    Folders may have moved since; what scans are called in them has not.
    """
    if known is None or case.hidden:
        return known
    then, now = known["case"]["sources"], case.plain()["sources"]
    return known if not then or _names(then) == _names(now) else None


def _names(sources: Mapping[str, Any]) -> dict[str, tuple[str, str | None]]:
    return {role: (Path(one["path"]).name, one["series"]) for role, one in sources.items()}


def _by_name(found: list[dict[str, Any] | None]) -> dict[str, dict[str, Any]]:
    known = {str(content["case"]["name"]): content for content in found if content is not None}
    return dict(sorted(known.items()))


def _read(path: Path) -> dict[str, Any] | None:
    """What a file says of a case; None if there is none."""
    content = _load(path)
    if content is None:
        return None
    try:
        Case.of_plain(content["case"])
        if not all(isinstance(name, str) for name in content.get("files", ())):
            raise TypeError("files")
    except (AttributeError, KeyError, TypeError, ValueError, MedrlError) as error:
        raise MedrlError(f"{path}: is damaged; remove it to have the case done again") from error
    return content


def _load(path: Path) -> dict[str, Any] | None:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, RecursionError) as error:
        raise MedrlError(f"{path}: cannot be read: {error}") from error
    if not isinstance(content, dict):
        raise MedrlError(f"{path}: is damaged: it is no JSON object")
    return content
