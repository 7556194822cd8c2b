"""Wavefront OBJ with a material library."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
from jaxtyping import Float

from ...engines import Engine
from ...export.gltf_builder import png
from ...files import write_atomically
from ..bake import BakedMaterial
from ..finished import Finished
from ..naming import Names
from .surface import indexed_surface
from .textures import ORM, TextureFiles


def write_obj(asset: Finished, folder: Path, textures: TextureFiles) -> list[Path]:
    """Write each level of detail as an OBJ, the collider as another, and the materials.

    Units are meters with +Y up; for 3D printing millimeters with +Z up. Returns the paths, the main file first.
    """
    names = asset.names
    materials = folder / f"{names.mesh}.mtl"
    written = []
    for level in range(len(asset.levels)):
        title = names.lod(level) if level else names.mesh
        written.append(folder / f"{title}.obj")
        lines = [f"mtllib {materials.name}", f"o {title}", f"usemtl {names.material_of(asset.first_with(level))}"]
        write_atomically(written[-1], _text([*lines, *_surface_lines(asset, level)]))
    library = [
        line
        for level, material in asset.materials().items()
        for line in _material_lines(names, level, material, textures)
    ]
    write_atomically(materials, _text(library))
    written.insert(1, materials)
    if asset.collider is not None:
        written.append(folder / f"{names.mesh}_Collider.obj")
        write_atomically(written[-1], _text(_collider_lines(asset)))
    return written


def _surface_lines(asset: Finished, level: int) -> Iterator[str]:
    surface, engine = indexed_surface(asset, level), asset.names.engine
    yield from _rows("v", _axes(surface.points, engine) / _unit(engine))
    yield from _rows("vt", np.stack([surface.uvs[:, 0], 1 - surface.uvs[:, 1]], 1))
    yield from _rows("vn", _axes(surface.normals, engine))
    corners = np.stack([surface.point_faces, surface.uv_faces, surface.normal_faces], 2).reshape(-1, 9) + 1
    yield from ("f {}/{}/{} {}/{}/{} {}/{}/{}".format(*row) for row in corners.tolist())


def _collider_lines(asset: Finished) -> Iterator[str]:
    """An object per hull."""
    assert asset.collider is not None
    names, first = asset.names, 1
    for index, hull in enumerate(asset.collider.hulls):
        yield f"o {names.hull(index)}"
        yield from _rows("v", _axes(asset.frame.points(hull.vertices), names.engine) / _unit(names.engine))
        yield from ("f {} {} {}".format(*row) for row in (hull.faces.numpy() + first).tolist())
        first += len(hull.vertices)


def _material_lines(names: Names, level: int, material: BakedMaterial, textures: TextureFiles) -> Iterator[str]:
    """A material with its textures; roughness, metalness, emission and normals are those of the PBR extension of MTL,
    which has a file per channel and no occlusion."""
    title = f"T_{names.asset}_LOD{level}" if level else f"T_{names.asset}"
    yield f"newmtl {names.material_of(level)}"
    images, factors, white = material.images(), material.factors, (1.0, 1.0, 1.0)
    yield from ("Ka 0 0 0", _color("Kd", factors.get("base_color", white)), "Ks 0 0 0", "illum 2")
    roughness, metallic = material.roughness_metallic
    yield from (f"Pr {roughness:.4g}", f"Pm {metallic:.4g}")
    if material.emissive is not None:
        yield _color("Ke", factors.get("emissive", white))
    if "base_color" in images:
        yield f"map_Kd {textures.add(names.texture('base_color', level), png(images['base_color']))}"
    if ORM in images:
        yield f"map_Pr {textures.add(f'{title}_R', png(images[ORM][..., 1]))}"
    if ORM in images and material.metallic:
        yield f"map_Pm {textures.add(f'{title}_M', png(images[ORM][..., 2]))}"
    if "normal" in images:
        yield f"norm {textures.add(names.texture('normal', level), png(images['normal']))}"
    if "emissive" in images:
        yield f"map_Ke {textures.add(names.texture('emissive', level), png(images['emissive']))}"


def _color(key: str, color: tuple[float, float, float]) -> str:
    return key + "".join(f" {value:.4g}" for value in color)


def _axes(rows: Float[np.ndarray, "n 3"], engine: Engine) -> Float[np.ndarray, "n 3"]:
    """The axes of the file from those with +Y up: +Z is up where the file is for a slicer."""
    return np.stack([rows[:, 0], -rows[:, 2], rows[:, 1]], 1) if engine.prints else rows


def _unit(engine: Engine) -> float:
    return engine.unit_meters if engine.prints else 1.0


def _rows(key: str, rows: Float[np.ndarray, "n c"]) -> Iterator[str]:
    template = key + " {:.7g}" * rows.shape[1]
    return (template.format(*row) for row in rows.tolist())


def _text(lines: Iterable[str]) -> bytes:
    return ("\n".join(lines) + "\n").encode()
