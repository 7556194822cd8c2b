"""Draw a preview grid: python -m steindreamer.training.prior.sample --model FOLDER --out sheet.png

One row per prompt; for every modality one column per azimuth, and a last one from above. Every image is sampled
independently.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from steindreamer.representations import Cameras
from steindreamer.world import KINDS, caption_of

from .model import CameraConditionedPipeline, load_pipeline

OVERHEAD = 65.0
"""Elevation of the last column, in degrees."""


def sample(
    pipeline: CameraConditionedPipeline,
    texts: Sequence[str],
    cameras: Cameras,
    background: Float[Tensor, "b 3"],
    *,
    modality: str = "color",
    guidance: float = 1.0,
    steps: int = 25,
    generator: torch.Generator,
) -> Float[Tensor, "b 3 h w"]:
    """Sample images in [0, 1] by DDIM (Song et al. 2021) with classifier-free guidance.

    The unconditional prediction uses an empty prompt, and the same camera, background and modality.

    Raises:
        ValueError: The pipeline was not trained on this modality.
    """
    drawn: Any = pipeline(
        texts,
        pipeline.features(cameras, background, modality),
        guidance_scale=guidance,
        num_inference_steps=steps,
        generator=generator,
        output_type="pt",
    )
    return drawn.images


def contact_sheet(
    pipeline: CameraConditionedPipeline,
    prompts: Sequence[str],
    azimuths: int,
    guidance: float,
    seed: int,
    modalities: Sequence[str] = (),
) -> Image.Image:
    """Draw a preview grid with one row per prompt and `azimuths` + 1 images per modality, over white or black.

    Args:
        pipeline: Pipeline to sample from.
        prompts: One prompt per row.
        azimuths: Number of columns at equally spaced azimuths; one more is from above.
        guidance: Scale of classifier-free guidance.
        seed: Seed of the noise.
        modalities: Modalities to draw; empty for all.
    """
    generator = torch.Generator().manual_seed(seed)
    columns = torch.arange(azimuths + 1)
    azimuth = torch.where(columns < azimuths, columns * 360.0 / azimuths, 30.0)
    cameras = Cameras.orbit(azimuth, torch.where(columns < azimuths, 15.0, OVERHEAD), height=pipeline.image_size)
    white = torch.ones(len(columns), 3)
    rows = []
    for text in prompts:
        texts = [text] * len(cameras)
        blocks = [
            sample(pipeline, texts, cameras, white, modality=modality, guidance=guidance, generator=generator)
            for modality in modalities or pipeline.modalities
        ]
        rows.append(torch.cat([image for block in blocks for image in block], 2))
    sheet = torch.cat(rows, 1)
    return Image.fromarray((sheet * 255).round().to(torch.uint8).permute(1, 2, 0).numpy().astype(np.uint8))


def default_prompts(pipeline: CameraConditionedPipeline) -> list[str]:
    """Return every kind of the model in its default color, then the pairs held out of its training."""
    kinds, held_out = pipeline.config["kinds"], pipeline.config["held_out"]
    pairs = [*((kind, KINDS[kind].default) for kind in kinds), *held_out]
    return [caption_of(kind, color).text for kind, color in pairs]


def main(arguments: list[str] | None = None) -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True, metavar="FOLDER")
    parser.add_argument("--out", type=Path, required=True, metavar="PNG")
    parser.add_argument("--prompt", action="append", help="may be repeated (default: every kind, the held-out pairs)")
    parser.add_argument("--modalities", default="", help="separated by commas (default: all that the model knows)")
    parser.add_argument("--azimuths", type=int, default=8)
    parser.add_argument("--guidance", type=float, default=1.0, help="1: none")
    parser.add_argument("--scale", type=int, default=2, help="enlarge the images")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args(arguments)
    pipeline = load_pipeline(given.model)
    prompts = given.prompt or default_prompts(pipeline)
    modalities = given.modalities.split(",") if given.modalities else ()
    sheet = contact_sheet(pipeline, prompts, given.azimuths, given.guidance, given.seed, modalities)
    sheet.resize((sheet.width * given.scale, sheet.height * given.scale), Image.Resampling.NEAREST).save(given.out)
    print("\n".join(f"row {row}: {text}" for row, text in enumerate(prompts, 1)))


if __name__ == "__main__":
    main()
