"""Scores of a scene, computed from its images at held-out cameras."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from steindreamer.representations import Cameras, Representation, TriangleMesh
from steindreamer.world.scorer import WorldScorer
from steindreamer.world.truth import held_out_cameras, held_out_psnr

from ..devices import device_of
from ..errors import UserError

PSNR = "PSNR against the true object (dB)"


@runtime_checkable
class CaptionScorer(Protocol):
    """Protocol of models that score how well images match captions."""

    def score(self, images: Float[Tensor, "b 3 h w"], captions: Sequence[str]) -> Float[Tensor, "b c"]:
        """Score sRGB images in [0, 1] against captions; larger is better."""
        ...


@dataclass(frozen=True)
class Score:
    """A function that scores a scene."""

    name: str
    """Name with the unit, for tables and axes."""
    larger_is_better: bool
    of: Callable[[Representation], float]


def psnr_score(truth: TriangleMesh, views: int, size: int) -> Score:
    """PSNR against the true object of the procedural world."""
    return Score(PSNR, True, lambda scene: held_out_psnr(scene, truth, views, size))


def world_score(prompt: str, views: int, size: int) -> Score:
    """Probability of the prompt among all captions of the world according to the world scorer, averaged over images.

    Raises:
        UserError: The weights of the scorer are missing.
    """
    try:
        scorer = WorldScorer.load()
    except (OSError, ValueError) as error:
        raise UserError(
            f"the world scorer cannot be loaded: {' '.join(str(error).split())}; choose --score psnr or --clip"
        ) from error

    def of(scene: Representation) -> float:
        images = take_images(scene, held_out_cameras(views, size))
        return float(caption_log_probabilities(scorer, prompt, images).exp().mean())

    return Score("probability of the prompt (world scorer)", True, of)


def caption_log_probabilities(
    scorer: WorldScorer, prompt: str, images: Float[Tensor, "b 3 h w"]
) -> Float[Tensor, " b"]:
    """Log-probability of the prompt among all captions of the world, for sRGB images in [0, 1]."""
    captions = [prompt, *scorer.known]
    logits = torch.cat([scorer.score(image[None], captions) for image in images]).double()
    return logits[:, 0] - logits[:, 1:].logsumexp(1)


def clip_score(model: str, prompt: str, views: int, size: int) -> Score:
    """CLIP distance 1 - cosine, averaged over images (SteinDreamer, Tab. 1 and Fig. 7). Raises UserError."""
    return caption_distance(TransformersClip(model), "CLIP distance", prompt, views, size)


def caption_distance(scorer: CaptionScorer, name: str, prompt: str, views: int, size: int) -> Score:
    """Distance 1 - score of the prompt, averaged over images, for scorers that return cosines."""

    def of(scene: Representation) -> float:
        images = take_images(scene, held_out_cameras(views, size))
        return 1 - float(scorer.score(images, [prompt]).mean())

    return Score(name, False, of)


@torch.no_grad()
def take_images(scene: Representation, cameras: Cameras) -> Float[Tensor, "b 3 h w"]:
    """Render the scene on white; returns the images on the CPU."""
    device = device_of(scene)
    white = torch.ones(1, 3, device=device)
    images = [scene.render(cameras[i].to(device), white).rgb.cpu() for i in range(len(cameras))]
    return torch.cat(images).clamp(0, 1)


class TransformersClip:
    """CLIP model of the transformers library (safetensors only) that returns cosines of images and captions."""

    def __init__(self, model: str) -> None:
        """Load a model from a folder or a hub id. Raises UserError if that fails."""
        try:
            import transformers

            self.model: Any = transformers.CLIPModel.from_pretrained(model, use_safetensors=True).eval()
            self.tokenizer: Any = transformers.AutoTokenizer.from_pretrained(model)
            processor: Any = transformers.CLIPImageProcessor.from_pretrained(model)
        except (OSError, ValueError, ImportError) as error:
            reason = " ".join(str(error).split())
            raise UserError(
                f"cannot load a CLIP model from '{model}': {reason}; give the folder or hub id of a CLIP model"
            ) from error
        self.mean, self.deviation = (
            torch.tensor(values)[:, None, None] for values in (processor.image_mean, processor.image_std)
        )

    @torch.no_grad()
    def score(self, images: Float[Tensor, "b 3 h w"], captions: Sequence[str]) -> Float[Tensor, "b c"]:
        """Return cosines, -1 to 1."""
        size = self.model.config.vision_config.image_size
        pixels = F.interpolate(images, (size, size), mode="bicubic", antialias=True).clamp(0, 1)
        words = self.tokenizer(list(captions), padding=True, truncation=True, return_tensors="pt")
        answer = self.model(
            input_ids=words["input_ids"],
            attention_mask=words["attention_mask"],
            pixel_values=(pixels - self.mean) / self.deviation,
        )
        return F.normalize(answer.image_embeds, dim=1) @ F.normalize(answer.text_embeds, dim=1).T
