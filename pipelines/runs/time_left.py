"""Time left of a run whose stages cost differently."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ..config.run_config import RunConfig

_STEP = {"gaussians": 0.06, "nerf": 0.15, "dmtet": 0.25, "textured_mesh": 0.05, "retextured_mesh": 0.05}
_OTHER_STEP = 0.1
"""Seconds per step without the prior, by representation, and of any other one: measured on two CPU cores, as are all
of these. Only their ratios matter for steps."""
_VIEW = 0.025
"""Seconds of the prior per view of 96 x 96 pixels."""
_CONVERSION = {"dmtet": 15.0, "textured_mesh": 10.0}
_OTHER_CONVERSION = 10.0
"""Seconds of the conversion of a scene, by representation."""
_ENDING = 10.0
"""Seconds of turntable, export and report."""
_RECENT = 50
"""Number of steps that the present cost of a step is the median of: it ignores compilation and pauses."""


@dataclass(frozen=True)
class ExpectedStage:
    """Expected cost of a stage."""

    steps: int
    step_seconds: float
    conversion_seconds: float = 0.0
    """Seconds before the first step."""


def expected_stages(config: RunConfig) -> dict[str, ExpectedStage]:
    """The expected costs of the stages of a run, by name in their order."""
    out: dict[str, ExpectedStage] = {}
    for name, stage in config.active_stages().items():
        representation = config.representation_of(name).name
        pixels = stage.warmup * stage.warmup_resolution**2 + (1 - stage.warmup) * stage.resolution**2
        seconds = _STEP.get(representation, _OTHER_STEP) + _VIEW * stage.views.per_step * pixels / 96**2
        conversion = _CONVERSION.get(representation, _OTHER_CONVERSION) if config.takes_over(name) else 0.0
        out[name] = ExpectedStage(stage.steps, seconds, conversion)
    return out


class TimeLeft:
    """Estimates the seconds until the end of a run from the steps so far.

    The present stage goes on as it does. The steps of later ones cost as expected, times the ratio of present to
    expected seconds per step. Conversions and the export are expected to take as long as on two CPU cores.
    """

    def __init__(self, stages: Mapping[str, ExpectedStage], *, ending: float = _ENDING) -> None:
        self._stages, self._ending = stages, ending
        self._stage = ""
        self._seconds: list[float] = []

    def record(self, stage: str, seconds: float) -> None:
        """Add the seconds of a step."""
        if stage != self._stage:
            self._stage, self._seconds = stage, []
        self._seconds = [*self._seconds[-(_RECENT - 1) :], seconds]

    @property
    def step_seconds(self) -> Sequence[float]:
        """Seconds of the last steps of the present stage."""
        return self._seconds

    def after(self, step: int) -> float:
        """Seconds left after a step of the run, counted from 1 over all stages."""
        present = statistics.median(self._seconds)
        ratio = present / self._stages[self._stage].step_seconds if self._stage in self._stages else 1.0
        left, end = self._ending, 0
        for name, stage in self._stages.items():
            begin, end = end, end + stage.steps
            if name == self._stage:
                left += present * (end - step)
            elif begin >= step:
                left += stage.conversion_seconds + ratio * stage.step_seconds * stage.steps
        return left
