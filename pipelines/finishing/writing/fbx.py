"""FBX files, which Blender writes in a process of its own."""

from __future__ import annotations

import importlib.util
import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from ...files import write_atomically
from ..finished import Finished
from .scene import collider_document, scene
from .textures import ORM, TextureFiles

INSTALL = (
    "install Blender, or its package bpy (pip install bpy, for one version of Python only), and set "
    "blender=PATH to the program, or to a Python with bpy"
)
KINDS = ("base_color", "normal", "emissive")
"""The textures that materials of FBX refer to; the packed one has no place in them."""
_SCRIPT = Path(__file__).with_name("blender_script.py")
_HAS_BPY = "import importlib.util, sys; sys.exit(importlib.util.find_spec('bpy') is None)"
_SECONDS = 600


def blender_command(program: str) -> list[str]:
    """The command that runs a script with `bpy`, without the script.

    Raises ValueError if there is none.

    Args:
        program: Blender, or a Python with bpy; empty: this Python, or else `blender` on the PATH.
    """
    if not program and importlib.util.find_spec("bpy") is not None:
        return [sys.executable, "-P"]
    found = shutil.which(program or "blender")
    if found is None:
        raise ValueError(f"blender is '{program}', and there is no such program" if program else f"FBX: {INSTALL}")
    if Path(found).stem.lower().startswith("blender"):
        return [found, "--background", "--factory-startup", "--python-exit-code", "1", "--python"]
    if subprocess.run([found, "-c", _HAS_BPY], capture_output=True, check=False, timeout=_SECONDS).returncode:
        raise ValueError(f"blender is '{program}', which is neither Blender nor a Python with bpy; {INSTALL}")
    return [found, "-P"]


def write_fbx(asset: Finished, folder: Path, textures: TextureFiles, program: str) -> list[Path]:
    """Write the levels of detail and the collider, as the engine expects them in FBX.

    Levels are nodes `X_LOD0`, `X_LOD1` of one file, or a file each (`Engine.lods` is `files`). Materials refer to the
    textures of the engine. Returns the paths, the main file first. Raises ValueError if Blender is missing or fails.

    Args:
        asset: the asset.
        folder: the folder of the files and of the textures.
        textures: the textures of the package, which have been written.
        program: see `blender_command`.
    """
    names, engine = asset.names, asset.names.engine
    together = engine.lods in ("msft_lod", "nodes")
    hulls = "nodes" if engine.collider in ("ucx", "convcolonly") else "none"
    levels = range(len(asset.levels)) if together else [0]
    documents = {names.mesh: scene(asset, levels, hulls, linked=False)}
    if engine.lods == "files":
        documents |= {names.lod(level): scene(asset, [level]) for level in range(1, len(asset.levels))}
    if asset.collider is not None and engine.collider == "file":
        documents[f"{names.mesh}_Collider"] = collider_document(asset.collider, names, asset.frame)
    written = {path.name: path for path in textures.paths}
    materials = {
        names.material_of(level): {
            "files": {
                kind: str(written[f"{names.texture(kind, level)}.png"].resolve())
                for kind in KINDS
                if kind in material.images()
            },
            "colors": {kind: color for kind in KINDS if (color := material.linear_color(kind)) is not None},
            "roughness": material.roughness_metallic[0],
            "metallic": material.roughness_metallic[1] if ORM in material.factors else 0.0,
        }
        for level, material in asset.materials().items()
    }
    command = blender_command(program)
    for title, document in documents.items():
        with tempfile.TemporaryDirectory() as temporary:
            source = Path(temporary) / "scene.glb"
            document.write(source)
            _run(command, source, folder / f"{title}.fbx", materials)
    return [folder / f"{title}.fbx" for title in documents]


def _run(command: list[str], source: Path, path: Path, materials: dict[str, dict[str, Any]]) -> None:
    job = source.with_suffix(".json")
    # Written beside the textures, to which the file has relative paths.
    partial = path.resolve().with_name(f".{path.stem}.partial.fbx")
    job.write_text(json.dumps({"scene": str(source), "fbx": str(partial), "materials": materials}))
    try:
        done = subprocess.run(
            [*command, str(_SCRIPT), "--", str(job)], capture_output=True, text=True, check=False, timeout=_SECONDS
        )
        if done.returncode or not partial.is_file():
            reason = (done.stderr.strip() or done.stdout.strip() or f"exit status {done.returncode}").splitlines()[-1]
            raise ValueError(f"Blender cannot write {path.name}: {reason}")
        write_atomically(path, partial.read_bytes())
    except subprocess.TimeoutExpired:
        raise ValueError(f"Blender needs more than {_SECONDS} s for {path.name}; lower triangles") from None
    finally:
        partial.unlink(missing_ok=True)
