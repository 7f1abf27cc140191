"""From what a model's files say to its settings and networks, whatever they say."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import fields
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, get_args, get_origin

from cattrs import BaseValidationError, Converter, transform_error

from medrl.errors import MedrlError

if TYPE_CHECKING:
    from torch import Tensor, nn

_T = TypeVar("_T")
_Network = TypeVar("_Network", bound="nn.Module")
#: How code fails on values that nobody has foreseen.
_WAYS = (
    ArithmeticError,
    AttributeError,
    LookupError,
    MemoryError,
    RuntimeError,
    TypeError,
    ValueError,
)
#: Larger than any number of layers, channels or steps.
_MOST = 2**31


def settings_from(cls: type[_T], values: Any) -> _T:
    """Read settings that :func:`dataclasses.asdict` and JSON wrote.

    Args:
        cls: A dataclass of numbers, texts, tuples and further dataclasses.
        values: What JSON holds.

    Returns:
        An instance, every value of the type that its field declares.

    Raises:
        MedrlError: If a setting is missing, unknown or of another type.
    """
    with damaged("the model's settings are damaged"):
        names = {f.name for f in fields(cls)}  # type: ignore[arg-type]
        if not isinstance(values, Mapping) or set(values) != names:
            odd = sorted(names ^ set(values))
            raise MedrlError(f"the model's settings do not fit this version of medrl: {odd}")
        try:
            return _converter().structure(values, cls)
        except BaseValidationError as error:
            raise ValueError(transform_error(error)[0]) from error


def network_tensors(network: nn.Module, *, prefix: str = "") -> dict[str, Tensor]:
    """Everything that a network has learned, by name, on the CPU, without counters of batches."""
    return {
        f"{prefix}{name}": value.detach().cpu()
        for name, value in network.state_dict().items()
        if not _counts(name)
    }


def assemble(
    make: Callable[[], _Network],
    tensors: Mapping[str, Tensor],
    *,
    source: str | Path,
    prefix: str = "",
) -> _Network:
    """Make a network and put weights into it, all of them and nothing else.

    It is first planned without memory, so that settings that ask for more than the weights hold
    are refused before anything is made.

    Args:
        make: Makes the network.
        tensors: Weights by name, see :func:`network_tensors`.
        source: What to call the model in an error.
        prefix: What the names of this network's weights begin with.

    Returns:
        The network in evaluation mode.

    Raises:
        MedrlError: If the settings describe no network, or a tensor is missing, left over, or of
            another shape.
    """
    import torch

    own_tensors = {
        name.removeprefix(prefix): value.float()
        for name, value in tensors.items()
        if name.startswith(prefix)
    }
    given = _shapes(own_tensors)
    with damaged(f"the settings of {source} describe no network"):
        with torch.device("meta"), _no_drawing():
            own = _shapes({k: v for k, v in make().state_dict().items() if not _counts(k)})
        for name in sorted(own.keys() | given.keys()):
            if own.get(name) != given.get(name):
                raise MedrlError(
                    f"the weights in {source} do not fit the network that its settings describe: "
                    f"{name!r} is {given.get(name, 'missing')}, wanted {own.get(name, 'nothing')}"
                )
        network = make()
        counters = {k: v for k, v in network.state_dict().items() if _counts(k)}
        network.load_state_dict({**own_tensors, **counters})
    return network.eval()


def _no_drawing() -> AbstractContextManager[Any]:
    """Leave out normal_(), which on tensors without memory makes PyTorch load its compiler."""
    import torch
    from torch.overrides import TorchFunctionMode

    class NoDrawing(TorchFunctionMode):  # type: ignore[misc, unused-ignore]
        def __torch_function__(
            self, func: Any, types: Any, args: Any = (), kwargs: Any = None
        ) -> Any:
            kwargs = kwargs or {}
            if func is torch.nn.init.normal_:
                return kwargs["tensor"]
            return func(*args, **kwargs)

    return NoDrawing()


def _counts(name: str) -> bool:
    return name.endswith("num_batches_tracked")


def _shapes(tensors: Mapping[str, Tensor]) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in tensors.items()}


@contextmanager
def damaged(line: str) -> Iterator[None]:
    """Say in one line what goes wrong with settings or weights that no one has foreseen."""
    try:
        yield
    except _WAYS as error:
        reason = " ".join(str(error).split())[:160] or type(error).__name__
        raise MedrlError(f"{line}: {reason}") from error


@cache
def _converter() -> Converter:
    """Builds settings of JSON: every value must be of the type that its field declares."""
    converter = Converter(forbid_extra_keys=True)
    converter.register_structure_hook(float, _finite)
    for kind in (int, bool, str):
        converter.register_structure_hook(kind, _only)
    converter.register_structure_hook_factory(_is_tuple, partial(_tuples, converter))
    return converter


def _finite(value: Any, hint: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError("not a number")
    if not math.isfinite(value):
        raise ValueError("not finite")
    return float(value)


def _only(value: Any, hint: Any) -> Any:
    if type(value) is not hint:
        raise TypeError(f"not {hint.__name__}")
    if hint is int and abs(value) >= _MOST:
        raise ValueError("too large")
    return value


def _is_tuple(hint: Any) -> bool:
    return get_origin(hint) is tuple


def _tuples(converter: Converter, hint: Any) -> Callable[[Any, Any], tuple[Any, ...]]:
    inner = get_args(hint)

    def structure(values: Any, _: Any) -> tuple[Any, ...]:
        if not isinstance(values, list | tuple):
            raise TypeError("not a list")
        kinds = inner[:1] * len(values) if inner[1:] == (Ellipsis,) else inner
        return tuple(
            converter.structure(value, kind) for value, kind in zip(values, kinds, strict=True)
        )

    return structure
