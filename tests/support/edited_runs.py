"""A program that makes a run in one process and in two, with a live view whose user changes settings meanwhile."""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from forked_ranks import run

from steindreamer.pipelines.live.view import LiveView
from steindreamer.pipelines.optimization.stage import Stage
from steindreamer.pipelines.runs.watching import Wish

ORDERS: dict[int, dict[str, str | float]] = {
    1: {"prompt": "a blue mug", "guidance_scale": 30.0},
    2: {"prompt": "a zorbifex", "guidance_scale": 1e9},  # both are refused
    3: {"prompt": "a red mug", "largest_timestep": 0.3},
}
"""Settings that the user changes after a number of steps."""


class OrderedView(LiveView):
    """The view of a run whose user gives `ORDERS`."""

    def __call__(self, stage: Stage) -> Wish | None:
        """Queue the orders of this step first."""
        for name, value in ORDERS.get(stage.total, {}).items():
            self._order(name, value)
        return super().__call__(stage)


def main(out: Path, settings: list[str]) -> bool:
    """Make the runs in the folders `1` and `2`; returns whether none failed."""
    from steindreamer.pipelines.live import view

    torch.set_num_threads(1)
    view.LiveView = OrderedView
    return all(
        [run(count, [*settings, "--view", "--port", "18300", "--out", str(out / str(count))]) for count in (1, 2)]
    )


if __name__ == "__main__":
    sys.exit(not main(Path(sys.argv[1]), sys.argv[2:]))
