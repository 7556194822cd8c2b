"""Preprocessing of a depth model's input, as `preprocessor_config.json` specifies, and its inverse, in differentiable
torch.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from ..files.json_files import parse_json_object

_LARGEST_SIDE = 4096
_MODES = {1: "bicubic", 2: "bilinear", 3: "bicubic"}
"""Interpolation modes by Pillow's number. Torch has no Lanczos filter (1); the libraries also use the bicubic one for
it."""
_DEFAULTS: dict[str, dict[str, Any]] = {
    "DPT": {"size": [384, 384], "resample": 3, "keep_aspect_ratio": False, "ensure_multiple_of": 1},
    "ZoeDepth": {"size": [384, 512], "resample": 2, "keep_aspect_ratio": True, "ensure_multiple_of": 32},
}
"""Defaults of transformers' image processors for settings that the file omits."""


@dataclass(frozen=True)
class Preprocessing:
    """A preprocessing that clamps to [0, 1], resizes to about the size the model was trained at, and normalizes."""

    height: int
    width: int
    """Width of the model's input in pixels, before `keep_aspect_ratio` and `multiple` are applied."""
    multiple: int
    keep_aspect_ratio: bool
    mode: str
    """Interpolation mode, "bilinear" or "bicubic"."""
    mean: tuple[float, ...]
    std: tuple[float, ...]
    mirror_border: bool = False
    """Whether the image is padded by reflection and resized with aligned corners, as ZoeDepth does."""

    @classmethod
    def from_json(cls, text: str | bytes) -> Preprocessing:
        """The preprocessing of a DPT or ZoeDepth image processor (Depth Anything uses DPT's).

        Raises ValueError for any other image processor.
        """
        given = parse_json_object(text, "it")
        name = str(given.get("image_processor_type") or given.get("feature_extractor_type") or "DPT")
        kind = next((kind for kind in _DEFAULTS if name.startswith(kind)), None)
        if kind is None:
            raise ValueError(f"image processor {name} is not known; known: {', '.join(_DEFAULTS)}")
        settings = _DEFAULTS[kind] | {key: value for key, value in given.items() if value is not None}
        for step in ("do_resize", "do_rescale", "do_normalize"):
            if not settings.get(step, True):
                raise ValueError(f"{step} is false; images that are resized, rescaled and normalized are accepted")
        if not isinstance(settings["resample"], int) or settings["resample"] not in _MODES:
            raise ValueError(f"resample is {settings['resample']!r}; {', '.join(map(str, _MODES))} are accepted")
        height, width = _size(settings["size"])
        multiple = settings["ensure_multiple_of"]
        if not isinstance(multiple, int) or not 1 <= multiple <= _LARGEST_SIDE:
            raise ValueError(f"ensure_multiple_of is {multiple!r}; positive whole numbers are accepted")
        return cls(
            height,
            width,
            multiple,
            bool(settings["keep_aspect_ratio"]),
            _MODES[settings["resample"]],
            _per_channel(settings, "image_mean", least=-math.inf),
            _per_channel(settings, "image_std", least=0.0),
            mirror_border=kind == "ZoeDepth" and bool(settings.get("do_pad", True)),
        )

    def __call__(self, image: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b 3 h2 w2"]:
        """Convert sRGB to the model's pixel values. The gradient is zero outside [0, 1]."""
        image = image.clamp(0, 1)
        size = self.input_size(*self._with_border(*image.shape[-2:]))
        if self.mirror_border:
            bottom, right = _border(image.shape[-2]), _border(image.shape[-1])
            image = F.pad(image, (right, right, bottom, bottom), mode="reflect")
            image = F.interpolate(image, size, mode=self.mode, align_corners=True)
        else:
            image = _resized(image, size, self.mode)
        mean, std = (torch.tensor(values).to(image)[:, None, None] for values in (self.mean, self.std))
        return (image - mean) / std

    def undo(self, answer: Float[Tensor, "b 1 h2 w2"], height: int, width: int) -> Float[Tensor, "b 1 h w"]:
        """Resize the model's output to the image's size and crop the reflected border."""
        bordered = self._with_border(height, width)
        top, left = ((outer - inner) // 2 for outer, inner in zip(bordered, (height, width), strict=True))
        return _resized(answer, bordered, "bilinear")[..., top : top + height, left : left + width]

    def input_size(self, height: int, width: int) -> tuple[int, int]:
        """Height and width of the model's input for an image.

        With `keep_aspect_ratio`, both sides get the scale that is closer to 1.
        """
        scale_y, scale_x = self.height / height, self.width / width
        if self.keep_aspect_ratio:
            scale_y = scale_x = scale_x if abs(1 - scale_x) < abs(1 - scale_y) else scale_y
        rows, columns = (
            max(self.multiple, round(scale * size / self.multiple) * self.multiple)
            for scale, size in ((scale_y, height), (scale_x, width))
        )
        return rows, columns

    def _with_border(self, height: int, width: int) -> tuple[int, int]:
        if not self.mirror_border:
            return height, width
        return height + 2 * _border(height), width + 2 * _border(width)


def _border(size: int) -> int:
    """Width of the reflected border by ZoeDepth's rule (Bhat et al. 2023, its published inference code)."""
    return int(math.sqrt(size / 2) * 3)


def _resized(image: Float[Tensor, "b c h w"], size: tuple[int, int], mode: str) -> Float[Tensor, "b c h2 w2"]:
    if image.shape[-2:] == size:
        return image
    return F.interpolate(image, size, mode=mode, antialias=True, align_corners=False)


def _size(given: Any) -> tuple[int, int]:
    """Height and width of the model's input, from {"height": h, "width": w} or, in older files, one number for both."""
    if isinstance(given, dict) and given.keys() >= {"height", "width"}:
        given = [given["height"], given["width"]]
    if isinstance(given, int):
        given = [given, given]
    pair = given if isinstance(given, list) and len(given) == 2 else []
    if pair and all(isinstance(side, int) and 0 < side <= _LARGEST_SIDE for side in pair):
        return pair[0], pair[1]
    raise ValueError(f"size is {given!r}; a height and a width in pixels are accepted")


def _per_channel(settings: Mapping[str, Any], key: str, *, least: float) -> tuple[float, ...]:
    """Three finite numbers above `least`; 0.5 by default."""
    given = settings.get(key, [0.5] * 3)
    three = isinstance(given, list) and len(given) == 3 and all(isinstance(value, int | float) for value in given)
    if not three or not all(math.isfinite(value) and value > least for value in given):
        raise ValueError(f"{key} is {given!r}; three finite numbers{' above 0' if least == 0 else ''} are accepted")
    return tuple(given)
