"""Light on the world's objects, and the two ways of drawing them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import trimesh

from steindreamer.representations import Cameras, TriangleMesh, render_mesh
from steindreamer.world import caption_of, parse_caption, sample_object
from steindreamer.world.views import Light, random_light, render_all, render_objects, shade


def ball() -> TriangleMesh:
    mesh = trimesh.creation.icosphere(subdivisions=3, radius=0.8)
    vertices = torch.from_numpy(mesh.vertices).float()
    return TriangleMesh(vertices, torch.from_numpy(mesh.faces.copy()).long(), colors=torch.full_like(vertices, 0.5))


def objects() -> list[TriangleMesh]:
    rng = np.random.default_rng(0)
    return [sample_object(parse_caption(text), rng) for text in ("a red mug", "a yellow duck")]


def test_light_stays_near_the_base_color() -> None:
    lit = shade(ball()).colors
    assert lit is not None
    factor = lit / 0.5
    assert 0.72 <= float(factor.min()) < 0.74 and 1.05 < float(factor.max()) <= 1.08
    assert float(factor.mean()) == pytest.approx(0.9, abs=0.01)


def test_colors_stay_in_range() -> None:
    white = TriangleMesh(ball().vertices, ball().faces, colors=torch.ones_like(ball().vertices))
    lit = shade(white).colors
    assert lit is not None and float(lit.max()) == 1.0


def test_the_lit_side_faces_the_light() -> None:
    cameras = Cameras.orbit([0.0, 0.0], [0.0, 0.0], height=32)
    light = torch.tensor([[5.0, 0, 0], [-5.0, 0, 0]])
    right, left = render_objects([ball(), ball()], cameras, torch.zeros(2, 3), light=light).rgb.unbind(0)
    assert float(right[:, :, 22:].sum()) > 1.05 * float(right[:, :, :10].sum())
    torch.testing.assert_close(right, left.flip(2), atol=2e-2, rtol=0)


def test_the_light_is_fixed_in_the_world() -> None:
    """Seen from behind, the ball's lit side (+X) is on the left."""
    cameras = Cameras.orbit([0.0, 180.0], [0.0, 0.0], height=32)
    front, back = render_objects([ball(), ball()], cameras, torch.zeros(2, 3)).rgb.unbind(0)
    assert float(front[:, :, 22:].sum()) > float(front[:, :, :10].sum())
    assert float(back[:, :, 22:].sum()) < float(back[:, :, :10].sum())
    assert float(front.mean()) > float(back.mean())


def test_each_object_meets_its_own_camera() -> None:
    mug, duck = objects()
    cameras = Cameras.orbit([30.0, 200.0], [10.0, 40.0], height=40)
    background = torch.tensor([[1.0, 1, 1], [0, 0, 1]])
    out = render_objects([mug, duck], cameras, background, supersample=2)
    alone = render_mesh(shade(duck), cameras[1], background[1:], supersample=2)
    for name in ("rgb", "opacity", "depth", "normal"):
        torch.testing.assert_close(getattr(out, name)[1:], getattr(alone, name))
    torch.testing.assert_close(out.rgb[:, :, 0, 0], background)


@pytest.mark.parametrize("supersample", [1, 2])
def test_the_fast_path_draws_the_same_images(supersample: int) -> None:
    mug, duck = objects()
    cameras = Cameras.orbit([30.0, 200.0], [10.0, 40.0], height=40, width=56)
    background = torch.tensor([[1.0, 1, 1], [0, 0, 1]])
    images = render_all([shade(mug), shade(duck)], cameras, background, supersample=supersample)
    for k, mesh in enumerate((mug, duck)):
        expected = render_objects([mesh, mesh], cameras, background, supersample=supersample).rgb
        torch.testing.assert_close(images[:, k], expected, atol=1e-5, rtol=0)


def test_bad_input_is_named() -> None:
    cameras = Cameras.orbit([0.0], [0.0], height=8)
    bare = TriangleMesh(ball().vertices, ball().faces)
    with pytest.raises(ValueError, match="2 objects for 1 cameras"):
        render_objects([ball(), ball()], cameras, torch.ones(1, 3))
    with pytest.raises(ValueError, match="needs `colors`"):
        shade(bare)
    with pytest.raises(ValueError, match="without `colors`"):
        render_all([bare], cameras, torch.ones(1, 3))


def test_random_light_is_often_stronger_than_the_worlds_own_and_never_burns_out() -> None:
    lights = [random_light(np.random.default_rng(seed)) for seed in range(200)]
    own = Light()
    for light in lights:
        assert 1 <= light.darkest + light.sky + light.direct <= 1.15 + 1e-9 and min(light.sky, light.direct) > 0
    assert sum(light.sky + light.direct > own.sky + own.direct for light in lights) > 100
    assert len({light.direction for light in lights}) == len(lights)


def test_the_default_light_is_the_one_of_its_direction() -> None:
    mesh = sample_object(caption_of("mug", "red"), np.random.default_rng(0))
    plain, lit = (shade(mesh, light).colors for light in (None, Light()))
    dimmed = shade(mesh, Light(darkest=0.2, sky=0.0, direct=0.0)).colors
    assert plain is not None and lit is not None and dimmed is not None and mesh.colors is not None
    assert torch.equal(plain, lit)
    torch.testing.assert_close(dimmed, 0.2 * mesh.colors)
