"""Draw a contact sheet: python -m steindreamer.training.prior.sample --model FOLDER --out sheet.png

One row per prompt, one column per azimuth and a last one from above; every picture is sampled on its own.
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

from ...distill.camera_features import camera_features
from ...representations import Cameras
from ..world import KINDS, caption_of
from .dataset import SIZE
from .model import CameraConditionedPipeline, load_pipeline

OVERHEAD = 65.0
"""Degrees of elevation of the last column."""


def sample(
    pipeline: CameraConditionedPipeline,
    texts: Sequence[str],
    cameras: Cameras,
    background: Float[Tensor, "b 3"],
    *,
    guidance: float = 1.0,
    steps: int = 25,
    generator: torch.Generator,
) -> Float[Tensor, "b 3 h w"]:
    """Pictures in [0, 1] by DDIM (Song et al. 2021) with classifier-free guidance.

    Unconditional is the empty text; it keeps the camera and the background.
    """
    camera = camera_features(cameras, background)
    drawn: Any = pipeline(
        texts,
        camera,
        guidance_scale=guidance,
        num_inference_steps=steps,
        generator=generator,
        output_type="pt",
    )
    return drawn.images


def contact_sheet(
    pipeline: CameraConditionedPipeline, prompts: Sequence[str], azimuths: int, guidance: float, seed: int
) -> Image.Image:
    """One row of `azimuths` + 1 pictures per prompt, over white."""
    generator = torch.Generator().manual_seed(seed)
    columns = torch.arange(azimuths + 1)
    azimuth = torch.where(columns < azimuths, columns * 360.0 / azimuths, 30.0)
    cameras = Cameras.orbit(azimuth, torch.where(columns < azimuths, 15.0, OVERHEAD), height=SIZE)
    white = torch.ones(len(columns), 3)
    rows = [
        sample(pipeline, [text] * len(cameras), cameras, white, guidance=guidance, generator=generator)
        for text in prompts
    ]
    picture = torch.cat([torch.cat(list(row), 2) for row in rows], 1)
    return Image.fromarray((picture * 255).round().to(torch.uint8).permute(1, 2, 0).numpy().astype(np.uint8))


def default_prompts(pipeline: CameraConditionedPipeline) -> list[str]:
    """Every kind of the model in its own colour, then the pairs held out of its training."""
    kinds, held_out = pipeline.config["kinds"], pipeline.config["held_out"]
    pairs = [*((kind, KINDS[kind].default) for kind in kinds), *held_out]
    return [caption_of(kind, colour).text for kind, colour in pairs]


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True, metavar="FOLDER")
    parser.add_argument("--out", type=Path, required=True, metavar="PNG")
    parser.add_argument("--prompt", action="append", help="may be repeated (default: every kind, the held-out pairs)")
    parser.add_argument("--azimuths", type=int, default=8)
    parser.add_argument("--guidance", type=float, default=1.0, help="1: none")
    parser.add_argument("--scale", type=int, default=2, help="enlarge the pictures")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args(arguments)
    pipeline = load_pipeline(given.model)
    prompts = given.prompt or default_prompts(pipeline)
    sheet = contact_sheet(pipeline, prompts, given.azimuths, given.guidance, given.seed)
    sheet.resize((sheet.width * given.scale, sheet.height * given.scale), Image.Resampling.NEAREST).save(given.out)
    print("\n".join(f"row {row}: {text}" for row, text in enumerate(prompts, 1)))


if __name__ == "__main__":
    main()
