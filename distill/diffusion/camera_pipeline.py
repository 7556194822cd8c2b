"""A diffusers pipeline from a prompt and a camera to small pictures, over an ordinary U-Net on unshuffled pixels.

Its folder is one of diffusers' own; `CameraConditionedPipeline.from_pretrained(folder)` opens it without any code from
the folder. Imports diffusers.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from ..torchvision_compat import prepare_torchvision
from .families.camera_conditioned import call_on_patches

prepare_torchvision()

from diffusers.pipelines.pipeline_utils import DiffusionPipeline, ImagePipelineOutput  # noqa: E402


class CameraConditionedPipeline(DiffusionPipeline):
    """A tokenizer, a CLIP text encoder, a `UNet2DConditionModel` and a scheduler, and what they were trained on.

    The camera comes as the U-Net's class labels: `camera_features`, the unconditional row included. Padding tokens are
    attended to like words.
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
        """
        Args:
            patch_size: pixels per side that become channels of the U-Net.
            camera_features: what the class labels are, in order.
            kinds: the objects that it was trained on, each with the words for it.
            held_out: pairs of a kind and a colour that it was not trained on.
            training_steps: how many there were.
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
    def picture_size(self) -> int:
        """Pixels per side of the pictures it was trained on."""
        return self.unet.config.sample_size * self.config["patch_size"]

    def tokenize(self, prompts: Sequence[str]) -> Int64[Tensor, "b n"]:
        """Padded to the text encoder's length."""
        return self.tokenizer(list(prompts), padding="max_length", truncation=True, return_tensors="pt").input_ids

    def encode_prompt(self, prompts: Sequence[str], device: Any) -> Float[Tensor, "b n c"]:
        """The U-Net's `encoder_hidden_states`."""
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
        """One picture per row of `camera`, of one prompt or as many; see `camera_features`.

        Pixels saturate under classifier-free guidance, and the prompt is heeded without: `guidance_scale` 1 is none.
        `output_type` is "pil", or "pt" for (b, 3, height, width) in [0, 1].
        """
        device, count = self.unet.device, len(camera)
        prompts = [prompt] * count if isinstance(prompt, str) else list(prompt)
        if guidance_scale != 1:
            prompts += [negative_prompt or ""] * count
        repeats = len(prompts) // count
        words = self.encode_prompt(prompts, device).to(self.unet.dtype)
        labels = camera.to(device, self.unet.dtype).repeat(repeats, 1)
        shape = (count, 3, height or self.picture_size, width or self.picture_size)
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
        pictures = 0.5 + 0.5 * noisy.clamp(-1, 1)
        if output_type == "pt":
            return ImagePipelineOutput(images=pictures)  # pyright: ignore[reportArgumentType]
        return ImagePipelineOutput(images=self.numpy_to_pil(pictures.permute(0, 2, 3, 1).cpu().numpy()))
