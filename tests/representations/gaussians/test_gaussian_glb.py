"""Gaussians as glTF (KHR_gaussian_splatting): exact layout, round trip, files of other writers, and broken files."""

from __future__ import annotations

import json
import logging
import math
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gltf_samples import Gltf
from hypothesis import given, settings
from hypothesis import strategies as st
from ply_samples import Ply, ball, splats

from steindreamer.representations import (
    Cameras,
    Gaussians,
    GaussiansConfig,
    read_gaussian_glb,
    read_gaussian_ply,
    write_gaussian_glb,
)
from steindreamer.representations.gaussians.file import is_splat_file
from steindreamer.representations.gaussians.splatting.geometry import rotation_matrices
from steindreamer.representations.mesh.file import read_mesh

NAME = "KHR_gaussian_splatting"
BLACK = torch.zeros(1, 3)


def scene(count: int = 20, seed: int = 0) -> Gaussians:
    generator = torch.Generator().manual_seed(seed)
    out = GaussiansConfig(count=count).build(generator)
    with torch.no_grad():
        for parameter in out.parameters():
            parameter += 0.5 * torch.randn(parameter.shape, generator=generator)
    return out.requires_grad_(False)


def sample(primitives: int = 1, degree: int = 0, node: dict[str, Any] | None = None, count: int = 20) -> Gltf:
    """A file by an independent writer: the Gaussians of `scene`, divided among primitives."""
    given, out, parts = scene(count), Gltf(), []
    columns = {
        "POSITION": given.means,
        f"{NAME}:ROTATION": torch.nn.functional.normalize(given.quaternions)[:, [1, 2, 3, 0]],
        f"{NAME}:SCALE": given.scales,
        f"{NAME}:OPACITY": given.opacities[:, None],
        f"{NAME}:SH_DEGREE_0_COEF_0": (given.colors - 0.5) / 0.28209479,
    }
    for level in range(1, degree + 1):
        columns |= {f"{NAME}:SH_DEGREE_{level}_COEF_{i}": torch.full((count, 3), 3.0) for i in range(2 * level + 1)}
    for rows in torch.arange(count).chunk(primitives):
        attributes = {name: out.accessor(values[rows].numpy()) for name, values in columns.items()}
        extension = {"kernel": "ellipse", "colorSpace": "srgb_rec709_display"}
        parts.append({"mode": 0, "attributes": attributes, "extensions": {NAME: extension}})
    out.node(mesh=out.add("meshes", primitives=parts), **(node or {}))
    out.tree["extensionsUsed"] = [NAME]
    return out


def save(folder: Path, file: Gltf) -> Path:
    (folder / "splats.glb").write_bytes(file.glb())
    return folder / "splats.glb"


def chunks(path: Path) -> tuple[dict[str, Any], bytes]:
    data = path.read_bytes()
    magic, version, total, length, kind = struct.unpack_from("<4sIII4s", data)
    assert (magic, version, total, kind) == (b"glTF", 2, len(data), b"JSON")
    size, kind = struct.unpack_from("<I4s", data, 20 + length)
    assert kind == b"BIN\0" and 28 + length + size == len(data)
    return json.loads(data[20 : 20 + length]), data[28 + length :]


def same(one: Gaussians, other: Gaussians, turn: torch.Tensor | None = None) -> None:
    """Checks positions, covariances, opacities and colors; those of `one` may be transformed first."""
    matrix = torch.eye(4) if turn is None else turn
    torch.testing.assert_close(other.means, one.means @ matrix[:3, :3].T + matrix[:3, 3])
    axes = [rotation_matrices(each.quaternions) * each.scales[:, None] for each in (one, other)]
    first = matrix[:3, :3] @ axes[0]
    torch.testing.assert_close(axes[1] @ axes[1].mT, first @ first.mT)
    torch.testing.assert_close(other.opacities, one.opacities, atol=1e-6, rtol=0)
    torch.testing.assert_close(other.colors, one.colors, atol=1e-6, rtol=0)


def test_layout(tmp_path: Path) -> None:
    given = scene()
    write_gaussian_glb(given, tmp_path / "cloud.glb")
    tree, binary = chunks(tmp_path / "cloud.glb")
    assert tree["extensionsUsed"] == [NAME] and "extensionsRequired" not in tree
    assert tree["nodes"] == [{"mesh": 0, "name": "cloud"}] and tree["scenes"][tree["scene"]]["nodes"] == [0]
    (part,) = tree["meshes"][0]["primitives"]
    assert part["mode"] == 0
    assert part["extensions"] == {NAME: {"kernel": "ellipse", "colorSpace": "srgb_rec709_display"}}

    def column(name: str, kind: str, code: int, shape: str) -> np.ndarray:
        accessor = tree["accessors"][part["attributes"][name]]
        assert (accessor["componentType"], accessor["type"], accessor["count"]) == (code, shape, 20)
        view = tree["bufferViews"][accessor["bufferView"]]
        assert view["byteOffset"] % 4 == 0
        return np.frombuffer(binary, kind, view["byteLength"] // np.dtype(kind).itemsize, view["byteOffset"]).reshape(
            20, -1
        )

    position = column("POSITION", "<f4", 5126, "VEC3")
    assert np.array_equal(position, given.means.numpy())
    accessor = tree["accessors"][part["attributes"]["POSITION"]]
    assert (accessor["min"], accessor["max"]) == (position.min(0).tolist(), position.max(0).tolist())
    turn = torch.nn.functional.normalize(given.quaternions).numpy()
    np.testing.assert_allclose(column(f"{NAME}:ROTATION", "<f4", 5126, "VEC4"), turn[:, [1, 2, 3, 0]], atol=1e-6)
    np.testing.assert_allclose(column(f"{NAME}:SCALE", "<f4", 5126, "VEC3"), given.scales.numpy(), rtol=1e-6)
    opacity = column(f"{NAME}:OPACITY", "<f4", 5126, "SCALAR")
    np.testing.assert_allclose(opacity[:, 0], given.opacities.numpy(), atol=1e-6)
    harmonic = column(f"{NAME}:SH_DEGREE_0_COEF_0", "<f4", 5126, "VEC3")
    np.testing.assert_allclose(0.5 + 0.28209479 * harmonic, given.colors.numpy(), atol=1e-6)
    fallback = column("COLOR_0", "<u2", 5123, "VEC4") / 65_535
    colors = given.colors.numpy()
    linear = np.where(colors <= 0.04045, colors / 12.92, ((colors + 0.055) / 1.055) ** 2.4)
    np.testing.assert_allclose(fallback, np.concatenate([linear, opacity], 1), atol=1e-5)
    assert tree["accessors"][part["attributes"]["COLOR_0"]]["normalized"]


@settings(max_examples=20, deadline=None)
@given(count=st.integers(1, 40), seed=st.integers(0, 2**31))
def test_round_trip(count: int, seed: int, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.mktemp("splats") / "a.glb"
    before = scene(count, seed)
    write_gaussian_glb(before, path)
    after = read_gaussian_glb(path)
    assert torch.equal(after.means, before.means)
    torch.testing.assert_close(after.log_scales.detach(), before.log_scales, atol=1e-6, rtol=1e-6)
    same(before, after.requires_grad_(False))


def test_the_same_gaussians_as_in_the_ply(tmp_path: Path) -> None:
    given = scene(60)
    given.config.formats = ["glb", "ply"]
    assert given.save(tmp_path) == tmp_path / "asset_splats.glb"
    loaded = read_gaussian_glb(tmp_path / "asset_splats.glb").requires_grad_(False)
    ply = read_gaussian_ply(tmp_path / "asset.ply").requires_grad_(False)
    same(ply, loaded)
    camera = Cameras.orbit([40.0], [20.0], height=24)
    torch.testing.assert_close(loaded.render(camera, BLACK).rgb, ply.render(camera, BLACK).rgb, atol=1e-5, rtol=0)


def test_limits_of_opacity_color_and_scale(tmp_path: Path) -> None:
    given = scene(5)
    given.opacity_logits[:] = torch.tensor([-80.0, 80.0, 0.0, -15.0, 15.0])
    given.color_logits[:3] = torch.tensor([[80.0], [-80.0], [0.0]])
    given.log_scales[0] = torch.tensor([-70.0, -20.0, 3.0])
    write_gaussian_glb(given, tmp_path / "a.glb")
    after = read_gaussian_glb(tmp_path / "a.glb")
    torch.testing.assert_close(after.opacities.detach(), given.opacities, atol=1e-6, rtol=0)
    # `ops.logit` moves colors off 0 and 1, to keep them trainable.
    torch.testing.assert_close(after.colors.detach(), given.colors, atol=5e-4, rtol=0)
    torch.testing.assert_close(after.log_scales[0].detach(), torch.tensor([-30.0, -20.0, 3.0]))
    after.opacities.sum().backward()
    assert after.opacity_logits.grad is not None and (after.opacity_logits.grad > 0).all()


def test_a_distant_scene_is_moved_by_its_node(tmp_path: Path) -> None:
    """In single precision, the positions of its Gaussians would coincide."""
    place = torch.tensor([4.5e5, 30.0, -5.4e6], dtype=torch.float64)
    element = splats(ball(30).double() + place)
    element.properties = [each.replace("float", "double") for each in element.properties]
    (tmp_path / "map.ply").write_bytes(Ply([element]).content())
    fitted = GaussiansConfig(initial_ply=str(tmp_path / "map.ply")).build(torch.Generator())
    write_gaussian_glb(fitted, tmp_path / "map.glb")
    tree, _ = chunks(tmp_path / "map.glb")
    assert tree["nodes"][0]["translation"] == pytest.approx(place.tolist(), abs=1)
    again = GaussiansConfig(initial_ply=str(tmp_path / "map.glb")).build(torch.Generator())
    torch.testing.assert_close(again.means, fitted.means, atol=1e-4, rtol=0)
    torch.testing.assert_close(again.scales, fitted.scales, atol=1e-5, rtol=1e-3)
    assert fitted.placement is not None and again.placement is not None
    assert again.placement.center == pytest.approx(fitted.placement.center, abs=1e-3)


TURN = {"rotation": [0.0, math.sin(0.4), 0.0, math.cos(0.4)]}
NODES: dict[str, tuple[dict[str, Any], Callable[[], torch.Tensor]]] = {
    "translation": ({"translation": [1.0, 2.0, 3.0]}, lambda: _matrix(move=(1.0, 2.0, 3.0))),
    "rotation": (TURN, lambda: _matrix(angle=0.8)),
    "all": (
        TURN | {"translation": [1.0, -2.0, 0.5], "scale": [2.0, 0.5, 3.0]},
        lambda: _matrix(0.8, (1.0, -2.0, 0.5), (2.0, 0.5, 3.0)),
    ),
    "mirrored": ({"scale": [-1.0, 1.0, 1.0]}, lambda: _matrix(scale=(-1.0, 1.0, 1.0))),
}


def _matrix(
    angle: float = 0.0, move: tuple[float, ...] = (0.0, 0.0, 0.0), scale: tuple[float, ...] = (1.0, 1.0, 1.0)
) -> torch.Tensor:
    out = torch.eye(4)
    cosine, sine = math.cos(angle), math.sin(angle)
    out[:3, :3] = torch.tensor([[cosine, 0.0, sine], [0.0, 1.0, 0.0], [-sine, 0.0, cosine]]) @ torch.diag(
        torch.tensor(scale)
    )
    out[:3, 3] = torch.tensor(move)
    return out


@pytest.mark.parametrize("name", NODES)
def test_transforms_of_nodes_are_applied(name: str, tmp_path: Path) -> None:
    node, matrix = NODES[name]
    found = read_gaussian_glb(save(tmp_path, sample(node=node))).requires_grad_(False)
    same(scene(), found, matrix())


def test_several_primitives_are_one_scene_and_integers_are_normalized(tmp_path: Path) -> None:
    file = sample(primitives=3)
    for part in file.tree["meshes"][0]["primitives"]:
        count = file.tree["accessors"][part["attributes"]["POSITION"]]["count"]
        part["attributes"][f"{NAME}:OPACITY"] = file.accessor(np.full((count, 1), 51, "u1"), normalized=True)
    found = read_gaussian_glb(save(tmp_path, file))
    assert torch.equal(found.means, scene().means)
    torch.testing.assert_close(found.opacities.detach(), torch.full((20,), 0.2))


@pytest.mark.parametrize("degree", [1, 2, 3])
def test_view_dependent_colors_are_ignored_with_one_line(
    degree: int, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    higher = {f"f_rest_{index}": [1.0] * 20 for index in range(3 * ((degree + 1) ** 2 - 1))}
    (tmp_path / "a.ply").write_bytes(Ply([splats(ball(20), **higher)]).content())
    path = save(tmp_path, sample(degree=degree))
    with caplog.at_level(logging.WARNING, "steindreamer"):
        found = read_gaussian_glb(path)
        read_gaussian_ply(tmp_path / "a.ply")
    torch.testing.assert_close(found.colors.detach(), scene().colors, atol=1e-6, rtol=0)
    line = f"its view-dependent color is ignored (spherical harmonics of degree 1 to {degree})"
    assert [record.getMessage() for record in caplog.records] == [f"{path}: {line}", f"{tmp_path / 'a.ply'}: {line}"]


def test_linear_colors_become_srgb(tmp_path: Path) -> None:
    file = sample()
    file.tree["meshes"][0]["primitives"][0]["extensions"][NAME]["colorSpace"] = "lin_rec709_display"
    colors = scene().colors
    expected = torch.where(colors <= 0.0031308, 12.92 * colors, 1.055 * colors ** (1 / 2.4) - 0.055)
    torch.testing.assert_close(
        read_gaussian_glb(save(tmp_path, file)).colors.detach(), expected.clamp(0, 1), atol=5e-4, rtol=0
    )


Change = Callable[[Gltf, dict[str, Any]], object]
"""A change of a file, given its only primitive."""


def _column(name: str, values: np.ndarray) -> Change:
    return lambda file, part: part["attributes"].__setitem__(f"{NAME}:{name}", file.accessor(values))


def _without(name: str) -> Change:
    return lambda file, part: part["attributes"].pop(name)


def _extension(**values: Any) -> Change:
    return lambda file, part: part["extensions"][NAME].update(values)


def _packed(file: Gltf, part: dict[str, Any]) -> None:
    del part["attributes"][f"{NAME}:SCALE"]
    part["extensions"][NAME]["extensions"] = {"ACME_packed": {}}


BROKEN: dict[str, tuple[Change, str]] = {
    **{
        f"no {name}": (_without(name), f"its Gaussians have no {name}$")
        for name in ("POSITION", *(f"{NAME}:{each}" for each in ("ROTATION", "SCALE", "OPACITY", "SH_DEGREE_0_COEF_0")))
    },
    "compressed": (_packed, "no KHR_gaussian_splatting:SCALE; they are compressed with ACME_packed: save them unc"),
    "wrong count": (_column("SCALE", np.ones((19, 3), "f4")), "has 19 of KHR_gaussian_splatting:SCALE for 20 Gauss"),
    "too few components": (_column("ROTATION", np.ones((20, 3), "f4")), "ROTATION: an attribute has 3 components; 4"),
    "log scales": (_column("SCALE", np.full((20, 3), -3, "f4")), "negative values in .*standard deviations, not log"),
    "logits": (_column("OPACITY", np.linspace(-2, 5, 20, dtype="f4")[:, None]), "from -2 to 5 in .*accepted are 0 to"),
    "nan": (_column("SCALE", np.full((20, 3), np.nan, "f4")), "SCALE.z: 20 of 20 rows, the first is row 0 with .*nan"),
    "infinite": (_column("OPACITY", np.full((20, 1), np.inf, "f4")), "NaN or infinite values in .*OPACITY.a"),
    "kernel": (_extension(kernel="box"), "have the kernel 'box'; accepted: ellipse"),
    "color space": (_extension(colorSpace="BT.2020"), "colorSpace 'BT.2020'; accepted: srgb_rec709_display, lin_"),
    "triangles": (lambda file, part: part.pop("mode"), "not stored as points"),
    "half a degree": (
        _column("SH_DEGREE_1_COEF_0", np.ones((20, 3), "f4")),
        "missing of degree 3: .*SH_DEGREE_1_COEF_1",
    ),
    "no splats": (lambda file, part: part.pop("extensions"), "its scene has no Gaussians"),
    "not there": (lambda file, part: part["attributes"].update(POSITION=99), r"accessors\[99\], which does not exist"),
    "other extension": (lambda file, part: file.tree.update(extensionsRequired=["ACME_x"]), "extension ACME_x"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_broken_files_raise_a_one_line_error(name: str, tmp_path: Path) -> None:
    change, message = BROKEN[name]
    file = sample()
    change(file, file.tree["meshes"][0]["primitives"][0])
    with pytest.raises(ValueError, match=message) as caught:
        GaussiansConfig(initial_ply=str(save(tmp_path, file))).build(torch.Generator())
    assert "splats.glb" in str(caught.value) and "\n" not in str(caught.value)


def test_truncated_and_missing_files(tmp_path: Path) -> None:
    path = save(tmp_path, sample())
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(ValueError, match=r"splats\.glb: truncated"):
        read_gaussian_glb(path)
    assert not is_splat_file(path)
    with pytest.raises(OSError, match=r"no mesh file|No such file"):
        read_gaussian_glb(tmp_path / "none.glb")


def test_what_cannot_be_written_leaves_no_file(tmp_path: Path) -> None:
    broken = scene()
    broken.means[3, 1] = torch.nan
    with pytest.raises(ValueError, match="NaN or infinite values; did the run diverge"):
        write_gaussian_glb(broken, tmp_path / "a.glb")
    huge = scene()
    huge.log_scales[2, 0] = 100.0
    with pytest.raises(ValueError, match="too large for single precision"):
        write_gaussian_glb(huge, tmp_path / "a.glb")
    assert not list(tmp_path.iterdir())


def test_formats_of_a_scene_are_distinct() -> None:
    for formats in ([], ["glb", "glb"]):
        with pytest.raises(ValueError, match="give ply, glb or both, each once"):
            GaussiansConfig(formats=formats)  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize("required", [False, True])
def test_files_of_gaussians_and_of_meshes_are_told_apart(
    required: bool, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = sample()
    if required:
        file.tree["extensionsRequired"] = [NAME]
    path = save(tmp_path, file)
    assert is_splat_file(path) and len(read_gaussian_glb(path)) == 20
    with pytest.raises(ValueError, match=r"no triangles|requires the glTF extension"):
        read_mesh(path)
    file.cube()
    path = save(tmp_path, file)
    assert not is_splat_file(path) and len(read_gaussian_glb(path)) == 20
    if required:
        return
    caplog.clear()
    with caplog.at_level(logging.WARNING, "steindreamer"):
        assert len(read_mesh(path).faces) == 12
    assert "its Gaussians are ignored" in caplog.text and "initial_ply" in caplog.text
