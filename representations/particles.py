"""Several scenes trained together: the particles of ProlificDreamer [Wang et al. 2023, 2305.16213, section 3.2].

The particles theta_1 ... theta_n are scenes of one prompt that share everything but their parameters. In step k, view i
is rendered from particle (i + k) mod n, so all particles are rendered equally often for any number of views per step.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from .base import Adaptive, AdaptReport, RenderOutput, Representation
from .cameras import Cameras


class Ensemble(Representation):
    """Particles of one kind, for training; `particles_of` returns the single scenes.

    Regularizers are weighted by the fraction of the images that a particle renders, as the loss is. A particle that is
    not rendered in a step gets no gradient, and Adam does not change it.
    """

    def __init__(self, particles: Sequence[Representation]) -> None:
        """Combine the particles. Raises ValueError for an empty sequence or for different classes."""
        super().__init__()
        kinds = sorted({type(particle).__name__ for particle in particles})
        if len(kinds) != 1:
            raise ValueError(f"an ensemble needs particles of one kind, got {', '.join(kinds) or 'none'}")
        self.particles = nn.ModuleList(particles)
        self.turn = nn.Buffer(torch.zeros((), dtype=torch.int64))
        """Index of the particle that renders the first view of the next step."""
        self.render_terms = particles[0].render_terms
        self._first, self._stride = 0, 1
        self._fractions = {k: 1 / len(particles) for k in range(len(particles))}
        """Fraction of the last rendered images, by particle index."""

    @contextmanager
    def sharing(self, first: int, stride: int) -> Iterator[None]:
        """Within the context, the cameras given to `render` are the views first, first + stride, ... of a step."""
        self._first, self._stride = first, stride
        try:
            yield
        finally:
            self._first, self._stride = 0, 1

    def __getitem__(self, index: int) -> Representation:
        particle = self.particles[index]
        assert isinstance(particle, Representation)
        return particle

    def __len__(self) -> int:
        return len(self.particles)

    def render(self, cameras: Cameras, background: Float[Tensor, "b 3"]) -> RenderOutput:
        """Render view i with particle (i + `turn`) mod n; `terms` are means over the views, or over their counts.

        In the context `sharing`, the i-th of these cameras is view first + i * stride.
        """
        views = self._views_by_particle(len(cameras))
        self._fractions = {k: len(index) / len(cameras) for k, index in views.items()}
        outputs = {
            k: self[k].render(cameras[i.to(cameras.camera_to_world.device)], background[i.to(background.device)])
            for k, i in views.items()
        }
        order = torch.cat(list(views.values())).argsort()

        def in_order(name: str) -> Tensor:
            images = torch.cat([getattr(output, name) for output in outputs.values()])
            return images[order.to(images.device)]

        terms, counts = _weighted({k: output.terms for k, output in outputs.items()}, self._fractions), {}
        for name in next(iter(outputs.values())).term_counts:
            each = {k: output.term_counts[name] for k, output in outputs.items()}
            counts[name] = torch.stack(list(each.values())).sum()
            parts = {k: count / counts[name].clamp(min=1) for k, count in each.items()}
            terms |= _weighted({k: {name: output.terms[name]} for k, output in outputs.items()}, parts)
        return RenderOutput(in_order("rgb"), in_order("opacity"), in_order("depth"), in_order("normal"), terms, counts)

    def learning_rates(self, progress: float) -> dict[str, float]:
        return {
            f"particles.{k}.{name}": rate
            for k in range(len(self))
            for name, rate in self[k].learning_rates(progress).items()
        }

    def regularizers(self) -> dict[str, Float[Tensor, ""]]:
        """Regularizers of the particles in the last rendered images, averaged over these images."""
        return _weighted({k: self[k].regularizers() for k in self._fractions}, self._fractions)

    def check_tensors(self, tensors: Mapping[str, Tensor]) -> None:
        """Check the tensors of every particle with its own `check_tensors`."""
        for k in range(len(self)):
            prefix = f"particles.{k}."
            self[k].check_tensors({n.removeprefix(prefix): t for n, t in tensors.items() if n.startswith(prefix)})

    def adapt(
        self, step: int, total_steps: int, optimizer: torch.optim.Optimizer, generator: torch.Generator
    ) -> AdaptReport:
        """Advance `turn` and adapt every particle; see `base.Adaptive`."""
        self.turn.copy_((self.turn + 1) % len(self))
        reports = [
            particle.adapt(step, total_steps, optimizer, generator)
            for particle in particles_of(self)
            if isinstance(particle, Adaptive)
        ]
        return AdaptReport(*(sum(getattr(each, name) for each in reports) for name in ("added", "removed", "total")))

    def _views_by_particle(self, count: int) -> dict[int, Int64[Tensor, " v"]]:
        particle = (self._first + self._stride * torch.arange(count) + int(self.turn)) % len(self)
        return {k: (particle == k).nonzero()[:, 0] for k in particle.unique().tolist()}


def ensemble_of(particles: Sequence[Representation]) -> Representation:
    """Combine particles into one scene; a single particle is returned unchanged. Raises ValueError like `Ensemble`.

    Example:
        >>> from steindreamer.representations import GaussiansConfig, ensemble_of
        >>> generator = torch.Generator().manual_seed(0)
        >>> scene = ensemble_of([GaussiansConfig(count=100).build(generator) for _ in range(2)])
    """
    return particles[0] if len(particles) == 1 else Ensemble(particles)


def particles_of(scene: Representation) -> list[Representation]:
    """The particles of an ensemble, or a list with the scene itself for any other scene.

    Example:
        >>> from steindreamer.representations import GaussiansConfig, particles_of
        >>> len(particles_of(GaussiansConfig(count=100).build(torch.Generator().manual_seed(0))))
        1
    """
    return [scene[k] for k in range(len(scene))] if isinstance(scene, Ensemble) else [scene]


def _weighted(
    values: Mapping[int, Mapping[str, Float[Tensor, ""]]], fractions: Mapping[int, float | Float[Tensor, ""]]
) -> dict[str, Float[Tensor, ""]]:
    """Weighted sum over the particles of every regularizer, by name."""
    names = next(iter(values.values()))
    return {name: torch.stack([part * values[k][name] for k, part in fractions.items()]).sum() for name in names}
