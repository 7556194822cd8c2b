"""The audit of an asset file: all checks for one engine."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..engines import ENGINES, Engine
from ..errors import SettingsError, nearest
from .checks import budgets, colliders, geometry, lighting, lods, materials, scene, textures, uvs
from .finding import Finding
from .reading.read import read_asset_file
from .subject import ANY_ENGINE, Subject

CHECKS: dict[str, tuple[Callable[[Subject], Iterator[Finding]], ...]] = {
    "geometry": geometry.CHECKS,
    "texture coordinates": uvs.CHECKS,
    "materials": materials.CHECKS,
    "textures": textures.CHECKS,
    "scene": scene.CHECKS,
    "budgets": budgets.CHECKS,
    "levels of detail": lods.CHECKS,
    "colliders": colliders.CHECKS,
    "lighting": lighting.CHECKS,
}
"""The checks by subject, in the order of the report."""


@dataclass(frozen=True, eq=False)
class Audit:
    """The result of an audit."""

    subject: Subject
    """The file and the engine."""
    sections: dict[str, tuple[Finding, ...]]
    """A row for every check, by subject."""

    @property
    def rows(self) -> tuple[Finding, ...]:
        """All rows, also those of checks that passed."""
        return tuple(row for rows in self.sections.values() for row in rows)

    @property
    def findings(self) -> tuple[Finding, ...]:
        """The errors, then the warnings."""
        return (*self._of("error"), *self._of("warning"))

    @property
    def passed(self) -> bool:
        """Whether there is no error."""
        return not self._of("error")

    @property
    def summary(self) -> str:
        """The result in one line."""
        counts = {name: len(self._of(name)) for name in ("error", "warning")}
        said = [f"{count} {name}{'s' * (count != 1)}" for name, count in counts.items()]
        verdict = "ready" if self.passed else "not ready"
        return f"{verdict} for {self.subject.engine.title}: {', '.join(said)} in {len(self.rows)} checks"

    def to_plain(self) -> dict[str, Any]:
        """The audit as JSON values."""
        return {
            "file": str(self.subject.file.path),
            "engine": self.subject.engine.name,
            "passed": self.passed,
            "errors": len(self._of("error")),
            "warnings": len(self._of("warning")),
            "checks": [
                {"subject": subject, **row.to_plain()} for subject, rows in self.sections.items() for row in rows
            ],
        }

    def _of(self, severity: str) -> tuple[Finding, ...]:
        return tuple(row for row in self.rows if row.severity == severity)


def audit(path: str | Path, engine: Engine | str | None = None) -> Audit:
    """Check whether an asset file is ready for an engine.

    Args:
        path: A .glb, .gltf, .obj, .stl or .ply file; the files that it refers to are read from its folder.
        engine: The engine or its name, see `ENGINES`; None: limits that hold everywhere.

    Raises:
        ValueError: The file is broken, too large or of another format, or the engine is unknown.
        OSError: The file cannot be read.

    Example:
        >>> from steindreamer.pipelines.auditing import audit
        >>> result = audit("mug.glb", "unity")
        >>> for finding in result.findings:
        ...     print(finding.check, finding.text, finding.remedy)
    """
    subject = Subject(read_asset_file(Path(path)), _engine(engine))
    # Hostile numbers overflow; the checks compare what remains.
    with np.errstate(all="ignore"):
        return Audit(
            subject,
            {
                section: tuple(finding for check in checks for finding in check(subject))
                for section, checks in CHECKS.items()
            },
        )


def _engine(engine: Engine | str | None) -> Engine:
    if engine is None:
        return ANY_ENGINE
    if isinstance(engine, Engine):
        return engine
    if engine not in ENGINES:
        raise SettingsError(
            f"the engine '{engine}' is unknown; accepted: {', '.join(ENGINES)}{nearest(engine, ENGINES)}"
        )
    return ENGINES[engine]
