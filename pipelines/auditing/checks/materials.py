"""Checks of the materials: present, in range, packed, and opaque where they can be."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from ..finding import Finding, checked, stated
from ..reading.asset_file import Material
from ..subject import Subject

DARKEST, LIGHTEST = 30, 243
"""Range of the largest channel of a base color, sRGB (KhronosGroup/gltf-asset-auditor, pbrColorRange)."""
BEYOND = 0.05
"""Largest fraction of texels outside a range."""
MIXED = (0.2, 0.8)
"""Metalness between these values is neither a metal nor an insulator."""
MIXED_TEXELS = 0.1
"""Largest fraction of such texels; borders of metal parts have some."""
MIRROR = 0.03
"""Roughness below which highlights of point lights vanish or alias."""
UNIT = 0.15
"""Largest difference of a normal map's length from 1, of 8-bit values after filtering."""
FLAT = 4
"""Largest difference of a texel of a flat normal map from (128, 128, 255)."""
SAMPLES = 1 << 18
"""Number of texels of an image that are examined."""


def present(subject: Subject) -> Iterator[Finding]:
    """A material for every part."""
    file = subject.file
    if subject.printed or file.format in ("stl", "ply"):
        yield stated("materials", "not needed", "the format or its use has no materials")
        return
    lacking = [part.label for part in file.surfaces if part.material < 0]
    yield checked(
        "materials",
        len(lacking),
        "no part without a material",
        not lacking,
        "assign a material; readers show a white default, in glTF a metal",
        where=lacking,
    )


def factors(subject: Subject) -> Iterator[Finding]:
    """Metalness and roughness."""
    materials = _physical(subject)
    if not materials:
        return
    wrong = [m.name for m in materials if not (0 <= m.metallic <= 1 and 0 <= m.roughness <= 1)]
    values = ", ".join(f"{m.metallic:g}/{m.roughness:g}" for m in materials[:4])
    yield checked(
        "metal-roughness-factors",
        values,
        "metalness and roughness in [0, 1]",
        not wrong,
        "clamp the factors; readers clamp them differently",
        severity="error",
        where=wrong,
    )
    bare = [m.name for m in materials if m.metallic > 0.5 and "metallic_roughness" not in m.textures]
    yield checked(
        "bare-metal",
        len(bare),
        "no metal without a texture",
        not bare,
        "write metallicFactor 0 unless the object is of metal; the default is 1, dark without reflections",
        where=bare,
    )


def texels(subject: Subject) -> Iterator[Finding]:
    """Values of the metalness-roughness and base color textures."""
    metal, mirror, beyond = 0.0, 0.0, 0.0
    metals: list[str] = []
    mirrors: list[str] = []
    colors: list[str] = []
    known = False
    for material in _used(subject):
        values = _samples(subject, material, "metallic_roughness") if material.physical else None
        if values is not None:
            roughness, metalness = values[:, 1] / 255 * material.roughness, values[:, 2] / 255 * material.metallic
            mixed = float(((metalness > MIXED[0]) & (metalness < MIXED[1])).mean())
            smooth = float((roughness < MIRROR).mean())
            metal, mirror, known = max(metal, mixed), max(mirror, smooth), True
            metals += [material.name] if mixed > MIXED_TEXELS else []
            mirrors += [material.name] if smooth > BEYOND else []
        base = _samples(subject, material, "base_color")
        if base is not None:
            lightest = base.max(1)
            outside = float(((lightest < DARKEST) | (lightest > LIGHTEST)).mean())
            beyond = max(beyond, outside)
            colors += [material.name] if outside > BEYOND else []
    if known:
        yield checked(
            "metalness",
            round(metal, 4),
            f"at most {MIXED_TEXELS:.0%} of the texels between {MIXED[0]:g} and {MIXED[1]:g}",
            metal <= MIXED_TEXELS,
            "make each texel metal (1) or not (0); vary roughness and color instead",
            where=metals,
        )
        yield checked(
            "roughness",
            round(mirror, 4),
            f"at most {BEYOND:.0%} of the texels below {MIRROR:g}",
            mirror <= BEYOND,
            "raise the roughness; perfect mirrors alias and show no highlight",
            where=mirrors,
        )
    if any("base_color" in material.textures for material in _used(subject)):
        yield checked(
            "base-color-range",
            round(beyond, 4),
            f"at most {BEYOND:.0%} of the texels whose largest channel is outside {DARKEST} to {LIGHTEST}",
            beyond <= BEYOND,
            "lift blacks and lower whites; no real surface is darker or lighter, and baked shadows often are",
            where=colors,
        )


def packing(subject: Subject) -> Iterator[Finding]:
    """Occlusion, roughness and metalness in one image."""
    both = [m for m in _physical(subject) if {"occlusion", "metallic_roughness"} <= m.textures.keys()]
    if not both:
        return
    apart = [m.name for m in both if m.textures["occlusion"].image != m.textures["metallic_roughness"].image]
    yield checked(
        "orm-packing",
        len(apart),
        "no material with occlusion in an image of its own",
        not apart,
        "pack occlusion (R), roughness (G) and metalness (B) into one image",
        where=apart,
    )


def normal_maps(subject: Subject) -> Iterator[Finding]:
    """Normal maps in tangent space."""
    mapped = [material for material in _used(subject) if "normal" in material.textures]
    if not mapped:
        return
    invalid, flat = 0.0, []
    wrong: list[str] = []
    for material in mapped:
        values = _samples(subject, material, "normal")
        if values is None:
            continue
        direction = values / 127.5 - 1
        bad = (np.abs(np.linalg.norm(direction, axis=1) - 1) > UNIT) | (direction[:, 2] < 0)
        invalid = max(invalid, float(bad.mean()))
        wrong += [material.name] if bad.mean() > BEYOND else []
        if float((np.abs(values - (128, 128, 255)).max(1) <= FLAT).mean()) > 0.999:
            flat.append(material.name)
    yield checked(
        "normal-map",
        round(invalid, 4),
        f"at most {BEYOND:.0%} of the texels that are not unit normals toward the viewer",
        invalid <= BEYOND,
        "bake a tangent-space normal map (+Y up) and store it without color conversion or lossy compression",
        severity="error",
        where=wrong,
    )
    yield checked(
        "flat-normal-map",
        len(flat),
        "no normal map without detail",
        not flat,
        "leave the normal map out; it costs memory and shows nothing",
        where=flat,
    )


def transparency(subject: Subject) -> Iterator[Finding]:
    """Blended and double-sided materials."""
    materials = _physical(subject)
    if not materials:
        return
    blended = [m.name for m in materials if m.alpha == "BLEND"]
    yield checked(
        "alpha-blend",
        len(blended),
        "no blended material",
        not blended,
        "use OPAQUE, or MASK for cut-outs; blended surfaces are sorted by object and cast no usual shadow",
        where=blended,
    )
    double = [m.name for m in materials if m.double_sided]
    closed = subject.surface.edges.open == 0
    yield checked(
        "double-sided",
        len(double),
        "no double-sided material on a closed surface",
        not (double and closed),
        "make the material single-sided; the inside of a closed surface is never seen",
        where=double,
    )


def _used(subject: Subject) -> list[Material]:
    return [subject.file.materials[index] for index in subject.file.used_materials]


def _physical(subject: Subject) -> list[Material]:
    return [material for material in _used(subject) if material.physical]


def _samples(subject: Subject, material: Material, slot: str) -> np.ndarray | None:
    """Values of at most `SAMPLES` texels `[n, 3]`; None without a readable texture."""
    use = material.textures.get(slot)  # pyright: ignore[reportArgumentType, reportCallIssue]
    if use is None or use.image < 0:
        return None
    pixels = subject.file.images[use.image].pixels()
    if pixels is None:
        return None
    step = max(1, int(np.ceil(np.sqrt(pixels.shape[0] * pixels.shape[1] / SAMPLES))))
    return pixels[::step, ::step].reshape(-1, 3).astype(np.float64)


CHECKS = (present, factors, texels, packing, normal_maps, transparency)
