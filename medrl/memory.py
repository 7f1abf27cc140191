"""How much fits in memory, and how one knows that something did not."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

#: What to say where memory has run out.
DOES_NOT_FIT = "does not fit in memory; crop or downsample it"
#: PyTorch's and C++'s words for it, where they raise a RuntimeError.
_WORDS = ("can't allocate memory", "not enough memory", "out of memory", "std::bad_alloc")
_NO_LIMIT = 2**62


def ran_out_of_memory(error: BaseException | None) -> bool:
    """Whether an error, or what led to it, says that memory has run out."""
    while error is not None:
        if (
            isinstance(error, MemoryError)
            or type(error).__name__ == "OutOfMemoryError"
            or (isinstance(error, OSError) and error.errno == errno.ENOMEM)
            or (isinstance(error, RuntimeError) and any(w in str(error).lower() for w in _WORDS))
        ):
            return True
        error = error.__cause__ or error.__context__
    return False


def available_memory() -> int:
    """Bytes that this process may still take.

    It is bounded by the machine, by what a container or a job of Slurm may have (cgroups), and by
    ``ulimit -v``; what is not known bounds nothing.
    """
    return max(0, min((_NO_LIMIT, *_of_the_machine(), *_of_cgroups(), *_of_the_process())))


def _of_the_machine() -> Iterator[int]:
    with suppress(OSError, ValueError):
        for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines():
            if line.startswith("MemAvailable:"):
                yield int(line.split()[1]) * 1024
                return
    with suppress(AttributeError, OSError, ValueError):
        yield os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def _of_the_process() -> Iterator[int]:
    with suppress(ImportError, OSError, ValueError):
        import resource

        limit, _ = resource.getrlimit(resource.RLIMIT_AS)
        if limit != resource.RLIM_INFINITY:
            pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
            yield limit - pages * resource.getpagesize()


def _of_cgroups() -> Iterator[int]:
    """Of the group of this process and of those above it, of either version of cgroups."""
    with suppress(OSError, ValueError):
        for line in Path("/proc/self/cgroup").read_text(encoding="utf-8").splitlines():
            _, controllers, group = line.split(":", 2)
            if controllers in ("", "memory"):
                root = Path("/sys/fs/cgroup") / controllers
                own = root / group.strip("/")
                for folder in (own, *own.parents):
                    yield from _of_cgroup(folder)
                    if folder == root:
                        break


def _of_cgroup(folder: Path) -> Iterator[int]:
    def number(*names: str) -> int:
        file = next(folder / name for name in names if (folder / name).exists())
        return int(file.read_text(encoding="ascii"))

    # Without a limit the file holds a word, or is not there.
    with suppress(OSError, ValueError, StopIteration):
        limit = number("memory.max", "memory.limit_in_bytes")
        used = number("memory.current", "memory.usage_in_bytes")
        stat = (folder / "memory.stat").read_text(encoding="ascii").splitlines()
        # Files that are only kept because nobody needs the memory.
        cached = dict(line.split()[:2] for line in stat).get("inactive_file", "0")
        yield limit - used + int(cached)
