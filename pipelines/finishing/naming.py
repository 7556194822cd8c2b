"""Names of the files and objects of an asset, by the conventions of an engine."""

from __future__ import annotations

import re
from dataclasses import dataclass

from ..engines import Engine

_PREFIXES = re.compile(r"^(?:SM|S|SK|M|T)_(?=.)")


@dataclass(frozen=True)
class Names:
    """The names of one asset."""

    asset: str
    """Words of the name, each with a capital, such as `RedMug`."""
    mesh: str
    """Name of the mesh and of its node and file."""
    material: str
    engine: Engine

    def texture(self, kind: str, level: int = 0) -> str:
        """Name of a texture, without its suffix; see `Engine.texture_names`.

        Args:
            kind: kind of the texture.
            level: level of detail, for one that has an atlas of its own.
        """
        return self.engine.texture_names[kind].format(name=f"{self.asset}_LOD{level}" if level else self.asset)

    def material_of(self, level: int) -> str:
        """Name of the material of a level of detail that has an atlas of its own; 0: of the asset."""
        return f"{self.material}_LOD{level}" if level else self.material

    def lod(self, level: int, mesh: str | None = None) -> str:
        """Name of a level of detail of a mesh (default: of the asset's)."""
        return f"{mesh or self.mesh}_LOD{level}"

    def hull(self, index: int) -> str:
        """Name of the node of a convex hull of the collider."""
        match self.engine.collider:
            case "ucx":
                # The name of the render mesh, which is level 0 in a file of its own.
                return f"UCX_{self.mesh}_{index:02}"
            case "convcolonly":
                return f"{self.mesh}_{index:02}-convcolonly"
            case _:
                return f"{self.mesh}_Collider_{index:02}"


def names_of(words: str, engine: Engine) -> Names:
    """The names for an asset that is described by words or by the name of a file.

    Example:
        >>> from steindreamer.pipelines.engines import UNREAL
        >>> names_of("a red-mug v2", UNREAL).mesh
        'SM_ARedMugV2'
    """
    plain = _PREFIXES.sub("", words)
    parts = re.findall(r"[A-Za-z0-9]+", plain)
    asset = "".join(part[0].upper() + part[1:] for part in parts)[:60] or "Asset"
    return Names(asset, engine.mesh_name.format(name=asset), engine.material_name.format(name=asset), engine)
