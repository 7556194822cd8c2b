"""Location of an estimator's files: a local folder, the hub's cache, or the hub. Only JSON and safetensors are used."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

REQUIRED = ("config.json", "model.safetensors")
OPTIONAL = ("preprocessor_config.json",)
EXAMPLE = "depth-anything/Depth-Anything-V2-Small-hf"
_TIMEOUT_SECONDS = 10.0
_PICKLED = (".bin", ".pt", ".pth", ".ckpt", ".pkl")


def find_estimator(name: str) -> Path:
    """Locate a folder with the estimator's `config.json` and `model.safetensors`, downloading it if necessary.

    A cached copy is used without a request to the hub. A hub that does not respond is tried once.

    Args:
        name: a folder or a hub id `owner/name` (`owner/name@revision` pins it).

    Raises ValueError, in one line, stating what was searched for, where, and how to download it.
    """
    folder = Path(name).expanduser()
    if name and folder.is_dir():
        choose_files({path.name for path in folder.iterdir()}, str(folder))
        return folder
    owner, slash, repository = name.partition("/")
    if not slash or owner in ("", ".", "..", "~") or not repository or "/" in repository or "\\" in name:
        raise ValueError(
            f"no folder and no hub id '{name}' of an estimator; give 'tiny', a hub id such as {EXAMPLE}, "
            "or the path of a folder"
        )
    return _cached(name) or _download(name)


def choose_files(available: Collection[str], where: str) -> list[str]:
    """The files to use. Raises ValueError naming missing files, or stating that there are only pickled weights."""
    missing = [name for name in REQUIRED if name not in available]
    pickled = sorted(name for name in available if name.endswith(_PICKLED))
    if REQUIRED[1] in missing and pickled:
        raise ValueError(
            f"{where}: {pickled[0]} is pickled and could run any code when loaded; only safetensors are accepted: "
            f"{REQUIRED[1]}"
        )
    if missing:
        raise ValueError(f"{where} is no geometry estimator: missing {', '.join(missing)}")
    return [*REQUIRED, *(name for name in OPTIONAL if name in available)]


def _split(name: str) -> tuple[str, str | None]:
    """Split a hub id into repository and revision."""
    repository, _, revision = name.partition("@")
    return repository, revision or None


def _cached(name: str) -> Path | None:
    from huggingface_hub import try_to_load_from_cache

    repository, revision = _split(name)
    path = try_to_load_from_cache(repository, REQUIRED[0], revision=revision)
    if not isinstance(path, str):
        return None
    folder = Path(path).parent
    complete = all((folder / file).is_file() for file in REQUIRED)
    return folder if complete else None  # an earlier download was interrupted or incomplete


def _download(name: str) -> Path:
    from huggingface_hub import HfApi, constants, snapshot_download
    from huggingface_hub.errors import HfHubHTTPError

    repository, revision = _split(name)
    try:
        # A short request before the download, since the downloader itself retries for minutes.
        listing = HfApi().model_info(repository, revision=revision, timeout=_TIMEOUT_SECONDS)
        files = choose_files({entry.rfilename for entry in listing.siblings or ()}, repository)
        return Path(snapshot_download(repository, revision=listing.sha, allow_patterns=files))
    except HfHubHTTPError as error:
        status = f"status {error.response.status_code}" if error.response is not None else "no status"
        answer = f"not there, or not public ({status})"
    except ValueError as error:
        answer = str(error)
    except Exception as error:  # errors of the hub's HTTP library, which differs between hub versions
        answer = f"the hub does not answer ({' '.join(str(error).split())[:200] or type(error).__name__})"
    raise ValueError(
        f"estimator '{name}' is not in the cache {constants.HF_HUB_CACHE} and could not be fetched: {answer}. Where "
        f"the hub can be reached, run: hf download {repository} --include '*.json' --include '*.safetensors' "
        f"--local-dir {repository.rpartition('/')[2]} - and give that folder as the estimator"
    )
