"""Nested states in one safetensors file, so that going on from it never runs a pickle."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from medrl.errors import MedrlError
from medrl.files import atomic_path

#: Nested dictionaries, lists and tuples of tensors, numbers, strings, booleans and None.
State = dict[str, Any]

#: What a file raises that is no checkpoint, and a learner whose state is another's.
MISFITS = (OSError, SafetensorError, LookupError, RuntimeError, TypeError, ValueError)


def save_checkpoint(path: Path, state: State, *, signature: Mapping[str, Any]) -> None:
    """Write a state; the file is whole or not there.

    Tensors are stored under their path in the state, everything else as JSON in the metadata.

    Args:
        path: The file; its folder is made.
        state: What to write.
        signature: What a reader must expect, in terms of JSON: the settings.

    Raises:
        MedrlError: If the file cannot be written.
    """
    tensors: dict[str, Tensor] = {}
    content = _pack(state, "", tensors)
    places = set()
    for name, tensor in tensors.items():
        place = tensor.untyped_storage().data_ptr()
        if place in places:
            tensors[name] = tensor.clone()  # the format refuses tensors that share memory
        places.add(place)
    metadata = {"state": json.dumps(content), "signature": json.dumps(signature)}
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(path) as temporary:
        save_file(tensors, temporary, metadata=metadata)


def load_checkpoint(path: Path, *, signature: Mapping[str, Any]) -> State:
    """Read a state back, to the CPU.

    Raises:
        MedrlError: If the file is damaged or was written under another signature.
    """
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata()
            written = json.loads(metadata["signature"])
            other = _difference(written, json.loads(json.dumps(signature)))
            if other is None:
                state: State = _unpack(json.loads(metadata["state"]), file.get_tensor)
                return state
    except MISFITS as error:
        raise misfit(path, "is damaged, or no checkpoint of this version") from error
    raise misfit(path, f"was written with other settings ({other})")


def load_module(path: Path, module: nn.Module, name: str = "network") -> None:
    """Give a module the weights that a stage's checkpoint has for it.

    Args:
        path: Checkpoint of :func:`medrl.rl.stage.run_stage`.
        module: Gets the weights.
        name: Of the learner's module.

    Raises:
        MedrlError: If the file is damaged or the module is another.
    """
    prefix = f"/learner/modules/{name}/"
    try:
        with safe_open(path, framework="pt") as file:
            names = [key for key in file.keys() if key.startswith(prefix)]  # noqa: SIM118
            module.load_state_dict({key[len(prefix) :]: file.get_tensor(key) for key in names})
    except MISFITS as error:
        raise misfit(path, "does not fit these settings, or is damaged") from error


def misfit(path: Path, why: str) -> MedrlError:
    """What to say of a checkpoint that cannot be used."""
    return MedrlError(
        f"{path} {why}: use the settings it was written with, or start in another folder"
    )


def _pack(value: Any, path: str, tensors: dict[str, Tensor]) -> Any:
    """A value in terms of JSON: what JSON does not know is an object with its kind as the key."""
    if isinstance(value, Tensor):
        while path in tensors:  # {"a/b": x, "a": {"b": y}}
            path += "+"
        tensors[path] = value.detach().cpu().contiguous()
        return {"tensor": path}
    if isinstance(value, Mapping):
        pairs = [[key, _pack(one, f"{path}/{key}", tensors)] for key, one in value.items()]
        return {"dict": pairs}
    if isinstance(value, list | tuple):
        parts = [_pack(one, f"{path}/{index}", tensors) for index, one in enumerate(value)]
        return {type(value).__name__: parts}
    if value is None or type(value) in (bool, int, float, str):
        return value
    raise TypeError(f"{path}: a checkpoint holds no {type(value).__name__}")


def _unpack(value: Any, tensor: Callable[[str], Tensor]) -> Any:
    if not isinstance(value, dict):
        return value
    ((kind, content),) = value.items()
    if kind == "tensor":
        return tensor(content)
    if kind == "dict":
        return {key: _unpack(one, tensor) for key, one in content}
    parts = [_unpack(one, tensor) for one in content]
    return tuple(parts) if kind == "tuple" else parts


def _difference(written: Any, wanted: Any, name: str = "") -> str | None:
    """The first setting that is another one, in words."""
    if isinstance(written, dict) and isinstance(wanted, dict):
        for key in {**written, **wanted}:
            inner = f"{name}.{key}" if name else key
            found = _difference(written.get(key), wanted.get(key), inner)
            if found is not None:
                return found
        return None
    return None if written == wanted else f"{name}: {written}, now {wanted}"
