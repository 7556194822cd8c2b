"""Regularizers by the estimator: the baselines' formulas without noise, and where their gradients go."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from steindreamer.distill import GeometryBuffers, GeometryEstimate, GeometryEstimator, NoiseLevel
from steindreamer.distill.control_variates.baselines import DepthBaseline, NormalBaseline
from steindreamer.pipelines.config.run_config import load_config
from steindreamer.pipelines.errors import UserError
from steindreamer.pipelines.geometry_models import EstimatorConfig, load_estimator
from steindreamer.pipelines.optimization.estimated_geometry import ESTIMATED, estimated_regularizers
from steindreamer.pipelines.optimization.stage import Stage
from steindreamer.pipelines.runs.pipeline import Pipeline
from steindreamer.representations import REPRESENTATIONS, Buildable, Cameras, RenderOutput, render_mesh
from steindreamer.world.prior import WorldPrior, WorldPriorConfig

CAMERAS = Cameras.orbit([20.0, 130.0], [10.0, 40.0], height=64)
NAMES = sorted(ESTIMATED)
SMALL = [
    "prior.name=world", "prior.objects=1", "stages.coarse.steps=4", "stages.coarse.resolution=32",
    "stages.coarse.warmup_resolution=32", "stages.coarse.probe_every=0", "export.resolution=24",
]  # fmt: skip


@pytest.fixture(scope="module")
def shipped() -> GeometryEstimator:
    return load_estimator(EstimatorConfig(), torch.device("cpu"))


@pytest.fixture(scope="module")
def duck() -> RenderOutput:
    mesh = WorldPrior(WorldPriorConfig(objects=1)).embed("a yellow duck").objects[0]
    with torch.no_grad():
        return render_mesh(mesh, CAMERAS, torch.ones(2, 3))


def seeing(output: RenderOutput, sign: float = 1.0) -> GeometryEstimator:
    """Answers with what was drawn, or with its opposite; the background's disparity is arbitrary."""
    disparity = torch.where(output.depth > 0, 7 + 3 * sign / output.depth.clamp(min=0.1), -40.0)
    normal = sign * torch.einsum("bji,bjhw->bihw", CAMERAS.camera_to_world[:, :3, :3], output.normal)

    def estimate(image: Tensor, noise_level: Tensor) -> GeometryEstimate:
        return GeometryEstimate(disparity + 0 * image[:, :1], normal + 0 * image)

    return estimate


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(("sign", "value"), [(1.0, 0.0), (-1.0, 2.0)])
def test_an_estimator_that_agrees_costs_nothing_and_its_opposite_two(
    name: str, sign: float, value: float, duck: RenderOutput
) -> None:
    found = estimated_regularizers(seeing(duck, sign))[name](duck, CAMERAS)
    torch.testing.assert_close(found, torch.tensor(value), atol=1e-3, rtol=0)


@pytest.mark.parametrize("name", NAMES)
def test_the_value_is_the_baselines_without_noise(name: str, duck: RenderOutput, shipped: GeometryEstimator) -> None:
    prior = WorldPrior(WorldPriorConfig(objects=1))
    kind = {"estimated_depth": DepthBaseline, "estimated_normal": NormalBaseline}[name]
    baseline = kind(shipped, prior.decode)
    level = NoiseLevel(torch.zeros(2, dtype=torch.long), torch.ones(2, 1, 1, 1), torch.zeros(2, 1, 1, 1))
    geometry = GeometryBuffers(duck.opacity, duck.depth, duck.normal, CAMERAS.camera_to_world)
    expected = -baseline(prior.encode(duck.rgb), level, geometry).mean()
    found = estimated_regularizers(shipped)[name](duck, CAMERAS)
    torch.testing.assert_close(found, expected)
    shuffled = replace(duck, rgb=duck.rgb.flip(0))
    assert estimated_regularizers(shipped)[name](shuffled, CAMERAS) > found + 0.05, (
        "images of other views must cost more"
    )


@pytest.mark.parametrize(("name", "shape"), [("estimated_depth", "depth"), ("estimated_normal", "normal")])
def test_the_gradient_goes_into_image_and_shape_and_not_into_opacity(
    name: str, shape: str, duck: RenderOutput, shipped: GeometryEstimator
) -> None:
    leaves = {each: getattr(duck, each).clone().requires_grad_() for each in ("rgb", "opacity", "depth", "normal")}
    regularizer = estimated_regularizers(shipped)[name]
    before = regularizer(replace(duck, **leaves), CAMERAS)
    before.backward()
    assert leaves["opacity"].grad is None
    for each in ("rgb", shape):
        slope = leaves[each].grad
        assert slope is not None and bool(slope.isfinite().all()) and bool(slope.any())
        after = regularizer(replace(duck, **{each: (leaves[each] - 1e-2 * slope / slope.norm()).detach()}), CAMERAS)
        assert after < before, f"a small step down the gradient of {each} must cost less"


@pytest.mark.parametrize("name", NAMES)
def test_a_image_of_nothing_counts_one_and_pulls_nowhere(name: str, shipped: GeometryEstimator) -> None:
    leaves = {
        each: torch.zeros(2, channels, 16, 16, requires_grad=True)
        for each, channels in (("rgb", 3), ("opacity", 1), ("depth", 1), ("normal", 3))
    }
    cameras = Cameras.orbit([0.0, 90.0], [0.0, 0.0], height=16)
    output = RenderOutput(leaves["rgb"], leaves["opacity"], leaves["depth"], leaves["normal"])
    value = estimated_regularizers(shipped)[name](output, cameras)
    value.backward()
    assert value == 1 and not any(leaf.grad is not None and bool(leaf.grad.any()) for leaf in leaves.values())


@pytest.mark.parametrize(
    "representation",
    [k for k, kind in REPRESENTATIONS.items() if issubclass(kind, Buildable) and getattr(kind, "trains_shape", True)],
)
def test_a_stage_weighs_them_on_every_representation(representation: str) -> None:
    weights = [f"stages.coarse.regularizers.{name}=0.05" for name in NAMES]
    config = load_config(representation=representation, method="sds", refine=False, overrides=[*SMALL, *weights])
    pipeline = Pipeline(config)
    assert pipeline._estimator is not None
    info = pipeline.first().step()
    assert not info.skipped and all(0 < info.values[name] < 2 for name in NAMES)


def test_the_estimator_is_one_for_regularizers_and_method_and_absent_without_a_weight() -> None:
    def built(*settings: str) -> Pipeline:
        return Pipeline(load_config(method="ssd", refine=False, overrides=[*SMALL, *settings]))

    weight = "stages.coarse.regularizers.estimated_depth="
    assert built(weight + "0")._estimator is None
    assert built(weight + "{from: 0, to: 1}")._estimator is not None
    with pytest.raises(UserError, match="/no/such/folder"):
        built(weight + "1", "estimator.model=/no/such/folder")


def test_a_stage_without_an_estimator_says_so_and_misspelt_names_are_matched() -> None:
    stage = Pipeline(load_config(method="sds", refine=False, overrides=SMALL)).first()
    weighed = replace(stage.config, regularizers={"estimated_normal": 1.0})
    parts = stage.representation, stage.distillers, stage.prior, stage.embedding
    with pytest.raises(ValueError, match="regularizers estimated_normal need a geometry estimator"):
        Stage(*parts, weighed, stage.generator)
    with pytest.raises(UserError, match="did you mean 'estimated_depth'"):
        Stage(*parts, replace(stage.config, regularizers={"estimated_deph": 1.0}), stage.generator)


def test_it_can_be_given_in_the_settings_of_a_run(tmp_path: Path) -> None:
    from steindreamer.pipelines import generate

    settings = [*SMALL, "stages.coarse.regularizers.estimated_depth=0.1", "output.log_every=1", "export.enabled=false"]
    config = load_config(method="sds", refine=False, overrides=settings)
    generate(config, tmp_path)
    assert '"estimated_depth"' in (tmp_path / "metrics.jsonl").read_text()
