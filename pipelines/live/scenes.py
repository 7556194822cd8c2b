"""Scenes to view: a checkpoint or the asset of a run, a splat file or a mesh file."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from steindreamer.representations import (
    Cameras,
    GaussiansConfig,
    RenderOutput,
    Representation,
    ensemble_of,
    vertex_normals,
)
from steindreamer.representations.gaussians.file import is_splat_file
from steindreamer.representations.mesh.file import read_fitted_mesh
from steindreamer.representations.mesh.formats.gltf_document import GltfDocument
from steindreamer.representations.mesh.painted import PaintedMesh
from steindreamer.representations.mesh.rasterization import interpolate, rasterize

from ..config.run_config import RunConfig, read_config
from ..errors import DamagedCheckpoint, UserError
from ..optimization.component_checks import blank_scene
from ..runs.checkpoint import Checkpoint, restore_newest


class MeshScene(Representation):
    """A mesh with its materials that is only viewed; faces are rendered from both sides, without antialiasing."""

    def __init__(self, mesh: PaintedMesh) -> None:
        super().__init__()
        self.mesh = mesh
        self.normals = vertex_normals(mesh.vertices, mesh.faces) if mesh.normals is None else mesh.normals

    def learning_rates(self, progress: float) -> dict[str, float]:
        return {}

    def render(self, cameras: Cameras, background: Float[Tensor, "b 3"]) -> RenderOutput:
        fragments = rasterize(self.mesh.vertices, self.mesh.faces, cameras)
        mask = fragments.triangle >= 0
        rgb = background[:, None, None].expand(*mask.shape, 3).clone()
        rgb[mask] = self.mesh.colors_at(fragments.triangle[mask].long(), fragments.barycentrics[mask])
        normal = F.normalize(interpolate(fragments, self.mesh.faces, self.normals.float()), dim=1)
        normal = torch.where(fragments.front[:, None], normal, -normal) * mask[:, None]
        return RenderOutput(rgb.permute(0, 3, 1, 2), mask[:, None].float(), fragments.depth[:, None], normal)


def scene_of(path: Path) -> tuple[Representation, str]:
    """The scene of a run's folder or of a file, and a line that describes it. Raises UserError."""
    try:
        if path.is_dir():
            return newest_scene(path)
        if not path.is_file():
            raise UserError(f"there is no file or folder {path}; give the folder of a run, a splat file or a mesh file")
        return _file_scene(path)
    except OSError as error:
        raise UserError(f"cannot read {error.filename or path}: {error.strerror or error}") from error
    except UserError:
        raise
    except ValueError as error:
        raise UserError(error) from error


def newest_scene(folder: Path) -> tuple[Representation, str]:
    """The scene of a run's newest undamaged checkpoint, without loading the prior, and a line that describes it.

    Raises UserError.
    """
    if not (folder / "config.yaml").is_file():
        raise UserError(f"no run to view: {folder / 'config.yaml'} does not exist; give a run's folder or a file")
    config = read_config(folder / "config.yaml")
    found, damage = restore_newest(folder / "checkpoints", lambda checkpoint: scene_of_checkpoint(config, checkpoint))
    if found is None:
        reason = f": {damage[-1]}" if damage else " yet"
        raise UserError(f"{folder} has no usable checkpoint{reason}; view a file of its asset/ folder instead")
    return found


def scene_of_checkpoint(config: RunConfig, checkpoint: Checkpoint) -> tuple[Representation, str]:
    """The scene of a checkpoint, on the GPU if there is one, and a line that describes it.

    Raises DamagedCheckpoint if it does not fit the settings.
    """
    stage = checkpoint.metadata.get("stage")
    if stage not in config.active_stages():
        raise DamagedCheckpoint(f"is from stage {stage!r}, which config.yaml does not have")
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    chosen = config.representation_of(stage)
    scene = ensemble_of([blank_scene(chosen.config, device, chosen.path) for _ in range(config.particles)])
    prefix = "representation."
    try:
        scene.load_tensors({k.removeprefix(prefix): v for k, v in checkpoint.tensors.items() if k.startswith(prefix)})
    except (KeyError, RuntimeError, ValueError) as error:
        raise DamagedCheckpoint(f"does not fit the settings: {error}") from None
    return scene, f"'{config.prompt}': {chosen.name} after step {checkpoint.step}, in stage '{stage}'"


def asset_scene(path: Path, yaw: float = 0.0) -> tuple[Representation, str]:
    """The asset of a run, at the position and size of the scene that it was made from, and a line that describes it.

    Args:
        path: The GLB file.
        yaw: Rotation in degrees from the file to the scene; see `Placement.yaw`.

    Raises OSError, and ValueError if it is not a mesh file.
    """
    mesh, _ = read_fitted_mesh(path, yaw)
    noted = GltfDocument(path.read_bytes(), path.parent).tree["asset"].get("extras", {})
    height, center = noted.get("scene_height"), noted.get("scene_center")
    if height and center:
        low, high = mesh.vertices.amin(0), mesh.vertices.amax(0)
        scale = height / max(float(high[1] - low[1]), 1e-9)
        moved = (mesh.vertices - (low + high) / 2) * scale + torch.tensor(center, dtype=mesh.vertices.dtype)
        mesh = replace(mesh, vertices=moved)
    return MeshScene(mesh), f"{path.name}: {len(mesh.faces):,} triangles"


def _file_scene(path: Path) -> tuple[Representation, str]:
    if is_splat_file(path):
        scene = GaussiansConfig(initial_ply=str(path)).build(torch.Generator().manual_seed(0), torch.device("cpu"))
        return scene, f"{path.name}: {len(scene.means):,} Gaussians"
    mesh, _ = read_fitted_mesh(path)
    return MeshScene(mesh), f"{path.name}: {len(mesh.faces):,} triangles"
