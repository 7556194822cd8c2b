"""Reading exported assets back."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import trimesh

from steindreamer.representations import TriangleMesh
from steindreamer.world.sampling import RADIUS


def read_glb(path: Path) -> TriangleMesh:
    """The textured mesh of an exported file, through trimesh (whose v axis points up)."""
    scene = trimesh.load_scene(path, process=False)
    (geometry,) = scene.geometry.values()
    uvs = np.asarray(geometry.visual.uv, dtype=np.float32)
    texture = np.asarray(geometry.visual.material.baseColorTexture.convert("RGB"), dtype=np.float32) / 255
    return TriangleMesh(
        torch.from_numpy(np.asarray(geometry.vertices, dtype=np.float32)),
        torch.from_numpy(np.asarray(geometry.faces, dtype=np.int64)),
        normals=torch.from_numpy(np.asarray(geometry.vertex_normals, dtype=np.float32)),
        uvs=torch.from_numpy(np.stack([uvs[:, 0], 1 - uvs[:, 1]], 1)),
        texture=torch.from_numpy(texture).permute(2, 0, 1).contiguous(),
    )


def extras(path: Path) -> dict[str, Any]:
    """What the exporter noted in the file, such as the prompt."""
    content = path.read_bytes()
    length = int.from_bytes(content[12:16], "little")
    return json.loads(content[20 : 20 + length])["asset"].get("extras", {})


def placed(mesh: TriangleMesh) -> TriangleMesh:
    """Centered by its bounding box, the farthest vertex at the world's radius."""
    centered = mesh.vertices - (mesh.vertices.amin(0) + mesh.vertices.amax(0)) / 2
    return replace(mesh, vertices=centered * RADIUS / centered.norm(dim=1).amax())
