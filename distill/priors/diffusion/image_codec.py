"""Conversion between images and the denoiser's input: pixels, or the latents of an autoencoder."""

from __future__ import annotations

import math
from typing import Any, Protocol, runtime_checkable

from jaxtyping import Float
from torch import Tensor


@runtime_checkable
class ImageCodec(Protocol):
    """A differentiable conversion of images, sRGB in [0, 1] at the model's own size, to the denoiser's space and
    back.
    """

    channels: int
    reduction: int
    """Pixels per latent pixel along a side; 1 for denoisers on pixels."""

    @property
    def parts(self) -> dict[str, Any]:
        """The networks of the codec, by name."""
        ...

    def encode(self, image: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b c hl wl"]: ...
    def decode(self, latent: Float[Tensor, "b c hl wl"]) -> Float[Tensor, "b 3 h w"]: ...


class PixelCodec:
    """The codec of denoisers that work on pixels in [-1, 1]."""

    channels = 3
    reduction = 1

    @property
    def parts(self) -> dict[str, Any]:
        """An empty mapping: the codec has no networks."""
        return {}

    def encode(self, image: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b 3 h w"]:
        """Map [0, 1] to [-1, 1]."""
        return image.float() * 2 - 1

    def decode(self, latent: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b 3 h w"]:
        """Map [-1, 1] to [0, 1]."""
        return (latent.float() + 1) / 2


class LatentCodec:
    """An autoencoder in float32, because gradients through it would underflow in float16.

    The latent is (mode of the encoder's distribution - shift) * scale.
    """

    def __init__(self, vae: Any, decoder: Any = None) -> None:
        """Create a codec.

        Args:
            decoder: another autoencoder for the same latents that `decode` uses, such as an `AutoencoderTiny`.

        Raises ValueError if their latents differ in channels or size, are normalized per channel, or have a shift or
        scale that is not finite.
        """
        for each in (vae, vae if decoder is None else decoder):
            _affine(each.config)
        if vae.config.get("latents_mean") is not None:
            raise ValueError("normalizes its latents channel by channel; one shift and one scale are supported")
        self._vae, self._decoder = vae, decoder or vae
        self.channels: int = vae.config.latent_channels
        self.reduction = 2 ** (len(vae.config.block_out_channels) - 1)
        if decoder is not None:
            theirs = (decoder.config.latent_channels, 2 ** (len(decoder.config.decoder_block_out_channels) - 1))
            if theirs != (self.channels, self.reduction):
                raise ValueError(
                    f"decodes latents of {theirs[0]} channels that are {theirs[1]} times smaller than images; "
                    f"the model's have {self.channels} and are {self.reduction} times smaller"
                )

    @property
    def parts(self) -> dict[str, Any]:
        """The autoencoder, and the separate decoder if there is one."""
        small = {"small decoder": self._decoder} if self._decoder is not self._vae else {}
        return {"autoencoder": self._vae, **small}

    def encode(self, image: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b c hl wl"]:
        """Encode images as the mode of the latent distribution, shifted and scaled."""
        shift, scale = _affine(self._vae.config)
        return (self._vae.encode(image.float() * 2 - 1).latent_dist.mode() - shift) * scale

    def decode(self, latent: Float[Tensor, "b c hl wl"]) -> Float[Tensor, "b 3 h w"]:
        """Decode latents to images, not clamped."""
        shift, scale = _affine(self._decoder.config)
        return (self._decoder.decode(latent.float() / scale + shift).sample + 1) / 2


def _affine(config: Any) -> tuple[float, float]:
    """Shift and scale of an autoencoder's latents. Raises ValueError unless both are finite and the scale is not 0."""
    shift, scale = config.get("shift_factor", None) or 0.0, config.get("scaling_factor", None)
    if not all(isinstance(each, int | float) and math.isfinite(each) for each in (shift, scale)) or not scale:
        raise ValueError(f"has shift_factor={shift!r} and scaling_factor={scale!r}; finite numbers are accepted")
    return shift, scale
