"""gsplat's `rasterization` on the CPU: its own Python, its own torch reference for the projection and the compositing.

gsplat has no CPU path. Where it would launch a kernel, the torch reference that its own tests compare the kernels with
takes the place. What that reference leaves to other kernels stands here: lists of what lies in which tile (one list for
the whole picture), which Gaussians a pixel meets, with the kernels' cut and stop, and the two functions of nerfacc.
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
"""Numbers of features that gsplat 1.5 and 1.6 both have kernels for; 1.5 fills up others, 1.6 refuses them."""


@dataclass(frozen=True)
class Constants:
    """Of the installed gsplat's kernels."""

    max_alpha: float
    min_alpha: float
    stop: float


def constants() -> Constants:
    """Read from the CUDA source that gsplat comes with."""
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
    """gsplat's `rasterization` for CPU tensors; `stops`: whether a pixel ends early, as the kernels' does."""
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
    """The reference's, with the kernel's box: as far as the alpha cut, in whole pixels, and nothing outside."""
    covariances, _precisions = torch_impl._quat_scale_to_covar_preci(quats, scales, True, False)
    _, means2d, depths, conics, _compensations = torch_impl._fully_fused_projection(
        means, covariances, viewmats, Ks, width, height, eps2d, near_plane, far_plane
    )
    a, b, c = conics.detach().unbind(-1)
    sigma = (torch.stack([c, a], -1) / (a * c - b * b)[..., None]).sqrt()
    reach = (2 * (opacities.detach() / kernel.min_alpha).log()).clamp_min(0).sqrt().clamp_max(3.33)
    radii = (reach[:, None] * sigma).ceil()
    inside = (means2d + radii > 0) & (means2d - radii < torch.tensor([width, height]))
    drawn = inside.all(-1) & (depths > near_plane) & (depths < far_plane) & (opacities >= kernel.min_alpha)
    return (radii * drawn[..., None]).int(), means2d, depths, conics, None


def _one_list(means2d: Tensor, radii: Tensor, depths: Tensor, *_: Any, **__: Any) -> tuple[Tensor, Tensor, Tensor]:
    """All that is drawn in all images, nearest first."""
    drawn = (radii > 0).all(-1).flatten().nonzero()[:, 0]
    order = drawn[depths.flatten()[drawn].argsort(stable=True)].int()
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
    """Gaussian, pixel and image of everything that a pixel meets before it ends; one pixel after the other."""
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
    """nerfacc's: alpha times what the earlier ones of the same ray let through, and that itself."""
    logarithm = torch.log1p(-alphas.double())
    before = logarithm.cumsum(0) - logarithm
    first = torch.searchsorted(ray_indices, torch.arange(n_rays)).clamp_max(max(len(alphas) - 1, 0))
    through = (before - before[first][ray_indices]).exp().to(alphas)
    return alphas * through, through


def _accumulate(weights: Tensor, values: Tensor | None, *, ray_indices: Tensor, n_rays: int) -> Tensor:
    """nerfacc's: the weighted sum along each ray."""
    weighted = weights[:, None] if values is None else weights[:, None] * values
    return torch.zeros(n_rays, weighted.shape[1]).index_add(0, ray_indices, weighted)
