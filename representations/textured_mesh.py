"""A fixed triangle mesh whose texture is trained."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated

import numpy as np
import torch
import torch.nn.functional as F
from annotated_types import Interval
from jaxtyping import Float, Int32
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components
from torch import Tensor, nn

from .base import RenderOutput, Representation
from .cameras import Cameras
from .gaussians import logit
from .mesh import TriangleMesh, vertex_normals
from .mesh_render import draw_mesh
from .rasterization import rasterize
from .rasterization.dispatch import BACKENDS


@dataclass
class TextureConfig:
    """Texture on a fixed mesh."""

    size: Annotated[int, Interval(ge=0, le=8192)] = 0
    """Texels per side, a power of two; 0: as many as the mesh's texture has."""
    rate: Annotated[float, Interval(ge=0, le=100)] = 2e-2
    """Adam's learning rate of the texels' logits at the start of a stage,"""
    rate_end: Annotated[float, Interval(ge=0, le=100)] = 5e-3
    """and at its end; exponential in between."""
    backend: Annotated[str, ("auto", *BACKENDS)] = "auto"
    """See `mesh_render.draw_mesh`."""


class TexturedMesh(Representation):
    """Unlit; texels are looked up bilinearly. See `base.Meshable`."""

    def __init__(self, mesh: TriangleMesh, detail: TriangleMesh, config: TextureConfig) -> None:
        super().__init__()
        if mesh.uvs is None or mesh.texture is None or mesh.normals is None:
            raise ValueError("a textured mesh needs normals, uvs and a texture")
        self.config = config
        self.vertices = nn.Buffer(mesh.vertices.detach().clone())
        self.faces = nn.Buffer(mesh.faces.clone())
        self.normals = nn.Buffer(mesh.normals.detach().clone())
        self.uvs = nn.Buffer(mesh.uvs.detach().clone())
        self.detail_vertices = nn.Buffer(detail.vertices.detach().clone())
        self.detail_faces = nn.Buffer(detail.faces.clone())
        self.charts = nn.Buffer(_charts(mesh.uvs.detach(), mesh.faces, mesh.texture.shape[1:]))
        """Which chart covers a texel, counting from 1; 0: none."""
        self.texture_logits = nn.Parameter(logit(mesh.texture.detach()))

    @classmethod
    def from_mesh(
        cls, mesh: TriangleMesh, config: TextureConfig | None = None, *, detail: TriangleMesh | None = None
    ) -> TexturedMesh:
        """Of a mesh with uvs and a texture. `detail`: the finer mesh it was simplified from, kept for its normals.

        Raises ValueError without uvs or texture, or for a texture size that is not a power of two.
        """
        config = TextureConfig() if config is None else config
        if mesh.uvs is None or mesh.texture is None:
            raise ValueError("the mesh has no uvs and texture; unwrap and bake it first")
        size = (config.size, config.size) if config.size else tuple(mesh.texture.shape[1:])
        if any(side < 1 or side & (side - 1) for side in size):
            raise ValueError(f"the texture's size is {size[0]} x {size[1]}; powers of two are accepted, such as 1024")
        texture = mesh.texture
        if tuple(texture.shape[1:]) != size:
            texture = F.interpolate(texture[None], size, mode="bilinear", antialias=True, align_corners=False)[0]
        normals = vertex_normals(mesh.vertices, mesh.faces) if mesh.normals is None else mesh.normals
        empty = TriangleMesh(mesh.vertices[:0], mesh.faces[:0])
        textured = TriangleMesh(mesh.vertices, mesh.faces, normals, uvs=mesh.uvs, texture=texture.clamp(0, 1))
        return cls(textured, empty if detail is None else detail, config)

    @classmethod
    def blank(cls, config: TextureConfig | None = None) -> TexturedMesh:
        """Nothing yet, to be filled by `load_tensors`."""
        nothing = torch.zeros(0, 3)
        faces = torch.zeros(0, 3, dtype=torch.int64)
        mesh = TriangleMesh(nothing, faces, nothing, uvs=torch.zeros(0, 2), texture=torch.full((3, 1, 1), 0.5))
        return cls(mesh, TriangleMesh(nothing, faces), TextureConfig() if config is None else config)

    def check_tensors(self, tensors: Mapping[str, Tensor]) -> None:
        """See `Representation`: a mesh and a texture of any size that fit each other."""
        points, details = len(tensors["vertices"]), len(tensors["detail_vertices"])
        faces, finer = len(tensors["faces"]), len(tensors["detail_faces"])
        texture = tuple(tensors["texture_logits"].shape[1:])
        expected = {
            "vertices": (points, 3), "faces": (faces, 3), "normals": (points, 3), "uvs": (points, 2),
            "detail_vertices": (details, 3), "detail_faces": (finer, 3), "charts": texture,
            "texture_logits": (3, *texture),
        }  # fmt: skip
        for name, shape in expected.items():
            if tuple(tensors[name].shape) != shape:
                raise ValueError(f"'{name}' would be {tuple(tensors[name].shape)}, where the others want {shape}")
        for name, count in (("faces", points), ("detail_faces", details)):
            corners = tensors[name]
            if corners.numel() and not 0 <= int(corners.min()) <= int(corners.max()) < count:
                raise ValueError(f"'{name}' would name vertices that there are not")

    @property
    def texture(self) -> Float[Tensor, "3 h w"]:
        """Display sRGB."""
        return self.texture_logits.sigmoid()

    def render(self, cameras: Cameras, background: Float[Tensor, "b 3"]) -> RenderOutput:
        mesh = TriangleMesh(self.vertices, self.faces, self.normals, uvs=self.uvs, texture=self.texture)
        return draw_mesh(mesh, cameras, background, backend=self.config.backend)

    def learning_rates(self, progress: float) -> dict[str, float]:
        return {"texture_logits": self.config.rate ** (1 - progress) * self.config.rate_end**progress}

    def regularisers(self) -> dict[str, Float[Tensor, ""]]:
        """texture_smoothness: mean absolute difference of neighbouring texels of the same chart (total variation)."""
        texture, charts = self.texture, self.charts
        total, count = torch.zeros((), device=texture.device), 0
        for axis in (0, 1):
            size = charts.shape[axis] - 1
            one, other = (charts.narrow(axis, start, size) for start in (0, 1))
            same = (one == other) & (one > 0)
            first, second = (texture.narrow(axis + 1, start, size) for start in (0, 1))
            total = total + ((first - second).abs() * same).sum()
            count += 3 * int(same.sum())
        return {"texture_smoothness": total / max(count, 1)}

    @torch.no_grad()
    def mesh(self) -> TriangleMesh:
        """See `base.Meshable`: on the CPU, with normals, uvs and texture."""
        tensors = (self.vertices, self.faces, self.normals, self.uvs, self.texture)
        vertices, faces, normals, uvs, texture = (tensor.detach().cpu() for tensor in tensors)
        return TriangleMesh(vertices, faces, normals, uvs=uvs, texture=texture)

    def detail(self) -> TriangleMesh:
        """The finer mesh that `mesh()` was simplified from, on the CPU; `mesh()` itself if there is none."""
        if len(self.detail_faces) == 0:
            return self.mesh()
        return TriangleMesh(self.detail_vertices.cpu(), self.detail_faces.cpu())


def _charts(uvs: Float[Tensor, "v 2"], faces: Tensor, size: torch.Size) -> Int32[Tensor, "h w"]:
    """The chart under every texel: faces that share vertices (those are split at seams), counted from 1; 0: none."""
    height, width = size
    # Seen by a camera that maps x and y to pixels as they are.
    flat = torch.cat([uvs * torch.tensor([width, height]).to(uvs), torch.ones_like(uvs[:, :1])], 1)
    camera = Cameras(torch.eye(4).to(uvs)[None], torch.eye(3).to(uvs)[None], height, width)
    triangle = rasterize(flat, faces, camera).triangle[0].long()
    if len(faces) == 0:
        return torch.zeros_like(triangle, dtype=torch.int32)
    ends = faces.cpu().numpy()
    links = np.concatenate([ends[:, :2], ends[:, 1:]])
    graph = coo_matrix((np.ones(len(links), np.int8), (links[:, 0], links[:, 1])), shape=(len(uvs), len(uvs)))
    chart = torch.from_numpy(connected_components(graph, directed=False)[1]).to(faces.device)
    return torch.where(triangle >= 0, chart[faces[triangle.clamp(min=0), 0]] + 1, 0).int()
