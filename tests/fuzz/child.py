"""Inputs are read in a process of their own, which is watched: time, memory, files, code."""

from __future__ import annotations

import contextlib
import ctypes
import faulthandler
import json
import os
import resource
import select
import shutil
import signal
import sys
import sysconfig
import tempfile
import time
import traceback
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

import psutil
from inputs import Files, Link
from targets import SECRET_BYTE, Finding, run

#: Seconds of the processor that an input may take, and seconds of the clock: a machine may be busy.
DEADLINE, PATIENCE = 10.0, 60.0
#: An input may take this many times its size in memory, and the slack, which is about twice what
#: the whole seeds take beyond that (their reading, two copies of an interpreter's odds and ends).
FACTOR, SLACK = 4, 64 * 2**20
#: A command also brings scans to the grid of a model, however few voxels they have: what a header
#: says is a metre long may take so much.
RESAMPLED = 256 * 2**20
#: Inputs that a process reads before another takes its place; what is found ends it at once.
_LIFE = 25
#: Beyond this the process is refused memory, so that the machine goes on.
_MOST_MEMORY = 6 * 2**30

_REPOSITORY = Path(__file__).resolve().parents[2]
#: Where programs and libraries lie, which may be read at any time.
_PROGRAMS = tuple(
    os.path.realpath(path)
    for path in {
        sys.prefix,
        sys.base_prefix,
        *sysconfig.get_paths().values(),
        str(_REPOSITORY / "medrl"),
        str(Path(__file__).parent),
        "/usr",
        "/lib",
        "/lib64",
        "/proc",
        "/sys",
        "/dev/null",
        "/dev/urandom",
        "/dev/shm",
        "/etc/localtime",
        "/etc/ld.so.cache",
    }
)
_CODE = {
    "ctypes.dlopen",
    "os.exec",
    "os.fork",
    "os.forkpty",
    "os.posix_spawn",
    "os.spawn",
    "os.system",
    "pickle.find_class",
    "pty.spawn",
    "socket.bind",
    "socket.connect",
    "subprocess.Popen",
    "urllib.Request",
    "webbrowser.open",
}
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
_CHANGES = {
    "os.chmod",
    "os.chown",
    "os.link",
    "os.mkdir",
    "os.remove",
    "os.rename",
    "os.rmdir",
    "os.setxattr",
    "os.symlink",
    "os.truncate",
    "os.utime",
}
_LISTINGS = {"os.listdir", "os.scandir", "os.chdir"}


@dataclass(frozen=True)
class Outcome:
    """How it ended.

    Attributes:
        what: ``read``, ``refused``, or what was found.
        finding: Whether something must be mended.
        seconds: By the clock.
        excess: Bytes of memory beyond what the process began with.
        said: What libraries wrote to the terminal past Python.
    """

    what: str
    finding: bool
    seconds: float
    excess: int
    said: str


class Workplace:
    """Folders that inputs are laid out in, one after another, and processes that read them."""

    def __init__(self, root: Path, model: Path) -> None:
        """Take an empty folder.

        Args:
            root: The folder.
            model: A small model for `medrl detect`.
        """
        self.root = root.resolve()
        self.model = model.resolve()
        outside = self.root / "outside"
        outside.mkdir(parents=True)
        (outside / "secret.raw").write_bytes(bytes([SECRET_BYTE]) * 2048)
        self._said = self.root / "said"
        self._said.touch()
        self._watch = _Watch(outside)
        self._reader: _Reader | None = None

    def run(
        self, kind: str, files: Files, path: str, size: int, *, command_line: bool = False
    ) -> Outcome:
        """Lay an input out and have it read.

        Args:
            kind: Of the input.
            files: What it is made of.
            path: What is read of it.
            size: Its bytes, for the limit of memory.
            command_line: Go through the command line.
        """
        for name in ("in", "out", "tmp", "cwd"):
            shutil.rmtree(self.root / name, ignore_errors=True)
            (self.root / name).mkdir()
        lay_out(files, self.root / "in")
        before = self._outside()
        self._watch.drain()
        outcome = self._ask(kind, path, size, command_line)
        if not outcome.finding and (opened := self._watch.drain()):
            outcome = _found(outcome, f"opened {opened} outside of the input's folder")
        if not outcome.finding and self._outside() != before:
            odd = sorted(set(self._outside()) ^ set(before))
            outcome = _found(outcome, f"made or removed {odd}")
        return outcome

    def close(self) -> None:
        """End the process that reads."""
        if self._reader is not None:
            self._reader.end()
            self._reader = None

    def _ask(self, kind: str, path: str, size: int, command_line: bool) -> Outcome:
        """Have the process read what has been laid out; it lives on unless something is found."""
        if self._reader is None:
            self._reader = _Reader(self)
        started = time.monotonic()
        answer = self._reader.ask(kind, path, command_line)
        seconds = time.monotonic() - started
        said = self._said.read_text(errors="replace")[-2000:]
        if answer is None:
            late = self._reader.late
            status, most = self._reader.end()
            self._reader = None
            how = "ended by itself"
            if late:
                how = f"takes longer than {DEADLINE:g} s"
            elif os.WIFSIGNALED(status):
                how = f"ended by signal {os.WTERMSIG(status)}: {said[-600:]}"
            return Outcome(how, True, seconds, most, said)
        what, finding, excess = answer["what"], answer["finding"], answer["excess"]
        allowed = FACTOR * size + SLACK + (RESAMPLED if command_line else 0)
        if not finding and excess > allowed:
            what = f"takes {excess / 2**20:.0f} MiB for {size / 2**20:.3f} MiB"
            finding = True
        if finding or self._reader.age >= _LIFE:
            self.close()
        return Outcome(what, finding, seconds, excess, said)

    def _outside(self) -> list[str]:
        """What lies where nothing may be made."""
        places = (self.root, self.root / "outside", self.root / "cwd")
        return [str(path) for place in places for path in sorted(place.iterdir())]


def lay_out(files: Files, folder: Path) -> None:
    """Write an input's files into a folder."""
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, Link):
            path.symlink_to(content.target)
        else:
            path.write_bytes(content)


def _found(outcome: Outcome, what: str) -> Outcome:
    return Outcome(what, True, outcome.seconds, outcome.excess, outcome.said)


class _Reader:
    """A forked process that reads one input after another."""

    def __init__(self, place: Workplace) -> None:
        self.age, self.late = 0, False
        asked, ask = os.pipe()
        answered, answer = os.pipe()
        self._pid = os.fork()
        if self._pid == 0:
            os.close(ask)
            os.close(answered)
            _serve(place, os.fdopen(asked), os.fdopen(answer, "w"))
        os.close(asked)
        os.close(answer)
        self._ask, self._answered = os.fdopen(ask, "w"), os.fdopen(answered)

    def ask(self, kind: str, path: str, command_line: bool) -> dict | None:
        """What became of an input; None if the process has ended or takes too long."""
        self.age += 1
        try:
            self._ask.write(json.dumps([kind, path, command_line]) + "\n")
            self._ask.flush()
        except BrokenPipeError:
            return None
        process = psutil.Process(self._pid)
        started, before = time.monotonic(), _processor(process)
        while not select.select([self._answered], [], [], 0.5)[0]:
            self.late = (
                _processor(process) - before > DEADLINE or time.monotonic() - started > PATIENCE
            )
            if self.late:
                return None
        line = self._answered.readline()
        return json.loads(line) if line else None

    def end(self) -> tuple[int, int]:
        """End it; its status, and the most memory that it held, bytes."""
        done, status, usage = os.wait4(self._pid, os.WNOHANG)
        if not done:
            os.kill(self._pid, signal.SIGKILL)
            _, status, usage = os.wait4(self._pid, 0)
        for stream in (self._ask, self._answered):
            with contextlib.suppress(OSError):
                stream.close()
        return status, usage.ru_maxrss * 1024


def _serve(place: Workplace, asked: TextIO, answer: TextIO) -> None:
    """Read inputs until there are no more; in the forked process."""
    terminal = os.open(place.root / "said", os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND)
    os.dup2(terminal, 1)
    os.dup2(terminal, 2)
    faulthandler.enable(terminal)
    most = _pages()[0] + _MOST_MEMORY
    resource.setrlimit(resource.RLIMIT_AS, (most, most))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    os.environ["TMPDIR"] = tempfile.tempdir = str(place.root / "tmp")
    warnings.simplefilter("ignore")
    guard = _Guard(
        [place.root / "in", place.model], [place.root / "out", place.root / "tmp"], place.root
    )
    sys.addaudithook(guard)
    for line in asked:
        guard.off = True
        kind, path, command_line = json.loads(line)
        os.chdir(place.root / "cwd")
        os.ftruncate(terminal, 0)
        Path("/proc/self/clear_refs").write_text("5")  # forget the most memory so far
        start = _pages()[1]
        guard.begin(kind)
        try:
            what, finding = (
                run(kind, place.root / "in" / path, place.root / "out", command_line, place.model),
                False,
            )
            if guard.found:
                what, finding = guard.found[0], True
        except BaseException as error:
            what, finding = _describe(error), True
        guard.off = True
        excess = max(0, _peak() - start)
        answer.write(json.dumps({"what": what, "finding": finding, "excess": excess}) + "\n")
        answer.flush()
    os._exit(0)


def _processor(process: psutil.Process) -> float:
    """Seconds of the processor that a process has had, with those that it has started."""
    total = 0.0
    with contextlib.suppress(psutil.Error):
        for one in (process, *process.children(recursive=True)):
            times = one.cpu_times()
            total += times.user + times.system
        total += process.cpu_times().children_user + process.cpu_times().children_system
    return total


def _pages() -> tuple[int, int]:
    """Address space and memory of this process, bytes."""
    words = Path("/proc/self/statm").read_text().split()
    return int(words[0]) * resource.getpagesize(), int(words[1]) * resource.getpagesize()


def _peak() -> int:
    """The most memory since it was last forgotten, bytes."""
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) * 1024


def _describe(error: BaseException) -> str:
    frames = traceback.extract_tb(error.__traceback__)
    last = [f for f in frames if "/medrl/" in f.filename] or list(frames)
    where = f"{Path(last[-1].filename).name}:{last[-1].lineno}" if last else "?"
    text = " ".join(str(error).split())[:300]
    return text if isinstance(error, Finding) else f"{type(error).__name__} at {where}: {text}"


class _Guard:
    """An audit hook that notes what must not be done."""

    def __init__(self, readable: list[Path], writable: list[Path], root: Path) -> None:
        self.found: list[str] = []
        self.off = True
        self._input = os.path.realpath(root / "in")
        self._outputs = (*map(os.path.realpath, writable), "/dev/null")
        self._writable = self._outputs
        self._readable = (*map(os.path.realpath, readable), *self._outputs, *_PROGRAMS)
        self._busy = False

    def begin(self, kind: str) -> None:
        """Watch the reading of an input; only an output folder may be written to itself."""
        self.found.clear()
        self._writable = (*self._outputs, self._input) if kind == "store" else self._outputs
        self.off = False

    def __call__(self, event: str, arguments: tuple[object, ...]) -> None:
        """Called by Python before it does what is audited."""
        if self._busy or self.off:
            return
        self._busy = True
        try:
            self._check(event, arguments)
        finally:
            self._busy = False

    def _check(self, event: str, arguments: tuple[object, ...]) -> None:
        if event == "open":
            path, mode, flags = arguments
            writes = isinstance(flags, int) and bool(flags & _WRITING)
            # What is removed as a tree is opened relative to a folder that was checked.
            if writes or mode is not None or not isinstance(path, str) or os.sep in path:
                self._path(event, path, writes)
        elif event in _CHANGES:
            # What is given relative to an open folder is below one that was checked.
            paths = {"os.rename": arguments[:2], "os.link": arguments[:2]}
            for argument in paths.get(
                event, arguments[1:2] if "symlink" in event else arguments[:1]
            ):
                if not any(isinstance(a, int) and a > 2 for a in arguments[-1:]):
                    self._path(event, argument, True)
        elif event in _LISTINGS:
            self._path(event, arguments[0], False)
        elif event == "subprocess.Popen" and arguments[0] == sys.executable:
            pass  # medrl.volume._subprocess_io
        elif event in _CODE:
            self.found.append(f"{event} {arguments}"[:300])
        elif event == "exec":
            file = str(getattr(arguments[0], "co_filename", ""))
            if not file.startswith(("<", *_PROGRAMS)):
                self.found.append(f"runs code of {file!r}")

    def _path(self, event: str, path: object, writes: bool) -> None:
        if path is None or isinstance(path, int) or not isinstance(path, str | bytes | os.PathLike):
            return
        text = os.fsdecode(path)
        if "\0" in text:
            return
        parent, name = os.path.split(os.path.abspath(text))
        # Of a link the link itself is what is changed, but what it leads to is what is opened.
        real = (
            os.path.realpath(text)
            if event == "open"
            else os.path.join(os.path.realpath(parent), name)
        )
        allowed = self._writable if writes else self._readable
        if not any(real == folder or real.startswith(folder + os.sep) for folder in allowed):
            if not writes and os.path.isdir(real):
                return
            self.found.append(f"{event}{' (writing)' if writes else ''} {real}"[:300])


class _Watch:
    """The kernel's word of who opens files in a folder, native code included (inotify)."""

    _OPENED = 0x20

    def __init__(self, folder: Path) -> None:
        libc = ctypes.CDLL(None, use_errno=True)
        self._stream = libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        if self._stream < 0:
            raise OSError("the kernel has no inotify")
        for file in folder.iterdir():
            libc.inotify_add_watch(self._stream, os.fsencode(file), self._OPENED)

    def drain(self) -> int:
        """How often it happened since last asked."""
        try:
            return len(os.read(self._stream, 2**16)) // 16
        except BlockingIOError:
            return 0
