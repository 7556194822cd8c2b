"""Suppression of diffusers' and transformers' output to stderr while they load."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def quiet(*libraries: Any) -> Iterator[None]:
    """Suppress progress bars and reports of the given packages within the context.

    A run has its own log, and missing weights, which the reports mention, are errors here.
    """
    loggers = [library.utils.logging for library in libraries]
    shown = [logger for logger in loggers if logger.is_progress_bar_enabled()]
    levels = [logger.get_verbosity() for logger in loggers]
    for logger in shown:
        logger.disable_progress_bar()
    for logger in loggers:
        logger.set_verbosity(logging.CRITICAL)
    try:
        yield
    finally:
        for logger in shown:
            logger.enable_progress_bar()
        for logger, level in zip(loggers, levels, strict=True):
            logger.set_verbosity(level)
