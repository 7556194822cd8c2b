"""The world's true objects through our own exporter: the reference of every measure of an exported asset."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from asset_measures import solid_surface
from jaxtyping import Float
from torch import Tensor

from steindreamer.pipelines.export import ExportConfig, export_asset
from steindreamer.representations import Cameras, RenderOutput, Representation, TriangleMesh, render_mesh


class TrueScene(Representation):
    """A true object as a scene without parameters, whose overlapping parts are joined to one closed surface."""

    def __init__(self, mesh: TriangleMesh, spacing: float) -> None:
        super().__init__()
        self.colored, self.surface = mesh, solid_surface(mesh, spacing)

    def render(self, cameras: Cameras, background: Float[Tensor, "b 3"]) -> RenderOutput:
        return render_mesh(self.colored, cameras, background)

    def learning_rates(self, progress: float) -> dict[str, float]:
        return {}

    def mesh(self) -> TriangleMesh:
        """The closed surface, without colors."""
        return self.surface


def export_true_object(mesh: TriangleMesh, folder: Path, spacing: float = 0.015, **settings: Any) -> Path:
    """Export a true object; returns the path of its GLB file.

    Args:
        mesh: The object with unlit vertex colors.
        folder: Folder of the asset.
        spacing: Meters between the samples of its surface.
        settings: Further settings of the export.
    """
    return export_asset(TrueScene(mesh, spacing), folder, ExportConfig(smoothing=0, **settings)).path
