"""The engine that a command line names."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from medrl.errors import MedrlError
from medrl.systems import check_device

if TYPE_CHECKING:
    from medrl.engines import Engine


def make_engine(
    kind: Literal["local", "ray"],
    workers: int | None,
    *,
    address: str | None = None,
    device: str = "cpu",
    gpus: float = 1.0,
) -> Engine:
    """Where the work is done.

    Args:
        kind: Processes of this machine, or actors of a Ray cluster.
        workers: How many; 1 or, on a cluster, as many as it has room for if None.
        address: Of a running cluster.
        device: Torch device of the work.
        gpus: GPUs that an actor asks for.

    Raises:
        MedrlError: If the options contradict each other, or Ray or the device is not there.
    """
    if kind == "ray":
        from medrl.engines.ray import RayEngine

        return RayEngine(workers, address=address, device=device, gpus=gpus)
    from medrl.engines.local import LocalEngine

    if address is not None:
        raise MedrlError("--address is for --engine ray")
    check_device(device)
    return LocalEngine(1 if workers is None else workers)
