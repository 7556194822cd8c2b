"""A plugin for the workers of a batch: small images, and a disk that is full for one run while a file says so.

It is copied beside `full.txt`, which holds the name of the run's folder. Half of a GLB file is still written.
"""

from __future__ import annotations

import errno
import io
import os
import sys
from pathlib import Path
from typing import Any

import pytest
from small_batch import small_images

from steindreamer import atomic_file

FULL = Path(__file__).with_name("full.txt")


class FullDisk(io.FileIO):
    """A file on the disk of the run."""

    def write(self, content: Any) -> int:
        """Raises OSError, as the system does, for GLB files while the disk is full."""
        folder = Path(os.readlink(f"/proc/self/fd/{self.fileno()}")).parents[1]
        if content[:4] == b"glTF" and FULL.exists() and FULL.read_text() == folder.name:
            super().write(content[: len(content) // 2])
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return super().write(content)


if Path(sys.argv[0]).name == "default_worker.py":  # a worker of Ray, not the process that starts the batch
    small_images(pytest.MonkeyPatch())
    atomic_file.open = FullDisk  # pyright: ignore[reportAttributeAccessIssue]
