"""Scenes as the browser's own objects: Gaussians as splats, and surfaces as textured meshes."""

from __future__ import annotations

import numpy as np
import torch
import trimesh
import viser
from PIL import Image
from scipy.spatial.transform import Rotation
from trimesh.visual import TextureVisuals
from trimesh.visual.material import PBRMaterial

from steindreamer.representations import Gaussians, Meshable, Representation, TriangleMesh
from steindreamer.representations.mesh.painted import PaintedMesh

from .scenes import MeshScene

NAME = "/scene"
"""Name of the object in the page."""
LARGEST_SCALE = 1e2
"""Standard deviations in meters above this are reduced to it: covariances are sent in half precision."""


def is_native(scene: Representation) -> bool:
    """Whether a browser can draw the scene itself; it cannot draw a NeRF."""
    return isinstance(scene, Gaussians | MeshScene | Meshable)


@torch.no_grad()
def show_native(server: viser.ViserServer, scene: Representation) -> viser.SceneNodeHandle | None:
    """Replace the object in the page by this scene; None, and no object, if `is_native` is false or it is empty."""
    if isinstance(scene, Gaussians):
        return _add_splats(server, scene)
    if isinstance(scene, MeshScene):
        mesh = _painted(scene.mesh)
    elif isinstance(scene, Meshable):
        mesh = _plain(scene.mesh())
    else:
        return None
    return server.scene.add_mesh_trimesh(NAME, mesh) if len(mesh.faces) else None


def _add_splats(server: viser.ViserServer, scene: Gaussians) -> viser.SceneNodeHandle:
    turns = Rotation.from_quat(np.roll(_array(scene.quaternions), -1, 1)).as_matrix()  # from w, x, y, z
    axes = turns * np.minimum(_array(scene.scales), LARGEST_SCALE)[:, None, :]
    return server.scene.add_gaussian_splats(
        NAME,
        centers=_array(scene.means),
        covariances=axes @ axes.transpose(0, 2, 1),
        rgbs=_array(scene.colors),
        opacities=_array(scene.opacities)[:, None],
    )


def _painted(mesh: PaintedMesh) -> trimesh.Trimesh:
    """A mesh with its texture if it has a single plain one, else with the colors at the corners of its faces."""
    paint = mesh.paints[0] if len(mesh.paints) == 1 else None
    if paint is not None and paint.texture is not None and set(paint.factor) == {1.0} and bool((mesh.tints == 1).all()):
        texels = paint.texture.texels.numpy()
        return _textured(mesh.vertices, mesh.faces, mesh.normals, mesh.coordinates, Image.fromarray(texels))
    corners = torch.eye(3).repeat(len(mesh.faces), 1)
    colors = mesh.colors_at(torch.arange(len(mesh.faces)).repeat_interleave(3), corners)
    vertices = _array(mesh.vertices[mesh.faces.reshape(-1)])
    normals = None if mesh.normals is None else _array(mesh.normals[mesh.faces.reshape(-1)])
    faces = np.arange(3 * len(mesh.faces)).reshape(-1, 3)
    return trimesh.Trimesh(vertices, faces, vertex_normals=normals, vertex_colors=_bytes(colors), process=False)


def _plain(mesh: TriangleMesh) -> trimesh.Trimesh:
    if mesh.uvs is not None and mesh.texture is not None:
        texture = Image.fromarray(_bytes(mesh.texture.permute(1, 2, 0)))
        return _textured(mesh.vertices, mesh.faces, mesh.normals, mesh.uvs, texture)
    colors = None if mesh.colors is None else _bytes(mesh.colors)
    return trimesh.Trimesh(_array(mesh.vertices), mesh.faces.cpu().numpy(), vertex_colors=colors, process=False)


def _textured(
    vertices: torch.Tensor, faces: torch.Tensor, normals: torch.Tensor | None, uvs: torch.Tensor, texture: Image.Image
) -> trimesh.Trimesh:
    material = PBRMaterial(baseColorTexture=texture, metallicFactor=0.0, roughnessFactor=1.0, doubleSided=True)
    upward = _array(uvs) * [1, -1] + [0, 1]  # trimesh's v points up
    return trimesh.Trimesh(
        _array(vertices),
        faces.cpu().numpy(),
        vertex_normals=None if normals is None else _array(normals),
        visual=TextureVisuals(uv=upward, material=material),
        process=False,
    )


def _array(tensor: torch.Tensor) -> np.ndarray:
    return np.nan_to_num(tensor.detach().double().cpu().numpy(), posinf=0.0, neginf=0.0)


def _bytes(colors: torch.Tensor) -> np.ndarray:
    return (_array(colors).clip(0, 1) * 255).round().astype(np.uint8)
