"""Pictures of a triangle mesh: `draw_mesh` differentiably, `render_mesh` forward only, supersampled, on the CPU."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor

from .base import RenderOutput
from .cameras import Cameras
from .mesh import TriangleMesh, vertex_normals
from .rasterization import draw, interpolate, rasterize

_NEUTRAL_GREY = 0.7
_FAINT = 1e-3
"""Less covered pixels have no depth and normal: dividing by the opacity would only amplify rounding."""


def draw_mesh(
    mesh: TriangleMesh,
    cameras: Cameras,
    background: Float[Tensor, "b 3"],
    *,
    colour: Callable[[Float[Tensor, "n 3"]], Float[Tensor, "n 3"]] | None = None,
    backend: str = "auto",
    antialias: bool = True,
) -> RenderOutput:
    """Draw the mesh unlit and differentiably: its texture, else its vertex colours, else a neutral grey.

    Differentiable in `mesh.vertices` (through values on the surface, depth, normals and, with `antialias`, the
    silhouettes), in the normals, colours and texture if they are given, and in whatever `colour` depends on.

    colour: maps the visible world points of all cameras to sRGB in [0, 1], in one call, and replaces the mesh's own
    colours.
    backend: see `rasterization.draw`; `nvdiffrast` is licensed for non-commercial use only.

    Both sides of a face show. Pixels at a silhouette are partly opaque, or a mean of what meets there. Triangles that
    reach nearer to the camera than the near plane are dropped. Without faces the pictures show the background, with
    zero gradients.

    Raises ValueError for a mesh with a texture but no uvs (or the reverse), for faces that name a vertex that does not
    exist, and for a backend that is unknown or that the tensors' device or the installation does not allow.
    """
    _check_texture(mesh)
    vertices = mesh.vertices
    cameras = Cameras(
        cameras.camera_to_world.to(vertices), cameras.intrinsics.to(vertices), cameras.height, cameras.width
    )
    raster = draw(vertices, mesh.faces, cameras, backend=backend)
    normals = raster.normals(vertices) if mesh.normals is None else mesh.normals.to(vertices)
    attributes = normals if colour else torch.cat([normals, _appearance(mesh).to(vertices)], 1)
    normal, values, depth = raster.values(attributes).tensor_split([3, attributes.shape[1]], 1)
    origins, rays = _rays_at(raster.pixels, cameras)
    normal = _towards_camera(torch.where(raster.front[:, None], normal, -normal), rays)
    if colour:
        values = colour(origins + depth * rays)
    elif mesh.texture is not None:
        values = sample_texture(mesh.texture.to(values), values.T[None, :, None])[0, :, 0].T

    drawn = torch.cat([values, torch.ones_like(depth), depth, normal], 1)
    shape = (len(cameras), cameras.height, cameras.width)
    empty = F.pad(background.to(drawn), (0, 5))[:, None, None].expand(*shape, 8)
    layers = empty.reshape(-1, 8).index_copy(0, raster.pixels, drawn).reshape(*shape, 8)
    if antialias:
        layers = _normalised(*raster.antialias(layers, vertices))
    rgb, opacity, depth, normal = layers.permute(0, 3, 1, 2).split([3, 1, 1, 3], 1)
    return RenderOutput(rgb, opacity, depth, normal)


@torch.no_grad()
def render_mesh(
    mesh: TriangleMesh, cameras: Cameras, background: Float[Tensor, "b 3"], *, supersample: int = 1
) -> RenderOutput:
    """Draw the mesh unlit: its texture, else its vertex colours, else a neutral grey. Both sides of a face show.

    `supersample` draws at that multiple of the picture size and averages; opacity is the share of covered samples.
    Triangles that reach nearer to the camera than `rasterize`'s near plane are dropped. Carries no gradient.

    Raises ValueError for a mesh with a texture but no uvs (or the reverse), or if `supersample` < 1.
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
    colour = values if mesh.texture is None else sample_texture(mesh.texture, values) * mask
    normal = torch.where(fragments.front[:, None], normal, -normal)
    layers = torch.cat([colour, normal, fragments.depth[:, None], mask], 1)
    if supersample > 1:
        layers = F.avg_pool2d(layers, supersample)
    colour, normal, depth, opacity = layers.split([3, 3, 1, 1], 1)
    return RenderOutput(
        rgb=colour + (1 - opacity) * background[:, :, None, None],
        opacity=opacity,
        depth=torch.where(opacity > 0, depth / opacity, depth),
        normal=_towards_camera(normal, cameras.rays()),
    )


def sample_texture(texture: Float[Tensor, "c th tw"], uvs: Float[Tensor, "b 2 h w"]) -> Float[Tensor, "b c h w"]:
    """Bilinear look-up without mip-maps; texel centres at half-integers, clamped at the border. v grows downwards."""
    batch, _, height, width = uvs.shape
    # One tall picture: grid_sample would otherwise want a copy of the texture per image.
    grid = (uvs * 2 - 1).permute(0, 2, 3, 1).reshape(1, batch * height, width, 2)
    out = F.grid_sample(texture[None], grid, mode="bilinear", padding_mode="border", align_corners=False)
    return out.reshape(len(texture), batch, height, width).transpose(0, 1)


def _normalised(layers: Float[Tensor, "b h w 8"], mixed: Int64[Tensor, " m"]) -> Float[Tensor, "b h w 8"]:
    """Depth and normal of mixed pixels, divided by the opacity."""
    flat = layers.flatten(0, 2)
    rgb, opacity, depth, normal = flat.index_select(0, mixed).split([3, 1, 1, 3], 1)
    visible = opacity > _FAINT
    depth = torch.where(visible, depth, 0) / torch.where(visible, opacity, 1)
    normal = _unit(torch.where(visible, normal, 0), 1)
    return flat.index_copy(0, mixed, torch.cat([rgb, opacity, depth, normal], 1)).reshape(layers.shape)


def _rays_at(pixels: Int64[Tensor, " n"], cameras: Cameras) -> tuple[Float[Tensor, "n 3"], Float[Tensor, "n 3"]]:
    """`Cameras.position` and `Cameras.rays` at flat indices into the pictures, in a fraction of their time."""
    columns, rows = (torch.arange(count).to(cameras.intrinsics) + 0.5 for count in (cameras.width, cameras.height))
    # The ray through pixel (x, y) is x a + y b + c. A matrix product's last bits would depend on the number of threads.
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
    """Texture coordinates or colours."""
    appearance = mesh.uvs if mesh.uvs is not None else mesh.colours
    return torch.full_like(mesh.vertices, _NEUTRAL_GREY) if appearance is None else appearance


def _towards_camera(normal: Float[Tensor, "n 3 *picture"], rays: Float[Tensor, "n 3 *picture"]) -> Tensor:
    """Unit normals; a smooth normal that leans away from the viewer near an outline is turned back to the outline."""
    away = (normal * rays).sum(1, keepdim=True).clamp(min=0) / rays.square().sum(1, keepdim=True)
    normal = normal - away * rays
    return _unit(normal, 1)


def _unit(vectors: Float[Tensor, "*picture"], axis: int) -> Float[Tensor, "*picture"]:
    # F.normalize is ten times slower over a channel axis.
    return vectors * vectors.square().sum(axis, keepdim=True).clamp(min=1e-24).rsqrt()
