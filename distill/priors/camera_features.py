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

CROP_FEATURES: tuple[str, ...] = (
    "crop log zoom", "crop sin x", "crop cos x", "crop sin 2 x", "crop cos 2 x",
    "crop sin y", "crop cos y", "crop sin 2 y", "crop cos 2 y",
)  # fmt: skip
"""Names of the entries that describe which part of the usual image is seen, in order; see `crop_features`."""

_USUAL_FOCAL = 1.3737 / 3.2
"""Reference focal length in image heights, over the distance in meters: 40 degrees field of view from 3.2 meters."""
_ZOOM_SCALE = 10.0


def camera_features(
    cameras: CameraBatch, background: Float[Tensor, "b 3"], *, largest_zoom: float | None = None
) -> Float[Tensor, "b features"]:
    """Features named by `CAMERA_FEATURES`, one row per image, on the background's device.

    Harmonics keep the vector continuous where the azimuth jumps from 180 to -180 degrees. `zoom` is 10 times the
    relative difference of the object's size in the image from the size at 3.2 meters and 40 degrees. `background` is
    sRGB in [0, 1]. Roll and off-center cameras are not represented
    here (`crop_features`).

    Args:
        cameras: the cameras.
        background: color behind the object.
        largest_zoom: bound of `zoom`, which is large for parts of images; None: unbounded.
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
    if largest_zoom is not None:
        zoom = zoom.clamp(-largest_zoom, largest_zoom)
    return torch.cat([torch.stack([*waves, zoom.to(device)], 1), 2 * background - 1], 1).float()


def crop_features(cameras: CameraBatch) -> Float[Tensor, "b features"]:
    """Features named by `CROP_FEATURES`, one row per image, for networks trained on parts of images.

    x and y are the place of the image's center in the usual image, of 40 degrees from 3.2 meters around the principal
    point: from -1/2 to 1/2 of its side, as a phase from -pi to pi. The zoom is the logarithm to base 2 of the
    enlargement; 0 for the usual image.
    """
    size = torch.tensor([cameras.width, cameras.height]).to(cameras.intrinsics)
    distance = cameras.camera_to_world[:, :3, 3].norm(dim=1)
    zoom = cameras.intrinsics[:, 1, 1] / cameras.height / distance / _USUAL_FOCAL
    center = (0.5 - cameras.intrinsics[:, :2, 2] / size) * (size / cameras.height) / zoom[:, None]
    phase = 2 * torch.pi * center
    waves = [wave for x in phase.unbind(1) for n in (1, 2) for wave in ((n * x).sin(), (n * x).cos())]
    return torch.stack([zoom.log2(), *waves], 1).float()
