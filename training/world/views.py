"""Softly shaded pictures of the world's objects.

The light is mild on purpose: pictures carry the shape, yet what is baked from them still looks like the base colour.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from ...representations import Cameras, RenderOutput, TriangleMesh, render_mesh, vertex_normals
from ...representations.rasterization import rasterize, resolve

LIGHT = (0.5, 0.8, 0.6)
"""Towards the default light: upper front right, fixed in the world."""

_DARKEST, _SKY, _DIRECT = 0.72, 0.12, 0.24


def shade(mesh: TriangleMesh, light: Float[Tensor, " 3"] | None = None) -> TriangleMesh:
    """The mesh with its vertex colours lit: times 0.72 (facing down and away) to 1.08 (facing sky and light).

    A hemisphere of sky and one directional light, both without a terminator (half-Lambert), so that per-vertex shading
    is smooth. `light` points from the object towards the light, any length. Raises ValueError for a mesh without
    vertex colours.
    """
    if mesh.colours is None:
        raise ValueError("the world's objects are shaded per vertex: the mesh needs `colours`")
    normals = vertex_normals(mesh.vertices, mesh.faces) if mesh.normals is None else mesh.normals
    direction = F.normalize(torch.tensor(LIGHT) if light is None else light, dim=0)
    sky, direct = 0.5 + 0.5 * normals[:, 1:2], 0.5 + 0.5 * (normals @ direction)[:, None]
    factor = _DARKEST + _SKY * sky + _DIRECT * direct
    return replace(mesh, normals=normals, colours=(mesh.colours * factor).clamp(max=1))


def render_objects(
    objects: Sequence[TriangleMesh],
    cameras: Cameras,
    background: Float[Tensor, "b 3"],
    *,
    light: Float[Tensor, "b 3"] | None = None,
    supersample: int = 1,
) -> RenderOutput:
    """Object i seen by camera i, with everything `render_mesh` gives. `light`: see `shade`, one per picture.

    Raises ValueError unless there are as many objects as cameras.
    """
    if len(objects) != len(cameras):
        raise ValueError(f"{len(objects)} objects for {len(cameras)} cameras; give one object per camera")
    outputs = [
        render_mesh(
            shade(mesh, None if light is None else light[i]), cameras[i], background[i : i + 1], supersample=supersample
        )
        for i, mesh in enumerate(objects)
    ]
    return RenderOutput(
        rgb=torch.cat([output.rgb for output in outputs]),
        opacity=torch.cat([output.opacity for output in outputs]),
        depth=torch.cat([output.depth for output in outputs]),
        normal=torch.cat([output.normal for output in outputs]),
    )


def render_all(
    shaded: Sequence[TriangleMesh], cameras: Cameras, background: Float[Tensor, "b 3"], *, supersample: int = 2
) -> Float[Tensor, "b k 3 h w"]:
    """Every one of k objects, already shaded, in every camera; colours only, much cheaper than `render_objects`.

    Raises ValueError for an object without vertex colours.
    """
    fine = cameras.resized(cameras.height * supersample, cameras.width * supersample)
    pictures = []
    for mesh in shaded:
        if mesh.colours is None:
            raise ValueError("shade the objects first: a mesh without `colours` has none to draw")
        fragments = rasterize(mesh.vertices, mesh.faces, fine)
        pictures.append(resolve(fragments, mesh.faces, mesh.colours, background, supersample))
    return torch.stack(pictures, 1)
