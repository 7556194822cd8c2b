"""Checksums: shipped folders are as they were written, large files are read once, the cache is not to be tricked."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable
from importlib import resources
from pathlib import Path

import pytest
import torch

from steindreamer import assets
from steindreamer.distill.files import digests
from steindreamer.distill.files.cache import read_plain, write_whole
from steindreamer.distill.files.digests import MANIFEST, checked_digests, file_digest, fingerprint, write_manifest
from steindreamer.distill.geometry.tiny_estimator import load_tiny_estimator
from steindreamer.distill.priors.diffusion import DiffusersPrior
from steindreamer.world.scorer import WorldScorer

SHIPPED = Path(str(resources.files(assets)))
FOLDERS = ("tiny_world_prior", "tiny_geometry_estimator", "world_scorer")
CHECKED = [(folder, name) for folder in FOLDERS for name in json.loads((SHIPPED / folder / MANIFEST).read_text())]


def _load_prior(folder: Path) -> None:
    DiffusersPrior(str(folder), torch.device("cpu"), cache_text=False)


LOADERS: dict[str, Callable[[Path], object]] = {
    "tiny_world_prior": _load_prior,
    "tiny_geometry_estimator": load_tiny_estimator,
    "world_scorer": WorldScorer.load,
}


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("STEINDREAMER_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def _flip(path: Path, place: float) -> None:
    content = bytearray(path.read_bytes())
    content[int(place * (len(content) - 1))] ^= 1
    path.write_bytes(content)


def test_every_shipped_file_is_listed() -> None:
    assert {folder.parent.name for folder in SHIPPED.glob("*/README.md")} == set(FOLDERS)
    for folder in FOLDERS:
        kept = {path.relative_to(SHIPPED / folder).as_posix() for path in (SHIPPED / folder).rglob("*.*")}
        listed = {name for place, name in CHECKED if place == folder}
        assert kept - listed <= {"README.md", "samples.jpg", MANIFEST} and listed <= kept


@pytest.mark.parametrize(("folder", "name"), CHECKED)
@pytest.mark.parametrize("place", [0.1, 0.5, 1.0])
def test_one_flipped_bit_of_what_ships_is_told(folder: str, name: str, place: float, tmp_path: Path) -> None:
    copy = shutil.copytree(SHIPPED / folder, tmp_path / folder)
    LOADERS[folder](copy)
    _flip(copy / name, place)
    with pytest.raises(
        ValueError, match=r"damaged or was changed: its SHA-256|cannot be read \(.* is not JSON"
    ) as error:
        LOADERS[folder](copy)
    assert name in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize("folder", FOLDERS)
@pytest.mark.parametrize("content", ["", "[]", "[" * 100_000, "{}", '{"config.json": 1, "model_index.json": null}'])
def test_a_damaged_manifest_is_told(folder: str, content: str, tmp_path: Path) -> None:
    copy = shutil.copytree(SHIPPED / folder, tmp_path / folder)
    (copy / MANIFEST).write_text(content)
    with pytest.raises(ValueError, match=MANIFEST) as error:
        LOADERS[folder](copy)
    assert "\n" not in str(error.value)


def test_a_tokenizer_added_later_is_told(tmp_path: Path) -> None:
    copy = shutil.copytree(SHIPPED / "tiny_world_prior", tmp_path / "copy")
    (copy / "tokenizer" / "added_tokens.json").write_text("{}")
    with pytest.raises(ValueError, match=r"tokenizer/added_tokens\.json was added later"):
        _load_prior(copy)


def test_a_change_of_ones_own_may_stay(tmp_path: Path) -> None:
    """Without the manifest, or with a new one."""
    copy = shutil.copytree(SHIPPED / "tiny_geometry_estimator", tmp_path / "copy")
    config = copy / "config.json"
    config.write_text(config.read_text() + "\n")
    with pytest.raises(ValueError, match=f"delete .*{MANIFEST} if the change is your own"):
        load_tiny_estimator(copy)
    write_manifest(copy)
    load_tiny_estimator(copy)
    config.write_text(config.read_text() + "\n")
    (copy / MANIFEST).unlink()
    load_tiny_estimator(copy)


def test_a_file_of_the_hubs_cache_is_held_to_its_name(tmp_path: Path) -> None:
    """The hub keeps large files under their SHA-256, and links to them."""
    blobs, snapshot = tmp_path / "blobs", tmp_path / "snapshots" / "abc"
    blobs.mkdir()
    snapshot.mkdir(parents=True)
    content = b"weights"
    blob = blobs / hashlib.sha256(content).hexdigest()
    blob.write_bytes(content)
    (snapshot / "model.safetensors").symlink_to(blob)
    assert checked_digests(snapshot, ["model.safetensors"]) == {"model.safetensors": blob.name}
    _flip(blob, 0.5)
    with pytest.raises(ValueError, match=rf"model\.safetensors is damaged: .* delete {blob} and download it again"):
        checked_digests(snapshot, ["model.safetensors"])


def test_large_files_are_read_again_only_when_they_changed(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(digests, "_REMEMBERED", 4)
    path = tmp_path / "large"
    path.write_bytes(b"first")
    expected = hashlib.sha256(b"first").hexdigest()
    assert file_digest(path) == expected
    (note,) = (cache / "digests").iterdir()
    with monkeypatch.context() as patch:
        patch.setattr(hashlib, "file_digest", lambda *arguments: pytest.fail("it was read again"))
        assert file_digest(path) == expected
    note.write_text("nonsense")
    assert file_digest(path) == expected and json.loads(note.read_text()) == expected
    path.write_bytes(b"other")
    os.utime(path, ns=(0, 0))
    assert file_digest(path) == hashlib.sha256(b"other").hexdigest()


def test_a_cache_that_cannot_be_written_is_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(digests, "_REMEMBERED", 0)
    (tmp_path / "file").touch()
    monkeypatch.setenv("STEINDREAMER_CACHE", str(tmp_path / "file"))
    with pytest.warns(UserWarning, match="checksum of .* is not cached"):
        assert file_digest(tmp_path / "file") == hashlib.sha256(b"").hexdigest()


def test_a_fingerprint_is_of_names_and_contents() -> None:
    one = fingerprint({"a": "1", "b": "2"})
    assert one == fingerprint({"b": "2", "a": "1"})
    assert (
        len({one, fingerprint({"a": "1"}), fingerprint({"a": "2", "b": "1"}), fingerprint({"c": "1", "b": "2"})}) == 4
    )


def test_links_and_pipes_in_the_cache_are_not_followed(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_bytes(b"mine")
    link, pipe = tmp_path / "link", tmp_path / "pipe"
    link.symlink_to(victim)
    os.mkfifo(pipe)
    for path in (link, pipe, tmp_path, tmp_path / "none"):
        assert read_plain(path) is None
    assert read_plain(victim) == b"mine"
    for path in (link, pipe):
        write_whole(path, b"new")
        assert read_plain(path) == b"new"
    assert victim.read_bytes() == b"mine"
    (tmp_path / "folder").mkdir()
    with pytest.raises(OSError):
        write_whole(tmp_path / "folder", b"new")
    assert not list(tmp_path.glob("*.part")), "what could not be put into its place is removed"
