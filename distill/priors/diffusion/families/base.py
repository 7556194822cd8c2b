"""Base class of a family of text-to-image models, with everything in which families differ."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from jaxtyping import Float
from torch import Tensor

from ....noise.parameterization import PREDICTION_TYPES
from ....noise.schedule import NoiseSchedule, NoisySample
from ....third_party.errors import foreign_errors
from ...base import CameraBatch
from ..image_codec import ImageCodec, LatentCodec
from ..samplers import FILE, OF_FLOWS, noise_levels

LARGEST_SIDE = 4096
"""Largest accepted side of a denoiser's input."""
_TIMESTEPS = 1000
"""Timestep that a flow model gets for sigma = 1."""


@dataclass(frozen=True)
class TextEncoder:
    """A text encoder and its tokenizer: classes of transformers, and folders of the model."""

    model: str
    tokenizer_folder: str
    tokenizer: str
    reads: int | None = None
    """Number of tokens of a prompt that are used; None: the tokenizer's limit."""
    half: bool = False
    """Whether it runs in the denoiser's precision instead of float32."""
    optional: bool = False
    """Whether the model works without it; its tokenizer is then not required either."""


def clip(folder: str = "text_encoder", *, projected: bool = False) -> TextEncoder:
    """CLIP's text model, as the entry `folder` of `Family.text_encoders`."""
    model = "CLIPTextModelWithProjection" if projected else "CLIPTextModel"
    return TextEncoder(model, folder.replace("text_encoder", "tokenizer"), "CLIPTokenizer")


def t5(folder: str = "text_encoder", *, reads: int, optional: bool = False) -> TextEncoder:
    """T5's encoder. It has billions of weights and was trained in bfloat16, so it is not converted to float32."""
    tokenizer = folder.replace("text_encoder", "tokenizer")
    return TextEncoder("T5EncoderModel", tokenizer, "T5TokenizerFast", reads, half=True, optional=optional)


@dataclass(frozen=True)
class FamilyOptions:
    """Settings that only some families use."""

    embedded_guidance: float = 1.0
    """Guidance scale that guidance-distilled models (FLUX.1-dev) take as an input."""
    shifted_noise: bool = False
    """Whether the noise levels of flow models are shifted toward noise like their sampler's; False: uniform."""


class Family(ABC):
    """The properties and calls in which families differ; what they share is in `DiffusersPrior`.

    A family holds no weights: the denoiser is an argument of `call`.
    """

    name: ClassVar[str]
    denoiser: ClassVar[str] = "unet"
    """Folder of the denoiser, the network that is distilled."""
    denoiser_class: ClassVar[str] = "UNet2DConditionModel"
    """Class of the denoiser in diffusers."""
    autoencoder_class: ClassVar[str | None] = "AutoencoderKL"
    """Class in diffusers of the autoencoder in the folder `vae`; None: the denoiser works on pixels in [-1, 1]."""
    camera_conditioned: ClassVar[bool] = False
    """Whether `view` provides the camera, so that the prompt need not name the view."""
    crops: bool = False
    """Whether it was trained on parts of images, and `view` describes the part that it sees."""
    modalities: tuple[str, ...] = ("color",)
    """The modalities of the images that it was trained on, encoded as by `modalities.encode`; `("normal",)` for a model
    of normal maps."""
    text_encoders: ClassVar[Mapping[str, TextEncoder]]
    """Text encoders by folder."""

    def __init__(self, config: Any, index: Mapping[str, Any], options: FamilyOptions) -> None:
        """Check a model's configuration.

        Args:
            config: the denoiser's configuration.
            index: the model's model_index.json, empty if it has none.

        Raises ValueError for a model that has the family's layout but other inputs.
        """
        self.config, self.index, self.options = config, index, options

    @staticmethod
    def pipeline_class(name: str) -> Any:
        """The pipeline class of this name, whose text encoding is used."""
        import diffusers

        return getattr(diffusers, name)

    @staticmethod
    def codec(autoencoder: Any, decoder: Any = None) -> ImageCodec:
        """The conversion between images and latents.

        Args:
            decoder: another autoencoder for the same latents, used for decoding.

        Raises ValueError for autoencoders with unsupported latents.
        """
        return LatentCodec(autoencoder, decoder)

    def check_latents(self, channels: int) -> None:
        """Check the denoiser's channels. Raises ValueError unless it takes `channels` and predicts each of them."""
        taken, given = self.config.in_channels, self.config.out_channels or self.config.in_channels
        if taken != channels or given not in (channels, 2 * channels):
            raise ValueError(
                f"maps {taken} channels to {given}, but its images have {channels}: it is an inpainting, depth or "
                "upscaling model; text-to-image models are accepted"
            )

    def image_size(self, reduction: int) -> int:
        """Side in pixels of the square training images.

        Args:
            reduction: pixels per latent pixel along a side.

        Raises ValueError if the configuration does not contain it, or is not square.
        """
        return self.sample_size * reduction

    @property
    def sample_size(self) -> int:
        """Side of the denoiser's input in training. Raises ValueError like `image_size`."""
        size = self.config.sample_size
        if isinstance(size, list | tuple) and len(size) == 2 and size[0] == size[1]:
            size = size[0]
        if not isinstance(size, int) or isinstance(size, bool) or not 1 <= size <= LARGEST_SIDE:
            raise ValueError(
                f"was trained on images of sample_size={size!r} ({self.denoiser}/config.json); one side or two equal "
                f"ones in [1, {LARGEST_SIDE}] are accepted, or set prior.image_size"
            )
        return size

    @property
    def multiple(self) -> int:
        """Required divisor of the denoiser's input size, which is halved several times."""
        levels = self.config.block_out_channels
        if not isinstance(levels, list | tuple) or not 1 <= len(levels) <= 16:
            raise ValueError(f"has block_out_channels={levels!r} ({self.denoiser}/config.json); a list is accepted")
        return 2 ** (len(levels) - 1)

    def noise_schedule(self, sampler: Any, latent_size: int) -> NoiseSchedule:
        """The noise levels by timestep. Raises ValueError for an unsupported sampler.

        Args:
            sampler: diffusers' own, see `samplers`.
        """
        del latent_size
        return NoiseSchedule.from_alphas_cumprod(noise_levels(sampler))

    def prediction_type(self, sampler: Any) -> str:
        """The prediction type, one of `PREDICTION_TYPES`. Raises ValueError for an unsupported one."""
        predicts, known = sampler.config.get("prediction_type", "epsilon"), PREDICTION_TYPES[:-1]
        if predicts not in known:
            raise ValueError(f"predicts {predicts!r}; known: {', '.join(known)}")
        return predicts

    def reads(self, encoder: str) -> int | None:
        """Number of tokens of a prompt that the text encoder in this folder takes; None: the tokenizer's limit."""
        return self.text_encoders[encoder].reads

    @abstractmethod
    def encode_text(self, pipeline: Any, prompts: list[str], device: Any) -> dict[str, Tensor]:
        """The denoiser's text conditions of each prompt, by name; the first dimension counts prompts.

        Args:
            pipeline: diffusers' pipeline with the text encoders only.

        Boolean tensors are token masks.
        """

    def encode_negative(self, pipeline: Any, prompt: str, device: Any) -> dict[str, Tensor]:
        """The denoiser's text conditions of one negative prompt, by name; "" is none."""
        return self.encode_text(pipeline, [prompt], device)

    def view(
        self, cameras: CameraBatch, background: Float[Tensor, "b 3"], modality: str = "color"
    ) -> dict[str, Tensor]:
        """The denoiser's conditions on each view besides the prompt, by name, one row per camera.

        Args:
            background: sRGB in [0, 1].
            modality: one of `modalities`; left out for color.
        """
        del cameras, background, modality
        return {}

    def time(self, sample: NoisySample) -> Tensor:
        """The denoiser's input for the noise level, one number per image."""
        return sample.timestep

    def call(
        self,
        denoiser: Any,
        noisy: Float[Tensor, "b c h w"],
        time: Tensor,
        text: Mapping[str, Tensor],
        image_size: int,
    ) -> Float[Tensor, "b d h w"]:
        """Call the denoiser and return its prediction, followed by the channels of a learned variance (d > c), if any.

        Args:
            text: the results of `encode_text` and `view`.
        """
        del image_size
        return denoiser(noisy, timestep=time, **text).sample


class FlowFamily(Family):
    """A family of transformers that predict the velocity `noise - clean` along straight lines (rectified flow)."""

    denoiser = "transformer"

    def noise_schedule(self, sampler: Any, latent_size: int) -> NoiseSchedule:
        """Noise levels uniform in sigma, or shifted like the model's sampler for images of this size."""
        name, config = type(sampler).__name__, sampler.config
        if name not in OF_FLOWS or config.get("invert_sigmas", False) or config.num_train_timesteps != _TIMESTEPS:
            raise ValueError(
                f"is sampled by {name} of {config.num_train_timesteps} steps, invert_sigmas="
                f"{config.get('invert_sigmas', False)} ({FILE}); for this family {' and '.join(OF_FLOWS)} of "
                f"{_TIMESTEPS} steps, from noise to image, are accepted"
            )
        shift = sampler_shift(config, (latent_size // 2) ** 2) if self.options.shifted_noise else 1.0
        return NoiseSchedule.rectified_flow(shift=shift)

    def prediction_type(self, sampler: Any) -> str:
        del sampler
        return "flow"

    @property
    def multiple(self) -> int:
        return 2

    def time(self, sample: NoisySample) -> Tensor:
        return sample.sigma.flatten() * _TIMESTEPS


def sampler_shift(scheduler: Mapping[str, Any], tokens: int) -> float:
    """Shift of diffusers' flow sampler for images of the given number of tokens.

    sigma -> shift * sigma / (1 + (shift - 1) * sigma); Stable Diffusion 3 (2403.03206, equation 23). "Dynamic"
    shifting makes the logarithm of the shift linear in the number of tokens. Raises ValueError for settings without a
    positive shift.
    """
    with foreign_errors(f"shifts its noise levels in an unknown way ({FILE})"):
        if not scheduler.get("use_dynamic_shifting", False):
            shift = float(scheduler.get("shift", 1.0))
        else:
            fewest, most = scheduler.get("base_image_seq_len", 256), scheduler.get("max_image_seq_len", 4096)
            least, greatest = scheduler.get("base_shift", 0.5), scheduler.get("max_shift", 1.15)
            shift = math.exp(least + (greatest - least) * (tokens - fewest) / (most - fewest))
    if not 0 < shift < math.inf:
        raise ValueError(f"shifts its noise levels by {shift} ({FILE}); positive numbers are accepted")
    return shift
