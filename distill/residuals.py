"""What is distilled: eps_hat less its counterpart, method by method, from predictions of one prior.

    residual = (eps_hat - counterpart) + sum_k mu_k h_k

SDS has the noise for a counterpart, which is the control variate `NoiseTerm`'s business: its estimate here is eps_hat
alone. The others bring theirs along, so that control variates are added to them with coefficients that begin at 0.

With e_c, e_0 and e_n the predictions told the prompt, nothing and the negative prompt, e_s = e_0 + s (e_c - e_0) the
guided one (e_n takes e_0's place there if there is one), and x the noisy picture at timestep t:

    Guided      e_s(x, t)                                                      SDS, SSD, VSD
    Classifier  s ((e_c - e_0) - k (e_n - e_0))                                CSD, 2310.19415
    NoiseFree   (e_0 for t < 200, else e_0 - e_n) + s (e_c - e_0)              NFSD, 2310.17590
    Bridge      s (e_c - e_n)                                                  SDS-Bridge, 2406.09417
    Shifted     e_s(x, t) - e_c(x', t'),   t' = t + r (t - t_min)              ASD, 2407.02040
    Interval    e_s(x_t, t) - e_0(x_s, s),  x_s and x_t by DDIM inversion      ISM, 2311.11284
    Inverted    e_s(x_t, t) - eps_t,   x_t = alpha clean + sigma eps_t by it   SDI, 2405.15891
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from .prior import Question, guided_noise
from .schedule import NoiseSchedule, NoisySample


@dataclass(frozen=True)
class Draw:
    """One draw of noise level and noise, and who can be asked about it."""

    sample: NoisySample
    schedule: NoiseSchedule
    progress: float
    """From 0 to 1 over the run."""
    answers: Callable[[Sequence[Question]], list[Float[Tensor, "b c h w"]]]
    """eps-predictions, float32, one per question; all questions of a call go to the prior together."""

    def ask(self, *texts: str, at: NoisySample | None = None) -> list[Float[Tensor, "b c h w"]]:
        """Predictions at one noisy batch, the draw's own or another; each is told one of `TEXTS`."""
        return self.answers([Question(at or self.sample, text) for text in texts])


@dataclass(frozen=True)
class Estimate:
    """What a residual says of a draw, float32."""

    value: Float[Tensor, "b c h w"]
    """eps_hat less its counterpart."""
    guided: Float[Tensor, "b c h w"] | None
    """The guided prediction at the draw's own noisy pictures, from which SDS would take the noise; None if the method
    asks elsewhere."""


class Residual(ABC):
    """eps_hat less its counterpart. Its mean over the noise is the method's; no control variate changes it."""

    @abstractmethod
    def __call__(self, draw: Draw) -> Estimate: ...


@dataclass(frozen=True)
class Guided(Residual):
    """e_s: what SDS and SSD distil, the noise being a control variate; a learned score is subtracted outside (VSD)."""

    scale: float

    def __call__(self, draw: Draw) -> Estimate:
        guided = _guided(draw, self.scale)
        return Estimate(guided, guided)


@dataclass(frozen=True)
class Classifier(Residual):
    """s ((e_c - e_0) - k (e_n - e_0)): classifier score distillation, k changing linearly over the run.

    The paper's omega_1 = s and omega_2 = s k. Without a negative prompt e_n is e_0, and k is of no account.
    """

    scale: float
    negative: float
    final_negative: float

    def __call__(self, draw: Draw) -> Estimate:
        e_c, e_0, e_n = draw.ask("prompt", "null", "unconditional")
        k = self.negative + min(max(draw.progress, 0.0), 1.0) * (self.final_negative - self.negative)
        return Estimate(self.scale * ((e_c - e_0) - k * (e_n - e_0)), guided_noise(e_c, e_n, self.scale))


@dataclass(frozen=True)
class NoiseFree(Residual):
    """(e_0 below `threshold`, else e_0 - e_n) + s (e_c - e_0): noise-free score distillation.

    `threshold` is a share of the schedule. Without a negative prompt e_n is e_0: only guidance is left above it.
    """

    scale: float
    threshold: float = 0.2

    def __call__(self, draw: Draw) -> Estimate:
        e_c, e_0, e_n = draw.ask("prompt", "null", "unconditional")
        little = (draw.sample.timestep < self.threshold * draw.schedule.steps)[:, None, None, None]
        domain = torch.where(little, e_0, e_0 - e_n)
        return Estimate(domain + self.scale * (e_c - e_0), guided_noise(e_c, e_n, self.scale))


@dataclass(frozen=True)
class Bridge(Residual):
    """s (e_c - e_n): from what the pictures are like (the negative prompt) to what they shall be like (the prompt)."""

    scale: float

    def __call__(self, draw: Draw) -> Estimate:
        e_c, e_n = draw.ask("prompt", "unconditional")
        return Estimate(self.scale * (e_c - e_n), guided_noise(e_c, e_n, self.scale))


@dataclass(frozen=True)
class Shifted(Residual):
    """e_s(x, t) - e_c(x', t') with the same noise: asynchronous score distillation, VSD with the prior at a noisier
    level in the learned score's place.

    t' = t + floor(shift * (t - minimum)), at most the last timestep; `minimum` is a share of the schedule.
    """

    scale: float
    shift: float
    minimum: float

    def __post_init__(self) -> None:
        if self.shift < 0:
            raise ValueError(f"the shift to noisier levels is {self.shift}; 0 or more is accepted")

    def __call__(self, draw: Draw) -> Estimate:
        sample, schedule = draw.sample, draw.schedule
        beyond = self.shift * (sample.timestep - round(self.minimum * schedule.steps)).clamp(min=0)
        later = (sample.timestep + beyond.long()).clamp(max=schedule.steps - 1)
        shifted = schedule.add_noise(sample.clean, sample.noise, later)
        here = [Question(sample, text) for text in _texts(self.scale)]
        *predictions, counterpart = draw.answers([*here, Question(shifted, "prompt")])
        guided = _guide(predictions, self.scale)
        return Estimate(guided - counterpart, guided)


@dataclass(frozen=True)
class Interval(Residual):
    """e_s(x_t, t) - e_0(x_s, s) with s = t - interval: interval score matching.

    x_s is the picture with the draw's noise at timestep 0, inverted without a prompt; x_t is one more move. `interval`
    and `stride`, the length of a move on the way to s, are shares of the schedule.
    """

    scale: float
    interval: float
    stride: float

    def __post_init__(self) -> None:
        _check_stride(self.stride)
        if not 0 < self.interval < 1:
            raise ValueError(f"interval is {self.interval}; shares of the schedule between 0 and 1 are accepted")

    def __call__(self, draw: Draw) -> Estimate:
        schedule, timestep = draw.schedule, draw.sample.timestep
        before = (timestep - round(self.interval * schedule.steps)).clamp(min=0)
        start = _invert(draw, before, self.stride, lambda sample: draw.ask("null", at=sample)[0])
        (counterpart,) = draw.ask("null", at=start)
        end = schedule.move(start, counterpart, timestep)
        return Estimate(_guided(draw, self.scale, end) - counterpart, None)


@dataclass(frozen=True)
class Inverted(Residual):
    """e_s(x_t, t) - eps_t, SDS with the noise that DDIM inversion finds: score distillation via inversion.

    Inverted with a guidance of its own, from the picture with the draw's noise at timestep 0; `stride`: the length of a
    move, a share of the schedule.
    """

    scale: float
    inversion_scale: float
    stride: float

    def __post_init__(self) -> None:
        _check_stride(self.stride)

    def __call__(self, draw: Draw) -> Estimate:
        end = _invert(
            draw, draw.sample.timestep, self.stride, lambda sample: _guided(draw, self.inversion_scale, sample)
        )
        return Estimate(_guided(draw, self.scale, end) - end.noise, None)


def _check_stride(stride: float) -> None:
    if not 0 < stride <= 1:
        raise ValueError(f"stride is {stride}; shares of the schedule above 0 and up to 1 are accepted")


def _texts(scale: float) -> tuple[str, ...]:
    """What guidance asks for."""
    return ("prompt",) if scale == 1 else ("prompt", "unconditional")


def _guide(predictions: Sequence[Float[Tensor, "b c h w"]], scale: float) -> Float[Tensor, "b c h w"]:
    """Of the answers to `_texts`."""
    return predictions[0] if scale == 1 else guided_noise(predictions[0], predictions[1], scale)


def _guided(draw: Draw, scale: float, at: NoisySample | None = None) -> Float[Tensor, "b c h w"]:
    return _guide(draw.ask(*_texts(scale), at=at), scale)


def _invert(
    draw: Draw, timestep: Tensor, stride: float, predict: Callable[[NoisySample], Float[Tensor, "b c h w"]]
) -> NoisySample:
    """From timestep 0 with the draw's noise, in as few moves as are no longer than `stride`."""
    schedule, sample = draw.schedule, draw.sample
    start = schedule.add_noise(sample.clean, sample.noise, torch.zeros_like(timestep))
    moves = math.ceil(int(timestep.max()) / (stride * schedule.steps))
    return schedule.invert(start, timestep, max(moves, 1), predict)
