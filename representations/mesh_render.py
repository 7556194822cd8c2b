"""Pictures of a triangle mesh on the CPU."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from .base import RenderOutput
from .cameras import Cameras
from .mesh import TriangleMesh, vertex_normals
from .rasterization import interpolate, rasterize

_NEUTRAL_GREY = 0.7


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
    if (mesh.texture is None) != (mesh.uvs is None):
        raise ValueError("a textured mesh needs both `uvs` and `texture`; give both or neither")
    normals = vertex_normals(mesh.vertices, mesh.faces) if mesh.normals is None else mesh.normals
    appearance = mesh.uvs if mesh.uvs is not None else mesh.colours
    if appearance is None:
        appearance = torch.full_like(mesh.vertices, _NEUTRAL_GREY)

    fragments = rasterize(
        mesh.vertices, mesh.faces, cameras.resized(cameras.height * supersample, cameras.width * supersample)
    )
    normal, values = interpolate(fragments, mesh.faces, torch.cat([normals, appearance], 1)).tensor_split([3], 1)
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
        normal=_towards_camera(normal, cameras),
    )


def sample_texture(texture: Float[Tensor, "c th tw"], uvs: Float[Tensor, "b 2 h w"]) -> Float[Tensor, "b c h w"]:
    """Bilinear look-up without mip-maps; texel centres at half-integers, clamped at the border. v grows downwards."""
    batch, _, height, width = uvs.shape
    # One tall picture: grid_sample would otherwise want a copy of the texture per image.
    grid = (uvs * 2 - 1).permute(0, 2, 3, 1).reshape(1, batch * height, width, 2)
    out = F.grid_sample(texture[None], grid, mode="bilinear", padding_mode="border", align_corners=False)
    return out.reshape(-1, batch, height, width).transpose(0, 1)


def _towards_camera(normal: Float[Tensor, "b 3 h w"], cameras: Cameras) -> Float[Tensor, "b 3 h w"]:
    """Unit normals; a smooth normal that leans away from the viewer near an outline is turned back to the outline."""
    rays = cameras.rays()
    away = (normal * rays).sum(1, keepdim=True).clamp(min=0) / rays.square().sum(1, keepdim=True)
    normal = normal - away * rays
    # F.normalize is ten times slower over a channel axis.
    return normal * normal.square().sum(1, keepdim=True).clamp(min=1e-24).rsqrt()
