"""Densification and pruning: which Gaussians are kept and added, and that the optimizer's state follows its rows."""

import pytest
import torch

from steindreamer.representations import Cameras, DensifyConfig, Gaussians, GaussiansConfig
from steindreamer.representations.gaussians.densification import Densifier, resize_parameters


def scene(count: int = 200, **settings: float) -> Gaussians:
    densify = DensifyConfig(**{"interval": 1, "start": 0.0, "stop": 1.0, "minimum_count": 0, **settings})
    config = GaussiansConfig(count=count, densify=densify)
    return config.build(torch.Generator().manual_seed(0))


def pull(gaussians: Gaussians, gradient: torch.Tensor) -> None:
    """A densifier that has observed one view with these gradient lengths (in units of half an image of 2 pixels)."""
    screen = torch.stack([gradient, torch.zeros_like(gradient)], -1)[None]
    gaussians.densifier.observe(screen, torch.ones(1, len(gradient), dtype=torch.bool), 2, 2)


def adapt(gaussians: Gaussians, step: int = 1, total_steps: int = 2) -> Gaussians:
    optimizer = torch.optim.Adam(gaussians.optimizer_groups())
    report = gaussians.adapt(step, total_steps, optimizer, torch.Generator().manual_seed(1))
    assert report.total == len(gaussians)
    return gaussians


def test_renders_are_observed_through_the_backward_pass() -> None:
    """The accumulated gradient is that of the image with respect to the projected center, averaged over views."""
    gaussians = scene()
    for height in (24, 48):
        cameras = Cameras.orbit([0.0, 60.0], [0.0, 0.0], height=height)
        output = gaussians.render(cameras, torch.zeros(2, 3))
        output.rgb.mean().backward()
    assert torch.equal(gaussians.densifier.view_count, torch.full((200,), 4.0))
    assert (gaussians.densifier.gradient_sum > 0).all()
    with torch.no_grad():
        gaussians.render(cameras, torch.zeros(2, 3))
    assert gaussians.densifier.view_count.max() == 4


def test_observed_gradient_does_not_depend_on_the_resolution() -> None:
    """Up to the blur, which is defined in pixels."""
    sums = []
    for height in (48, 96):
        gaussians = scene()
        output = gaussians.render(Cameras.orbit([0.0], [0.0], height=height), torch.zeros(1, 3))
        (output.opacity * torch.linspace(0, 1, height)).mean().backward()
        sums.append(gaussians.densifier.gradient_sum)
    torch.testing.assert_close(sums[0].mean(), sums[1].mean(), rtol=0.2, atol=0)


def test_non_finite_gradients_are_not_accumulated() -> None:
    gaussians = scene(grow_fraction=0.1, split_scale=10.0)
    pull(gaussians, torch.full((200,), torch.nan))
    pull(gaussians, torch.arange(200.0))
    assert torch.equal(gaussians.densifier.gradient_sum, torch.arange(200.0))
    assert torch.equal(gaussians.densifier.view_count, torch.ones(200))
    assert len(adapt(gaussians)) == 220


def test_the_gaussians_with_the_largest_gradients_grow() -> None:
    gaussians = scene(grow_fraction=0.1, split_scale=10.0)
    pulled = torch.arange(200.0)
    before = gaussians.means.detach().clone()
    pull(gaussians, pulled)
    adapt(gaussians)
    assert len(gaussians) == 220
    assert torch.equal(gaussians.means[:200], before)
    assert torch.equal(gaussians.means[200:].sort(0).values, before[180:].sort(0).values)


def test_growth_does_not_depend_on_the_scale_of_the_gradient() -> None:
    results = []
    for factor in (1e-6, 1.0, 1e6):
        gaussians = scene()
        pull(gaussians, factor * (torch.arange(200.0) % 7 + torch.arange(200) / 1000))
        results.append(adapt(gaussians).means.detach())
    assert torch.equal(results[0], results[1]) and torch.equal(results[1], results[2])


def test_cloning_does_not_change_the_image() -> None:
    gaussians = scene(grow_fraction=0.5, split_scale=10.0, prune_opacity=0.0)
    cameras = Cameras.orbit([30.0], [10.0], height=32)
    before = gaussians.render(cameras, torch.zeros(1, 3)).rgb
    pull(gaussians, torch.rand(200, generator=torch.Generator().manual_seed(2)))
    adapt(gaussians)
    assert len(gaussians) == 300
    # Not exactly: fainter Gaussians reach the alpha cut of 1/255 earlier.
    assert (gaussians.render(cameras, torch.zeros(1, 3)).rgb - before).abs().max() < 0.02


def test_splitting_halves_the_long_ones_in_place() -> None:
    gaussians = scene(grow_fraction=1.0, split_scale=0.0, prune_scale=9.0)
    with torch.no_grad():
        gaussians.means.zero_()
        gaussians.log_scales.copy_(torch.tensor([0.3, 0.1, 0.02]).log().expand(200, 3))
        # A rotation of 90 degrees about +Z: the long axis is along y.
        gaussians.quaternions.copy_(torch.tensor([0.5**0.5, 0, 0, 0.5**0.5]).expand(200, 4))
    pull(gaussians, torch.ones(200))
    adapt(gaussians)
    assert len(gaussians) == 400
    torch.testing.assert_close(gaussians.scales, torch.tensor([0.3, 0.1, 0.02]).expand(400, 3) / 1.6)
    torch.testing.assert_close(gaussians.means.std(0), torch.tensor([0.1, 0.3, 0.02]), rtol=0.1, atol=0)


@pytest.mark.parametrize(
    ("name", "value"),
    [("opacity_logits", -10.0), ("log_scales", 0.0), ("means", 2.0)],
    ids=["transparent", "huge", "outside"],
)
def test_pruned(name: str, value: float) -> None:
    gaussians = scene(grow_fraction=0.0)
    with torch.no_grad():
        getattr(gaussians, name)[:30] = value
    kept = gaussians.means.detach()[30:].clone()
    assert torch.equal(adapt(gaussians).means, kept)


def test_pruning_keeps_the_most_opaque() -> None:
    gaussians = scene(grow_fraction=0.0, minimum_count=20)
    with torch.no_grad():
        gaussians.opacity_logits.copy_(-10 - torch.arange(200.0))
    kept = gaussians.means.detach()[:20].clone()
    assert torch.equal(adapt(gaussians).means, kept)


def test_never_more_than_the_budget() -> None:
    gaussians = scene(grow_fraction=1.0, maximum_count=230)
    for _ in range(3):
        pull(gaussians, torch.ones(len(gaussians)))
        adapt(gaussians)
    assert len(gaussians) == 230


@pytest.mark.parametrize(
    ("step", "grows", "prunes"),
    [(9, False, False), (10, False, False), (20, True, True), (25, False, False), (90, False, True)],
)
def test_rounds_follow_the_schedule(step: int, grows: bool, prunes: bool) -> None:
    gaussians = scene(interval=10, start=0.2, stop=0.5)
    with torch.no_grad():
        gaussians.opacity_logits[:1] = -10
    pull(gaussians, torch.ones(200))
    optimizer = torch.optim.Adam(gaussians.optimizer_groups())
    report = gaussians.adapt(step, 100, optimizer, torch.Generator())
    assert (report.added > 0, report.removed > 0) == (grows, prunes)


@pytest.mark.parametrize("amsgrad", [False, True])
def test_optimizer_state_follows_its_rows(amsgrad: bool) -> None:
    parameter = torch.nn.Parameter(torch.arange(8.0).reshape(4, 2))
    optimizer = torch.optim.Adam([parameter], amsgrad=amsgrad)
    (parameter**2).sum().backward()
    optimizer.step()
    state = {key: value.clone() for key, value in optimizer.state[parameter].items()}
    rows = parameter.detach().clone()
    resize_parameters({"p": parameter}, torch.tensor([3, 1]), {"p": torch.full((1, 2), 7.0)}, optimizer)
    assert optimizer.param_groups[0]["params"][0] is parameter and parameter.grad is None
    assert torch.equal(parameter, torch.stack([rows[3], rows[1], torch.tensor([7.0, 7])]))
    for key, value in optimizer.state[parameter].items():
        expected = state[key] if key == "step" else torch.stack([state[key][3], state[key][1], torch.zeros(2)])
        assert torch.equal(value, expected), key
    (parameter**2).sum().backward()
    optimizer.step()


def test_resizing_while_an_earlier_graph_is_alive() -> None:
    gaussians = scene()
    cameras, background = Cameras.orbit([0.0], [0.0], height=16), torch.zeros(1, 3)
    optimizer = torch.optim.Adam(gaussians.optimizer_groups())
    held = []
    for step in range(1, 4):
        held.append(gaussians.render(cameras, background))
        optimizer.zero_grad()
        held[-1].rgb.sum().backward()
        optimizer.step()
        gaussians.adapt(step, 3, optimizer, torch.Generator().manual_seed(step))
    assert len(gaussians) > 200


def test_statistics_are_checkpointed() -> None:
    gaussians, other = scene(count=50), scene(count=70)
    pull(gaussians, torch.arange(50.0))
    tensors = {**dict(gaussians.named_parameters()), **dict(gaussians.named_buffers())}
    other.load_tensors({name: tensor.detach().clone() for name, tensor in tensors.items()})
    assert torch.equal(adapt(gaussians).means, adapt(other).means)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"interval": -1}, "interval must be >= 0"),
        ({"start": 0.8}, "need 0 <= densify.start <= densify.stop <= 1, got 0.8 and 0.7"),
        ({"grow_fraction": 2.0}, "grow_fraction must lie in"),
        ({"minimum_count": 30_000}, "densify.maximum_count, got 30000 and 20000"),
    ],
)
def test_config_errors(changes: dict[str, float], message: str) -> None:
    config = DensifyConfig(**changes)  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match=message):
        Densifier(config, 10)
