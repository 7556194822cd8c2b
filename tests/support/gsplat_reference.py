"""gsplat's `rasterization` on the CPU: its Python code with its torch reference of projection and compositing.

gsplat has no CPU path. Its kernels are replaced by the torch reference with which gsplat's own tests compare them. This
module implements the parts that the reference leaves to other kernels: the tile lists (one list for the whole image),
the Gaussians of each pixel, with the cut and early stop of the kernels, and two functions of nerfacc.
"""

from __future__ import annotations

import importlib
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import pytest
import torch
from torch import Tensor

COMPILED_CHANNELS = (1, 2, 3, 4, 5, 8, 9, 16, 17, 32)
"""Numbers of channels for which gsplat 1.5 and 1.6 both have kernels; 1.5 pads others, 1.6 refuses them."""


@dataclass(frozen=True)
class Constants:
    """Constants of the kernels of the installed gsplat."""

    max_alpha: float
    min_alpha: float
    stop: float


def constants() -> Constants:
    """Read the constants from the CUDA source in the gsplat package."""
    folder = Path(pytest.importorskip("gsplat").__file__).parent / "cuda"
    source = "\n".join(path.read_text() for path in (folder / "include" / "Common.h", *folder.rglob("*3DGSFwd.cu")))
    max_alpha = re.search(r"#define MAX_ALPHA \(?([\d.]+)f|alpha = min\(([\d.]+)f", source)
    stop = re.search(r"#define TRANSMITTANCE_THRESHOLD \(?([\d.e-]+)f|next_T <= ([\d.e-]+)f", source)
    min_alpha = re.search(r"#define ALPHA_THRESHOLD \(1\.f / ([\d.]+)f\)", source)
    assert max_alpha and stop and min_alpha
    numbers = (next(filter(None, found.groups())) for found in (max_alpha, min_alpha, stop))
    max_alpha, inverse_min_alpha, stop = map(float, numbers)
    return Constants(max_alpha, 1 / inverse_min_alpha, stop)


@contextmanager
def reference(*, stops: bool) -> Iterator[Callable[..., Any]]:
    """gsplat's `rasterization` for CPU tensors; `stops`: whether pixels stop early, as in the kernels."""
    rendering = importlib.import_module("gsplat.rendering")
    kernel, torch_impl = constants(), importlib.import_module("gsplat.cuda._torch_impl")
    wrapper = importlib.import_module("gsplat.cuda._wrapper")
    met = partial(_indices, kernel=kernel, stop=kernel.stop if stops else 0.0)
    nerfacc = SimpleNamespace(render_weight_from_alpha=_weights, accumulate_along_rays=_accumulate)
    with ExitStack() as stack:
        stack.enter_context(patch.dict(sys.modules, {"nerfacc": nerfacc}))
        stack.enter_context(patch.object(wrapper, "rasterize_to_indices_in_range", met))
        for name, stand_in in {
            "fully_fused_projection": partial(_projection, torch_impl, kernel),
            "isect_tiles": _one_list,
            "isect_offset_encode": lambda ids, images, columns, rows: torch.zeros(
                images, rows, columns, dtype=torch.int
            ),
            "rasterize_to_pixels": partial(_pixels, torch_impl),
        }.items():
            stack.enter_context(patch.object(rendering, name, stand_in))
        yield rendering.rasterization


def _projection(
    torch_impl: Any,
    kernel: Constants,
    means: Tensor,
    covars: None,
    quats: Tensor,
    scales: Tensor,
    viewmats: Tensor,
    Ks: Tensor,
    width: int,
    height: int,
    *,
    eps2d: float,
    near_plane: float,
    far_plane: float,
    opacities: Tensor,
    **_: Any,
) -> tuple[Tensor, Tensor, Tensor, Tensor, None]:
    """The projection of the reference with the culling of the kernel: boxes in whole pixels, up to the alpha cut."""
    covariances, _precisions = torch_impl._quat_scale_to_covar_preci(quats, scales, True, False)
    _, means2d, depths, conics, _compensations = torch_impl._fully_fused_projection(
        means, covariances, viewmats, Ks, width, height, eps2d, near_plane, far_plane
    )
    a, b, c = conics.detach().unbind(-1)
    sigma = (torch.stack([c, a], -1) / (a * c - b * b)[..., None]).sqrt()
    reach = (2 * (opacities.detach() / kernel.min_alpha).log()).clamp_min(0).sqrt().clamp_max(3.33)
    radii = (reach[:, None] * sigma).ceil()
    inside = (means2d + radii > 0) & (means2d - radii < torch.tensor([width, height]))
    visible = inside.all(-1) & (depths > near_plane) & (depths < far_plane) & (opacities >= kernel.min_alpha)
    return (radii * visible[..., None]).int(), means2d, depths, conics, None


def _one_list(means2d: Tensor, radii: Tensor, depths: Tensor, *_: Any, **__: Any) -> tuple[Tensor, Tensor, Tensor]:
    """The visible Gaussians of all images, nearest first."""
    visible = (radii > 0).all(-1).flatten().nonzero()[:, 0]
    order = visible[depths.flatten()[visible].argsort(stable=True)].int()
    return order, order, order


def _pixels(torch_impl: Any, means2d: Tensor, conics: Tensor, colors: Tensor, *arguments: Any, **_: Any) -> Any:
    assert colors.shape[-1] in COMPILED_CHANNELS
    return torch_impl._rasterize_to_pixels(means2d, conics, colors, *arguments)


def _indices(
    start: int,
    end: int,
    transmittances: Tensor,
    means2d: Tensor,
    conics: Tensor,
    opacities: Tensor,
    width: int,
    height: int,
    tile_size: int,
    offsets: Tensor,
    flatten_ids: Tensor,
    *,
    kernel: Constants,
    stop: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """Gaussian, pixel and image of all contributions before the early stop, pixel by pixel."""
    assert start == 0 and end * tile_size**2 >= len(flatten_ids), "meant for one step"
    pixels = torch.arange(height * width)
    where = torch.stack([pixels % width, pixels // width], -1) + 0.5
    found = []
    for image in range(len(means2d)):
        ids = flatten_ids[flatten_ids // means2d.shape[1] == image] % means2d.shape[1]
        x, y = (where[:, None] - means2d[image, ids].detach()).unbind(-1)
        a, b, c = conics[image, ids].detach().unbind(-1)
        exponent = 0.5 * (a * x * x + c * y * y) + b * x * y
        alpha = (opacities[image, ids].detach() * torch.exp(-exponent)).clamp_max(kernel.max_alpha)
        counts = (alpha >= kernel.min_alpha) & (exponent >= 0)
        counts &= torch.cumprod(1 - alpha * counts, 1) > stop
        pixel, position = counts.nonzero().unbind(1)
        found.append((ids[position].long(), pixel, torch.full_like(pixel, image)))
    gaussian, pixel, image = (torch.cat(parts) for parts in zip(*found, strict=True))
    return gaussian, pixel, image


def _weights(alphas: Tensor, *, ray_indices: Tensor, n_rays: int) -> tuple[Tensor, Tensor]:
    """nerfacc's weights: alpha times transmittance, and the transmittance."""
    logarithm = torch.log1p(-alphas.double())
    before = logarithm.cumsum(0) - logarithm
    first = torch.searchsorted(ray_indices, torch.arange(n_rays)).clamp_max(max(len(alphas) - 1, 0))
    through = (before - before[first][ray_indices]).exp().to(alphas)
    return alphas * through, through


def _accumulate(weights: Tensor, values: Tensor | None, *, ray_indices: Tensor, n_rays: int) -> Tensor:
    """nerfacc's accumulation: the weighted sum along each ray."""
    weighted = weights[:, None] if values is None else weights[:, None] * values
    return torch.zeros(n_rays, weighted.shape[1]).index_add(0, ray_indices, weighted)
