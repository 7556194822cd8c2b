"""An object of four colors that is known exactly, and representations fitted to its images."""

from __future__ import annotations

import torch
from analytic_scene import RenderedScene, sphere, torus, union
from torch import Tensor

from steindreamer.pipelines.meshing.views import photograph
from steindreamer.representations import Adaptive, GaussiansConfig, NerfConfig, Representation, sphere_of_cameras
from steindreamer.representations.fields import HashGridConfig, RadianceFieldConfig

COLORS = torch.tensor([[0.8, 0.2, 0.2], [0.2, 0.7, 0.3], [0.9, 0.8, 0.2], [0.2, 0.3, 0.8]])


def quarters(points: Tensor) -> Tensor:
    """One color for every sign of x and y, with sharp borders."""
    return COLORS[(points[..., 0] > 0.05).long() + 2 * (points[..., 1] > 0.02).long()]


def ring_and_ball() -> RenderedScene:
    """Only renders."""
    return RenderedScene(union(torus(0.65, 0.18), sphere(0.3)), quarters)


def fit(scene: Representation, target: Representation, steps: int, *, size: int = 64, seed: int = 0) -> None:
    """Least squares on renders, two views a step out of 32, over random backgrounds."""
    generator = torch.Generator().manual_seed(seed)
    cameras = sphere_of_cameras(32, height=size)
    views = photograph(target, cameras)
    optimizer = torch.optim.Adam(scene.optimizer_groups(), eps=1e-15)
    for step in range(steps):
        rates = scene.learning_rates(step / steps)
        for group in optimizer.param_groups:
            group["lr"] = rates[group["name"]]
        chosen = torch.randint(len(cameras), (2,), generator=generator)
        background, opacity = torch.rand(2, 3, generator=generator), views.opacity[chosen]
        wanted = views.rgb[chosen] * opacity + background[:, :, None, None] * (1 - opacity)
        loss = (scene.render(cameras[chosen], background).rgb - wanted).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if isinstance(scene, Adaptive):
            scene.adapt(step + 1, steps, optimizer, generator)
    scene.eval()


def fitted(kind: str) -> Representation:
    """The object as `renders` (itself), `gaussians` or `nerf`."""
    generator, target = torch.Generator().manual_seed(0), ring_and_ball()
    if kind == "gaussians":
        scene: Representation = GaussiansConfig(count=2500, radius=0.8).build(generator)
        fit(scene, target, 200)
    elif kind == "nerf":
        radiance = RadianceFieldConfig(hash_grid=HashGridConfig(levels=6, log2_size=14, finest=96))
        scene = NerfConfig(samples=64, radiance=radiance).build(generator)
        fit(scene, target, 150, size=48)
    else:
        scene = target
    return scene
