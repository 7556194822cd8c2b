"""gsplat against the compiled CPU rasterizer and the torch reference, on a machine with CUDA and gsplat."""

from typing import Any

import pytest
import torch
from torch import Tensor

from steindreamer.representations import Cameras, GaussiansConfig
from steindreamer.representations.gaussians.splatting import SplatOutput, splat

pytestmark = pytest.mark.gpu

IMAGES = ("rgb", "opacity", "depth", "normal")


@pytest.fixture(autouse=True)
def _needs_gsplat() -> None:
    pytest.importorskip("gsplat", reason="needs the gsplat package")


def scene(count: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    means = 0.8 * (2 * torch.rand(count, 3, generator=generator) - 1)
    scales = 0.05 * torch.exp(0.5 * torch.randn(count, 3, generator=generator))
    # Below the clamps of all versions, and low enough that gsplat's early stop has little effect (see `semantics`).
    opacities = torch.sigmoid(2 * torch.randn(count, generator=generator)).clamp_max(0.98)
    colors = torch.rand(count, 3, generator=generator)
    return [means, torch.randn(count, 4, generator=generator), scales, opacities, colors]


def draw(inputs: list[Tensor], cameras: Cameras, backend: str) -> tuple[SplatOutput, list[Tensor]]:
    """Images and gradients, computed on the CPU for `cpu`, else on CUDA; the gradients are returned on the CPU."""
    device = "cpu" if backend == "cpu" else "cuda"
    leaves = [tensor.to(device).requires_grad_() for tensor in inputs]
    means, quaternions, scales, opacities, colors = leaves
    output = splat(means, quaternions, scales, opacities, colors, cameras.to(device), backend=backend)
    generator = torch.Generator().manual_seed(1)
    total = torch.zeros((), device=device)
    for name in IMAGES:
        image = getattr(output, name)
        total = total + (image * torch.randn(image.shape, generator=generator).to(device)).sum()
    gradients = torch.autograd.grad(total, [*leaves, output.screen_means])
    return output, [gradient.cpu() for gradient in gradients]


@pytest.mark.parametrize("other", ["cpu", "torch"])
@pytest.mark.parametrize(
    ("distance", "height", "width"), [(3.2, 64, 64), (3.2, 40, 96), (1.0, 64, 48)], ids=["whole", "wide", "inside"]
)
def test_gsplat_equals_ours(other: str, distance: float, height: int, width: int) -> None:
    """Agreement to 2e-3: gsplat stops a pixel at a transmittance of 1e-4 and uses a fast exponential.

    gsplat rounds its boxes up to whole pixels, so it reports more Gaussians as visible at the border.
    """
    inputs = scene(1500)
    cameras = Cameras.orbit([20.0, 200.0], [10.0, -50.0], distance=distance, height=height, width=width)
    reference, reference_gradients = draw(inputs, cameras, "gsplat")
    output, gradients = draw(inputs, cameras, other)
    for name in IMAGES:
        error = (getattr(output, name).cpu() - getattr(reference, name).cpu()).abs()
        assert error.quantile(0.999) < 2e-3 * (1 + distance), name
    for expected, gradient in zip(reference_gradients, gradients, strict=True):
        assert (gradient - expected).norm() < 3e-2 * expected.norm()
    agree = output.visible.cpu() == reference.visible.cpu()
    assert agree.float().mean() > 0.98


@pytest.mark.parametrize("backend", ["auto", "gsplat", "torch"])
def test_a_scene_trains_and_grows_on_cuda(backend: Any) -> None:
    config = GaussiansConfig(count=500, backend=backend)
    config.densify.interval, config.densify.start = 2, 0.0
    generator = torch.Generator().manual_seed(0)
    gaussians = config.build(generator, "cuda")
    optimizer = torch.optim.Adam(gaussians.optimizer_groups())
    cameras = Cameras.orbit([0.0, 90.0], [0.0, 0.0], height=32).to("cuda")
    for step in range(1, 5):
        output = gaussians.render(cameras, torch.zeros(2, 3, device="cuda"))
        optimizer.zero_grad()
        (output.rgb - 0.8).square().mean().backward()
        optimizer.step()
        gaussians.adapt(step, 8, optimizer, generator)
    assert len(gaussians) > 500
    assert all(parameter.is_cuda and parameter.isfinite().all() for parameter in gaussians.parameters())
    assert gaussians.field(torch.zeros(3, 3, device="cuda")).density.is_cuda
