"""Python API for runs: text, or text and a mesh file in; scene and mesh out."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from ..config.retexturing import ONLY_TEXTURE, RETEXTURED_MESH
from ..config.run_config import DEFAULT_PRESET, RunConfig, load_config
from ..progress import progress_shown
from .folder import choose_folder
from .result import Result
from .runner import generate


def text_to_3d(
    prompt: str,
    representation: str | None = None,
    method: str | None = None,
    prior: str | None = None,
    out: str | Path | None = None,
    *,
    preset: str | Path | None = DEFAULT_PRESET,
    overrides: Sequence[str] = (),
    overwrite: bool = False,
    progress: bool = False,
    **settings: Any,
) -> Result:
    """Distill a prompt into a 3D scene and export it as a textured mesh, as `python pipelines/run.py` does.

    Args:
        prompt: Text that describes the object.
        representation: A name of `list_representations()`; None for that of the preset.
        method: A name of `list_methods()`; None for that of the preset.
        prior: A name of `list_priors()`, or the folder or hub id of a text-to-image model; None for that of the preset.
        out: Folder of the run; None for a new one under `runs/`, named after the prompt.
        preset: Base settings: the name of a shipped preset, a YAML file, or None for the defaults of all settings.
        overrides: Single settings, each `"section.key=value"` as on the command line.
        overwrite: Replace an earlier run in `out`.
        progress: Show a progress bar per stage in a terminal or a notebook, and lines elsewhere.
        **settings: Top-level settings and whole sections: `seed=3`, `stages={"coarse": {"steps": 400}}`.

    Raises:
        UserError: A user-fixable problem: unknown names or settings, values out of range, a folder that is already
            used, or a model that cannot be found.

    Example:
        >>> import steindreamer
        >>> result = steindreamer.text_to_3d(
        ...     "a red mug",
        ...     out="runs/mug",
        ...     refine=False,
        ...     representation="gaussians",
        ...     stages={"coarse": {"steps": 4, "resolution": 32}},
        ...     export={"resolution": 32, "cameras": 12, "view_size": 64, "texture_size": 128, "face_budget": 400},
        ...     output={"turntable_frames": 4, "image_size": 32},
        ... )
        >>> result.files["asset"]
        PosixPath('runs/mug/asset/asset.glb')
        >>> result.mesh.faces.shape[1], type(result.scene).__name__, result.metrics[-1]["step"]
        (3, 'Gaussians', 4)
    """
    config = load_config(
        preset,
        representation=representation,
        method=method,
        prior=prior,
        overrides=overrides,
        prompt=prompt,
        **settings,
    )
    return _generated(config, out, overwrite=overwrite, progress=progress)


def retexture(
    file: str | Path,
    prompt: str,
    method: str | None = None,
    prior: str | None = None,
    out: str | Path | None = None,
    *,
    part: str = "",
    mask: str | Path | None = None,
    yaw: float = 0.0,
    preset: str | Path | None = DEFAULT_PRESET,
    overrides: Sequence[str] = (),
    overwrite: bool = False,
    progress: bool = False,
    **settings: Any,
) -> Result:
    """Distill a prompt into the base color textures of a mesh file, as `python pipelines/retexture.py` does.

    Args:
        file: Mesh file (.glb, .gltf, .obj) with texture coordinates that do not overlap, +Y up.
        prompt: Text that describes the object.
        method: A name of `list_methods()`; None for that of the preset.
        prior: A name of `list_priors()`, or the folder or hub id of a text-to-image model; None for that of the preset.
        out: Folder of the run; None for a new one under `runs/`, named after the prompt.
        part: Name of the node, mesh or material whose faces are painted; empty: all.
        mask: Grayscale image of the size of the texture, which is painted where it is white; None: everywhere.
        yaw: Rotation in degrees about +Y that brings the front of the mesh to +Z; only for the views.
        preset: Base settings: the name of a shipped preset, a YAML file, or None for the defaults of all settings.
        overrides: Single settings, each `"section.key=value"` as on the command line.
        overwrite: Replace an earlier run in `out`.
        progress: Show a progress bar in a terminal or a notebook, and lines elsewhere.
        **settings: Top-level settings and whole sections: `seed=3`, `stages={"texture": {"steps": 400}}`.

    Returns:
        The result, whose `asset` is the file with other textures, as a GLB; an OBJ file is in `obj/` beside it.

    Raises:
        UserError: A user-fixable problem: a file whose texture cannot be replaced, unknown names or settings, values
            out of range, a folder that is already used, or a model that cannot be found.

    Example:
        >>> import steindreamer
        >>> result = steindreamer.retexture("mug.glb", "a blue mug", out="runs/blue-mug")  # doctest: +SKIP
        >>> result.asset  # doctest: +SKIP
        PosixPath('runs/blue-mug/asset/asset.glb')
    """
    scene = {"initial_mesh": str(file), "initial_yaw": yaw, "part": part, "mask": "" if mask is None else str(mask)}
    config = load_config(
        preset,
        representation=RETEXTURED_MESH,
        method=method,
        prior=prior,
        base=(ONLY_TEXTURE, {"representation": scene}),
        overrides=overrides,
        prompt=prompt,
        **settings,
    )
    return _generated(config, out, overwrite=overwrite, progress=progress)


def _generated(config: RunConfig, out: str | Path | None, *, overwrite: bool, progress: bool) -> Result:
    """The result of a new run."""
    folder = choose_folder(config.prompt, None if out is None else Path(out), existing=overwrite)
    with progress_shown() if progress else nullcontext():
        return generate(config, folder, overwrite=overwrite)
