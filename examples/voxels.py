"""A representation of one's own: a voxel grid, distilled by SSD into a GLB.

python examples/voxels.py "a red mug"
python pipelines/run.py --plugin examples/voxels.py --repr voxels --prompt "a red mug"
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from steindreamer.pipelines import generate, load_config
from steindreamer.representations import Cameras, RenderOutput, Representation, register_representation


@dataclass
class VoxelsConfig:
    """A dense grid of density and colour, ray marched."""

    resolution: int = 48
    samples: int = 64
    rate: float = 0.05

    def build(self, generator: torch.Generator, device: torch.device) -> Voxels:
        return Voxels(self).to(device)


class Voxels(Representation):
    def __init__(self, config: VoxelsConfig) -> None:
        super().__init__()
        self.config = config
        axis = torch.linspace(-1, 1, config.resolution)
        radius = torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij")).norm(dim=0)
        self.density = nn.Parameter((4 - 8 * radius / 0.6)[None, None])
        self.colour = nn.Parameter(torch.zeros(1, 3, *radius.shape))

    def learning_rates(self, progress: float) -> dict[str, float]:
        return {"density": self.config.rate * 2 * (1 - 0.8 * progress), "colour": self.config.rate}

    def render(self, cameras: Cameras, background: Float[Tensor, "b 3"]) -> RenderOutput:
        rays, origin = cameras.rays(), cameras.position[:, :, None, None]
        middle = origin.norm(dim=1)[:, None]
        steps = torch.linspace(-1, 1, self.config.samples, device=rays.device).view(1, -1, 1, 1)
        depth = middle + steps  # z-depths through the unit ball: [b, s, 1, 1]
        points = origin[:, None] + rays[:, None] * depth[:, :, None]  # [b, s, 3, h, w]
        grid = points.permute(0, 1, 3, 4, 2)
        field = torch.cat([self.density, self.colour], 1).expand(len(cameras), -1, -1, -1, -1)
        values = F.grid_sample(field, grid, align_corners=True, padding_mode="zeros")  # x, y, z index the last axes
        inside = (grid.norm(dim=-1) < 1)[:, None]
        length = 2 / self.config.samples * rays.norm(dim=1)[:, None, None]
        alpha = (1 - torch.exp(-20 * F.softplus(values[:, :1]) * length)) * inside
        passed = torch.cumprod(1 - alpha + 1e-7, 2)
        weight = alpha * torch.cat([torch.ones_like(passed[:, :, :1]), passed[:, :, :-1]], 2)
        opacity = weight.sum(2)
        rgb = (weight * values[:, 1:].sigmoid()).sum(2) + (1 - opacity) * background[:, :, None, None]
        drawn = opacity > 1e-3
        z = torch.where(drawn, (weight[:, 0] * depth).sum(1, keepdim=True) / opacity.clamp(min=1e-3), 0.0)
        return RenderOutput(rgb, opacity, z, self._normals(cameras, z, drawn))

    def _normals(self, cameras: Cameras, z: Tensor, drawn: Tensor) -> Tensor:
        points = F.pad(cameras.unproject(z), (1, 1, 1, 1), mode="replicate")
        across, down = points[..., 1:-1, 2:] - points[..., 1:-1, :-2], points[..., 2:, 1:-1] - points[..., :-2, 1:-1]
        return torch.where(drawn, F.normalize(torch.linalg.cross(down, across, dim=1), dim=1), 0.0)


register_representation("voxels", VoxelsConfig)

if __name__ == "__main__":
    prompt, *overrides = sys.argv[1:] or ["a red mug"]
    # Ray marching a large picture takes seconds: smaller ones will do for a grid this coarse.
    views = ["export.view_size=128", "export.cameras=32", "output.picture_size=128"]
    config = load_config("cpu", representation="voxels", prompt=prompt, overrides=[*views, *overrides])
    print(generate(config, Path("runs/voxels"), overwrite=True).asset)
