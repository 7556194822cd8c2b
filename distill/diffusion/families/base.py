"""What one family of text-to-image models does differently from the others."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from jaxtyping import Float
from torch import Tensor

from ...foreign_errors import foreign_errors
from ...predictions import PREDICTION_TYPES
from ...prior import CameraBatch
from ...schedule import NoiseSchedule, NoisySample
from ..samplers import FILE, OF_FLOWS, noise_levels

LARGEST_SIDE = 4096
"""Of what a denoiser works on."""
_TIMESTEPS = 1000
"""Of a flow: what sigma = 1 is called."""


@dataclass(frozen=True)
class TextEncoder:
    """A text encoder and the tokenizer before it: classes of transformers, folders of the model."""

    model: str
    tokenizer_folder: str
    tokenizer: str
    reads: int | None = None
    """Tokens of a prompt; None: as many as the tokenizer says."""
    half: bool = False
    """Whether it runs in the denoiser's precision; float32 otherwise."""
    optional: bool = False
    """Whether the model can do without; its tokenizer then does not matter."""


def clip(folder: str = "text_encoder", *, projected: bool = False) -> TextEncoder:
    """CLIP's text tower, as the entry `folder` of `Family.text_encoders`."""
    model = "CLIPTextModelWithProjection" if projected else "CLIPTextModel"
    return TextEncoder(model, folder.replace("text_encoder", "tokenizer"), "CLIPTokenizer")


def t5(folder: str = "text_encoder", *, reads: int, optional: bool = False) -> TextEncoder:
    """T5's encoder. It has billions of weights and was trained in bfloat16, so it does not get float32."""
    tokenizer = folder.replace("text_encoder", "tokenizer")
    return TextEncoder("T5EncoderModel", tokenizer, "T5TokenizerFast", reads, half=True, optional=optional)


@dataclass(frozen=True)
class FamilyOptions:
    """Settings that only some families read."""

    embedded_guidance: float = 1.0
    """The guidance scale that guidance-distilled models (FLUX.1-dev) take as an input."""
    shifted_noise: bool = False
    """Whether flow models space their noise levels as their sampler does, shifted towards noise; False: evenly."""


class Family(ABC):
    """Everything that tells one family from another; what all share is in `DiffusersPrior`.

    Nothing here holds weights: the denoiser is handed to `call`.
    """

    name: ClassVar[str]
    denoiser: ClassVar[str] = "unet"
    """The folder of the network that is distilled."""
    denoiser_class: ClassVar[str] = "UNet2DConditionModel"
    """Its class in diffusers."""
    has_vae: ClassVar[bool] = True
    """Whether it works on the latents of an `AutoencoderKL`; False: on pixels in [-1, 1]."""
    told_camera: ClassVar[bool] = False
    """Whether `view` tells the camera, so that the prompt need not say which side it is."""
    text_encoders: ClassVar[Mapping[str, TextEncoder]]
    """By folder."""

    def __init__(self, config: Any, index: Mapping[str, Any], options: FamilyOptions) -> None:
        """`config`: the denoiser's. `index`: the model's model_index.json, empty if it has none.

        Raises ValueError for a model that shares the family's layout but wants other inputs.
        """
        self.config, self.index, self.options = config, index, options

    @staticmethod
    def pipeline_class(name: str) -> Any:
        """The pipeline class of this name, whose text encoding is used."""
        import diffusers

        return getattr(diffusers, name)

    def check_latents(self, channels: int) -> None:
        """Raises ValueError unless pictures of `channels` channels go in and a prediction for each comes out."""
        taken, given = self.config.in_channels, self.config.out_channels or self.config.in_channels
        if taken != channels or given not in (channels, 2 * channels):
            raise ValueError(
                f"turns {taken} channels into {given}, its pictures have {channels}: "
                "an inpainting, depth or upscaling model; text-to-image models are accepted"
            )

    def picture_size(self, reduction: int) -> int:
        """Pixels of the square pictures it was trained on; `reduction`: pixels per pixel of a latent.

        Raises ValueError if its configuration does not say, or says something else than a square.
        """
        return self.sample_size * reduction

    @property
    def sample_size(self) -> int:
        """Side of what the denoiser was trained on. Raises ValueError like `picture_size`."""
        size = self.config.sample_size
        if isinstance(size, list | tuple) and len(size) == 2 and size[0] == size[1]:
            size = size[0]
        if not isinstance(size, int) or isinstance(size, bool) or not 1 <= size <= LARGEST_SIDE:
            raise ValueError(
                f"was trained on pictures of sample_size={size!r} ({self.denoiser}/config.json); one side or two equal "
                f"ones in [1, {LARGEST_SIDE}] are understood, or set prior.picture_size"
            )
        return size

    @property
    def multiple(self) -> int:
        """The denoiser halves its input some times: its size must be a multiple of this."""
        levels = self.config.block_out_channels
        if not isinstance(levels, list | tuple) or not 1 <= len(levels) <= 16:
            raise ValueError(f"has block_out_channels={levels!r} ({self.denoiser}/config.json); a list is accepted")
        return 2 ** (len(levels) - 1)

    def noise_schedule(self, sampler: Any, latent_size: int) -> NoiseSchedule:
        """The noise levels by timestep; `sampler`: diffusers' own, see `samplers`. Raises ValueError."""
        del latent_size
        return NoiseSchedule.from_alphas_cumprod(noise_levels(sampler))

    def prediction_type(self, sampler: Any) -> str:
        """One of `PREDICTION_TYPES` for a variance-preserving schedule. Raises ValueError for another."""
        predicts, known = sampler.config.get("prediction_type", "epsilon"), PREDICTION_TYPES[:-1]
        if predicts not in known:
            raise ValueError(f"predicts {predicts!r}; known: {', '.join(known)}")
        return predicts

    def reads(self, encoder: str) -> int | None:
        """Tokens of a prompt that the text encoder in this folder takes; None: as many as its tokenizer says."""
        return self.text_encoders[encoder].reads

    @abstractmethod
    def encode_text(self, pipeline: Any, prompts: list[str], device: Any) -> dict[str, Tensor]:
        """What the denoiser wants to know of each prompt, by name; first dimension = prompts.

        `pipeline` is diffusers' own, with the text encoders only. Boolean tensors are masks of tokens.
        """

    def encode_negative(self, pipeline: Any, prompt: str, device: Any) -> dict[str, Tensor]:
        """The same for one negative prompt; "" is none."""
        return self.encode_text(pipeline, [prompt], device)

    def view(self, cameras: CameraBatch, background: Float[Tensor, "b 3"]) -> dict[str, Tensor]:
        """What the denoiser is told of each view besides the prompt, by name, one row per camera; background: sRGB."""
        del cameras, background
        return {}

    def time(self, sample: NoisySample) -> Tensor:
        """The noise level as the denoiser is told it, one number per picture."""
        return sample.timestep

    def call(
        self,
        denoiser: Any,
        noisy: Float[Tensor, "b c h w"],
        time: Tensor,
        text: Mapping[str, Tensor],
        picture_size: int,
    ) -> Float[Tensor, "b d h w"]:
        """The denoiser's output; the prediction comes first, channels of a learned variance (d > c) behind it.

        `text`: what `encode_text` and `view` say.
        """
        del picture_size
        return denoiser(noisy, timestep=time, **text).sample


class FlowFamily(Family):
    """Transformers that predict the velocity `noise - clean` along straight lines (rectified flow)."""

    denoiser = "transformer"

    def noise_schedule(self, sampler: Any, latent_size: int) -> NoiseSchedule:
        """Noise levels even in sigma, or shifted as the model's sampler does for pictures of this size."""
        name, config = type(sampler).__name__, sampler.config
        if name not in OF_FLOWS or config.get("invert_sigmas", False) or config.num_train_timesteps != _TIMESTEPS:
            raise ValueError(
                f"is sampled by {name} of {config.num_train_timesteps} steps, invert_sigmas="
                f"{config.get('invert_sigmas', False)} ({FILE}); for this family {' and '.join(OF_FLOWS)} of "
                f"{_TIMESTEPS} steps, from noise to picture, are accepted"
            )
        shift = sampler_shift(config, (latent_size // 2) ** 2) if self.options.shifted_noise else 1.0
        return NoiseSchedule.rectified_flow(shift=shift)

    def prediction_type(self, sampler: Any) -> str:
        del sampler
        return "flow"

    @property
    def multiple(self) -> int:
        return 2

    def view(self, cameras: CameraBatch, background: Float[Tensor, "b 3"]) -> dict[str, Tensor]:
        """What the denoiser is told of each view besides the prompt, by name, one row per camera; background: sRGB."""
        del cameras, background
        return {}

    def time(self, sample: NoisySample) -> Tensor:
        return sample.sigma.flatten() * _TIMESTEPS


def sampler_shift(scheduler: Mapping[str, Any], tokens: int) -> float:
    """How far diffusers' flow sampler shifts its noise levels for pictures of so many tokens.

    sigma -> shift * sigma / (1 + (shift - 1) * sigma); Stable Diffusion 3 (2403.03206, equation 23). "Dynamic"
    shifting makes the logarithm of the shift linear in the number of tokens. Raises ValueError for settings that give
    no positive number.
    """
    with foreign_errors(f"shifts its noise levels in no known way ({FILE})"):
        if not scheduler.get("use_dynamic_shifting", False):
            shift = float(scheduler.get("shift", 1.0))
        else:
            fewest, most = scheduler.get("base_image_seq_len", 256), scheduler.get("max_image_seq_len", 4096)
            least, greatest = scheduler.get("base_shift", 0.5), scheduler.get("max_shift", 1.15)
            shift = math.exp(least + (greatest - least) * (tokens - fewest) / (most - fewest))
    if not 0 < shift < math.inf:
        raise ValueError(f"shifts its noise levels by {shift} ({FILE}); positive numbers are accepted")
    return shift
