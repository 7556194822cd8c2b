"""Views of the procedural world with their captions, rendered into memory-mapped files and drawn as batches.

    python -m steindreamer.training.prior.dataset --views FOLDER --sets 8

This renders them before or during a training: `steindreamer.training.prior.train` uses the rounds that are complete,
and looks for new ones at every checkpoint.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor

from steindreamer.distill.priors.modalities import MODALITIES, OVER_BACKGROUND, encode, view_features
from steindreamer.representations import Cameras
from steindreamer.world import KINDS, Caption, caption_of, sample_object
from steindreamer.world.views import Light, Surfaces, random_light, render_surfaces

from ..workers import run_in_processes, torch_threads_kept
from .wording import reworded

_SUPERSAMPLE = 3
_CHUNK = 32
_CHANNELS = {"color": 3, "albedo": 3, "normal": 3, "depth": 1, "opacity": 1}
"""Numbers of channels of the stored layers, each rendered over black."""
"""Modalities that are composited over any background; the others are over black."""

DEFAULT_KINDS = (
    "tulip", "mug", "duck", "car", "mushroom", "chair", "cactus", "house", "snowman", "teddy bear", "rocket", "apple",
    "robot", "sailboat", "tree", "cupcake",
)  # fmt: skip
"""Kinds that the shipped weights are trained on."""
DEFAULT_HELD_OUT = (
    ("mug", "green"), ("duck", "blue"), ("duck", "pink"), ("car", "purple"), ("chair", "red"), ("house", "green"),
    ("teddy bear", "blue"), ("rocket", "orange"), ("robot", "pink"), ("sailboat", "purple"),
)  # fmt: skip


@dataclass(frozen=True)
class ViewSettings:
    """Settings of the views. The views depend on nothing else, such as the number of processes.

    A set holds several objects of one caption, all rendered with the same cameras. A round is one set of every caption.
    Raises ValueError for unknown kinds or modalities, for held-out pairs that do not exist, and if no caption is left.
    """

    kinds: tuple[str, ...] = tuple(KINDS)
    held_out: tuple[tuple[str, str], ...] = DEFAULT_HELD_OUT
    """Pairs (kind, color) that are never drawn."""
    sets_per_caption: int = 8
    """Number of rounds."""
    objects_per_set: int = 8
    cameras_per_set: int = 10
    seed: int = 0
    elevation: tuple[float, float] = (-15.0, 45.0)
    """Range of the elevation, in degrees."""
    overhead: tuple[float, float] = (45.0, 85.0)
    overhead_fraction: float = 0.2
    """Fraction of the cameras whose elevation is drawn from `overhead`."""
    distance: tuple[float, float] = (3.0, 3.4)
    """Range of the camera's distance from the origin, in meters."""
    field_of_view: float = 40.0
    size: int = 64
    """Size of the views, in pixels per side."""
    modalities: tuple[str, ...] = MODALITIES
    crop_fraction: float = 0.0
    """Fraction of the cameras that see a random part of the image, enlarged to all pixels."""
    crop_size: tuple[float, float] = (0.4, 0.7)
    """Range of the side of these parts, as a fraction of the image's side."""
    varied_light: bool = True
    """Light every object with its own `random_light`, which is often harsh, instead of the mild default light."""

    def __post_init__(self) -> None:
        unknown = [kind for kind in self.kinds if kind not in KINDS]
        if unknown:
            raise ValueError(f"unknown kinds {', '.join(unknown)}; known: {', '.join(sorted(KINDS))}")
        if not self.modalities or not set(self.modalities) <= set(MODALITIES):
            raise ValueError(f"modalities are {self.modalities}; some of {', '.join(MODALITIES)} are accepted")
        absent = [pair for pair in self.held_out if pair[0] not in self.kinds or pair[1] not in KINDS[pair[0]].colors]
        if absent:
            raise ValueError(f"held out are {absent}, which the kinds {', '.join(self.kinds)} do not come in")
        if not self.captions:
            raise ValueError("no caption is left to train on: name kinds, and hold out fewer of their colors")

    @cached_property
    def captions(self) -> tuple[Caption, ...]:
        """Captions of every kind in every color, without the held-out pairs."""
        pairs = ((kind, color) for kind in self.kinds for color in KINDS[kind].colors)
        return tuple(caption_of(*pair) for pair in pairs if pair not in self.held_out)

    @property
    def sets(self) -> int:
        """Total number of sets."""
        return self.sets_per_caption * len(self.captions)

    @property
    def groups_per_round(self) -> int:
        """Number of groups in a round; a group is a pair of a set and one of its cameras."""
        return len(self.captions) * self.cameras_per_set

    @property
    def layers(self) -> dict[str, tuple[int, ...]]:
        """Shapes of the stored layers of a round by name: (groups, objects, channels, height, width)."""
        over_background = any(name in OVER_BACKGROUND for name in self.modalities)
        names = [*self.modalities, *(["opacity"] if over_background else [])]
        counts = self.groups_per_round, self.objects_per_set
        return {name: (*counts, _CHANNELS[name], self.size, self.size) for name in names}

    def caption_of_set(self, index: int) -> Caption:
        """Return the caption of a set."""
        return self.captions[index % len(self.captions)]

    def cameras_of_set(self, index: int) -> Cameras:
        """Return the cameras of a set."""
        return _cameras(self, np.random.default_rng([self.seed, index, 0]))


@dataclass(frozen=True)
class Batch:
    """Images in [-1, 1] with the conditions of the network."""

    images: Float[Tensor, "b k 3 h w"]
    """Images of k objects of the caption from the same camera; the first one is the training target."""
    texts: tuple[str, ...]
    """Prompts; empty where the prompt is dropped."""
    cameras: Cameras
    background: Float[Tensor, "b 3"]
    """Background color in sRGB, [0, 1]."""
    modalities: tuple[str, ...]

    def features(self, names: Sequence[str]) -> Float[Tensor, "b features"]:
        """Return the features of the views; see `view_features`."""
        return view_features(names, self.cameras, self.background, self.modalities)


class ViewCache:
    """Views grouped by caption and camera, in rounds; 11 bytes per pixel with all modalities."""

    def __init__(self, settings: ViewSettings, rounds: Sequence[Mapping[str, np.ndarray]]) -> None:
        """Create a cache from rounds of uint8 arrays as described by `settings.layers`, which may be memory-mapped."""
        self.settings = settings
        self._rounds: list[Mapping[str, np.ndarray]] = []
        self._poses: list[Cameras] = []
        self._folder: Path | None = None
        for arrays in rounds:
            self._append(arrays)

    def __len__(self) -> int:
        """Return the number of groups; a group is a pair of a set and one of its cameras."""
        return len(self._rounds) * self.settings.groups_per_round

    def caption(self, group: int) -> Caption:
        """Return the caption of a group."""
        return self.settings.caption_of_set(group // self.settings.cameras_per_set)

    def cameras(self, groups: Int64[Tensor, " b"]) -> Cameras:
        """Return the camera of each group."""
        numbers = groups.tolist()
        chosen = [self._poses[group // self.settings.groups_per_round] for group in numbers]
        rows = [group % self.settings.groups_per_round for group in numbers]
        return Cameras(
            torch.stack([poses.camera_to_world[row] for poses, row in zip(chosen, rows, strict=True)]),
            torch.stack([poses.intrinsics[row] for poses, row in zip(chosen, rows, strict=True)]),
            self.settings.size,
            self.settings.size,
        )

    def layer(self, name: str, group: int) -> np.ndarray:
        """Return one layer of all objects of a group, uint8 (objects, channels, height, width).

        Args:
            name: `opacity`, or a modality, which is over black.
            group: Index of the group.
        """
        round_, row = divmod(group, self.settings.groups_per_round)
        return self._rounds[round_][name][row]

    @classmethod
    def render(cls, settings: ViewSettings) -> ViewCache:
        """Render all views in memory."""
        rounds = []
        for first in range(0, settings.sets, len(settings.captions)):
            sets = [_bytes(render_set(settings, first + i)) for i in range(len(settings.captions))]
            rounds.append({name: np.concatenate([views[name] for views in sets]) for name in settings.layers})
        return cls(settings, rounds)

    @classmethod
    def open(cls, folder: Path, settings: ViewSettings) -> ViewCache:
        """Open the complete rounds in the folder, memory-mapped.

        Raises:
            ValueError: The folder holds views with other settings, or none.
        """
        _check_folder(folder, settings)
        cache = cls(settings, [])
        cache._folder = folder
        cache.refresh()
        if not len(cache):
            raise ValueError(f"{folder} holds no views: render some (steindreamer.training.prior.dataset)")
        return cache

    @classmethod
    def open_or_render(cls, folder: Path, settings: ViewSettings, processes: int = 1) -> ViewCache:
        """Open the views in the folder, memory-mapped; missing rounds are rendered first with worker processes.

        Raises:
            ValueError: The folder holds views with other settings.
        """
        render_rounds(folder, settings, processes)
        return cls.open(folder, settings)

    def refresh(self) -> None:
        """Add the rounds that have been rendered in the meantime."""
        while self._folder and len(self._rounds) < self.settings.sets_per_caption:
            stored = _round_folder(self._folder, len(self._rounds))
            if not stored.exists():
                return
            self._append({name: np.load(stored / f"{name}.npy", mmap_mode="r") for name in self.settings.layers})

    def _append(self, arrays: Mapping[str, np.ndarray]) -> None:
        first = len(self._rounds) * len(self.settings.captions)
        views = [self.settings.cameras_of_set(first + i) for i in range(len(self.settings.captions))]
        self._rounds.append(arrays)
        self._poses.append(
            Cameras(
                torch.cat([cameras.camera_to_world for cameras in views]),
                torch.cat([cameras.intrinsics for cameras in views]),
                self.settings.size,
                self.settings.size,
            )
        )


def render_rounds(folder: Path, settings: ViewSettings, processes: int = 1) -> None:
    """Render the missing rounds of the folder; a round gets its final name once it is complete.

    Raises:
        ValueError: The folder holds views with other settings.
    """
    _check_folder(folder, settings)
    for index in range(settings.sets_per_caption):
        finished = _round_folder(folder, index)
        if finished.exists():
            continue
        partial = finished.with_suffix(".partial")
        partial.mkdir(exist_ok=True)
        for name, shape in settings.layers.items():
            np.lib.format.open_memmap(partial / f"{name}.npy", "w+", np.uint8, shape).flush()
        first, last = index * len(settings.captions), (index + 1) * len(settings.captions)
        jobs = [(partial, settings, first, start, min(start + _CHUNK, last)) for start in range(first, last, _CHUNK)]
        run_in_processes(_render_chunk, jobs, processes, f"round {index + 1} of {settings.sets_per_caption}, rendered")
        os.replace(partial, finished)


@torch_threads_kept()
def render_set(settings: ViewSettings, index: int) -> dict[str, Float[Tensor, "v k c h w"]]:
    """Render the objects of a set with its cameras; returns the layers in [0, 1], each over black."""
    rng, cameras = np.random.default_rng([settings.seed, index, 1]), settings.cameras_of_set(index)
    lights = np.random.default_rng([settings.seed, index, 2])
    views: list[Surfaces] = []
    for _ in range(settings.objects_per_set):
        mesh = sample_object(settings.caption_of_set(index), rng)
        light = random_light(lights) if settings.varied_light else Light()
        views.append(render_surfaces(mesh, light, cameras, supersample=_SUPERSAMPLE))
    return {name: torch.stack([_layer(name, seen, cameras) for seen in views], 1) for name in settings.layers}


def draw_batch(
    cache: ViewCache,
    size: int,
    seed: Sequence[int],
    *,
    modality: str | None = None,
    white: float = 0.5,
    dropped: float = 0.1,
    varied: bool = True,
) -> Batch:
    """Draw random views over random backgrounds; the same seed gives the same batch.

    Args:
        cache: Views to draw from.
        size: Number of views.
        seed: Seed of the batch.
        modality: Modality of all images; None draws all of them equally often.
        white: Fraction of white backgrounds; 0.15 are gray, the others have random colors. Geometry is over black.
        dropped: Fraction of empty prompts.
        varied: Vary the wording of the prompts; False uses the canonical captions.
    """
    rng = np.random.default_rng(list(seed))
    known = cache.settings.modalities
    groups = torch.from_numpy(rng.integers(len(cache), size=size))
    texts = []
    for group in groups.tolist():
        caption = cache.caption(group)
        text = reworded(caption, rng) if varied else caption.text
        texts.append("" if rng.random() < dropped else text)
    background = _backgrounds(size, white, rng)
    first = rng.integers(cache.settings.objects_per_set, size=size)
    start = int(rng.integers(len(known)))
    modalities = [modality or known[(start + i) % len(known)] for i in range(size)]
    images = []
    for i, (group, name) in enumerate(zip(groups.tolist(), modalities, strict=True)):
        image = np.roll(cache.layer(name, group), -int(first[i]), 0).astype(np.float32)
        image *= 2 / 255
        if name in OVER_BACKGROUND:
            opacity = np.roll(cache.layer("opacity", group), -int(first[i]), 0).astype(np.float32)
            image += (1 - opacity / 255) * (2 * background[i])[:, None, None]
        else:
            background[i] = 0
        images.append(np.broadcast_to(image - 1, (len(image), 3, *image.shape[2:])))
    return Batch(
        torch.from_numpy(np.stack(images)),
        tuple(texts),
        cache.cameras(groups),
        torch.from_numpy(background),
        tuple(modalities),
    )


def _layer(name: str, seen: Surfaces, cameras: Cameras) -> Float[Tensor, "v c h w"]:
    render = seen.render
    if name == "opacity":
        return render.opacity
    image = encode(
        name,
        rgb=render.rgb,
        albedo=seen.albedo,
        normal=render.normal,
        depth=render.depth,
        opacity=render.opacity,
        cameras=cameras,
    )
    return image[:, : _CHANNELS[name]]


def _backgrounds(count: int, white: float, rng: np.random.Generator) -> np.ndarray:
    colors = rng.random((count, 3))
    chosen = rng.random(count)
    gray = chosen < white + 0.15
    colors[gray] = colors[gray, :1]
    colors[chosen < white] = 1.0
    return colors.astype(np.float32)


def _cameras(settings: ViewSettings, rng: np.random.Generator) -> Cameras:
    """Draw cameras with azimuths stratified over the circle."""
    count = settings.cameras_per_set
    azimuth = (rng.random() + np.arange(count) / count) * 360
    elevation = rng.uniform(*settings.elevation, count)
    overhead = rng.random(count) < settings.overhead_fraction
    elevation[overhead] = rng.uniform(*settings.overhead, int(overhead.sum()))
    cameras = Cameras.orbit(
        _tensor(azimuth),
        _tensor(elevation),
        distance=_tensor(rng.uniform(*settings.distance, count)),
        field_of_view=settings.field_of_view,
        height=settings.size,
    )
    if settings.crop_fraction:
        cropped = rng.random(count) < settings.crop_fraction
        size = np.where(cropped, rng.uniform(*settings.crop_size, count), 1.0)
        left, top = (_tensor((1 - size) * rng.random(count)) for _ in range(2))
        cameras = cameras.cropped(left, top, _tensor(size))
    return cameras


def _check_folder(folder: Path, settings: ViewSettings) -> None:
    """Check the settings of the folder; the number of rounds may differ, since rounds can be added later."""
    described, path = json.loads(json.dumps(asdict(replace(settings, sets_per_caption=1)))), folder / "settings.json"
    del described["sets_per_caption"]
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(described, indent=1))
    stored = json.loads(path.read_text())
    if stored != described:
        raise ValueError(f"{folder} holds views of {stored}, not of {described}: choose another folder")


def _round_folder(folder: Path, index: int) -> Path:
    return folder / f"round-{index:03d}"


def _render_chunk(folder: Path, settings: ViewSettings, origin: int, first: int, last: int) -> None:
    arrays = {name: np.load(folder / f"{name}.npy", mmap_mode="r+") for name in settings.layers}
    count = settings.cameras_per_set
    for index in range(first, last):
        row = (index - origin) * count
        for name, values in _bytes(render_set(settings, index)).items():
            arrays[name][row : row + count] = values


def _bytes(views: Mapping[str, Float[Tensor, "v k c h w"]]) -> dict[str, np.ndarray]:
    return {name: (layer * 255).round().clamp(0, 255).to(torch.uint8).numpy() for name, layer in views.items()}


def _tensor(array: np.ndarray) -> Tensor:
    return torch.from_numpy(array.astype(np.float32))


def main(arguments: list[str] | None = None) -> None:
    """Run the command line."""
    defaults = ViewSettings()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--views", type=Path, required=True, metavar="FOLDER")
    add_view_arguments(parser)
    parser.add_argument("--processes", type=int, default=1)
    given = parser.parse_args(arguments)
    render_rounds(given.views, view_settings(given), given.processes)
    print(f"{given.views}: {defaults.objects_per_set * view_settings(given).sets} objects")


def add_view_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments that `view_settings` reads."""
    defaults = ViewSettings()
    parser.add_argument("--kinds", default=",".join(defaults.kinds), help="separated by commas")
    parser.add_argument("--sets", type=int, default=defaults.sets_per_caption, help="of 8 objects, per caption")
    parser.add_argument("--size", type=int, default=defaults.size, help="pixels per side")
    parser.add_argument("--modalities", default=",".join(defaults.modalities), help="separated by commas")
    parser.add_argument("--crops", type=float, default=0.0, metavar="FRACTION", help="of views of a part of the image")
    parser.add_argument(
        "--overhead", type=float, default=defaults.overhead_fraction, metavar="FRACTION", help="of views from above 45°"
    )
    parser.add_argument("--plain-light", action="store_true", help="the world's own mild light on every object")
    parser.add_argument("--seed", type=int, default=defaults.seed)


def view_settings(given: argparse.Namespace) -> ViewSettings:
    """Build settings from the arguments. Raises ValueError for unknown kinds or modalities."""
    kinds = tuple(given.kinds.split(","))
    return ViewSettings(
        kinds=kinds,
        held_out=tuple(pair for pair in DEFAULT_HELD_OUT if pair[0] in kinds),
        sets_per_caption=given.sets,
        seed=given.seed,
        size=given.size,
        modalities=tuple(given.modalities.split(",")),
        crop_fraction=given.crops,
        overhead_fraction=given.overhead,
        varied_light=not given.plain_light,
    )


if __name__ == "__main__":
    main()
