"""Views of the procedural world with their captions: rendered once into a memory-mapped file, drawn as batches."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor

from ...distill.camera_features import camera_features
from ...representations import Cameras
from ..workers import run_in_processes, torch_threads_kept
from ..world import KINDS, Caption, caption_of, sample_object
from ..world.views import render_all, shade
from .wording import reworded

SIZE = 32
"""Pixels per side."""
_SUPERSAMPLE = 3
_CHUNK = 32
_FILE = "foreground.npy"

DEFAULT_KINDS = (
    "tulip", "mug", "duck", "car", "mushroom", "chair", "cactus", "house", "snowman", "teddy bear", "rocket", "apple",
    "robot", "sailboat", "tree", "cupcake",
)  # fmt: skip
DEFAULT_HELD_OUT = (
    ("mug", "green"), ("duck", "blue"), ("duck", "pink"), ("car", "purple"), ("chair", "red"), ("house", "green"),
    ("teddy bear", "blue"), ("rocket", "orange"), ("robot", "pink"), ("sailboat", "purple"),
)  # fmt: skip


@dataclass(frozen=True)
class ViewSettings:
    """Which views: the same settings give the same views, whatever the number of processes.

    A set holds some objects of one caption, all of them seen by the same cameras. Raises ValueError for unknown kinds,
    for held-out pairs that the kinds do not come in, and if nothing is left.
    """

    kinds: tuple[str, ...] = DEFAULT_KINDS
    held_out: tuple[tuple[str, str], ...] = DEFAULT_HELD_OUT
    """(kind, colour) pairs that are never drawn."""
    sets_per_caption: int = 16
    objects_per_set: int = 8
    cameras_per_set: int = 10
    seed: int = 0
    elevation: tuple[float, float] = (-15.0, 45.0)
    """Degrees."""
    overhead: tuple[float, float] = (45.0, 85.0)
    overhead_fraction: float = 0.2
    """Share of the cameras whose elevation is drawn from `overhead`."""
    distance: tuple[float, float] = (3.0, 3.4)
    """Metres."""
    field_of_view: float = 40.0

    def __post_init__(self) -> None:
        unknown = [kind for kind in self.kinds if kind not in KINDS]
        if unknown:
            raise ValueError(f"unknown kinds {', '.join(unknown)}; known: {', '.join(sorted(KINDS))}")
        absent = [pair for pair in self.held_out if pair[0] not in self.kinds or pair[1] not in KINDS[pair[0]].colours]
        if absent:
            raise ValueError(f"held out are {absent}, which the kinds {', '.join(self.kinds)} do not come in")
        if not self.captions:
            raise ValueError("no caption is left to train on: name kinds, and hold out fewer of their colours")

    @cached_property
    def captions(self) -> tuple[Caption, ...]:
        """Every kind in every colour, without the pairs held out."""
        pairs = ((kind, colour) for kind in self.kinds for colour in KINDS[kind].colours)
        return tuple(caption_of(*pair) for pair in pairs if pair not in self.held_out)

    @property
    def sets(self) -> int:
        return self.sets_per_caption * len(self.captions)

    def caption_of_set(self, index: int) -> Caption:
        return self.captions[index % len(self.captions)]

    def cameras_of_set(self, index: int) -> Cameras:
        return _cameras(self, np.random.default_rng([self.seed, index, 0]))


@dataclass(frozen=True)
class Batch:
    """Pictures in [-1, 1] over one background colour each, with what is said of them."""

    pictures: Float[Tensor, "b k 3 h w"]
    """Of k objects of the caption from the camera; the first one is to be learned."""
    texts: tuple[str, ...]
    """Empty where the prompt is dropped."""
    cameras: Cameras
    background: Float[Tensor, "b 3"]
    """sRGB."""

    @property
    def features(self) -> Float[Tensor, "b features"]:
        return camera_features(self.cameras, self.background)


class ViewCache:
    """Views grouped by caption and camera, 4 bytes per pixel."""

    def __init__(self, settings: ViewSettings, foreground: np.ndarray) -> None:
        """`foreground` is (groups, objects, 4, SIZE, SIZE), uint8, and may be memory-mapped."""
        self.settings, self.foreground = settings, foreground
        views = [settings.cameras_of_set(index) for index in range(settings.sets)]
        self.cameras = Cameras(
            torch.cat([cameras.camera_to_world for cameras in views]),
            torch.cat([cameras.intrinsics for cameras in views]),
            SIZE,
            SIZE,
        )

    def __len__(self) -> int:
        """The number of groups: pairs of a set and one of its cameras."""
        return len(self.foreground)

    def caption(self, group: int) -> Caption:
        return self.settings.caption_of_set(group // self.settings.cameras_per_set)

    def views(self, groups: Int64[Tensor, " b"]) -> Float[Tensor, "b k 4 h w"]:
        """The objects of each group from its camera: sRGB pre-multiplied by opacity, then opacity."""
        return torch.from_numpy(self.foreground[groups.numpy()]).float() / 255

    @classmethod
    def render(cls, settings: ViewSettings) -> ViewCache:
        """In memory."""
        sets = [_bytes(render_set(settings, index)) for index in range(settings.sets)]
        return cls(settings, np.concatenate(sets))

    @classmethod
    def open_or_render(cls, folder: Path, settings: ViewSettings, processes: int = 1) -> ViewCache:
        """The views in the folder, memory-mapped, rendered first by worker processes if they are not there.

        Raises ValueError if the folder holds views of other settings.
        """
        described = folder / "settings.json"
        if not described.exists():
            folder.mkdir(parents=True, exist_ok=True)
            shape = (settings.sets * settings.cameras_per_set, settings.objects_per_set, 4, SIZE, SIZE)
            np.lib.format.open_memmap(folder / _FILE, "w+", np.uint8, shape).flush()
            jobs = [(folder, settings, first) for first in range(0, settings.sets, _CHUNK)]
            run_in_processes(_render_chunk, jobs, processes, "rendered")
            # Written last: without it the views do not exist.
            described.write_text(json.dumps(asdict(settings), indent=1))
        stored, wanted = json.loads(described.read_text()), json.loads(json.dumps(asdict(settings)))
        if stored != wanted:
            raise ValueError(f"{folder} holds views of {stored}, not of {wanted}: choose another folder")
        return cls(settings, np.load(folder / _FILE, mmap_mode="r"))


@torch_threads_kept()
def render_set(settings: ViewSettings, index: int) -> Float[Tensor, "v k 4 h w"]:
    """The objects of a set from its cameras: sRGB pre-multiplied by opacity, then opacity."""
    rng = np.random.default_rng([settings.seed, index, 1])
    caption, cameras = settings.caption_of_set(index), settings.cameras_of_set(index)
    objects = [shade(sample_object(caption, rng)) for _ in range(settings.objects_per_set)]
    black, white = (
        render_all(objects, cameras, torch.full((len(cameras), 3), value), supersample=_SUPERSAMPLE)
        for value in (0.0, 1.0)
    )
    opacity = 1 - (white - black).mean(2, keepdim=True)
    return torch.cat([black, opacity], 2).clamp(0, 1)


def draw_batch(
    cache: ViewCache, size: int, seed: Sequence[int], *, white: float = 0.5, dropped: float = 0.1, varied: bool = True
) -> Batch:
    """`size` random views over random backgrounds; the same seed gives the same batch.

    A share `white` of the backgrounds is white, 0.15 grey, the others of any colour. A share `dropped` of the texts is
    empty; the others are canonical unless `varied`.
    """
    rng = np.random.default_rng(list(seed))
    groups = torch.from_numpy(rng.integers(len(cache), size=size))
    texts = []
    for group in groups.tolist():
        caption = cache.caption(group)
        text = reworded(caption, rng) if varied else caption.text
        texts.append("" if rng.random() < dropped else text)
    background = torch.from_numpy(_backgrounds(size, white, rng))
    views = cache.views(groups)
    first = torch.from_numpy(rng.integers(views.shape[1], size=size))
    order = (first[:, None] + torch.arange(views.shape[1])) % views.shape[1]
    views = views[torch.arange(size)[:, None], order]
    pictures = views[:, :, :3] + (1 - views[:, :, 3:]) * background[:, None, :, None, None]
    return Batch(2 * pictures - 1, tuple(texts), cache.cameras[groups], background)


def _backgrounds(count: int, white: float, rng: np.random.Generator) -> np.ndarray:
    colours = rng.random((count, 3))
    chosen = rng.random(count)
    grey = chosen < white + 0.15
    colours[grey] = colours[grey, :1]
    colours[chosen < white] = 1.0
    return colours.astype(np.float32)


def _cameras(settings: ViewSettings, rng: np.random.Generator) -> Cameras:
    """Azimuths stratified over the circle."""
    count = settings.cameras_per_set
    azimuth = (rng.random() + np.arange(count) / count) * 360
    elevation = rng.uniform(*settings.elevation, count)
    overhead = rng.random(count) < settings.overhead_fraction
    elevation[overhead] = rng.uniform(*settings.overhead, int(overhead.sum()))
    return Cameras.orbit(
        _tensor(azimuth),
        _tensor(elevation),
        distance=_tensor(rng.uniform(*settings.distance, count)),
        field_of_view=settings.field_of_view,
        height=SIZE,
    )


def _render_chunk(folder: Path, settings: ViewSettings, first: int) -> None:
    array = np.load(folder / _FILE, mmap_mode="r+")
    count = settings.cameras_per_set
    for index in range(first, min(first + _CHUNK, settings.sets)):
        array[index * count : (index + 1) * count] = _bytes(render_set(settings, index))


def _bytes(views: Float[Tensor, "v k 4 h w"]) -> np.ndarray:
    return (views * 255).round().to(torch.uint8).numpy()


def _tensor(array: np.ndarray) -> Tensor:
    return torch.from_numpy(array.astype(np.float32))
