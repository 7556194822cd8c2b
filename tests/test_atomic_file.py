"""Atomic writing of files: links, folders, failures and permissions."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from steindreamer import atomic_file
from steindreamer.atomic_file import is_temporary, write_atomically


def test_a_file_is_written_and_replaced(tmp_path: Path) -> None:
    path = tmp_path / "file"
    for content in (b"first", b"", b"\r\n\x1a"):
        write_atomically(path, content)
        assert path.read_bytes() == content
    assert list(tmp_path.iterdir()) == [path]


def test_links_are_replaced_never_followed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    victim, path = tmp_path / "victim", tmp_path / "file"
    victim.write_bytes(b"precious")
    path.symlink_to(victim)
    write_atomically(path, b"new")
    assert victim.read_bytes() == b"precious" and path.read_bytes() == b"new" and not path.is_symlink()
    # A link at the temporary name is not followed either.
    monkeypatch.setattr(atomic_file.secrets, "token_hex", lambda size: "0" * (2 * size))
    (tmp_path / f".steindreamer-{'0' * 16}.partial").symlink_to(victim)
    with pytest.raises(FileExistsError):
        write_atomically(path, b"newer")
    assert victim.read_bytes() == b"precious" and path.read_bytes() == b"new"


def test_temporary_names_differ_and_are_recognized(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names: set[str] = set()
    monkeypatch.setattr(atomic_file.os, "replace", lambda source, _: names.add(Path(source).name))
    write_atomically(tmp_path / "file", b"")
    write_atomically(tmp_path / "file", b"")
    assert len(names) == 2 and all(map(is_temporary, names))
    assert not any(map(is_temporary, ("file", "file.partial", ".steindreamer-.partial", f"x{min(names)}")))


@pytest.mark.parametrize("failing", ["fsync", "replace"])
def test_a_failure_keeps_the_old_file(failing: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file"
    write_atomically(path, b"old")

    def fail(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", "a name that means nothing")

    with monkeypatch.context() as patch, pytest.raises(OSError, match="No space") as found:
        patch.setattr(atomic_file.os, failing, fail)
        write_atomically(path, b"new")
    assert found.value.filename == str(path)
    assert path.read_bytes() == b"old" and list(tmp_path.iterdir()) == [path]


def test_a_folder_at_the_path_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").mkdir()
    with pytest.raises(OSError):
        write_atomically(tmp_path / "file", b"")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_the_umask_applies_and_long_names_fit(tmp_path: Path) -> None:
    path = tmp_path / ("n" * 255)
    before = os.umask(0o027)
    try:
        write_atomically(path, b"")
    finally:
        os.umask(before)
    assert path.stat().st_mode & 0o777 == 0o640
