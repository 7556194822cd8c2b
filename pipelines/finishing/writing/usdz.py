"""USDZ packages, as AR Quick Look and other USD readers load them."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any

from steindreamer.optional import load

from ...export.gltf_builder import png
from ...files import write_atomically
from ..bake import BakedMaterial
from ..finished import Finished
from .surface import indexed_surface
from .textures import ORM

INSTALL = "pip install 'steindreamer[usd]'; or leave out USDZ, such as formats=[glb]"
_NAMES = {"base_color": "BC", ORM: "ORM", "normal": "N", "emissive": "E"}

_DATE = 315_619_200
"""Date of the files in a package: 1980-01-02, so that the same asset gives the same bytes."""


def load_pxr() -> Any:
    """The modules of usd-core. Raises ValueError if it is not installed."""
    for name in ("Gf", "Kind", "Sdf", "Usd", "UsdGeom", "UsdShade", "UsdUtils", "Vt"):
        load(f"pxr.{name}", INSTALL)
    return load("pxr", INSTALL)


def write_usdz(asset: Finished, folder: Path) -> list[Path]:
    """Write level 0 with its material (UsdPreviewSurface) as a USDZ package, in meters with +Y up.

    The package has one layer, and its files are aligned to 64 bytes. Returns the path. Raises ValueError if usd-core is
    not installed.
    """
    pxr, names = load_pxr(), asset.names
    path = folder / f"{names.mesh}.usdz"
    with tempfile.TemporaryDirectory() as temporary:
        layer, package = Path(temporary) / f"{names.mesh}.usdc", Path(temporary) / "package.usdz"
        stage = pxr.Usd.Stage.CreateNew(str(layer))
        pxr.UsdGeom.SetStageUpAxis(stage, pxr.UsdGeom.Tokens.y)
        pxr.UsdGeom.SetStageMetersPerUnit(stage, 1.0)
        root = pxr.UsdGeom.Xform.Define(stage, f"/{names.mesh}").GetPrim()
        pxr.Usd.ModelAPI(root).SetKind(pxr.Kind.Tokens.component)
        stage.SetDefaultPrim(root)
        mesh = _add_mesh(pxr, stage, f"/{names.mesh}/Geometry", asset)
        material = _add_material(pxr, stage, f"/{names.mesh}/{names.material}", asset.looks[0].material, layer.parent)
        pxr.UsdShade.MaterialBindingAPI.Apply(mesh.GetPrim()).Bind(material)
        stage.GetRootLayer().Save()
        del stage
        for file in layer.parent.iterdir():
            os.utime(file, (_DATE, _DATE))
        if not pxr.UsdUtils.CreateNewARKitUsdzPackage(str(layer), str(package)):
            raise ValueError("usd-core cannot pack the USDZ file")
        write_atomically(path, package.read_bytes())
    return [path]


def _add_mesh(pxr: Any, stage: Any, path: str, asset: Finished) -> Any:
    surface, vectors = indexed_surface(asset, 0), pxr.Vt.Vec3fArray.FromNumpy
    mesh = pxr.UsdGeom.Mesh.Define(stage, path)
    mesh.CreatePointsAttr(vectors(surface.points))
    mesh.CreateFaceVertexCountsAttr([3] * len(surface.point_faces))
    mesh.CreateFaceVertexIndicesAttr(pxr.Vt.IntArray.FromNumpy(surface.point_faces.reshape(-1).astype("i4")))
    mesh.CreateSubdivisionSchemeAttr(pxr.UsdGeom.Tokens.none)
    mesh.CreateExtentAttr(vectors(surface.points[[0, 0]] * 0 + [surface.points.min(0), surface.points.max(0)]))
    primvars, types = pxr.UsdGeom.PrimvarsAPI(mesh), pxr.Sdf.ValueTypeNames
    uvs = surface.uvs.copy()
    uvs[:, 1] = 1 - uvs[:, 1]
    for name, kind, values, faces in (
        ("normals", types.Normal3fArray, vectors(surface.normals), surface.normal_faces),
        ("st", types.TexCoord2fArray, pxr.Vt.Vec2fArray.FromNumpy(uvs), surface.uv_faces),
    ):
        primvar = primvars.CreatePrimvar(name, kind, pxr.UsdGeom.Tokens.faceVarying)
        primvar.Set(values)
        primvar.SetIndices(pxr.Vt.IntArray.FromNumpy(faces.reshape(-1).astype("i4")))
    return mesh


def _add_material(pxr: Any, stage: Any, path: str, baked: BakedMaterial, folder: Path) -> Any:
    """A UsdPreviewSurface material; its textures are written to the folder of the layer."""
    types = pxr.Sdf.ValueTypeNames
    material = pxr.UsdShade.Material.Define(stage, path)
    surface = pxr.UsdShade.Shader.Define(stage, f"{path}/Surface")
    surface.CreateIdAttr("UsdPreviewSurface")
    material.CreateSurfaceOutput().ConnectToSource(surface.ConnectableAPI(), "surface")
    reader = pxr.UsdShade.Shader.Define(stage, f"{path}/Coordinates")
    reader.CreateIdAttr("UsdPrimvarReader_float2")
    reader.CreateInput("varname", types.String).Set("st")
    reader.CreateOutput("result", types.Float2)
    textures = {}
    for kind, image in baked.images().items():
        name = f"{_NAMES[kind]}.png"
        (folder / name).write_bytes(png(image))
        color = kind in ("base_color", "emissive")
        texture = pxr.UsdShade.Shader.Define(stage, f"{path}/{_NAMES[kind]}")
        texture.CreateIdAttr("UsdUVTexture")
        texture.CreateInput("file", types.Asset).Set(f"./{name}")
        texture.CreateInput("st", types.Float2).ConnectToSource(reader.ConnectableAPI(), "result")
        texture.CreateInput("sourceColorSpace", types.Token).Set("sRGB" if color else "raw")
        for axis in ("wrapS", "wrapT"):
            texture.CreateInput(axis, types.Token).Set("clamp")
        textures[kind] = texture
    if "normal" in textures:  # [0, 1] to [-1, 1]
        textures["normal"].CreateInput("scale", types.Float4).Set(pxr.Gf.Vec4f(2, 2, 2, 1))
        textures["normal"].CreateInput("bias", types.Float4).Set(pxr.Gf.Vec4f(-1, -1, -1, 0))
    constants = _constants(pxr, baked)
    for name, kind, channels, number in (
        ("diffuseColor", "base_color", "rgb", types.Color3f),
        ("emissiveColor", "emissive", "rgb", types.Color3f),
        ("normal", "normal", "rgb", types.Normal3f),
        ("occlusion", ORM, "r", types.Float),
        ("roughness", ORM, "g", types.Float),
        ("metallic", ORM, "b", types.Float),
    ):
        entry, value = surface.CreateInput(name, number), constants.get(name)
        if value is not None:
            entry.Set(value)
        elif kind in textures:
            textures[kind].CreateOutput(channels, types.Float3 if channels == "rgb" else types.Float)
            entry.ConnectToSource(textures[kind].ConnectableAPI(), channels)
        else:  # no map of it: the value of the shader's definition
            surface.GetPrim().RemoveProperty(entry.GetAttr().GetName())
    return material


def _constants(pxr: Any, baked: BakedMaterial) -> dict[str, Any]:
    """Inputs of the shader that are numbers."""
    values: dict[str, Any] = {}
    for name, kind in (("diffuseColor", "base_color"), ("emissiveColor", "emissive")):
        color = baked.linear_color(kind)
        if color is not None:
            values[name] = pxr.Gf.Vec3f(*color)
    roughness, metallic = baked.roughness_metallic
    if ORM in baked.factors:
        values |= {"roughness": roughness, "metallic": metallic}
    elif not baked.metallic:
        values["metallic"] = 0.0
    return values
