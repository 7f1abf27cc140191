"""From what a model's files say to its settings and networks, whatever they say."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import MISSING, fields, is_dataclass
from pathlib import Path
from types import NoneType, UnionType
from typing import TYPE_CHECKING, Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

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
        return _instance(cls, values)


def assemble(
    make: Callable[[], _Network], tensors: Mapping[str, Tensor], *, source: str | Path
) -> _Network:
    """Make a network and put weights into it, all of them and nothing else.

    It is first planned without memory, so that settings that ask for more than the weights hold
    are refused before anything is made.

    Args:
        make: Makes the network.
        tensors: Weights by name, as in ``state_dict()``, without counters of batches.
        source: What to call the model in an error.

    Returns:
        The network in evaluation mode.

    Raises:
        MedrlError: If the settings describe no network, or a tensor is missing, left over, or of
            another shape.
    """
    import torch

    given = _shapes(tensors)
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
        network.load_state_dict({**{k: v.float() for k, v in tensors.items()}, **counters})
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


def _instance(cls: type[_T], values: Mapping[str, Any]) -> _T:
    if not isinstance(values, Mapping):
        raise TypeError(f"{cls.__name__} must be an object")
    known = {f.name: f for f in fields(cls)}  # type: ignore[arg-type]
    hints = get_type_hints(cls)
    if unknown := sorted(set(values) - set(known)):
        raise TypeError(f"{unknown[0]!r} is unknown")
    for name, one in known.items():
        if name not in values and one.default is MISSING and one.default_factory is MISSING:
            raise TypeError(f"{name!r} is missing")
    return cls(**{name: _value(hints[name], value, name) for name, value in values.items()})


def _value(hint: Any, value: Any, name: str) -> Any:
    """A value as its field declares it."""
    origin, inner = get_origin(hint), get_args(hint)
    if origin in (Union, UnionType):
        if value is None and NoneType in inner:
            return None
        return _value(next(one for one in inner if one is not NoneType), value, name)
    if is_dataclass(hint):
        return _instance(hint, value)  # type: ignore[arg-type]
    if origin is tuple and isinstance(value, list | tuple):
        kinds = inner[:1] * len(value) if inner[1:] == (Ellipsis,) else inner
        if len(kinds) == len(value):
            return tuple(_value(kind, one, name) for kind, one in zip(kinds, value, strict=True))
    elif origin is Literal and value in inner:
        return value
    elif hint is float and _is_number(value) and math.isfinite(value):
        return float(value)
    whole = hint is int and _is_number(value) and isinstance(value, int) and abs(value) < _MOST
    if whole or (hint in (str, bool) and isinstance(value, hint)):
        return value
    raise TypeError(f"{name!r} cannot be {str(value)[:40]}")


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
