"""A task that does what the names of its cases say, and writes down every time it is done."""

import ctypes
import errno
import os
import signal
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from medrl.batch.store import Record
from medrl.batch.task import CaseProcessor, CaseTask
from medrl.engines import Progress
from medrl.errors import MedrlError
from medrl.systems import by_verb


@dataclass(frozen=True)
class StubTask(CaseTask):
    """Behaves by file content: a number, `crash`, `crash once`, `hang`, `refuse`, `bug`,
    `memory`, `full`, `slow`, `stuck` (in native code). Flavours `stuck` and `unlucky`: so is every
    worker while it loads; it dies so often (a number in a file) before it does."""

    log: Path
    flavour: str = "plain"
    batch_size: int = 1

    @property
    def system(self):
        return by_verb("detect")

    def open(self, threads, output):
        if self.flavour == "stuck":
            self.log.with_name("loading").touch()
            be_stuck()
        if self.flavour == "unlucky":
            count = self.log.with_name("deaths")
            left = int(count.read_text())
            count.write_text(str(left - 1))
            if left:
                os.kill(os.getpid(), signal.SIGKILL)
        return Stub(self, output)

    def fingerprint(self):
        return {"flavour": self.flavour}


def be_stuck():
    """Sleep in C with Python's lock: no other thread runs, no signal handler is called."""
    ctypes.PyDLL(None).sleep(600)


class Stub(CaseProcessor):
    def __init__(self, task, store):
        super().__init__(task.system, store)
        self.task = task

    def read(self, case):
        text = case.here(case.sources["scan"].path).read_text()
        if text == "hang":
            time.sleep(600)
        return text

    def work(self, cases, data, report):
        for case in cases:
            report(Progress(case.name, "working", 1, 2, {"loss": 0.5}))
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
        if data == "stuck":
            be_stuck()
        if data == "memory":
            raise MemoryError
        if data == "slow":
            time.sleep(0.5)
        return data

    def save(self, case, result, folder):
        (folder / "half.txt").write_text(result)
        if result == "full":
            raise OSError(errno.ENOSPC, "No space left on device")
        (folder / "whole.txt").write_text(result)
        sure = float(result) if result[0].isdigit() else None
        row = {"landmark": "any", "value": result, "confidence": sure}
        return Record([row], ["a warning"] if result == "0" else [])


def main():
    """Run a batch in this process, to be ended from outside: LOG IN OUT WORKERS [FLAVOUR]."""
    from medrl.batch.cases import Case, Source
    from medrl.batch.run import run
    from medrl.engines.local import LocalEngine

    log, where, out, workers, *flavour = sys.argv[1:]
    files = sorted(Path(where).glob("*.nii.gz"))
    cases = [Case(file.name.removesuffix(".nii.gz"), {"scan": Source(file)}) for file in files]
    try:
        run(StubTask(Path(log), *flavour), cases, Path(out), LocalEngine(int(workers)))
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
