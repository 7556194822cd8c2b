"""Timestep sampling: the range over a run, stratification, importance sampling and its importance weights."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal, get_args

import torch
from annotated_types import Interval
from jaxtyping import Float, Int64
from torch import Tensor, nn

from .schedule import NoiseSchedule

Order = Literal["random", "linear", "dreamtime"]
ORDERS: tuple[Order, ...] = get_args(Order)


@dataclass
class TimestepConfig:
    """Timesteps uniform in [minimum, maximum), as fractions of the schedule; the maximum falls linearly during the run.

    High noise levels determine the layout early on; later they only remove detail (ProlificDreamer, sec. 4.1).
    """

    minimum: Annotated[float, Interval(ge=0, le=1)] = 0.02
    """The smallest timestep, a fraction of the schedule."""
    maximum: Annotated[float, Interval(ge=0, le=1)] = 0.98
    """The maximum at the start of the run, a fraction of the schedule."""
    final_maximum: Annotated[float, Interval(ge=0, le=1)] = 0.5
    """The maximum at the end of the run, a fraction of the schedule; equal to `maximum`: no annealing."""
    anneal: Annotated[float, Interval(ge=0, le=1)] = 0.8
    """The fraction of the run after which the final maximum is reached."""
    order: Order = "random"
    """Order of the timesteps. `random`: drawn. `linear` and `dreamtime` are deterministic, falling from `maximum` to
    `minimum` over the run, the same for all images of a step: `linear` evenly (SDI), `dreamtime` (2306.12422)
    slowly at the noise levels that determine content."""
    stratified: bool = False
    """Whether the range is divided into equal parts, from which the images of a step draw one each. The draws of one
    view (`draws` above 1) lie in different parts in any case."""
    importance: bool = False
    """Importance sampling: whether timesteps with larger past gradients are drawn more often, with a smaller importance
    weight, so that the expectation is unchanged."""

    def __post_init__(self) -> None:
        if not 0 <= self.minimum < self.final_maximum <= self.maximum <= 1:
            raise ValueError(
                "timesteps need 0 <= minimum < final_maximum <= maximum <= 1, "
                f"got {self.minimum}, {self.final_maximum}, {self.maximum}"
            )
        if not 0 <= self.anneal <= 1:
            raise ValueError(f"timesteps.anneal is a fraction of the run in [0, 1], got {self.anneal}")
        if self.order not in ORDERS:
            raise ValueError(f"unknown timesteps.order {self.order!r}: use one of {', '.join(ORDERS)}")
        if self.order != "random" and (self.stratified or self.importance):
            raise ValueError(
                f"timesteps.order={self.order} is deterministic; set stratified=false and importance=false, or "
                "order=random"
            )

    def check_draws(self, draws: int | Literal["auto"]) -> None:
        """Raises ValueError for a number of draws per view that is no number, or that does not fit the order."""
        if draws != "auto" and draws < 1:
            raise ValueError(f"draws is {draws}; whole numbers from 1, or auto, are accepted")
        if draws != 1 and self.order != "random":
            raise ValueError(
                f"draws={draws} averages over draws of different timesteps, but timesteps.order={self.order} gives all "
                "of them the same one; set draws=1, or timesteps.order=random"
            )

    def maximum_at(self, progress: float) -> float:
        """The current maximum of random timesteps; `progress` runs from 0 to 1 over the run."""
        fraction = min(max(progress / self.anneal, 0.0), 1.0) if self.anneal > 0 else 1.0
        return self.maximum + fraction * (self.final_maximum - self.maximum)


@dataclass(frozen=True)
class TimestepDraw:
    """One timestep per image, with its importance weight."""

    timestep: Int64[Tensor, " b"]
    """Timestep of each image."""
    weight: Float[Tensor, "b 1 1 1"]
    """Importance weight: the uniform density over the density it was drawn from; 1 without importance sampling."""

    def split(self, draws: int, batch: int) -> list[TimestepDraw]:
        """The draws of each view one by one. Raises ValueError unless there are `draws * batch` timesteps."""
        if len(self.timestep) != draws * batch:
            raise ValueError(
                f"{draws} draws of {batch} images need {draws * batch} timesteps, got {len(self.timestep)}"
            )
        return [
            TimestepDraw(timestep, weight)
            for timestep, weight in zip(self.timestep.split(batch), self.weight.split(batch), strict=True)
        ]


class TimestepSampler(nn.Module):
    """Draws timesteps of a schedule. The statistics of importance sampling are buffers, which exist only with it.

    The second moment of the weighted gradient is least if timestep t is drawn in proportion to the square root of
    E[|gradient|^2 | t]. This is estimated in `BINS` equal ranges of the schedule from past steps, so that it does not
    depend on the draw. A fraction `UNIFORM` of the draws stays uniform, so that no weight exceeds 1 / UNIFORM.
    """

    BINS, DECAY, UNIFORM = 16, 0.99, 0.2

    def __init__(self, config: TimestepConfig, schedule: NoiseSchedule) -> None:
        super().__init__()
        self.config, self.schedule = config, schedule
        if config.importance:
            self.register_buffer("count", torch.zeros(self.BINS, dtype=torch.float64))
            self.register_buffer("square", torch.zeros(self.BINS, dtype=torch.float64))
        self.count: Tensor
        """Gradients seen per bin, with exponential forgetting."""
        self.square: Tensor
        """Sums of their squares."""

    def forward(self, batch: int, progress: float, generator: torch.Generator, draws: int = 1) -> TimestepDraw:
        """Draw `draws` timesteps per image, those of the first draw of all images first, on the generator's device.

        Draw k of an image lies in part k of `draws` parts of equal probability: this is unbiased, costs nothing and
        never increases the variance of the mean. On a mixture of two modes, four draws have 9% less variance within a
        view than independent ones, and 27% less with antithetic pairs (`tests/distill/variance/test_draw_cost.py`).
        With `stratified`, the images of a step also share each of these parts evenly, so that all draws of a step lie
        in different parts of the density.

        Args:
            batch: number of images.
            progress: progress of the run, from 0 to 1.
            generator: source of all random numbers.
            draws: timesteps per image.
        """
        config, device = self.config, generator.device
        ones = torch.ones(draws * batch, 1, 1, 1, device=device)
        if config.order != "random":
            return TimestepDraw(torch.full((draws * batch,), self._ordered(progress), device=device), ones)
        low, high = self._range(config.maximum_at(progress))
        if draws == 1 and not config.stratified and not config.importance:
            return TimestepDraw(torch.randint(low, high, (batch,), generator=generator, device=device), ones)
        density = self.density(low, high).to(device)
        position = torch.rand(draws, batch, generator=generator, device=device, dtype=torch.float64)
        if config.stratified:
            orders = [torch.randperm(batch, generator=generator, device=device) for _ in range(draws)]
            position = (torch.stack(orders) + position) / batch
        position = ((torch.arange(draws, device=device)[:, None] + position) / draws).flatten()
        cumulative = density.cumsum(0)
        index = torch.searchsorted(cumulative, position * cumulative[-1], right=True).clamp(max=high - low - 1)
        weight = 1 / (density[index] * (high - low))
        return TimestepDraw(low + index, weight.float()[:, None, None, None])

    def density(self, low: int, high: int) -> Float[Tensor, " n"]:
        """The current probability of each timestep in [low, high), float64."""
        uniform = torch.full((high - low,), 1 / (high - low), dtype=torch.float64)
        if not self.config.importance or not self.square.sum() > 0:
            return uniform
        seen = self.count > 0
        mean = self.square.sum() / self.count.sum()  # for bins without data
        size = torch.where(seen, self.square / self.count.clamp(min=1e-300), mean).sqrt().cpu()
        wanted = size[torch.arange(low, high) * self.BINS // self.schedule.steps]
        return (1 - self.UNIFORM) * wanted / wanted.sum().clamp(min=1e-300) + self.UNIFORM * uniform

    def update(self, timestep: Int64[Tensor, " b"], gradient: Float[Tensor, "b c h w"]) -> None:
        """Add w(t) * residual of a step's images, without importance weights, to the statistics."""
        if not self.config.importance:
            return
        bins = (timestep * self.BINS // self.schedule.steps).tolist()
        for bin, square in zip(bins, gradient.double().square().mean((1, 2, 3)), strict=True):
            self.count[bin] = self.DECAY * self.count[bin] + 1
            self.square[bin] = self.DECAY * self.square[bin] + square.to(self.square)

    def _range(self, maximum: float) -> tuple[int, int]:
        """The current range of timesteps, at least one long; the last is excluded."""
        steps = self.schedule.steps
        low = min(round(self.config.minimum * steps), steps - 1)
        return low, max(low + 1, round(maximum * steps))

    def _ordered(self, progress: float) -> int:
        low, high = self._range(self.config.maximum)
        progress = min(max(progress, 0.0), 1.0)
        if self.config.order == "linear":
            return low + round((1 - progress) * (high - 1 - low))
        # DreamTime's equation 5: the t down to which the weights, summed from the top, equal the progress.
        weights = dreamtime_weights(self.schedule)[low:high].flip(0)
        passed = weights.cumsum(0) / weights.sum()
        return high - 1 - int((passed - progress).abs().argmin())


def dreamtime_weights(schedule: NoiseSchedule) -> Float[Tensor, " t"]:
    """DreamTime's weights W(t) = sigma / alpha * exp(-distance^2 / (2 s^2)), the fraction of the run by timestep,
    float64.

    The distance is to the range from 500 to 800 of 1000 timesteps; s is 300 above it and 100 below.
    """
    time = torch.arange(schedule.steps, dtype=torch.float64) / schedule.steps
    above, below = (time - 0.8).clamp(min=0) / 0.3, (0.5 - time).clamp(min=0) / 0.1
    # A schedule may end in pure noise.
    ratio = schedule.sigmas.double().cpu() / schedule.alphas.double().cpu().clamp(min=1e-3)
    return ratio * torch.exp(-(above**2 + below**2) / 2)
