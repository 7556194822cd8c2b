"""When several draws per view pay: variance and time of a gradient that averages K draws.

With B the variance between cameras, W the variance of one draw within a view (noise and level), u the seconds to render
and encode a view, forward and backward, and c the seconds of one draw (guided prediction and control variates), n
independent views of K draws each have the variance (B + W / K) / n and take n (u + K c) seconds. Their product

    (B + W / K) (u + K c)

does not depend on n. It is least at K* = sqrt(W u / (B c)), where it is (sqrt(B u) + sqrt(W c))^2. This is the optimal
allocation of two-stage sampling (Cochran, Sampling Techniques, 3rd ed. 1977, sec. 10.6).
"""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class DrawCost:
    """Variances and seconds of a gradient, as defined at the top of the file."""

    within: float
    """Variance W of one draw within a view, over noise and level."""
    between: float
    """Variance B between cameras of the mean within a view. An estimate may be negative, which counts as 0."""
    view_seconds: float
    """Seconds u to render and encode a view, forward and backward."""
    draw_seconds: float
    """Seconds c of one draw."""

    def variance(self, draws: float) -> float:
        """Variance of the gradient of one view with independent draws; draws in strata have at most this variance."""
        return max(self.between, 0.0) + max(self.within, 0.0) / draws

    def variance_time(self, draws: float) -> float:
        """Variance times seconds of one view."""
        return self.variance(draws) * (self.view_seconds + draws * self.draw_seconds)

    def gain(self, draws: float) -> float:
        """Factor by which `draws` draws shorten the time to a given variance, relative to one draw; nan without any."""
        product = self.variance_time(draws)
        return self.variance_time(1) / product if product > 0 else math.nan

    @property
    def optimum(self) -> float:
        """The number K* that minimizes `variance_time`, not rounded.

        0 without variance within a view; infinite if the cameras do not vary or a draw takes no time.
        """
        if self.within <= 0 or self.view_seconds <= 0:
            return 0.0
        cost = max(self.between, 0.0) * self.draw_seconds
        return math.sqrt(self.within * self.view_seconds / cost) if cost > 0 else math.inf

    def best(self, limit: int) -> int:
        """The whole number of draws from 1 to `limit` with the least `variance_time`."""
        # Convex in the number of draws, so that the best one is next to the optimum.
        below = math.floor(min(max(self.optimum, 1), limit))
        return min((below, min(below + 1, limit)), key=self.variance_time)
