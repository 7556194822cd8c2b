"""Scores of a scene: against the truth, by the caption, by a CLIP model."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from jaxtyping import Float
from tiny_diffusion_models import clip_tokenizer
from torch import Tensor, nn

from steindreamer.pipelines.comparison.scores import TransformersClip, caption_distance, psnr_score
from steindreamer.pipelines.errors import UserError
from steindreamer.representations import Cameras, RenderOutput, Representation, TriangleMesh, render_mesh
from steindreamer.world.prior import WorldPrior, WorldPriorConfig
from steindreamer.world.truth import chamfer_millimeters, mean_normal_error, view_consistency


class MeshScene(Representation):
    """Draws a mesh, shifted in brightness."""

    def __init__(self, mesh: TriangleMesh, shift: float = 0.0) -> None:
        super().__init__()
        self.mesh, self.shift = mesh, nn.Parameter(torch.tensor(shift))

    def render(self, cameras: Cameras, background: Float[Tensor, "b 3"]) -> RenderOutput:
        out = render_mesh(self.mesh, cameras, background)
        return RenderOutput(out.rgb + self.shift, out.opacity, out.depth, out.normal)

    def learning_rates(self, progress: float) -> dict[str, float]:
        return {"shift": 0.1}


@pytest.fixture(scope="module")
def mug() -> TriangleMesh:
    return WorldPrior(WorldPriorConfig(objects=1)).embed("a red mug").objects[0]


def test_the_truth_scores_best_and_a_shift_costs_what_it_must(mug: TriangleMesh) -> None:
    score = psnr_score(mug, views=2, size=32)
    assert score.larger_is_better
    exact, shifted = (score.of(MeshScene(mug, shift)) for shift in (0.0, 0.5))
    assert exact > 20 > shifted  # the truth is drawn with more samples per pixel
    assert shifted == pytest.approx(-20 * torch.tensor(0.5).log10().item(), abs=0.2)
    assert chamfer_millimeters(MeshScene(mug), mug, views=6, size=32) == pytest.approx(0.0, abs=1e-3)


def test_a_larger_or_empty_scene_is_farther_away(mug: TriangleMesh) -> None:
    larger = TriangleMesh(mug.vertices * 1.1, mug.faces)
    nothing = TriangleMesh(mug.vertices, mug.faces[:0])
    assert 10 < chamfer_millimeters(larger, mug, views=6, size=32) < 100
    assert chamfer_millimeters(nothing, mug, views=6, size=32) == float("inf")


def turned(mesh: TriangleMesh, degrees: float) -> TriangleMesh:
    """About the vertical axis."""
    angle = torch.tensor(degrees).deg2rad()
    c, s = float(angle.cos()), float(angle.sin())
    rotation = torch.tensor([[c, 0.0, s], [0.0, 1.0, 0.0], [-s, 0.0, c]])
    normals = None if mesh.normals is None else mesh.normals @ rotation.T
    return replace(mesh, vertices=mesh.vertices @ rotation.T, normals=normals)


@pytest.mark.parametrize("prompt", ["a yellow duck", "a red car", "a wooden chair"])
def test_views_are_consistent_with_the_truth_where_its_sides_are(prompt: str) -> None:
    truth = WorldPrior(WorldPriorConfig(objects=1)).embed(prompt).objects[0]
    found = [view_consistency(turned(truth, angle), truth, views=8, size=48) for angle in (0.0, 10.0, 90.0, -90.0)]
    assert found == [1.0, 1.0, 0.0, 0.0]


def test_a_face_on_both_sides_costs_the_views_from_behind() -> None:
    truth = WorldPrior(WorldPriorConfig(objects=1)).embed("a yellow duck").objects[0]

    class Janus(MeshScene):
        def render(self, cameras: Cameras, background: Float[Tensor, "b 3"]) -> RenderOutput:
            behind = float(cameras.azimuth[0].abs()) > 90
            return MeshScene(turned(truth, 180.0) if behind else truth).render(cameras, background)

    assert view_consistency(Janus(truth), truth, views=8, size=48) == 0.5


@pytest.mark.parametrize("degrees", [0.0, 7.0, 60.0])
def test_the_error_of_normals_is_their_angle_where_both_are_solid(degrees: float, mug: TriangleMesh) -> None:
    class Tilted(MeshScene):
        def render(self, cameras: Cameras, background: Float[Tensor, "b 3"]) -> RenderOutput:
            out, angle = super().render(cameras, background), math.radians(degrees)
            across = torch.linalg.cross(out.normal, out.normal.roll(1, 1), dim=1)
            tilted = math.cos(angle) * out.normal + math.sin(angle) * torch.nn.functional.normalize(across, dim=1)
            half = torch.arange(cameras.width) < cameras.width / 2  # the rest is left out, so it cannot count
            return replace(out, normal=tilted, opacity=out.opacity * half)

    assert mean_normal_error(Tilted(mug), mug, views=2, size=32) == pytest.approx(degrees, abs=0.05)


def test_there_is_no_error_of_normals_where_nothing_is_drawn(mug: TriangleMesh) -> None:
    nothing = TriangleMesh(mug.vertices, mug.faces[:0])
    assert math.isnan(mean_normal_error(nothing, mug, views=2, size=16))


def test_any_scorer_of_captions_gives_a_distance(mug: TriangleMesh) -> None:
    class Redness:
        def score(self, images: Float[Tensor, "b 3 h w"], captions: Any) -> Float[Tensor, "b c"]:
            assert captions == ["red"] and images.shape == (3, 3, 16, 16)
            return images[:, 0].mean((1, 2))[:, None]

    score = caption_distance(Redness(), "redness", "red", views=3, size=16)
    assert not score.larger_is_better
    assert score.of(MeshScene(mug, -1.0)) == pytest.approx(1.0) and score.of(MeshScene(mug, 1.0)) == pytest.approx(0.0)


def test_clip_answers_as_the_library_does(tmp_path: Path) -> None:
    transformers: Any = pytest.importorskip("transformers")
    tokenizer = clip_tokenizer()
    size = len(tokenizer)
    common = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    ends = {"bos_token_id": size - 2, "eos_token_id": size - 1, "pad_token_id": size - 1}
    torch.manual_seed(0)
    model = transformers.CLIPModel(
        transformers.CLIPConfig(
            text_config={**common, **ends, "vocab_size": size, "max_position_embeddings": 77},
            vision_config={**common, "image_size": 16, "patch_size": 8},
            projection_dim=8,
        )
    ).eval()
    processor = transformers.CLIPImageProcessor(size={"shortest_edge": 16}, crop_size={"height": 16, "width": 16})
    for part in (model, tokenizer, processor):
        part.save_pretrained(tmp_path)
    images = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(1))
    captions = ["a red mug", "a chair"]
    found = TransformersClip(str(tmp_path)).score(images, captions)
    inputs = tokenizer(captions, padding=True, return_tensors="pt")
    pixels = processor(images=list(images), do_rescale=False, return_tensors="pt")["pixel_values"]
    with torch.no_grad():
        expected = model(**inputs, pixel_values=pixels).logits_per_image / model.logit_scale.exp()
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=0)
    with pytest.raises(UserError, match="cannot load a CLIP model from"):
        TransformersClip(str(tmp_path / "nothing"))
