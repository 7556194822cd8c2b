"""The collider of a glTF document by its extensions OMI_physics_shape and OMI_physics_body."""

from __future__ import annotations

from collections.abc import Sequence

from steindreamer.representations import vertex_normals

from ...export.gltf import add_primitive
from ...export.gltf_builder import GltfBuilder
from ..colliders import Collider
from ..naming import Names
from ..placing import Frame

SHAPE, BODY = "OMI_physics_shape", "OMI_physics_body"


def add_body(builder: GltfBuilder, collider: Collider, names: Names, frame: Frame, shown: Sequence[int] = ()) -> int:
    """Append a static body with a convex shape per hull. Returns its node.

    The meshes of the shapes are shown by no node, and no node has a name that an importer turns into a second collider.

    Args:
        builder: the document.
        collider: the hulls.
        names: the names of the asset.
        frame: the frame of the hulls.
        shown: nodes that become children of the body, beside those of the shapes.
    """
    shapes = builder.tree.setdefault("extensions", {}).setdefault(SHAPE, {}).setdefault("shapes", [])
    children = list(shown)
    for index, hull in enumerate(collider.hulls):
        title = f"{names.mesh}_Collider_{index:02}"
        normals = vertex_normals(hull.vertices, hull.faces).numpy()
        primitive = add_primitive(builder, frame.points(hull.vertices), normals, hull.faces.numpy())
        mesh = builder.add("meshes", {"name": title, "primitives": [primitive]})
        shapes.append({"type": "convex", "convex": {"mesh": mesh}})
        collides = {BODY: {"collider": {"shape": len(shapes) - 1}}}
        children.append(builder.add("nodes", {"name": title, "extensions": collides}))
    for name in (SHAPE, BODY):
        builder.use_extension(name)
    body = {BODY: {"motion": {"type": "static"}}}
    return builder.add("nodes", {"name": f"{names.mesh}_Body", "children": children, "extensions": body})
