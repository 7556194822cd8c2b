"""A fixed triangle mesh with a trainable texture."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from annotated_types import Interval
from jaxtyping import Float, Int32, Int64
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components
from torch import Tensor, nn

from ..base import RenderOutput, Representation, SceneContext
from ..cameras import Cameras
from ..ops import exponential_decay, logit
from ..triangle_mesh import TriangleMesh, vertex_normals
from .rasterization import rasterize
from .rasterization.dispatch import Backend
from .regularizers import texture_variation
from .render import draw_mesh


@dataclass
class TextureConfig:
    """Texture on the fixed mesh that the export would write; takes over an earlier scene."""

    trains_shape: ClassVar[bool] = False

    size: Annotated[int, Interval(ge=0, le=8192)] = 0
    """Side of the texture in texels, a power of two; 0: the size of the mesh's texture."""
    rate: Annotated[float, Interval(ge=0, le=100)] = 2e-2
    """Adam learning rate of the texel logits at the start of a stage; it decays exponentially to `rate_end`."""
    rate_end: Annotated[float, Interval(ge=0, le=100)] = 5e-3
    """Adam learning rate of the texel logits at the end of a stage."""
    backend: Backend = "auto"
    """Rasterization backend; see `rasterization.draw`."""

    def __post_init__(self) -> None:
        if self.size & (self.size - 1):
            raise ValueError(f"size is {self.size}; powers of two are accepted, such as 1024, and 0: the mesh's own")

    def from_scene(self, scene: Representation, context: SceneContext) -> TexturedMesh:
        """The exported mesh of another scene, its texture trainable. Raises ValueError if the scene is empty."""
        mesh, detail = context.textured_mesh(scene)
        return TexturedMesh.from_mesh(mesh, self, detail=detail).to(context.device)

    def blank(self, device: torch.device | str = "cpu") -> TexturedMesh:
        """A mesh without faces, to be filled by `load_tensors`."""
        return TexturedMesh.blank(self).to(device)


class TexturedMesh(Representation):
    """A fixed, unlit mesh with a trainable texture that is sampled bilinearly; it implements `base.Meshable`.

    Args:
        mesh: The mesh with normals, uvs and a texture.
        detail: The finer mesh that `mesh` was simplified from; without faces if there is none.
        config: Settings.
    """

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
        self.charts = nn.Buffer(chart_of_texels(mesh.uvs.detach(), mesh.faces, mesh.texture.shape[1:]))
        """Index from 1 of the chart that covers each texel; 0: none."""
        self.texture_logits = nn.Parameter(logit(mesh.texture.detach()).contiguous())

    @classmethod
    def from_mesh(
        cls, mesh: TriangleMesh, config: TextureConfig | None = None, *, detail: TriangleMesh | None = None
    ) -> TexturedMesh:
        """Create the scene from a mesh with uvs and a texture.

        Args:
            mesh: The mesh; normals are computed if it has none.
            config: Settings; None for the defaults.
            detail: The finer mesh that `mesh` was simplified from, kept to bake its normals.

        Raises:
            ValueError: The mesh has no uvs or texture, or the texture size is not a power of two.

        Example:
            >>> scene = TexturedMesh.from_mesh(mesh, TextureConfig(size=1024))
        """
        config = TextureConfig() if config is None else config
        if mesh.uvs is None or mesh.texture is None:
            raise ValueError("the mesh has no uvs and texture; unwrap and bake it first")
        size = (config.size, config.size) if config.size else tuple(mesh.texture.shape[1:])
        if any(side < 1 or side & (side - 1) for side in size):
            raise ValueError(f"the texture size is {size[0]} x {size[1]}, but must be a power of two, such as 1024")
        texture = mesh.texture
        if tuple(texture.shape[1:]) != size:
            texture = F.interpolate(texture[None], size, mode="bilinear", antialias=True, align_corners=False)[0]
        normals = vertex_normals(mesh.vertices, mesh.faces) if mesh.normals is None else mesh.normals
        empty = TriangleMesh(mesh.vertices[:0], mesh.faces[:0])
        textured = TriangleMesh(mesh.vertices, mesh.faces, normals, uvs=mesh.uvs, texture=texture.clamp(0, 1))
        return cls(textured, empty if detail is None else detail, config)

    @classmethod
    def blank(cls, config: TextureConfig | None = None) -> TexturedMesh:
        """An empty scene, to be filled by `load_tensors`."""
        nothing = torch.zeros(0, 3)
        faces = torch.zeros(0, 3, dtype=torch.int64)
        mesh = TriangleMesh(nothing, faces, nothing, uvs=torch.zeros(0, 2), texture=torch.full((3, 1, 1), 0.5))
        return cls(mesh, TriangleMesh(nothing, faces), TextureConfig() if config is None else config)

    def check_tensors(self, tensors: Mapping[str, Tensor]) -> None:
        """Check that mesh and texture, of any size, fit each other; see `Representation.check_tensors`."""
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
                raise ValueError(f"'{name}' would be {tuple(tensors[name].shape)}, but the others need {shape}")
        for name, count in (("faces", points), ("detail_faces", details)):
            corners = tensors[name]
            if corners.numel() and not 0 <= int(corners.min()) <= int(corners.max()) < count:
                raise ValueError(f"'{name}' would refer to vertices that do not exist")

    @property
    def texture(self) -> Float[Tensor, "3 h w"]:
        """The texture image, display sRGB in (0, 1)."""
        return self.texture_logits.sigmoid()

    def render(self, cameras: Cameras, background: Float[Tensor, "b 3"]) -> RenderOutput:
        mesh = TriangleMesh(self.vertices, self.faces, self.normals, uvs=self.uvs, texture=self.texture)
        return draw_mesh(mesh, cameras, background, backend=self.config.backend)

    def learning_rates(self, progress: float) -> dict[str, float]:
        return {"texture_logits": exponential_decay(self.config.rate, self.config.rate_end, progress)}

    def regularizers(self) -> dict[str, Float[Tensor, ""]]:
        """Regularizers on the texture, by name.

        texture_smoothness   mean absolute difference of neighboring texels of the same chart (total variation)
        """
        total, count = texture_variation(self.texture, self.charts)
        return {"texture_smoothness": total / count.clamp(min=1)}

    @torch.no_grad()
    def mesh(self) -> TriangleMesh:
        """The mesh on the CPU, with normals, uvs and texture; see `base.Meshable`."""
        tensors = (self.vertices, self.faces, self.normals, self.uvs, self.texture)
        vertices, faces, normals, uvs, texture = (tensor.detach().cpu() for tensor in tensors)
        return TriangleMesh(vertices, faces, normals, uvs=uvs, texture=texture)

    def detail(self) -> TriangleMesh:
        """The finer mesh that `mesh()` was simplified from, on the CPU; `mesh()` itself if there is none."""
        if len(self.detail_faces) == 0:
            return self.mesh()
        return TriangleMesh(self.detail_vertices.cpu(), self.detail_faces.cpu())


def chart_of_texels(uvs: Float[Tensor, "v 2"], faces: Int64[Tensor, "f 3"], size: torch.Size) -> Int32[Tensor, "h w"]:
    """Index from 1 of the chart at every texel, 0 for none; faces of a chart are connected by common vertices."""
    height, width = size
    # Rendered by a camera that maps x and y to pixels unchanged.
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
