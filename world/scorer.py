"""Image-caption scorer of the world: images and captions in one embedding space, as in CLIP (Radford et al. 2021).

Unlike in CLIP, captions are parsed by the world: a caption is a kind and a color, whatever its wording.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor, nn

from steindreamer import assets
from steindreamer.distill.files.digests import check_contents
from steindreamer.distill.files.json_files import parse_json_object, read_file, settings_from_json
from steindreamer.distill.files.weights import fill, in_half_precision

from . import COLORS, KINDS, Caption, Wording, caption_of

SIZE = 64
"""Input size of the network, in pixels per side; other images are resized."""
FOLDER = "world_scorer"
"""Name of the folder of the shipped weights in assets/."""
_CONFIG, _WEIGHTS = "config.json", "model.safetensors"


@dataclass(frozen=True)
class ScorerConfig:
    """Shape of the scorer. Raises ValueError for kinds or colors that the world does not have."""

    channels: tuple[int, ...] = (24, 48, 96, 160)
    """Channels of the levels, from SIZE / 2 pixels downward."""
    blocks: tuple[int, ...] = (0, 1, 1, 1)
    """Residual blocks per level."""
    width: int = 96
    """Width of the embedding space."""
    kinds: tuple[str, ...] = field(default_factory=lambda: tuple(KINDS))
    colors: tuple[str, ...] = field(default_factory=lambda: tuple(COLORS))
    """Color names of the rows of the color embedding."""

    def __post_init__(self) -> None:
        unknown = [name for name in self.kinds if name not in KINDS] + [c for c in self.colors if c not in COLORS]
        if unknown:
            raise ValueError(f"the world has no {', '.join(unknown)}: train the scorer again")
        if not self.channels or len(self.channels) != len(self.blocks):
            raise ValueError(f"need one number of blocks per level, got {self.blocks} for {self.channels}")


@dataclass(frozen=True)
class Accuracy:
    """Accuracy as fractions of the images, 0 to 1."""

    kind: float
    """Fraction of images whose most likely kind, summed over its colors, is correct."""
    color: float
    """Fraction of images whose most likely color, among the captions of the correct kind, is correct."""
    caption: float
    """Fraction of images whose most likely caption is correct."""


class WorldScorer(nn.Module):
    """Convolutional network for images, and embeddings of kinds and colors for captions. Randomly initialized."""

    def __init__(self, config: ScorerConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or ScorerConfig()
        levels: list[nn.Module] = []
        before = 3
        for channels, count in zip(config.channels, config.blocks, strict=True):
            levels += [nn.Conv2d(before, channels, 4, stride=2, padding=1, bias=False), nn.BatchNorm2d(channels)]
            levels += [nn.ReLU(), *(_Block(channels) for _ in range(count))]
            before = channels
        self.images = nn.Sequential(*levels, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(before, config.width))
        self.kinds = nn.Embedding(len(config.kinds), config.width)
        self.colors = nn.Embedding(len(config.colors), config.width)
        self.captions = nn.Sequential(
            nn.Linear(config.width, 2 * config.width), nn.ReLU(), nn.Linear(2 * config.width, config.width)
        )
        self.log_scale = nn.Parameter(torch.tensor(2.5))

    @classmethod
    def load(cls, folder: Traversable | None = None) -> WorldScorer:
        """Load the shipped scorer, or one saved in a folder; float32, frozen, in evaluation mode.

        Raises:
            OSError: A file is missing.
            ValueError: A file is damaged or belongs to another world.
        """
        folder = folder or resources.files(assets).joinpath(FOLDER)
        contents = {name: read_file(folder.joinpath(name)) for name in (_CONFIG, _WEIGHTS)}
        check_contents(folder, contents)
        given = parse_json_object(contents[_CONFIG], f"{folder}/{_CONFIG}")
        try:
            scorer = cls(settings_from_json(ScorerConfig, given))
        except ValueError as error:
            raise ValueError(f"{folder} does not contain a scorer: {error}") from error
        fill(scorer, contents[_WEIGHTS], Path(str(folder)) / _WEIGHTS, "scorer")
        return scorer.requires_grad_(False).eval()

    @cached_property
    def known(self) -> tuple[Caption, ...]:
        """All captions that the scorer knows: every kind in every color that it comes in."""
        pairs = ((kind, color) for kind in self.config.kinds for color in KINDS[kind].colors)
        return tuple(caption_of(*pair) for pair in pairs if pair[1] in self.config.colors)

    def embed_images(self, images: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b e"]:
        """Embed sRGB images in [0, 1]; returns unit vectors."""
        if images.shape[-2:] != (SIZE, SIZE):
            images = F.interpolate(images, (SIZE, SIZE), mode="bilinear", antialias=True)
        return F.normalize(self.images(4 * images - 2).float(), dim=1)

    def embed_captions(self, captions: Sequence[Caption | str]) -> Float[Tensor, "c e"]:
        """Embed captions; returns unit vectors.

        Raises UnknownPromptError, a ValueError, for a text without a known object.
        """
        parsed = [_read(caption) for caption in captions]
        foreign = [caption.text for caption in parsed if caption.kind not in self.config.kinds]
        if foreign:
            raise ValueError(f"the scorer knows nothing of {', '.join(foreign)}; known: {', '.join(self.config.kinds)}")
        kinds = self._rows(self.config.kinds, [caption.kind for caption in parsed])
        colors = self._rows(self.config.colors, [caption.color for caption in parsed])
        summed = self.kinds(kinds) + self.colors(colors)
        return F.normalize((summed + self.captions(summed)).float(), dim=1)

    def score(self, images: Float[Tensor, "b 3 h w"], captions: Sequence[Caption | str]) -> Float[Tensor, "b c"]:
        """Return the logits of every caption for every image. Softmax over `known` gives probabilities. Differentiable.

        Args:
            images: sRGB in [0, 1], of any size.
            captions: Captions of the world, or texts that are read as prompts.

        Raises:
            ValueError: A text names no known object.
        """
        return self.log_scale.exp() * self.embed_images(images) @ self.embed_captions(captions).T

    @torch.no_grad()
    def accuracy(
        self,
        images: Float[Tensor, "b 3 h w"],
        captions: Sequence[Caption | str],
        *,
        kinds: Sequence[str] | None = None,
        batch: int = 256,
    ) -> Accuracy:
        """Compute how often images are assigned to their captions.

        Args:
            images: sRGB in [0, 1].
            captions: True caption of each image.
            kinds: Kinds to choose among; None means all.
            batch: Images per forward pass.

        Raises:
            ValueError: There is not exactly one caption of one of the kinds per image.
        """
        truth = [_read(caption) for caption in captions]
        known = [caption for caption in self.known if kinds is None or caption.kind in kinds]
        index = {(caption.kind, caption.color): i for i, caption in enumerate(known)}
        absent = [caption.text for caption in truth if (caption.kind, caption.color) not in index]
        if len(truth) != len(images) or not truth or absent:
            what = f"not among the known captions: {', '.join(absent)}" if absent else f"{len(truth)} captions"
            raise ValueError(f"need one known caption for each of {len(images)} images; {what}")
        names = tuple(dict.fromkeys(caption.kind for caption in known))
        logits = torch.cat([self.score(part, known) for part in images.split(batch)])
        own = self._rows(names, [caption.kind for caption in truth])
        right = torch.tensor([index[caption.kind, caption.color] for caption in truth], device=logits.device)
        group = kind_indices(known).to(logits.device)
        of_own_kind = logits.masked_fill(group[None] != own[:, None], -torch.inf)
        return Accuracy(
            kind=_share(kind_logits(logits, known).argmax(1) == own),
            color=_share(of_own_kind.argmax(1) == right),
            caption=_share(logits.argmax(1) == right),
        )

    def _rows(self, names: Sequence[str], wanted: Sequence[str]) -> Int64[Tensor, " n"]:
        return torch.tensor([names.index(name) for name in wanted], device=self.log_scale.device)


def kind_indices(captions: Sequence[Caption]) -> Int64[Tensor, " c"]:
    """Return the index of each caption's kind, in the order in which the kinds first occur."""
    index = {kind: i for i, kind in enumerate(dict.fromkeys(caption.kind for caption in captions))}
    return torch.tensor([index[caption.kind] for caption in captions])


def kind_logits(logits: Float[Tensor, "b c"], captions: Sequence[Caption]) -> Float[Tensor, "b k"]:
    """Sum the probabilities of each kind over its colors; returns logits in the order of `kind_indices`.

    The kind of an image without color, such as a clay render, is the largest of them. Differentiable.

    Args:
        logits: Logits of `WorldScorer.score`.
        captions: Captions of the logits; those of one kind are adjacent, as in `WorldScorer.known`.
    """
    counts = kind_indices(captions).unique_consecutive(return_counts=True)[1].tolist()
    return torch.stack([colors.logsumexp(1) for colors in logits.split(counts, 1)], 1)


def save_scorer(folder: Path, config: ScorerConfig, state: Mapping[str, Tensor]) -> None:
    """Write `config.json` and the weights in half precision."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / _CONFIG).write_text(json.dumps(asdict(config), indent=1) + "\n")
    (folder / _WEIGHTS).write_bytes(in_half_precision(state))


class _Block(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(channels, channels, 3, padding=1, bias=False),
            nn.BatchNorm2d(channels),
            nn.ReLU(),
            nn.Conv2d(channels, channels, 3, padding=1, bias=False),
            nn.BatchNorm2d(channels),
        )

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        return F.relu(x + self.layers(x))


def _read(caption: Caption | str) -> Caption:
    return Wording().read(caption).caption if isinstance(caption, str) else caption


def _share(hits: Tensor) -> float:
    return hits.float().mean().item()
