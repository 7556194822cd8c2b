"""Result of a finished run: objects in memory, and the files in its folder."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from typing import Any

from steindreamer.representations import Representation, TriangleMesh

from ..export import ExportReport
from ..files import read_regular
from ..pages.asset_view import asset_model, asset_page

_FILES = {
    "asset": "asset/asset.glb",
    "image": "asset/asset.png",
    "thumbnail": "asset/thumbnail.png",
    "turntable": "turntable.webp",
    "preview": "previews/final.png",
    "report": "report.html",
    "metrics": "metrics.jsonl",
    "summary": "summary.json",
    "config": "config.yaml",
}


@dataclass(frozen=True)
class Result:
    """A finished run: the scene and the mesh in memory, and the folder with all written files."""

    folder: Path
    """Folder of the run; `steindreamer --resume --out FOLDER` continues it."""
    scene: Representation = field(repr=False)
    """Trained scene after the last stage; an `Ensemble` for several particles."""
    exports: tuple[ExportReport, ...]
    """One report per particle with its mesh, file and fidelity; empty with `export.enabled=false`."""
    seconds: float
    """Wall-clock seconds of the whole run, including the time before it was resumed."""

    @property
    def mesh(self) -> TriangleMesh | None:
        """Textured mesh as exported, of the first particle; None with `export.enabled=false`."""
        return self.exports[0].mesh if self.exports else None

    @property
    def asset(self) -> Path | None:
        """Path of the GLB file of `mesh`; None with `export.enabled=false`."""
        return self.exports[0].path if self.exports else None

    @property
    def files(self) -> dict[str, Path]:
        """Files of the run by type: asset, image, thumbnail, turntable, preview, report, metrics, summary,
        config."""
        paths = {name: self.folder / path for name, path in _FILES.items()}
        return {name: path for name, path in paths.items() if path.is_file()}

    @property
    def metrics(self) -> list[dict[str, Any]]:
        """Records of metrics.jsonl: loss, coefficients and gradient variance, averaged over several steps."""
        text = read_regular(self.folder / "metrics.jsonl").decode("utf-8", "replace")
        return [json.loads(line) for line in text.splitlines()]

    def _repr_html_(self) -> str | None:
        """Interactive 3D view of the asset in a notebook; None without an asset file that can be read."""
        if self.asset is None:
            return None
        try:
            page = escape(asset_page(asset_model(self.asset), self.asset.stem))
        except OSError:
            return None
        return (
            f'<iframe srcdoc="{page}" sandbox="allow-scripts" style="width:100%;height:48rem;border:0" '
            'title="3D view of the asset"></iframe>'
        )
