"""How good a scene is: a number from its pictures at cameras that training has not seen."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from ...representations import Cameras, Representation, TriangleMesh
from ...training.scorer.model import WorldScorer
from ...training.world.truth import held_out_cameras, held_out_psnr
from ..devices import device_of
from ..errors import UserError

PSNR = "PSNR against the true object (dB)"


@runtime_checkable
class CaptionScorer(Protocol):
    """Tells how well pictures show what captions say."""

    def score(self, pictures: Float[Tensor, "b 3 h w"], captions: Sequence[str]) -> Float[Tensor, "b c"]:
        """`pictures` are sRGB in [0, 1]; larger is better."""
        ...


@dataclass(frozen=True)
class Score:
    """A number per scene."""

    name: str
    """With its unit, for tables and axes."""
    larger_is_better: bool
    of: Callable[[Representation], float]


def psnr_score(truth: TriangleMesh, views: int, size: int) -> Score:
    """Likeness to the true object, which the procedural world knows."""
    return Score(PSNR, True, lambda scene: held_out_psnr(scene, truth, views, size))


def world_score(prompt: str, views: int, size: int) -> Score:
    """Probability that the world's scorer gives to the prompt among all captions of the world, mean over pictures.

    Raises UserError if its weights are missing.
    """
    try:
        scorer = WorldScorer.load()
    except (OSError, ValueError) as error:
        raise UserError(f"no world scorer: {' '.join(str(error).split())}; choose --score psnr or --clip") from error
    captions = [prompt, *scorer.known]
    name = "probability of the prompt (world scorer)"

    def of(scene: Representation) -> float:
        pictures = take_pictures(scene, held_out_cameras(views, size))
        logits = torch.cat([scorer.score(picture[None], captions) for picture in pictures]).double()
        return float((logits[:, 0] - logits[:, 1:].logsumexp(1)).exp().mean())

    return Score(name, True, of)


def clip_score(model: str, prompt: str, views: int, size: int) -> Score:
    """SteinDreamer's measure (Tab. 1 and Fig. 7): CLIP distance, 1 - cosine, mean over pictures. Raises UserError."""
    return caption_distance(TransformersClip(model), "CLIP distance", prompt, views, size)


def caption_distance(scorer: CaptionScorer, name: str, prompt: str, views: int, size: int) -> Score:
    """1 - score of the prompt, mean over pictures: for scorers that answer with cosines."""

    def of(scene: Representation) -> float:
        pictures = take_pictures(scene, held_out_cameras(views, size))
        return 1 - float(scorer.score(pictures, [prompt]).mean())

    return Score(name, False, of)


@torch.no_grad()
def take_pictures(scene: Representation, cameras: Cameras) -> Float[Tensor, "b 3 h w"]:
    """Of the scene on white, on the CPU."""
    device = device_of(scene)
    white = torch.ones(1, 3, device=device)
    pictures = [scene.render(cameras[i].to(device), white).rgb.cpu() for i in range(len(cameras))]
    return torch.cat(pictures).clamp(0, 1)


class TransformersClip:
    """A CLIP model of the transformers library (safetensors only); cosines of pictures and captions."""

    def __init__(self, model: str) -> None:
        """`model`: folder or hub id. Raises UserError if it cannot be loaded."""
        try:
            import transformers

            self.model: Any = transformers.CLIPModel.from_pretrained(model, use_safetensors=True).eval()
            self.tokenizer: Any = transformers.AutoTokenizer.from_pretrained(model)
            processor: Any = transformers.CLIPImageProcessor.from_pretrained(model)
        except (OSError, ValueError, ImportError) as error:
            reason = " ".join(str(error).split())
            raise UserError(f"no CLIP from '{model}': {reason}; give a folder or a hub id of a CLIP model") from error
        self.mean, self.deviation = (
            torch.tensor(values)[:, None, None] for values in (processor.image_mean, processor.image_std)
        )

    @torch.no_grad()
    def score(self, pictures: Float[Tensor, "b 3 h w"], captions: Sequence[str]) -> Float[Tensor, "b c"]:
        """Cosines, -1 to 1."""
        size = self.model.config.vision_config.image_size
        pixels = F.interpolate(pictures, (size, size), mode="bicubic", antialias=True).clamp(0, 1)
        words = self.tokenizer(list(captions), padding=True, truncation=True, return_tensors="pt")
        answer = self.model(
            input_ids=words["input_ids"],
            attention_mask=words["attention_mask"],
            pixel_values=(pixels - self.mean) / self.deviation,
        )
        return F.normalize(answer.image_embeds, dim=1) @ F.normalize(answer.text_embeds, dim=1).T
