"""Location of an estimator's files: a local folder, the hub's cache, or the hub. Only JSON and safetensors are used."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from ..files.hub import PICKLED, cached_folder, download

REQUIRED = ("config.json", "model.safetensors")
OPTIONAL = ("preprocessor_config.json",)
EXAMPLE = "depth-anything/Depth-Anything-V2-Small-hf"


def find_estimator(name: str) -> Path:
    """Locate a folder with the estimator's `config.json` and `model.safetensors`, downloading it if necessary.

    A cached copy is used without a request to the hub. A hub that does not respond is tried once.

    Args:
        name: a folder or a hub id `owner/name` (`owner/name@revision` pins it).

    Raises ValueError, in one line, stating what was searched for, where, and how to download it.
    """
    folder = Path(name).expanduser()
    if name and folder.is_dir():
        try:
            choose_files({path.name for path in folder.iterdir()})
        except ValueError as error:
            raise ValueError(f"{folder} is not a geometry estimator: {error}") from None
        return folder
    owner, slash, repository = name.partition("/")
    if not slash or owner in ("", ".", "..", "~") or not repository or "/" in repository or "\\" in name:
        raise ValueError(
            f"'{name}' is neither a folder nor the hub id of an estimator; give 'tiny', a hub id such as {EXAMPLE}, "
            "or the path of a folder"
        )
    cached = cached_folder(name, REQUIRED)
    if cached is not None and all((cached / file).is_file() for file in REQUIRED):
        return cached
    patterns = ("*.json", "*.safetensors")
    return download(f"estimator '{name}'", [name], patterns, lambda available, _: choose_files(available))[0]


def choose_files(available: Collection[str]) -> list[str]:
    """The files to use. Raises ValueError naming missing files, or stating that there are only pickled weights."""
    missing = [name for name in REQUIRED if name not in available]
    pickled = sorted(name for name in available if name.endswith(PICKLED))
    if REQUIRED[1] in missing and pickled:
        raise ValueError(
            f"{pickled[0]} is pickled and could run arbitrary code when loaded; only safetensors are accepted: "
            f"{REQUIRED[1]}"
        )
    if missing:
        raise ValueError(f"missing {', '.join(missing)}")
    return [*REQUIRED, *(name for name in OPTIONAL if name in available)]
