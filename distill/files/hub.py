"""Repositories of the Hugging Face hub: a cached copy, or one download. A hub that does not respond is tried once."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from pathlib import Path

Reader = Callable[[str], Path]
"""Fetches one file of a repository, by its path there."""
Choice = Callable[[Collection[str], Reader], list[str]]
"""Chooses among the files of a repository, some of which it may read; raises ValueError if others are missing."""

PICKLED = (".bin", ".ckpt", ".pt", ".pth", ".pkl")
"""Suffixes of files that can run any code when they are loaded."""
_TIMEOUT_SECONDS = 10.0


def split_revision(name: str) -> tuple[str, str | None]:
    """Split `owner/name@revision` into repository and revision."""
    repository, _, revision = name.partition("@")
    return repository, revision or None


def cached_folder(name: str, files: Iterable[str]) -> Path | None:
    """The cached snapshot of a repository that holds one of these files, perhaps incompletely; no request is made."""
    from huggingface_hub import try_to_load_from_cache

    repository, revision = split_revision(name)
    for file in files:
        path = try_to_load_from_cache(repository, file, revision=revision)
        if isinstance(path, str):
            return Path(path).parents[file.count("/")]
    return None


def download(what: str, names: Sequence[str], patterns: Iterable[str], choose: Choice) -> tuple[Path, str]:
    """Download the chosen files of the first repository that has them.

    Args:
        what: "model 'NAME'" in the error message.
        names: repositories `owner/name` or `owner/name@revision`, best first.
        patterns: file patterns of the command in the error message.
        choose: chooses the files.

    Returns:
        The folder, and `owner/name@commit`.

    Raises ValueError, in one line, with the reply for every repository and the command that downloads the first.
    """
    from huggingface_hub import HfApi, constants, hf_hub_download, snapshot_download
    from huggingface_hub.errors import GatedRepoError, HfHubHTTPError

    replies = []
    for name in names:
        repository, revision = split_revision(name)
        try:
            # A short request before the download, since the downloader itself retries for minutes.
            listing = HfApi().model_info(repository, revision=revision, timeout=_TIMEOUT_SECONDS)
            sha = listing.sha

            def read(file: str, repository: str = repository, sha: str | None = sha) -> Path:
                return Path(hf_hub_download(repository, file, revision=sha))

            files = choose({entry.rfilename for entry in listing.siblings or ()}, read)
            return Path(snapshot_download(repository, revision=sha, allow_patterns=files)), f"{repository}@{sha}"
        except GatedRepoError:
            page = f"https://huggingface.co/{repository}"
            replies.append(f"{name}: gated; accept its license at {page}, then run: hf auth login")
        except HfHubHTTPError as error:
            status = f"status {error.response.status_code}" if error.response is not None else "no status"
            replies.append(f"{name}: not found, or not public ({status})")
        except ValueError as error:
            replies.append(f"{name}: {error}")
        except Exception as error:  # errors of the hub's HTTP library, which differs between hub versions
            replies.append(f"the hub does not respond ({' '.join(str(error).split())[:200] or type(error).__name__})")
            break
    repository = split_revision(names[0])[0]
    included = " ".join(f"--include '{pattern}'" for pattern in patterns)
    raise ValueError(
        f"{what} is not in the cache {constants.HF_HUB_CACHE} (looked for {', '.join(names)}) and could not be "
        f"fetched: {'; '.join(replies)}. Where the hub can be reached, run: hf download {repository} {included} "
        f"--local-dir {repository.rpartition('/')[2]} - and give that folder as the {what.partition(' ')[0]}"
    )
