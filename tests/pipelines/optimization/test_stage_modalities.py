"""Stages that distill several modalities: what is drawn, what is shown, what is asked, and what learns."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from jaxtyping import Float
from safetensors.torch import load_file
from torch import Tensor, nn

from steindreamer.distill import METHODS, ControlVariateConfig, Distiller, NoiseRequest, NoiseSchedule, SSDConfig
from steindreamer.distill.priors.diffusion.prior import DiffusersPrior
from steindreamer.distill.priors.modalities import MODALITIES, encode_depth, encode_normal
from steindreamer.pipelines.cli.main import main
from steindreamer.pipelines.config.run_config import load_config
from steindreamer.pipelines.errors import SettingsError, UserError
from steindreamer.pipelines.optimization.component_checks import built_prior
from steindreamer.pipelines.optimization.modalities import draw_modality
from steindreamer.pipelines.optimization.shading import ShadingConfig
from steindreamer.pipelines.optimization.stage import Stage
from steindreamer.pipelines.optimization.stage_config import StageConfig
from steindreamer.pipelines.optimization.views import ViewsConfig
from steindreamer.pipelines.runs.pipeline import Pipeline
from steindreamer.representations import Cameras, RenderOutput, Representation

COLORS = {"color": (0.9, 0.2, 0.4), "albedo": (0.3, 0.3, 0.8), "normal": (0.5, 0.5, 1.0), "depth": (0.6, 0.6, 0.6)}
MIX = {"color": 0.25, "normal": 0.375, "depth": 0.375}


class Wall(Representation):
    """One color, depth and normal everywhere, each with a parameter of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.color = nn.Parameter(torch.full((3,), 0.5))
        self.distance = nn.Parameter(torch.tensor(3.0))
        self.direction = nn.Parameter(torch.tensor([0.1, 0.2, 1.0]))

    def render(self, cameras: Cameras, background: Float[Tensor, "b 3"]) -> RenderOutput:
        full = torch.ones(len(cameras), 1, cameras.height, cameras.width)
        normal = nn.functional.normalize(self.direction, dim=0)[None, :, None, None] * full
        return RenderOutput(self.color[None, :, None, None] * full, full, self.distance * full, normal)

    def learning_rates(self, progress: float) -> dict[str, float]:
        return {"color": 0.02, "distance": 0.02, "direction": 0.02}


class ColorPrior:
    """Knows color alone, and notes what it is asked: a constant image per modality."""

    schedule = NoiseSchedule.scaled_linear()
    device = torch.device("cpu")

    def __init__(self) -> None:
        self.backgrounds: list[tuple[str, Tensor]] = []

    def embed(self, prompt: str, negative_prompt: str = "") -> None:
        return None

    def condition(self, embedding: Any, cameras: Any, background: Tensor) -> str:
        return self._noted("color", background)

    def _noted(self, modality: str, background: Tensor) -> str:
        self.backgrounds.append((modality, background))
        return modality

    def encode(self, image: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b 3 h w"]:
        return image * 2 - 1

    def decode(self, latent: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b 3 h w"]:
        return latent / 2 + 0.5

    def predict_noise(self, requests: Sequence[NoiseRequest], condition: str) -> list[Tensor]:
        wanted = 2 * torch.tensor(COLORS[condition]).reshape(1, 3, 1, 1) - 1
        return [(r.sample.noisy - r.sample.alpha * wanted) / r.sample.sigma for r in requests]


class MultiPrior(ColorPrior):
    """Knows all modalities."""

    modalities = MODALITIES
    crops = False

    def condition(self, embedding: Any, cameras: Any, background: Tensor, modality: str = "color") -> str:
        return self._noted(modality, background)


def made(prior: ColorPrior | None = None, method: str = "ssd", seed: int = 0, **settings: Any) -> tuple[Stage, Wall]:
    prior, scene = prior or MultiPrior(), Wall()
    config = StageConfig(**{"steps": 400, "resolution": 16, "warmup_resolution": 16, **settings})
    distillers = {name: METHODS[method]().build(prior, None) for name in config.fractions}
    return Stage(scene, distillers, prior, None, config, torch.Generator().manual_seed(seed)), scene


def test_fractions_are_normalized_and_color_alone_is_the_default() -> None:
    assert StageConfig().fractions == {"color": 1.0}
    assert StageConfig(modalities={"depth": 3, "color": 1, "normal": 0}).fractions == {"color": 0.25, "depth": 0.75}
    assert list(StageConfig(modalities=dict.fromkeys(reversed(MODALITIES), 1.0)).fractions) == list(MODALITIES)


def test_fractions_are_those_of_the_steps() -> None:
    generator = torch.Generator().manual_seed(0)
    drawn = Counter(draw_modality(MIX, generator) for _ in range(4000))
    assert {name: count / 4000 for name, count in drawn.items()} == pytest.approx(MIX, abs=0.03)
    stage, _ = made(method="sds", modalities=MIX)
    steps = Counter(stage.step().modality for _ in range(120))
    assert {name: count / 120 for name, count in steps.items()} == pytest.approx(MIX, abs=0.12)


def test_one_modality_takes_no_random_number() -> None:
    generator = torch.Generator().manual_seed(0)
    before = generator.get_state()
    assert draw_modality({"normal": 1.0}, generator) == "normal"
    assert generator.get_state().equal(before)


def test_a_prior_of_color_alone_and_one_of_all_give_the_same_bits_for_color() -> None:
    """The first is asked without a modality."""
    (one, first), (other, second) = made(ColorPrior()), made(MultiPrior(), modalities={"color": 7})
    for _ in range(3):
        assert one.step() == other.step()
    assert first.color.equal(second.color)


def test_each_modality_is_asked_about_its_own_image() -> None:
    stage, scene = made(method="sds", modalities=dict.fromkeys(("color", "normal", "depth"), 1), rates=1.0)
    views = ViewsConfig(per_step=3)
    for name in ("color", "normal", "depth"):
        view = stage.render_views(views, torch.Generator().manual_seed(1), name)
        output = view.output
        expected = {
            "color": output.rgb,
            "normal": encode_normal(output.normal, output.opacity, view.cameras),
            "depth": encode_depth(output.depth, output.opacity, view.cameras),
        }[name]
        assert view.modality == view.condition == name
        torch.testing.assert_close(view.image, expected, rtol=0, atol=0)
        assert view.render_again()[1].equal(view.image), "the coefficients' Gram operator differentiates the same image"
    assert isinstance(stage.prior, MultiPrior)
    black = {name: not bool(background.any()) for name, background in stage.prior.backgrounds}
    assert black == {"color": False, "normal": True, "depth": True}
    for _ in range(200):
        stage.step()
    torch.testing.assert_close(scene.color.detach(), torch.tensor(COLORS["color"]), atol=0.05, rtol=0)
    # Gray 0.6 is 0.2 m in front of the center, for cameras at 3.2 m on average.
    assert float(scene.distance.detach()) == pytest.approx(3.0, abs=0.06)


def test_albedo_is_unlit_and_color_is_lit() -> None:
    shading = ShadingConfig(enabled=True, begin=0.0, shaded=1.0, textureless=0.0)
    stage, _ = made(modalities={"color": 1, "albedo": 1}, shading=shading)
    color, albedo = (
        stage.render_views(ViewsConfig(), torch.Generator().manual_seed(1), name) for name in ("color", "albedo")
    )
    assert albedo.image.equal(albedo.output.rgb) and color.output.rgb.equal(albedo.output.rgb)
    assert float((color.image - albedo.image).detach().abs().max()) > 0.05


def test_a_learned_background_is_behind_colors_only() -> None:
    stage, _ = made(modalities={"albedo": 1, "depth": 1}, environment=True)
    for name in ("albedo", "depth"):
        stage.render_views(ViewsConfig(), torch.Generator().manual_seed(1), name)
    assert isinstance(stage.prior, MultiPrior)
    (_, gray), (_, black) = stage.prior.backgrounds
    assert gray.any() and not black.any()


def test_what_learns_is_kept_by_modality() -> None:
    stage, _ = made(modalities={"color": 1, "normal": 1})
    tensors = stage.tensors()
    own = {
        name: {k: v.clone() for k, v in tensors.items() if k.startswith(f"distiller.{name}.")} for name in MODALITIES
    }
    assert own["color"].keys() and not own["depth"] and len(own["color"]) == len(own["normal"])
    for _ in range(12):
        before = {name: value.clone() for name, value in stage.tensors().items()}
        stepped = stage.step().modality
        changed = {
            k.split(".")[1] for k, v in stage.tensors().items() if k.startswith("distiller.") and _new(v, before[k])
        }
        assert changed == {stepped}


def _new(value: Tensor, before: Tensor) -> bool:
    return value.shape != before.shape or not value.equal(before)


def test_the_state_of_two_modalities_continues_bitwise() -> None:
    settings: dict[str, Any] = {"modalities": {"color": 1, "normal": 2}, "probe_every": 3, "probe_tuples": 8}
    (whole, scene), (first, _), (second, resumed) = made(**settings), made(**settings), made(seed=9, **settings)
    infos = [whole.step() for _ in range(9)]
    for _ in range(4):
        first.step()
    second.load_tensors({name: tensor.clone() for name, tensor in first.tensors().items()})
    assert [second.step().loss for _ in range(5)] == [info.loss for info in infos[4:]]
    assert all(value.equal(other) for value, other in zip(scene.parameters(), resumed.parameters(), strict=True))
    assert {info.modality for info in infos} == {"color", "normal"}
    for info in infos:
        assert info.values[f"loss/{info.modality}"] == info.loss
        assert ("probe/own/noise" in info.values) == (info.step % 3 == 0)


def test_the_probe_measures_one_modality() -> None:
    stage, _ = made(modalities={"color": 1, "normal": 2})
    assert stage.modality == "normal" and stage.distiller is stage.distillers["normal"]
    assert isinstance(stage.prior, MultiPrior)
    for wanted, expected in ((None, "normal"), ("color", "color")):
        stage.prior.backgrounds.clear()
        stage.probe({}, 8, torch.Generator().manual_seed(0), wanted)
        assert {name for name, _ in stage.prior.backgrounds} == {expected}


def test_second_moment_coefficients_learn_from_the_image_of_the_step() -> None:
    prior, scene = MultiPrior(), Wall()
    config = StageConfig(steps=10, resolution=16, warmup_resolution=16, modalities={"depth": 1})
    distiller = SSDConfig(control_variates=ControlVariateConfig(["noise"], "second_moment")).build(prior, None)
    stage = Stage(scene, distiller, prior, None, config, torch.Generator().manual_seed(0))
    view = stage.render_views(config.views, torch.Generator().manual_seed(0))
    ones = torch.ones_like(view.image)
    # A depth image is 2 (0.5 - 0.5 (depth - d)) - 1 in the prior's space: its Jacobian for the distance is -1.
    torch.testing.assert_close(stage.renderer.gram(view)(ones), ones.sum().expand_as(ones), rtol=1e-3, atol=1e-3)


def test_normals_as_colors_are_asked_for_explicitly() -> None:
    stage, _ = made(ColorPrior(), modalities={"normal": 1}, normals_as_color=True)
    view = stage.render_views(ViewsConfig(), torch.Generator().manual_seed(1))
    assert view.condition == "color" and view.modality == "normal" and not stage.prior.backgrounds[0][1].any()  # pyright: ignore[reportAttributeAccessIssue]
    assert view.image.equal(0.5 * view.output.normal + 0.5), "in world space"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"modalities": {"depth": 1}},
            r"^stages\.coarse\.modalities asks for 'depth', but ColorPrior supports color: choose ",
        ),
        ({"modalities": {"normal": 1}}, r"or give it normal maps .* \(stages\.coarse\.normals_as_color=true\)"),
    ],
)
def test_what_a_prior_does_not_know_is_an_error_that_names_the_setting(settings: Any, message: str) -> None:
    with pytest.raises(SettingsError, match=message) as caught:
        made(ColorPrior(), **settings)
    assert "\n" not in str(caught.value)


def test_parts_of_images_need_a_prior_that_knows_them() -> None:
    message = r"^stages\.coarse\.views\.crop_fraction=0\.5 shows parts of images, but MultiPrior only knows whole ones"
    with pytest.raises(SettingsError, match=message):
        made(MultiPrior(), views=ViewsConfig(crop_fraction=0.5))
    prior = MultiPrior()
    prior.crops = True
    made(prior, views=ViewsConfig(crop_fraction=0.5))[0].step()


def test_a_prior_without_color_says_so() -> None:
    prior = MultiPrior()
    prior.modalities = ("normal",)
    made(prior, modalities={"normal": 1})[0].step()
    with pytest.raises(
        SettingsError, match=r"asks for 'color', but MultiPrior supports normal: .*\{normal: 1, color: 0\}"
    ):
        made(prior)
    with pytest.raises(SettingsError, match=r"set stages\.coarse\.normals_as_color=false"):
        made(prior, modalities={"normal": 1}, normals_as_color=True)


@dataclass
class Given:
    """A prior's configuration that builds this prior."""

    prior: Any

    def build(self, device: torch.device) -> Any:
        return self.prior


def test_a_prior_that_misstates_its_modalities_is_refused() -> None:
    strange, silent = MultiPrior(), ColorPrior()
    strange.modalities = ("color", "heat")  # pyright: ignore[reportAttributeAccessIssue]
    with pytest.raises(
        UserError, match=r"MultiPrior.modalities is \('color', 'heat'\); it must be a tuple of some of color, albedo"
    ):
        built_prior(Given(strange), torch.device("cpu"))
    assert built_prior(Given(silent), torch.device("cpu")) is silent
    silent.modalities = ("color", "normal")  # pyright: ignore[reportAttributeAccessIssue]
    with pytest.raises(
        UserError, match=r"ColorPrior.condition\(.* cannot be called as its protocol requires: too many"
    ):
        built_prior(Given(silent), torch.device("cpu"))


def test_settings_that_contradict_each_other_are_refused() -> None:
    with pytest.raises(ValueError, match="modalities are all 0"):
        StageConfig(modalities={"color": 0})
    with pytest.raises(ValueError, match="normals_as_color applies to normal maps"):
        StageConfig(normals_as_color=True)
    prior, config = MultiPrior(), StageConfig(modalities={"color": 1, "normal": 1})
    single: Distiller = METHODS["sds"]().build(prior, None)
    with pytest.raises(ValueError, match=r"its own distiller, but none was given for \['color', 'normal'\]"):
        Stage(Wall(), single, prior, None, config, torch.Generator())


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("stages.coarse.modalities.norml=1", r"stages\.coarse\.modalities.*norml.*color, albedo, normal"),
        ("stages.coarse.modalities={depth: -1}", r"stages\.coarse\.modalities\.depth is -1"),
        ("stages.coarse.modalities={depth: 0}", r"stages\.coarse\.modalities are all 0"),
        ("stages.coarse.normals=0.5", r"'stages\.coarse\.normals' was renamed to 'stages\.coarse\.modalities\.normal'"),
    ],
)
def test_bad_settings_name_the_key(override: str, message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        load_config(None, overrides=[override])


TINY = [
    "--repr", "gaussians", "--prior", "world", "--prompt", "a red mug", "--quiet", "prior.objects=2",
    "prior.unconditional_objects=2", "representation.count=60", "stages.coarse.steps=6", "stages.coarse.resolution=24",
    "stages.coarse.warmup_resolution=24", "stages.coarse.probe_every=2",
    "stages.coarse.modalities={albedo: 0, normal: 0, color: 1, depth: 1}",
    "export.enabled=false", "refine=false", "output.checkpoint_every=3", "output.preview_every=0",
    "output.turntable_frames=0", "output.image_size=32", "output.log_every=1",
]  # fmt: skip


def test_a_run_of_two_modalities_resumes_in_the_same_bits_and_logs_them(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    assert main(["--out", str(folder), *TINY]) == 0
    last = folder / "checkpoints" / "000006.safetensors"
    whole, log = load_file(last), _log(folder)
    for suffix in ("json", "safetensors"):
        last.with_suffix(f".{suffix}").unlink()
    assert main(["--resume", "--out", str(folder), "--quiet"]) == 0
    again = load_file(last)
    assert whole.keys() == again.keys() and all(whole[name].equal(again[name]) for name in whole)
    assert log == _log(folder)
    assert {name for line in log for name in line["modalities"]} == {"color", "depth"}
    assert all(line[f"loss/{next(iter(line['modalities']))}"] == line["loss"] for line in log)


def _log(folder: Path) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{key: value for key, value in line.items() if key != "seconds_per_step"} for line in lines]


def test_a_run_that_cannot_be_is_refused_before_its_first_step(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*overrides: str, prior: str = "tiny") -> str:
        config = load_config(None, prior=prior, prompt="a red mug", overrides=overrides)
        with pytest.raises(UserError) as caught:
            Pipeline(config).first()
        return str(caught.value)

    monkeypatch.setattr(DiffusersPrior, "modalities", ("color",))
    assert "stages.geometry.modalities asks for 'normal', but TinyPrior supports color" in refused(
        "stages.geometry.modalities={color: 1, normal: 1}"
    )
    assert "stages.texture.modalities asks for 'depth', but textured_mesh only trains colors" in refused(
        "stages.texture.modalities={albedo: 1, depth: 1}", prior="world"
    )
