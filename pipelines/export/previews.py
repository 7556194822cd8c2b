"""Preview images: preview grids of the scene and of the asset, a turntable, and the maps of a material."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, UInt8
from PIL import Image
from torch import Tensor

from steindreamer.representations import Cameras, RenderOutput, Representation, TriangleMesh, particles_of, render_mesh

from ..devices import device_of
from ..errors import UserError
from ..files import write_atomically
from ..optimization.views import ViewsConfig
from .lighting import clay, lit, lit_color

ELEVATION, STEEPEST = 15.0, 70.0
"""Usual and steepest elevation of the views around an object, in degrees."""
THUMBNAIL_MARGIN = 0.06
"""Empty border of a thumbnail relative to its size."""
MAP_SIZE = 512
"""Largest size of a map in `save_maps`, in pixels."""


def save_contact_sheet(representation: Representation, path: Path, size: int, views: ViewsConfig | None = None) -> None:
    """Save a preview grid of four views and one from above (PNG), with rows of color, clay and normals per particle.

    Args:
        representation: the scene.
        path: the file.
        size: size of a view in pixels.
        views: the training cameras; if they are inside the scene, the views are too. None: around the scene.
    """
    cameras = sheet_cameras(size, views)
    rows = [
        _sheet(
            _draw(particle, cameras),
            cameras,
            lambda output, camera: (output.rgb, clay(output, camera), _normal(output)),
        )
        for particle in particles_of(representation)
    ]
    _save_image(torch.cat(rows, -2), path)


def save_mesh_sheet(mesh: TriangleMesh, path: Path, size: int) -> None:
    """Save a preview grid of a mesh with the views of `save_contact_sheet`: lit, clay and base color."""
    cameras, white = sheet_cameras(size), torch.ones(1, 3)
    outputs = (render_mesh(mesh, cameras[i], white, supersample=2) for i in range(len(cameras)))
    _save_image(
        _sheet(outputs, cameras, lambda output, camera: (lit(output, camera), clay(output, camera), output.rgb)), path
    )


def save_thumbnail(mesh: TriangleMesh, path: Path, size: int) -> None:
    """Save one square image of a mesh under light, from the front right, with a transparent background (RGBA PNG).

    Args:
        mesh: the mesh, which fills the image except for `THUMBNAIL_MARGIN`.
        path: the file.
        size: width and height in pixels.
    """
    camera = _framed(Cameras.orbit([30.0], [ELEVATION], height=size), mesh)
    output = render_mesh(mesh, camera, torch.ones(1, 3), supersample=2)
    image = torch.cat([lit_color(output, camera) * (output.opacity > 0), output.opacity], 1)
    _save_image(image[0], path)


def _framed(camera: Cameras, mesh: TriangleMesh) -> Cameras:
    """The camera with a focal length and center such that the mesh fills the image."""
    pixels = camera.project(mesh.vertices)[0][0]
    low, high = pixels.amin(0), pixels.amax(0)
    scale = camera.height * (1 - 2 * THUMBNAIL_MARGIN) / float((high - low).max().clamp(min=1e-6))
    intrinsics = camera.intrinsics.clone()
    intrinsics[0, (0, 1), (0, 1)] *= scale
    center = camera.intrinsics[0, :2, 2]
    intrinsics[0, :2, 2] = center - scale * ((low + high) / 2 - center)
    return replace(camera, intrinsics=intrinsics)


def save_lit_sheet(representation: Representation, path: Path, size: int) -> None:
    """Save a preview grid of a scene with the views of `save_contact_sheet`: lit, clay and base color."""
    cameras = sheet_cameras(size)
    _save_image(
        _sheet(
            _draw(representation, cameras),
            cameras,
            lambda output, camera: (lit(output, camera), clay(output, camera), output.rgb),
        ),
        path,
    )


def save_maps(maps: Sequence[UInt8[np.ndarray, "h w 3"]], path: Path) -> None:
    """Save texture maps of one size side by side (PNG), each reduced to at most `MAP_SIZE` pixels."""
    size = min(MAP_SIZE, len(maps[0]))
    images = [Image.fromarray(each).resize((size, size), Image.Resampling.BOX) for each in maps]
    _save_image(torch.cat([_to_tensor(image) for image in images], -1), path)


def save_turntable(
    representation: Representation, path: Path, frames: int, size: int, views: ViewsConfig | None = None
) -> None:
    """Save an animated WebP of color and clay that starts at the front, one turn in three seconds; particles are side
    by side.

    Args:
        representation: the scene.
        path: the file.
        frames: number of frames.
        size: size of a view in pixels.
        views: the training cameras, as in `save_contact_sheet`.
    """
    azimuth = torch.arange(frames) * 360.0 / frames
    cameras = _cameras(azimuth, torch.zeros(frames), size, views)
    drawn = zip(*(_draw(particle, cameras) for particle in particles_of(representation)), strict=True)
    first, *rest = (
        _to_image(torch.cat([image[0] for output in row for image in (output.rgb, clay(output, cameras[k]))], -1))
        for k, row in enumerate(drawn)
    )
    buffer = io.BytesIO()
    first.save(buffer, "WEBP", save_all=True, append_images=rest, duration=max(1, 3000 // frames), loop=0, quality=85)
    write_atomically(path, buffer.getvalue())


def sheet_cameras(size: int, views: ViewsConfig | None = None) -> Cameras:
    """The cameras of a preview grid with `size` pixels per view."""
    azimuth = torch.tensor([20, 110, 200, 290, 30], dtype=torch.float32)
    return _cameras(azimuth, torch.tensor([0.0] * 4 + [1.0]), size, views)


def _cameras(
    azimuth: Float[Tensor, " b"], downward: Float[Tensor, " b"], size: int, views: ViewsConfig | None
) -> Cameras:
    """Cameras of the previews; `downward` is 0 for the usual elevation and 1 for the steepest."""
    if views is None or not views.inside:
        return Cameras.orbit(azimuth, ELEVATION + (STEEPEST - ELEVATION) * downward, height=size)
    # A panorama within the range of the training views: the smallest distance, and their elevations and field of view.
    low, high = views.elevation
    elevation = 0.5 * (low + high) * (1 - downward) + high * downward
    orbit = Cameras.orbit(
        azimuth, elevation, distance=views.distance[0], field_of_view=sum(views.field_of_view) / 2, height=size
    )
    if views.look == "center":
        return orbit
    pose = orbit.camera_to_world.clone()
    pose[:, :3, 3] *= -1
    return replace(orbit, camera_to_world=pose)


def _draw(representation: Representation, cameras: Cameras) -> Iterator[RenderOutput]:
    """Render on white, one camera at a time to save memory."""
    device = device_of(representation)
    for index in range(len(cameras)):
        with torch.no_grad():
            output = representation.render(cameras[index].to(device), torch.ones(1, 3, device=device))
        yield output


def _sheet(
    outputs: Iterable[RenderOutput],
    cameras: Cameras,
    looks: Callable[[RenderOutput, Cameras], Sequence[Float[Tensor, "1 3 h w"]]],
) -> Float[Tensor, "3 h w"]:
    """A column per camera with one look below the other."""
    columns = (torch.cat([look[0] for look in looks(output, cameras[k])], -2) for k, output in enumerate(outputs))
    return torch.cat([*columns], -1)


def _save_image(image: Float[Tensor, "c h w"], path: Path) -> None:
    buffer = io.BytesIO()
    _to_image(image).save(buffer, "PNG")
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, buffer.getvalue())


def _normal(output: RenderOutput) -> Float[Tensor, "1 3 h w"]:
    """World x, y, z as red, green, blue: -1 is dark, 1 is light."""
    return (output.normal * 0.5 + 0.5) * output.opacity + (1 - output.opacity)


def _to_tensor(image: Image.Image) -> Float[Tensor, "3 h w"]:
    return torch.from_numpy(np.array(image)).permute(2, 0, 1) / 255


def _to_image(image: Float[Tensor, "c h w"]) -> Image.Image:
    """Convert to an 8-bit image, RGB or RGBA.

    Raises UserError for an image that is not finite, which would be displayed incorrectly.
    """
    if not bool(image.isfinite().all()):
        raise UserError("the scene rendered an image that is not finite (NaN or infinite); check its render method")
    pixels = image.clamp(0, 1).permute(1, 2, 0).cpu().numpy()
    return Image.fromarray((pixels * 255).round().astype(np.uint8))
