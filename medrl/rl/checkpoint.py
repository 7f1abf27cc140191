"""Checkpoints of a training: safetensors, so that resuming never runs a pickle."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Generator, Tensor, nn

from medrl.errors import MedrlError
from medrl.files import atomic_path


def save_checkpoint(
    path: Path,
    *,
    step: int,
    network: nn.Module,
    optimizer: torch.optim.Optimizer,
    generator: Generator,
) -> None:
    """Write everything that a training goes on from.

    Args:
        path: The file; written under another name and renamed.
        step: Batches done.
        network: Its parameters and buffers.
        optimizer: Its moments.
        generator: Its state.
    """
    tensors: dict[str, Tensor] = {
        f"network.{key}": value.contiguous() for key, value in network.state_dict().items()
    }
    for index, state in optimizer.state_dict()["state"].items():
        for key, value in state.items():
            tensors[f"optimizer.{index}.{key}"] = torch.as_tensor(value).contiguous()
    tensors["generator"] = generator.get_state()
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(path) as temporary:
        save_file(tensors, temporary, metadata={"step": str(step)})


def load_checkpoint(
    path: Path,
    *,
    network: nn.Module,
    optimizer: torch.optim.Optimizer | None = None,
    generator: Generator | None = None,
) -> int:
    """Read a checkpoint back.

    Args:
        path: The file.
        network: Gets the parameters and buffers.
        optimizer: Gets its moments.
        generator: Gets its state.

    Returns:
        Batches done.

    Raises:
        MedrlError: If the file is damaged or was written with other settings.
    """
    try:
        with safe_open(path, framework="pt") as file:
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
            step = int(file.metadata()["step"])
        prefix = "network."
        network.load_state_dict(
            {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
        )
    except (OSError, SafetensorError, KeyError, RuntimeError) as error:
        raise MedrlError(
            f"{path} does not fit these settings or is damaged: use the settings it was written "
            "with, or start in another folder"
        ) from error
    if optimizer is not None:
        state: dict[int, dict[str, Tensor]] = {}
        for key, value in tensors.items():
            if key.startswith("optimizer."):
                _, index, name = key.split(".", 2)
                state.setdefault(int(index), {})[name] = value
        optimizer.load_state_dict({**optimizer.state_dict(), "state": state})
    if generator is not None:
        generator.set_state(tensors["generator"])
    return step
