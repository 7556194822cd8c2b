"""Training a radiance field on a given surface: opaque inside, empty outside, with the surface's colors."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from ..base import ColoredSurface
from ..fields import RadianceField
from ..mesh.sampling import sample_surface
from ..mesh.signed_distance import signed_distance

FIT_STEPS, FIT_BATCH, FIT_POINTS = 800, 2048, 32768
FINAL_RATE = 0.1
"""Factor on the learning rates at the last step; exponential until then."""
FINEST = 64
"""Cells per axis of the finest level that is trained. Finer ones are covered by too few points."""
SPREAD = 3.0
"""Standard deviation, in steps, of the distances of the points that lie near the surface."""
COLOR_WEIGHT = 10.0
"""Weight of the mean squared color error, relative to the cross-entropy (nats) of a step's opacity."""


def fit_radiance(field: RadianceField, surface: ColoredSurface, step: float, generator: torch.Generator) -> None:
    """Train `field` until a ray that is sampled every `step` meters sees the surface.

    A step's opacity, 1 - exp(-density * step), is trained to sigmoid(-4 d / step) at points with the signed distance d:
    half of them uniform in the field's box, half near the surface, where the color is trained too. Trains under
    `torch.no_grad()` too. Raises ValueError for a mesh without area.
    """
    near = sample_surface(surface.mesh, FIT_POINTS, generator)
    offsets = SPREAD * step * torch.randn(FIT_POINTS, 1, generator=generator, device=generator.device).to(near.points)
    around = (near.points + offsets * near.normals).clamp(-field.bound, field.bound)
    anywhere = torch.rand(FIT_POINTS, 3, generator=generator, device=generator.device).to(around)
    points = torch.cat([around, field.bound * (2 * anywhere - 1)])
    device = next(field.parameters()).device
    with torch.no_grad():
        opacity = (-4 / step * signed_distance(points, surface.mesh)).sigmoid().to(device)
        color = surface.color(near.points).to(device)
    points = points.to(device)
    rates = field.learning_rates("")
    groups = [{"params": [parameter], "lr": rates[name]} for name, parameter in field.named_parameters()]
    # Gradients of single grid entries, most of all in empty space, are far below Adam's usual epsilon.
    optimizer = torch.optim.Adam(groups, betas=(0.9, 0.99), eps=1e-15)
    decay = torch.optim.lr_scheduler.ExponentialLR(optimizer, FINAL_RATE ** (1 / FIT_STEPS))
    active = int(field.grid.active_levels)
    field.grid.activate(min(active, max(1, sum(size <= FINEST for size in field.grid.resolutions))))
    for _ in range(FIT_STEPS):
        chosen = torch.randint(FIT_POINTS, (FIT_BATCH,), generator=generator, device=generator.device).to(device)
        both = torch.cat([chosen, FIT_POINTS + chosen])
        optimizer.zero_grad()
        with torch.enable_grad():
            loss = _cross_entropy(step * field.density(points[both]), opacity[both])
            loss = loss + COLOR_WEIGHT * (field.color(points[chosen]) - color[chosen]).square().mean()
            loss.backward()
        optimizer.step()
        decay.step()
    optimizer.zero_grad()
    field.grid.activate(active)


def _cross_entropy(optical_depth: Float[Tensor, " n"], opacity: Float[Tensor, " n"]) -> Float[Tensor, ""]:
    """Mean cross-entropy (nats) between a target opacity and 1 - exp(-optical_depth)."""
    solid = torch.log(-torch.expm1(-optical_depth.clamp_min(1e-6)))
    return ((1 - opacity) * optical_depth - opacity * solid).mean()
