"""Camera features of a camera-conditioned prior: one vector per image, the same in training and inference."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from .base import CameraBatch

CAMERA_FEATURES: tuple[str, ...] = (
    "sin azimuth", "cos azimuth", "sin 2 azimuth", "cos 2 azimuth", "sin 3 azimuth", "cos 3 azimuth",
    "sin elevation", "cos elevation", "sin 2 elevation", "cos 2 elevation",
    "zoom", "background red", "background green", "background blue",
)  # fmt: skip
"""Names of the vector's entries, in order; all entries are roughly within [-1, 1]."""

_USUAL_FOCAL = 1.3737 / 3.2
"""Reference focal length in image heights, over the distance in meters: 40 degrees field of view from 3.2 meters."""
_ZOOM_SCALE = 10.0


def camera_features(cameras: CameraBatch, background: Float[Tensor, "b 3"]) -> Float[Tensor, "b features"]:
    """Features named by `CAMERA_FEATURES`, one row per image, on the background's device.

    Harmonics keep the vector continuous where the azimuth jumps from 180 to -180 degrees. `zoom` is 10 times the
    relative difference of the object's size in the image from the size at 3.2 meters and 40 degrees. `background` is
    sRGB in [0, 1]. Roll and off-center cameras are not represented.
    """
    device = background.device
    azimuth, elevation = (torch.deg2rad(angle.to(device)) for angle in (cameras.azimuth, cameras.elevation))
    waves = [
        wave
        for angle, harmonics in ((azimuth, 3), (elevation, 2))
        for n in range(1, harmonics + 1)
        for wave in ((n * angle).sin(), (n * angle).cos())
    ]
    distance = cameras.camera_to_world[:, :3, 3].norm(dim=1)
    focal = cameras.intrinsics[:, 1, 1] / cameras.height / distance
    zoom = _ZOOM_SCALE * (focal / _USUAL_FOCAL - 1)
    return torch.cat([torch.stack([*waves, zoom.to(device)], 1), 2 * background - 1], 1).float()
