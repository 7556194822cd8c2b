"""The contract of a 2D prior: what a diffusion model must answer to be distilled.

The split into `embed` (once per run), `condition` (once per step) and `predict_noise` is what lets a text encoder be
freed before the first step, and lets pixel and latent, eps-, v- and flow-predicting models share one distiller.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor, nn

from .schedule import NoiseSchedule, NoisySample


@runtime_checkable
class CameraBatch(Protocol):
    """What a prior may read of the cameras (`representations.Cameras` has it all)."""

    @property
    def camera_to_world(self) -> Float[Tensor, "b 4 4"]: ...
    @property
    def intrinsics(self) -> Float[Tensor, "b 3 3"]: ...
    @property
    def azimuth(self) -> Float[Tensor, " b"]: ...
    @property
    def elevation(self) -> Float[Tensor, " b"]: ...
    @property
    def height(self) -> int: ...
    @property
    def width(self) -> int: ...


@dataclass(frozen=True)
class NoisePrediction:
    """eps-predictions, float32, whatever the model's own output type was."""

    conditional: Float[Tensor, "b c h w"]
    unconditional: Float[Tensor, "b c h w"] | None = None
    """None if it was not asked for."""

    def guided(self, scale: float) -> Float[Tensor, "b c h w"]:
        """Classifier-free guidance, `e_0 + s (e_c - e_0)`: s = 1 is conditional only.

        Raises ValueError if s != 1 and there is no unconditional prediction.
        """
        if scale == 1.0:
            return self.conditional
        if self.unconditional is None:
            raise ValueError(f"guidance scale {scale} needs the unconditional prediction")
        return guided_noise(self.conditional, self.unconditional, scale)


def guided_noise(
    conditional: Float[Tensor, "b c h w"], unconditional: Float[Tensor, "b c h w"], scale: float
) -> Float[Tensor, "b c h w"]:
    """Classifier-free guidance, `e_0 + s (e_c - e_0)`."""
    return unconditional + scale * (conditional - unconditional)


@runtime_checkable
class Prior(Protocol):
    """A 2D diffusion prior. Its weights are frozen; `predict_noise` carries no gradient."""

    @property
    def schedule(self) -> NoiseSchedule: ...

    @property
    def device(self) -> torch.device: ...

    def embed(self, prompt: str, negative_prompt: str = "") -> Any:
        """The prompt as the model wants it; called once. Raises ValueError for a prompt the model cannot understand."""
        ...

    def condition(self, embedding: Any, cameras: CameraBatch, background: Float[Tensor, "b 3"]) -> Any:
        """What `predict_noise` needs for these views: view-dependent prompts, camera embeddings, backgrounds."""
        ...

    def encode(self, image: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b c hl wl"]:
        """Display sRGB in [0, 1] to the model's own space (pixels in [-1, 1], or latents). Differentiable."""
        ...

    def decode(self, latent: Float[Tensor, "b c hl wl"]) -> Float[Tensor, "b 3 h w"]:
        """The inverse of `encode`, to sRGB (not clamped). Differentiable; may be a cheap approximation."""
        ...

    def predict_noise(self, sample: NoisySample, condition: Any, *, unconditional: bool) -> NoisePrediction:
        """eps-predictions at `sample.noisy`; the unconditional row only if asked for."""
        ...


TEXTS = ("prompt", "unconditional", "null")
"""What a prediction may be told: the prompt; what guidance leads away from, which is the negative prompt if there is
one; nothing. Without a negative prompt the last two are the same."""


@dataclass(frozen=True)
class Question:
    """One prediction of the noise per picture."""

    sample: NoisySample
    text: str = "prompt"
    """One of `TEXTS`."""

    def __post_init__(self) -> None:
        if self.text not in TEXTS:
            raise ValueError(f"unknown text {self.text!r} of a question to the prior: use one of {', '.join(TEXTS)}")


@runtime_checkable
class Answering(Prior, Protocol):
    """A prior that takes any questions about the same pictures together, and knows "null" from "unconditional"."""

    def answer(self, questions: Sequence[Question], condition: Any) -> list[Float[Tensor, "b c h w"]]:
        """eps-predictions, one per question, in as few calls of the network as it can."""
        ...


def ask(prior: Prior, questions: Sequence[Question], condition: Any) -> list[Float[Tensor, "b c h w"]]:
    """eps-predictions in float32, one per question.

    Priors that are not `Answering` are asked one noisy batch at a time, and say to "null" what they say to
    "unconditional". Raises ValueError for an answer that is no prediction of the shape of the noisy batch, in any
    floating-point type, on its device: one of batch 1 would be taken for all pictures. Values are not looked at.
    """
    samples = {id(question.sample): question.sample for question in questions}
    guidance_only = len(samples) == 1 and all(question.text != "null" for question in questions)
    if isinstance(prior, Answering) and not guidance_only:
        answers = list(prior.answer(questions, condition))
        if len(answers) != len(questions):
            name = f"{type(prior).__name__}.answer"
            raise ValueError(f"{name} must give one prediction per question: {len(questions)}, got {len(answers)}")
        return [_checked(prior, "answer", *pair) for pair in zip(answers, questions, strict=True)]
    wanted = {key: {question.text for question in questions if id(question.sample) == key} for key in samples}
    predictions = {
        key: prior.predict_noise(sample, condition, unconditional=wanted[key] != {"prompt"})
        for key, sample in samples.items()
    }
    return [
        _checked(prior, "predict_noise", _told(prior, predictions[id(question.sample)], question.text), question)
        for question in questions
    ]


def _told(prior: Prior, prediction: Any, text: str) -> Any:
    if not isinstance(prediction, NoisePrediction):
        raise ValueError(
            f"{type(prior).__name__}.predict_noise must return a NoisePrediction, got {described(prediction)}"
        )
    if text == "prompt":
        return prediction.conditional
    if prediction.unconditional is None:
        raise ValueError(f"{type(prior).__name__} was asked for the unconditional prediction and gave none")
    return prediction.unconditional


def _checked(prior: Prior, method: str, answer: Any, question: Question) -> Float[Tensor, "b c h w"]:
    """The answer in float32."""
    noise = question.sample.noise
    if not isinstance(answer, Tensor) or answer.shape != noise.shape or not answer.is_floating_point():
        raise ValueError(
            f"{type(prior).__name__}.{method} must answer with one noise prediction per picture, floating-point "
            f"numbers of shape {tuple(noise.shape)}; got {described(answer)} for {question.text!r}"
        )
    if answer.device != noise.device:
        raise ValueError(
            f"{type(prior).__name__}.{method} must answer on the device of the pictures, {noise.device}; "
            f"got {answer.device}"
        )
    return answer.float()


def encode(prior: Prior, image: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b c hl wl"]:
    """The pictures in the prior's own space.

    Raises ValueError for anything but one tensor of three axes per picture, and if the gradient is lost on the way.
    """
    encoded: Any = prior.encode(image)
    name = f"{type(prior).__name__}.encode"
    whole = isinstance(encoded, Tensor) and encoded.is_floating_point()
    if not whole or encoded.ndim != 4 or len(encoded) != len(image) or encoded.device != image.device:
        raise ValueError(
            f"{name} must return floating-point numbers of shape ({len(image)}, c, h, w) on {image.device}, one latent "
            f"or picture for each picture; got {described(encoded)}"
        )
    if torch.is_grad_enabled() and image.requires_grad and not encoded.requires_grad:
        raise ValueError(f"{name} must be differentiable: remove no_grad or detach from it; no scene can learn so")
    return encoded


def described(value: Any) -> str:
    """What a component answered, for a message: type, shape and device of a tensor, else its class."""
    if not isinstance(value, Tensor):
        return "None" if value is None else f"a {type(value).__name__}"
    return f"{str(value.dtype).removeprefix('torch.')} of shape {tuple(value.shape)} on {value.device}"


@runtime_checkable
class MicroBatched(Protocol):
    """A prior that can take its pictures in portions, for less memory."""

    micro_batch: int
    """Pictures per call of its networks; 0: all. Results are the same but for rounding, memory is not."""


@dataclass(frozen=True)
class CopyPrediction:
    """What a trainable copy of a prior's network says of noisy pictures, float32."""

    noise: Float[Tensor, "b c h w"]
    """Its eps-prediction."""
    error: Float[Tensor, "b c h w"]
    """Its output less what it should have been, in the network's own unit: noise, velocity or clean picture."""


@runtime_checkable
class LowRankCopyable(Prior, Protocol):
    """A prior whose network has trainable low-rank copies, which share its weights and leave them as they are."""

    def low_rank_copy(self, rank: int, *, camera: bool, generator: torch.Generator) -> nn.Module:
        """A copy that answers exactly as the network does until it is trained.

        Its parameters are the updates of rank `rank` alone, float32, and with `camera` the layers that tell it the
        camera. Raises ValueError for a rank or a network that cannot be.
        """
        ...

    def predict_with(
        self, copy: Any, sample: NoisySample, condition: Any, camera: Float[Tensor, "b 4 4"] | None
    ) -> CopyPrediction:
        """The copy's answer to the prompt of `condition`, with gradients for its parameters.

        `camera`: camera-to-world matrices; rows of zeros, or None for all of them: not told.
        """
        ...
