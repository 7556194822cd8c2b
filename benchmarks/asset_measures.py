"""Measures of a textured mesh against the true object of the world.

Both are in the world's frame: bounding box centered at the origin, +Y up, front toward +Z, meters. Views are those of
`world.truth.held_out_cameras`. Angles are in degrees, lengths in millimeters, color steps in 1/255.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from scipy import ndimage
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components
from scipy.spatial import KDTree
from skimage.measure import label, marching_cubes
from skimage.morphology import reconstruction
from torch import Tensor

from steindreamer.pipelines.meshing.simplify import welded_faces
from steindreamer.pipelines.meshing.texels import rasterize_uvs
from steindreamer.representations import (
    Cameras,
    RenderOutput,
    TriangleMesh,
    render_mesh,
    signed_distance,
    sphere_of_cameras,
)
from steindreamer.world.sampling import RADIUS
from steindreamer.world.truth import (
    MILLIMETERS,
    chamfer_millimeters,
    held_out_cameras,
    held_out_psnr,
    mean_normal_error,
)
from steindreamer.world.views import Light, Surfaces, render_surfaces, shade

SIGMA = 6 / 256
"""Standard deviation of the blur that roughness is measured against, as a fraction of the image."""
FLAT = 2.0
"""Degrees of the truth's own roughness below which its surface counts as flat."""
WALL = 0.040
"""Meters of depth error within which a flat surface counts as a wall of the truth."""
GRAIN_SIGMA = 2.5
"""Standard deviation in texels of the blur that grain is measured against."""
MARGIN = 3
"""Texels along the borders of charts that the measures of the texture leave out."""
EDGE = 0.05
"""Color range (sRGB) of neighboring true points above which they are at an edge of the true texture."""
CONTRAST = 0.2
"""Color range from which an edge's width is measured."""
NEIGHBORHOOD = 0.030
"""Meters around a pixel in which the colors of an edge are compared."""
CONTINUOUS = 0.150
"""Meters of depth range there up to which it shows one surface."""
REACH = 0.060
"""Meters from the true surface beyond which a texel has no true color."""
CAVITY = 0.100
"""Meters of water that a cavity of the truth holds at least."""
SPACING = 0.040
"""Meters between the samples of the true solid, whose parts overlap; smaller gaps and holes do not count."""
RIM_CELLS = 6
"""Width of the rim in cells of the height map."""
SMALL_CHART = 10
"""Number of faces below which a chart counts as small."""


def in_scene(mesh: TriangleMesh, height: float | None) -> TriangleMesh:
    """Undo the export's placement: the exporter scales the mesh and moves its bottom center to the origin.

    Args:
        mesh: Mesh of the file.
        height: Height in the scene (`scene_height` in the file's extras); None: the size was not changed.
    """
    low, high = mesh.vertices.amin(0), mesh.vertices.amax(0)
    scale = 1.0 if height is None else height / float(high[1] - low[1])
    return replace(mesh, vertices=(mesh.vertices - (low + high) / 2) * scale)


def nearest(mesh: TriangleMesh, truths: Sequence[TriangleMesh], views: int = 8, size: int = 96) -> int:
    """Index of the most similar true object: mean squared difference of opacity, normals and unlit color."""
    cameras = sphere_of_cameras(views, height=size)
    own = _appearance(mesh, cameras)
    return int(np.argmin([float((_appearance(truth, cameras) - own).square().mean()) for truth in truths]))


def _appearance(mesh: TriangleMesh, cameras: Cameras) -> Float[Tensor, "b 7 h w"]:
    output = render_mesh(mesh, cameras, torch.zeros(len(cameras), 3))
    return torch.cat([output.opacity, output.opacity * output.normal, output.rgb], 1)


def measure(mesh: TriangleMesh, truth: TriangleMesh, views: int = 16, size: int = 256) -> dict[str, float]:
    """All measures of an asset by name; nan where one does not apply.

    Args:
        mesh: The asset, textured, in the world's frame.
        truth: The true object with unlit vertex colors.
        views: Number of views.
        size: Size of a view in pixels.
    """
    pair, fine = Pair.render(mesh, truth, views, size), Pair.render(mesh, truth, views // 2, 2 * size)
    return {
        **pair.roughness(),
        "normal_error": mean_normal_error(mesh, truth, views, size),
        "chamfer": chamfer_millimeters(mesh, truth),
        "psnr_albedo": held_out_psnr(mesh, truth, views, size),
        "psnr_lit": held_out_psnr(mesh, shade(truth), views, size),
        "light": pair.baked_light(pair.asset.rgb),
        "light_truth": pair.baked_light(pair.truth.render.rgb),
        "edge_width": fine.edge_width(fine.asset.rgb),
        "edge_width_truth": fine.edge_width(fine.truth.albedo),
        **texture_measures(mesh, truth),
        **cavity(mesh, truth),
        **topology(mesh, truth),
        "triangles": float(len(mesh.faces)),
        **charts(mesh),
    }


@dataclass(frozen=True)
class Pair:
    """The asset and the true object from the same cameras, over black, one sample per pixel."""

    asset: RenderOutput
    truth: Surfaces
    focal: float
    """Focal length in pixels."""

    @classmethod
    def render(cls, mesh: TriangleMesh, truth: TriangleMesh, views: int, size: int) -> Pair:
        """Render both."""
        cameras = held_out_cameras(views, size)
        asset = render_mesh(mesh, cameras, torch.zeros(views, 3))
        surfaces = render_surfaces(truth, Light(), cameras, supersample=1)
        return cls(asset, surfaces, float(cameras.intrinsics[0, 0, 0]))

    @property
    def solid(self) -> Bool[Tensor, "b h w"]:
        """Pixels that are opaque in both."""
        return (torch.minimum(self.asset.opacity, self.truth.render.opacity) > 0.5)[:, 0]

    def roughness(self) -> dict[str, float]:
        """Mean angle of the normals to their own blur, where the truth is flat.

        `flat`: all of these pixels, and `flat_truth` the truth there; `wall`: those whose depth agrees as well, and
        `wall_error` the angle to the true normals there.
        """
        own, true = _angle_to_blur(self.asset), _angle_to_blur(self.truth.render)
        flat = self.solid & (true < FLAT)
        wall = flat & ((self.asset.depth - self.truth.render.depth)[:, 0].abs() < WALL)
        return {
            "flat": _mean(own[flat]),
            "flat_truth": _mean(true[flat]),
            "wall": _mean(own[wall]),
            "wall_error": _mean(_angle(self.asset.normal, self.truth.render.normal)[wall]),
        }

    def baked_light(self, color: Float[Tensor, "b 3 h w"]) -> float:
        """Light in an image's colors: the standard deviation, in percent, of the logarithm of luminance over true
        albedo, as far as second-order spherical harmonics of the true normal explain it.

        Pixels at edges of the true albedo do not count.
        """
        albedo = self.truth.albedo
        own, true = _luminance(color), _luminance(albedo)
        plain = self.solid & (_range(albedo, 3).amax(1) < EDGE) & (true > 0.02) & (own > 0.02)
        if not bool(plain.any()):
            return math.nan
        ratio = (own[plain] / true[plain]).log().double()
        basis = _harmonics(self.truth.render.normal.movedim(1, -1)[plain].double())
        explained = basis @ torch.linalg.lstsq(basis, ratio, driver="gelsd").solution
        return 100 * float(explained.std())

    def edge_width(self, color: Float[Tensor, "b 3 h w"]) -> float:
        """Width in millimeters of the steepest color step near an edge of the true albedo, median over pixels; nan for
        a truth of one color.

        Only edges on a continuous surface count. The smallest width is 1.4 pixels across the diagonal
        and two pixels along the axes.
        """
        scale = self.truth.render.depth[:, 0] / self.focal
        reach = max(2, round(NEIGHBORHOOD / float(scale[self.solid].mean())))
        contrast = _range(self.truth.albedo, reach).norm(dim=1)
        surface = torch.cat([self.asset.depth, self.truth.render.depth], 1)
        edge = (contrast > CONTRAST) & (_range(surface, reach).amax(1) < CONTINUOUS) & self.solid
        if not bool(edge.any()):
            return math.nan
        steps = torch.gradient(color, dim=(2, 3))
        rise = torch.stack([step.square().sum(1) for step in steps]).sum(0).sqrt()
        steepest = F.max_pool2d(rise[:, None], 2 * reach + 1, 1, reach)[:, 0]
        return MILLIMETERS * float((contrast * scale / steepest.clamp_min(1e-4))[edge].median())


def _range(image: Float[Tensor, "b c h w"], reach: int) -> Float[Tensor, "b c h w"]:
    """Largest less smallest value of each channel in the square of pixels within `reach`."""
    highest, lowest = (F.max_pool2d(sign * image, 2 * reach + 1, 1, reach) for sign in (1, -1))
    return highest + lowest


def _angle_to_blur(output: RenderOutput) -> Float[Tensor, "b h w"]:
    sigma = SIGMA * output.normal.shape[-1]
    blurred = ndimage.gaussian_filter((output.normal * output.opacity).numpy(), (0, 0, sigma, sigma))
    return _angle(output.normal, torch.from_numpy(blurred))


def _angle(first: Float[Tensor, "b 3 h w"], second: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b h w"]:
    return F.cosine_similarity(first, second, dim=1).clamp(-1, 1).arccos().rad2deg()


def _mean(values: Tensor) -> float:
    return float(values.double().mean())


def _luminance(color: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b h w"]:
    return (color * torch.tensor([0.2126, 0.7152, 0.0722])[:, None, None]).sum(1)


def _harmonics(normal: Float[Tensor, "n 3"]) -> Float[Tensor, "n 9"]:
    x, y, z = normal.unbind(1)
    one = torch.ones_like(x)
    return torch.stack([one, x, y, z, x * y, y * z, z * x, x * x - y * y, 3 * z * z - 1], 1)


def texture_measures(mesh: TriangleMesh, truth: TriangleMesh) -> dict[str, float]:
    """Noise of the base color texture, and its use.

    `grain`: standard deviation of texels minus their blur, inside charts and away from edges of the true texture.
    `coverage`: fraction of the texture that is inside a triangle.
    """
    if mesh.texture is None or mesh.uvs is None:
        raise ValueError("the asset has no texture")
    size = mesh.texture.shape[1]
    texels = rasterize_uvs(mesh, size)
    image = mesh.texture.permute(1, 2, 0).numpy()
    used = np.zeros((size, size), bool)
    used[texels.rows, texels.columns] = True
    inner = (np.asarray(ndimage.distance_transform_edt(used)) > MARGIN)[texels.rows, texels.columns]
    colors = TrueColors.sample(truth)
    contrast, known = colors.contrast(texels.interpolate(mesh.vertices))

    weight = ndimage.gaussian_filter(used.astype(np.float32), GRAIN_SIGMA)
    blurred = ndimage.gaussian_filter(image * used[..., None], (GRAIN_SIGMA, GRAIN_SIGMA, 0))
    grain = (image - blurred / np.maximum(weight, 1e-6)[..., None])[texels.rows, texels.columns]
    plain = inner & known & (contrast < EDGE)
    u, v, w = mesh.uvs[mesh.faces].double().unbind(1)
    doubled = (v - u)[:, 0] * (w - u)[:, 1] - (v - u)[:, 1] * (w - u)[:, 0]

    return {
        "grain": 255 * float(grain[plain].std()) if plain.any() else math.nan,
        "texture_size": float(size),
        "coverage": float(doubled.abs().sum() / 2),
    }


@dataclass(frozen=True)
class TrueColors:
    """Visible points of the true object, each with the color range (sRGB, Euclidean) among its neighbors."""

    tree: KDTree
    ranges: np.ndarray

    @classmethod
    def sample(cls, truth: TriangleMesh, count: int = 30_000, neighbors: int = 16) -> TrueColors:
        """Sample points that are visible from outside, since hidden parts have other colors."""
        cameras = sphere_of_cameras(24, height=128)
        surfaces = render_surfaces(truth, Light(), cameras, supersample=1)
        solid = surfaces.render.opacity[:, 0] > 0.5
        points = cameras.unproject(surfaces.render.depth).movedim(1, -1)[solid].numpy()
        colors = surfaces.albedo.movedim(1, -1)[solid].numpy()
        chosen = np.random.default_rng(0).permutation(len(points))[:count]
        tree = KDTree(points[chosen])
        around = tree.query(points[chosen], neighbors)[1]
        return cls(tree, np.linalg.norm(np.ptp(colors[chosen][around], axis=1), axis=-1))

    def contrast(self, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Color range of the truth at each point, and whether the truth is near at all."""
        distances, index = self.tree.query(points)
        return self.ranges[index], distances < REACH


def cavity(mesh: TriangleMesh, truth: TriangleMesh) -> dict[str, float]:
    """Depth of the truth's largest upward opening below its rim, and as a fraction of the truth's; nan without one.

    The opening is where the truth holds at least `CAVITY` of water. Depths are medians over the opening, below the
    median height of the same mesh at the truth's rim.
    """
    own, true = heights(mesh), heights(truth)
    seed = true.copy()
    seed[1:-1, 1:-1] = true.max()
    water = np.asarray(reconstruction(seed, true, method="erosion")) - true
    labels = np.asarray(label(water > CAVITY, connectivity=1))
    sizes = np.bincount(labels.reshape(-1))[1:]
    if not len(sizes) or sizes.max() < 0.01 * (true > -RADIUS).sum():
        return {"cavity": math.nan, "cavity_fraction": math.nan}
    opening = labels == 1 + int(np.argmax(sizes))
    surface = float(np.median((water + true)[opening]))
    rim = ndimage.binary_dilation(opening, iterations=RIM_CELLS) & ~opening & (true > surface - 0.06)
    depths = [float(np.median(height[rim]) - np.median(height[opening])) for height in (own, true)]
    return {"cavity": MILLIMETERS * depths[0], "cavity_fraction": depths[0] / depths[1]}


def heights(mesh: TriangleMesh, size: int = 192) -> Float[np.ndarray, "s s"]:
    """Height of the surface seen from above, in meters, on a grid of 1.9 m; -`RADIUS` where there is none."""
    far, half = 40.0, 0.95  # from so far away, the rays are parallel
    angle = 2 * math.degrees(math.atan(half / far))
    camera = Cameras.orbit([0.0], [90.0], distance=far, field_of_view=angle, height=size)
    output = render_mesh(mesh, camera, torch.zeros(1, 3))
    return torch.where(output.opacity > 0.5, far - output.depth, -RADIUS)[0, 0].numpy()


def topology(mesh: TriangleMesh, truth: TriangleMesh) -> dict[str, float]:
    """Numbers of connected parts and handles of the asset's welded mesh, and of the true solid."""
    faces, first = welded_faces(mesh)
    own = list(shells(mesh.vertices.numpy()[first], faces))
    solid = solid_surface(truth, SPACING)
    true = list(shells(solid.vertices.numpy(), solid.faces.numpy()))
    handles, expected = sum(own), sum(true)
    return {
        "parts": float(len(own)),
        "parts_truth": float(len(true)),
        "handles": handles,
        "handles_truth": expected,
        "handles_off": abs(handles - expected),
    }


def shells(vertices: np.ndarray, faces: np.ndarray) -> Iterator[float]:
    """Number of handles (1 - Euler characteristic / 2) of every connected surface that encloses a positive volume."""
    part = _components(faces, len(vertices))
    for number in np.unique(part):
        own = faces[part == number]
        a, b, c = vertices[own.T].astype(np.float64)
        if np.einsum("ij,ij->", a, np.cross(b, c)) <= 0:
            continue
        edges = np.sort(np.concatenate([own[:, [0, 1]], own[:, [1, 2]], own[:, [2, 0]]]), 1)
        euler = len(np.unique(own)) - len(np.unique(edges, axis=0)) + len(own)
        yield 1 - euler / 2


def _components(faces: np.ndarray, count: int) -> np.ndarray:
    """Label of the connected component of every face; faces are connected through vertices."""
    start, end = np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]]]).T
    links = coo_matrix((np.ones(len(start)), (start, end)), shape=(count, count))
    return connected_components(links, directed=False)[1][faces[:, 0]]


def solid_surface(mesh: TriangleMesh, spacing: float) -> TriangleMesh:
    """The outer surface of overlapping closed parts, by marching cubes of their signed distance.

    Args:
        mesh: The parts, wound outward.
        spacing: Meters between samples.
    """
    low, high = mesh.vertices.amin(0) - 1.5 * spacing, mesh.vertices.amax(0) + 1.5 * spacing
    counts = ((high - low) / spacing).ceil().long() + 1
    axes = [start + spacing * torch.arange(int(count)) for start, count in zip(low, counts, strict=True)]
    points = torch.stack(torch.meshgrid(*axes, indexing="ij"), -1)
    distance = signed_distance(points.reshape(-1, 3), mesh).reshape(points.shape[:3])
    vertices, faces, _, _ = marching_cubes(-distance.numpy(), 0.0, gradient_direction="ascent")
    return TriangleMesh(
        low + spacing * torch.from_numpy(vertices.copy()).float(), torch.from_numpy(faces.copy()).long()
    )


def charts(mesh: TriangleMesh) -> dict[str, float]:
    """Number of charts, which are the parts that the vertices of the file connect, and of those of few faces."""
    faces = np.bincount(_components(mesh.faces.numpy(), len(mesh.vertices)))
    return {"charts": float((faces > 0).sum()), "small_charts": float(((faces > 0) & (faces < SMALL_CHART)).sum())}
