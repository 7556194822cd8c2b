"""From any representation to a game-ready textured GLB."""

from .asset import ExportReport, export_asset
from .cleanup import clean_mesh
from .config import ExportConfig
from .fidelity import Fidelity, colour_fidelity
from .gltf import write_glb
from .surface import SurfaceConfig, extract_surface
from .unwrap import unwrap

__all__ = [
    "ExportConfig",
    "ExportReport",
    "Fidelity",
    "SurfaceConfig",
    "clean_mesh",
    "colour_fidelity",
    "export_asset",
    "extract_surface",
    "unwrap",
    "write_glb",
]
