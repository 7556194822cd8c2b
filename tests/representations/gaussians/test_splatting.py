"""The compiled rasterizer against the reference implementation in torch, and both against closed forms."""

import math
import sys
from collections.abc import Iterator
from pathlib import Path

import numba
import pytest
import torch
from random_splats import IMAGES, NAMES, draw, random_cameras, random_gaussians, weighted_sum

from steindreamer.representations import Cameras
from steindreamer.representations.gaussians.splatting import BLUR, MAX_ALPHA, MIN_ALPHA, splat
from steindreamer.representations.gaussians.splatting.gsplat import load_rasterization
from steindreamer.representations.gaussians.splatting.reference_tiles import TILE, tile_lists


@pytest.mark.parametrize(
    ("count", "batch", "distance", "height", "width"),
    [
        pytest.param(300, 2, 3.0, 40, 48, id="whole object"),
        pytest.param(200, 1, 3.0, 16, 90, id="wide"),
        pytest.param(200, 1, 3.0, 70, 17, id="tall"),
        pytest.param(150, 3, 1.0, 33, 31, id="partly off-screen"),
        pytest.param(300, 2, 0.4, 32, 32, id="camera inside, partly behind"),
        pytest.param(1, 1, 3.0, 20, 20, id="single"),
        pytest.param(40, 1, 3.0, 1, 1, id="one pixel"),
    ],
)
@pytest.mark.parametrize("seed", range(3))
def test_compiled_equals_reference(seed: int, count: int, batch: int, distance: float, height: int, width: int) -> None:
    gaussians = random_gaussians(count, seed)
    cameras = random_cameras(seed, batch, distance, height, width)
    expected_inputs = [tensor.double().requires_grad_() for tensor in gaussians]
    inputs = [tensor.clone().requires_grad_() for tensor in gaussians]
    expected = draw(expected_inputs, cameras, backend="torch")
    actual = draw(inputs, cameras, backend="cpu")

    for name in IMAGES:
        error = (getattr(actual, name) - getattr(expected, name)).abs()
        # Where alpha equals the 1/255 cut up to rounding, the two may decide differently, but only rarely.
        assert (error > 1e-5 * (1 + distance)).float().mean() < 1e-3, name
        assert error.max() < 2 * MIN_ALPHA * (1 + distance), name
    assert torch.equal(actual.visible, expected.visible)
    torch.testing.assert_close(
        actual.screen_means[actual.visible].double(), expected.screen_means[actual.visible], rtol=1e-4, atol=1e-3
    )

    weighted_sum(expected).backward()
    weighted_sum(actual).backward()
    for name, reference, tensor in zip(NAMES, expected_inputs, inputs, strict=True):
        assert reference.grad is not None and tensor.grad is not None
        assert (tensor.grad - reference.grad).norm() < 1e-3 * reference.grad.norm() + 1e-6, name


def test_reference_gradients_are_finite_differences() -> None:
    """Gradients of single inputs, away from the discontinuities of the alpha cut (few Gaussians, small steps)."""
    inputs = [tensor.double() for tensor in random_gaussians(6, seed=3)]
    inputs[3] = inputs[3].clamp_max(0.9)
    cameras = random_cameras(3, 1, 2.0, 12, 12)
    leaves = [tensor.clone().requires_grad_() for tensor in inputs]
    weighted_sum(draw(leaves, cameras, backend="torch")).backward()
    step = 1e-7
    for which, leaf in enumerate(leaves):
        assert leaf.grad is not None
        for index in range(0, leaf.numel(), 3):
            sides = []
            for sign in (1, -1):
                moved = [t.clone() for t in inputs]
                moved[which].view(-1)[index] += sign * step
                sides.append(weighted_sum(draw(moved, cameras, "torch")))
            slope = (sides[0] - sides[1]) / (2 * step)
            message = f"{NAMES[which]}[{index}]"
            torch.testing.assert_close(leaf.grad.view(-1)[index], slope, rtol=1e-4, atol=1e-4, msg=message)


@pytest.mark.parametrize("backend", ["cpu", "torch"])
def test_one_round_gaussian_in_closed_form(backend: str) -> None:
    """On the axis, the image is opacity * exp(-r^2 / 2 v) with v = (focal * scale / depth)^2 + blur."""
    cameras = Cameras.orbit([0.0], [0.0], distance=2.0, height=21)
    opacity, scale, color = 0.8, 0.1, torch.tensor([[0.2, 0.5, 0.9]])
    output = splat(
        torch.zeros(1, 3),
        torch.tensor([[1.0, 0, 0, 0]]),
        torch.full((1, 3), scale),
        torch.tensor([opacity]),
        color,
        cameras,
        backend=backend,
    )
    variance = (float(cameras.intrinsics[0, 0, 0]) * scale / 2.0) ** 2 + BLUR
    y, x = torch.meshgrid(torch.arange(21.0) - 10, torch.arange(21.0) - 10, indexing="ij")
    alpha = opacity * torch.exp(-(x**2 + y**2) / (2 * variance))
    alpha = torch.where(alpha >= MIN_ALPHA, alpha, 0.0)
    torch.testing.assert_close(output.opacity[0, 0], alpha, rtol=0, atol=2e-6)
    torch.testing.assert_close(output.rgb[0], alpha * color[0, :, None, None], rtol=0, atol=2e-6)
    torch.testing.assert_close(output.depth[0, 0], 2.0 * alpha, rtol=0, atol=4e-6)
    torch.testing.assert_close(output.screen_means[0, 0], torch.tensor([10.5, 10.5]))


@pytest.mark.parametrize("backend", ["cpu", "torch"])
def test_nearer_gaussians_hide_farther_ones(backend: str) -> None:
    """Occlusion is independent of the order in memory; two saturated layers transmit (1 - MAX_ALPHA)^2."""
    cameras = Cameras.orbit([0.0], [0.0], distance=3.0, height=16)
    means = torch.tensor([[0.0, 0, 0], [0, 0, 1]])
    colors = torch.tensor([[1.0, 0, 0], [0, 1, 0]])
    for order in ([0, 1], [1, 0]):
        output = splat(
            means[order],
            torch.tensor([[1.0, 0, 0, 0]]).repeat(2, 1),
            torch.full((2, 3), 5.0),
            torch.ones(2),
            colors[order],
            cameras,
            backend=backend,
        )
        center = output.rgb[0, :, 8, 8]
        torch.testing.assert_close(center, torch.tensor([(1 - MAX_ALPHA) * MAX_ALPHA, MAX_ALPHA, 0]), rtol=0, atol=1e-6)
        assert output.opacity[0, 0, 8, 8].item() == pytest.approx(1 - (1 - MAX_ALPHA) ** 2, abs=1e-6)


@pytest.mark.parametrize("backend", ["cpu", "torch"])
def test_normals_are_the_shortest_axis_toward_the_camera(backend: str) -> None:
    cameras = Cameras.orbit([0.0, 180.0], [0.0, 0.0], distance=3.0, height=16)
    # Flat along its own z, rotated by 30 degrees about +Y: the axis becomes (sin 30, 0, cos 30).
    half = math.radians(15)
    output = splat(
        torch.zeros(1, 3),
        2 * torch.tensor([[math.cos(half), 0, math.sin(half), 0]]),
        torch.tensor([[0.3, 0.2, 0.01]]),
        torch.ones(1) * 0.9,
        torch.ones(1, 3),
        cameras,
        backend=backend,
    )
    axis = torch.tensor([0.5, 0, math.sqrt(0.75)])
    normals = output.normal[:, :, 8, 8] / output.opacity[:, :, 8, 8]
    torch.testing.assert_close(normals, torch.stack([axis, -axis]), atol=1e-5, rtol=0)


@pytest.mark.parametrize("backend", ["cpu", "torch"])
@pytest.mark.parametrize("case", ["none", "behind", "off-screen", "transparent"])
def test_an_empty_scene_renders_black(backend: str, case: str) -> None:
    gaussians = random_gaussians(0 if case == "none" else 5)
    if case == "behind":
        gaussians[0] = gaussians[0] + torch.tensor([0.0, 0, 9])
    elif case == "off-screen":
        gaussians[0] = gaussians[0] + torch.tensor([0.0, 90, 0])
    elif case == "transparent":
        gaussians[3] = torch.full((5,), 0.5 * MIN_ALPHA)
    inputs = [tensor.requires_grad_() for tensor in gaussians]
    output = draw(inputs, Cameras.orbit([0.0], [0.0], height=8, width=20), backend)
    assert all(not getattr(output, name).any() for name in IMAGES)
    assert not output.visible.any()
    weighted_sum(output).backward()
    assert all(tensor.grad is None or not tensor.grad.any() for tensor in inputs)


def test_diverged_gaussians_are_harmless() -> None:
    """Gaussians with NaN and infinite parameters neither crash nor change the image of the others."""
    gaussians = random_gaussians(40)
    cameras = Cameras.orbit([0.0], [0.0], height=32)
    clean = draw([tensor[8:] for tensor in gaussians], cameras)
    bad = [tensor.clone() for tensor in gaussians]
    bad[0][0], bad[0][1], bad[0][2] = math.nan, math.inf, -math.inf
    bad[1][3] = math.nan
    bad[1][4] = 0.0
    bad[2][5], bad[2][6] = math.nan, math.inf
    bad[3][7] = math.nan
    torch.testing.assert_close(draw(bad, cameras).rgb, clean.rgb)


def test_the_same_bits_for_any_number_of_threads() -> None:
    gaussians = random_gaussians(1111)
    cameras = random_cameras(0, 2, 2.0, 75, 50)
    threads = numba.get_num_threads()
    results = []
    try:
        for count in (1, threads, 1):
            numba.set_num_threads(count)
            inputs = [tensor.clone().requires_grad_() for tensor in gaussians]
            output = draw(inputs, cameras, backend="cpu")
            weighted_sum(output).backward()
            results.append([*(getattr(output, name) for name in IMAGES), *(tensor.grad for tensor in inputs)])
    finally:
        numba.set_num_threads(threads)
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


def test_reference_in_chunks_is_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    gaussians = [tensor.double() for tensor in random_gaussians(30)]
    cameras = random_cameras(1, 1, 3.0, 20, 20)
    results = []
    for pairs in (2**24, 1000):
        monkeypatch.setattr("steindreamer.representations.gaussians.splatting.reference.PAIRS", pairs)
        inputs = [tensor.clone().requires_grad_() for tensor in gaussians]
        output = draw(inputs, cameras, backend="torch")
        weighted_sum(output).backward()
        results.append([output.rgb, *(tensor.grad for tensor in inputs)])
    torch.testing.assert_close(results[0], results[1])


@pytest.mark.parametrize("pairs", [1, 100, 5000, 10**6])
def test_batches_of_tiles_are_bounded_and_cover_every_pixel_once(pairs: int) -> None:
    """The lists of a batch contain the Gaussians that overlap its tiles, in order."""
    generator = torch.Generator().manual_seed(0)
    center, reach = 80 * torch.rand(50, 2, generator=generator) - 20, 12 * torch.rand(50, 2, generator=generator)
    rows, columns = 5, 11
    tiles = tile_lists(center, reach, (rows, columns))
    drawn = torch.zeros(rows * columns, TILE**2)
    for batch, pixels in tiles.batches(pairs):
        lists = tiles.padded(batch, padding=50)
        assert lists.shape[1] * len(batch) * len(pixels) <= max(pairs, lists.shape[1])
        drawn[batch[:, None], pixels] += 1
        for tile, ids in zip(batch.tolist(), lists.tolist(), strict=True):
            corner = TILE * torch.tensor([tile % columns, tile // columns])
            meets = (center + reach > corner).all(1) & (center - reach < corner + TILE).all(1)
            assert [number for number in ids if number < 50] == meets.nonzero()[:, 0].tolist()
    lengths = tiles.length[:, None].expand_as(drawn)
    assert torch.equal(drawn, (lengths > 0).float()) and not lengths.all()


@pytest.mark.parametrize("backend", ["cpu", "torch"])
def test_screen_gradient(backend: str) -> None:
    """`screen_means` receives the gradient of moving the Gaussian in each image, in pixels.

    Moving it by 1 pixel raises sum(x * opacity) by sum(opacity), up to the edge at the alpha cut (2 %).
    """
    cameras = random_cameras(2, 2, 3.0, 40, 40)
    means = torch.zeros(1, 3, requires_grad=True)
    ones = torch.ones(1, 4)
    output = splat(means, ones, 0.15 * ones[:, :3], 0.9 * ones[:, 0], ones[:, :3], cameras, backend=backend)
    moment = (output.opacity * torch.arange(40.0)).sum()
    gradient = torch.autograd.grad(moment, output.screen_means)[0]
    mass = output.opacity.sum((1, 2, 3))
    torch.testing.assert_close(gradient[:, 0, 0] / mass, torch.ones(2), rtol=0, atol=0.05)
    torch.testing.assert_close(gradient[:, 0, 1] / mass, torch.zeros(2), rtol=0, atol=0.05)


def test_backend_errors() -> None:
    gaussians = random_gaussians(1)
    cameras = Cameras.orbit([0.0], [0.0], height=8)
    with pytest.raises(ValueError, match=r"unknown splatting backend 'numba'; choose one of \['auto', 'cpu', 'torch'"):
        draw(gaussians, cameras, backend="numba")
    with pytest.raises(ValueError, match="needs tensors on a CUDA device, got cpu"):
        draw(gaussians, cameras, backend="gsplat")
    with pytest.raises(ValueError, match="needs CPU tensors"):
        draw([tensor.to("meta") for tensor in gaussians], cameras)


def test_a_missing_gsplat_is_named_with_its_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "gsplat", None)
    with pytest.raises(ValueError, match=r"needs the gsplat package: pip install 'gsplat>=1\.5\.3' ninja"):
        load_rasterization()


@pytest.fixture
def fake_gsplat(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The backend module of a fake gsplat package that is first on the import path; the test writes its source."""
    installed = {name: module for name, module in sys.modules.items() if name.split(".")[0] == "gsplat"}
    for name in installed:
        del sys.modules[name]
    folder = tmp_path / "gsplat" / "cuda"
    folder.mkdir(parents=True)
    (folder / "__init__.py").touch()
    (tmp_path / "gsplat" / "__init__.py").write_text("rasterization = print\n")
    monkeypatch.syspath_prepend(tmp_path)
    yield folder / "_backend.py"
    for name in [name for name in sys.modules if name.split(".")[0] == "gsplat"]:
        del sys.modules[name]
    sys.modules.update(installed)


def test_a_gsplat_with_kernels_is_used(fake_gsplat: Path) -> None:
    fake_gsplat.write_text("_C = object()")
    assert load_rasterization() is print


def test_a_gsplat_without_kernels_says_why(fake_gsplat: Path) -> None:
    """gsplat can be imported without nvcc."""
    fake_gsplat.write_text("_C = None")
    with pytest.raises(ValueError, match="nvcc"):
        load_rasterization()


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("raise ImportError('gsplat_cuda.so: cannot open shared object file')", "ImportError: gsplat_cuda.so: cannot"),
        ("raise RuntimeError('Error building extension')", "RuntimeError: Error building extension"),
        ("raise OSError('CUDA_HOME is not set')", "OSError: CUDA_HOME is not set"),
        ("[][0]", "IndexError: list index out of range"),
        ("import a_package_that_is_missing", "ModuleNotFoundError: No module named 'a_package_that_is_missing'"),
        ("raise AssertionError", "AssertionError: "),
        (
            "raise RuntimeError('Error building\\n[1/9] nvcc' + 99 * '\\n-I' + '\\na.cu(7): error: no glm.h\\nninja')",
            "RuntimeError: Error building a.cu(7): error: no glm.h",
        ),
    ],
)
def test_a_gsplat_that_does_not_compile_is_not_called_missing(fake_gsplat: Path, code: str, reason: str) -> None:
    """Any exception of the compilation results in one line with the reason."""
    fake_gsplat.write_text(code)
    with pytest.raises(ValueError) as raised:
        load_rasterization()
    message = str(raised.value)
    assert message.startswith(f"gsplat is installed, but its CUDA kernels could not be compiled or loaded ({reason}")
    assert message.endswith("use backend 'torch'") and "pip" not in message
    assert len(message) < 600 and "\n" not in message


def test_a_thin_gaussian_close_to_the_camera_keeps_its_shape() -> None:
    """Its determinant is a difference of numbers a million times as large: cancellation must be avoided."""
    cameras = Cameras.orbit([20.0], [10.0], distance=0.05, height=64)
    generator = torch.Generator().manual_seed(0)
    for _ in range(5):
        gaussian = [
            torch.zeros(1, 3),
            torch.randn(1, 4, generator=generator),
            torch.tensor([[0.4, 4e-4, 4e-4]]),
            torch.tensor([0.9]),
            torch.ones(1, 3),
        ]
        expected = draw([tensor.double() for tensor in gaussian], cameras, backend="torch").opacity
        torch.testing.assert_close(draw(gaussian, cameras).opacity.double(), expected, rtol=0, atol=5e-4)
