"""The part of a mesh file's textures that is painted anew: the faces of their atlases, and their texels."""

from __future__ import annotations

import io
import logging
import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool, Float, UInt8
from PIL import Image
from torch import Tensor

from ..files.regular import read_regular_file
from ..placement import Placement
from .file import read_fitted_mesh
from .formats.gltf_document import GltfDocument
from .formats.gltf_materials import base_color
from .formats.gltf_packing import glb, in_one_buffer
from .formats.neighbors import IMAGES
from .formats.obj_bundle import ObjBundle
from .painted import PaintedMesh, PartOrigin, to_display, to_linear
from .texture_sheet import Region, arrange, sheet_of
from .uv_coverage import Coverage, cover_texels

logger = logging.getLogger(__name__)
FORMATS = (".glb", ".gltf", ".obj")
"""Suffixes of the files whose texture can be replaced."""
_ADVICE = "steindreamer finish FILE --preset web unwraps a mesh anew"
_OVERLAP = 0.005
"""Fraction of the painted texels that may be used by several faces, for the rounding along chart borders."""
_BEYOND = 1e-3
"""Distance by which texture coordinates may exceed [0, 1]."""
MAX_TEXELS = 1 << 26
"""Maximum number of texels of all textures together, those of one of 8192 x 8192: each takes 12 bytes five times."""
_LISTED = 12
"""Maximum number of names in a message."""


@dataclass(frozen=True)
class Atlas:
    """A texture that is painted, and what shows it."""

    materials: tuple[int | None, ...]
    """Indices of the materials that get the texture, see `PartOrigin.material`."""
    region: Region
    """Its place in the image of all textures."""


@dataclass(frozen=True)
class Canvas:
    """A mesh file in the unit ball, and the texels that are painted anew. Several textures are one image here."""

    mesh: PaintedMesh
    """All faces of the file, also those that are not painted; texture coordinates of `in_atlas` are in the image."""
    placement: Placement
    """The transform from the file to the unit ball."""
    document: bytes
    """The file: a GLB with all of its buffers and images, or the OBJ file with its neighbors, see `obj_bundle`."""
    atlases: tuple[Atlas, ...]
    """The textures."""
    in_atlas: Bool[Tensor, " f"]
    """Whether each face shows one of the textures."""
    texture: UInt8[Tensor, "h w 3"]
    """The textures of the file, display sRGB; without one, the colors of the materials."""
    painted: Bool[Tensor, "h w"]
    """Whether each texel is painted."""
    factors: Float[Tensor, "v 4"]
    """Linear RGB factors of the texture at the vertices, and 1 where the texture applies; see `draw_mesh`."""


def read_canvas(path: Path, *, yaw: float = 0.0, part: str = "", mask: str = "", texture_size: int = 1024) -> Canvas:
    """Read a mesh file and choose the texels to paint: those of a part, of a mask, of both, or of all textures.

    Texels between the charts belong to the nearest chart.

    Args:
        path: The file.
        yaw: Rotation in degrees about +Y that brings the front to +Z.
        part: Name of a node, mesh or material; case and articles are ignored. Empty: all faces.
        mask: Path of a grayscale image of the size of the texture, white where texels are painted. Empty: everywhere.
        texture_size: Size of the texture in texels of materials that have none.

    Raises:
        ValueError: The file is broken or has no suitable texture coordinates, there is no such part, it has several
            textures and a mask is given, or the mask does not fit.
        OSError: A file cannot be read.
    """
    if path.suffix.lower() not in FORMATS:
        raise ValueError(
            f"the texture of {path.name} cannot be replaced, only that of {', '.join(FORMATS)}; steindreamer finish "
            f"{path.name} --preset web --keep writes a GLB with the same triangles and texture coordinates"
        )
    mesh, placement = read_fitted_mesh(path, yaw, maps=True)
    document, materials = _document(path)
    try:
        chosen = _parts(mesh, part)
        groups = _groups(mesh, chosen, materials, named=bool(part))
        if mask and len(groups) > 1:
            raise ValueError(f"it has {len(groups)} textures, and a mask fits one: {_listed_groups(mesh, groups)}")
        textures = [
            _texture_to_paint(mesh, group, chosen, texture_size, Path(mask) if mask else None) for group in groups
        ]
        regions, size = arrange([(each.shape[0], each.shape[1]) for each, _ in textures])
        if size[0] * size[1] > MAX_TEXELS:
            raise ValueError(
                f"its {len(groups)} textures have {size[0] * size[1] / 1e6:.0f} million texels together; at most "
                f"{MAX_TEXELS / 1e6:.0f} million are trained at once: {_listed_groups(mesh, groups)}"
            )
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    coordinates = mesh.coordinates.clone()
    for group, region in zip(groups, regions, strict=True):
        vertices = mesh.faces[_faces_of(mesh, group)].unique()
        coordinates[vertices] = region.moved(coordinates[vertices], size)
    members = [index for group in groups for index in group]
    return Canvas(
        replace(mesh, coordinates=coordinates),
        placement,
        document,
        tuple(
            Atlas(tuple({mesh.origins[index].material: None for index in group}), region)
            for group, region in zip(groups, regions, strict=True)
        ),
        _faces_of(mesh, members),
        sheet_of([texture for texture, _ in textures], regions, size),
        sheet_of([painted for _, painted in textures], regions, size),
        _factors(mesh, members),
    )


def _document(path: Path) -> tuple[bytes, list[bool]]:
    """The file with everything that it refers to, and whether each of its materials names a base color image."""
    if path.suffix.lower() == ".obj":
        bundle = ObjBundle.read(path)
        return bundle.packed(), [bool(bundle.image_of(name)) for name in bundle.materials]
    document = GltfDocument(read_regular_file(path), path.parent)
    sections = [base_color(each) for each in document.items("materials")]
    tree, binary = in_one_buffer(document)
    return glb(tree, binary), [key in section for section, _, key in sections]


def _texture_to_paint(
    mesh: PaintedMesh, members: list[int], chosen: list[int], texture_size: int, mask: Path | None
) -> tuple[UInt8[Tensor, "h w 3"], Bool[Tensor, "h w"]]:
    """One texture, and whether each of its texels is painted.

    Args:
        mesh: The mesh.
        members: The parts that show the texture.
        chosen: The parts whose faces are painted.
        texture_size: Its size if the file has none.
        mask: Image of the texels that are painted.
    """
    texture = mesh.paints[members[0]].texture
    size = (texture_size, texture_size) if texture is None else tuple(texture.texels.shape[:2])
    in_atlas, selected = _faces_of(mesh, members), _faces_of(mesh, chosen)
    # The chosen faces first, so that texels shared with other faces count as theirs, and as overlaps.
    order = torch.cat([torch.nonzero(in_atlas & selected)[:, 0], torch.nonzero(in_atlas & ~selected)[:, 0]])
    coverage = cover_texels(mesh.coordinates.numpy(), mesh.faces[order].numpy(), (size[0], size[1]))
    if not (coverage.owner >= 0).any():
        raise ValueError(f"no texel of the {size[1]} x {size[0]} texture is on a face; {_ADVICE}")
    row, column = coverage.nearest()
    owner = order.numpy()[coverage.owner[row, column]]
    painted = selected.numpy()[owner]
    if mask is not None:
        painted &= _mask(mask, size)
    _check_overlap(coverage, painted)
    if texture is not None:
        return texture.texels, torch.from_numpy(painted)
    factors = torch.from_numpy(np.array([paint.factor for paint in mesh.paints]))
    plain = (to_display(factors) if mesh.linear else factors).mul(255).round().to(torch.uint8)
    return plain[mesh.paint_of_face[torch.from_numpy(owner)]], torch.from_numpy(painted)


def _faces_of(mesh: PaintedMesh, parts: list[int]) -> Bool[Tensor, " f"]:
    return torch.isin(mesh.paint_of_face, torch.tensor(parts))


def _parts(mesh: PaintedMesh, name: str) -> list[int]:
    """Indices of the parts with faces that have this name; all if it is empty. Raises ValueError if there is none."""
    present = mesh.paint_of_face.unique().tolist()
    if not name:
        return present
    wanted = _plain(name)
    found = [index for index in present if wanted in map(_plain, mesh.origins[index].names)]
    if not found:
        raise ValueError(f"it has no part '{name}'; parts: {_listed(mesh.origins[index] for index in present)}")
    return found


def _groups(mesh: PaintedMesh, chosen: list[int], has_image: list[bool], *, named: bool) -> list[list[int]]:
    """Indices of all parts that have the textures of the chosen ones, by texture; those without one are one group.

    Parts without a texture that were not chosen by name keep their colors if their texture coordinates are unsuitable
    and other parts have a texture.

    Args:
        mesh: The mesh.
        chosen: The parts whose faces are painted.
        has_image: Whether each material of the file names an image.
        named: Whether the parts were chosen by name.

    Raises:
        ValueError: Texture coordinates are unsuitable, or an image cannot be read.
    """
    textures = dict.fromkeys(_texture_of(mesh, index) for index in chosen)
    present, groups = mesh.paint_of_face.unique().tolist(), []
    for texture in sorted(textures, key=lambda key: key is None):
        members = [index for index in present if _texture_of(mesh, index) == texture]
        if texture is None:  # other plain materials keep their colors
            materials = {mesh.origins[index].material for index in chosen}
            members = [index for index in members if mesh.origins[index].material in materials]
        try:
            for index in members:
                _check_coordinates(mesh, index)
        except ValueError as error:
            if texture is not None or named or not groups:
                raise
            logger.warning("%s; its color is kept", error)
            continue
        for index in members if texture is None else ():
            material = mesh.origins[index].material
            if material is not None and has_image[material]:
                raise ValueError(
                    f"the image of {_listed([mesh.origins[index]])} cannot be read; fix it, or remove it from the file"
                )
        groups.append(members)
    return groups


def _check_coordinates(mesh: PaintedMesh, index: int) -> None:
    """Raises ValueError unless a part has texture coordinates in [0, 1]."""
    origin = mesh.origins[index]
    if not origin.has_coordinates:
        raise ValueError(f"{_listed([origin])} has no texture coordinates; {_ADVICE}")
    corners = mesh.coordinates[mesh.faces[mesh.paint_of_face == index]]
    low, high = float(corners.min()), float(corners.max())
    if low < -_BEYOND or high > 1 + _BEYOND:
        raise ValueError(
            f"{_listed([origin])} has texture coordinates from {low:.3g} to {high:.3g}, which repeat the texture; "
            f"only [0, 1] is accepted: {_ADVICE}"
        )


def _listed_groups(mesh: PaintedMesh, groups: list[list[int]]) -> str:
    """The advice to choose one of several textures, in one line."""
    listed = "; ".join(_listed(mesh.origins[index] for index in group) for group in groups)
    return f"choose one with --part NAME ({listed})"


def _texture_of(mesh: PaintedMesh, index: int) -> int | None:
    """A key of the image that a part shows; None if it shows none."""
    texture = mesh.paints[index].texture
    return None if texture is None else texture.texels.data_ptr()


def _check_overlap(coverage: Coverage, painted: Bool[np.ndarray, "h w"]) -> None:
    """Raises ValueError if painted texels are used by several faces, or if there are none."""
    used = painted & (coverage.owner >= 0)
    if not used.any():
        raise ValueError("the mask has no white texel on the chosen faces; nothing would be painted")
    fraction = float((used & (coverage.count > 1)).sum() / used.sum())
    if fraction > _OVERLAP:
        raise ValueError(
            f"{fraction:.1%} of the texels to paint are used by several faces, which would all get the same "
            f"color; {_ADVICE}"
        )


def _mask(path: Path, size: tuple[int, ...]) -> Bool[np.ndarray, "h w"]:
    """Whether each texel is white in the mask. Raises ValueError if it has another size or cannot be read."""
    data = read_regular_file(path)
    try:
        with Image.open(io.BytesIO(data), formats=IMAGES) as image:
            given = image.size
            white = np.asarray(image.convert("L")) > 127 if given == (size[1], size[0]) else None
    except Exception as error:  # Pillow's decoders may raise any type
        raise ValueError(f"the mask {path} cannot be read: {' '.join(str(error).split())[:120]}") from None
    if white is None:
        raise ValueError(
            f"the mask {path} is {given[0]} x {given[1]}, but the texture is {size[1]} x {size[0]}; resize the mask"
        )
    return white


def _factors(mesh: PaintedMesh, members: list[int]) -> Float[Tensor, "v 4"]:
    """Factors of the texture at all vertices; those of other parts are their colors."""
    assert mesh.colors is not None
    out = torch.cat([to_linear(mesh.colors), torch.zeros(len(mesh.vertices), 1)], 1)
    for index in members:
        vertices = mesh.faces[mesh.paint_of_face == index].unique()
        paint = mesh.paints[index]
        # The color of a material without a texture moves into its new texture.
        factor = torch.tensor((1.0, 1.0, 1.0) if paint.texture is None else paint.factor, dtype=torch.float64)
        factors = mesh.tints[vertices] * factor
        out[vertices, :3] = (factors if mesh.linear else to_linear(factors)).float()
        out[vertices, 3] = 1.0
    return out


def _plain(name: str) -> str:
    """A name in lower case without articles and punctuation."""
    words = re.findall(r"[^\W_]+", name.lower())
    return " ".join(word for word in words if word not in ("a", "an", "the"))


def _listed(origins: Iterable[PartOrigin]) -> str:
    """The names of parts in one line."""
    names = list(dict.fromkeys(name for origin in origins for name in origin.names))
    more = f" and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
    return ", ".join(f"'{name}'" for name in names[:_LISTED]) + more if names else "a part without a name"
