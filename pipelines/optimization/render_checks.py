"""Checks of a representation's images against the contract of `RenderOutput`."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from steindreamer.representations import Cameras, RenderOutput, Representation

from ..errors import UserError

IMAGES = ("rgb", "opacity", "depth", "normal")
_IMAGE_OF = {"color": "rgb", "albedo": "rgb", "normal": "normal", "depth": "depth"}
"""The image that a modality shows."""
_RANGE = 0.01
"""Tolerance of values outside [0, 1], for rounding."""
_SAME = 1e-3
"""Largest mean difference of two images that count as equal: another order of summation changes single pixels."""
_SHARE = 0.25
"""Fraction of the drawn pixels above which invalid normals are an error and not an effect of outlines."""


def check_images(scene: Representation, output: Any, cameras: Cameras, background: Float[Tensor, "b 3"]) -> None:
    """Check shapes, types, devices and values of the images that `scene` rendered with gradients. Raises UserError."""
    name = f"{type(scene).__name__}.render"
    if not isinstance(output, RenderOutput):
        raise UserError(f"{name} must return a RenderOutput, got a {type(output).__name__}")
    wanted = (len(cameras), 3, cameras.height, cameras.width)
    if output.rgb.shape != wanted:
        raise UserError(
            f"{name} must render one image per camera: for {len(cameras)} cameras of {cameras.height} x "
            f"{cameras.width} pixels rgb must have the shape {wanted}, got {tuple(output.rgb.shape)}"
        )
    for image in IMAGES:
        _check_numbers(f"{name} rendered {image}", getattr(output, image), background.device)
    _check_ranges(name, output)
    _check_empty_pixels(name, output)
    _check_normals(name, output, cameras)
    _check_terms(scene, output)


def check_singles(
    scene: Representation, output: RenderOutput, cameras: Cameras, background: Float[Tensor, "b 3"]
) -> None:
    """Check that each image equals the one its camera renders alone, and that rendering is repeatable. Raises
    UserError.
    """
    singles = [scene.render(cameras[i], background[i : i + 1]) for i in range(len(cameras))]
    if not (which := _different(output, singles)):
        return
    again = scene.render(cameras, background)
    name = f"{type(scene).__name__}.render"
    if _different(output, [again]):
        raise UserError(
            f"{name} rendered the same cameras differently the second time ({which}): random values must come from a "
            "buffer of the scene that is redrawn in `adapt`, so that runs are reproducible"
        )
    raise UserError(
        f"{name} rendered a different {which} for a camera in a batch than for the same camera alone: image i may "
        "only depend on camera i and background i, in the order of the cameras"
    )


def check_gradients(scene: Representation, output: RenderOutput, modalities: Iterable[str]) -> None:
    """Check that gradients reach the trained parameters and are finite. Raises UserError.

    Args:
        scene: the scene that was rendered.
        output: its images, with their graph.
        modalities: the modalities that are distilled; images that none of them shows are not checked.
    """
    for image in dict.fromkeys(_IMAGE_OF[modality] for modality in modalities):
        _check_gradient(scene, output, image)


def _check_gradient(scene: Representation, output: RenderOutput, image: str) -> None:
    parameters = {name: p for name, p in scene.named_parameters() if p.requires_grad}
    rendered, name = getattr(output, image), f"{type(scene).__name__}.render"
    found: tuple[Tensor | None, ...] = ()
    if rendered.requires_grad and parameters:
        weights = torch.linspace(-1, 1, rendered.numel(), device=rendered.device).view_as(rendered)
        found = torch.autograd.grad(
            (rendered * weights).sum(), list(parameters.values()), retain_graph=True, allow_unused=True
        )
    if all(gradient is None for gradient in found):
        raise UserError(
            f"{name} rendered {image} without a gradient for any parameter of learning_rates() "
            f"({', '.join(parameters) or 'there are none'}): remove no_grad or detach, otherwise the scene cannot be "
            "trained"
        )
    for parameter, gradient in zip(parameters, found, strict=True):
        if gradient is not None and not bool(gradient.isfinite().all()):
            raise UserError(f"{name}: the gradient of {image} for '{parameter}' is not finite")


def check_rates(scene: Representation) -> None:
    """Check the learning rates over the stage: constant names, finite numbers. Raises UserError, and ValueError as
    `optimizer_groups` does.
    """
    for progress in (0.0, 0.5, 1.0):
        for group in scene.optimizer_groups(progress):
            rate = group["lr"]
            if not isinstance(rate, float | int) or not math.isfinite(rate) or rate < 0:
                raise UserError(
                    f"{type(scene).__name__}.learning_rates({progress}) returned {rate!r} for '{group['name']}'; "
                    "numbers of at least 0 are accepted"
                )


def check_regularizers(scene: Representation) -> None:
    """Check that the scene's own regularizers are finite scalars by name. Raises UserError."""
    own = scene.regularizers()
    if not isinstance(own, dict):
        raise UserError(f"{type(scene).__name__}.regularizers must return a dict, got a {type(own).__name__}")
    for name, value in own.items():
        check_scalar(f"{type(scene).__name__}.regularizers()['{name}']", value)


def check_scalar(what: str, value: object) -> None:
    """Raises UserError unless the value is a tensor with one finite number."""
    if not isinstance(value, Tensor) or value.shape != ():
        given = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
        raise UserError(f"{what} must be a tensor of shape (), got {given}")
    if not bool(value.isfinite()):
        raise UserError(f"{what} is {float(value.detach())} before the first step; it must be finite")


def _check_numbers(what: str, image: Tensor, device: torch.device) -> None:
    if image.dtype != torch.float32 or image.device.type != device.type:
        raise UserError(f"{what} as {image.dtype} on {image.device}; it must be float32 on {device}")
    broken = int((~image.isfinite()).sum())
    if broken:
        raise UserError(f"{what} with {broken} of {image.numel()} values that are not finite")


def _check_ranges(name: str, output: RenderOutput) -> None:
    for image in ("rgb", "opacity"):
        low, high = (float(value) for value in getattr(output, image).detach().aminmax())
        if low < -_RANGE or high > 1 + _RANGE:
            hint = "; divide by 255" if high > 2 and image == "rgb" else ""
            raise UserError(f"{name} rendered {image} from {low:.4g} to {high:.4g}; values must be in [0, 1]{hint}")
    low = float(output.depth.detach().min())
    if low < -1e-4:
        raise UserError(
            f"{name} rendered a depth of {low:.4g}; depths are meters in front of the camera, 0 where empty"
        )


def _check_empty_pixels(name: str, output: RenderOutput) -> None:
    empty = output.opacity <= 0
    for image in ("depth", "normal"):
        value = getattr(output, image).detach().abs().amax(1, keepdim=True)[empty]
        if value.numel() and float(value.max()) > 1e-4:
            raise UserError(
                f"{name} rendered a {image} of {float(value.max()):.4g} where the opacity is 0; it must be 0 there"
            )


def _check_normals(name: str, output: RenderOutput, cameras: Cameras) -> None:
    """Check that normals are unit vectors or 0 and do not all face away; outlines may blend them."""
    drawn = output.opacity[:, 0] > 0.02
    normal = output.normal.detach().permute(0, 2, 3, 1)[drawn]
    if not len(normal):
        return
    length = normal.norm(dim=1)
    odd = ((length - 1).abs() > 0.05) & (length > 1e-4)
    if float(odd.float().mean()) > _SHARE:
        raise UserError(
            f"{name} rendered normals of length {float(length[odd].mean()):.3g}; they must be unit vectors, or 0"
        )
    rays = F.normalize(cameras.rays(), dim=1).permute(0, 2, 3, 1)[drawn]
    away = ((normal * rays).sum(1) > 0.05) & (length > 0.5)
    if float(away.float().mean()) > 0.9:
        raise UserError(f"{name} rendered normals that face away from the camera; they must face it, in world space")


def _check_terms(scene: Representation, output: RenderOutput) -> None:
    """Check that the promised `render_terms` are there whenever gradients are enabled."""
    name = f"{type(scene).__name__}.render"
    missing = [term for term in scene.render_terms if term not in output.terms]
    if missing:
        raise UserError(f"{name} did not return the term '{missing[0]}' that render_terms declares")
    for term, value in output.terms.items():
        check_scalar(f"{name}: term '{term}'", value)


def _different(output: RenderOutput, parts: list[RenderOutput]) -> str:
    """The first image that differs from those of the parts, concatenated; empty if none does."""
    for image in IMAGES:
        one, other = getattr(output, image), torch.cat([getattr(part, image) for part in parts])
        if one.shape != other.shape or float((one - other).abs().mean().detach()) > _SAME:
            return image
    return ""
