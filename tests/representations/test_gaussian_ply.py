"""The .ply file of splat viewers: exact layout, round trip, and refusal of everything broken."""

from pathlib import Path

import numpy as np
import pytest
import torch

from steindreamer.representations import Gaussians, GaussiansConfig, read_gaussian_ply, write_gaussian_ply

HEADER = b"""ply
format binary_little_endian 1.0
element vertex 20
property float x
property float y
property float z
property float nx
property float ny
property float nz
property float f_dc_0
property float f_dc_1
property float f_dc_2
property float opacity
property float scale_0
property float scale_1
property float scale_2
property float rot_0
property float rot_1
property float rot_2
property float rot_3
end_header
"""


@pytest.fixture
def gaussians(generator: torch.Generator) -> Gaussians:
    scene = GaussiansConfig(count=20).build(generator)
    with torch.no_grad():
        for parameter in scene.parameters():
            parameter += 0.5 * torch.randn(parameter.shape, generator=generator)
    return scene


@pytest.fixture
def path(gaussians: Gaussians, tmp_path: Path) -> Path:
    path = tmp_path / "scene.ply"
    write_gaussian_ply(gaussians, path)
    return path


def test_layout(gaussians: Gaussians, path: Path) -> None:
    data = path.read_bytes()
    assert data.startswith(HEADER) and len(data) == len(HEADER) + 20 * 17 * 4
    rows = np.frombuffer(data[len(HEADER) :], "<f4").reshape(20, 17)
    assert np.array_equal(rows[:, :3], gaussians.means.detach().numpy())
    assert not rows[:, 3:6].any()
    # The viewers' formula for the colour.
    np.testing.assert_allclose(0.5 + 0.28209479 * rows[:, 6:9], gaussians.colours.detach().numpy(), atol=1e-6)
    np.testing.assert_allclose(1 / (1 + np.exp(-rows[:, 9])), gaussians.opacities.detach().numpy(), atol=1e-6)
    np.testing.assert_allclose(np.exp(rows[:, 10:13]), gaussians.scales.detach().numpy(), rtol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(rows[:, 13:], axis=1), 1, atol=1e-6)


def test_round_trip(gaussians: Gaussians, path: Path) -> None:
    loaded = read_gaussian_ply(path)
    for name in ("means", "log_scales", "opacity_logits"):
        assert torch.equal(getattr(loaded, name), getattr(gaussians, name)), name
    torch.testing.assert_close(loaded.colours, gaussians.colours, atol=1e-6, rtol=0)
    normalised = torch.nn.functional.normalize(gaussians.quaternions, dim=1)
    torch.testing.assert_close(loaded.quaternions.detach(), normalised.detach())


def test_reads_other_orders_types_and_higher_harmonics(path: Path) -> None:
    """Windows line ends, doubles, and properties it does not know."""
    data = path.read_bytes()
    rows = np.frombuffer(data[len(HEADER) :], "<f4").reshape(20, 17)
    names = [line.split()[-1] for line in HEADER.decode().splitlines() if line.startswith("property")]
    layout = [("f_rest_0", "<f4"), ("segment", "u1"), *[(name, "<f8") for name in reversed(names)]]
    table = np.zeros(20, layout)
    for i, name in enumerate(names):
        table[name] = rows[:, i]
    kinds = {"<f4": "float", "u1": "uchar", "<f8": "double"}
    lines = ["ply", "format binary_little_endian 1.0", "comment made elsewhere", "element vertex 20"]
    lines += [f"property {kinds[kind]} {name}" for name, kind in layout] + ["end_header", ""]
    other = path.with_name("other.ply")
    other.write_bytes("\r\n".join(lines).encode() + table.tobytes())
    assert torch.equal(read_gaussian_ply(other).means, read_gaussian_ply(path).means)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (HEADER, b"", "is not a .ply file"),
        (b"ply\n", b"PLY\n", "is not a .ply file"),
        (b"end_header\n", b"", "is not a .ply file"),
        (b"binary_little_endian", b"ascii", "only 'format binary_little_endian 1.0'"),
        (b"vertex 20", b"vertex 21", "truncated: 21 Gaussians need"),
        (b"vertex 20", b"vertex 99999999999999999999", "truncated"),
        (b"vertex 20", b"vertex -3", "exactly one element"),
        (b"vertex 20", b"vertex 0", "holds no Gaussians"),
        (b"element vertex 20", b"element vertex 20\nelement face 3", "exactly one element"),
        (b"float rot_3", b"float rot_4", r"missing \['rot_3'\]"),
        (b"float nx", b"float x", "not a Gaussian splat file"),
        (b"float nx", b"list uchar int nx", "properties must be one of"),
    ],
)
def test_refuses_broken_headers(path: Path, old: bytes, new: bytes, message: str) -> None:
    path.write_bytes(path.read_bytes().replace(old, new, 1))
    with pytest.raises(ValueError, match=message):
        read_gaussian_ply(path)


def test_refuses_broken_values(path: Path) -> None:
    data = bytearray(path.read_bytes())
    for junk, message in [(data[:-1], "truncated"), (b"", "not a .ply"), (b"\x80\x04junk" * 99, "not a .ply")]:
        path.write_bytes(junk)
        with pytest.raises(ValueError, match=message):
            read_gaussian_ply(path)
    for column, value, message in [(1, np.nan, "in x, y, z"), (9, np.inf, "in opacity"), (14, np.nan, "in rot_0")]:
        broken = bytearray(data)
        start = len(HEADER) + 4 * (3 * 17 + column)
        broken[start : start + 4] = np.float32(value).tobytes()
        path.write_bytes(broken)
        with pytest.raises(ValueError, match=message):
            read_gaussian_ply(path)
    data[-16:] = bytes(16)
    path.write_bytes(data)
    with pytest.raises(ValueError, match="length zero"):
        read_gaussian_ply(path)


def test_refuses_to_write_what_viewers_cannot_read(gaussians: Gaussians, tmp_path: Path) -> None:
    with torch.no_grad():
        gaussians.means[3, 1] = torch.nan
    with pytest.raises(ValueError, match="NaN or infinite values; did the run diverge"):
        write_gaussian_ply(gaussians, tmp_path / "scene.ply")
    assert not list(tmp_path.iterdir())
