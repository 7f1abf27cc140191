"""Keeping off the terminal what readers' libraries say: they quote values, which may be names."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

_LOGGERS = ("nibabel.global", "nibabel", "pydicom", "highdicom")
_SILENT = logging.CRITICAL + 1


@contextmanager
def libraries_muted() -> Iterator[None]:
    """Keep warnings and log lines off while the block runs; not with other threads beside it."""
    loggers = [logging.getLogger(name) for name in _LOGGERS]
    levels = [logger.level for logger in loggers]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for logger in loggers:
            logger.setLevel(_SILENT)
        try:
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)


def mute_libraries() -> None:
    """Keep warnings and log lines off in this process, whatever its threads do."""
    warnings.simplefilter("ignore")
    for name in _LOGGERS:
        logging.getLogger(name).setLevel(_SILENT)
