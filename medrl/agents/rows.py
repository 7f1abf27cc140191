"""Batches of agents as dataclasses of tensors: one row an agent."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Any, Self, TypeVar, get_type_hints

import torch
from torch import Tensor

_R = TypeVar("_R", bound="Rows")


@dataclass(frozen=True, eq=False)
class Rows:
    """Base of frozen dataclasses whose fields have one row an agent, N in all.

    A field is a tensor of leading dimension N, another `Rows` of N, a dictionary of such tensors,
    or None. Nothing is changed in place: every operation returns new rows.
    """

    def __len__(self) -> int:
        """N, the number of agents."""
        for tensor in self.state_dict().values():
            return len(tensor)
        return 0

    @property
    def device(self) -> torch.device:
        """Where the tensors are."""
        return next(iter(self.state_dict().values())).device

    def select(self, rows: Tensor) -> Self:
        """Some of the agents.

        Args:
            rows: (M,) int64, or (N,) bool.
        """
        return _merged(lambda field: field[rows], self)

    def put(self, rows: Tensor, part: Self) -> Self:
        """These agents, some of them replaced.

        Args:
            rows: (M,) int64, which.
            part: M agents.
        """
        return _merged(lambda field, new: field.index_copy(0, rows, new), self, part)

    def where(self, mask: Tensor, other: Self) -> Self:
        """These agents where a mask (N,) is true, those of `other` elsewhere."""

        def chosen(own: Tensor, others: Tensor) -> Tensor:
            return torch.where(mask.view(-1, *[1] * (own.dim() - 1)), own, others)

        return _merged(chosen, self, other)

    def to(self, device: torch.device | str) -> Self:
        """The same agents on another device."""
        return _merged(lambda field: field.to(device), self)

    @classmethod
    def cat(cls, parts: Sequence[Self]) -> Self:
        """All agents of several batches, in order."""
        return _merged(lambda *tensors: torch.cat(tensors), *parts)

    def state_dict(self) -> dict[str, Tensor]:
        """All tensors by name, those of nested rows and dictionaries as ``field.name``."""
        found: dict[str, Tensor] = {}
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, Tensor):
                found[field.name] = value
            elif value is not None:
                inner = value.state_dict() if isinstance(value, Rows) else value
                found |= {f"{field.name}.{name}": tensor for name, tensor in inner.items()}
        return found

    @classmethod
    def from_state_dict(cls, tensors: Mapping[str, Tensor]) -> Self:
        """The agents again whose :meth:`state_dict` was kept."""
        hints = get_type_hints(cls)
        values: dict[str, Any] = {}
        for field in fields(cls):
            prefix = f"{field.name}."
            inner = {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
            kind = hints[field.name]
            if field.name in tensors:
                values[field.name] = tensors[field.name]
            elif is_dataclass(kind) and isinstance(kind, type) and issubclass(kind, Rows):
                values[field.name] = kind.from_state_dict(inner)
            else:
                values[field.name] = inner or ({} if "dict" in str(kind) else None)
        return cls(**values)


def _merged(combine: Callable[..., Tensor], first: _R, *others: _R) -> _R:
    """Rows of the same kind, field by field."""
    merged: dict[str, Any] = {}
    for field in fields(first):
        values = [getattr(rows, field.name) for rows in (first, *others)]
        if isinstance(values[0], Tensor):
            merged[field.name] = combine(*values)
        elif isinstance(values[0], Rows):
            merged[field.name] = _merged(combine, *values)
        elif values[0]:
            merged[field.name] = {
                name: combine(*(value[name] for value in values)) for name in values[0]
            }
    return replace(first, **merged)
