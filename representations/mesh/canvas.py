"""The part of a mesh file's texture that is painted anew: the faces of one atlas, and their texels."""

from __future__ import annotations

import io
import re
from collections.abc import Iterable
from dataclasses import dataclass
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
from .painted import PaintedMesh, PartOrigin, to_display, to_linear
from .uv_coverage import Coverage, cover_texels

FORMATS = (".glb", ".gltf")
"""Suffixes of the files whose texture can be replaced."""
_ADVICE = "steindreamer finish FILE --preset web unwraps a mesh anew"
_OVERLAP = 0.005
"""Fraction of the painted texels that may be used by several faces, for the rounding along chart borders."""
_BEYOND = 1e-3
"""Distance by which texture coordinates may exceed [0, 1]."""
_LISTED = 12
"""Maximum number of names in a message."""


@dataclass(frozen=True)
class Canvas:
    """A mesh file in the unit ball, and the texels that are painted anew."""

    mesh: PaintedMesh
    """All faces of the file, also those that are not painted."""
    placement: Placement
    """The transform from the file to the unit ball."""
    document: bytes
    """The file, as a GLB with all of its buffers and images."""
    materials: tuple[int | None, ...]
    """Indices of the materials that get the texture; None: the default material of glTF."""
    in_atlas: Bool[Tensor, " f"]
    """Whether each face shows the texture."""
    texture: UInt8[Tensor, "h w 3"]
    """The texture of the file, display sRGB; without one, the colors of the materials."""
    painted: Bool[Tensor, "h w"]
    """Whether each texel is painted."""
    factors: Float[Tensor, "v 4"]
    """Linear RGB factors of the texture at the vertices, and 1 where the texture applies; see `draw_mesh`."""


def read_canvas(path: Path, *, yaw: float = 0.0, part: str = "", mask: str = "", texture_size: int = 1024) -> Canvas:
    """Read a mesh file and choose the texels to paint: those of a part, of a mask, of both, or of the whole texture.

    Texels between the charts belong to the nearest chart.

    Args:
        path: The file.
        yaw: Rotation in degrees about +Y that brings the front to +Z.
        part: Name of a node, mesh or material; case and articles are ignored. Empty: all faces.
        mask: Path of a grayscale image of the size of the texture, white where texels are painted. Empty: everywhere.
        texture_size: Size of the texture in texels if the file has none.

    Raises:
        ValueError: The file is broken or has no suitable texture coordinates, there is no such part, it has several
            textures, or the mask does not fit.
        OSError: A file cannot be read.
    """
    if path.suffix.lower() not in FORMATS:
        raise ValueError(
            f"the texture of {path.name} cannot be replaced, only that of {' and '.join(FORMATS)}; steindreamer finish "
            f"{path.name} --preset web --keep writes a GLB with the same triangles and texture coordinates"
        )
    mesh, placement = read_fitted_mesh(path, yaw, maps=True)
    document = GltfDocument(read_regular_file(path), path.parent)
    try:
        chosen = _parts(mesh, part)
        members = _atlas(mesh, chosen, document)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    in_atlas, selected = (torch.isin(mesh.paint_of_face, torch.tensor(each)) for each in (members, chosen))
    paint = mesh.paints[chosen[0]]
    size = (texture_size, texture_size) if paint.texture is None else tuple(paint.texture.texels.shape[:2])
    # The chosen faces first, so that texels shared with other faces count as theirs, and as overlaps.
    order = torch.cat([torch.nonzero(selected)[:, 0], torch.nonzero(in_atlas & ~selected)[:, 0]])
    uvs = mesh.coordinates.numpy()
    coverage = cover_texels(uvs, mesh.faces[order].numpy(), (size[0], size[1]))
    if not (coverage.owner >= 0).any():
        raise ValueError(f"{path}: no texel of the {size[1]} x {size[0]} texture is on a face; {_ADVICE}")
    row, column = coverage.nearest()
    owner = order.numpy()[coverage.owner[row, column]]
    painted = selected.numpy()[owner]
    if mask:
        painted &= _mask(Path(mask), size)
    _check_overlap(path, coverage, painted)
    if paint.texture is None:
        factors = np.array([paint.factor for paint in mesh.paints])
        plain = to_display(torch.from_numpy(factors)).mul(255).round().to(torch.uint8)
        texture = plain[mesh.paint_of_face.numpy()[owner]]
    else:
        texture = paint.texture.texels
    tree, binary = in_one_buffer(document)
    return Canvas(
        mesh,
        placement,
        glb(tree, binary),
        tuple({mesh.origins[index].material: None for index in members}),
        in_atlas,
        texture,
        torch.from_numpy(painted),
        _factors(mesh, members),
    )


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


def _atlas(mesh: PaintedMesh, chosen: list[int], document: GltfDocument) -> list[int]:
    """Indices of all parts that have the texture of the chosen ones.

    Raises ValueError if these have several textures, or unsuitable texture coordinates.
    """
    textures = {_texture_of(mesh, index): index for index in chosen}
    if len(textures) > 1:
        listed = "; ".join(
            f"{'no texture' if key is None else 'a texture'}: "
            + _listed(mesh.origins[index] for index in chosen if _texture_of(mesh, index) == key)
            for key in textures
        )
        raise ValueError(f"these parts have {len(textures)} textures, choose those of one with --part NAME ({listed})")
    (texture,) = textures
    members = [index for index in mesh.paint_of_face.unique().tolist() if _texture_of(mesh, index) == texture]
    if texture is None:  # other plain materials keep their colors
        materials = {mesh.origins[index].material for index in chosen}
        members = [index for index in members if mesh.origins[index].material in materials]
    for index in members:
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
        material = None if origin.material is None else document.item("materials", origin.material)
        if texture is None and material is not None:
            section, _, key = base_color(material)
            if key in section:
                raise ValueError(f"the image of {_listed([origin])} cannot be read; fix it, or remove it from the file")
    return members


def _texture_of(mesh: PaintedMesh, index: int) -> int | None:
    """A key of the image that a part shows; None if it shows none."""
    texture = mesh.paints[index].texture
    return None if texture is None else texture.texels.data_ptr()


def _check_overlap(path: Path, coverage: Coverage, painted: Bool[np.ndarray, "h w"]) -> None:
    """Raises ValueError if painted texels are used by several faces, or if there are none."""
    used = painted & (coverage.owner >= 0)
    if not used.any():
        raise ValueError(f"{path}: the mask has no white texel on the chosen faces; nothing would be painted")
    fraction = float((used & (coverage.count > 1)).sum() / used.sum())
    if fraction > _OVERLAP:
        raise ValueError(
            f"{path}: {fraction:.1%} of the texels to paint are used by several faces, which would all get the same "
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
        out[vertices, :3] = (mesh.tints[vertices] * factor).float()
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
