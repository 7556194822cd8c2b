"""Reading and writing of Gaussians as glTF 2.0 with the extension KHR_gaussian_splatting [Khronos 2026].

Gaussians are the points of a mesh primitive with attributes for rotation (x, y, z, w), scale (linear), opacity (0 to 1)
and spherical harmonics, in the coordinates of glTF, which are those of a scene: +Y up, front +Z, meters. Viewers
without the extension show a point cloud with the colors of COLOR_0.

A scene has the harmonics of degree 0. Those of degrees 1 to 3 are ignored on reading, which is logged, and not written.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float64, Shaped
from scipy.spatial.transform import Rotation
from torch import Tensor

from steindreamer.atomic_file import write_atomically

from ..mesh.file import read_with
from ..mesh.formats.gltf import GAUSSIANS as EXTENSION
from ..mesh.formats.gltf import Matrix, placed_nodes
from ..mesh.formats.gltf_accessors import GltfAccessors
from ..mesh.formats.gltf_document import GltfDocument
from ..mesh.formats.gltf_packing import append_view, glb
from ..mesh.painted import to_display, to_linear
from .ellipsoids import Ellipsoids
from .gaussians import Gaussians, GaussiansConfig
from .splat_table import SH_DEGREE_0, THINNEST_LOG_SCALE, SplatTable, checked, is_distant, unit_quaternions
from .splatting.geometry import rotation_matrices

SUFFIXES = (".glb", ".gltf")
KERNEL, SRGB, LINEAR = "ellipse", "srgb_rec709_display", "lin_rec709_display"
COLUMNS = {
    "POSITION": "xyz",
    f"{EXTENSION}:ROTATION": "xyzw",
    f"{EXTENSION}:SCALE": "xyz",
    f"{EXTENSION}:OPACITY": "a",
    f"{EXTENSION}:SH_DEGREE_0_COEF_0": "rgb",
}
"""The required attributes, with the names of their components."""
_HARMONICS = f"{EXTENSION}:SH_DEGREE_"
_TOLERANCE = 1e-4
"""Accepted distance of an opacity from [0, 1], by rounding."""
_POINTS, _TRIANGLES = 0, 4
_FLOAT, _UINT16, _ARRAY_BUFFER = 5126, 5123, 34962


def write_gaussian_glb(gaussians: Gaussians, path: Path) -> None:
    """Write the Gaussians as a .glb with KHR_gaussian_splatting, atomically.

    If the scene has a `placement`, its inverse is applied, so that positions are in coordinates of the initial file.

    Raises:
        ValueError: The scene has no Gaussians, a parameter is not finite, or a scale overflows.

    Example:
        >>> from pathlib import Path
        >>> from steindreamer.representations import GaussiansConfig, write_gaussian_glb
        >>> scene = GaussiansConfig(count=100).build(torch.Generator().manual_seed(0))
        >>> write_gaussian_glb(scene, Path("scene.glb"))
    """
    content = SplatTable.of(gaussians, path)
    means, translation = content.shapes.means, None
    if gaussians.placement is not None and is_distant(gaussians, content.shapes):
        translation = gaussians.placement.center
        means = means - torch.tensor(translation, dtype=means.dtype)
    opacities = content.opacity_logits.sigmoid()[:, None]
    scales = content.shapes.log_scales.exp()
    if not bool(scales.float().isfinite().all()):
        raise ValueError(f"cannot write {path}: the scene has scales that are too large for single precision")
    attributes = {
        "POSITION": means,
        f"{EXTENSION}:ROTATION": content.shapes.quaternions.roll(-1, 1),
        f"{EXTENSION}:SCALE": scales,
        f"{EXTENSION}:OPACITY": opacities,
        f"{EXTENSION}:SH_DEGREE_0_COEF_0": (content.colors - 0.5) / SH_DEGREE_0,
    }
    tree: dict[str, Any] = {"asset": {"version": "2.0", "generator": "steindreamer"}, "accessors": []}
    binary = bytearray()
    indices = {name: _append(tree, binary, values.float().numpy()) for name, values in attributes.items()}
    written = means.float()
    tree["accessors"][indices["POSITION"]] |= {"min": written.amin(0).tolist(), "max": written.amax(0).tolist()}
    fallback = torch.cat([to_linear(content.colors.clamp(0, 1)), opacities], 1)
    indices["COLOR_0"] = _append(tree, binary, (fallback * 65_535).round().numpy().astype(np.uint16))
    extension = {"kernel": KERNEL, "colorSpace": SRGB}
    primitive = {"mode": _POINTS, "attributes": indices, "extensions": {EXTENSION: extension}}
    tree |= {
        "extensionsUsed": [EXTENSION],
        "meshes": [{"name": path.stem, "primitives": [primitive]}],
        "nodes": [{"name": path.stem, "mesh": 0} | ({"translation": translation} if translation else {})],
        "scenes": [{"name": path.stem, "nodes": [0]}],
        "scene": 0,
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, glb(tree, bytes(binary)))


def _append(tree: dict[str, Any], binary: bytearray, values: Shaped[np.ndarray, "n c"]) -> int:
    """Append a vertex attribute of float32 numbers, or of normalized uint16. Returns the index of its accessor."""
    view = append_view(tree, binary, values.astype(values.dtype.newbyteorder("<")).tobytes())
    tree["bufferViews"][view]["target"] = _ARRAY_BUFFER
    is_float, width = values.dtype == np.float32, values.shape[1]
    tree["accessors"].append(
        {
            "bufferView": view,
            "componentType": _FLOAT if is_float else _UINT16,
            "count": len(values),
            "type": "SCALAR" if width == 1 else f"VEC{width}",
        }
        | ({} if is_float else {"normalized": True})
    )
    return len(tree["accessors"]) - 1


def read_gaussian_glb(path: Path, config: GaussiansConfig | None = None) -> Gaussians:
    """Read all Gaussians in the default scene of a .glb or .gltf with KHR_gaussian_splatting; `placement` is None.

    Positions and scales are in world coordinates of the file. Colors are the spherical harmonics of degree 0, clipped
    to [0, 1]; higher degrees are ignored, which is logged. Colors of a linear color space are converted to sRGB one by
    one, although such Gaussians should be blended before the conversion. A scale of 0 is a flat Gaussian, and a zero
    quaternion does not rotate.

    Args:
        path: The file.
        config: Settings of the scene; None for the defaults.

    Raises:
        OSError: The file cannot be read.
        ValueError: The file is broken or has no Gaussians, or Gaussians that are compressed or of another kernel or
            color space.

    Example:
        >>> scene = read_gaussian_glb(Path("asset_splats.glb"))  # doctest: +SKIP
    """
    return glb_content(path).scene(config)


def glb_content(path: Path) -> SplatTable:
    """The content of a glTF file of Gaussians; raises the errors of `read_gaussian_glb`."""
    return read_with(path, dict.fromkeys(SUFFIXES, lambda data, folder: _content(path, data, folder)))


def holds_only_gaussians(path: Path) -> bool:
    """Whether a glTF file has Gaussians and no triangles; False if it cannot be read."""
    try:
        document = read_with(path, dict.fromkeys(SUFFIXES, _document))
        primitives = [each for mesh in document.items("meshes") for each in mesh["primitives"]]
        is_splats = [EXTENSION in each.get("extensions", {}) for each in primitives]
        return any(is_splats) and all(each.get("mode", _TRIANGLES) < _TRIANGLES for each in primitives)
    except (ValueError, OSError, KeyError, TypeError, AttributeError):  # reported by the reader of the file
        return False


def _document(data: bytes, folder: Path) -> GltfDocument:
    return GltfDocument(data, folder, readable=(EXTENSION,))


def _content(path: Path, data: bytes, folder: Path) -> SplatTable:
    document = _document(data, folder)
    accessors = GltfAccessors(document)
    parts: list[SplatTable] = []
    for index, world in placed_nodes(document).items():
        node = document.items("nodes")[index]
        if "mesh" in node:
            primitives = document.item("meshes", node["mesh"])["primitives"]
            found = [each for each in primitives if EXTENSION in each.get("extensions", {})]
            parts += [_part(path, accessors, each, world) for each in found]
    if not parts:
        raise ValueError(f"its scene has no Gaussians ({EXTENSION})")
    return SplatTable(
        path,
        Ellipsoids(
            torch.cat([part.shapes.means for part in parts]),
            torch.cat([part.shapes.log_scales for part in parts]),
            torch.cat([part.shapes.quaternions for part in parts]),
        ),
        torch.cat([part.opacity_logits for part in parts]),
        torch.cat([part.colors for part in parts]),
        max(part.degree for part in parts),
    )


def _part(path: Path, accessors: GltfAccessors, primitive: dict[str, Any], world: Matrix) -> SplatTable:
    """The Gaussians of a primitive in world coordinates. Raises ValueError if they do not follow the extension."""
    extension, attributes = primitive["extensions"][EXTENSION], primitive["attributes"]
    if primitive.get("mode", _TRIANGLES) != _POINTS:
        raise ValueError("its Gaussians are not stored as points (mode 0)")
    if missing := [name for name in COLUMNS if name not in attributes]:
        packed = ", ".join(extension.get("extensions", {}))
        advice = f"; they are compressed with {packed}: save them uncompressed" if packed else ""
        raise ValueError(f"its Gaussians have no {', '.join(missing)}{advice}")
    for key, accepted in (("kernel", (KERNEL,)), ("colorSpace", (SRGB, LINEAR))):
        if extension.get(key) not in accepted:
            raise ValueError(f"its Gaussians have the {key} {extension.get(key)!r}; accepted: {', '.join(accepted)}")
    degree = _degree(attributes)
    means, quaternions, scales, opacities, harmonics = _columns(accessors, attributes).values()
    if bool((scales < 0).any()):
        raise ValueError(f"it has negative values in {EXTENSION}:SCALE, which are standard deviations, not logarithms")
    if bool((opacities < -_TOLERANCE).any() | (opacities > 1 + _TOLERANCE).any()):
        low, high = float(opacities.min()), float(opacities.max())
        raise ValueError(f"it has values from {low:.3g} to {high:.3g} in {EXTENSION}:OPACITY; accepted are 0 to 1")
    colors = 0.5 + SH_DEGREE_0 * harmonics
    return SplatTable(
        path,
        _placed(means, unit_quaternions(quaternions.roll(1, 1)), scales, torch.from_numpy(world)),
        opacities[:, 0].clamp(0, 1).logit(),
        to_display(colors) if extension["colorSpace"] == LINEAR else colors,
        degree,
    )


def _columns(accessors: GltfAccessors, attributes: Mapping[str, Any]) -> dict[str, Float64[Tensor, "n c"]]:
    """The required attributes of a primitive. Raises ValueError for wrong sizes, and values that are not finite."""
    out: dict[str, Float64[Tensor, "n c"]] = {}
    for name, components in COLUMNS.items():
        try:
            values = torch.from_numpy(accessors.numbers(attributes[name], len(components)))
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from None
        out[name] = checked(values, [f"{name}.{component}" for component in components])
        if len(values) != len(out["POSITION"]):
            raise ValueError(f"it has {len(values)} of {name} for {len(out['POSITION'])} Gaussians")
    if len(out["POSITION"]) == 0:
        raise ValueError("it has no Gaussians: its attributes are empty")
    return out


def _degree(attributes: Mapping[str, Any]) -> int:
    """Degree of the spherical harmonics. Raises ValueError if coefficients are missing."""
    given, complete = {name for name in attributes if name.startswith(_HARMONICS)}, set[str]()
    for degree in range(4):
        complete |= {f"{_HARMONICS}{degree}_COEF_{index}" for index in range(2 * degree + 1)}
        if given == complete:
            return degree
    lacking = ", ".join(sorted(complete - given)) or "none"
    raise ValueError(
        f"its spherical harmonics are not those of degree 0 to 0, 1, 2 or 3; missing of degree 3: {lacking[:200]}"
    )


def _placed(
    means: Float64[Tensor, "n 3"],
    quaternions: Float64[Tensor, "n 4"],
    scales: Float64[Tensor, "n 3"],
    world: Float64[Tensor, "4 4"],
) -> Ellipsoids:
    """The Gaussians after the transform of their node, which may also shear or mirror."""
    linear = world[:3, :3]
    if not torch.equal(linear, torch.eye(3).to(linear)):
        means = means @ linear.T
        # The covariance is A A^T, whose axes and standard deviations are in the singular value decomposition of A.
        axes, scales, _ = torch.linalg.svd(linear @ (rotation_matrices(quaternions) * scales[:, None, :]))
        axes[:, :, 2] *= torch.linalg.det(axes)[:, None]
        quaternions = torch.from_numpy(Rotation.from_matrix(axes.numpy()).as_quat()).roll(1, 1)
    return Ellipsoids(means + world[:3, 3], scales.log().clamp_min(THINNEST_LOG_SCALE), quaternions)
