"""Estimated memory of a step with text-to-image models of full size; neither weights nor a GPU are needed.

    python benchmarks/memory.py [--pixels 512] [--precision bfloat16] [--out FILE]

The shapes of a step go through the product's own calls on the device "meta" (see
`distill/priors/diffusion/memory.py`, whose
figures are those of real steps on the CPU in tests/distill/priors/test_diffusion_memory.py). A step: views of
`--pixels` are
encoded with their gradient, the denoiser is asked with and without the prompt, and the gradient goes back. Not in it:
the scene and its drawing, geometry estimators and decoding for them, workspaces of convolutions, what the allocator
holds in pieces, CUDA's own. Writes benchmarks/results/memory.md.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import steindreamer.passive_waiting  # noqa: F401 isort:skip

import torch
from models.published import TEXT_TO_IMAGE, TextToImage
from models.weightless import embedding, weightless_prior

from steindreamer.distill.priors.diffusion import MemoryEstimate, estimate_memory

RESULT = Path(__file__).parent / "results" / "memory.md"
COLUMNS: dict[str, tuple[int, dict[str, Any]]] = {
    "1 view": (1, {}),
    "4 views": (4, {}),
    "1, checkpointing": (1, {"gradient_checkpointing": True}),
    "4, checkpointing": (4, {"gradient_checkpointing": True}),
    "4, micro_batch=1": (4, {"micro_batch": 1}),
    "4, both": (4, {"micro_batch": 1, "gradient_checkpointing": True}),
}
"""Views and settings of the prior."""
HEADING = f"""\
| model | denoiser | autoencoder | text encoders | {" | ".join(COLUMNS)} |
|{"---|" * (len(COLUMNS) + 4)}"""


def estimates(model: TextToImage, pixels: int, precision: str) -> list[MemoryEstimate]:
    """One per column."""
    found = []
    for views, settings in COLUMNS.values():
        with tempfile.TemporaryDirectory() as folder:
            prior = weightless_prior(model, Path(folder), precision=precision, image_size=pixels, **settings)
            found.append(
                estimate_memory(prior, embedding(model), views, prompts=("positive", "negative"), decodes=False)
            )
    return found


def row(name: str, found: Sequence[MemoryEstimate]) -> str:
    first = found[0]
    sizes = [*first.weights.values(), first.text_encoders, *(each.step for each in found)]
    return f"| {name} | {' | '.join(f'{size / 1e9:.2f}' for size in sizes)} |"


def document(arguments: argparse.Namespace, rows: Sequence[str]) -> str:
    return "\n".join(
        [
            "# Estimated memory of a step",
            "",
            f"`python benchmarks/memory.py --pixels {arguments.pixels} --precision {arguments.precision}`; torch "
            f"{torch.__version__}, diffusers {version('diffusers')}. GB of 10^9 bytes, estimated from shapes, not "
            "measured on a GPU.",
            "",
            f"Images of {arguments.pixels} px; denoiser and T5 in {arguments.precision}, CLIP and autoencoder in "
            "float32. First the weights; text encoders are gone before the first step. Then the most that is alive in "
            "a step by views and settings (`prior.gradient_checkpointing`, `prior.micro_batch`), weights of denoiser "
            "and autoencoder included. Not in it: the scene and its drawing, geometry estimators and decoding for "
            "them, workspaces of convolutions, what the allocator holds in pieces, CUDA's own.",
            "",
            HEADING,
            *rows,
            "",
        ]
    )


def main(given: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pixels", type=int, default=512)
    parser.add_argument("--precision", choices=["bfloat16", "float16", "float32"], default="bfloat16")
    parser.add_argument("--models", nargs="+", choices=list(TEXT_TO_IMAGE), default=list(TEXT_TO_IMAGE))
    parser.add_argument("--out", type=Path, default=RESULT)
    arguments = parser.parse_args(given)
    print(HEADING)
    rows: list[str] = []
    for name in arguments.models:
        rows.append(row(name, estimates(TEXT_TO_IMAGE[name], arguments.pixels, arguments.precision)))
        print(rows[-1], flush=True)
        arguments.out.write_text(document(arguments, rows))


if __name__ == "__main__":
    main()
