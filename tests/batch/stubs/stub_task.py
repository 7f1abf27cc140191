"""A task that does what the names of its cases say, and writes down every time it is done."""

import errno
import os
import signal
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from medrl.batch.tasks import Record
from medrl.errors import MedrlError


@dataclass(frozen=True)
class StubTask:
    """Behaves by file content: a number, `crash`, `crash once`, `hang`, `refuse`, `bug`,
    `memory`, `full`, `slow`."""

    log: Path
    flavour: str = "plain"
    verb: str = "detect"
    together: int = 1

    def open(self, threads):
        return Stub(self)

    def facts(self):
        return {"flavour": self.flavour}


class Stub:
    def __init__(self, task):
        self.task = task

    def read(self, case):
        text = case.here(case.sources["scan"].path).read_text()
        if text == "hang":
            time.sleep(600)
        return text

    def work(self, cases, data):
        return [self.work_on(case, text) for case, text in zip(cases, data, strict=True)]

    def work_on(self, case, data):
        with self.task.log.open("a") as log:
            log.write(f"{case.name}\n")
        once = self.task.log.with_name("crashed")
        if data == "crash" or (data == "crash once" and not once.exists()):
            once.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        if data == "refuse":
            raise MedrlError("this is no scan")
        if data == "bug":
            raise KeyError("what")
        if data == "memory":
            raise MemoryError
        if data == "slow":
            time.sleep(0.5)
        return data

    def write(self, case, result, folder):
        (folder / "half.txt").write_text(result)
        if result == "full":
            raise OSError(errno.ENOSPC, "No space left on device")
        (folder / "whole.txt").write_text(result)
        sure = float(result) if result[0].isdigit() else None
        row = {"landmark": "any", "value": result, "confidence": sure}
        return Record([row], ["a warning"] if result == "0" else [])


def main():
    """Run a batch in this process, to be killed from outside: LOG IN OUT WORKERS."""
    from medrl.batch.discover import discover
    from medrl.batch.engines.local import LocalEngine
    from medrl.batch.run import run

    log, where, out, workers = sys.argv[1:]
    cases = discover(where, "detect")
    run(StubTask(Path(log)), cases, Path(out), LocalEngine(int(workers)))


if __name__ == "__main__":
    main()
