"""A reader of Wavefront OBJ that keeps names, normals and all texture maps."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np

from steindreamer.representations.mesh.formats.mtl import (
    MtlMaterial,
    ObjMaterials,
    read_named,
    take_texture,
)
from steindreamer.representations.mesh.formats.obj import element_index, numbered_lines
from steindreamer.representations.mesh.formats.parts import MAX_FACES

from .asset_file import AssetFile, ImageFile, Material, Node, Part, Slot, TextureUse
from .limits import check_parts, checked_faces
from .roles import is_collider, level_of

_MAPS: dict[str, Slot] = {
    **{"map_kd": "base_color", "map_ke": "emissive", "norm": "normal", "map_bump": "normal", "bump": "normal"},
    **{"map_pr": "metallic_roughness", "map_pm": "metallic_roughness", "map_ao": "occlusion"},
}
"""Use of a texture by its key in the material file, in lower case."""


def read_obj_file(data: bytes, path: Path) -> AssetFile:
    """Read an OBJ file with its material files. Raises ValueError if it is broken."""
    reader = _Reader()
    for number, line in numbered_lines(data):
        try:
            reader.take(line)
        except (ValueError, IndexError, OverflowError) as error:
            raise ValueError(f"line {number} ('{line[:60]}') cannot be read: {error}") from None
    missing: list[str] = []
    library = _Library(reader.libraries, path.parent, missing)
    materials = [library.material(name) for name in reader.materials]
    arrays = [np.array(rows, np.float64).reshape(-1, width) for rows, width in zip(reader.rows, (3, 2, 3), strict=True)]
    instances = {name: index for index, name in enumerate(dict.fromkeys(name for name, _ in reader.faces))}
    parts = [
        _part(arrays, np.array(corners, np.int64).reshape(-1, 3), name, instances[name], material)
        for (name, material), corners in reader.faces.items()
        if corners
    ]
    check_parts(parts)
    return AssetFile(
        path=path,
        format="obj",
        file_bytes=len(data) + library.file_bytes,
        parts=tuple(parts),
        materials=tuple(materials),
        images=tuple(library.images),
        nodes=tuple(Node(name, np.eye(4)) for name in instances),
        meters=False,
        missing=tuple(missing),
    )


class _Reader:
    """Collects the content of an OBJ file line by line."""

    def __init__(self) -> None:
        self.rows: tuple[list[list[float]], list[list[float]], list[list[float]]] = ([], [], [])
        """Positions, texture coordinates and normals."""
        self.faces: dict[tuple[str, int], list[tuple[int, int, int]]] = {}
        """Corners of triangles, three each, by object and material."""
        self.materials: dict[str, int] = {}
        """Index of each material, by name."""
        self.libraries: list[str] = []
        self._object, self._material, self._count = "", -1, 0

    def take(self, line: str) -> None:
        """Parse a line. Raises ValueError or IndexError for an invalid line."""
        key, _, rest = line.partition(" ")
        if key in ("v", "vt", "vn"):
            width = 2 if key == "vt" else 3
            values = [float(word) for word in rest.split()[:width]]
            if len(values) < (1 if key == "vt" else 3):
                raise ValueError("a vertex has three coordinates")
            self.rows[("v", "vt", "vn").index(key)].append([*values, 0.0][:width])
        elif key == "f":
            polygon = [self._corner(word) for word in rest.split()]
            self._count += max(len(polygon) - 2, 0)
            if self._count > MAX_FACES:
                raise ValueError(f"it has more than {MAX_FACES} triangles; simplify it")
            corners = self.faces.setdefault((self._object, self._material), [])
            for second, third in pairwise(polygon[1:]):
                corners += (polygon[0], second, third)
        elif key in ("o", "g"):
            self._object = rest.strip() or self._object
        elif key == "usemtl":
            name = " ".join(rest.split())
            self._material = self.materials.setdefault(name, len(self.materials))
        elif key == "mtllib":
            self.libraries.append(rest.strip())

    def _corner(self, word: str) -> tuple[int, int, int]:
        words = [*word.split("/"), "", ""][:3]
        if not words[0]:
            raise ValueError("a corner of a face has no vertex")
        vertex, place, normal = (
            element_index(each, len(rows)) if each else -1 for each, rows in zip(words, self.rows, strict=True)
        )
        return vertex, place, normal


def _part(arrays: list[np.ndarray], corners: np.ndarray, name: str, instance: int, material: int) -> Part:
    """A part whose vertices are the distinct corners."""
    for column, what in enumerate(("vertex", "texture coordinate", "normal")):
        if (largest := int(corners[:, column].max())) >= len(arrays[column]):
            raise ValueError(f"a face refers to {what} {largest + 1} of {len(arrays[column])}")
    used, faces = np.unique(corners, axis=0, return_inverse=True)
    places, normals = (arrays[k][used[:, k]] if len(arrays[k]) and (used[:, k] >= 0).all() else None for k in (1, 2))
    return Part(
        node=name,
        mesh=name,
        instance=instance,
        material=material,
        world=np.eye(4),
        positions=arrays[0][used[:, 0]],
        faces=checked_faces(faces, len(used)),
        normals=normals,
        uvs={} if places is None else {0: places * (1, -1) + (0, 1)},  # v grows upward in OBJ
        collider=is_collider(name),
        level=level_of(name),
    )


class _Library:
    """The materials of an OBJ file, with all their maps."""

    def __init__(self, libraries: list[str], folder: Path, missing: list[str]) -> None:
        self.images: list[ImageFile] = []
        self.file_bytes = 0
        self._indices: dict[str, int] = {}
        self._folder, self._missing = folder, missing
        self._paints = ObjMaterials(libraries, folder, missing.append)
        self._maps: dict[str, dict[Slot, tuple[str, bool]]] = {}
        for library in dict.fromkeys(libraries):
            self._read_maps(library)

    def material(self, name: str) -> Material:
        """A material by name."""
        uses: dict[Slot, TextureUse] = {}
        for slot, (file, clamped) in self._maps.get(name, {}).items():
            wrap = "clamp" if clamped else "repeat"
            uses[slot] = TextureUse(self._image(file), wrap=(wrap, wrap))
        return Material(name, self._paints.paint(name).paint, uses, physical=False)

    def _read_maps(self, library: str) -> None:
        try:
            data = read_named(self._folder, library.strip('"'))
        except (OSError, ValueError):
            return  # `ObjMaterials` reports it
        self.file_bytes += len(data)
        maps: dict[Slot, tuple[str, bool]] = {}
        for line in data.decode("utf-8-sig", "replace").splitlines():
            key, *words = line.split("#")[0].split() or [""]
            if key.lower() == "newmtl":
                maps = self._maps.setdefault(" ".join(words), {})
            elif (slot := _MAPS.get(key.lower())) is not None:
                parsed = MtlMaterial()
                take_texture(parsed, words)
                maps[slot] = parsed.image, parsed.clamped

    def _image(self, name: str) -> int:
        if name in self._indices:
            return self._indices[name]
        try:
            image = ImageFile(name, read_named(self._folder, name))
        except (OSError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
            image = ImageFile(name, b"", reason)
            self._missing.append(f"its texture '{name[:80]}' cannot be read ({reason})")
        self._indices[name] = len(self.images)
        self.images.append(image)
        self.file_bytes += len(image.data)
        return len(self.images) - 1
