"""Softly shaded images of the world's objects.

The default light is mild: images show the shape, but colors baked from them stay close to the base color. Training data
of priors that separate albedo from color is lit by `random_light` instead.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from steindreamer.representations import Cameras, RenderOutput, TriangleMesh, render_mesh, vertex_normals
from steindreamer.representations.mesh.rasterization import rasterize, resolve
from steindreamer.representations.mesh.render import toward_camera

LIGHT = (0.5, 0.8, 0.6)
"""Direction toward the default light: upper front right, fixed in world space."""


@dataclass(frozen=True)
class Light:
    """Sky hemisphere and one directional light, which scale colors by `darkest` to `darkest + sky + direct`."""

    direction: tuple[float, float, float] = LIGHT
    """Direction from the object toward the light, of any length."""
    darkest: float = 0.72
    """Factor for a surface that faces down and away from the light."""
    sky: float = 0.12
    """Amount added for a surface that faces up."""
    direct: float = 0.24
    """Amount added for a surface that faces the light."""


def random_light(rng: np.random.Generator) -> Light:
    """Draw a light from above or slightly below, flat to harsh; its largest factor is between 1 and 1.15."""
    across, up = rng.normal(size=2), abs(rng.normal()) - 0.2
    darkest, brightest, fraction = rng.uniform(0.3, 0.8), rng.uniform(1.0, 1.15), rng.uniform(0.1, 0.5)
    span = brightest - darkest
    return Light((float(across[0]), float(up), float(across[1])), darkest, fraction * span, (1 - fraction) * span)


def shade(mesh: TriangleMesh, light: Float[Tensor, " 3"] | Light | None = None) -> TriangleMesh:
    """Bake light into the vertex colors: factors from 0.72 (facing down and away) to 1.08 (facing sky and light).

    The light is a sky hemisphere and one directional light, both without a terminator (half-Lambert), so that
    per-vertex shading is smooth.

    Args:
        mesh: Mesh with vertex colors.
        light: Direction from the object toward the light, of any length, or a complete `Light`; None for the default.

    Raises:
        ValueError: The mesh has no vertex colors.
    """
    if mesh.colors is None:
        raise ValueError("the world's objects are shaded per vertex: the mesh needs `colors`")
    normals = vertex_normals(mesh.vertices, mesh.faces) if mesh.normals is None else mesh.normals
    given = light if isinstance(light, Light) else Light()
    toward = light if isinstance(light, Tensor) else torch.tensor(given.direction)
    direction = F.normalize(toward, dim=0)
    sky, direct = 0.5 + 0.5 * normals[:, 1:2], 0.5 + 0.5 * (normals @ direction)[:, None]
    factor = given.darkest + given.sky * sky + given.direct * direct
    return replace(mesh, normals=normals, colors=(mesh.colors * factor).clamp(max=1))


def render_objects(
    objects: Sequence[TriangleMesh],
    cameras: Cameras,
    background: Float[Tensor, "b 3"],
    *,
    light: Float[Tensor, "b 3"] | None = None,
    supersample: int = 1,
) -> RenderOutput:
    """Render object i with camera i, with all outputs of `render_mesh`.

    Args:
        objects: One mesh per camera.
        cameras: One camera per object.
        background: sRGB color of each image.
        light: Light direction of each image; see `shade`.
        supersample: Samples per pixel side.

    Raises:
        ValueError: The numbers of objects and cameras differ.
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
    """Render each of k shaded objects with every camera; colors only, much faster than `render_objects`.

    Raises:
        ValueError: An object has no vertex colors.
    """
    fine = cameras.resized(cameras.height * supersample, cameras.width * supersample)
    images = []
    for mesh in shaded:
        if mesh.colors is None:
            raise ValueError("shade the objects first: a mesh without `colors` has none to draw")
        fragments = rasterize(mesh.vertices, mesh.faces, fine)
        images.append(resolve(fragments, mesh.faces, mesh.colors, background, supersample))
    return torch.stack(images, 1)


@dataclass(frozen=True)
class Surfaces:
    """Images of one object over black."""

    render: RenderOutput
    """Render of the lit object."""
    albedo: Float[Tensor, "b 3 h w"]
    """Unlit sRGB color, pre-multiplied by opacity like `render.rgb`."""

    @property
    def buffers(self) -> dict[str, Tensor]:
        """The images by name, as `modalities.encode` takes them."""
        render = self.render
        return {
            "rgb": render.rgb,
            "albedo": self.albedo,
            "normal": render.normal,
            "depth": render.depth,
            "opacity": render.opacity,
        }


def render_surfaces(mesh: TriangleMesh, light: Light, cameras: Cameras, *, supersample: int = 2) -> Surfaces:
    """Render one object under one light with every camera: lit and unlit colors and all outputs of `render_mesh`.

    A single pass renders everything, which is several times faster. Raises ValueError for an object without vertex
    colors.
    """
    lit = shade(mesh, light)
    if mesh.colors is None or lit.colors is None or lit.normals is None:
        raise ValueError("the world's objects are drawn by vertex: the mesh needs `colors`")
    fragments = rasterize(
        mesh.vertices, mesh.faces, cameras.resized(cameras.height * supersample, cameras.width * supersample)
    )
    solid = torch.ones(len(mesh.vertices), 1)
    values = torch.cat([lit.colors, mesh.colors, solid, lit.normals], 1)
    # Visible back faces have flipped normals: their fragments use a second set of normals.
    back = torch.cat([lit.colors, mesh.colors, solid, -lit.normals], 1)
    behind = (fragments.triangle >= 0) & ~fragments.front
    turned = replace(fragments, triangle=torch.where(behind, fragments.triangle + len(mesh.faces), fragments.triangle))
    faces = torch.cat([mesh.faces, mesh.faces + len(mesh.vertices)])
    black = torch.zeros(len(cameras), values.shape[1])
    layers = resolve(turned, faces, torch.cat([values, back]), black, supersample)
    rgb, albedo, opacity, normal = layers.split([3, 3, 1, 3], 1)
    depth = F.avg_pool2d(fragments.depth[:, None], supersample)
    return Surfaces(
        RenderOutput(
            rgb=rgb,
            opacity=opacity,
            depth=torch.where(opacity > 0, depth / opacity, depth),
            normal=toward_camera(normal, cameras.rays()),
        ),
        albedo,
    )
