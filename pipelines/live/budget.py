"""Limit of the time that a run spends on images of its view."""

from __future__ import annotations

import time

FRACTION = 0.02
"""Fraction of the time of a run that is spent on images in the long run."""
SAVED = 0.3
"""Largest number of seconds that are saved for a moving camera, so that it gets images at once."""


class Budget:
    """Seconds that a run may still spend on images, for all browsers together.

    They grow by `FRACTION` of the time up to `SAVED`. An image of another view may use them up; one that only shows a
    newer state of the scene has to wait until all are saved.
    """

    def __init__(self) -> None:
        self._left, self._at = SAVED, time.perf_counter()

    def allows(self, *, is_other_view: bool) -> bool:
        """Whether an image may be drawn now.

        Args:
            is_other_view: Whether the browser has no image of this view yet.
        """
        now = time.perf_counter()
        self._left, self._at = min(SAVED, self._left + (now - self._at) * FRACTION), now
        return self._left > 0 if is_other_view else self._left >= SAVED

    def spend(self, seconds: float) -> None:
        """Subtract the duration of an image, which may exceed what is left."""
        self._left -= seconds
