"""A custom representation: a voxel grid, distilled by SSD into a GLB.

python examples/02_your_representation.py "a red mug"
python pipelines/run.py --plugin examples/02_your_representation.py --repr voxels --prompt "a red mug"
python pipelines/run.py --plugin examples/02_your_representation.py --prompt "a red mug" \
    stages.geometry.representation.name=voxels
"""

from __future__ import annotations

import sys
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

import steindreamer
from steindreamer.representations import Cameras, RenderOutput, Representation, SceneContext, signed_distance
from steindreamer.representations.ops import normals_from_depth


@steindreamer.register_representation("voxels")
@dataclass
class VoxelsConfig:
    """A dense grid of density and color, ray marched."""

    resolution: int = 48
    samples: int = 64
    rate: float = 0.05

    def build(self, generator: torch.Generator, device: torch.device) -> Voxels:
        return Voxels(self).to(device)

    def from_scene(self, scene: Representation, context: SceneContext) -> Voxels:
        """Lets it follow any other representation in a later stage: the same surface and colors on the grid."""
        surface, out = context.surface(scene), Voxels(self)
        axis = torch.linspace(-1, 1, self.resolution)
        points = torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij"), -1).flip(-1).reshape(-1, 3)
        shape = (self.resolution,) * 3
        with torch.no_grad():
            out.density.copy_((-50 * signed_distance(points, surface.mesh)).clamp(-8, 8).reshape(1, 1, *shape))
            out.color.copy_(surface.color(points).clamp(0.02, 0.98).logit().T.reshape(1, 3, *shape))
        return out.to(context.device)


class Voxels(Representation):
    def __init__(self, config: VoxelsConfig) -> None:
        super().__init__()
        self.config = config
        axis = torch.linspace(-1, 1, config.resolution)
        radius = torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij")).norm(dim=0)
        self.density = nn.Parameter((4 - 8 * radius / 0.6)[None, None])
        self.color = nn.Parameter(torch.zeros(1, 3, *radius.shape))

    def learning_rates(self, progress: float) -> dict[str, float]:
        return {"density": self.config.rate * 2 * (1 - 0.8 * progress), "color": self.config.rate}

    def render(self, cameras: Cameras, background: Float[Tensor, "b 3"]) -> RenderOutput:
        rays, origin = cameras.rays(), cameras.position[:, :, None, None]
        middle = origin.norm(dim=1)[:, None]
        steps = torch.linspace(-1, 1, self.config.samples, device=rays.device).view(1, -1, 1, 1)
        depth = middle + steps  # z-depths through the unit ball: [b, s, 1, 1]
        points = origin[:, None] + rays[:, None] * depth[:, :, None]  # [b, s, 3, h, w]
        grid = points.permute(0, 1, 3, 4, 2)
        field = torch.cat([self.density, self.color], 1).expand(len(cameras), -1, -1, -1, -1)
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
        normal = F.pad(normals_from_depth(z, cameras), (1, 1, 1, 1), mode="replicate")
        return RenderOutput(rgb, opacity, z, torch.where(drawn, normal, 0.0))


if __name__ == "__main__":
    prompt, *overrides = sys.argv[1:] or ["a red mug"]
    # Ray marching a large image takes seconds: smaller ones will do for a grid this coarse.
    views = ["export.view_size=128", "export.cameras=32", "output.image_size=128"]
    result = steindreamer.text_to_3d(
        prompt, representation="voxels", out="runs/voxels", overwrite=True, overrides=[*views, *overrides]
    )
    print(result.files["asset"])
