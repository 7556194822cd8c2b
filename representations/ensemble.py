"""Several scenes trained as one: the particles of ProlificDreamer [Wang et al. 2023, 2305.16213, section 3.2].

Its theta_1 ... theta_n are scenes of one prompt that share everything but their parameters. In step k the view i is
drawn from particle (i + k) mod n: however many views a step has, all particles are drawn equally often.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from .base import Adaptive, AdaptReport, RenderOutput, Representation
from .cameras import Cameras


class Ensemble(Representation):
    """Particles of one kind. It is for training: whoever wants one scene's pictures or surface asks `particles_of`.

    What the renderer or the particles add to the loss is weighted by the share of the pictures that a particle has, as
    the loss itself is; a particle that is not drawn in a step gets no gradient, and Adam leaves it where it is.
    """

    def __init__(self, particles: Sequence[Representation]) -> None:
        """Raises ValueError without particles, or for different kinds of them."""
        super().__init__()
        kinds = sorted({type(particle).__name__ for particle in particles})
        if len(kinds) != 1:
            raise ValueError(f"an ensemble needs particles of one kind, got {', '.join(kinds) or 'none'}")
        self.particles = nn.ModuleList(particles)
        self.turn = nn.Buffer(torch.zeros((), dtype=torch.int64))
        """Which particle the next step's first view is drawn from."""
        self.render_terms = particles[0].render_terms
        self._shares = {k: 1 / len(particles) for k in range(len(particles))}
        """Of the last pictures, by particle."""

    def __getitem__(self, index: int) -> Representation:
        particle = self.particles[index]
        assert isinstance(particle, Representation)
        return particle

    def __len__(self) -> int:
        return len(self.particles)

    def render(self, cameras: Cameras, background: Float[Tensor, "b 3"]) -> RenderOutput:
        """View i is a picture of particle (i + `turn`) mod n; `terms` are means over views."""
        views = self._views_by_particle(len(cameras))
        self._shares = {k: len(index) / len(cameras) for k, index in views.items()}
        outputs = {
            k: self[k].render(cameras[i.to(cameras.camera_to_world.device)], background[i.to(background.device)])
            for k, i in views.items()
        }
        order = torch.cat(list(views.values())).argsort()

        def in_order(name: str) -> Tensor:
            pictures = torch.cat([getattr(output, name) for output in outputs.values()])
            return pictures[order.to(pictures.device)]

        terms = _weighted({k: output.terms for k, output in outputs.items()}, self._shares)
        return RenderOutput(in_order("rgb"), in_order("opacity"), in_order("depth"), in_order("normal"), terms)

    def learning_rates(self, progress: float) -> dict[str, float]:
        return {
            f"particles.{k}.{name}": rate
            for k in range(len(self))
            for name, rate in self[k].learning_rates(progress).items()
        }

    def regularisers(self) -> dict[str, Float[Tensor, ""]]:
        """The particles' own, of those that the last pictures show: means over those pictures."""
        return _weighted({k: self[k].regularisers() for k in self._shares}, self._shares)

    def check_tensors(self, tensors: Mapping[str, Tensor]) -> None:
        """See `Representation`: as every particle would alone."""
        for k in range(len(self)):
            prefix = f"particles.{k}."
            self[k].check_tensors({n.removeprefix(prefix): t for n, t in tensors.items() if n.startswith(prefix)})

    def adapt(
        self, step: int, total_steps: int, optimizer: torch.optim.Optimizer, generator: torch.Generator
    ) -> AdaptReport:
        """See `base.Adaptive`: every particle adapts as it would alone, then it is the next one's turn."""
        self.turn.copy_((self.turn + 1) % len(self))
        reports = [
            particle.adapt(step, total_steps, optimizer, generator)
            for particle in particles_of(self)
            if isinstance(particle, Adaptive)
        ]
        return AdaptReport(*(sum(getattr(each, name) for each in reports) for name in ("added", "removed", "total")))

    def _views_by_particle(self, count: int) -> dict[int, Int64[Tensor, " v"]]:
        particle = (torch.arange(count) + int(self.turn)) % len(self)
        return {k: (particle == k).nonzero()[:, 0] for k in particle.unique().tolist()}


def ensemble_of(particles: Sequence[Representation]) -> Representation:
    """The particles as one scene; a single one is that scene, as it is. Raises ValueError like `Ensemble`."""
    return particles[0] if len(particles) == 1 else Ensemble(particles)


def particles_of(scene: Representation) -> list[Representation]:
    """The scenes that are trained as one: those of an ensemble; any other scene is its own only particle."""
    return [scene[k] for k in range(len(scene))] if isinstance(scene, Ensemble) else [scene]


def _weighted(
    penalties: Mapping[int, Mapping[str, Float[Tensor, ""]]], shares: Mapping[int, float]
) -> dict[str, Float[Tensor, ""]]:
    """Sums over particles, by name."""
    names = next(iter(penalties.values()))
    return {name: torch.stack([share * penalties[k][name] for k, share in shares.items()]).sum() for name in names}
