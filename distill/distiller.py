"""Score distillation as one estimator, `w(t) * (eps_hat + sum_k mu_k h_k)`, for any control variates.

The method's `Residual` provides eps_hat: a guided prediction (SDS), or one minus its counterpart. A learned score (VSD)
is subtracted as well.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Any, Generic, Literal, cast

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from steindreamer.clock import seconds_now

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
    """The gradient of one step, the mean over its draws, and diagnostics for the log."""

    loss: Float[Tensor, ""]
    """Half the squared norm of the weighted residual (mean over images, sum over pixels); its backward pass yields
    exactly `gradient` at the encoded image."""
    gradient: Float[Tensor, "b c h w"]
    """Gradient d loss / d encoded image = w(t) * residual / b, mean over the draws, float32."""
    clean: Float[Tensor, "b c h w"]
    """The encoded images, float32, detached."""
    observations: tuple[Observation, ...]
    """Draws of timestep and noise with their predictions, one entry per draw: the training data of
    `Distiller.update`."""
    diagnostics: dict[str, float]
    """Scalars for the log, by name."""
    lora_batch: LoRABatch[Any] | None = None
    """The training batch of the learned score, if there is one."""
    seconds: float | None = None
    """Seconds of all draws, without encoding; None unless `independent_draws` was given."""

    @property
    def residual(self) -> Float[Tensor, "b c h w"]:
        """Residual eps_hat + sum_k mu_k h_k, mean over the draws, float32."""
        return _mean([observation.residual for observation in self.observations])


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
        draws: int | Literal["auto"] = 1,
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
            antithetic: averages each draw with the one of negative noise, at two calls of the prior per draw.
            draws: draws of timestep and noise per view, over which the gradient is averaged; each calls the prior, and
                the view is rendered and encoded once. "auto": 1 until the owner changes `draws`.
            learned_score: learned score of the same prior, which is subtracted from the residual (VSD).
            residual: by default the prediction guided by `guidance_scale`.
            noise: source of the noise of each draw. If it is an `nn.Module`, its state is part of the distiller's.
            ranks: the processes that share the images of a step; each passes its own to `forward` and `reuse`.

        Raises ValueError if the coefficients do not match the control variates' terms, names are not distinct, or
        several draws would all have the same timestep.
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
        self.timesteps.check_draws(draws)
        self.chooses_draws = draws == "auto"
        """Whether the owner may change `draws` during a run."""
        self.draws = 1 if draws == "auto" else draws
        """Draws of timestep and noise per view."""
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

    def set_largest_timestep(self, fraction: float) -> None:
        """Draw timesteps only below this fraction of the schedule from the next call on.

        Raises ValueError if none is left, or if the order of the timesteps is not random.
        """
        if self.timesteps.order != "random":
            raise ValueError(f"timesteps.order is {self.timesteps.order}, which does not draw them")
        self.timesteps = replace(self.timesteps, maximum=fraction, final_maximum=fraction)
        self.sampler.config = self.timesteps

    def forward(
        self,
        image: Float[Tensor, "b 3 h w"],
        geometry: GeometryBuffers,
        condition: Condition,
        *,
        progress: float,
        generator: torch.Generator,
        timestep: Int64[Tensor, " n"] | None = None,
        noise: Float[Tensor, "n c hl wl"] | None = None,
        independent_draws: int | None = None,
    ) -> Distillation:
        """Compute the gradient for rendered images.

        Args:
            image: display sRGB in [0, 1], attached to the scene's graph.
            geometry: the renderer's geometry buffers, for control variates.
            condition: what the prior is conditioned on at these views, from `Prior.condition`.
            progress: progress of the stage, from 0 to 1.
            generator: draws the timesteps and then the noise, unless they are given.
            timestep: n = draws * b timesteps, those of the first draw first; drawn by the sampler if None.
            noise: of the shape of the encoded images, in the same order; drawn by the noise source if None.
            independent_draws: number of draws, independent of each other, in place of `draws` draws of different
                timesteps: for measurements of the variance.

        With several processes, images, geometry, condition, timestep and noise are those of this process, and so are
        the tensors of the result; `loss` is its part of the loss.

        Raises ValueError for timesteps or noise of another shape, type or device, and if a component violates its
        contract.
        """
        encoded = encode(self.prior, image)
        clean = encoded.detach().float()
        start = seconds_now(clean.device) if independent_draws else 0.0
        drawn = self._draw(clean, geometry, progress, generator, timestep, noise, independent_draws)
        found = [self.estimate(clean, times, each, geometry, condition, progress) for times, each in drawn]
        seconds = seconds_now(clean.device) - start if independent_draws else None
        observations, count = tuple(observation for observation, _ in found), len(clean) * self.ranks.count
        gradient = _mean([each.weight * each.residual / count for each in observations])
        loss = _attached_loss(encoded, gradient, count)
        diagnostics = self._diagnostics(observations, [sds for _, sds in found])
        batch = None
        if self.learned_score is not None:
            batch = LoRABatch(clean, condition, geometry.camera_to_world, draw_seed(generator))
        return Distillation(loss, gradient, clean, observations, diagnostics, batch, seconds)

    def reuse(self, distillation: Distillation, image: Float[Tensor, "b 3 h w"]) -> Distillation:
        """The distillation of a new rendering of the same views, with the predictions of an earlier one.

        The predicted x0 of each draw stays fixed: pred_original_sample = clean - sigma / alpha * residual. At other
        encoded images z its residual is then residual + alpha / sigma * (z - clean), which vanishes at the predicted
        x0. At the same images, residuals, gradient and loss are the earlier ones to the bit. The prior is not called,
        except to encode.

        Args:
            distillation: the result of `forward`.
            image: display sRGB in [0, 1] of the same views, attached to the scene's graph.

        Returns loss, gradient, residuals and encoded images of the new rendering. All else is that of `distillation`,
        so the result is not meant for `update`.
        """
        encoded = encode(self.prior, image)
        clean = encoded.detach().float()
        moved, count = [], len(clean) * self.ranks.count
        for observation in distillation.observations:
            alpha, sigma = self.prior.schedule.at(observation.timestep)
            residual = observation.residual + alpha / sigma * (clean - distillation.clean)
            moved.append(replace(observation, residual=residual))
        gradient = _mean([each.weight * each.residual / count for each in moved])
        return replace(
            distillation,
            loss=_attached_loss(encoded, gradient, count),
            gradient=gradient,
            clean=clean,
            observations=tuple(moved),
        )

    def update(self, distillation: Distillation, gram: Gram | None = None) -> None:
        """Train on all draws of a step; call it after the step's gradient has been used.

        Args:
            distillation: the result of `forward`.
            gram: the operator v -> J J^T v with J = d encoded image / d parameters (`Pullback.gram`), for the descent
                of Eq. 11; over the images of all processes.
        """
        with torch.no_grad():
            for own in distillation.observations:
                observation = _of_all(own, self.ranks)
                self.coefficients.update(observation, gram)
                weight = observation.weight / observation.importance
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
        timestep: Int64[Tensor, " n"] | None,
        noise: Float[Tensor, "n c hl wl"] | None,
        independent_draws: int | None,
    ) -> list[tuple[TimestepDraw, Float[Tensor, "r c h w"]]]:
        """Timesteps and noise of this process's images for each draw, where they are not given.

        All processes draw for the images of all, from the same random numbers, and keep those of their own.
        """
        ranks, draws = self.ranks, independent_draws or self.draws
        given = _split_noise(noise, clean, draws)
        whole = ranks.gather(clean)
        if timestep is None:
            times = self.draw_timestep(whole, progress, generator, independent_draws)
        else:
            weight = clean.new_ones(len(timestep), 1, 1, 1)
            times = [_of_all_times(each, ranks) for each in TimestepDraw(timestep, weight).split(draws, len(clean))]
        buffers = geometry
        if ranks.count > 1 and noise is None:
            known = {name: ranks.gather(each) for name, each in vars(geometry).items() if each is not None}
            buffers = GeometryBuffers(**known)
        drawn = [
            ranks.own(self.draw_noise(whole, each.timestep, buffers, generator)) if own is None else own
            for each, own in zip(times, given, strict=True)
        ]
        own_times = [TimestepDraw(ranks.own(each.timestep), ranks.own(each.weight)) for each in times]
        return list(zip(own_times, drawn, strict=True))

    def draw_timestep(
        self,
        clean: Float[Tensor, "b c h w"],
        progress: float,
        generator: torch.Generator,
        independent_draws: int | None = None,
    ) -> list[TimestepDraw]:
        """Timesteps and importance weights of each draw from the sampler, on the images' device.

        `independent_draws`: as in `forward`.
        """
        batch = len(clean)
        if independent_draws is None:
            times = self.sampler(batch, progress, generator, self.draws).split(self.draws, batch)
        else:
            times = [self.sampler(batch, progress, generator) for _ in range(independent_draws)]
        return [TimestepDraw(each.timestep.to(clean.device), each.weight.to(clean.device)) for each in times]

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
        return _checked_noise(drawn, clean.shape, clean.device, f"the noise of the source {name}")

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
            draw = Draw(sample, self.prior, condition, geometry, self.guidance_scale, progress, self.ranks)
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
        return Observation(prediction, h, residual, weight, times.timestep, sample, times.weight), sds[0]

    def _diagnostics(
        self, observations: Sequence[Observation], sds: Sequence[Float[Tensor, "b c h w"] | None]
    ) -> dict[str, float]:
        """Scalars of one step by name, copied from the device in a single transfer."""
        timestep = torch.cat([each.timestep for each in observations])
        mu = self.coefficients.value(timestep, observations[0].prediction.shape[1]).mean((1, 2))
        moment = torch.cat([each.residual for each in observations]).square().mean()
        values = {
            "timestep": timestep.float().mean() / self.prior.schedule.steps,
            "weight": torch.cat([each.weight for each in observations]).mean(),
            "residual_rms": moment.sqrt(),
        }
        known = [each for each in sds if each is not None]
        if known:
            values["second_moment_vs_sds"] = moment / torch.cat(known).square().mean().clamp(min=1e-20)
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


def _mean(of_draws: Sequence[Float[Tensor, "b c h w"]]) -> Float[Tensor, "b c h w"]:
    return sum(of_draws[1:], of_draws[0]) / len(of_draws)


def _split_noise(noise: Any, clean: Float[Tensor, "b c h w"], draws: int) -> Sequence[Float[Tensor, "b c h w"] | None]:
    """Given noise by draw, in float32. Raises ValueError for one that would be broadcast or rounded."""
    if noise is None:
        return [None] * draws
    wanted = torch.Size((draws * len(clean), *clean.shape[1:]))
    return _checked_noise(noise, wanted, clean.device, "the given noise").split(len(clean))


def _attached_loss(
    encoded: Float[Tensor, "b c h w"], gradient: Float[Tensor, "b c h w"], count: int
) -> Float[Tensor, ""]:
    """These images' part of half the squared norm of count * gradient, averaged over the `count` images of all
    processes; its gradient at `encoded` is `gradient`."""
    # <encoded, gradient> has the right gradient but a meaningless value, which is replaced.
    attached = (encoded.float() * gradient).sum()
    return attached - attached.detach() + 0.5 * count * gradient.square().sum()


def _checked_noise(noise: Any, shape: torch.Size, device: torch.device, what: str) -> Float[Tensor, "n c h w"]:
    """The noise in float32. Raises ValueError for one that would be broadcast or rounded."""
    if not _fits(noise, shape, device):
        raise ValueError(
            f"{what} must hold floating-point numbers of shape {tuple(shape)} on {device}, got {described(noise)}"
        )
    return noise.float()


def _fits(value: Any, shape: torch.Size, device: torch.device) -> bool:
    return isinstance(value, Tensor) and value.is_floating_point() and value.shape == shape and value.device == device


def draw_seed(generator: torch.Generator) -> int:
    """A random seed for another generator."""
    return int(torch.randint(2**62, (), generator=generator, device=generator.device))


def _of_all_times(times: TimestepDraw, ranks: Ranks) -> TimestepDraw:
    """The timesteps of the images of all processes."""
    return TimestepDraw(ranks.gather(times.timestep), ranks.gather(times.weight))


def _of_all(observation: Observation, ranks: Ranks) -> Observation:
    """The observation of the images of all processes."""
    if ranks.count == 1:
        return observation
    sample, importance = observation.sample, observation.importance
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
        ranks.gather(importance) if isinstance(importance, Tensor) else importance,
    )
