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
from pathlib import Path
from typing import Any, NamedTuple

import medrl
from medrl.batch.cases import Case
from medrl.batch.engines import Outcome
from medrl.batch.engines.parcel import Parcel, Stamp, are_here, pack, stamps, unpack
from medrl.batch.engines.pool import run_pool
from medrl.batch.pipeline import Message, Pipeline, depth, reason
from medrl.batch.store import Store
from medrl.batch.tasks import Task
from medrl.errors import MedrlError

#: How long a cluster may take to answer a call (s).
_KNOCK = 10.0
#: How long an actor waits for something to tell before it says so (s).
_PATIENCE = 5.0
#: How long a cluster may take to start an actor while there is none (s).
_START = 120.0
#: How long an actor that is to be ended may take to remove its copies (s).
_FAREWELL = 0.3
#: How long a cluster takes to notice that a node is gone, at most (s).
_NOTICE = 10.0
#: What Ray says of an actor that is dead while its node lives.
_DIED_ALONE = "its worker process has died"


class _Ready(NamedTuple):
    """An actor has loaded its model."""

    version: str
    node: str


class _Wanted(NamedTuple):
    """An actor does not see the files of a case."""

    name: str


class _Result(NamedTuple):
    """The results of a case, where the output folder is not shared."""

    name: str
    files: dict[str, bytes]


_News = Message | _Ready | _Wanted | _Result


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
        task: Task,
        cases: Sequence[Case],
        root: Path,
        *,
        timeout: float | None,
        tell: Callable[[Outcome], None],
    ) -> None:
        """See :class:`medrl.batch.engines.Engine`."""
        if not cases:
            return
        store = Store(root)
        with self._connected(), _token(root) as token:
            count = self.workers or self._room()
            deadline = time.monotonic() + _START

            def start() -> _Actor:
                return _Actor(task, store, token, self.gpus)

            def wait(actors: Sequence[_Actor], seconds: float) -> None:
                nonlocal deadline
                if any(actor.began for actor in actors):
                    deadline = time.monotonic() + _START
                elif time.monotonic() > deadline:
                    raise MedrlError(f"no worker has started within {_START:g} s: {self._needs()}")
                _wait(actors, seconds)

            run_pool(
                cases,
                count,
                start=start,
                wait=wait,
                end=_end,
                depth=depth(task.together),
                timeout=timeout,
                tell=tell,
            )

    @contextlib.contextmanager
    def _connected(self) -> Iterator[None]:
        import ray

        if ray.is_initialized():
            yield
            return
        logging.getLogger("ray").setLevel(logging.CRITICAL)
        self._knock()
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

    def _knock(self) -> None:
        """Find out at once whether anybody listens; Ray itself waits for minutes."""
        host, colon, port = (self.address or "").rpartition("/")[2].rpartition(":")
        if not (colon and port.isdigit()):
            return
        try:
            socket.create_connection((host, int(port)), timeout=_KNOCK).close()
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

    def __init__(self, task: Task, store: Store, token: Path, gpus: float) -> None:
        import ray

        self._ray: Any = ray
        self._store = store
        self._cases: dict[str, Case] = {}
        self._node = ""
        self._dead = ""
        self._alone = False
        self.began = False
        serving = ray.remote(num_cpus=1, num_gpus=gpus, max_concurrency=2)(_Serving)
        self.handle: Any = serving.remote(task, store.root.absolute(), token)
        self.news: Any = self.handle.listen.remote()

    def send(self, case: Case) -> None:
        self._cases[case.name] = case
        self.handle.put.remote(case, stamps(case))

    def receive(self) -> list[Message | None]:
        told: list[Message | None] = []
        while not self._dead and self._ray.wait([self.news], timeout=0)[0]:
            try:
                batch: list[_News] = self._ray.get(self.news)
            except self._ray.exceptions.RayError as error:
                self._dead = str(error).strip().splitlines()[0] or type(error).__name__
                self._alone = _DIED_ALONE in str(error)
                break
            self.news = self.handle.listen.remote()
            told += [message for one in batch for message in self._understood(one)]
        return told

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

    def _understood(self, news: _News) -> list[Message | None]:
        """What the pool is to know of it."""
        if isinstance(news, _Ready):
            if news.version != medrl.__version__:
                line = f"a node has medrl {news.version}, this machine {medrl.__version__}"
                return [Message("", None, line, fatal=True)]
            self._node, self.began = news.node, True
            return [None]
        if isinstance(news, _Wanted):
            case = self._cases[news.name]
            try:
                self.handle.put.remote(case, [], self._ray.put(pack(case)))
            except MedrlError as error:
                return [Message(case.name, None, str(error))]
            return []
        if isinstance(news, _Result):
            try:
                self._store.put(self._cases[news.name], news.files)
            except OSError as error:
                line = f"cannot write into {self._store.root}: {error.strerror}"
                return [Message(news.name, None, line, fatal=True)]
            return [Message(news.name, None)]
        return [news]


def _end(actors: Sequence[_Actor]) -> None:
    import ray

    with contextlib.suppress(ray.exceptions.RayError):
        tidy = [actor.handle.tidy.remote() for actor in actors if actor.began and actor.alive()]
        if tidy:
            ray.wait(tidy, num_returns=len(tidy), timeout=_FAREWELL)
        for actor in actors:
            ray.kill(actor.handle)


def _wait(actors: Sequence[_Actor], seconds: float) -> None:
    import ray

    ray.wait([actor.news for actor in actors], timeout=seconds)


@contextlib.contextmanager
def _token(root: Path) -> Iterator[Path]:
    """A file by which a worker finds out whether it sees this output folder."""
    path = root.absolute() / ".medrl" / f"token-{secrets.token_hex(8)}"
    path.touch()
    try:
        yield path
    finally:
        path.unlink(missing_ok=True)


class _Serving:
    """The actor itself: one thread works through cases, calls put them in and take news out."""

    def __init__(self, task: Task, root: Path, token: Path) -> None:
        self._news: queue.SimpleQueue[_News] = queue.SimpleQueue()
        self._todo: queue.SimpleQueue[Case] = queue.SimpleQueue()
        self._scratch = Path(tempfile.mkdtemp(prefix="medrl-"))
        self._shared = token.exists()
        self._root = root if self._shared else self._scratch / "out"
        self._cases: dict[str, Case] = {}
        threading.Thread(target=self._work, args=(task,), daemon=True).start()

    def put(self, case: Case, wanted: list[Stamp], parcel: Parcel | None = None) -> None:
        """Take a case, with its files or how to tell that they are here."""
        if parcel is not None:
            case = unpack(case, parcel, Path(tempfile.mkdtemp(dir=self._scratch)))
        elif not are_here(wanted):
            self._news.put(_Wanted(case.name))
            return
        self._cases[case.name] = case
        self._todo.put(case)

    def listen(self) -> list[_News]:
        """What there is to tell; an empty list after a while without."""
        try:
            news = [self._news.get(timeout=_PATIENCE)]
        except queue.Empty:
            return []
        with contextlib.suppress(queue.Empty):
            while True:
                news.append(self._news.get_nowait())
        return news

    def tidy(self) -> None:
        """Remove all copies; the end."""
        shutil.rmtree(self._scratch, ignore_errors=True)

    def _work(self, task: Task) -> None:
        import ray

        try:
            store = Store(self._root)
            pipeline = Pipeline(
                task.open(1),
                store,
                lambda message: self._tell(store, message),
                together=task.together,
            )
        except Exception as error:
            self._news.put(Message("", None, reason(error), fatal=True))
            return
        self._news.put(_Ready(medrl.__version__, ray.get_runtime_context().get_node_id()))
        while True:
            while not (len(pipeline) and self._todo.empty()):
                pipeline.put(self._todo.get())
            pipeline.step()

    def _tell(self, store: Store, message: Message) -> None:
        if message.stage is not None:
            self._news.put(message)
            return
        case = self._cases.pop(message.name)
        if case.copies is not None:
            shutil.rmtree(case.copies, ignore_errors=True)
        if message.error is not None:
            line = message.error.replace(str(case.copies), "")
            self._news.put(message._replace(error=line))
        elif self._shared:
            self._news.put(message)
        else:
            try:
                self._news.put(_Result(case.name, store.take(case)))
            except OSError as error:
                self._news.put(Message(case.name, None, reason(error)))
