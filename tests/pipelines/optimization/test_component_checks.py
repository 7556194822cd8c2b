"""Components that break their contract are reported in one line before the first step, whoever wrote them."""

from __future__ import annotations

import math
import runpy
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor, nn

from steindreamer.distill import (
    CONTROL_VARIATES,
    METHODS,
    Draw,
    Estimate,
    GeometryEstimate,
    NoiseRequest,
    NoiseSchedule,
    Residual,
    ResidualConfig,
    register_control_variate,
)
from steindreamer.pipelines.cli.run import main
from steindreamer.pipelines.config.run_config import load_config
from steindreamer.pipelines.errors import UserError
from steindreamer.pipelines.optimization.component_checks import Rehearsal
from steindreamer.pipelines.optimization.render_checks import IMAGES
from steindreamer.pipelines.priors import PRIORS
from steindreamer.pipelines.runs.pipeline import Pipeline
from steindreamer.representations import REPRESENTATIONS, Cameras, RenderOutput, Representation

TINY = ["prompt=a red mug", "refine=false", "stages.coarse.steps=2", "stages.coarse.resolution=16",
        "stages.coarse.warmup_resolution=16", "export.enabled=false"]  # fmt: skip


class Card(Representation):
    """A disc that faces every camera, with a color that learns and a mark of where it is seen from."""

    change: ClassVar[Callable[[dict[str, Any], Cameras], Any]] = staticmethod(lambda images, cameras: None)
    rate: ClassVar[float] = 0.02
    regularizer: ClassVar[Any] = None

    def __init__(self) -> None:
        super().__init__()
        self.color = nn.Parameter(torch.full((3,), 0.5))

    def render(self, cameras: Cameras, background: Tensor) -> RenderOutput:
        size = cameras.height
        axis = (torch.arange(size) + 0.5) / size * 2 - 1
        disc = (axis[:, None] ** 2 + axis**2 < 0.5).float().expand(len(cameras), 1, size, size)
        mark = 0.5 + 0.25 * cameras.forward[:, :, None, None]
        rgb = disc * self.color[:, None, None] * mark + (1 - disc) * background[:, :, None, None]
        images = {"rgb": rgb, "opacity": disc, "depth": 3 * disc, "normal": -cameras.forward[:, :, None, None] * disc}
        changed = type(self).change(images, cameras)
        return RenderOutput(**images) if changed is None else changed  # pyright: ignore[reportArgumentType]

    def learning_rates(self, progress: float) -> dict[str, float]:
        return {"color": self.rate}

    def regularizers(self) -> dict[str, Any]:
        return {} if self.regularizer is None else {"own": self.regularizer}


@dataclass
class CardConfig:
    def build(self, generator: torch.Generator, device: torch.device) -> Representation:
        del generator
        return Card().to(device)


class OneColor:
    """Believes in gray."""

    schedule = NoiseSchedule.scaled_linear()
    device = torch.device("cpu")
    change: ClassVar[Callable[[list[Tensor]], Any]] = staticmethod(lambda predictions: predictions)

    def __init__(self) -> None:
        self.calls, self.generator = 0, torch.Generator().manual_seed(0)
        self.norm = nn.BatchNorm2d(3)
        self.seen = torch.zeros(3)

    def embed(self, prompt: str, negative_prompt: str = "") -> Any:
        return None

    def condition(self, embedding: Any, cameras: Any, background: Tensor) -> Any:
        return None

    def encode(self, image: Tensor) -> Any:
        return image * 2 - 1

    def decode(self, latent: Tensor) -> Tensor:
        return latent / 2 + 0.5

    def predict_noise(self, requests: Sequence[NoiseRequest], condition: Any) -> Any:
        self.calls += 1
        torch.rand((), generator=self.generator)
        torch.rand(())
        for request in requests:
            self.norm(request.sample.noisy)
        self.seen += 1
        return type(self).change([request.sample.noisy / request.sample.sigma for request in requests])


@dataclass
class OneColorConfig:
    def build(self, device: torch.device) -> Any:
        del device
        return OneColor()


class Halved(Residual):
    change: ClassVar[Callable[[Tensor], Any]] = staticmethod(lambda value: Estimate(value, value))

    def __call__(self, draw: Draw) -> Any:
        return type(self).change(draw.predict("positive")[0] / 2)


@dataclass
class HalvedConfig(ResidualConfig):
    def residual(self) -> Residual:
        return Halved()


@pytest.fixture(autouse=True)
def registered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(REPRESENTATIONS, "card", CardConfig)
    monkeypatch.setitem(PRIORS, "one-color", OneColorConfig)
    monkeypatch.setitem(METHODS, "halved", HalvedConfig)


def _first(*overrides: str, method: str = "sds", representation: str = "card", prior: str = "one-color") -> Any:
    return Pipeline(
        load_config(None, representation=representation, method=method, prior=prior, overrides=[*TINY, *overrides])
    ).first()


def _refused(*overrides: str, **names: str) -> str:
    with pytest.raises(UserError) as caught:
        _first(*overrides, **names)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def _set(**changes: Callable[[Tensor], Tensor]) -> Callable[[dict[str, Any], Cameras], None]:
    return lambda images, cameras: images.update({name: of(images[name]) for name, of in changes.items()})


def _mixed(images: dict[str, Any], cameras: Cameras) -> None:
    images["rgb"] = 0.5 * (images["rgb"] + images["rgb"].mean(0, keepdim=True))


def _last_for_all(images: dict[str, Any], cameras: Cameras) -> None:
    images["rgb"] = images["rgb"][-1:].expand(len(cameras), -1, -1, -1)


def _random(images: dict[str, Any], cameras: Cameras) -> None:
    images["rgb"] = 0.5 * images["rgb"] + 0.5 * torch.rand(images["rgb"].shape)


IMAGE_CASES = {
    "batch 1": (_set(**dict.fromkeys(IMAGES, lambda x: x[:1])), "one image per camera"),
    "0 to 255": (_set(rgb=lambda x: 255 * x), r"Card.render rendered rgb from 2.* to 2.*divide by 255"),
    "below 0": (_set(rgb=lambda x: 2 * x - 1), r"rgb from -.*\[0, 1\]"),
    "opacity in percent": (_set(opacity=lambda x: 100 * x), "opacity from 0 to 100"),
    "float64": (_set(rgb=lambda x: x.double()), "torch.float64 on cpu; it must be float32"),
    "NaN": (_set(depth=lambda x: x * math.nan), "depth with .* not finite"),
    "negative depth": (_set(depth=lambda x: -x), "a depth of -3"),
    "depth where empty": (_set(depth=lambda x: x + 1), "depth of 1 where the opacity is 0"),
    "normal where empty": (_set(normal=lambda x: x + 0.5), "normal of .* where the opacity is 0"),
    "long normals": (_set(normal=lambda x: 3 * x), "normals of length 3"),
    "normals away": (_set(normal=lambda x: -x), "face away"),
    "detached": (_set(rgb=lambda x: x.detach()), "without a gradient for any parameter.*color.*remove no_grad"),
    "mixed": (_mixed, "a different rgb for a camera in a batch"),
    "one camera for all": (_last_for_all, "a different rgb for a camera in a batch"),
    "random": (_random, "differently the second time"),
    "no RenderOutput": (lambda images, cameras: images["rgb"], "must return a RenderOutput, got a Tensor"),
    "raises": (lambda images, cameras: images["color"], "Card.render raised KeyError: 'color'"),
}  # fmt: skip


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("fault", IMAGE_CASES)
def test_images_that_break_the_contract(fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    change, message = IMAGE_CASES[fault]
    monkeypatch.setattr(Card, "change", staticmethod(change))
    with pytest.raises(UserError, match=message) as caught:
        _first()
    # With the shapes of annotations asserted in tests, some faults are found by those; the line is one all the same.
    assert "Card.render" in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("image", "value", "message"),
    [
        ("rgb", torch.zeros(2, 8, 8, 3), r"rgb must be a tensor of shape \(b, 3, h, w\), got \(2, 8, 8, 3\)"),
        ("opacity", torch.zeros(2, 8, 8), r"opacity must be a tensor of shape \(2, 1, 8, 8\), got \(2, 8, 8\)"),
        ("opacity", torch.zeros(1, 1, 8, 8), "opacity must be"),
        ("opacity", torch.zeros(2, 1, 8, 8, dtype=torch.bool), "floating-point numbers, got torch.bool"),
        ("depth", torch.zeros(2, 1, 4, 4), "depth must be"),
        ("normal", torch.zeros(2, 1, 8, 8), "normal must be"),
        ("normal", None, "got NoneType"),
    ],
)
def test_images_of_wrong_shapes_cannot_be_returned(image: str, value: Any, message: str) -> None:
    images = {"rgb": torch.zeros(2, 3, 8, 8), "opacity": torch.zeros(2, 1, 8, 8), "depth": torch.zeros(2, 1, 8, 8)}
    whole = SimpleNamespace(**{**images, "normal": torch.zeros(2, 3, 8, 8), image: value})
    with pytest.raises(ValueError, match=message):  # the tests' own assertions of annotations would come first
        RenderOutput.__post_init__(whole)  # pyright: ignore[reportArgumentType]


def test_rates_parameters_and_regularizers(monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(Card, "rate", math.nan)
        assert "returned nan for 'color'" in _refused()
    with monkeypatch.context() as patch:
        patch.setattr(Card, "regularizer", torch.zeros(2))
        assert "must be a tensor of shape (), got (2,)" in _refused()
    with monkeypatch.context() as patch:
        patch.setattr(Card, "regularizer", torch.tensor(math.inf))
        assert "is inf before the first step" in _refused()
    with monkeypatch.context() as patch:
        patch.setattr(Card, "render_terms", ("thickness",))
        assert "not return the term 'thickness'" in _refused()
    with monkeypatch.context() as patch:
        patch.setattr(CardConfig, "build", lambda self, generator, device: nn.Linear(1, 1))
        assert "must return a Representation, got a Linear" in _refused()


ANSWERS = {
    "batch 1": (lambda noise: [each[:1] for each in noise], r"shape \(2, 3, 16, 16\); got .*\(1, 3"),
    "smaller": (lambda noise: [each[..., :4] for each in noise], r"got float32 of shape \(2, 3, 16, 4\)"),
    "bare": (lambda noise: noise[0], r"must return a list of one prediction per request: 2, got float32 of shape"),
    "positive only": (lambda noise: noise[:1], "must return a list of one prediction per request: 2, got 1"),
    "None": (lambda noise: [noise[0], None], "got None for the negative prompt"),
    "NaN": (lambda noise: [each * math.nan for each in noise], "predict_noise returned 1536 of 1536 values"),
}  # fmt: skip


@pytest.mark.parametrize("fault", ANSWERS)
def test_answers_that_break_the_contract(fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    change, message = ANSWERS[fault]
    monkeypatch.setattr(OneColor, "change", staticmethod(change))
    with pytest.raises(UserError, match=message) as caught:
        _first()
    assert "OneColor" in str(caught.value) and "\n" not in str(caught.value)


ENCODERS = {
    "detached": (lambda self, image: image.detach() * 2, "OneColor.encode must be differentiable"),
    "batch 1": (lambda self, image: image[:1], r"OneColor.encode must return .*\(2, c, h, w\).*\(1, 3, 16, 16\)"),
    "flat": (lambda self, image: image.flatten(1), "OneColor.encode must return"),
    "NaN": (lambda self, image: image * math.nan, "OneColor.encode returned 1536 of 1536 values"),
    "raises": (lambda self, image: image.missing, "OneColor.* raised AttributeError"),
}  # fmt: skip


@pytest.mark.parametrize("fault", ENCODERS)
def test_encoders_that_break_the_contract(fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    encode, message = ENCODERS[fault]

    def wrapped(self: OneColor, image: Tensor) -> Any:
        return encode(self, image)

    monkeypatch.setattr(OneColor, "encode", wrapped)
    with pytest.raises(UserError, match=message):
        _first()


def test_what_is_no_prior(monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.delattr(OneColor, "condition")
        assert "OneColor, which is not a prior: it lacks condition" in _refused()
    with monkeypatch.context() as patch:
        patch.setattr(OneColor, "device", "cpu")
        assert "OneColor.device must be a torch.device, got 'cpu'" in _refused()
    levels = NoiseSchedule.scaled_linear()
    with monkeypatch.context() as patch:
        patch.setattr(OneColor, "schedule", NoiseSchedule(levels.alphas.flip(0), levels.sigmas.flip(0)))
        assert "timestep 0 must be the least noisy" in _refused()
    with monkeypatch.context() as patch:
        patch.setattr(OneColor, "schedule", replace(levels, sigmas=levels.sigmas * math.nan))
        assert "not finite" in _refused()
    with monkeypatch.context() as patch:
        patch.setattr(OneColorConfig, "build", lambda self, device: {}["weights"])
        assert "raised KeyError: 'weights'" in _refused()


def test_classes_that_are_no_configurations(monkeypatch: pytest.MonkeyPatch) -> None:
    class Plain:
        def build(self, device: torch.device) -> Any:
            return OneColor()

    monkeypatch.delitem(PRIORS, "one-color")
    monkeypatch.setitem(PRIORS, "one-color", Plain)
    assert "PRIORS['one-color'] must be a dataclass with a method build, got the class Plain" in _refused()
    monkeypatch.delitem(METHODS, "sds")
    monkeypatch.setitem(METHODS, "sds", CardConfig)
    assert "METHODS['sds'] must be a dataclass that extends MethodConfig" in _refused(prior="world")
    monkeypatch.delitem(REPRESENTATIONS, "card")
    monkeypatch.setitem(REPRESENTATIONS, "card", Card)
    assert "REPRESENTATIONS['card'] must be a dataclass" in _refused(prior="world", method="csd")


def _mean_of_all(noisy: Tensor, level: Any, geometry: Any) -> Tensor:
    return -torch.sigmoid(noisy.mean()).expand(len(noisy))


def _centered(noisy: Tensor, level: Any, geometry: Any) -> Tensor:
    return -torch.sigmoid((noisy - noisy.mean(0, keepdim=True)).square().mean((1, 2, 3)))


def _sees_all_geometry(noisy: Tensor, level: Any, geometry: Any) -> Tensor:
    return -torch.sigmoid(noisy.mean((1, 2, 3)) + geometry.opacity.mean())


def _dropped(noisy: Tensor, level: Any, geometry: Any) -> Tensor:
    return -torch.sigmoid(nn.functional.dropout(noisy, 0.5).mean((1, 2, 3)))


def _not_a_number(noisy: Tensor, level: Any, geometry: Any) -> Tensor:
    return -noisy.mean((1, 2, 3)) / 0


def _scalar(noisy: Tensor, level: Any, geometry: Any) -> Tensor:
    return -noisy.mean()


def _careless(noisy: Tensor, level: Any, geometry: Any) -> Tensor:
    return geometry.brightness


def test_baselines_that_break_the_contract() -> None:
    faults = {
        _mean_of_all: "'own' mixes the images of a batch",
        _centered: "'own' mixes the images of a batch",
        _sees_all_geometry: "'own' mixes the images of a batch",
        _dropped: "'own' returns different values for the same images",
        _not_a_number: "'own' returned",
        _scalar: "baseline 'own' must return one floating-point number per image",
        _careless: "_careless raised AttributeError",
    }
    for function, message in faults.items():
        CONTROL_VARIATES.pop("own", None)
        register_control_variate("own")(function)
        assert message in _refused("method.control_variates.terms=[own]", method="ssd"), function


@pytest.mark.parametrize("name", ["noise", "spectral", "learned", "low_rank", "depth", "", "two words", "a,b"])
def test_names_that_a_baseline_cannot_have(name: str) -> None:
    with pytest.raises(ValueError, match=r"choose another name|is not a valid name"):
        register_control_variate(name)(_mean_of_all)


def test_methods_that_break_the_contract(monkeypatch: pytest.MonkeyPatch) -> None:
    faults: dict[str, Callable[[Tensor], Any]] = {
        "must return an Estimate, got a Tensor": lambda value: value,
        "Halved's Estimate.value must hold floating-point numbers of shape (2, 3, 16, 16)": lambda value: Estimate(
            value[:1], None
        ),
        "residual Halved is nan": lambda value: Estimate(value * math.nan, None),
        "Halved.__call__ raised ZeroDivisionError": lambda value: 1 // 0,
    }
    for message, change in faults.items():
        monkeypatch.setattr(Halved, "change", staticmethod(change))
        assert message in _refused(method="halved"), message
    with monkeypatch.context() as patch:
        patch.setattr(HalvedConfig, "build", lambda self, prior, estimator=None: nn.Identity())
        assert "HalvedConfig.build must return a Distiller, got a Identity" in _refused(method="halved")


class Flat(nn.Module):
    """An estimator that says that everything is near where it is bright."""

    def __init__(self, change: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.change = change

    def forward(self, image: Tensor, noise_level: Tensor) -> GeometryEstimate:
        disparity = self.change(image.mean(1, keepdim=True))
        away = torch.tensor([0.0, 0.0, -1.0])[:, None, None] * torch.ones_like(disparity[:, :1])
        return GeometryEstimate(disparity, away + 0 * disparity[:, :1])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda x: x.detach(), "Flat must be differentiable"),
        (lambda x: x - x.mean(0, keepdim=True), "Flat mixes the images of a batch"),
        (lambda x: x / 0, "Flat estimated disparity with"),
        (lambda x: x.expand(-1, 2, -1, -1), "Flat must estimate disparity of shape|Flat.forward raised"),
        (lambda x: x, ""),
    ],
)
def test_estimators_that_break_the_contract(change: Callable[[Tensor], Tensor], message: str) -> None:
    pipeline = Pipeline(load_config(None, representation="card", method="sds", prior="one-color", overrides=TINY))
    pipeline._estimator = Flat(change)
    if not message:
        pipeline.first()
        return
    with pytest.raises(UserError, match=message):
        pipeline.first()


def test_the_rehearsal_leaves_no_trace(monkeypatch: pytest.MonkeyPatch) -> None:
    def run(rehearse: bool) -> list[Tensor]:
        with monkeypatch.context() as patch:
            if not rehearse:
                patch.setattr(Rehearsal, "stage", lambda self, *given, **more: None)
            torch.manual_seed(5)
            stage = _first()
            prior: Any = stage.prior
            state = [torch.tensor(prior.calls), prior.generator.get_state(), prior.seen.clone(), torch.get_rng_state()]
            state += [buffer.clone() for buffer in prior.norm.buffers()]
            for _ in range(2):
                stage.step()
            return [*state, *(tensor.detach().clone() for tensor in stage.tensors().values())]

    assert all(torch.equal(one, other) for one, other in zip(run(True), run(False), strict=True))


def test_a_prior_of_several_views_is_tried_with_as_many_as_a_step_has(monkeypatch: pytest.MonkeyPatch) -> None:
    def of_four(predictions: list[Tensor]) -> list[Tensor]:
        return [each.reshape(-1, 4, *each.shape[1:]).flatten(0, 1) for each in predictions]

    monkeypatch.setattr(OneColor, "change", staticmethod(of_four))
    assert "OneColor" in _refused("stages.coarse.views.per_step=2")
    assert not _first("stages.coarse.views.per_step=4").step().skipped


@pytest.mark.parametrize("change", [lambda answer: answer.half(), lambda answer: answer])
def test_what_keeps_the_contract_passes(change: Callable[[Tensor], Tensor], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(OneColor, "change", staticmethod(lambda predictions: [change(each) for each in predictions]))
    register_control_variate("own")(lambda noisy, level, geometry: -torch.sigmoid(noisy.mean((1, 2, 3))))
    assert not _first("method.control_variates.terms=[own, noise, spectral]", method="ssd").step().skipped


@pytest.mark.parametrize("representation", ["gaussians", "nerf", "dmtet"])
@pytest.mark.parametrize("method", sorted(METHODS))
def test_everything_registered_passes(representation: str, method: str) -> None:
    small = {"gaussians": ["count=200"], "nerf": ["samples=16", "radiance.hash_grid={levels: 2, log2_size: 10}"],
             "dmtet": ["resolution=12", "color.grid={levels: 2, log2_size: 10}"]}[representation]  # fmt: skip
    if representation != "gaussians" and method != "ssd":
        return  # what a method sees does not depend on who drew it
    prior = "tiny" if method == "vsd" else "world"
    words = {"bridge": ["negative_prompt=a blue mug", "method.target="], "nfsd": ["negative_prompt=a blue mug"]}
    baseline = (
        ["method.control_variates.terms=[noise,spectral,learned,low_rank,depth,normal]"] if method == "ssd" else []
    )
    objects = [] if prior == "tiny" else ["prior.objects=1", "prior.unconditional_objects=1"]
    assert _first(
        *(f"representation.{each}" for each in small), *objects, *baseline, *words.get(method, []),
        representation=representation, method=method, prior=prior,
    )  # fmt: skip


def test_the_example_passes() -> None:
    example = Path(__file__).parents[3] / "examples" / "02_your_representation.py"
    runpy.run_path(str(example))
    assert _first("representation.samples=16", representation="voxels")


def test_a_fault_is_one_line_and_leaves_no_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(Card, "change", staticmethod(_mixed))
    names = ["--repr", "card", "--method", "sds", "--prior", "one-color"]
    assert main(["--out", str(tmp_path / "run"), *names, *TINY]) == 1, capsys.readouterr().err
    error = capsys.readouterr().err
    assert (
        error.count("\n") == 1 and "Card.render rendered a different rgb" in error and not (tmp_path / "run").exists()
    )
