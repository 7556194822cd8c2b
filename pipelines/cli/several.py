"""Commands for several files: the files of a folder, a line for every file that fails, and a table at the end."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from ..command import error_line
from ..comparison.text_table import table
from ..errors import UserError
from ..streams import complain, put

ASSET = Path("asset") / "asset.glb"
"""The exported file in the folder of a run."""
_PART = re.compile(r"(?i)_(lods?\d*|collider|splats)$")
"""End of the name of a file that belongs to another one: levels of detail, a collider or Gaussians."""


def split_words(words: Iterable[str]) -> tuple[list[Path], list[str]]:
    """Split the words of a command line into files and `key=value` texts."""
    files, overrides = list[Path](), list[str]()
    for word in words:
        if "=" in word and not Path(word).exists():
            overrides.append(word)
        else:
            files.append(Path(word))
    return files, overrides


def is_collection(path: Path) -> bool:
    """Whether a path is a folder other than that of a run."""
    return path.is_dir() and not (path / ASSET).is_file()


def files_of(paths: Iterable[Path], suffixes: Sequence[str]) -> list[Path]:
    """The paths, with the content of a folder in place of the folder: its files with these suffixes, and its runs.

    Files that belong to another file of the folder are left out, and so are folders inside it that are not runs. A
    folder without any such content stays as it is.
    """
    out: dict[Path, None] = {}
    for path in paths:
        inside = sorted(path.iterdir()) if is_collection(path) else []
        stems = {each.stem for each in inside}
        found = [
            each
            for each in inside
            if (each / ASSET).is_file()
            or (
                each.is_file()
                and each.suffix.lower() in suffixes
                and _PART.sub("", each.stem) not in stems - {each.stem}
            )
        ]
        out.update(dict.fromkeys(found or [path]))
    return list(out)


def run_each(files: Sequence[Path], header: Sequence[str], work: Callable[[Path], Sequence[str]]) -> int:
    """Do the work for every file and print a table; returns the number of files that failed.

    Args:
        files: The files.
        header: Names of the columns after the file.
        work: Returns the cells of a file's row. An exception is reported in one line, and the next file follows.
    """
    rows, failed = list[Sequence[str]](), 0
    for file in files:
        try:
            rows.append([str(file), *work(file)])
        except Exception as error:
            failed += 1
            complain(f"error: {file}: {error_line(error)}")
            rows.append([str(file), "failed", *[""] * (len(header) - 1)])
    put(table(["file", *header], rows))
    return failed


def check_distinct(names: Sequence[str], files: Sequence[Path]) -> None:
    """Raises UserError if two files have the same name, from which their output is named."""
    for index, name in enumerate(names):
        if name in names[:index]:
            first = files[names.index(name)]
            raise UserError(f"{first} and {files[index]} would both be written as '{name}'; rename one of them")
