"""Checks of the levels of detail: present where they help, each with clearly fewer triangles than the one before."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import pairwise
from pathlib import Path

from ..finding import Finding, checked, stated
from ..reading.asset_file import AssetFile, Part
from ..reading.beside import parts_beside
from ..subject import Subject

NEEDED_FROM = 2_000
"""Triangles from which levels of detail are expected: distant props of games have 500 to 3,000 (strayspark.studio
game-ready checklist, 2026)."""
FALL = 0.9
"""Largest number of triangles of a level, relative to the level before."""
MAKES_ITS_OWN = ("godot",)
"""Engines that generate levels at import (Godot: "Mesh level of detail")."""
MOST_LEVELS = 9
"""Largest number of files beside the asset that are looked for."""
REMEDIES = {
    "nodes": "add reduced copies as nodes X_LOD1, X_LOD2",
    "msft_lod": "add reduced copies in the extension MSFT_lod",
    "files": "add reduced copies as files X_LOD1, X_LOD2 beside this one",
    "none": "add reduced copies",
}


def levels(subject: Subject) -> Iterator[Finding]:
    """Levels of detail, in this file or in files beside it."""
    counts = _counts(subject.file)
    engine = subject.engine
    if len(counts) < 2:
        enough = counts[0] < NEEDED_FROM or engine.lods == "none" or engine.name in MAKES_ITS_OWN
        value = f"one level of {counts[0]:,} triangles"
        if enough:
            yield stated("lods", value, f"{engine.title} needs no others for it")
            return
        yield checked(
            "lods",
            value,
            f"several levels from {NEEDED_FROM:,} triangles on",
            False,
            REMEDIES[engine.lods],
        )
        return
    worst = max(next_ / max(count, 1) for count, next_ in pairwise(counts))
    yield checked(
        "lods",
        " > ".join(f"{count:,}" for count in counts),
        f"every level at most {FALL:.0%} of the one before",
        worst <= FALL,
        "reduce the further levels more (a half, a quarter, a tenth), or leave them out",
        severity="error" if worst >= 1 else "warning",
    )


def _counts(file: AssetFile) -> list[int]:
    """Triangles of each level, the most detailed first."""
    counts = _by_level(file.drawn)
    return counts if len(counts) > 1 else [*counts, *_beside(file.path)]


def _by_level(parts: Iterable[Part]) -> list[int]:
    counts: dict[int, int] = {}
    for part in parts:
        counts[part.level] = counts.get(part.level, 0) + len(part.faces)
    return [counts[level] for level in sorted(counts)]


def _beside(path: Path) -> Iterator[int]:
    """Triangles of the further levels in files beside the asset: `X_lods` with all of them, or `X_LOD1`, ..."""
    if together := _by_level(part for part in parts_beside(path, "lods") if not part.collider)[1:]:
        yield from together
        return
    for level in range(1, MOST_LEVELS):
        count = sum(len(part.faces) for part in parts_beside(path, f"LOD{level}") if not part.collider)
        if count == 0:
            return
        yield count


CHECKS = (levels,)
