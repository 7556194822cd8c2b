"""Watching a run: a callback between its steps, which may ask the run to wait or to end."""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum

from ..optimization.stage import Stage


class Wish(Enum):
    """Request of a `Watch` to the run."""

    WAIT = "wait"
    """Call it again before the next step."""
    STOP = "stop"
    """Save the state and end, as after Ctrl-C."""
    EXPORT = "export"
    """Save the state, and export this scene without the remaining steps and stages."""


Watch = Callable[[Stage], Wish | None]
"""Callback invoked with a stage before its first step and after each step; returns None to continue.

It must not change the scene."""
