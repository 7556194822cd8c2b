"""Export of any representation to a game-ready textured GLB."""

from ..meshing.simplify import clean_mesh
from ..meshing.surface import SurfaceConfig, extract_surface
from ..meshing.unwrap import unwrap
from .asset import ExportReport, export_asset
from .config import ExportConfig
from .fidelity import Fidelity, color_fidelity
from .gltf import write_glb

__all__ = [
    "ExportConfig",
    "ExportReport",
    "Fidelity",
    "SurfaceConfig",
    "clean_mesh",
    "color_fidelity",
    "export_asset",
    "extract_surface",
    "unwrap",
    "write_glb",
]
