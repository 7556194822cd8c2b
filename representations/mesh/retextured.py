"""A mesh file whose texture is trained; triangles, texture coordinates and everything else stay as they are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Annotated, ClassVar, Literal

import torch
from annotated_types import Interval
from jaxtyping import Float
from torch import Tensor, nn

from ..base import RenderOutput
from ..cameras import Cameras
from ..triangle_mesh import TriangleMesh, vertex_normals
from .canvas import Atlas, Canvas, read_canvas
from .rasterization.dispatch import Backend
from .regularizers import texture_variation
from .render import draw_mesh
from .texture_sheet import Region
from .textured import TextureConfig, TexturedMesh, chart_of_texels


@dataclass
class RetextureConfig:
    """Texture of a mesh file whose triangles and texture coordinates are kept; the export replaces only the image."""

    trains_shape: ClassVar[bool] = False

    initial_mesh: str = ""
    """Mesh file (.glb, .gltf, .obj) with texture coordinates that do not overlap, +Y up."""
    initial_yaw: Annotated[float, Interval(ge=-360, le=360)] = 0.0
    """Rotation of `initial_mesh` in degrees about +Y, from +Z toward +X, that brings its front to +Z; only for the
    views, since the file is not rotated."""
    part: str = ""
    """Name of the node, mesh or material whose faces are painted; case and articles are ignored. Empty: all."""
    mask: str = ""
    """Grayscale image of the size of the texture; texels are painted where it is white. Empty: everywhere."""
    start: Literal["gray", "texture"] = "gray"
    """Initial color of the painted texels: `gray`; `texture`: that of the file, whose pattern is partly kept."""
    texture_size: Annotated[int, Interval(ge=16, le=8192)] = 1024
    """Side in texels of the texture of materials that have none."""
    rate: Annotated[float, Interval(ge=0, le=100)] = 4e-2
    """Adam learning rate of the texel logits at the start of a stage; it decays exponentially to `rate_end`."""
    rate_end: Annotated[float, Interval(ge=0, le=100)] = 1e-2
    """Adam learning rate of the texel logits at the end of a stage."""
    tone_rate: Annotated[float, Interval(ge=0, le=100)] = 4.0
    """Learning rate of the tone, a color offset that all painted texels have in common, as a factor of that of the
    texels. Texels that are in no view get their color from it."""
    backend: Backend = "auto"
    """Rasterization backend; see `rasterization.draw`."""

    def build(self, generator: torch.Generator, device: torch.device | str = "cpu") -> RetexturedMesh:
        """Read the file.

        Args:
            generator: Not used; nothing is random.
            device: Device of the parameters.

        Raises:
            ValueError: There is no file, or see `read_canvas`.
            OSError: A file cannot be read.
        """
        if not self.initial_mesh:
            raise ValueError("initial_mesh is empty; name the mesh file to paint, as steindreamer retexture FILE does")
        canvas = read_canvas(
            Path(self.initial_mesh),
            yaw=self.initial_yaw,
            part=self.part,
            mask=self.mask,
            texture_size=self.texture_size,
        )
        return RetexturedMesh.from_canvas(canvas, self).to(device)

    def blank(self, device: torch.device | str = "cpu") -> RetexturedMesh:
        """A mesh without faces, to be filled by `load_tensors`."""
        empty = TriangleMesh(
            torch.zeros(0, 3),
            torch.zeros(0, 3, dtype=torch.int64),
            torch.zeros(0, 3),
            uvs=torch.zeros(0, 2),
            texture=torch.full((3, 1, 1), 0.5),
        )
        return RetexturedMesh(empty, self).to(device)


class RetexturedMesh(TexturedMesh):
    """The mesh of a file with a trainable texture, see `RetextureConfig`.

    Args:
        mesh: The mesh with normals, uvs and a texture.
        config: Settings.
    """

    def __init__(self, mesh: TriangleMesh, config: RetextureConfig) -> None:
        rates = TextureConfig(rate=config.rate, rate_end=config.rate_end, backend=config.backend)
        super().__init__(mesh, TriangleMesh(mesh.vertices[:0], mesh.faces[:0]), rates)
        texels = self.charts.shape
        self.document = nn.Buffer(torch.zeros(0, dtype=torch.uint8))
        """The file, see `Canvas.document`."""
        self.materials = nn.Buffer(torch.zeros(0, 2, dtype=torch.int64))
        """Index of each material that gets a texture (-1: the default material of glTF), and row of its region."""
        self.regions = nn.Buffer(torch.zeros(0, 4, dtype=torch.int64))
        """Row, column, height and width of each texture of the file in the image."""
        self.source = nn.Buffer(torch.zeros(*texels, 3, dtype=torch.uint8))
        """The texture of the file."""
        self.painted = nn.Buffer(torch.zeros(texels, dtype=torch.bool))
        """Whether each texel is trained."""
        self.tone = nn.Parameter(torch.zeros(3))
        """Offset of the logits of all painted texels."""
        self.tone_rate = config.tone_rate
        self.factors = nn.Buffer(torch.zeros(0, 4))
        """Factors of the texture at the vertices, see `draw_mesh`; empty if they have no effect."""

    @classmethod
    def from_canvas(cls, canvas: Canvas, config: RetextureConfig) -> RetexturedMesh:
        """Create the scene from a file that was read.

        Args:
            canvas: The file and the texels to paint.
            config: Settings.
        """
        mesh, texture = canvas.mesh, canvas.texture.permute(2, 0, 1).float() / 255
        if config.start == "gray":
            texture = torch.where(canvas.painted, 0.5, texture)
        normals = vertex_normals(mesh.vertices, mesh.faces) if mesh.normals is None else mesh.normals
        uvs = mesh.coordinates.float().clamp(0, 1)
        out = cls(TriangleMesh(mesh.vertices, mesh.faces, normals, uvs=uvs, texture=texture), config)
        # Vertices at the same place of the atlas are one here, so that flat-shaded faces are of one chart.
        places, corners = uvs.unique(dim=0, return_inverse=True)
        out.charts = nn.Buffer(chart_of_texels(places, corners[mesh.faces[canvas.in_atlas]], canvas.painted.shape))
        out.document = nn.Buffer(torch.frombuffer(bytearray(canvas.document), dtype=torch.uint8))
        rows = [
            (-1 if index is None else index, row)
            for row, atlas in enumerate(canvas.atlases)
            for index in atlas.materials
        ]
        out.materials = nn.Buffer(torch.tensor(rows))
        out.regions = nn.Buffer(torch.tensor([astuple(atlas.region) for atlas in canvas.atlases]))
        out.source, out.painted = nn.Buffer(canvas.texture.clone()), nn.Buffer(canvas.painted)
        if bool((canvas.factors != 1).any()):
            out.factors = nn.Buffer(canvas.factors)
        out.placement = canvas.placement
        return out

    def atlases(self) -> list[Atlas]:
        """The textures of the file that are painted."""
        materials = [(None if index < 0 else index, row) for index, row in self.materials.tolist()]
        return [
            Atlas(tuple(index for index, atlas in materials if atlas == row), Region(*region))
            for row, region in enumerate(self.regions.tolist())
        ]

    @property
    def texture(self) -> Float[Tensor, "3 h w"]:
        """The texture image, display sRGB in (0, 1); texels that are not painted are constant."""
        constant = self.texture_logits.detach()
        return torch.where(self.painted, self.texture_logits + self.tone[:, None, None], constant).sigmoid()

    def render(self, cameras: Cameras, background: Float[Tensor, "b 3"]) -> RenderOutput:
        mesh = TriangleMesh(self.vertices, self.faces, self.normals, uvs=self.uvs, texture=self.texture)
        factors = self.factors if len(self.factors) else None
        return draw_mesh(mesh, cameras, background, factors=factors, backend=self.config.backend)

    def learning_rates(self, progress: float) -> dict[str, float]:
        (rate,) = super().learning_rates(progress).values()
        return {"texture_logits": rate, "tone": rate * self.tone_rate}

    def check_tensors(self, tensors: Mapping[str, Tensor]) -> None:
        """Check that mesh and texture, of any size, fit each other; see `Representation.check_tensors`."""
        super().check_tensors(tensors)
        texels = tuple(tensors["charts"].shape)
        for name, shape in (("painted", texels), ("source", (*texels, 3)), ("tone", (3,))):
            if tuple(tensors[name].shape) != shape:
                raise ValueError(f"'{name}' would be {tuple(tensors[name].shape)}, but the others need {shape}")
        rows, regions = tensors["materials"], tensors["regions"]
        if rows.shape[1:] != (2,) or regions.shape[1:] != (4,) or bool((rows[:, 1:] >= len(regions)).any()):
            raise ValueError("'materials' would refer to regions that do not exist")
        ends = regions[:, :2] + regions[:, 2:]
        if bool((regions < 0).any()) or bool((ends > ends.new_tensor(texels)).any()):
            raise ValueError("'regions' would exceed the texture")
        factors = tuple(tensors["factors"].shape)
        if factors not in ((0, 4), (len(tensors["vertices"]), 4)):
            raise ValueError(f"'factors' would be {factors}, but there are {len(tensors['vertices'])} vertices")

    def regularizers(self) -> dict[str, Float[Tensor, ""]]:
        """Regularizers on the texture, by name.

        texture_smoothness   sum of the absolute differences of neighboring painted texels of the same chart, divided by
                             the number of pairs in the whole atlas, so that the smoothness of a texel does not
                             depend on how many are painted
        """
        texture = self.texture
        total, _ = texture_variation(texture, self.charts.where(self.painted, 0))
        _, count = texture_variation(texture.detach(), self.charts)
        return {"texture_smoothness": total / count.clamp(min=1)}
