"""The protocol of a 2D prior, which a diffusion model must implement to be distilled.

The split into `embed` (once per run), `condition` (once per step) and `predict_noise` lets a text encoder be freed
before the first step, and lets pixel and latent, eps-, v- and flow-predicting models share one distiller.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol, TypeVar, get_args, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ..noise.schedule import NoiseSchedule, NoisySample

Embedding = TypeVar("Embedding")
"""A prior's embedding of a prompt; each prior has its own type."""
Condition = TypeVar("Condition")
"""A prior's conditioning for one batch of views; each prior has its own type."""
Denoiser = TypeVar("Denoiser", bound=nn.Module)
"""The type of a prior's LoRA denoiser."""

Prompt = Literal["positive", "negative", "null"]
"""The text that a prediction is conditioned on: the prompt, the negative prompt of guidance, or no text. Without a
negative prompt the last two are the same."""
PROMPTS: tuple[Prompt, ...] = get_args(Prompt)


@runtime_checkable
class CameraBatch(Protocol):
    """The part of `representations.Cameras` that a prior may use."""

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
class NoiseRequest:
    """A request for one noise prediction per image of a noisy batch.

    Requests are equal if they have the same prompt and the identical `sample` object. Raises ValueError for an unknown
    prompt.
    """

    sample: NoisySample
    prompt: Prompt = "positive"

    def __post_init__(self) -> None:
        if self.prompt not in PROMPTS:
            raise ValueError(f"unknown prompt {self.prompt!r} of a noise request: use one of {', '.join(PROMPTS)}")


@runtime_checkable
class Prior(Protocol[Embedding, Condition]):
    """A 2D diffusion prior. Its weights are frozen; `predict_noise` carries no gradient."""

    @property
    def schedule(self) -> NoiseSchedule: ...

    @property
    def device(self) -> torch.device: ...

    def embed(self, prompt: str, negative_prompt: str = "") -> Embedding:
        """Text embeddings, computed once per run. Raises ValueError for a prompt that the model cannot process."""
        ...

    def condition(self, embedding: Embedding, cameras: CameraBatch, background: Float[Tensor, "b 3"]) -> Condition:
        """The conditioning for given views: view-dependent prompts, camera embeddings, background colors."""
        ...

    def encode(self, image: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b c hl wl"]:
        """Convert display sRGB in [0, 1] to the model's own space (pixels in [-1, 1], or latents). Differentiable."""
        ...

    def decode(self, latent: Float[Tensor, "b c hl wl"]) -> Float[Tensor, "b 3 h w"]:
        """Convert the model's own space to sRGB (not clamped), the inverse of `encode` or an approximation.
        Differentiable.
        """
        ...

    def predict_noise(
        self, requests: Sequence[NoiseRequest], condition: Condition
    ) -> Sequence[Float[Tensor, "b c h w"]]:
        """Predict noise, one eps-prediction per request, in as few calls of the network as possible.

        All requests concern the views of `condition`; their samples may differ in timestep and noise.
        """
        ...


@runtime_checkable
class MultimodalPrior(Prior[Embedding, Condition], Protocol[Embedding, Condition]):
    """A prior that says which images of an object it knows, see `modalities`; any other prior knows color alone."""

    @property
    def modalities(self) -> tuple[str, ...]:
        """Names of the modalities that it knows, some of `modalities.MODALITIES`."""
        ...

    def condition(
        self, embedding: Embedding, cameras: CameraBatch, background: Float[Tensor, "b 3"], modality: str = "color"
    ) -> Condition:
        """The conditioning for images of one modality at given views. Raises ValueError for one that it does not know.

        Args:
            background: color behind the object in these images; black for normal and depth maps.
        """
        ...


def predict_noise(
    prior: Prior[Any, Condition], requests: Sequence[NoiseRequest], condition: Condition
) -> list[Float[Tensor, "b c h w"]]:
    """The prior's eps-predictions in float32, one per request.

    Raises ValueError unless each has the shape of its noisy batch, in any floating-point type, and is on its device: a
    prediction of batch 1 would be broadcast to all images. Values are not checked.
    """
    name = f"{type(prior).__name__}.predict_noise"
    predicted: Any = prior.predict_noise(requests, condition)
    if not isinstance(predicted, Sequence) or len(predicted) != len(requests):
        given = len(predicted) if isinstance(predicted, Sequence) else described(predicted)
        raise ValueError(f"{name} must return a list of one prediction per request: {len(requests)}, got {given}")
    for prediction, request in zip(predicted, requests, strict=True):
        noise = request.sample.noise
        if not isinstance(prediction, Tensor) or prediction.shape != noise.shape or not prediction.is_floating_point():
            raise ValueError(
                f"{name} must return one noise prediction per image, floating-point numbers of shape "
                f"{tuple(noise.shape)}; got {described(prediction)} for the {request.prompt} prompt"
            )
        if prediction.device != noise.device:
            raise ValueError(
                f"{name} must return predictions on the device of the images, {noise.device}; got {prediction.device}"
            )
    return [prediction.float() for prediction in predicted]


def encode(prior: Prior[Any, Any], image: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b c hl wl"]:
    """Encode images to the prior's own space.

    Raises ValueError unless the result is one tensor of three axes per image, attached to the graph of the input.
    """
    encoded: Any = prior.encode(image)
    name = f"{type(prior).__name__}.encode"
    whole = isinstance(encoded, Tensor) and encoded.is_floating_point()
    if not whole or encoded.ndim != 4 or len(encoded) != len(image) or encoded.device != image.device:
        raise ValueError(
            f"{name} must return floating-point numbers of shape ({len(image)}, c, h, w) on {image.device}, one latent "
            f"or image for each image; got {described(encoded)}"
        )
    if torch.is_grad_enabled() and image.requires_grad and not encoded.requires_grad:
        raise ValueError(
            f"{name} must be differentiable: remove no_grad or detach from it, otherwise no scene can be trained"
        )
    return encoded


def described(value: Any) -> str:
    """Description of a component's output for a message: type, shape and device of a tensor, else the class."""
    if not isinstance(value, Tensor):
        return "None" if value is None else f"a {type(value).__name__}"
    return f"{str(value.dtype).removeprefix('torch.')} of shape {tuple(value.shape)} on {value.device}"


@runtime_checkable
class MicroBatched(Protocol):
    """A prior that can process its images in micro-batches to save memory."""

    micro_batch: int
    """Images per call of the prior's networks; 0: all. Results agree up to rounding."""


@runtime_checkable
class ReadsPrompts(Protocol):
    """A prior that maps free text to the captions that it knows."""

    def prompt_notes(self, prompt: str, negative_prompt: str = "") -> Sequence[str]:
        """Lines for the log: how each text is read, and which of its words have no effect."""
        ...


@dataclass(frozen=True)
class LoRAPrediction:
    """The output of a LoRA denoiser for noisy images, float32."""

    noise: Float[Tensor, "b c h w"]
    """The eps-prediction."""
    error: Float[Tensor, "b c h w"]
    """Output minus target, in the network's own parameterization: noise, velocity or clean image."""


@runtime_checkable
class LoRAPrior(Prior[Embedding, Condition], Protocol[Embedding, Condition, Denoiser]):
    """A prior whose denoiser can be fine-tuned by LoRA; its own weights stay shared and frozen."""

    def lora_denoiser(self, rank: int, *, camera: bool, generator: torch.Generator) -> Denoiser:
        """Create a LoRA denoiser whose predictions equal the denoiser's until it is trained.

        Its parameters are updates of rank `rank` in float32 and, with `camera`, the layers that embed the camera.
        Raises ValueError for an invalid rank, or a network without layers to update.
        """
        ...

    def predict_lora(
        self,
        denoiser: Denoiser,
        sample: NoisySample,
        condition: Condition,
        camera: Float[Tensor, "b 4 4"] | None,
    ) -> LoRAPrediction:
        """The LoRA denoiser's prediction for the positive prompt, with gradients for its parameters.

        `camera`: camera-to-world matrices; a row of zeros, or None for all rows, drops the camera condition.
        """
        ...
