"""Scenes with a known signed distance: drawn by sphere tracing, with a density field on request."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from steindreamer.representations import Cameras, FieldSample, RenderOutput, Representation

Distance = Callable[[Tensor], Tensor]


def sphere(radius: float = 0.6, center: tuple[float, float, float] = (0.0, 0.0, 0.0)) -> Distance:
    return lambda p: (p - torch.tensor(center)).norm(dim=-1) - radius


def torus(major: float = 0.6, minor: float = 0.15) -> Distance:
    return lambda p: torch.stack([p[..., [0, 2]].norm(dim=-1) - major, p[..., 1]], -1).norm(dim=-1) - minor


def box(x: float = 0.5, y: float = 0.3, z: float = 0.4) -> Distance:
    def distance(p: Tensor) -> Tensor:
        q = p.abs() - torch.tensor([x, y, z])
        return q.clamp_min(0).norm(dim=-1) + q.amax(-1).clamp_max(0)

    return distance


def union(*parts: Distance) -> Distance:
    return lambda p: torch.stack([part(p) for part in parts]).amin(0)


def position_color(points: Tensor) -> Tensor:
    return (0.5 + 0.4 * torch.sin(3.0 * points)).clamp(0, 1)


class RenderedScene(Representation):
    """Only renders: the minimum a representation can do."""

    def __init__(self, distance: Distance, color: Distance = position_color, opacity: float = 1.0) -> None:
        super().__init__()
        self.distance, self.color, self.opacity = distance, color, opacity

    def learning_rates(self, progress: float) -> dict[str, float]:
        return {}

    def render(self, cameras: Cameras, background: Tensor) -> RenderOutput:
        rays = cameras.rays().permute(0, 2, 3, 1)
        length = rays.norm(dim=-1)
        direction = rays / length[..., None]
        eye = cameras.position[:, None, None]
        traveled = torch.zeros_like(length)
        for _ in range(28):
            step = self.distance(eye + direction * traveled[..., None])
            traveled = (traveled + step).clamp_max(20)
        points = eye + direction * traveled[..., None]
        hit = (self.distance(points).abs() < 4e-3) & (traveled < 10)
        opacity = self.opacity * hit.float()[:, None]
        axis = torch.eye(3) * 1e-3
        gradient = torch.stack([self.distance(points + a) - self.distance(points - a) for a in axis], -1)
        normal = torch.nn.functional.normalize(gradient, dim=-1) * hit[..., None]
        rgb = self.color(points).permute(0, 3, 1, 2) * opacity + background[:, :, None, None] * (1 - opacity)
        return RenderOutput(rgb, opacity, (traveled / length * hit)[:, None], normal.permute(0, 3, 1, 2))


class FieldScene(RenderedScene):
    """Also answers `field`: density falls off over `softness` meters; `scale` multiplies it; `shell` hollows it."""

    def __init__(
        self, distance: Distance, *, softness: float = 0.02, scale: float = 1.0, shell: float | None = None
    ) -> None:
        super().__init__(distance)
        self.softness, self.scale, self.shell = softness, scale, shell

    def field(self, points: Tensor) -> FieldSample:
        distance = self.distance(points)
        if self.shell is not None:
            distance = (distance + self.shell).abs() - self.shell
        return FieldSample(self.scale * torch.exp(-distance / self.softness).clamp_max(1e6), self.color(points))
