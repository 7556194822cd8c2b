"""The settings of one stage."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Any

from annotated_types import Interval

from steindreamer.distill.priors.modalities import MODALITIES, Modality

from ..settings.schedules import Schedule, parse_schedule
from .estimated_geometry import ESTIMATED
from .optimizers import OptimizerConfig
from .shading import ShadingConfig
from .views import ViewsConfig

MAX_STEPS = 10_000_000

REFINING_RATES = 0.1
"""Default factor on the learning rates (see `StageConfig.rates`) if a given shape is refined.

At full rates a surface moves by centimeters per step, and the given shape is soon lost."""

_RATES = Interval(gt=0, le=10000)
"""The accepted factors on the learning rates."""


@dataclass
class StageConfig:
    """One stage of optimization."""

    representation: dict[str, Any] | None = None
    """Representation to train, by name, with its settings: `{name: dmtet, resolution: 64}`; the scene of the previous
    stage is converted to it. None: training continues with the same scene; in the first stage, the run's
    `representation`."""
    steps: Annotated[int, Interval(ge=0, le=MAX_STEPS)] = 400
    """Number of steps; 0: the stage is skipped. A step draws new views, requests the prior's predictions for them, and
    takes `reuse` optimizer steps."""
    resolution: Annotated[int, Interval(ge=16, le=4096)] = 128
    """Size of a training view in pixels (square)."""
    warmup_resolution: Annotated[int, Interval(ge=16, le=4096)] = 64
    """Size of a training view in pixels during the first `warmup` of the steps, which are faster and give a coarse
    shape."""
    warmup: Annotated[float, Interval(ge=0, le=1)] = 0.3
    """Fraction of the steps at `warmup_resolution`, in [0, 1]."""
    views: ViewsConfig = field(default_factory=ViewsConfig)
    modalities: dict[Modality, Annotated[float, Interval(ge=0, le=1e6)]] = field(default_factory=dict)
    """Fractions of the steps that distill each modality, which the prior must support; normalized, so that
    `{color: 1, normal: 2}` is one third color. Empty: color only. `shading` applies to color only."""
    normals_as_color: bool = False
    """Whether the prior is given normal maps as if they were color images (Fantasia3D): world-space normals over
    black, for a prior that only supports color."""
    shading: ShadingConfig = field(default_factory=ShadingConfig)
    environment: bool = False
    """Whether to train a background that depends on the view direction, instead of the plain colors of `views`."""
    regularizers: dict[str, Any] = field(default_factory=dict)
    """Weight per regularizer: those of `REGULARIZERS` and `ESTIMATED` on images, and the representation's own. A
    number, or a schedule `{from: 10, to: 1000, begin: 0.1, end: 0.5}` over fractions of the stage. They are added to a
    distillation loss that is summed over the latent and averaged over views (`total_loss`)."""
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    rates: Any = None
    """Factor on all learning rates of the scene, in (0, 10000]: a number, or a schedule such as `{from: 6, to: 0.6}`
    over fractions of the stage. None: 1, or `REFINING_RATES` for the shape of a run that starts from the user's own
    file, which is to be preserved."""
    reuse: Annotated[int, Interval(ge=1, le=1000)] = 1
    """Optimizer steps per step. The first one uses the method's gradient. The others render the same views again and
    continue toward the predicted x0 of the first, without another prediction of the prior."""
    ema: Annotated[float, Interval(ge=0, lt=1)] = 0.0
    """Decay per step of an exponential moving average of the scene's parameters, which replaces them at the end of the
    stage; 0: none."""
    method: dict[str, Any] = field(default_factory=dict)
    """Settings of the distillation method that differ in this stage, such as `{timesteps: {maximum: 0.5}}`; with
    `name`, another method."""
    probe_every: Annotated[int, Interval(ge=0, le=MAX_STEPS)] = 20
    """Steps between measurements of the gradient's variance; 0: never."""
    probe_tuples: Annotated[int, Interval(ge=0, le=100_000)] = 0
    """Draws of timestep, camera and noise (a multiple of 4) per measurement, for the total variance of the gradient
    with respect to the scene's parameters; 0: only the variance over the noise for the step's own images."""

    @property
    def needs_estimator(self) -> bool:
        """Whether a regularizer uses the geometry estimator."""
        return any(self.regularizers.get(name) for name in ESTIMATED)

    @property
    def fractions(self) -> dict[str, float]:
        """Fractions of the modalities that the stage distills, in the order of `MODALITIES`; they sum to 1."""
        given = self.modalities or {"color": 1.0}
        total = sum(given.values())
        return {name: given[name] / total for name in MODALITIES if given.get(name)}

    @property
    def rates_schedule(self) -> Schedule:
        """`rates` as a schedule. Raises SettingsError for any other value."""
        return parse_schedule(1.0 if self.rates is None else self.rates, "rates", _RATES)

    def __post_init__(self) -> None:
        if self.modalities and not any(self.modalities.values()):
            raise ValueError("modalities are all 0; give at least one of them a fraction above 0")
        if self.normals_as_color and not self.modalities.get("normal"):
            raise ValueError(
                "normals_as_color applies to normal maps, but `modalities` has none; set modalities={normal: 1}, or "
                "normals_as_color=false"
            )
        if self.probe_tuples % 4 or self.probe_tuples == 4:
            raise ValueError(f"probe_tuples is {self.probe_tuples}; 0 and multiples of 4 from 8 are accepted")
        for name, weight in self.regularizers.items():
            parse_schedule(weight, f"regularizers.{name}")
        _ = self.rates_schedule  # checks it
