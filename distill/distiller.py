"""Score distillation as one estimator, `w(t) * (eps_hat + sum_k mu_k h_k)`, whatever the control variates.

What stands for eps_hat is the method's `Residual`: a guided prediction (SDS), or one less its counterpart. A learned
score (VSD) is subtracted too.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from .coefficients import Coefficients, Gram, Observation
from .control_variates import ControlVariate, LearningControlVariate
from .guide import Guide
from .prior import Prior, ask, described, encode
from .residuals import Draw, Estimate, Guided, Residual
from .schedule import NoisySample
from .timesteps import TimestepConfig, TimestepDraw, TimestepSampler
from .vsd import LearnedScore, Lesson
from .weighting import find_weighting


@dataclass(frozen=True)
class Distillation:
    """One step's gradient and what may be logged about it."""

    loss: Float[Tensor, ""]
    """Its value is half the squared norm of the weighted residual (mean over pictures, sum over pixels); its backward
    leaves exactly `gradient` at the encoded picture."""
    gradient: Float[Tensor, "b c h w"]
    """d loss / d encoded picture = w(t) * residual / b, float32."""
    residual: Float[Tensor, "b c h w"]
    """eps_hat + sum_k mu_k h_k, float32."""
    timestep: Int64[Tensor, " b"]
    diagnostics: dict[str, float]
    observation: Observation
    """What the coefficients learn from in `Distiller.update`."""
    importance: Float[Tensor, "b 1 1 1"]
    """The part of the weight that makes up for timesteps drawn more or less often than uniformly."""
    lesson: Lesson | None = None
    """What the learned score learns from there, if there is one."""


@dataclass(frozen=True)
class VarianceProbe:
    """Unbiased estimates of the gradient's moments over the noise, at fixed timestep, camera and scene.

    All are of the weighted residual of one picture, summed over pixels and averaged over the batch.
    """

    within_noise: float
    """Trace of this estimator's covariance."""
    within_noise_sds: float
    """The same for one-noise SDS at the same draws."""
    signal: float
    """Squared norm of the mean (may come out negative: unbiased)."""


class Distiller(nn.Module):
    """Turns a picture into a gradient that makes it likelier under a prior.

    `forward` draws and estimates; `update`, called after the gradient has been taken, lets coefficients, control
    variates and the learned score learn. The state dict holds what learns only: priors and estimators are frozen and
    belong to the caller.
    """

    coefficients: Coefficients

    def __init__(
        self,
        prior: Prior,
        control_variates: Sequence[ControlVariate],
        coefficients: Coefficients,
        *,
        guidance_scale: float = 7.5,
        timesteps: TimestepConfig | None = None,
        weighting: str = "sigma_squared",
        antithetic: bool = False,
        learned_score: LearnedScore | None = None,
        residual: Residual | None = None,
    ) -> None:
        """`antithetic` averages each draw with its mirror image -noise: two calls of the prior per step.

        `residual`: by default the prediction with `guidance_scale`; `learned_score` of the same prior is subtracted
        from it (VSD).

        Raises ValueError if the coefficients do not match the control variates' terms, or names are not distinct.
        """
        super().__init__()
        # Not registered as submodules: their weights do not belong into this module's checkpoints.
        object.__setattr__(self, "prior", prior)
        self.prior: Prior
        self.control_variates = tuple(control_variates)
        self.names = tuple(name for variate in control_variates for name in variate.names)
        if len(set(self.names)) != len(self.names) or len(self.names) != len(coefficients.initial):
            raise ValueError(f"need {len(coefficients.initial)} distinct terms, got {', '.join(self.names)}")
        self.coefficients = coefficients
        self.learning = [variate for variate in control_variates if isinstance(variate, LearningControlVariate)]
        self.learning_state = nn.ModuleList(variate for variate in self.learning if isinstance(variate, nn.Module))
        self.guidance_scale, self.antithetic = guidance_scale, antithetic
        self.timesteps = timesteps or TimestepConfig()
        self.sampler = TimestepSampler(self.timesteps, prior.schedule)
        self.residual = residual or Guided(guidance_scale)
        self.weighting = find_weighting(weighting)
        self.learned_score = learned_score

    @property
    def needs_gram(self) -> bool:
        """Whether `update` makes use of a Gram operator."""
        return self.coefficients.needs_gram

    def forward(
        self,
        image: Float[Tensor, "b 3 h w"],
        guide: Guide,
        condition: Any,
        *,
        progress: float,
        generator: torch.Generator,
        timestep: Int64[Tensor, " b"] | None = None,
    ) -> Distillation:
        """The gradient for a rendered picture (display sRGB in [0, 1], with its graph).

        `progress` runs from 0 to 1 over the run. Draws the timestep, unless it is given, then the noise, from
        `generator`.
        """
        encoded = encode(self.prior, image)
        clean = encoded.detach().float()
        if timestep is None:
            times = self._draw_timestep(clean, progress, generator)
        else:
            times = TimestepDraw(timestep, clean.new_ones(len(clean), 1, 1, 1))
        observation, sds = self._estimate(clean, times, _draw_noise(clean, generator), guide, condition, progress)
        gradient = observation.weight * observation.residual / len(clean)
        # <encoded, gradient> has the gradient wanted; its own value says nothing, so it is replaced by one that does.
        attached = (encoded.float() * gradient).sum()
        loss = attached - attached.detach() + 0.5 * len(clean) * gradient.square().sum()
        diagnostics = self._diagnostics(observation, sds)
        lesson = None
        if self.learned_score is not None:
            lesson = Lesson(clean, condition, guide.camera_to_world, _draw_seed(generator))
        return Distillation(
            loss, gradient, observation.residual, times.timestep, diagnostics, observation, times.weight, lesson
        )

    def update(self, distillation: Distillation, gram: Gram | None = None) -> None:
        """Let all that learns learn from a step; call it after the step's gradient has been used.

        `gram`: v -> J J^T v with J = d encoded picture / d parameters (`Pullback.gram`), for Eq. 11's descent.
        """
        with torch.no_grad():
            observation = distillation.observation
            self.coefficients.update(observation, gram)
            weight = observation.weight / distillation.importance
            self.sampler.update(distillation.timestep, weight * observation.residual)
            if not self.antithetic:
                for variate in self.learning:
                    variate.learn(observation)
        if self.learned_score is not None and distillation.lesson is not None:
            self.learned_score.learn(distillation.lesson)

    def probe(
        self,
        image: Float[Tensor, "b 3 h w"],
        guide: Guide,
        condition: Any,
        *,
        progress: float,
        generator: torch.Generator,
    ) -> VarianceProbe:
        """Measure the variance over the noise: two draws per picture at one timestep and camera.

        `generator` is forked, not advanced, and nothing is learned: probing does not change the run.
        """
        fork = torch.Generator(generator.device)
        fork.set_state(generator.get_state())
        fork.manual_seed(_draw_seed(fork))
        with torch.no_grad():
            clean = encode(self.prior, image).float()
            times = self._draw_timestep(clean, progress, fork)
            draws = []
            for _ in range(2):
                noise = _draw_noise(clean, fork)
                observation, sds = self._estimate(clean, times, noise, guide, condition, progress)
                if sds is None:
                    draw = self._draw(clean, noise, times.timestep, condition, progress)
                    sds = Guided(self.guidance_scale)(draw).value - noise
                draws.append((observation.weight * observation.residual, observation.weight * sds))
        (first, first_sds), (second, second_sds) = draws

        def per_picture(total: Tensor) -> float:
            return float(total.double().sum() / len(clean))

        return VarianceProbe(
            within_noise=per_picture(0.5 * (first - second) ** 2),
            within_noise_sds=per_picture(0.5 * (first_sds - second_sds) ** 2),
            signal=per_picture(first * second),
        )

    def _draw_timestep(
        self, clean: Float[Tensor, "b c h w"], progress: float, generator: torch.Generator
    ) -> TimestepDraw:
        times = self.sampler(len(clean), progress, generator)
        return TimestepDraw(times.timestep.to(clean.device), times.weight.to(clean.device))

    def _draw(
        self,
        clean: Float[Tensor, "b c h w"],
        noise: Float[Tensor, "b c h w"],
        timestep: Int64[Tensor, " b"],
        condition: Any,
        progress: float,
    ) -> Draw:
        schedule = self.prior.schedule
        sample = schedule.add_noise(clean, noise, timestep)
        return Draw(sample, schedule, progress, lambda questions: ask(self.prior, questions, condition))

    @torch.no_grad()
    def _estimate(
        self,
        clean: Float[Tensor, "b c h w"],
        times: TimestepDraw,
        noise: Float[Tensor, "b c h w"],
        guide: Guide,
        condition: Any,
        progress: float,
    ) -> tuple[Observation, Float[Tensor, "b c h w"] | None]:
        """What this draw says, and SDS's residual for the same draw (without its mirror image), if that is known."""
        noises = (noise, -noise) if self.antithetic else (noise,)
        predictions, terms, sds, samples = [], [], [], []
        for each in noises:
            draw = self._draw(clean, each, times.timestep, condition, progress)
            samples.append(draw.sample)
            estimate = _checked_estimate(self.residual(draw), self.residual, each)
            predictions.append(estimate.value)
            sds.append(None if estimate.guided is None else estimate.guided - each)
            if self.learned_score is not None:
                predictions[-1] = predictions[-1] - self.learned_score(draw.sample, condition, guide.camera_to_world)
            with torch.autocast(clean.device.type, enabled=False):
                found = [checked_terms(variate, draw.sample, guide) for variate in self.control_variates]
                terms.append(torch.cat(found) if found else each.new_empty(0, *each.shape))
        alpha, sigma = self.prior.schedule.at(times.timestep)
        prediction, h = (sum(each[1:], each[0]) / len(noises) for each in (predictions, terms))
        residual = prediction
        for mu, term in zip(self.coefficients.value(times.timestep, clean.shape[1]), h, strict=True):
            residual = residual + mu[:, :, None, None] * term
        weight = self.weighting(alpha, sigma) * times.weight
        sample = None if self.antithetic else samples[0]
        return Observation(prediction, h, residual, weight, times.timestep, sample), sds[0]

    def _diagnostics(self, observation: Observation, sds: Float[Tensor, "b c h w"] | None) -> dict[str, float]:
        """Named numbers of one step, in a single transfer from the device."""
        mu = self.coefficients.value(observation.timestep, observation.prediction.shape[1]).mean((1, 2))
        moment = observation.residual.square().mean()
        values = {
            "timestep": observation.timestep.float().mean() / self.prior.schedule.steps,
            "weight": observation.weight.mean(),
            "residual_rms": moment.sqrt(),
        }
        if sds is not None:
            values["second_moment_vs_sds"] = moment / sds.square().mean().clamp(min=1e-20)
        if self.learned_score is not None:
            values["learned_score_error"] = self.learned_score.error
        values |= {f"mu/{name}": each for name, each in zip(self.names, mu, strict=True)}
        return dict(zip(values, torch.stack(list(values.values())).tolist(), strict=True))


def checked_terms(variate: ControlVariate, sample: NoisySample, guide: Guide) -> Float[Tensor, "k b c h w"]:
    """The terms of a control variate, float32.

    Raises ValueError unless there is one per name, floating-point, of the noise's shape and on its device.
    """
    terms: Any = variate.terms(sample, guide)
    wanted = torch.Size((len(variate.names), *sample.noise.shape))
    if not _fits(terms, wanted, sample.noise.device):
        raise ValueError(
            f"{type(variate).__name__}.terms must return floating-point numbers of shape {tuple(wanted)} on "
            f"{sample.noise.device}, got {described(terms)}"
        )
    return terms.float()


def _checked_estimate(estimate: Any, residual: Residual, noise: Float[Tensor, "b c h w"]) -> Estimate:
    """Raises ValueError for one that would be broadcast or rounded."""
    name = type(residual).__name__
    if not isinstance(estimate, Estimate):
        raise ValueError(f"the residual {name} must return an Estimate, got a {type(estimate).__name__}")
    for field in ("value", "guided"):
        given = getattr(estimate, field)
        if not _fits(given, noise.shape, noise.device) and not (given is None and field == "guided"):
            raise ValueError(
                f"{name}'s Estimate.{field} must hold floating-point numbers of shape {tuple(noise.shape)} on "
                f"{noise.device}, got {described(given)}"
            )
    return estimate


def _fits(value: Any, shape: torch.Size, device: torch.device) -> bool:
    return isinstance(value, Tensor) and value.is_floating_point() and value.shape == shape and value.device == device


def _draw_noise(clean: Float[Tensor, "b c h w"], generator: torch.Generator) -> Float[Tensor, "b c h w"]:
    return torch.randn(clean.shape, generator=generator, device=generator.device).to(clean.device)


def _draw_seed(generator: torch.Generator) -> int:
    return int(torch.randint(2**62, (), generator=generator, device=generator.device))
