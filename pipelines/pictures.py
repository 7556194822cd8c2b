"""Preview pictures: contact sheets during the run, a turntable at its end."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from ..representations import Cameras, Representation
from .files import write_atomically

PREVIEW_AZIMUTHS = (0.0, 45.0, 90.0, 135.0, 180.0, 225.0, 270.0, 315.0)
PREVIEW_ELEVATION = 15.0


def turntable_cameras(frames: int, size: int, elevation: float = PREVIEW_ELEVATION) -> Cameras:
    """Cameras once around the object, starting at its front."""
    azimuth = torch.arange(frames) * 360.0 / frames
    return Cameras.orbit(azimuth, torch.full((frames,), elevation), height=size)


@torch.no_grad()
def render_frames(representation: Representation, cameras: Cameras, kind: str = "rgb") -> Float[Tensor, "n 3 h w"]:
    """Pictures on white, one camera at a time (little memory). `kind`: rgb | normal | depth."""
    device = next(representation.parameters()).device
    frames = []
    for index in range(len(cameras)):
        white = torch.ones(1, 3, device=device)
        output = representation.render(cameras[index].to(device), white)
        if kind == "normal":
            picture = (output.normal * 0.5 + 0.5) * output.opacity + (1 - output.opacity)
        elif kind == "depth":
            picture = _depth_picture(output.depth, output.opacity)
        else:
            picture = output.rgb
        frames.append(picture.clamp(0, 1).cpu())
    return torch.cat(frames)


def save_contact_sheet(representation: Representation, path: Path, size: int) -> None:
    """Eight views around the object and one from above; a row each of colour and normals."""
    around = Cameras.orbit([*PREVIEW_AZIMUTHS, 30.0], [PREVIEW_ELEVATION] * len(PREVIEW_AZIMUTHS) + [70.0], height=size)
    rows = [torch.cat(list(render_frames(representation, around, kind)), -1) for kind in ("rgb", "normal")]
    _save(_to_image(torch.cat(rows, -2)), path, "PNG")


def save_turntable(representation: Representation, path: Path, frames: int, size: int) -> None:
    """An animated WebP, one turn in three seconds."""
    pictures = [_to_image(frame) for frame in render_frames(representation, turntable_cameras(frames, size))]
    buffer = io.BytesIO()
    pictures[0].save(
        buffer, "WEBP", save_all=True, append_images=pictures[1:], duration=3000 // frames, loop=0, quality=85
    )
    write_atomically(path, buffer.getvalue())


def _depth_picture(depth: Float[Tensor, "b 1 h w"], opacity: Float[Tensor, "b 1 h w"]) -> Float[Tensor, "b 3 h w"]:
    """Near is light, far is dark, empty is white."""
    shade = ((4.3 - depth) / 2.2).clamp(0, 1)
    return (shade * opacity + (1 - opacity)).expand(-1, 3, -1, -1)


def _to_image(picture: Float[Tensor, "3 h w"]) -> Image.Image:
    return Image.fromarray((picture.permute(1, 2, 0).numpy() * 255).round().astype(np.uint8))


def _save(image: Image.Image, path: Path, kind: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    buffer = io.BytesIO()
    image.save(buffer, kind)
    write_atomically(path, buffer.getvalue())
