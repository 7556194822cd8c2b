"""Reference implementation of Gaussian splatting in torch: all Gaussians of a tile at every pixel of the tile.

It is the test oracle of the fast backends (any dtype, any device), and the CUDA path without gsplat. It omits nothing
that `semantics` includes. Tiles are rendered in batches of at most `BATCH` (pixel, Gaussian) pairs. Images with more
than `PAIRS` pairs are recomputed in the backward pass, which bounds the memory.
"""

from __future__ import annotations

import torch
from jaxtyping import Float, Int64
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from ...cameras import Cameras
from .geometry import facing_normals, rotation_matrices, to_camera
from .reference_tiles import TILE, joined, tile_lists, tile_pixels
from .semantics import BLUR, JACOBIAN_MARGIN, MAX_ALPHA, MIN_ALPHA, NEAR, SplatOutput

BATCH = 2**18
PAIRS = 2**24
FEATURES = 7
"""Number of features: red, green, blue, depth, normal x, y, z."""


def splat_torch(
    means: Float[Tensor, "n 3"],
    quaternions: Float[Tensor, "n 4"],
    scales: Float[Tensor, "n 3"],
    opacities: Float[Tensor, " n"],
    colors: Float[Tensor, "n 3"],
    cameras: Cameras,
) -> SplatOutput:
    """The torch backend of `splat`: any device and precision."""
    world_to_camera = cameras.world_to_camera.to(means)
    rotations = rotation_matrices(quaternions)
    local = to_camera(means, world_to_camera)
    normals = facing_normals(rotations, scales, local, world_to_camera)

    in_front = (local[..., 2] >= NEAR) & (opacities >= MIN_ALPHA)
    # Culled Gaussians get harmless coordinates, so that no infinity enters the gradient.
    local = torch.where(in_front[..., None], local, local.new_tensor([0.0, 0.0, 1.0]))
    screen_means, covariances = _project(local, rotations * scales[:, None], world_to_camera, cameras)
    reach = (2 * (opacities / MIN_ALPHA).clamp_min(1).log())[:, None] * covariances.diagonal(dim1=2, dim2=3)
    reach = reach.detach().sqrt()
    size = screen_means.new_tensor([cameras.width, cameras.height])
    inside = ((screen_means + reach > 0) & (screen_means - reach < size)).all(-1)
    visible = in_front & inside

    inverse = torch.linalg.inv(covariances)
    shape = torch.stack([inverse[..., 0, 0], inverse[..., 0, 1], inverse[..., 1, 1]], -1)
    shared = torch.cat([opacities[:, None], colors], 1).expand(len(cameras), -1, -1)
    rows = torch.cat([screen_means, shape, shared, local[..., 2:], normals], 2)
    images = [
        _composite(rows[camera, mask], reach[camera, mask], (cameras.height, cameras.width))
        for camera, mask in enumerate(visible)
    ]
    rgb, depth, normal, opacity = torch.stack(images).split([3, 1, 3, 1], 1)
    return SplatOutput(rgb, opacity, depth, normal, screen_means, visible)


def _project(
    local: Float[Tensor, "b n 3"],
    axes: Float[Tensor, "n 3 3"],
    world_to_camera: Float[Tensor, "b 4 4"],
    cameras: Cameras,
) -> tuple[Float[Tensor, "b n 2"], Float[Tensor, "b n 2 2"]]:
    """Pixel centers and covariances; `axes` holds a Gaussian's scaled principal axes as columns."""
    intrinsics = cameras.intrinsics.to(local)[:, None]
    focal, center = intrinsics[..., (0, 1), (0, 1)], intrinsics[..., :2, 2]
    slope = local[..., :2] / local[..., 2:]
    size = local.new_tensor([cameras.width, cameras.height])
    margin = JACOBIAN_MARGIN * size / focal
    near_slope = torch.minimum(torch.maximum(slope, -center / focal - margin), (size - center) / focal + margin)
    # d(pixel)/d(local) = focal / z * [I | -slope]
    jacobian = torch.cat([torch.eye(2).to(local).expand(*slope.shape, 2), -near_slope[..., None]], -1)
    jacobian = (focal / local[..., 2:])[..., None] * jacobian
    footprint = jacobian @ (world_to_camera[:, None, :3, :3] @ axes)
    covariances = footprint @ footprint.transpose(2, 3) + BLUR * torch.eye(2).to(local)
    return slope * focal + center, covariances


def _composite(
    rows: Float[Tensor, "n k"], reach: Float[Tensor, "n 2"], size: tuple[int, int]
) -> Float[Tensor, "c h w"]:
    """An image with the features and, as last channel, the opacity.

    A row of a Gaussian: center, inverse covariance (xx, xy, yy), opacity, features.
    """
    grid = (-(-size[0] // TILE), -(-size[1] // TILE))
    # By z-depth, ties by index.
    order = torch.argsort(rows[:, -4].detach(), stable=True)
    tiles = tile_lists(rows[order, :2].detach(), reach[order], grid)
    # The row that pads the lists is transparent.
    rows, padding = torch.cat([rows[order], rows.new_zeros(1, rows.shape[1])]), len(rows)
    kept = TILE**2 * len(tiles.ids) <= PAIRS
    # Empty, but connected to the autograd graph.
    where, parts = [tiles.ids[:0]], [rows[:0, : FEATURES + 1]]
    for batch, some in tiles.batches(min(BATCH, PAIRS)):
        inputs = (tile_pixels(batch, some, grid[1]).to(rows) + 0.5, rows, tiles.padded(batch, padding))
        part = _composite_pixels(*inputs) if kept else checkpoint(_composite_pixels, *inputs, use_reentrant=False)
        where.append((batch[:, None] * TILE**2 + some).flatten())
        parts.append(part.flatten(0, 1))
    values = rows.new_zeros(grid[0] * grid[1] * TILE**2, FEATURES + 1)
    return joined(values.index_copy(0, torch.cat(where), torch.cat(parts)), grid, size)


def _composite_pixels(
    pixels: Float[Tensor, "t p 2"], rows: Float[Tensor, "n k"], ids: Int64[Tensor, "t l"]
) -> Float[Tensor, "t p c"]:
    """Composite all Gaussians of a tile's list at each pixel of the tile, front to back."""
    center, shape, opacity, features = rows[ids].split([2, 3, 1, FEATURES], 2)
    x, y = (pixels[:, :, None] - center[:, None]).unbind(-1)
    a, b, c = shape[:, None].unbind(-1)
    distance = a * x * x + 2 * b * x * y + c * y * y
    alpha = (opacity[:, None, :, 0] * torch.exp(-0.5 * distance)).clamp_max(MAX_ALPHA)
    alpha = torch.where(alpha >= MIN_ALPHA, alpha, torch.zeros_like(alpha))
    after = torch.cumprod(1 - alpha, 2)
    before = torch.cat([torch.ones_like(after[..., :1]), after[..., :-1]], 2)
    return torch.cat([(before * alpha) @ features, 1 - after[..., -1:]], 2)
