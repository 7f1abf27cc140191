"""Loops that Numba compiles: one place decides how, and where the machine code is kept."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, cast

from numba import njit
from numba.core.caching import FunctionCache


def compile_with(**options: Any) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Compile a function on its first call, without the GIL.

    The machine code is kept on disk for the next process. Where there is no place for it (a
    read-only installation without a home, a full disk), or what is there is damaged, it is
    compiled anew each time: never is that a reason to fail.

    Args:
        options: Further ones of Numba's ``njit``.
    """

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        dispatcher = njit(nogil=True, **options)(function)
        with suppress(RuntimeError):  # Numba found no folder it may write to
            dispatcher._cache = _Cache(function)
        return cast(Callable[..., Any], dispatcher)

    return decorate


class _Cache(FunctionCache):
    """Numba's own, but nothing that goes wrong with its files reaches the caller."""

    @contextmanager
    def _guard_against_spurious_io_errors(self) -> Iterator[None]:
        with suppress(Exception):
            yield
