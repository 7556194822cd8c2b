"""Ensembles of particles: each view is rendered by one particle, and its gradient affects only that particle."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from jaxtyping import Float
from safetensors.torch import load, save
from torch import Tensor, nn

from steindreamer.representations import (
    REPRESENTATIONS,
    Adaptive,
    Cameras,
    Ensemble,
    GaussiansConfig,
    RenderOutput,
    Representation,
    ensemble_of,
    particles_of,
)

IMAGES = ("rgb", "opacity", "depth", "normal")
SMALL = {
    "gaussians": {"count": 60},
    "nerf": {"samples": 16},
    "dmtet": {"resolution": 12},
}


class Disc(Representation):
    """A scene of one color."""

    render_terms = ("redness", "counted")

    def __init__(self, color: float) -> None:
        super().__init__()
        self.color = nn.Parameter(torch.full((3,), color))
        self.count = torch.tensor(1.0)

    def render(self, cameras: Cameras, background: Float[Tensor, "b 3"]) -> RenderOutput:
        full = torch.ones(len(cameras), 1, cameras.height, cameras.width)
        rgb = self.color[None, :, None, None] * full
        terms = {"redness": self.color[0], "counted": self.color[0]}
        return RenderOutput(rgb, full, full, rgb, terms, {"counted": self.count})

    def learning_rates(self, progress: float) -> dict[str, float]:
        return {"color": 0.1 + progress}

    def regularizers(self) -> dict[str, Float[Tensor, ""]]:
        return {"brightness": self.color.mean()}


def build(name: str, count: int, generator: torch.Generator) -> Ensemble:
    config: Any = REPRESENTATIONS[name](**SMALL[name])
    return Ensemble([config.build(generator, torch.device("cpu")) for _ in range(count)])


def look(count: int) -> tuple[Cameras, Tensor]:
    azimuth = [40.0 * i for i in range(count)]
    return Cameras.orbit(azimuth, [10.0] * count, height=16), torch.linspace(0, 1, 3 * count).reshape(count, 3)


def discs(*colors: float) -> Ensemble:
    return Ensemble([Disc(color) for color in colors])


def pass_turn(scene: Ensemble, times: int = 1) -> None:
    for _ in range(times):
        scene.adapt(1, 10, torch.optim.Adam(scene.parameters()), torch.Generator())


@pytest.mark.parametrize("name", sorted(SMALL))
@pytest.mark.parametrize(("views", "turn", "owners"), [(4, 0, [0, 1, 2, 0]), (1, 2, [2]), (3, 1, [1, 2, 0])])
def test_every_view_is_rendered_by_its_particle(
    name: str, views: int, turn: int, owners: list[int], generator: torch.Generator
) -> None:
    scene = build(name, 3, generator)
    scene.turn.fill_(turn)
    cameras, background = look(views)
    output = scene.render(cameras, background)
    for i, k in enumerate(owners):
        own = scene[k].render(cameras[i], background[i : i + 1])
        for image in IMAGES:
            assert torch.allclose(getattr(output, image)[i], getattr(own, image)[0], atol=1e-5), (i, image)
    one, other = (scene[k].render(cameras[0], background[:1]).rgb for k in (0, 1))
    assert not torch.allclose(one, other, atol=1e-5), "particles must begin as different scenes"


@pytest.mark.parametrize("name", sorted(SMALL))
def test_only_rendered_particles_get_gradients(name: str, generator: torch.Generator) -> None:
    scene = build(name, 3, generator)
    optimizer = torch.optim.Adam(scene.optimizer_groups(), eps=1e-15)
    before = {key: p.detach().clone() for key, p in scene.named_parameters()}
    cameras, background = look(2)
    for turn, undrawn in ((0, {2}), (1, {0}), (2, {1})):
        assert int(scene.turn) == turn
        optimizer.zero_grad(set_to_none=True)
        scene.render(cameras, background).rgb.square().sum().backward()
        touched = {k for k in range(3) if any(p.grad is not None for p in scene[k].parameters())}
        assert touched == {0, 1, 2} - undrawn
        optimizer.step()
        if turn == 0:
            moved = {key.split(".")[1] for key, p in scene.named_parameters() if not p.equal(before[key])}
            assert moved == {"0", "1"}
        scene.adapt(turn + 1, 10, optimizer, generator)
    assert int(scene.turn) == 0


def test_all_particles_are_rendered_equally_often() -> None:
    for count, views in ((2, 1), (3, 2), (4, 6)):
        scene, drawn = discs(*(0.1 * k for k in range(count))), torch.zeros(count)
        cameras, background = look(views)
        for _ in range(count):
            shown = scene.render(cameras, background).rgb[:, 0, 0, 0]
            drawn += torch.stack(
                [(shown == scene[k].render(cameras, background).rgb[0, 0, 0, 0]).sum() for k in range(count)]
            )
            pass_turn(scene)
        assert drawn.tolist() == [views] * count


def test_regularizers_are_means_over_views() -> None:
    scene = discs(0.2, 0.8)
    assert scene.regularizers()["brightness"].item() == pytest.approx(0.5)
    output = scene.render(*look(3))
    assert scene.render_terms == ("redness", "counted")
    assert output.terms["redness"].item() == pytest.approx((2 * 0.2 + 0.8) / 3)
    assert scene.regularizers()["brightness"].item() == pytest.approx((2 * 0.2 + 0.8) / 3)
    pass_turn(scene)
    scene.render(*look(1))
    scene.regularizers()["brightness"].backward()
    assert scene[0].get_parameter("color").grad is None and scene[1].get_parameter("color").grad is not None


@pytest.mark.parametrize("counts", [(3.0, 1.0), (0.0, 2.0), (0.0, 0.0)])
def test_a_term_with_a_count_is_the_mean_over_all_counted_values(counts: tuple[float, float]) -> None:
    scene, total = discs(0.2, 0.8), sum(counts)
    for disc, count in zip(particles_of(scene), counts, strict=True):
        disc.count = torch.tensor(count)
    output = scene.render(*look(3))
    assert output.term_counts["counted"].item() == total
    expected = (counts[0] * 0.2 + counts[1] * 0.8) / max(total, 1.0)
    assert output.terms["counted"].item() == pytest.approx(expected)


@pytest.mark.parametrize("name", sorted(SMALL))
def test_an_ensemble_is_restored_from_its_tensors(name: str, generator: torch.Generator) -> None:
    scene, other = build(name, 2, generator), build(name, 2, torch.Generator().manual_seed(99))
    scene.turn.fill_(1)
    tensors = {**dict(scene.named_parameters()), **dict(scene.named_buffers())}
    other.load_tensors(load(save({key: tensor.detach() for key, tensor in tensors.items()})))
    cameras, background = look(2)
    with torch.no_grad():
        one, two = (each.render(cameras, background) for each in (scene, other))
    assert all(getattr(one, image).equal(getattr(two, image)) for image in IMAGES)
    own = scene[1].state_dict()
    assert {f"particles.1.{key}" for key in own} <= tensors.keys()


def test_rates_are_the_particles_own() -> None:
    scene = discs(0.2, 0.8)
    assert scene.learning_rates(0.5) == {"particles.0.color": 0.6, "particles.1.color": 0.6}
    assert [group["name"] for group in scene.optimizer_groups()] == ["particles.0.color", "particles.1.color"]


def test_each_particle_adapts_as_without_an_ensemble(generator: torch.Generator) -> None:
    config = GaussiansConfig(count=40)
    config.densify.interval, config.densify.start, config.densify.minimum_count = 9, 0.0, 1
    config.densify.prune_radius = 0.3
    scene, alone = Ensemble([config.build(generator, torch.device("cpu")) for _ in range(2)]), config.build(generator)
    alone.load_tensors({key: tensor.clone() for key, tensor in scene[1].state_dict().items()})
    assert isinstance(scene, Adaptive) and isinstance(scene[1], Adaptive)
    optimizer = torch.optim.Adam(scene.optimizer_groups())
    report = scene.adapt(9, 10, optimizer, torch.Generator().manual_seed(5))
    expected = alone.adapt(9, 10, torch.optim.Adam(alone.optimizer_groups()), torch.Generator().manual_seed(6))
    sizes = [len(particle.get_parameter("means")) for particle in particles_of(scene)]
    assert 0 < sizes[1] == expected.total < 40
    assert report.total == sum(sizes) and report.removed == 80 - sum(sizes) and sizes[0] != sizes[1]
    scene.render(*look(2)).rgb.sum().backward()


def test_a_single_particle_is_the_scene_itself() -> None:
    one, other = Disc(0.1), Disc(0.2)
    assert ensemble_of([one]) is one and particles_of(one) == [one]
    both = ensemble_of([one, other])
    assert isinstance(both, Ensemble) and particles_of(both) == [one, other]


def test_invalid_ensembles_are_refused(generator: torch.Generator) -> None:
    with pytest.raises(ValueError, match="particles of one kind, got none"):
        Ensemble([])
    with pytest.raises(ValueError, match="particles of one kind, got Disc, Gaussians"):
        Ensemble([Disc(0.1), GaussiansConfig(count=5).build(generator)])
