"""Images of the live view: a scene as color, under light, as clay, or its geometry."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Float32, UInt8
from torch import Tensor

from steindreamer.representations import Cameras, RenderOutput, Representation

from ..devices import device_of
from ..export.lighting import clay, lit

Layout = Literal["split", "side by side"]
"""Arrangements of two scenes in one image."""
LINE = 128
"""Gray value of the line between two scenes."""
NEAREST, FARTHEST = 1e-3, 1e4
"""Accepted distances of a camera from the origin in meters."""


def _normal(output: RenderOutput, cameras: Cameras) -> Float[Tensor, "b 3 h w"]:
    del cameras
    return (F.normalize(output.normal, dim=1) * 0.5 + 0.5) * output.opacity + 1 - output.opacity


def _depth(output: RenderOutput, cameras: Cameras) -> Float[Tensor, "b 3 h w"]:
    """Depth as gray, near is light and far is dark; over the range in this image."""
    del cameras
    solid = output.opacity > 0.5
    if not bool(solid.any()):
        return torch.ones_like(output.rgb)
    low, high = output.depth[solid].amin(), output.depth[solid].amax()
    value = 0.9 - 0.8 * ((output.depth - low) / (high - low).clamp(min=1e-6)).clamp(0, 1)
    return (value * output.opacity + 1 - output.opacity).expand_as(output.rgb)


LOOKS: dict[str, Callable[[RenderOutput, Cameras], Float[Tensor, "b 3 h w"]]] = {
    "rgb": lambda output, cameras: output.rgb,
    "lit": lit,
    "clay": clay,
    "normal": _normal,
    "depth": _depth,
    "opacity": lambda output, cameras: (1 - output.opacity).expand_as(output.rgb),
}
"""Images of a render on white, by name."""


@dataclass(frozen=True)
class Drawn:
    """An image of a scene."""

    pixels: UInt8[np.ndarray, "h w 3"]
    """Display sRGB; values that are not finite are black."""
    depth: Float32[np.ndarray, "h w"] | None
    """Depth along z in meters, `FARTHEST` where the scene is less than half opaque; None: it is not known."""


def drawn(scene: Representation, camera: Cameras, look: str) -> Drawn:
    """An image of the scene with its depth.

    Args:
        scene: The scene.
        camera: One camera.
        look: A name of `LOOKS`.
    """
    device = device_of(scene)
    camera = camera.to(device)
    with torch.no_grad():
        output = scene.render(camera, torch.ones(1, 3, device=device))
        image = LOOKS[look](output, camera)[0]
        depth = torch.where(output.opacity > 0.5, output.depth, FARTHEST)[0, 0].nan_to_num(FARTHEST)
    pixels = image.nan_to_num(0.0, 0.0, 0.0).clamp(0, 1).permute(1, 2, 0).cpu().numpy()
    return Drawn((pixels * 255).round().astype(np.uint8), depth.float().cpu().numpy())


def draw(scene: Representation, camera: Cameras, look: str) -> UInt8[np.ndarray, "h w 3"]:
    """The pixels of `drawn`."""
    return drawn(scene, camera, look).pixels


def beside(
    scenes: Sequence[Representation], camera: Cameras, look: str, layout: Layout, position: float
) -> UInt8[np.ndarray, "h w 3"]:
    """Two scenes in one image of the camera's size, with a gray line between them.

    Args:
        scenes: The left and the right scene.
        camera: One camera.
        look: A name of `LOOKS`.
        layout: "split" shows the part left of the line of one image and the part right of it of the other; "side by
            side" shows both scenes whole, each in its own half.
        position: Fraction of the width at which the line of "split" is.
    """
    line = round(camera.width * min(max(position, 0.0), 1.0)) if layout == "split" else camera.width // 2
    widths = (line, camera.width - line)
    starts = (0, line) if layout == "split" else tuple((camera.width - width) // 2 for width in widths)
    parts = [
        draw(scene, _columns(camera, start, width), look)
        for scene, start, width in zip(scenes, starts, widths, strict=True)
        if width
    ]
    out = np.concatenate(parts, 1)
    out[:, max(0, line - 1) : line + 1] = LINE
    return out


def _columns(camera: Cameras, start: int, width: int) -> Cameras:
    """The camera of a range of columns of its image."""
    intrinsics = camera.intrinsics.clone()
    intrinsics[:, 0, 2] -= start
    return replace(camera, intrinsics=intrinsics, width=width)


def camera_of(pose: Any, position: Any, field_of_view: float, aspect: float, height: int) -> Cameras | None:
    """A camera from the values that a browser sent; None if they are not usable.

    Args:
        pose: Rotation from the camera (OpenCV axes) to the world as a quaternion w, x, y, z.
        position: Position in the world in meters.
        field_of_view: Vertical field of view in radians.
        aspect: Width over height of the image.
        height: Height of the image in pixels.
    """
    numbers = np.concatenate([np.asarray(each, dtype=np.float64).reshape(-1) for each in (pose, position)])
    given = np.append(numbers, [field_of_view, aspect])
    if len(numbers) != 7 or not np.isfinite(given).all():
        return None
    length, distance = np.linalg.norm(numbers[:4]), np.linalg.norm(numbers[4:])
    if not (length > 1e-6 and NEAREST < distance < FARTHEST and 0.02 < field_of_view < 3.0 and aspect > 0):
        return None
    w, x, y, z = numbers[:4] / length
    rotation = torch.tensor(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
            [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
            [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
        ]
    )
    matrix = torch.eye(4)[None]
    matrix[0, :3, :3], matrix[0, :3, 3] = rotation, torch.from_numpy(numbers[4:])
    width = max(1, round(height * min(max(aspect, 0.2), 4.0)))
    focal = 0.5 * height / np.tan(0.5 * field_of_view)
    intrinsics = torch.tensor([[[focal, 0, width / 2], [0, focal, height / 2], [0, 0, 1]]], dtype=torch.float32)
    return Cameras(matrix, intrinsics, height, width)
