"""The settings of one stage."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Any

from annotated_types import Interval

from ..settings.schedules import parse_schedule
from .estimated_geometry import ESTIMATED
from .optimizers import OptimizerConfig
from .shading import ShadingConfig
from .views import ViewsConfig

MAX_STEPS = 10_000_000

REFINING_RATES = 0.1
"""Default factor on the learning rates (see `StageConfig.rates`) if a given shape is refined.

At full rates a surface moves by centimeters per step, and the given shape is soon lost."""


@dataclass
class StageConfig:
    """One stage of optimization."""

    representation: dict[str, Any] | None = None
    """Representation to train, by name, with its settings: `{name: dmtet, resolution: 64}`; the scene of the previous
    stage is converted to it. None: training continues with the same scene; in the first stage, the run's
    `representation`."""
    steps: Annotated[int, Interval(ge=0, le=MAX_STEPS)] = 400
    """Number of optimizer steps; 0: the stage is skipped."""
    resolution: Annotated[int, Interval(ge=16, le=4096)] = 128
    """Size of a training view in pixels (square)."""
    warmup_resolution: Annotated[int, Interval(ge=16, le=4096)] = 64
    """Size of a training view in pixels during the first `warmup` of the steps, which are faster and give a coarse
    shape."""
    warmup: Annotated[float, Interval(ge=0, le=1)] = 0.3
    """Fraction of the steps at `warmup_resolution`, in [0, 1]."""
    views: ViewsConfig = field(default_factory=ViewsConfig)
    normals: Annotated[float, Interval(ge=0, le=1)] = 0.0
    """Fraction of the steps that distill the image of the normals (on black) instead of the colors, in [0, 1]
    (Fantasia3D)."""
    shading: ShadingConfig = field(default_factory=ShadingConfig)
    environment: bool = False
    """Whether to train a background that depends on the view direction, instead of the plain colors of `views`."""
    regularizers: dict[str, Any] = field(default_factory=dict)
    """Weight per regularizer: those of `REGULARIZERS` and `ESTIMATED` on images, and the representation's own. A
    number, or a schedule `{from: 10, to: 1000, begin: 0.1, end: 0.5}` over fractions of the stage. They are added to a
    distillation loss that is summed over the latent and averaged over views (`total_loss`)."""
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    rates: Annotated[float, Interval(gt=0, le=10000)] | None = None
    """Factor on all learning rates of the scene. None: 1, or `REFINING_RATES` for the shape of a run that starts from
    the user's own file, which is to be preserved."""
    method: dict[str, Any] = field(default_factory=dict)
    """Settings of the distillation method that differ in this stage, such as `{timesteps: {maximum: 0.5}}`; with
    `name`, another method."""
    probe_every: Annotated[int, Interval(ge=0, le=MAX_STEPS)] = 20
    """Steps between measurements of the gradient's variance; 0: never."""
    probe_tuples: Annotated[int, Interval(ge=0, le=100_000)] = 0
    """Draws of timestep, camera and noise (an even number) per measurement, for the total variance of the gradient with
    respect to the scene's parameters; 0: only the variance over the noise for the step's own images."""

    @property
    def needs_estimator(self) -> bool:
        """Whether a regularizer uses the geometry estimator."""
        return any(self.regularizers.get(name) for name in ESTIMATED)

    def __post_init__(self) -> None:
        if self.probe_tuples % 2 or self.probe_tuples == 2:
            raise ValueError(f"probe_tuples is {self.probe_tuples}; even numbers from 4 on are accepted, and 0")
        for name, weight in self.regularizers.items():
            parse_schedule(weight, f"regularizers.{name}")
