"""SHA-256 of model files: identifies what was loaded, and checks it against what was written.

A folder may hold a manifest, `SHA256SUMS.json`: {"path/in/the/folder": "SHA-256 in hexadecimal", ...}. The shipped
weights and all weights written by the training have one; a copy of such a folder is checked like the folder itself. The
cache of the Hugging Face hub names files by their SHA-256, and they are checked against that name.
"""

from __future__ import annotations

import hashlib
import json
import re
import warnings
from collections.abc import Collection, Mapping
from concurrent.futures import ThreadPoolExecutor
from importlib.resources.abc import Traversable
from pathlib import Path

from .cache import cache_root, read_plain, write_whole
from .json_files import read_json_object

MANIFEST = "SHA256SUMS.json"
_HASH = re.compile("[0-9a-f]{64}")
_LISTED = (".json", ".safetensors", ".txt", ".model")
_REMEMBERED = 2**26
"""Size in bytes from which a file's digest is cached, as long as its size and modification time stay the same."""


def file_digest(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal.

    The digest of a file of 64 MiB or more is cached in `$STEINDREAMER_CACHE/digests` by path, size and modification
    time. Raises OSError.
    """
    place = path.resolve(strict=True)
    status = place.stat()
    if status.st_size < _REMEMBERED:
        return hashlib.sha256(place.read_bytes()).hexdigest()
    key = json.dumps([str(place), status.st_size, status.st_mtime_ns, status.st_ino])
    note = cache_root() / "digests" / f"{hashlib.sha256(key.encode()).hexdigest()}.json"
    known = (read_plain(note) or b"").decode("ascii", "replace").strip().strip('"')
    if _HASH.fullmatch(known):
        return known
    with place.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    try:
        write_whole(note, json.dumps(digest).encode())
    except OSError as error:
        warnings.warn(f"the checksum of {path} is not cached: {error}; see $STEINDREAMER_CACHE", stacklevel=2)
    return digest


def checked_digests(folder: Path, files: Collection[str]) -> dict[str, str]:
    """SHA-256 of all of `files`, by path in the folder.

    Raises ValueError naming a file that differs from the folder's manifest or the hub's cache, and OSError.
    """
    with ThreadPoolExecutor(4) as pool:
        found = dict(zip(files, pool.map(lambda name: file_digest(folder / name), files), strict=True))
    check_manifest(folder, found)
    for name, digest in found.items():
        blob = (folder / name).resolve()
        if blob.parent.name == "blobs" and _HASH.fullmatch(blob.name) and blob.name != digest:
            raise ValueError(
                f"{folder / name} is damaged: its SHA-256 is {digest}; delete {blob} and download it again"
            )
    return found


def check_manifest(folder: Traversable, digests: Mapping[str, str]) -> None:
    """Compare digests with the folder's manifest, if it has one. Raises ValueError naming a file that differs."""
    path = folder.joinpath(MANIFEST)
    if not path.is_file():
        return
    listed = read_json_object(path)
    for name, digest in digests.items():
        if listed.get(name) != digest:
            what = "is damaged or was changed" if name in listed else "was added later"
            raise ValueError(
                f"{folder}/{name} {what}: its SHA-256 does not match {MANIFEST}; copy or install the folder again, or "
                f"delete {folder}/{MANIFEST} if the change is your own"
            )


def check_contents(folder: Traversable, contents: Mapping[str, bytes]) -> None:
    """Apply `check_manifest` to files that have been read already."""
    if folder.joinpath(MANIFEST).is_file():
        check_manifest(folder, {name: hashlib.sha256(content).hexdigest() for name, content in contents.items()})


def write_manifest(folder: Path) -> None:
    """Write the manifest of all settings, tables and weights in the folder and its subfolders. Raises OSError."""
    paths = sorted(path for path in folder.rglob("*") if path.suffix in _LISTED and path.name != MANIFEST)
    listed = {path.relative_to(folder).as_posix(): file_digest(path) for path in paths if path.is_file()}
    write_whole(folder / MANIFEST, (json.dumps(listed, indent=1) + "\n").encode())


def fingerprint(digests: Mapping[str, str]) -> str:
    """One SHA-256 for several files, independent of their order."""
    return hashlib.sha256(json.dumps(dict(digests), sort_keys=True).encode()).hexdigest()
