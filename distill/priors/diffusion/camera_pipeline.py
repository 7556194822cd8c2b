"""A diffusers pipeline from a prompt and a camera to small images, with a standard U-Net on unshuffled pixels.

Its folder has diffusers' layout; `CameraConditionedPipeline.from_pretrained(folder)` loads it without any code from the
folder. This module imports diffusers.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from ...third_party.torchvision_compat import prepare_torchvision
from ..base import CameraBatch
from ..modalities import background_of, modalities_of, view_features
from .families.camera_conditioned import call_on_patches

prepare_torchvision()

from diffusers.pipelines.pipeline_utils import DiffusionPipeline, ImagePipelineOutput  # noqa: E402


class CameraConditionedPipeline(DiffusionPipeline):
    """A pipeline of a tokenizer, a CLIP text encoder, a `UNet2DConditionModel`, a scheduler and training metadata.

    The camera and the modality are the U-Net's class labels, see `features`, in the unconditional row as well. Padding
    tokens are attended to like words.
    """

    def __init__(
        self,
        tokenizer: Any,
        text_encoder: Any,
        unet: Any,
        scheduler: Any,
        patch_size: int = 1,
        camera_features: list | None = None,
        kinds: dict | None = None,
        held_out: list | None = None,
        training_steps: int = 0,
    ) -> None:
        """Create a pipeline of loaded parts.

        Args:
            patch_size: pixels per side that become channels of the U-Net.
            camera_features: names of the class labels, in order; see `modalities.view_feature_names`.
            kinds: the objects that it was trained on, each with its words.
            held_out: pairs of a kind and a color that were held out of training.
            training_steps: number of training steps.
        """
        super().__init__()
        self.register_modules(tokenizer=tokenizer, text_encoder=text_encoder, unet=unet, scheduler=scheduler)
        self.register_to_config(
            patch_size=patch_size,
            camera_features=camera_features,
            kinds=kinds,
            held_out=held_out,
            training_steps=training_steps,
        )

    @property
    def image_size(self) -> int:
        """Side in pixels of the training images."""
        return self.unet.config.sample_size * self.config["patch_size"]

    @property
    def modalities(self) -> tuple[str, ...]:
        """Modalities that it was trained on."""
        return modalities_of(self.config["camera_features"])

    def features(
        self, cameras: CameraBatch, background: Float[Tensor, "b 3"], modality: str = "color"
    ) -> Float[Tensor, "b f"]:
        """The U-Net's class labels for given views. Raises ValueError for a modality that it was not trained on."""
        behind = background_of(modality, background)
        return view_features(self.config["camera_features"], cameras, behind, modality)

    def tokenize(self, prompts: Sequence[str]) -> Int64[Tensor, "b n"]:
        """Tokenize prompts, padded to the text encoder's length."""
        return self.tokenizer(list(prompts), padding="max_length", truncation=True, return_tensors="pt").input_ids

    def encode_prompt(self, prompts: Sequence[str], device: Any) -> Float[Tensor, "b n c"]:
        """Encode prompts as the U-Net's `encoder_hidden_states`."""
        return self.text_encoder(input_ids=self.tokenize(prompts).to(device)).last_hidden_state

    @torch.no_grad()
    def __call__(
        self,
        prompt: str | Sequence[str],
        camera: Float[Tensor, "b f"],
        *,
        negative_prompt: str | None = None,
        guidance_scale: float = 1.0,
        num_inference_steps: int = 25,
        height: int | None = None,
        width: int | None = None,
        generator: torch.Generator | None = None,
        output_type: str = "pil",
    ) -> ImagePipelineOutput:
        """Generate one image per row of `camera`, from one prompt or one per row; see `features`.

        Pixels saturate under classifier-free guidance, and the prompt is followed without it.

        Args:
            guidance_scale: 1 is no guidance.
            output_type: "pil", or "pt" for (b, 3, height, width) in [0, 1].
        """
        device, count = self.unet.device, len(camera)
        prompts = [prompt] * count if isinstance(prompt, str) else list(prompt)
        if guidance_scale != 1:
            prompts += [negative_prompt or ""] * count
        repeats = len(prompts) // count
        words = self.encode_prompt(prompts, device).to(self.unet.dtype)
        labels = camera.to(device, self.unet.dtype).repeat(repeats, 1)
        shape = (count, 3, height or self.image_size, width or self.image_size)
        noisy = torch.randn(shape, generator=generator, device=generator.device if generator else device).to(device)
        self.scheduler.set_timesteps(num_inference_steps)
        progress_bar: Any = self.progress_bar
        for timestep in progress_bar(self.scheduler.timesteps):
            rows = noisy.repeat(repeats, 1, 1, 1).to(self.unet.dtype)
            output = call_on_patches(
                self.unet, rows, timestep, self.config["patch_size"], encoder_hidden_states=words, class_labels=labels
            )
            conditional, *unconditional = output.float().chunk(repeats)
            for each in unconditional:
                conditional = each + guidance_scale * (conditional - each)
            noisy = self.scheduler.step(conditional, timestep, noisy).prev_sample
        images = 0.5 + 0.5 * noisy.clamp(-1, 1)
        if output_type == "pt":
            return ImagePipelineOutput(images=images)  # pyright: ignore[reportArgumentType]
        return ImagePipelineOutput(images=self.numpy_to_pil(images.permute(0, 2, 3, 1).cpu().numpy()))
