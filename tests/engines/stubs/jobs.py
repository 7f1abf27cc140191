"""A job as a training is one: it counts, keeps a checkpoint in its folder, and may be killed."""

import os
import signal
from dataclasses import dataclass, replace
from pathlib import Path

from medrl.engines import Folders, Processor, Progress, Task
from medrl.engines.payload import copy_of
from medrl.errors import MedrlError


@dataclass(frozen=True)
class Count:
    """Count to a number that a file says; die at another, the first time that it is reached."""

    name: str
    file: Path | None = None
    dies_at: int | None = None
    copies: Path | None = None

    def files(self):
        return [] if self.file is None else [self.file]

    def relocated(self, folder):
        return replace(self, copies=folder)

    @property
    def here(self):
        return self.file if self.copies is None else copy_of(self.file, self.copies)


class Counting(Task):
    def open(self, threads, output):
        return Counter(output)


class Broken(Task):
    def open(self, threads, output):
        raise MedrlError("no such model")


class Counter(Processor):
    def __init__(self, output: Folders):
        self.output = output

    def read(self, job):
        return int(job.here.read_text())

    def work(self, jobs, data, report):
        return [self.count(job, total, report) for job, total in zip(jobs, data, strict=True)]

    def count(self, job, total, report):
        checkpoint = self.output.of(job) / "checkpoint"
        began = number = int(checkpoint.read_text()) if checkpoint.exists() else 0
        while number < total:
            number += 1
            checkpoint.write_text(str(number))
            report(Progress(job.name, "counting", number, total, {"square": float(number**2)}))
            if number == job.dies_at:
                os.kill(os.getpid(), signal.SIGKILL)
        return {"began": began, "counted": number}

    def write(self, job, result, seconds):
        (self.output.of(job) / "result").write_text(str(result["counted"]))
        return result
