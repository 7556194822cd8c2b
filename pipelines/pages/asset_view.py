"""Interactive 3D view of an asset, as a part of an HTML page and as a page of its own."""

from __future__ import annotations

import base64
import importlib.resources
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from html import escape
from pathlib import Path

from ..export.lighting import AMBIENT, CLAY, DIRECT, KEY
from ..files import read_regular
from .document import html_document
from .images import data_uri

MAX_BYTES = 128 << 20
"""Largest file that is embedded."""


@dataclass(frozen=True)
class EmbeddedFile:
    """A GLB file of a model."""

    path: Path
    level: int | None = None
    """Level of detail that the file contains; None: by its nodes (MSFT_lod, or names that end with `_LOD1`)."""
    collider: bool = False
    """Whether the file contains the collider."""


@dataclass(frozen=True)
class AssetModel:
    """An asset in the view, which may consist of several files."""

    name: str
    """Name on its button if there are several models."""
    files: Sequence[EmbeddedFile]
    poster: Path | None = None
    """PNG that is shown without scripts or WebGL 2."""


@dataclass(frozen=True)
class AssetView:
    """Parts of an HTML document."""

    html: str
    style: str
    script: str


def asset_model(main: Path, name: str = "asset") -> AssetModel:
    """The model of an asset's main GLB, with the levels of detail and the collider in files next to it.

    Args:
        main: The main file, such as `asset.glb`; the others are `asset_lods.glb`, which has all levels, or
            `asset_LOD1.glb` and so on, and `asset_collider.glb`.
        name: See `AssetModel`.
    """
    together = main.with_name(f"{main.stem}_lods.glb")
    files = [EmbeddedFile(together if together.is_file() else main)]
    for path in sorted(main.parent.glob("*.glb")):
        ending = path.stem.removeprefix(main.stem) if path.stem.startswith(main.stem) else ""
        if level := re.fullmatch(r"_LOD(\d+)", ending, re.IGNORECASE):
            files.append(EmbeddedFile(path, level=int(level[1])))
        elif ending.lower() == "_collider":
            files.append(EmbeddedFile(path, collider=True))
    poster = main.with_name("thumbnail.png")
    return AssetModel(name, files, poster if poster.is_file() else None)


def asset_view(models: Sequence[AssetModel]) -> AssetView:
    """The view of at least one model; an HTML document contains at most one view.

    Raises OSError for a file that cannot be read or is larger than `MAX_BYTES`.
    """
    blocks, listed = [], []
    for model in models:
        entries = []
        for file in model.files:
            identifier = f"glb-{len(blocks)}"
            content = base64.b64encode(read_regular(file.path, MAX_BYTES)).decode()
            blocks.append(f'<script type="application/base64" id="{identifier}">{content}</script>')
            entries.append({"id": identifier, "level": file.level, "collider": file.collider})
        listed.append({"name": model.name, "files": entries})
    lighting = {"key": KEY, "direct": DIRECT, "ambient": AMBIENT, "clay": CLAY}
    settings = json.dumps({"models": listed, "lighting": lighting}).replace("<", "\\u003c")
    poster = models[0].poster
    image = (
        f'<img class="poster" src="{data_uri(read_regular(poster, MAX_BYTES), "png")}" alt="{escape(models[0].name)}">'
        if poster
        else ""
    )
    html = f"""<section id="viewer">{image}<noscript><p>The 3D view needs JavaScript.</p></noscript></section>
{"".join(blocks)}
<script type="application/json" id="viewer-settings">{settings}</script>
"""
    return AssetView(html, _source("viewer.css"), "".join(map(_source, ("gltf.js", "renderer.js", "viewer.js"))))


def asset_page(model: AssetModel, title: str) -> str:
    """A page that contains only the view of one model. Raises OSError as `asset_view`."""
    view = asset_view([model])
    return html_document(title, view.html, style=view.style + "body{margin:0 auto}", script=view.script)


@cache
def _source(name: str) -> str:
    folder = importlib.resources.files("steindreamer.pipelines.pages")
    return folder.joinpath("viewer", name).read_text(encoding="utf-8")
