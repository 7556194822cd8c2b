"""The input of all checks: the file, the engine, and measures that several checks share."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

from ..engines import WEB, Engine
from .atlas import Atlas, atlases
from .reading.asset_file import AssetFile
from .surface import Surface

ANY_ENGINE = replace(WEB, name="any", title="any engine", lods="none", max_texture_size=4096, formats=())
"""Budgets without a preset: the defaults of KhronosGroup/gltf-asset-auditor, and textures that all GPUs accept."""


@dataclass(frozen=True, eq=False)
class Subject:
    """An asset file that is audited for an engine."""

    file: AssetFile
    engine: Engine = ANY_ENGINE

    @property
    def printed(self) -> bool:
        """Whether the asset is a solid for printing, without materials."""
        return self.engine.name == "print"

    @cached_property
    def surface(self) -> Surface:
        """The drawn triangles, welded."""
        return Surface.join(self.file.surfaces)

    @cached_property
    def atlases(self) -> tuple[Atlas, ...]:
        """The texture coordinates by material."""
        return tuple(atlases(self.file, self.surface))

    @property
    def unit(self) -> float:
        """Meters per unit of the file."""
        return 1.0 if self.file.meters else self.engine.unit_meters

    @property
    def up(self) -> int:
        """Index of the vertical axis in the file."""
        return 1 if self.file.meters or self.engine.up == "+y" else 2
