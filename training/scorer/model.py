"""Which caption of the world a picture shows: picture and caption in one space, as in CLIP (Radford et al. 2021).

Unlike CLIP's, captions are read by the world's own parser: a caption is a kind and a colour, whatever its wording.
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
from safetensors.torch import save
from torch import Tensor, nn

from ... import assets
from ...distill.digests import check_contents
from ...distill.json_files import parse_json_object, read_file, settings_from_json
from ...distill.weight_files import fill
from ..world import COLOURS, KINDS, Caption, caption_of, parse_caption

SIZE = 64
"""Pixels per side that the network looks at; other pictures are resized."""
FOLDER = "world_scorer"
"""Of the shipped weights, in assets/."""
_CONFIG, _WEIGHTS = "config.json", "model.safetensors"


@dataclass(frozen=True)
class ScorerConfig:
    """Raises ValueError for kinds or colours that the world does not have."""

    channels: tuple[int, ...] = (24, 48, 96, 160)
    """Of the levels, from SIZE / 2 pixels downwards."""
    blocks: tuple[int, ...] = (0, 1, 1, 1)
    """Residual blocks per level."""
    width: int = 96
    """Of the common space."""
    kinds: tuple[str, ...] = field(default_factory=lambda: tuple(KINDS))
    colours: tuple[str, ...] = field(default_factory=lambda: tuple(COLOURS))
    """What the rows of the embeddings mean."""

    def __post_init__(self) -> None:
        unknown = [name for name in self.kinds if name not in KINDS] + [c for c in self.colours if c not in COLOURS]
        if unknown:
            raise ValueError(f"the world has no {', '.join(unknown)}: train the scorer again")
        if not self.channels or len(self.channels) != len(self.blocks):
            raise ValueError(f"need one number of blocks per level, got {self.blocks} for {self.channels}")


@dataclass(frozen=True)
class Accuracy:
    """Shares of pictures, 0 to 1."""

    kind: float
    """The most likely kind, summed over its colours, is right."""
    colour: float
    """Among the captions of the right kind, the most likely one has the right colour."""
    caption: float
    """The most likely of all captions is right."""


class WorldScorer(nn.Module):
    """A convolutional network for pictures, tables of kinds and of colours for captions. Random until loaded."""

    def __init__(self, config: ScorerConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or ScorerConfig()
        levels: list[nn.Module] = []
        before = 3
        for channels, count in zip(config.channels, config.blocks, strict=True):
            levels += [nn.Conv2d(before, channels, 4, stride=2, padding=1, bias=False), nn.BatchNorm2d(channels)]
            levels += [nn.ReLU(), *(_Block(channels) for _ in range(count))]
            before = channels
        self.pictures = nn.Sequential(*levels, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(before, config.width))
        self.kinds = nn.Embedding(len(config.kinds), config.width)
        self.colours = nn.Embedding(len(config.colours), config.width)
        self.captions = nn.Sequential(
            nn.Linear(config.width, 2 * config.width), nn.ReLU(), nn.Linear(2 * config.width, config.width)
        )
        self.log_scale = nn.Parameter(torch.tensor(2.5))

    @classmethod
    def load(cls, folder: Traversable | None = None) -> WorldScorer:
        """The shipped scorer, or the one saved in a folder; float32, frozen, in evaluation mode.

        Raises OSError if a file is missing, ValueError if one is damaged or of another world.
        """
        folder = folder or resources.files(assets).joinpath(FOLDER)
        contents = {name: read_file(folder.joinpath(name)) for name in (_CONFIG, _WEIGHTS)}
        check_contents(folder, contents)
        given = parse_json_object(contents[_CONFIG], f"{folder}/{_CONFIG}")
        try:
            scorer = cls(settings_from_json(ScorerConfig, given))
        except ValueError as error:
            raise ValueError(f"{folder} holds no scorer: {error}") from error
        fill(scorer, contents[_WEIGHTS], Path(str(folder)) / _WEIGHTS, "scorer")
        return scorer.requires_grad_(False).eval()

    @cached_property
    def known(self) -> tuple[Caption, ...]:
        """Every kind in every colour it comes in."""
        pairs = ((kind, colour) for kind in self.config.kinds for colour in KINDS[kind].colours)
        return tuple(caption_of(*pair) for pair in pairs if pair[1] in self.config.colours)

    def embed_pictures(self, pictures: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b e"]:
        """Unit vectors; sRGB in [0, 1]."""
        if pictures.shape[-2:] != (SIZE, SIZE):
            pictures = F.interpolate(pictures, (SIZE, SIZE), mode="bilinear", antialias=True)
        return F.normalize(self.pictures(4 * pictures - 2).float(), dim=1)

    def embed_captions(self, captions: Sequence[Caption | str]) -> Float[Tensor, "c e"]:
        """Unit vectors. Raises UnknownPromptError, a ValueError, for what the world cannot parse."""
        parsed = [parse_caption(caption) if isinstance(caption, str) else caption for caption in captions]
        foreign = [caption.text for caption in parsed if caption.kind not in self.config.kinds]
        if foreign:
            raise ValueError(f"the scorer knows nothing of {', '.join(foreign)}; known: {', '.join(self.config.kinds)}")
        kinds = self._rows(self.config.kinds, [caption.kind for caption in parsed])
        colours = self._rows(self.config.colours, [caption.colour for caption in parsed])
        summed = self.kinds(kinds) + self.colours(colours)
        return F.normalize((summed + self.captions(summed)).float(), dim=1)

    def score(self, pictures: Float[Tensor, "b 3 h w"], captions: Sequence[Caption | str]) -> Float[Tensor, "b c"]:
        """Logits of every caption for every picture: softmax over `known` gives probabilities. Differentiable.

        `pictures` are sRGB in [0, 1] of any size. Raises ValueError for captions that cannot be understood.
        """
        return self.log_scale.exp() * self.embed_pictures(pictures) @ self.embed_captions(captions).T

    @torch.no_grad()
    def accuracy(
        self,
        pictures: Float[Tensor, "b 3 h w"],
        captions: Sequence[Caption | str],
        *,
        kinds: Sequence[str] | None = None,
        batch: int = 256,
    ) -> Accuracy:
        """How often pictures are taken for what `captions`, one each, say; `kinds`: choose among these (default: all).

        Raises ValueError unless there is one caption per picture, each of one of the kinds.
        """
        truth = [parse_caption(caption) if isinstance(caption, str) else caption for caption in captions]
        known = [caption for caption in self.known if kinds is None or caption.kind in kinds]
        index = {(caption.kind, caption.colour): i for i, caption in enumerate(known)}
        absent = [caption.text for caption in truth if (caption.kind, caption.colour) not in index]
        if len(truth) != len(pictures) or not truth or absent:
            what = f"not to choose from: {', '.join(absent)}" if absent else f"{len(truth)} captions"
            raise ValueError(f"need one known caption for each of {len(pictures)} pictures; {what}")
        names = tuple(dict.fromkeys(caption.kind for caption in known))
        logits = torch.cat([self.score(part, known) for part in pictures.split(batch)])
        own = self._rows(names, [caption.kind for caption in truth])
        group = self._rows(names, [caption.kind for caption in known])
        right = torch.tensor([index[caption.kind, caption.colour] for caption in truth], device=logits.device)
        likelihood = torch.zeros(len(logits), len(names), device=logits.device)
        likelihood.index_add_(1, group, logits.softmax(1))
        of_own_kind = logits.masked_fill(group[None] != own[:, None], -torch.inf)
        return Accuracy(
            kind=_share(likelihood.argmax(1) == own),
            colour=_share(of_own_kind.argmax(1) == right),
            caption=_share(logits.argmax(1) == right),
        )

    def _rows(self, names: Sequence[str], wanted: Sequence[str]) -> Int64[Tensor, " n"]:
        return torch.tensor([names.index(name) for name in wanted], device=self.log_scale.device)


def save_scorer(folder: Path, config: ScorerConfig, state: Mapping[str, Tensor]) -> None:
    """Write `config.json` and the weights in half precision; running statistics, whose range is the data's, stay."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / _CONFIG).write_text(json.dumps(asdict(config), indent=1) + "\n")
    weights = {name: value if "running_" in name else _cast(value, torch.float16) for name, value in state.items()}
    (folder / _WEIGHTS).write_bytes(save({name: value.contiguous().cpu() for name, value in weights.items()}))


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


def _share(hits: Tensor) -> float:
    return hits.float().mean().item()


def _cast(value: Tensor, dtype: torch.dtype) -> Tensor:
    return value.to(dtype) if value.is_floating_point() else value
