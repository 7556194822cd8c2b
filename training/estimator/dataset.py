"""Views of the procedural world with their geometry: rendered once to memory-mapped files, drawn as noisy batches."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from steindreamer.representations import Cameras, RenderOutput, TriangleMesh
from steindreamer.world import Caption, random_caption, sample_object
from steindreamer.world.views import LIGHT, render_objects

from ..workers import run_in_processes

SIZE = 128
"""Size of the stored views, in pixels per side."""
_SUPERSAMPLE = 2
_CHUNK = 32
_DISPARITY_STEPS = 65535
_NORMAL_STEPS = 127


@dataclass(frozen=True)
class ViewSettings:
    """Settings of the views. The views depend on nothing else, such as the number of processes."""

    objects: int = 4000
    views_per_object: int = 4
    seed: int = 0
    elevation: tuple[float, float] = (-15.0, 85.0)
    """Range of the elevation, in degrees."""
    distance: tuple[float, float] = (3.0, 3.4)
    """Range of the camera's distance from the origin, in meters."""
    field_of_view: float = 40.0

    @property
    def views(self) -> int:
        """Total number of views."""
        return self.objects * self.views_per_object


@dataclass(frozen=True)
class Views:
    """Views without background; row i of every field is one view."""

    foreground: Float[Tensor, "n 4 h w"]
    """Display sRGB color pre-multiplied by opacity, and opacity as the fourth channel."""
    disparity: Float[Tensor, "n 1 h w"]
    """Disparity: 1 / depth, scaled so that the unit ball spans 0 (far end) to 1 (near end); 0 on the background."""
    normal: Float[Tensor, "n 3 h w"]
    """Unit normals in camera space (OpenCV axes); 0 on the background."""

    def __getitem__(self, rows: slice) -> Views:
        return Views(self.foreground[rows], self.disparity[rows], self.normal[rows])


@dataclass(frozen=True)
class Batch:
    """Noisy images with the true geometry; row i of every field is one image."""

    image: Float[Tensor, "b 3 h w"]
    """Noisy image on the sRGB scale: the input of the estimator."""
    noise_level: Float[Tensor, " b"]
    disparity: Float[Tensor, "b 1 h w"]
    normal: Float[Tensor, "b 3 h w"]
    mask: Bool[Tensor, "b 1 h w"]
    """Mask of the object's pixels."""

    def to(self, device: torch.device) -> Batch:
        """Move all tensors to a device."""
        return Batch(*(getattr(self, field.name).to(device) for field in fields(self)))


def render_views(settings: ViewSettings, first: int, last: int) -> Views:
    """Render the views of objects `first` to `last` (exclusive)."""
    return _concatenated([_views_of_object(settings, index) for index in range(first, last)])


class ViewCache:
    """Memory-mapped views on disk, 9 bytes per pixel."""

    _FILES = ("foreground", "disparity", "normal")

    def __init__(self, folder: Path) -> None:
        """Open the cache of a folder. Raises FileNotFoundError if the folder holds no complete one."""
        self.folder = folder
        self.settings = json.loads((folder / "settings.json").read_text())
        self.foreground, self.disparity, self.normal = (
            np.load(folder / f"{name}.npy", mmap_mode="r") for name in self._FILES
        )

    def __len__(self) -> int:
        return len(self.foreground)

    def views(self, rows: Int64[Tensor, " b"]) -> Views:
        """Load the views of the given rows."""
        index = rows.numpy()
        return Views(
            torch.from_numpy(self.foreground[index]).float() / 255,
            torch.from_numpy(self.disparity[index].astype(np.float32)) / _DISPARITY_STEPS,
            torch.from_numpy(self.normal[index]).float() / _NORMAL_STEPS,
        )

    def caption(self, row: int) -> Caption:
        """Return the caption of a view."""
        return _caption_of_object(self.settings["seed"], row // self.settings["views_per_object"])[0]

    @classmethod
    def open_or_render(cls, folder: Path, settings: ViewSettings, processes: int = 1) -> ViewCache:
        """Open the cache in the folder; if there is none, render it first with worker processes.

        Raises:
            ValueError: The folder holds views with other settings.
        """
        wanted = json.loads(json.dumps(asdict(settings)))
        if not (folder / "settings.json").exists():
            cls._render(folder, settings, processes)
            # Written last: without this file the cache is incomplete.
            (folder / "settings.json").write_text(json.dumps(wanted, indent=1))
        cache = cls(folder)
        if cache.settings != wanted:
            raise ValueError(f"{folder} holds views of {cache.settings}, not of {wanted}: choose another folder")
        return cache

    @classmethod
    def _render(cls, folder: Path, settings: ViewSettings, processes: int) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        for name, channels, kind in zip(cls._FILES, (4, 1, 3), (np.uint8, np.uint16, np.int8), strict=True):
            shape = (settings.views, channels, SIZE, SIZE)
            np.lib.format.open_memmap(folder / f"{name}.npy", "w+", kind, shape).flush()
        chunks = [(folder, settings, first) for first in range(0, settings.objects, _CHUNK)]
        run_in_processes(_render_chunk, chunks, processes, "rendered")


def noisy_batch(
    views: Views, size: int, alpha: Float[Tensor, " b"], sigma: Float[Tensor, " b"], generator: torch.Generator
) -> Batch:
    """Composite views over random backgrounds, half of them white, and add noise.

    Args:
        views: Views without background.
        size: Size of the images in pixels per side; a divisor of the stored size.
        alpha: Signal scale of each image; 1 with sigma = 0 for clean images.
        sigma: Noise scale of each image.
        generator: Random number generator.
    """
    foreground, disparity, normal = _resized(views, size)
    background = torch.rand(len(foreground), 3, 1, 1, generator=generator)
    background[torch.rand(len(foreground), generator=generator) < 0.5] = 1.0
    image = foreground[:, :3] + (1 - foreground[:, 3:]) * background
    noise = torch.randn(image.shape, generator=generator)
    noisy = alpha[:, None, None, None] * (2 * image - 1) + sigma[:, None, None, None] * noise
    return Batch(0.5 + 0.5 * noisy, sigma, disparity, normal, foreground[:, 3:] > 0.5)


def augmented(views: Views, generator: torch.Generator) -> Views:
    """Mirror half of the views and permute the color channels at random."""
    mirrored = torch.rand(len(views.foreground), 1, 1, 1, generator=generator) < 0.5
    order = torch.rand(len(views.foreground), 3, generator=generator).argsort(1)[:, :, None, None]
    color, opacity = views.foreground.split([3, 1], 1)
    foreground = torch.cat([color.gather(1, order.expand_as(color)), opacity], 1)
    flipped_normal = views.normal.flip(3) * torch.tensor([-1.0, 1.0, 1.0])[:, None, None]
    return Views(
        torch.where(mirrored, foreground.flip(3), foreground),
        torch.where(mirrored, views.disparity.flip(3), views.disparity),
        torch.where(mirrored, flipped_normal, views.normal),
    )


def _views_of_object(settings: ViewSettings, index: int) -> Views:
    caption, rng = _caption_of_object(settings.seed, index)
    mesh = sample_object(caption, rng)
    count = settings.views_per_object
    cameras = Cameras.orbit(
        _tensor(rng.uniform(-180, 180, count)),
        _tensor(rng.uniform(*settings.elevation, count)),
        distance=_tensor(rng.uniform(*settings.distance, count)),
        field_of_view=settings.field_of_view,
        height=SIZE,
    )
    return views_from_render(_draw(mesh, cameras, rng), cameras)


def _caption_of_object(seed: int, index: int) -> tuple[Caption, np.random.Generator]:
    """Draw the caption of an object; also returns the generator for everything else about the object and its views."""
    rng = np.random.default_rng([seed, index])
    return random_caption(rng), rng


def _draw(mesh: TriangleMesh, cameras: Cameras, rng: np.random.Generator) -> RenderOutput:
    """Render over black; half of the views under the default light, the others under any light from above."""
    count = len(cameras)
    light = rng.normal(size=(count, 3))
    light[:, 1] = abs(light[:, 1])
    light[rng.random(count) < 0.5] = LIGHT
    return render_objects(
        [mesh] * count, cameras, torch.zeros(count, 3), light=_tensor(light), supersample=_SUPERSAMPLE
    )


def views_from_render(rendered: RenderOutput, cameras: Cameras) -> Views:
    """Convert renders to views; the renders must be over black, so that the color is pre-multiplied by opacity."""
    center = cameras.position.norm(dim=1)[:, None, None, None]
    near, far = 1 / (center - 1), 1 / (center + 1)
    covered = rendered.opacity > 0
    inverse = torch.where(covered, 1 / rendered.depth.clamp(min=1e-6), far)
    normal = torch.einsum("bij,bihw->bjhw", cameras.camera_to_world[:, :3, :3], rendered.normal)
    foreground = torch.cat([rendered.rgb, rendered.opacity], 1)
    return Views(foreground, ((inverse - far) / (near - far)).clamp(0, 1), normal)


def _resized(views: Views, size: int) -> tuple[Tensor, Tensor, Tensor]:
    """Average down to `size`, a divisor of the stored size; geometry is averaged over the object only."""
    factor = views.foreground.shape[-1] // size
    if factor == 1:
        return views.foreground, views.disparity, views.normal
    opacity = views.foreground[:, 3:]
    foreground = F.avg_pool2d(views.foreground, factor)
    weight = foreground[:, 3:].clamp(min=1e-6)
    disparity = F.avg_pool2d(views.disparity * opacity, factor) / weight
    normal = F.avg_pool2d(views.normal * opacity, factor)
    return foreground, disparity, normal * normal.square().sum(1, keepdim=True).clamp(min=1e-12).rsqrt()


def _render_chunk(folder: Path, settings: ViewSettings, first: int) -> None:
    last = min(first + _CHUNK, settings.objects)
    views = render_views(settings, first, last)
    rows = slice(first * settings.views_per_object, last * settings.views_per_object)
    arrays = {
        "foreground": (views.foreground * 255).round().to(torch.uint8).numpy(),
        "disparity": (views.disparity * _DISPARITY_STEPS).round().numpy().astype(np.uint16),
        "normal": (views.normal * _NORMAL_STEPS).round().to(torch.int8).numpy(),
    }
    for name, array in arrays.items():
        np.load(folder / f"{name}.npy", mmap_mode="r+")[rows] = array


def _concatenated(parts: list[Views]) -> Views:
    return Views(
        *(torch.cat([getattr(part, name) for part in parts]) for name in ("foreground", "disparity", "normal"))
    )


def _tensor(array: np.ndarray) -> Tensor:
    return torch.from_numpy(array.astype(np.float32))
