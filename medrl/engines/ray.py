"""Actors of a Ray cluster: each loads the model once; those lost with their node are replaced."""

from __future__ import annotations

import contextlib
import logging
import queue
import secrets
import shutil
import socket
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import medrl
from medrl.engines import J, O, Outcome, Output, Progress, Task
from medrl.engines.messages import Fatal, Message, Ready, failure, reason
from medrl.engines.payload import Payload, Stamp, are_here, pack, stamps, unpack
from medrl.engines.pipeline import Pipeline, depth
from medrl.engines.pool import Pool
from medrl.errors import MedrlError

#: How long a cluster may take to answer a call (s).
_PROBE = 10.0
#: How long an actor waits for something to tell before it says so (s).
_LISTEN = 5.0
#: How long a cluster may take to start an actor while there is none (s).
_START = 120.0
#: How long an actor that is to be ended may take to remove its copies (s).
_CLEANUP = 0.3
#: How long a cluster takes to notice that a node is gone, at most (s).
_NOTICE = 10.0
#: What Ray says of an actor that is dead while its node lives.
_DIED_ALONE = "its worker process has died"


class _Joined(NamedTuple):
    """An actor is ready."""

    version: str
    node: str


class _Wanted(NamedTuple):
    """An actor does not see the files of a job."""

    name: str


class _Files(NamedTuple):
    """The results of a job, where the output folder is not shared."""

    outcome: Outcome
    files: dict[str, bytes]


_News = Message | _Joined | _Wanted | _Files


class RayEngine:
    """A pool of actors on a Ray cluster.

    Scans and results cross as paths where the worker's machine has the same files, by size and
    time of change, and sees the output folder; otherwise as bytes.
    """

    def __init__(
        self,
        workers: int | None = None,
        *,
        address: str | None = None,
        device: str = "cpu",
        gpus: float = 1.0,
    ) -> None:
        """Plan for a number of actors.

        Args:
            workers: How many at most; as many as the cluster has room for if left out.
            address: Of a running cluster, such as ``auto`` or ``10.0.0.1:6379``; a cluster of this
                machine alone is started if left out.
            device: Torch device of the work; with ``cuda`` each actor asks the cluster for GPUs.
            gpus: How many GPUs an actor asks for; less than 1 lets several share one.

        Raises:
            MedrlError: If Ray is not installed, or a number makes no sense.
        """
        if workers is not None and workers < 1:
            raise MedrlError("--workers must be at least 1")
        if gpus <= 0:
            raise MedrlError("--gpus must be more than 0")
        if device.startswith("cuda:"):
            raise MedrlError(f"--device {device}: Ray chooses which GPU; say --device cuda")
        try:
            import ray  # noqa: F401 - only whether it is there
        except ModuleNotFoundError:
            raise MedrlError("Ray is not installed: pip install 'medrl[ray]'") from None
        self.workers = workers
        self.address = address
        self.gpus = gpus if device == "cuda" else 0.0

    def run(
        self,
        task: Task[J, O],
        jobs: Sequence[J],
        output: O,
        *,
        timeout: float | None = None,
        on_end: Callable[[Outcome], None],
        on_progress: Callable[[Progress], None] | None = None,
    ) -> None:
        """See :class:`medrl.engines.Engine`."""
        if not jobs:
            return
        output = output.at(output.root.absolute())  # actors run in other folders
        with self._connected(), _token(output.root) as token:
            deadline = time.monotonic() + _START

            def wait(actors: Sequence[_Actor], seconds: float) -> None:
                nonlocal deadline
                if any(actor.began for actor in actors):
                    deadline = time.monotonic() + _START
                elif time.monotonic() > deadline:
                    raise MedrlError(f"no worker has started within {_START:g} s: {self._needs()}")
                _wait(actors, seconds)

            pool = Pool[J, _Actor](
                start=lambda: _Actor(task, output, token, self.gpus),
                wait=wait,
                end=_end,
                depth=depth(task.batch_size, read_ahead=task.read_ahead),
                timeout=timeout,
                on_end=on_end,
                on_progress=on_progress,
            )
            pool.run(jobs, self.workers or self._room())

    @contextlib.contextmanager
    def _connected(self) -> Iterator[None]:
        import ray

        if ray.is_initialized():
            yield
            return
        logging.getLogger("ray").setLevel(logging.CRITICAL)
        self._probe()
        try:
            ray.init(
                address=self.address or "local",
                include_dashboard=None if self.address else False,
                logging_level=logging.CRITICAL,
                log_to_driver=False,
                configure_logging=False,
            )
        except (ConnectionError, RuntimeError, ValueError, ray.exceptions.RayError) as error:
            why = " ".join(str(error).split())[:200]
            hint = " (if it asks for a token: RAY_AUTH_MODE=token)" if self.address else ""
            raise self._unreachable(why + hint) from None
        try:
            yield
        finally:
            ray.shutdown()

    def _probe(self) -> None:
        """Find out at once whether anybody listens; Ray itself waits for minutes."""
        host, colon, port = (self.address or "").rpartition("/")[2].rpartition(":")
        if not (colon and port.isdigit()):
            return
        try:
            socket.create_connection((host, int(port)), timeout=_PROBE).close()
        except OSError as error:
            raise self._unreachable(error.strerror or str(error)) from None

    def _unreachable(self, why: str) -> MedrlError:
        where = f"a Ray cluster at {self.address}" if self.address else "Ray on this machine"
        return MedrlError(f"cannot reach {where}: {why}")

    def _room(self) -> int:
        """How many actors the cluster has room for."""
        import ray

        has = ray.cluster_resources()
        if self.gpus:
            return max(1, int(has.get("GPU", 0) / self.gpus))
        return max(1, int(has.get("CPU", 1)))

    def _needs(self) -> str:
        what = f"{self.gpus:g} GPU and " if self.gpus else ""
        return f"no node of the cluster has {what}1 CPU free, or none can start Python with medrl"


class _Actor:
    """An actor, seen from the run."""

    def __init__(self, task: Task[Any, Any], output: Output[Any], token: Path, gpus: float) -> None:
        import ray

        self._ray: Any = ray
        self._output = output
        self._jobs: dict[str, Any] = {}
        self._sent: dict[str, Any] = {}
        self._node = ""
        self._dead = ""
        self._alone = False
        self.began = False
        serving = ray.remote(num_cpus=1, num_gpus=gpus, max_concurrency=2)(_Serving)
        self.handle: Any = serving.remote(task, output, token)
        self.news: Any = self.handle.listen.remote()

    def send(self, job: Any) -> None:
        self._jobs[job.name] = job
        self._sent[job.name] = self.handle.put.remote(job, stamps(job))

    def receive(self) -> list[Message]:
        messages: list[Message] = self._refused()
        while not self._dead and self._ray.wait([self.news], timeout=0)[0]:
            try:
                batch: list[_News] = self._ray.get(self.news)
            except self._ray.exceptions.RayError as error:
                self._dead = str(error).strip().splitlines()[0] or type(error).__name__
                self._alone = _DIED_ALONE in str(error)
                break
            self.news = self.handle.listen.remote()
            messages += [message for one in batch for message in self._translate(one)]
        return messages

    def _refused(self) -> list[Message]:
        """What is to be said of jobs that could not be unpickled there."""
        if not self._sent:
            return []
        refused: list[Message] = []
        references = {reference: name for name, reference in self._sent.items()}
        for reference in self._ray.wait(list(references), num_returns=len(references), timeout=0)[
            0
        ]:
            name = references[reference]
            del self._sent[name]
            try:
                self._ray.get(reference)
            except self._ray.exceptions.RayTaskError as error:
                refused.append(failure(name, error.cause))
            except self._ray.exceptions.RayError:
                pass  # the actor is dead, which will be noticed
        return refused

    def alive(self) -> bool:
        return not self._dead

    def lost(self) -> bool:
        # A node's end may be noticed later than that of its actors.
        deadline = time.monotonic() + _NOTICE
        while self._node and not self._alone and time.monotonic() < deadline:
            if self._node not in {n["NodeID"] for n in self._ray.nodes() if n["Alive"]}:
                return True
            time.sleep(_NOTICE / 50)
        return False

    def kill(self) -> None:
        _end([self])

    def cause(self) -> str:
        return self._dead or "it was ended"

    def _translate(self, news: _News) -> list[Message]:
        """What the pool is to know of it."""
        if isinstance(news, _Joined):
            if news.version != medrl.__version__:
                line = f"a node has medrl {news.version}, this machine {medrl.__version__}"
                return [Fatal(line)]
            self._node, self.began = news.node, True
            return [Ready()]
        if isinstance(news, _Wanted):
            job = self._jobs[news.name]
            try:
                self.handle.put.remote(job, [], self._ray.put(pack(job)))
            except MedrlError as error:
                return [Outcome(job.name, str(error))]
            return []
        if isinstance(news, _Files):
            try:
                self._output.put(self._jobs[news.outcome.name], news.files)
            except OSError as error:
                return [Fatal(f"cannot write into {self._output.root}: {error.strerror}")]
            return [news.outcome]
        return [news]


def _end(actors: Sequence[_Actor]) -> None:
    import ray

    with contextlib.suppress(ray.exceptions.RayError):
        tidy = [actor.handle.tidy.remote() for actor in actors if actor.began and actor.alive()]
        if tidy:
            ray.wait(tidy, num_returns=len(tidy), timeout=_CLEANUP)
        for actor in actors:
            ray.kill(actor.handle)


def _wait(actors: Sequence[_Actor], seconds: float) -> None:
    import ray

    ray.wait([actor.news for actor in actors], timeout=seconds)


@contextlib.contextmanager
def _token(root: Path) -> Iterator[Path]:
    """A file by which a worker finds out whether it sees this output folder."""
    path = root / f".token-{secrets.token_hex(8)}"
    root.mkdir(parents=True, exist_ok=True)
    path.touch()
    try:
        yield path
    finally:
        path.unlink(missing_ok=True)


class _Serving:
    """The actor itself: one thread works through jobs, calls put them in and take news out."""

    def __init__(self, task: Task[Any, Any], output: Output[Any], token: Path) -> None:
        self._news: queue.SimpleQueue[_News] = queue.SimpleQueue()
        self._todo: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._scratch = Path(tempfile.mkdtemp(prefix="medrl-"))
        self._shared = token.exists()
        self._output = output if self._shared else output.at(self._scratch / "out")
        #: Jobs under way, and the folders with copies of their files.
        self._jobs: dict[str, tuple[Any, Path | None]] = {}
        threading.Thread(target=self._work, args=(task,), daemon=True).start()

    def put(self, job: Any, wanted: list[Stamp], payload: Payload | None = None) -> None:
        """Take a job, with its files or how to tell that they are here."""
        copies = None
        if payload is not None:
            copies = Path(tempfile.mkdtemp(dir=self._scratch))
            job = unpack(job, payload, copies)
        elif not are_here(wanted):
            self._news.put(_Wanted(job.name))
            return
        self._jobs[job.name] = job, copies
        self._todo.put(job)

    def listen(self) -> list[_News]:
        """The latest messages; an empty list after a while without."""
        try:
            news = [self._news.get(timeout=_LISTEN)]
        except queue.Empty:
            return []
        with contextlib.suppress(queue.Empty):
            while True:
                news.append(self._news.get_nowait())
        return news

    def tidy(self) -> None:
        """Remove all copies; the end."""
        shutil.rmtree(self._scratch, ignore_errors=True)

    def _work(self, task: Task[Any, Any]) -> None:
        import ray

        try:
            processor = task.open(1, self._output)
            pipeline = Pipeline(processor, self._send, batch_size=task.batch_size)
        except Exception as error:
            self._news.put(Fatal(reason(error)))
            return
        self._news.put(_Joined(medrl.__version__, ray.get_runtime_context().get_node_id()))
        while True:
            while not (len(pipeline) and self._todo.empty()):
                pipeline.put(self._todo.get())
            pipeline.step()

    def _send(self, message: Message) -> None:
        if not isinstance(message, Outcome):
            self._news.put(message)
            return
        job, copies = self._jobs.pop(message.name)
        if copies is not None:
            shutil.rmtree(copies, ignore_errors=True)
            if message.error is not None:
                message = replace(message, error=message.error.replace(str(copies), ""))
        if message.error is not None or self._shared:
            self._news.put(message)
            return
        try:
            self._news.put(_Files(message, self._output.take(job)))
        except OSError as error:
            self._news.put(Outcome(job.name, reason(error)))
