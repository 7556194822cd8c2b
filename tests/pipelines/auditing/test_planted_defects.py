"""Every planted defect is found, with its severity, and nothing else is reported; the clean file has no finding."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import trimesh
from clean_asset import SIZE, Content, attributes, ball, lit, textures
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from steindreamer.pipelines.auditing import ENGINES, Engine, audit

UNREAL, WEB = ENGINES["unreal"], ENGINES["web"]
Change = Callable[[Content], object]
DEFECTS: dict[str, tuple[Change, dict[str, str], Engine]] = {}
"""What changes the clean content, the expected findings with their severities, and the engine, by name."""


def defect(engine: Engine = UNREAL, **findings: str) -> Callable[[Change], Change]:
    """Register a defect with the findings that it causes."""

    def register(change: Change) -> Change:
        expected = {name.replace("_", "-"): severity for name, severity in findings.items()}
        DEFECTS[change.__name__.strip("_")] = change, expected, engine  # pyright: ignore[reportFunctionMemberAccess]
        return change

    return register


@pytest.mark.parametrize("engine", [None, "unity", "unreal", "godot", "web", "ar"])
def test_a_clean_file_has_no_finding(engine: str | None, tmp_path: Path) -> None:
    found = audit(Content().save(tmp_path), engine)
    assert found.findings == () and found.passed
    assert len(found.rows) > 50


def test_a_clean_gltf_has_no_finding(tmp_path: Path) -> None:
    assert audit(Content().save(tmp_path, "SM_Ball.gltf"), "unreal").findings == ()


# Geometry


@defect(finite="error", watertight="warning")
def _nan_position(content: Content) -> None:
    content.arrays["POSITION"][7, 1] = np.nan


@defect(degenerate_faces="warning")
def _degenerate_face(content: Content) -> None:
    content.arrays["faces"] = np.concatenate([content.arrays["faces"], np.array([[0, 0, 1]], "<u2")])


@defect(duplicate_faces="warning", manifold="warning", uv_overlap="error", lightmap_uvs="error")
def _duplicate_face(content: Content) -> None:
    content.arrays["faces"] = np.concatenate([content.arrays["faces"], content.arrays["faces"][:1]])


@defect(manifold="warning", watertight="warning")
def _fin(content: Content) -> None:
    """A triangle that stands on an edge, in a corner of the texture of its own."""
    arrays = content.arrays
    a, b = arrays["faces"][0][:2]
    middle = arrays["POSITION"][[a, b]].mean(0) + 0.01 * arrays["NORMAL"][a]
    start = len(arrays["POSITION"])
    corners = {name: values[[a, b, a]] for name, values in arrays.items() if name != "faces"}
    corners["POSITION"][2] = middle
    for name in ("TEXCOORD_0", "TEXCOORD_1"):
        corners[name][2] = corners[name][:2].mean(0) + 1e-5
    for name, values in corners.items():
        arrays[name] = np.concatenate([arrays[name], values])
    arrays["faces"] = np.concatenate([arrays["faces"], np.array([[start, start + 1, start + 2]], "<u2")])


@defect(watertight="warning")
def _hole(content: Content) -> None:
    content.arrays["faces"] = content.arrays["faces"][1:]


@defect(winding="error")
def _flipped_face(content: Content) -> None:
    content.arrays["faces"][0] = content.arrays["faces"][0, ::-1]


@defect(inside_out="error")
def _inside_out(content: Content) -> None:
    """Consistently: normals and texture coordinates are those of a surface that is seen from inside."""
    arrays = content.arrays
    arrays["faces"] = arrays["faces"][:, ::-1].copy()
    arrays["NORMAL"] *= -1
    for name in ("TEXCOORD_0", "TEXCOORD_1"):
        arrays[name][:, 0] = 1 - arrays[name][:, 0]


@defect(unit_normals="error", tangent_frame="error")
def _long_normals(content: Content) -> None:
    arrays = content.arrays
    arrays["NORMAL"] = 2 * arrays["NORMAL"] + 0.2 * arrays["TANGENT"][:, :3]


@defect(normal_direction="warning")
def _opposite_normals(content: Content) -> None:
    content.arrays["NORMAL"] *= -1


@defect(normals="warning")
def _no_normals(content: Content) -> None:
    del content.arrays["NORMAL"]


@defect(tangents="warning")
def _no_tangents(content: Content) -> None:
    del content.arrays["TANGENT"]


@defect(tangent_frame="error")
def _tangents_not_orthogonal(content: Content) -> None:
    content.arrays["TANGENT"][:, :3] = content.arrays["NORMAL"]


# Texture coordinates


@defect(uvs="error")
def _no_uvs(content: Content) -> None:
    del content.arrays["TEXCOORD_0"]


@defect(uv_range="error")
def _uvs_out_of_range(content: Content) -> None:
    content.arrays["TEXCOORD_0"] += 0.3


@defect(uv_overlap="error")
def _overlapping_uvs(content: Content) -> None:
    """The smallest chart is moved to the center of the largest."""
    uvs, faces = content.arrays["TEXCOORD_0"], content.arrays["faces"].astype(int)
    graph = coo_matrix((np.ones(2 * len(faces)), (faces[:, :2].ravel(), faces[:, 1:].ravel())), (len(uvs),) * 2)
    chart = connected_components(graph, directed=False)[1]
    sizes = np.bincount(chart)
    largest, smallest = (uvs[chart == index] for index in (sizes.argmax(), sizes.argmin()))
    move = (largest.max(0) + largest.min(0) - smallest.max(0) - smallest.min(0)) / 2
    uvs[chart == sizes.argmin()] += move


@defect(uv_mirrored="warning")
def _mirrored_uvs(content: Content) -> None:
    content.arrays["TEXCOORD_0"][:, 0] = 1 - content.arrays["TEXCOORD_0"][:, 0]


@defect(texel_density_spread="warning", uv_gutter="warning")
def _uneven_density(content: Content) -> None:
    content.arrays["TEXCOORD_0"] = content.arrays["TEXCOORD_0"] ** 3


@defect(uv_gutter="warning")
def _no_gutter(content: Content) -> None:
    """The same layout in a texture of an eighth of the size."""
    content.images = {name: pixels[::8, ::8] for name, pixels in textures().items()}


@defect(uv_area="warning")
def _collapsed_uvs(content: Content) -> None:
    arrays = content.arrays
    arrays["TEXCOORD_0"][arrays["faces"][5]] = arrays["TEXCOORD_0"][arrays["faces"][5, 0]]


@defect(lightmap_uvs="warning")
def _no_lightmap_uvs(content: Content) -> None:
    del content.arrays["TEXCOORD_1"]


@defect(lightmap_uvs="error")
def _shared_lightmap_uvs(content: Content) -> None:
    content.arrays["TEXCOORD_1"] = content.arrays["TEXCOORD_1"] * (0, 1) + (1, 0) * np.abs(
        content.arrays["TEXCOORD_1"][:, :1] - 0.5
    )


# Materials


@defect(metal_roughness_factors="error")
def _metalness_above_one(content: Content) -> None:
    content.surface["metallicFactor"] = 1.5


@defect(bare_metal="warning", unused_data="warning")
def _default_metalness(content: Content) -> None:
    """The default of the factor is 1."""
    del content.surface["metallicFactor"], content.slots["packed"], content.slots["occlusion"]


@defect(metalness="warning")
def _half_metal(content: Content) -> None:
    content.images["T_Ball_ORM"][:, :, 2] = 127


@defect(roughness="warning")
def _mirror(content: Content) -> None:
    content.surface["roughnessFactor"] = 0.0


@defect(base_color_range="warning")
def _black_texels(content: Content) -> None:
    content.images["T_Ball_BC"][: SIZE // 4] = 5


@defect(orm_packing="warning", naming_pattern="warning")
def _occlusion_apart(content: Content) -> None:
    content.images["Occlusion"] = content.images["T_Ball_ORM"][:, :, :1].repeat(3, 2)
    content.slots["occlusion"] = "Occlusion"


@defect(normal_map="error")
def _height_map_as_normal_map(content: Content) -> None:
    content.images["T_Ball_N"] = content.images["T_Ball_BC"].mean(2, keepdims=True).repeat(3, 2)


@defect(flat_normal_map="warning")
def _flat_normal_map(content: Content) -> None:
    content.images["T_Ball_N"] = np.full((SIZE, SIZE, 3), (128, 128, 255), np.uint8)


@defect(alpha_blend="warning")
def _blended(content: Content) -> None:
    content.material["alphaMode"] = "BLEND"


@defect(double_sided="warning")
def _double_sided(content: Content) -> None:
    content.material["doubleSided"] = True


# Textures


@defect(power_of_two="warning")
def _odd_size(content: Content) -> None:
    content.images["T_Ball_ORM"] = content.images["T_Ball_ORM"][:100, :100]


@defect(square_textures="warning")
def _oblong_texture(content: Content) -> None:
    content.images["T_Ball_ORM"] = content.images["T_Ball_ORM"][:64]


@defect(replace(WEB, max_texture_size=64), texture_size="error", gpu_memory="warning")
def _large_texture(content: Content) -> None:
    content.images["T_Ball_ORM"] = np.tile(content.images["T_Ball_ORM"], (2, 2, 1))


@defect(files="error")
def _broken_image(content: Content) -> None:
    content.images["T_Ball_N"] = b"not an image"


@defect(small_textures="warning")
def _tiny_texture(content: Content) -> None:
    content.images["T_Ball_ORM"] = content.images["T_Ball_ORM"][:8, :8]


@defect(duplicate_images="warning")
def _image_twice(content: Content) -> None:
    content.images["T_Ball_E"] = content.images["T_Ball_BC"]
    content.tree = lambda tree: tree["materials"][0].update(emissiveTexture={"index": 3})


@defect(baked_light="warning")
def _baked_light(content: Content) -> None:
    content.images["T_Ball_BC"] = lit()


# Scene


@defect(scale="warning")
def _centimeters_as_meters(content: Content) -> None:
    for arrays in (content.arrays, content.level):
        assert arrays is not None
        arrays["POSITION"] *= 1000
    content.hull = None
    content.tree = lambda tree: tree["nodes"][0].update(extensions={"OMI_physics_body": {}})


@defect(WEB, pivot="warning")
def _origin_at_the_center(content: Content) -> None:
    content.arrays["POSITION"][:, 1] -= 0.4
    content.hull = None


@defect(WEB, up_axis="warning", pivot="warning")
def _z_up(content: Content) -> None:
    for name in ("POSITION", "NORMAL", "TANGENT"):
        values = content.arrays[name].copy()
        values[:, 1], values[:, 2] = -content.arrays[name][:, 2], content.arrays[name][:, 1]
        content.arrays[name] = values
    content.hull = None


@defect(WEB, transforms="warning")
def _rotated_node(content: Content) -> None:
    content.node["rotation"] = [0, 0.7071068, 0, 0.7071068]


@defect(WEB, negative_scale="error", transforms="warning", uv_mirrored="warning")
def _negative_scale(content: Content) -> None:
    content.node["scale"] = [-1, 1, 1]


@defect(WEB, uneven_scale="warning", transforms="warning")
def _uneven_scale(content: Content) -> None:
    content.node["scale"] = [1.02, 1, 1]


@defect(WEB, names="warning")
def _placeholder_name(content: Content) -> None:
    content.material["name"] = "Material.001"


@defect(WEB, unique_names="warning")
def _same_names(content: Content) -> None:
    """A second, smaller object with the name of another."""

    def add(tree: dict[str, Any]) -> None:
        tree["nodes"].append(dict(tree["nodes"][1]))
        tree["scenes"][0]["nodes"].append(3)

    content.tree = add


@defect(WEB, portable_names="warning")
def _name_with_spaces(content: Content) -> None:
    content.material["name"] = "M Ball: new"


@defect(naming_pattern="warning")
def _name_without_prefix(content: Content) -> None:
    content.material["name"] = "Ball"


# Budgets


@defect(replace(UNREAL, formats=("fbx",)), format="error")
def _format(content: Content) -> None: ...


@defect(extensions="error")
def _unread_extension(content: Content) -> None:
    content.tree = lambda tree: tree.update(extensionsRequired=["EXT_texture_webp"])


@defect(replace(UNREAL, max_triangles=300), triangles="error")
def _triangles(content: Content) -> None: ...


@defect(replace(UNREAL, max_materials=0), draw_calls="warning", material_count="warning")
def _draw_calls(content: Content) -> None: ...


@defect(replace(UNREAL, max_file_bytes=1000), file_size="error")
def _file_size(content: Content) -> None: ...


@defect(unused_data="warning")
def _unused_material(content: Content) -> None:
    content.tree = lambda tree: tree["materials"].append({"name": "M_Old"})


@defect(unused_vertices="warning")
def _loose_vertices(content: Content) -> None:
    for name, values in content.arrays.items():
        if name != "faces":
            content.arrays[name] = np.concatenate([values, values[:20]])


# Levels of detail and colliders


@defect(lods="error")
def _levels_do_not_fall(content: Content) -> None:
    content.level = attributes(ball(2))


@defect(WEB, lods="warning")
def _no_levels(content: Content) -> None:
    content.arrays, content.level = attributes(ball(4)), None


@defect(collider="warning")
def _no_collider(content: Content) -> None:
    content.hull = None


@defect(collider="warning")
def _detailed_collider(content: Content) -> None:
    content.hull = trimesh.creation.icosphere(2, 0.4)


@defect(convex_collider="error")
def _hollow_collider(content: Content) -> None:
    assert content.hull is not None
    content.hull.vertices[0] *= 0.3


@defect(collider_fit="warning")
def _misplaced_collider(content: Content) -> None:
    assert content.hull is not None
    content.hull.vertices += 0.5


def test_there_are_enough_defects() -> None:
    assert len(DEFECTS) >= 25


@pytest.mark.parametrize("name", DEFECTS)
def test_a_planted_defect_is_found(name: str, tmp_path: Path) -> None:
    change, expected, engine = DEFECTS[name]
    content = Content()
    change(content)
    found = audit(content.save(tmp_path), engine)
    assert {row.check: row.severity for row in found.findings} == expected
    assert found.passed == ("error" not in expected.values())
    assert all(row.remedy and row.limit and row.text for row in found.findings)
