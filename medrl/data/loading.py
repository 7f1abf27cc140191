"""Loading many scans."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

from medrl.errors import MedrlError
from medrl.memory import DOES_NOT_FIT, ran_out_of_memory

S = TypeVar("S")
T = TypeVar("T")


def load_samples(
    samples: Sequence[S],
    load: Callable[[S], T],
    *,
    files: Callable[[S], Sequence[Path]],
    progress: Callable[[int, int], None] | None = None,
) -> list[T]:
    """Load samples one by one.

    Args:
        samples: What to load.
        load: Reads one.
        files: What a sample is read from.
        progress: Called with the samples read and their number.

    Raises:
        MedrlError: If one cannot be loaded; the line names the file.
    """
    loaded = []
    for sample in samples:
        try:
            loaded.append(load(sample))
        except Exception as error:
            if not isinstance(error, MedrlError) and not ran_out_of_memory(error):
                raise
            line = str(error) if isinstance(error, MedrlError) else DOES_NOT_FIT
            if not any(str(file) in line for file in files(sample)):
                line = f"{files(sample)[0]}: {line}"
            raise MedrlError(line) from error
        if progress is not None:
            progress(len(loaded), len(samples))
    return loaded
