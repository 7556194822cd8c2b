"""Modalities of a prior, such as color, normal and depth maps, and the encoding of rendered buffers as such images.

Training data, exact priors and distilled renderings use the same functions, so that they agree.

- color: sRGB under light, over any background.
- albedo: sRGB without light, over any background.
- normal: camera-space unit normals (x right, y up, z toward the camera) as `0.5 + 0.5 n`, over black. In camera space
  a surface seen at a given angle has one color for every azimuth, so that a network need not learn to rotate colors.
  Visible surfaces have z > 0, hence blue above one half; black is no normal and contrasts with all of them.
- depth: gray, 1 at the near end of the unit ball and 0 at its far end, linear in z-depth, over black.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, get_args

import torch
from jaxtyping import Float
from torch import Tensor

from .base import CameraBatch, Condition, MultimodalPrior, Prior
from .camera_features import CAMERA_FEATURES, CROP_FEATURES, camera_features, crop_features

Modality = Literal["color", "albedo", "normal", "depth"]
MODALITIES: tuple[Modality, ...] = get_args(Modality)
OVER_BACKGROUND: tuple[Modality, ...] = ("color", "albedo")
"""Modalities whose images have any background; the others are over black."""
_PREFIX = "modality "
_BALL = 1.0
"""Radius in meters of the ball around the origin that holds every object."""


def encode(
    modality: str,
    *,
    rgb: Float[Tensor, "b 3 h w"],
    albedo: Float[Tensor, "b 3 h w"],
    normal: Float[Tensor, "b 3 h w"],
    depth: Float[Tensor, "b 1 h w"],
    opacity: Float[Tensor, "b 1 h w"],
    cameras: CameraBatch,
) -> Float[Tensor, "b 3 h w"]:
    """Encode a renderer's buffers as the image of one modality, in [0, 1]. Differentiable.

    Args:
        rgb: lit sRGB, composited over its background.
        albedo: unlit sRGB, composited over its background.
        normal: world-space unit vectors, not multiplied by the opacity.
        depth: z-depth in meters, not multiplied by the opacity.

    Raises ValueError for an unknown modality.
    """
    _check_modality(modality, MODALITIES)
    if modality == "normal":
        return encode_normal(normal, opacity, cameras)
    if modality == "depth":
        return encode_depth(depth, opacity, cameras)
    return rgb if modality == "color" else albedo


def encode_normal(
    normal: Float[Tensor, "b 3 h w"], opacity: Float[Tensor, "b 1 h w"], cameras: CameraBatch
) -> Float[Tensor, "b 3 h w"]:
    """Camera-space normal map in [0, 1] over black, from world-space unit vectors."""
    axes = cameras.camera_to_world[:, :3, :3].to(normal) * normal.new_tensor([1.0, -1.0, -1.0])
    return (0.5 + 0.5 * torch.einsum("bij,bihw->bjhw", axes, normal)) * opacity


def encode_normal_as_color(
    normal: Float[Tensor, "b 3 h w"], opacity: Float[Tensor, "b 1 h w"]
) -> Float[Tensor, "b 3 h w"]:
    """World-space normal map in [0, 1] over black, as Fantasia3D (2303.13873) gives it to a prior of color alone.

    World-space colors do not change with the camera, so that the map resembles a painted object. It is no modality.
    """
    return (0.5 * normal + 0.5) * opacity


def encode_depth(
    depth: Float[Tensor, "b 1 h w"], opacity: Float[Tensor, "b 1 h w"], cameras: CameraBatch
) -> Float[Tensor, "b 3 h w"]:
    """Gray depth map over black, 1 at the near end of the unit ball, from z-depth in meters.

    Values are in [0, 1] inside the ball and continue linearly outside, so that the gradient does not vanish there.
    """
    center = cameras.camera_to_world[:, :3, 3].to(depth).norm(dim=1)[:, None, None, None]
    gray = (0.5 - 0.5 / _BALL * (depth - center)) * opacity
    return gray.expand(-1, 3, -1, -1)


def background_of(modality: str, background: Float[Tensor, "b 3"]) -> Float[Tensor, "b 3"]:
    """The color behind the object in an image of the modality: the given one, or black for normal and depth maps."""
    _check_modality(modality, MODALITIES)
    return background if modality in OVER_BACKGROUND else torch.zeros_like(background)


def known_modalities(prior: Prior[Any, Any]) -> tuple[str, ...]:
    """The modalities that a prior knows; color alone if it does not say."""
    return tuple(prior.modalities) if isinstance(prior, MultimodalPrior) else ("color",)


def knows_parts_of_images(prior: Prior[Any, Any]) -> bool:
    """Whether a prior's images may show any part of the object; False if it has no attribute `crops` that is true."""
    return bool(getattr(prior, "crops", False))


def condition(
    prior: Prior[Any, Condition],
    embedding: Any,
    cameras: CameraBatch,
    background: Float[Tensor, "b 3"],
    modality: str = "color",
) -> Condition:
    """The prior's conditioning for images of one modality at given views.

    Raises ValueError for a modality that the prior does not know.

    Args:
        background: sRGB in [0, 1] behind the object; normal and depth maps are over black instead.
    """
    _check_modality(modality, known_modalities(prior))
    behind = background_of(modality, background)
    if isinstance(prior, MultimodalPrior):
        return prior.condition(embedding, cameras, behind, modality)
    return prior.condition(embedding, cameras, behind)


def view_feature_names(modalities: Sequence[str], *, crops: bool = False) -> tuple[str, ...]:
    """Names of the features that a network is conditioned on: the camera's, then one per modality.

    A network of color alone is conditioned on the camera only.

    Args:
        modalities: the modalities that the network knows.
        crops: whether it also knows parts of images, see `camera_features.CROP_FEATURES`.
    """
    camera = (*CAMERA_FEATURES, *CROP_FEATURES) if crops else CAMERA_FEATURES
    if tuple(modalities) == ("color",):
        return camera
    return (*camera, *(_PREFIX + modality for modality in modalities))


def knows_crops(names: Sequence[str]) -> bool:
    """Whether a network with these features was trained on parts of images."""
    first = len(CAMERA_FEATURES)
    return tuple(names[first : first + len(CROP_FEATURES)]) == CROP_FEATURES


def modalities_of(names: Sequence[str] | None) -> tuple[str, ...]:
    """The modalities of a network that is conditioned on these features; without modality features it is color alone.

    Raises ValueError for features that are not those of `view_feature_names`.
    """
    given = list(names or ())
    crops = knows_crops(given)
    modalities = tuple(str(name).removeprefix(_PREFIX) for name in given[_camera_entries(crops) :])
    valid = len(set(modalities)) == len(modalities) and set(modalities) <= set(MODALITIES)
    if names is None or not valid or given != list(view_feature_names(modalities, crops=crops)):
        described = (
            f"{list(CAMERA_FEATURES)}, then any of {list(view_feature_names(MODALITIES)[len(CAMERA_FEATURES) :])}"
        )
        raise ValueError(f"expects the camera as {names}, not as {described}")
    return modalities or ("color",)


def view_features(
    names: Sequence[str],
    cameras: CameraBatch,
    background: Float[Tensor, "b 3"],
    modality: str | Sequence[str] = "color",
) -> Float[Tensor, "b features"]:
    """Conditioning vector of a network with the features `names`, on the background's device.

    Raises ValueError for a modality that the network does not support.

    Args:
        background: sRGB in [0, 1] of the encoded image; see `background_of`.
        modality: one for all images, or one per image.
    """
    known, crops = modalities_of(names), knows_crops(names)
    wanted = [modality] * len(background) if isinstance(modality, str) else list(modality)
    for each in dict.fromkeys(wanted):
        _check_modality(each, known)
    features = camera_features(cameras, background, largest_zoom=1.0 if crops else None)
    if crops:
        features = torch.cat([features, crop_features(cameras).to(features)], 1)
    if len(names) == _camera_entries(crops):
        return features
    one_hot = torch.zeros(len(wanted), len(known))
    one_hot[torch.arange(len(wanted)), torch.tensor([known.index(each) for each in wanted])] = 1
    return torch.cat([features, one_hot.to(features)], 1)


def _camera_entries(crops: bool) -> int:
    return len(CAMERA_FEATURES) + (len(CROP_FEATURES) if crops else 0)


def _check_modality(modality: str, known: Sequence[str]) -> None:
    if modality not in known:
        raise ValueError(f"no modality {modality!r}: available: {', '.join(known)}")
