"""Levels of detail in a glTF file, by its extension MSFT_lod."""

from __future__ import annotations

from collections.abc import Sequence

from ..export.gltf_builder import GltfBuilder

LOD_EXTENSION = "MSFT_lod"


def link_levels(builder: GltfBuilder, nodes: Sequence[int], coverage: Sequence[float]) -> None:
    """Make nodes the levels of detail of the first of them (MSFT_lod).

    Args:
        builder: the file.
        nodes: the nodes, the most detailed first.
        coverage: `Level.screen_coverage` of each.
    """
    first = builder.tree["nodes"][nodes[0]]
    first.setdefault("extensions", {})[LOD_EXTENSION] = {"ids": list(nodes[1:])}
    # A level is shown down to the coverage where the next one looks alike; the last one always.
    first.setdefault("extras", {})["MSFT_screencoverage"] = [round(each, 4) for each in [*coverage[1:], 0.0]]
    builder.use_extension(LOD_EXTENSION)
