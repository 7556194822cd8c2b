"""The textured mesh: rendering, training, regularizer and refused input."""

import pytest
import torch
from torch import Tensor

from steindreamer.representations import Cameras, RenderOutput, TextureConfig, TexturedMesh, TriangleMesh, render_mesh


def two_cards(texture: Tensor) -> TriangleMesh:
    """Two squares facing +Z, side by side, the left one on the texture's upper left quarter, the right one below it."""
    corners = torch.tensor([[0.0, 0.0], [1.0, 0.0], [1.0, 1.0], [0.0, 1.0]])
    left = torch.cat([corners * 0.5 - torch.tensor([0.6, 0.25]), torch.zeros(4, 1)], 1)
    uvs = torch.stack([0.125 + 0.25 * corners[:, 0], 0.375 - 0.25 * corners[:, 1]], 1)
    faces = torch.tensor([[0, 1, 2], [0, 2, 3]])
    return TriangleMesh(
        torch.cat([left, left + torch.tensor([0.7, 0.0, 0.0])]),
        torch.cat([faces, faces + 4]),
        uvs=torch.cat([uvs, uvs + torch.tensor([0.0, 0.5])]),
        texture=texture,
    )


def noise(height: int, width: int, seed: int = 0) -> Tensor:
    return torch.rand(3, height, width, generator=torch.Generator().manual_seed(seed))


def front(size: int = 48) -> Cameras:
    return Cameras.orbit([0.0], [0.0], distance=2.0, height=size)


def state(scene: TexturedMesh) -> dict[str, Tensor]:
    return {name: tensor.detach() for name, tensor in [*scene.named_parameters(), *scene.named_buffers()]}


def draw(scene: TexturedMesh, size: int = 48) -> RenderOutput:
    return scene.render(front(size), torch.ones(1, 3))


def test_renders_the_given_mesh() -> None:
    mesh = two_cards(noise(32, 32))
    scene = TexturedMesh.from_mesh(mesh)
    expected, actual = render_mesh(mesh, front(), torch.ones(1, 3)), draw(scene)
    solid = (expected.opacity == 1) & (actual.opacity == 1)
    assert solid.float().mean() > 0.1
    assert ((actual.rgb - expected.rgb).abs() * solid).max() < 2e-3
    torch.testing.assert_close(scene.mesh().texture, mesh.texture, atol=1e-3, rtol=0)
    assert torch.equal(scene.mesh().vertices, mesh.vertices)


def test_only_the_texture_is_trained() -> None:
    scene = TexturedMesh.from_mesh(two_cards(noise(16, 16)))
    assert list(scene.learning_rates(0.0)) == [name for name, _ in scene.named_parameters()] == ["texture_logits"]
    rates = [scene.learning_rates(progress)["texture_logits"] for progress in (0.0, 0.5, 1.0)]
    assert rates[0] > rates[1] > rates[2] > 0


def test_fits_a_target_image() -> None:
    target = draw(TexturedMesh.from_mesh(two_cards(noise(16, 16, seed=1)))).rgb.detach()
    scene = TexturedMesh.from_mesh(two_cards(torch.full((3, 16, 16), 0.5)))
    optimizer = torch.optim.Adam(scene.parameters(), lr=0.1)
    for _ in range(100):
        loss = (draw(scene).rgb - target).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert (draw(scene).rgb - target).square().mean() < 1e-4


def test_charts_are_the_texels_that_faces_cover() -> None:
    charts = TexturedMesh.from_mesh(two_cards(noise(32, 32))).charts
    expected = torch.zeros(32, 32, dtype=torch.int32)
    expected[4:12, 4:12], expected[20:28, 4:12] = 1, 2
    assert torch.equal(charts, expected)


def test_smoothness_is_the_variation_within_charts() -> None:
    """A step between charts costs nothing, one inside a chart its height; the gradient stays inside the charts."""
    texture = torch.full((3, 32, 32), 0.2)
    texture[:, 16:] = 0.8
    assert float(_smoothness(TexturedMesh.from_mesh(two_cards(texture)))) == pytest.approx(0, abs=1e-6)
    texture[:, :, 8:] = 0.5
    scene = TexturedMesh.from_mesh(two_cards(texture))
    # Of 8 x 7 pairs per direction and chart, 8 across the step in each chart.
    assert float(_smoothness(scene)) == pytest.approx(0.3 * 8 / (8 * 7 * 2), rel=1e-3)
    scene.regularizers()["texture_smoothness"].backward()
    assert scene.texture_logits.grad is not None
    assert scene.texture_logits.grad.any() and not scene.texture_logits.grad[:, scene.charts == 0].any()


def _smoothness(scene: TexturedMesh) -> Tensor:
    return scene.regularizers()["texture_smoothness"].detach()


def test_texture_is_resized_to_the_configured_size() -> None:
    texture = torch.linspace(0, 1, 64)[None, None].expand(3, 64, 64)
    scene = TexturedMesh.from_mesh(two_cards(texture), TextureConfig(size=32))
    expected = torch.linspace(0, 1, 64).reshape(32, 2).mean(1)
    assert scene.texture.shape == (3, 32, 32)
    torch.testing.assert_close(scene.texture[0, 5, 2:-2], expected[2:-2], atol=0.01, rtol=0)


def test_a_restored_scene_gives_the_same_bits_however_its_texture_lay_in_memory() -> None:
    scene = TexturedMesh.from_mesh(two_cards(noise(128, 128).transpose(1, 2)))
    restored = TexturedMesh.blank()
    restored.load_tensors({name: tensor.contiguous() for name, tensor in state(scene).items()})
    assert scene.texture_logits.is_contiguous() and torch.equal(_smoothness(restored), _smoothness(scene))


def test_detail_is_kept() -> None:
    detail = TriangleMesh(torch.rand(9, 3), torch.tensor([[0, 1, 2], [3, 4, 5]]))
    scene = TexturedMesh.from_mesh(two_cards(noise(8, 8)), detail=detail)
    assert torch.equal(scene.detail().vertices, detail.vertices) and torch.equal(scene.detail().faces, detail.faces)
    without = TexturedMesh.from_mesh(two_cards(noise(8, 8)))
    assert torch.equal(without.detail().faces, without.mesh().faces)


def test_a_blank_scene_loads_any_state() -> None:
    scene = TexturedMesh.from_mesh(two_cards(noise(32, 64)), detail=two_cards(noise(8, 8)))
    blank = TexturedMesh.blank()
    assert torch.equal(draw(blank).rgb, torch.ones(1, 3, 48, 48)) and _smoothness(blank) == 0
    blank.load_tensors(state(scene))
    assert torch.equal(draw(blank).rgb, draw(scene).rgb)
    assert torch.equal(_smoothness(blank), _smoothness(scene))
    assert torch.equal(blank.detail().vertices, scene.detail().vertices)


@pytest.mark.parametrize("texture", [noise(48, 48), noise(32, 31)])
def test_sizes_that_are_no_power_of_two_are_refused(texture: Tensor) -> None:
    with pytest.raises(ValueError, match="power of two"):
        TexturedMesh.from_mesh(two_cards(texture))


def test_a_mesh_without_texture_is_refused() -> None:
    mesh = two_cards(noise(8, 8))
    with pytest.raises(ValueError, match="unwrap and bake"):
        TexturedMesh.from_mesh(TriangleMesh(mesh.vertices, mesh.faces, uvs=mesh.uvs))
