"""Python API for runs: text in, scene and mesh out."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from ..config.run_config import DEFAULT_PRESET, load_config
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
    folder = choose_folder(config.prompt, None if out is None else Path(out), existing=overwrite)
    with progress_shown() if progress else nullcontext():
        return generate(config, folder, overwrite=overwrite)
