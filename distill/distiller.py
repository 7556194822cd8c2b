"""Score distillation as one estimator, `w(t) * (eps_hat + sum_k mu_k h_k)`, for any control variates.

The method's `Residual` provides eps_hat: a guided prediction (SDS), or one minus its counterpart. A learned score (VSD)
is subtracted as well.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Any, Generic, cast

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from .control_variates.coefficients import Coefficients, Gram, Observation
from .control_variates.terms import ControlVariate, LearningControlVariate
from .geometry_buffers import GeometryBuffers
from .learned_score import LearnedScore, LoRABatch
from .noise.schedule import NoisySample
from .noise.source import NoiseSource, independent_noise
from .noise.timesteps import TimestepConfig, TimestepDraw, TimestepSampler
from .noise.weighting import find_weighting
from .priors.base import Condition, LoRAPrior, Prior, described, encode
from .ranks import ALONE, Ranks
from .residual import Draw, Estimate, Guided, Residual


@dataclass(frozen=True)
class Distillation:
    """The gradient of one step, and diagnostics for the log."""

    loss: Float[Tensor, ""]
    """Half the squared norm of the weighted residual (mean over images, sum over pixels); its backward pass yields
    exactly `gradient` at the encoded image."""
    gradient: Float[Tensor, "b c h w"]
    """Gradient d loss / d encoded image = w(t) * residual / b, float32."""
    residual: Float[Tensor, "b c h w"]
    """Residual eps_hat + sum_k mu_k h_k, float32."""
    clean: Float[Tensor, "b c h w"]
    """The encoded images, float32, detached."""
    timestep: Int64[Tensor, " b"]
    """Timestep of each image."""
    diagnostics: dict[str, float]
    """Scalars for the log, by name."""
    observation: Observation
    """The training data of the coefficients in `Distiller.update`."""
    importance: Float[Tensor, "b 1 1 1"]
    """Importance weights of timestep sampling, a factor of `observation.weight`."""
    lora_batch: LoRABatch[Any] | None = None
    """The training batch of the learned score, if there is one."""


class Distiller(nn.Module, Generic[Condition]):
    """Computes the gradient that makes an image likelier under a prior.

    `forward` draws and estimates; `reuse` continues with the same predictions at new renderings of the same views;
    `update`, called after the gradient of `forward` has been used, trains coefficients, control variates and the
    learned score. The state dict holds trained tensors, and those of a noise source: priors and estimators are frozen
    and belong to the caller.

    Example:
        >>> result = distiller(image, geometry, condition, progress=0.5, generator=generator)  # doctest: +SKIP
        >>> result.loss.backward()  # doctest: +SKIP
        >>> optimizer.step()  # doctest: +SKIP
        >>> distiller.update(result)  # doctest: +SKIP
    """

    coefficients: Coefficients

    def __init__(
        self,
        prior: Prior[Any, Condition],
        control_variates: Sequence[ControlVariate],
        coefficients: Coefficients,
        *,
        guidance_scale: float = 7.5,
        timesteps: TimestepConfig | None = None,
        weighting: str = "sigma_squared",
        antithetic: bool = False,
        learned_score: LearnedScore[Condition] | None = None,
        residual: Residual | None = None,
        noise: NoiseSource = independent_noise,
        ranks: Ranks = ALONE,
    ) -> None:
        """Create a distiller.

        Args:
            prior: the diffusion prior; it stays frozen.
            control_variates: whose terms are added to the residual.
            coefficients: one per term.
            guidance_scale: scale of classifier-free guidance.
            timesteps: timestep sampling; None: the defaults.
            weighting: name of w(t), see `noise.weighting`.
            antithetic: averages each draw with the one of negative noise, at two calls of the prior per step.
            learned_score: learned score of the same prior, which is subtracted from the residual (VSD).
            residual: by default the prediction guided by `guidance_scale`.
            noise: source of the noise of each draw. If it is an `nn.Module`, its state is part of the distiller's.
            ranks: the processes that share the images of a step; each passes its own to `forward` and `reuse`.

        Raises ValueError if the coefficients do not match the control variates' terms, or names are not distinct.
        """
        super().__init__()
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
        self.noise = noise
        self.use_ranks(ranks)
        self.use_prior(prior)

    def use_prior(self, prior: Prior[Any, Condition]) -> None:
        """Request predictions from `prior` from now on: the same prior, or a wrapper such as a `CountingPrior`."""
        # Not registered as a submodule: its weights do not belong in this module's checkpoints.
        object.__setattr__(self, "prior", prior)
        self.prior: Prior[Any, Condition]
        if self.learned_score is not None:
            self.learned_score.use_prior(cast("LoRAPrior[Any, Condition, Any]", prior))

    def use_ranks(self, ranks: Ranks) -> None:
        """Share the images of a step with other processes from now on."""
        self.ranks = ranks
        if self.learned_score is not None:
            self.learned_score.ranks = ranks

    @property
    def needs_gram(self) -> bool:
        """Whether `update` uses a Gram operator."""
        return self.coefficients.needs_gram

    def set_guidance_scale(self, scale: float) -> None:
        """Change the scale of classifier-free guidance from the next call on.

        Raises ValueError if the residual is not a dataclass with a field `scale`.
        """
        if not is_dataclass(self.residual) or "scale" not in {each.name for each in fields(self.residual)}:
            raise ValueError(f"{type(self.residual).__name__} has no field `scale`")
        self.residual, self.guidance_scale = replace(cast(Any, self.residual), scale=scale), scale

    def forward(
        self,
        image: Float[Tensor, "b 3 h w"],
        geometry: GeometryBuffers,
        condition: Condition,
        *,
        progress: float,
        generator: torch.Generator,
        timestep: Int64[Tensor, " b"] | None = None,
        noise: Float[Tensor, "b c hl wl"] | None = None,
    ) -> Distillation:
        """Compute the gradient for rendered images.

        Args:
            image: display sRGB in [0, 1], attached to the scene's graph.
            geometry: the renderer's geometry buffers, for control variates.
            condition: what the prior is conditioned on at these views, from `Prior.condition`.
            progress: progress of the stage, from 0 to 1.
            generator: draws the timesteps and then the noise, unless they are given.
            timestep: one per image; drawn by the sampler if None.
            noise: of the shape of the encoded images; drawn by the noise source if None.

        With several processes, images, geometry, condition, timestep and noise are those of this process, and so are
        the tensors of the result; `loss` is its part of the loss.

        Raises ValueError for noise of another shape, type or device, and if a component violates its contract.
        """
        encoded = encode(self.prior, image)
        clean = encoded.detach().float()
        times, noise = self._draw(clean, geometry, progress, generator, timestep, noise)
        observation, sds = self.estimate(clean, times, noise, geometry, condition, progress)
        count = len(clean) * self.ranks.count
        gradient = observation.weight * observation.residual / count
        loss = _attached_loss(encoded, gradient, count)
        diagnostics = self._diagnostics(observation, sds)
        batch = None
        if self.learned_score is not None:
            batch = LoRABatch(clean, condition, geometry.camera_to_world, draw_seed(generator))
        return Distillation(
            loss, gradient, observation.residual, clean, times.timestep, diagnostics, observation, times.weight, batch
        )

    def reuse(self, distillation: Distillation, image: Float[Tensor, "b 3 h w"]) -> Distillation:
        """The distillation of a new rendering of the same views, with the predictions of an earlier one.

        The predicted x0 stays fixed: pred_original_sample = clean - sigma / alpha * residual. At other encoded images z
        the residual is then residual + alpha / sigma * (z - clean), which vanishes at the predicted x0. At the same
        images, residual, gradient and loss are the earlier ones to the bit. The prior is not called, except to encode.

        Args:
            distillation: the result of `forward`.
            image: display sRGB in [0, 1] of the same views, attached to the scene's graph.

        Returns loss, gradient, residual and encoded images of the new rendering. All else is that of `distillation`, so
        the result is not meant for `update`.
        """
        encoded = encode(self.prior, image)
        clean = encoded.detach().float()
        alpha, sigma = self.prior.schedule.at(distillation.timestep)
        residual = distillation.residual + alpha / sigma * (clean - distillation.clean)
        count = len(clean) * self.ranks.count
        gradient = distillation.observation.weight * residual / count
        return replace(
            distillation,
            loss=_attached_loss(encoded, gradient, count),
            gradient=gradient,
            residual=residual,
            clean=clean,
        )

    def update(self, distillation: Distillation, gram: Gram | None = None) -> None:
        """Train on a step; call it after the step's gradient has been used.

        Args:
            distillation: the result of `forward`.
            gram: the operator v -> J J^T v with J = d encoded image / d parameters (`Pullback.gram`), for the descent
                of Eq. 11; over the images of all processes.
        """
        with torch.no_grad():
            observation = _of_all(distillation.observation, self.ranks)
            self.coefficients.update(observation, gram)
            weight = observation.weight / self.ranks.gather(distillation.importance)
            self.sampler.update(observation.timestep, weight * observation.residual)
            if not self.antithetic:
                for variate in self.learning:
                    variate.learn(observation)
        if self.learned_score is not None and distillation.lora_batch is not None:
            self.learned_score.learn(distillation.lora_batch)

    def _draw(
        self,
        clean: Float[Tensor, "r c h w"],
        geometry: GeometryBuffers,
        progress: float,
        generator: torch.Generator,
        timestep: Int64[Tensor, " r"] | None,
        noise: Float[Tensor, "r c hl wl"] | None,
    ) -> tuple[TimestepDraw, Float[Tensor, "r c h w"]]:
        """Timesteps and noise of this process's images, where they are not given.

        All processes draw for all images, from the same random numbers, and keep those of their own.
        """
        ranks = self.ranks
        if noise is not None:
            noise = _checked_noise(noise, clean, "the given noise")
        if timestep is not None and noise is not None:
            return TimestepDraw(timestep, clean.new_ones(len(clean), 1, 1, 1)), noise
        whole = ranks.gather(clean)
        if timestep is None:
            all_times = self.draw_timestep(whole, progress, generator)
        else:
            all_times = TimestepDraw(ranks.gather(timestep), clean.new_ones(len(whole), 1, 1, 1))
        times = TimestepDraw(ranks.own(all_times.timestep), ranks.own(all_times.weight))
        if noise is None:
            buffers = GeometryBuffers(*(ranks.gather(getattr(geometry, each.name)) for each in fields(geometry)))
            noise = ranks.own(self.draw_noise(whole, all_times.timestep, buffers, generator))
        return times, noise

    def draw_timestep(
        self, clean: Float[Tensor, "b c h w"], progress: float, generator: torch.Generator
    ) -> TimestepDraw:
        """Timesteps and importance weights from the sampler, on the images' device."""
        times = self.sampler(len(clean), progress, generator)
        return TimestepDraw(times.timestep.to(clean.device), times.weight.to(clean.device))

    def draw_noise(
        self,
        clean: Float[Tensor, "b c h w"],
        timestep: Int64[Tensor, " b"],
        geometry: GeometryBuffers,
        generator: torch.Generator,
    ) -> Float[Tensor, "b c h w"]:
        """Noise from the noise source, float32. Raises ValueError for another shape or device than the images'."""
        with torch.no_grad():
            drawn = self.noise(clean, timestep, geometry, generator)
        name = getattr(self.noise, "__name__", type(self.noise).__name__)
        return _checked_noise(drawn, clean, f"the noise of the source {name}")

    @torch.no_grad()
    def estimate(
        self,
        clean: Float[Tensor, "b c h w"],
        times: TimestepDraw,
        noise: Float[Tensor, "b c h w"],
        geometry: GeometryBuffers,
        condition: Condition,
        progress: float,
    ) -> tuple[Observation, Float[Tensor, "b c h w"] | None]:
        """The residual of one draw, and SDS's residual for the same draw (without its antithetic one) if it is known.

        `clean`: the encoded images, float32.
        """
        noises = (noise, -noise) if self.antithetic else (noise,)
        predictions, terms, sds, samples = [], [], [], []
        for each in noises:
            sample = self.prior.schedule.add_noise(clean, each, times.timestep)
            samples.append(sample)
            draw = Draw(sample, self.prior, condition, geometry, self.guidance_scale, progress)
            estimate = _checked_estimate(self.residual(draw), self.residual, each)
            predictions.append(estimate.value)
            sds.append(None if estimate.guided is None else estimate.guided - each)
            if self.learned_score is not None:
                predictions[-1] = predictions[-1] - self.learned_score(sample, condition, geometry.camera_to_world)
            with torch.autocast(clean.device.type, enabled=False):
                found = [checked_terms(variate, sample, geometry) for variate in self.control_variates]
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
        """Scalars of one step by name, copied from the device in a single transfer."""
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


def checked_terms(
    variate: ControlVariate, sample: NoisySample, geometry: GeometryBuffers
) -> Float[Tensor, "k b c h w"]:
    """The terms of a control variate, float32.

    Raises ValueError unless there is one per name, each floating-point, of the noise's shape and on its device.
    """
    terms: Any = variate.terms(sample, geometry)
    wanted = torch.Size((len(variate.names), *sample.noise.shape))
    if not _fits(terms, wanted, sample.noise.device):
        raise ValueError(
            f"{type(variate).__name__}.terms must return floating-point numbers of shape {tuple(wanted)} on "
            f"{sample.noise.device}, got {described(terms)}"
        )
    return terms.float()


def _checked_estimate(estimate: Any, residual: Residual, noise: Float[Tensor, "b c h w"]) -> Estimate:
    """The residual's estimate, checked. Raises ValueError for one that would be broadcast or rounded."""
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


def _attached_loss(
    encoded: Float[Tensor, "b c h w"], gradient: Float[Tensor, "b c h w"], count: int
) -> Float[Tensor, ""]:
    """These images' part of half the squared norm of count * gradient, averaged over the `count` images of all
    processes; its gradient at `encoded` is `gradient`."""
    # <encoded, gradient> has the right gradient but a meaningless value, which is replaced.
    attached = (encoded.float() * gradient).sum()
    return attached - attached.detach() + 0.5 * count * gradient.square().sum()


def _checked_noise(noise: Any, clean: Float[Tensor, "b c h w"], what: str) -> Float[Tensor, "b c h w"]:
    """The noise in float32. Raises ValueError for one that would be broadcast or rounded."""
    if not _fits(noise, clean.shape, clean.device):
        raise ValueError(
            f"{what} must hold floating-point numbers of shape {tuple(clean.shape)} on {clean.device}, got "
            f"{described(noise)}"
        )
    return noise.float()


def _fits(value: Any, shape: torch.Size, device: torch.device) -> bool:
    return isinstance(value, Tensor) and value.is_floating_point() and value.shape == shape and value.device == device


def draw_seed(generator: torch.Generator) -> int:
    """A random seed for another generator."""
    return int(torch.randint(2**62, (), generator=generator, device=generator.device))


def _of_all(observation: Observation, ranks: Ranks) -> Observation:
    """The observation of the images of all processes."""
    if ranks.count == 1:
        return observation
    sample = observation.sample
    if sample is not None:
        sample = NoisySample(
            *(ranks.gather(each) for each in (sample.clean, sample.noise, sample.timestep, sample.alpha, sample.sigma))
        )
    return Observation(
        ranks.gather(observation.prediction),
        ranks.gather(observation.terms, 1),
        ranks.gather(observation.residual),
        ranks.gather(observation.weight),
        ranks.gather(observation.timestep),
        sample,
    )
