"""Plain text in the Markdown of the live view's page."""

from __future__ import annotations

import re


def escaped(text: str) -> str:
    """Markdown that shows a text as it is: neither markup nor HTML of a prompt or a file name takes effect."""
    return re.sub(r"([!-/:-@\[-`{-~])", r"\\\1", text)
