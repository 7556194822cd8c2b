"""Rendering of triangle meshes: `draw_mesh` is differentiable, `render_mesh` forward-only and supersampled."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor

from ..base import RenderOutput
from ..cameras import Cameras
from ..triangle_mesh import TriangleMesh, vertex_normals
from .painted import to_display, to_linear
from .rasterization import draw, interpolate, rasterize

_NEUTRAL_GRAY = 0.7
_FAINT = 1e-3
"""Pixels with a lower opacity get no depth and normal, since dividing by the opacity would only amplify rounding."""


def draw_mesh(
    mesh: TriangleMesh,
    cameras: Cameras,
    background: Float[Tensor, "b 3"],
    *,
    color: Callable[[Float[Tensor, "n 3"]], Float[Tensor, "n 3"]] | None = None,
    factors: Float[Tensor, "v 4"] | None = None,
    backend: str = "auto",
    antialias: bool = True,
) -> RenderOutput:
    """Render the mesh unlit and differentiably: with its texture, else its vertex colors, else a neutral gray.

    Differentiable in `mesh.vertices` (through values on the surface, depth, normals and, with `antialias`, the
    silhouettes), in the normals, colors and texture if given, and in the parameters of `color`.

    Faces are rendered from both sides. Pixels at a silhouette are partly opaque, or a mean of both sides. Triangles
    with a vertex in front of the near plane are dropped. Without faces, the images are the background, with zero
    gradients.

    Args:
        mesh: The mesh.
        cameras: The cameras, on any device.
        background: Background color of each camera, sRGB in [0, 1].
        color: Maps the visible world points of all cameras to sRGB in [0, 1] in one call; it replaces the colors of the
            mesh.
        factors: Factors of the texture at the vertices, linear RGB, and 1 where the texture applies, 0 where the factor
            is the color. None: the texture is the color.
        backend: See `rasterization.draw`; `nvdiffrast` is licensed for non-commercial use only.
        antialias: Whether to antialias silhouettes, which also gives them gradients.

    Raises:
        ValueError: The mesh has a texture but no uvs (or the reverse), a face refers to a vertex that does not exist,
            or the backend is unknown, not installed, or does not support the device of the tensors.

    Example:
        >>> output = draw_mesh(mesh, Cameras.orbit([0.0], [15.0]), background=torch.ones(1, 3))
    """
    _check_texture(mesh)
    vertices = mesh.vertices
    cameras = Cameras(
        cameras.camera_to_world.to(vertices), cameras.intrinsics.to(vertices), cameras.height, cameras.width
    )
    raster = draw(vertices, mesh.faces, cameras, backend=backend)
    normals = raster.normals(vertices) if mesh.normals is None else mesh.normals.to(vertices)
    attributes = normals if color else torch.cat([normals, _appearance(mesh).to(vertices)], 1)
    if factors is not None:
        attributes = torch.cat([attributes, factors.to(vertices)], 1)
    normal, values, depth = raster.values(attributes).tensor_split([3, attributes.shape[1]], 1)
    origins, rays = _rays_at(raster.pixels, cameras)
    normal = toward_camera(torch.where(raster.front[:, None], normal, -normal), rays)
    if color:
        values = color(origins + depth * rays)
    elif mesh.texture is not None:
        values, factor = values.split([2, values.shape[1] - 2], 1)
        values = sample_texture(mesh.texture.to(values), values.T[None, :, None])[0, :, 0].T
        if factors is not None:
            values = to_display(factor[:, :3] * torch.where(factor[:, 3:] > 0.5, to_linear(values), 1.0))

    covered = torch.cat([values, torch.ones_like(depth), depth, normal], 1)
    shape = (len(cameras), cameras.height, cameras.width)
    empty = F.pad(background.to(covered), (0, 5))[:, None, None].expand(*shape, 8)
    layers = empty.reshape(-1, 8).index_copy(0, raster.pixels, covered).reshape(*shape, 8)
    if antialias:
        layers = _normalized(*raster.antialias(layers, vertices))
    rgb, opacity, depth, normal = layers.permute(0, 3, 1, 2).split([3, 1, 1, 3], 1)
    return RenderOutput(rgb, opacity, depth, normal)


@torch.no_grad()
def render_mesh(
    mesh: TriangleMesh, cameras: Cameras, background: Float[Tensor, "b 3"], *, supersample: int = 1
) -> RenderOutput:
    """Render the mesh unlit, without gradient: with its texture, else its vertex colors, else a neutral gray.

    Faces are rendered from both sides. Triangles with a vertex in front of the near plane of `rasterize` are dropped.

    Args:
        mesh: The mesh.
        cameras: The cameras.
        background: Background color of each camera, sRGB in [0, 1].
        supersample: Number of samples per pixel along each axis, at least 1; the samples are averaged, and the opacity
            is the fraction of covered samples.

    Raises:
        ValueError: The mesh has a texture but no uvs (or the reverse), or `supersample` < 1.

    Example:
        >>> corners = torch.tensor([[-0.5, -0.5, 0.0], [0.5, -0.5, 0.0], [0.0, 0.5, 0.0]])
        >>> triangle = TriangleMesh(corners, torch.tensor([[0, 1, 2]]))
        >>> output = render_mesh(triangle, Cameras.orbit([0.0], [15.0], height=64), torch.ones(1, 3), supersample=4)
    """
    if supersample < 1:
        raise ValueError(f"supersample is {supersample}; it is the number of samples per pixel side, at least 1")
    _check_texture(mesh)
    fragments = rasterize(
        mesh.vertices, mesh.faces, cameras.resized(cameras.height * supersample, cameras.width * supersample)
    )
    normal, values = interpolate(fragments, mesh.faces, torch.cat([_normals(mesh), _appearance(mesh)], 1)).tensor_split(
        [3], 1
    )
    mask = (fragments.triangle >= 0)[:, None].float()
    color = values if mesh.texture is None else sample_texture(mesh.texture, values) * mask
    normal = torch.where(fragments.front[:, None], normal, -normal)
    layers = torch.cat([color, normal, fragments.depth[:, None], mask], 1)
    if supersample > 1:
        layers = F.avg_pool2d(layers, supersample)
    color, normal, depth, opacity = layers.split([3, 3, 1, 1], 1)
    return RenderOutput(
        rgb=color + (1 - opacity) * background[:, :, None, None],
        opacity=opacity,
        depth=torch.where(opacity > 0, depth / opacity, depth),
        normal=toward_camera(normal, cameras.rays()),
    )


def sample_texture(texture: Float[Tensor, "c th tw"], uvs: Float[Tensor, "b 2 h w"]) -> Float[Tensor, "b c h w"]:
    """Sample a texture bilinearly, without mipmaps; texel centers at half-integers, clamped at the border, v down."""
    batch, _, height, width = uvs.shape
    # One tall image, since grid_sample would need a copy of the texture per image.
    grid = (uvs * 2 - 1).permute(0, 2, 3, 1).reshape(1, batch * height, width, 2)
    out = F.grid_sample(texture[None], grid, mode="bilinear", padding_mode="border", align_corners=False)
    return out.reshape(len(texture), batch, height, width).transpose(0, 1)


def _normalized(layers: Float[Tensor, "b h w 8"], mixed: Int64[Tensor, " m"]) -> Float[Tensor, "b h w 8"]:
    """Normalize depth and normal of the mixed pixels by the opacity."""
    flat = layers.flatten(0, 2)
    rgb, opacity, depth, normal = flat.index_select(0, mixed).split([3, 1, 1, 3], 1)
    visible = opacity > _FAINT
    depth = torch.where(visible, depth, 0) / torch.where(visible, opacity, 1)
    normal = _unit(torch.where(visible, normal, 0), 1)
    return flat.index_copy(0, mixed, torch.cat([rgb, opacity, depth, normal], 1)).reshape(layers.shape)


def _rays_at(pixels: Int64[Tensor, " n"], cameras: Cameras) -> tuple[Float[Tensor, "n 3"], Float[Tensor, "n 3"]]:
    """`Cameras.position` and `Cameras.rays` at flat pixel indices, faster than for whole images."""
    columns, rows = (torch.arange(count).to(cameras.intrinsics) + 0.5 for count in (cameras.width, cameras.height))
    # The ray through pixel (x, y) is x a + y b + c. The last bits of a matrix product depend on the number of threads.
    a, b, c = (cameras.camera_to_world[:, :3, :3] @ torch.linalg.inv(cameras.intrinsics)).unbind(2)
    rays = (columns[:, None] * a[:, None])[:, None] + (rows[:, None] * b[:, None] + c[:, None])[:, :, None]
    camera = pixels // (cameras.height * cameras.width)
    return cameras.position.index_select(0, camera), rays.flatten(0, 2).index_select(0, pixels)


def _check_texture(mesh: TriangleMesh) -> None:
    if (mesh.texture is None) != (mesh.uvs is None):
        raise ValueError("a textured mesh needs both `uvs` and `texture`; give both or neither")


def _normals(mesh: TriangleMesh) -> Float[Tensor, "v 3"]:
    return vertex_normals(mesh.vertices, mesh.faces) if mesh.normals is None else mesh.normals


def _appearance(mesh: TriangleMesh) -> Float[Tensor, "v c"]:
    """The vertex attributes that determine the color: texture coordinates or colors."""
    appearance = mesh.uvs if mesh.uvs is not None else mesh.colors
    return torch.full_like(mesh.vertices, _NEUTRAL_GRAY) if appearance is None else appearance


def toward_camera(normal: Float[Tensor, "n 3 *image"], rays: Float[Tensor, "n 3 *image"]) -> Tensor:
    """Unit normals; a smooth normal that points away from the viewer is made perpendicular to the ray."""
    away = (normal * rays).sum(1, keepdim=True).clamp(min=0) / rays.square().sum(1, keepdim=True)
    normal = normal - away * rays
    return _unit(normal, 1)


def _unit(vectors: Float[Tensor, "*image"], axis: int) -> Float[Tensor, "*image"]:
    # F.normalize is ten times slower over a channel axis.
    return vectors * vectors.square().sum(axis, keepdim=True).clamp(min=1e-24).rsqrt()
