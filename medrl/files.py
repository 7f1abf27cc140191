"""Files that are whole or not there."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from medrl.errors import MedrlError


@contextmanager
def atomic_path(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Give a temporary path to write to, and rename it to `path` when the block ends well.

    Args:
        path: File to write; replaced if it exists.

    Yields:
        Path of a new file in the same folder, with the same suffixes, so that writers pick the
        same format. What was written there is removed if the block raises.

    Raises:
        MedrlError: If the file cannot be written: no such folder, no permission, disk full.
    """
    target = Path(path)
    suffix = "".join(target.suffixes[-2:])
    temporary = target.with_name(f".part-{secrets.token_hex(6)}{suffix}")
    try:
        if not target.parent.is_dir():
            raise MedrlError(f"cannot write {target}: there is no folder {target.parent}")
        yield temporary
        temporary.replace(target)
    except OSError as error:
        # Another file's trouble (one that the block was reading) is not this file's.
        if error.filename is not None and Path(os.fsdecode(error.filename)) != temporary:
            raise
        reason = error.strerror or str(error)
        raise MedrlError(f"cannot write {target}: {reason}") from error
    finally:
        if temporary.parent.is_dir():
            temporary.unlink(missing_ok=True)
