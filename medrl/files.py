"""Files that are whole or not there."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def atomic_path(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Give a temporary path to write to, and rename it to `path` when the block ends well.

    Args:
        path: File to write; replaced if it exists.

    Yields:
        Path of a new file in the same folder, with the same suffixes, so that writers pick the
        same format. What was written there is removed if the block raises.
    """
    target = Path(path)
    suffix = "".join(target.suffixes[-2:])
    temporary = target.with_name(f".part-{secrets.token_hex(6)}{suffix}")
    try:
        yield temporary
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)
