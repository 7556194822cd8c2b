"""Kaolin's mesh extraction compared with ours, and USD files with Kaolin.

Skipped if Kaolin cannot be imported, except the USD tests, which also run with a stand-in based on Pixar's library.
"""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import trimesh
from kaolin_stand_in import stand_in
from torch import Tensor

from steindreamer.optional import load
from steindreamer.representations import TriangleMesh
from steindreamer.representations.interop import kaolin as adapter
from steindreamer.representations.mesh.tetrahedra import TetrahedralGrid, marching_tetrahedra

GRID = TetrahedralGrid(14)
CENTER = torch.tensor([0.1, 0.0, -0.2])


@pytest.fixture
def kaolin() -> None:
    pytest.importorskip("kaolin", reason="needs kaolin (docs/optional_packages.md)", exc_type=ImportError)


@pytest.fixture(params=["installed", "stand-in"])
def usd(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param == "installed":
        pytest.importorskip("kaolin", reason="needs kaolin (docs/optional_packages.md)", exc_type=ImportError)
        return
    pytest.importorskip("pxr", reason="needs usd-core")
    for name, module in stand_in().items():
        monkeypatch.setitem(sys.modules, name, module)


def ball(points: Tensor) -> Tensor:
    return (points - CENTER).norm(dim=-1) - 0.6


def torus(points: Tensor) -> Tensor:
    ring = points[..., [0, 2]].norm(dim=-1) - 0.5
    return torch.stack([ring, points[..., 1]], -1).norm(dim=-1) - 0.25


def solid(vertices: Tensor, faces: Tensor) -> trimesh.Trimesh:
    return trimesh.Trimesh(vertices.detach().numpy(), faces.numpy(), process=False)


@pytest.mark.parametrize(
    "call",
    [
        lambda path: adapter.marching_tetrahedra(GRID.positions, ball(GRID.positions), GRID),
        lambda path: adapter.flexicubes(torch.ones(4, 4, 4)),
        lambda path: adapter.export_usd(TriangleMesh(torch.eye(3), torch.tensor([[0, 1, 2]])), path),
        lambda path: adapter.import_usd(path),
    ],
    ids=["marching tetrahedra", "flexicubes", "export", "import"],
)
def test_missing_package_is_named(call: Callable[[Path], Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in [name for name in sys.modules if name.split(".")[0] == "kaolin"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "kaolin", None)
    with pytest.raises(ValueError, match=r"needs the kaolin package.*pip install"):
        call(tmp_path / "mesh.usda")


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("raise RuntimeError('operator torchvision::nms does not exist')", r"RuntimeError.*nms.*steindreamer\.distill"),
        ("raise ImportError('kaolin/_C.so: undefined symbol: _ZN2at')", r"ImportError.*undefined symbol.*pip install"),
        ("raise OSError('libcudart.so.12: no such file')", r"OSError.*libcudart.*pip install"),
        ("import a_package_that_is_missing", r"a_package_that_is_missing.*pip install"),
    ],
)
def test_a_package_that_cannot_be_imported_is_not_called_missing(
    code: str, message: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "broken_package").mkdir()
    (tmp_path / "broken_package" / "__init__.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ValueError, match=r"^broken_package cannot be imported \(.*" + message):
        load("broken_package.io", "pip install it")


def test_what_the_error_about_torchvision_advises_works(tmp_path: Path) -> None:
    """A torchvision of another torch, below a stand-in for kaolin; the first attempt must leave nothing in the way."""
    for package, code in {
        "torchvision": "import torch\ntorch.library.register_fake('torchvision::nms')(lambda *given: given)\n",
        "kaolin": "from . import ops\n",
        "kaolin/ops": "from . import conversions\n",
        "kaolin/ops/conversions": "import torchvision\nNAME = __name__\n",
    }.items():
        (tmp_path / package).mkdir()
        (tmp_path / package / "__init__.py").write_text(code)
    script = f"""
import sys
sys.path.insert(0, {str(tmp_path)!r})
from steindreamer.optional import load
try:
    load("kaolin.ops.conversions", "...")
except ValueError as error:
    print(error)
import steindreamer.distill
print(load("kaolin.ops.conversions", "...").NAME)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    refused, name = done.stdout.splitlines()
    assert "nms" in refused and "`import steindreamer.distill` first" in refused and name == "kaolin.ops.conversions"


def triangles(faces: Tensor) -> set[tuple[int, ...]]:
    """Faces, each rotated to start at its smallest vertex, so that only the winding matters."""
    start = faces.argmin(1, keepdim=True)
    return {tuple(face) for face in faces.gather(1, (start + torch.arange(3)) % 3).tolist()}


@pytest.mark.parametrize("shape", [ball, torus])
def test_marching_tetrahedra_equals_ours(kaolin: None, shape: Callable[[Tensor], Tensor]) -> None:
    """Vertices, winding and gradients are equal. Quadrilaterals may be split along the other diagonal."""
    positions, sdf = GRID.positions.requires_grad_(), shape(GRID.positions).requires_grad_()
    theirs, their_faces = adapter.marching_tetrahedra(positions, sdf, GRID)
    ours, our_faces = marching_tetrahedra(positions, sdf, GRID)
    distance, match = torch.cdist(theirs.detach().double(), ours.detach().double()).min(1)
    assert distance.max() < 1e-6 and torch.equal(match.sort().values, torch.arange(len(ours)))
    translated, turned = triangles(match[their_faces]), triangles(match[their_faces].flip(1))
    assert len(their_faces) == len(our_faces) == len(translated)
    assert len(translated & triangles(our_faces)) > 0.3 * len(our_faces) and not turned & triangles(our_faces)
    assert solid(theirs, their_faces).is_watertight
    assert solid(theirs, their_faces).volume == pytest.approx(solid(ours, our_faces).volume, rel=0.01)
    for name, expected, gradient in zip(
        ("positions", "sdf"),
        torch.autograd.grad(ours.sin().sum(), (positions, sdf)),
        torch.autograd.grad(theirs.sin().sum(), (positions, sdf)),
        strict=True,
    ):
        torch.testing.assert_close(gradient, expected, rtol=1e-4, atol=1e-4, msg=name)


def test_marching_tetrahedra_of_an_empty_field(kaolin: None) -> None:
    vertices, faces = adapter.marching_tetrahedra(GRID.positions, torch.zeros(GRID.nodes), GRID)
    assert vertices.shape == (0, 3) and faces.shape == (0, 3)


@pytest.mark.parametrize("cells", [(32, 32, 32), (30, 36, 33)])
def test_flexicubes_finds_the_sphere(kaolin: None, cells: tuple[int, int, int]) -> None:
    axes = [torch.linspace(-1.2, 1.2, count + 1) for count in cells]
    sdf = ball(torch.stack(torch.meshgrid(*axes, indexing="ij"), -1)).requires_grad_()
    vertices, faces = adapter.flexicubes(sdf, extent=1.2)
    assert ((vertices - CENTER).norm(dim=1) - 0.6).abs().max() < 0.005
    surface = solid(vertices, faces)
    assert surface.is_watertight and surface.is_winding_consistent
    assert surface.volume == pytest.approx(4 / 3 * torch.pi * 0.6**3, rel=0.02)
    # Moving the level outward by d moves every vertex by about d along its normal.
    outward = (vertices - CENTER).norm(dim=1).mean()
    (gradient,) = torch.autograd.grad(outward, sdf)
    assert gradient.sum().item() == pytest.approx(-1, rel=0.02)


def test_flexicubes_of_an_empty_field(kaolin: None) -> None:
    vertices, faces = adapter.flexicubes(torch.ones(4, 4, 4))
    assert vertices.shape == (0, 3) and faces.shape == (0, 3)


@pytest.mark.parametrize("suffix", [".usda", ".usd", ".usdc"])
def test_usd_keeps_the_mesh(usd: None, suffix: str, tmp_path: Path, generator: torch.Generator) -> None:
    box = trimesh.creation.box()
    vertices, faces = torch.tensor(box.vertices, dtype=torch.float32), torch.tensor(box.faces)
    uvs = torch.rand(len(vertices), 2, generator=generator)
    path = tmp_path / f"mesh{suffix}"
    adapter.export_usd(TriangleMesh(2 * vertices, faces), path)
    adapter.export_usd(TriangleMesh(vertices, faces, normals=vertices / vertices.norm(dim=1)[:, None], uvs=uvs), path)
    mesh = adapter.import_usd(path)
    torch.testing.assert_close(mesh.vertices, vertices)
    assert torch.equal(mesh.faces, faces)
    assert mesh.uvs is not None
    torch.testing.assert_close(mesh.uvs, uvs)


def test_usd_is_in_meters_with_v_upward(usd: None, tmp_path: Path) -> None:
    """The written file, read with Pixar's library."""
    geometry, stages = pytest.importorskip("pxr.UsdGeom"), pytest.importorskip("pxr.Usd")
    uvs = torch.tensor([[0.25, 0.1], [0.5, 0.0], [1.0, 1.0]])
    given = uvs.clone()
    adapter.export_usd(TriangleMesh(torch.eye(3), torch.tensor([[0, 1, 2]]), uvs=given), tmp_path / "mesh.usda")
    assert torch.equal(given, uvs)
    stage = stages.Stage.Open(str(tmp_path / "mesh.usda"))
    assert geometry.GetStageMetersPerUnit(stage) == 1 and geometry.GetStageUpAxis(stage) == "Y"
    (prim,) = [prim for prim in stage.Traverse() if prim.IsA(geometry.Mesh)]
    st = torch.tensor(geometry.PrimvarsAPI(prim).GetPrimvar("st").Get())
    torch.testing.assert_close(st, torch.tensor([[0.25, 0.9], [0.5, 1.0], [1.0, 0.0]]))


USD_OF_OTHERS = """#usda 1.0
(
    metersPerUnit = 0.01
    upAxis = "Z"
)
def Mesh "panel"
{
    int[] faceVertexCounts = [4, 3]
    int[] faceVertexIndices = [0, 1, 2, 3, 1, 4, 2]
    point3f[] points = [(0, 0, 0), (100, 0, 0), (100, 0, 100), (0, 0, 100), (200, 0, 0)]
    texCoord2f[] primvars:st = [(0, 0), (1, 0), (1, 1), (0, 1), (0, 0), (1, 0), (0, 1)] (
        interpolation = "faceVarying"
    )
}
"""


def test_import_of_centimeters_polygons_and_seams(usd: None, tmp_path: Path) -> None:
    path = tmp_path / "others.usda"
    path.write_text(USD_OF_OTHERS)
    mesh = adapter.import_usd(path)
    assert mesh.faces.shape == (3, 3) and mesh.uvs is not None
    corners = mesh.vertices[mesh.faces].reshape(-1, 3)
    expected = torch.tensor([[0, 0], [1, 0], [1, 1], [0, 0], [1, 1], [0, 1], [1, 0], [2, 0], [1, 1]])
    # It is in the plane of x and our y.
    torch.testing.assert_close(corners, torch.nn.functional.pad(expected.float(), (0, 1)))
    uvs = torch.tensor([[0, 1], [1, 1], [1, 0], [0, 1], [1, 0], [0, 0], [0, 1], [1, 1], [0, 0]])
    torch.testing.assert_close(mesh.uvs[mesh.faces].reshape(-1, 2), uvs.float())


def test_import_of_several_meshes_keeps_their_positions(usd: None, tmp_path: Path) -> None:
    path = tmp_path / "two.usda"
    mesh = """def Mesh "{name}" {{
        int[] faceVertexCounts = [3]
        int[] faceVertexIndices = [0, 1, 2]
        point3f[] points = [(0, 0, 0), (1, 0, 0), (0, 1, 0)]
        double3 xformOp:translate = (0, 0, {z})
        uniform token[] xformOpOrder = ["xformOp:translate"]
    }}"""
    meshes = [mesh.format(name=name, z=z) for name, z in (("near", 0), ("far", 2))]
    path.write_text("\n".join(['#usda 1.0\n(\n    metersPerUnit = 1\n    upAxis = "Y"\n)', *meshes]))
    read = adapter.import_usd(path)
    assert read.uvs is None
    assert read.faces.tolist() == [[0, 1, 2], [3, 4, 5]]
    assert read.vertices[:, 2].tolist() == [0, 0, 0, 2, 2, 2]


def test_files_without_a_mesh(usd: None, tmp_path: Path) -> None:
    contents = {
        "empty": "",
        "camera": 'def Camera "camera" {}',
        "points": 'def Mesh "points" {\n point3f[] points = [(0, 0, 0)]\n}',
    }
    for name, content in contents.items():
        path = tmp_path / f"{name}.usda"
        path.write_text(f"#usda 1.0\n{content}\n")
        with pytest.raises(ValueError, match=f"{name}.usda contains no mesh"):
            adapter.import_usd(path)
    with pytest.raises(FileNotFoundError, match=r"missing\.usda"):
        adapter.import_usd(tmp_path / "missing.usda")
