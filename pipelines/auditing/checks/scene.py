"""Checks of the scene: size, pivot, axes, transforms and names."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator

import numpy as np

from ...engines import USUAL_SIDE
from ..finding import Finding, checked, stated
from ..reading.roles import base_name
from ..subject import Subject

BASE = 0.02
"""Distance of the lowest point from the origin, as a fraction of the longest side."""
CENTERED = 0.05
"""Distance of the center from the vertical axis, as a fraction of the longest side."""
STRAIGHT = 1e-4
"""Largest difference of a transform from the identity."""
PLACEHOLDER = re.compile(
    r"^(?:mesh|object|node|geometry|default|untitled|cube|sphere|plane|cylinder|material|scene|root|group|primitive|"
    r"texture|image|polysurface)?[\s_.:\-]*\d*$",
    re.IGNORECASE,
)
"""Names that programs give where nobody chose one."""
PORTABLE = re.compile(r"[A-Za-z0-9_.\-]+")
"""Characters that all engines keep."""
PATTERNED = ("unity", "unreal", "godot")
"""Engines whose naming convention is checked; on the web, in AR and in print names are free."""


def size(subject: Subject) -> Iterator[Finding]:
    """Size in meters."""
    extent = (subject.surface.bounds[1] - subject.surface.bounds[0]) * subject.unit
    yield stated("size", " x ".join(f"{side:.3g}" for side in extent) + " m", "along x, y and z")
    longest = float(extent.max())
    yield checked(
        "scale",
        longest,
        f"longest side from {USUAL_SIDE[0]:g} to {USUAL_SIDE[1]:g} m",
        USUAL_SIDE[0] <= longest <= USUAL_SIDE[1],
        "scale the asset to its size in meters and apply the scale",
    )


def pivot(subject: Subject) -> Iterator[Finding]:
    """Origin at the center of the base, and the vertical axis."""
    low, high = subject.surface.bounds
    longest = float((high - low).max())
    if longest <= 0:
        return
    up = subject.up
    flat = [axis for axis in range(3) if axis != up]
    below = low[up] / longest
    aside = float(np.abs((low + high)[flat]).max()) / 2 / longest
    names = "xyz"
    # Of a model lying on its back, the base is at z = 0 instead of y = 0.
    other = 3 - up
    lying = (
        abs(below) > BASE
        and abs(low[other]) / longest <= BASE
        and max(abs(low + high)[[0, up]]) / 2 / longest <= CENTERED
        and high[other] > BASE * longest
    )
    yield checked(
        "up-axis",
        f"base at {names[other]} = 0" if lying else f"+{names[up]}",
        f"{names[up]} up",
        not lying,
        f"rotate the model by 90 degrees about x, so that +{names[up]} is up, and apply the rotation",
    )
    # Slicers place parts on the bed themselves.
    passed = abs(below) <= BASE and (aside <= CENTERED or subject.printed)
    yield checked(
        "pivot",
        f"base at {below:.1%}, center at {aside:.1%} of the longest side",
        f"at most {BASE:.0%} and {CENTERED:.0%} from the origin",
        passed,
        "move the origin to the center of the base, so that the asset stands where it is placed",
    )


def transforms(subject: Subject) -> Iterator[Finding]:
    """Transforms of the nodes."""
    nodes = subject.file.nodes
    if not nodes:
        return
    moved = [node.name for node in nodes if not np.allclose(node.local, np.eye(4), atol=STRAIGHT)]
    linear = [node.local[:3, :3] for node in nodes]
    turned = [n.name for n, m in zip(nodes, linear, strict=True) if not np.allclose(m, np.eye(3), atol=STRAIGHT)]
    yield checked(
        "transforms",
        len(turned),
        "no node with a rotation or scale",
        not turned,
        "apply rotation and scale to the vertices; colliders and scripts see the node's axes",
        where=turned,
    )
    mirrored = [n.name for n, m in zip(nodes, linear, strict=True) if np.linalg.det(m) < 0]
    yield checked(
        "negative-scale",
        len(mirrored),
        "no mirroring node",
        not mirrored,
        "apply the scale and flip the faces; physics and instancing do not support negative scale",
        severity="error",
        where=mirrored,
    )
    uneven = [n.name for n, m in zip(nodes, linear, strict=True) if _uneven(m)]
    yield checked(
        "uneven-scale",
        len(uneven),
        "no node with different scales along its axes",
        not uneven,
        "apply the scale; children are sheared, and normals are distorted",
        where=uneven,
    )
    if moved and not turned:
        yield stated("translations", len(moved), "nodes with a translation")


def _uneven(linear: np.ndarray) -> bool:
    scales = np.linalg.norm(linear, axis=0)
    return bool(scales.max() > (1 + 1e-3) * scales.min())


def names(subject: Subject) -> Iterator[Finding]:
    """Names that are chosen, unique, portable and in the engine's pattern."""
    file = subject.file
    if not file.named or subject.printed:
        yield stated("names", "not needed", "the format or its use has no names")
        return
    objects = [node.name for node in file.nodes if node.has_mesh]
    materials = [file.materials[index].name for index in file.used_materials]
    unclear = [name or "(none)" for name in [*objects, *materials] if PLACEHOLDER.match(name)]
    yield checked(
        "names",
        len(unclear),
        "every object and material has a name of its own",
        not unclear,
        "name objects and materials after what they are; scripts and later versions find them by name",
        where=unclear,
    )
    twice = [name for group in (objects, materials) for name, count in Counter(group).items() if name and count > 1]
    yield checked(
        "unique-names",
        len(twice),
        "no two objects or materials of one name",
        not twice,
        "rename them; importers append numbers, which change with every export",
        where=twice,
    )
    strange = [name for name in [*objects, *materials] if name and not PORTABLE.fullmatch(name)]
    yield checked(
        "portable-names",
        len(strange),
        "letters, digits, '_', '-' and '.' only",
        not strange,
        "rename them; engines replace other characters, also in file names",
        where=strange,
    )
    if subject.engine.name in PATTERNED:
        yield from _patterns(subject, materials)


def _patterns(subject: Subject, materials: list[str]) -> Iterator[Finding]:
    engine, file = subject.engine, subject.file
    meshes = [part.label for part in file.parts if not part.collider]
    images = {file.images[index].name: slots for index, slots in file.slots().items() if index >= 0}
    wrong = [name for name in meshes if not _fits(base_name(name), engine.mesh_name)]
    wrong += [name for name in materials if not _fits(name, engine.material_name)]
    for name, slots in images.items():
        if not name:
            continue
        kinds = ["occlusion_roughness_metallic" if s in ("occlusion", "metallic_roughness") else s for s in slots]
        patterns = [engine.texture_names[kind] for kind in kinds if kind in engine.texture_names]
        # In a glTF file the packed texture is ORM for every engine.
        patterns += ["T_{name}_ORM"] if "occlusion_roughness_metallic" in kinds else []
        stem = re.sub(r"\.\w{3,4}$", "", name)
        wrong += [name] if patterns and not any(_fits(stem, pattern) for pattern in patterns) else []
    example = f"{engine.mesh_name}, {engine.material_name}, {engine.texture_names['base_color']}"
    yield checked(
        "naming-pattern",
        len(set(wrong)),
        example.replace("{name}", "Mug"),
        not wrong,
        f"rename after the convention of {engine.title}",
        where=wrong,
    )


def _fits(name: str, pattern: str) -> bool:
    before, _, after = pattern.partition("{name}")
    return re.fullmatch(f"{re.escape(before)}.+{re.escape(after)}", name) is not None


CHECKS = (size, pivot, transforms, names)
