"""Triangle meshes from files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
import trimesh
from trimesh.visual import ColorVisuals, TextureVisuals

from .mesh import TriangleMesh

FORMATS = (".glb", ".obj", ".ply", ".stl")


def read_mesh(path: Path) -> TriangleMesh:
    """All parts of a mesh file as one mesh, as it is (metres, +Y up), with vertex colours if it has any appearance.

    Vertices at the same place are merged. Raises ValueError for another format or a file without triangles, OSError for
    a missing file.
    """
    if path.suffix.lower() not in FORMATS:
        raise ValueError(f"cannot read {path.name} as a mesh; accepted are {', '.join(FORMATS)}")
    if not path.is_file():
        raise FileNotFoundError(f"there is no mesh file {path}")
    try:
        scene = trimesh.load_scene(path)
        parts = [part for part in scene.dump() if isinstance(part, trimesh.Trimesh) and len(part.faces)]
    except Exception as error:  # its parsers raise whatever they stumble over
        raise ValueError(f"cannot read {path}: {error}") from error
    if not parts:
        raise ValueError(f"{path} holds no triangles")
    starts = np.cumsum([0, *(len(part.vertices) for part in parts)])
    vertices = np.concatenate([part.vertices for part in parts]).astype(np.float32)
    faces = np.concatenate([part.faces + start for part, start in zip(parts, starts, strict=False)])
    colours = np.concatenate([_colours(part) for part in parts])
    return TriangleMesh(
        torch.from_numpy(vertices), torch.from_numpy(faces.astype(np.int64)), colours=torch.from_numpy(colours)
    )


def _colours(part: trimesh.Trimesh) -> np.ndarray:
    """sRGB in [0, 1] per vertex."""
    visual = part.visual
    if isinstance(visual, TextureVisuals):
        visual = visual.to_color()
    assert isinstance(visual, ColorVisuals)
    return (np.asarray(visual.vertex_colors)[:, :3] / 255).astype(np.float32)
