"""Components that break their contract are told in one line before the first step, whoever wrote them."""

from __future__ import annotations

import math
import runpy
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor, nn

from steindreamer.distill import (
    BASELINES,
    METHODS,
    BaselineEntry,
    Estimate,
    GeometryEstimate,
    NoisePrediction,
    NoiseSchedule,
    NoisySample,
    Residual,
    ResidualConfig,
    register_baseline,
)
from steindreamer.distill.residuals import Draw
from steindreamer.pipelines.cli import main
from steindreamer.pipelines.component_checks import Rehearsal
from steindreamer.pipelines.config import load_config
from steindreamer.pipelines.errors import UserError
from steindreamer.pipelines.pipeline import Pipeline
from steindreamer.pipelines.priors import PRIORS
from steindreamer.pipelines.render_checks import IMAGES
from steindreamer.representations import REPRESENTATIONS, Cameras, RenderOutput, Representation

TINY = ["prompt=a red mug", "refine=false", "stages.coarse.steps=2", "stages.coarse.resolution=16",
        "stages.coarse.warmup_resolution=16", "export.enabled=false"]  # fmt: skip


class Card(Representation):
    """A disc that faces every camera, with a colour that learns and a mark of where it is seen from."""

    change: ClassVar[Callable[[dict[str, Any], Cameras], Any]] = staticmethod(lambda images, cameras: None)
    rate: ClassVar[float] = 0.02
    penalty: ClassVar[Any] = None

    def __init__(self) -> None:
        super().__init__()
        self.colour = nn.Parameter(torch.full((3,), 0.5))

    def render(self, cameras: Cameras, background: Tensor) -> RenderOutput:
        size = cameras.height
        axis = (torch.arange(size) + 0.5) / size * 2 - 1
        disc = (axis[:, None] ** 2 + axis**2 < 0.5).float().expand(len(cameras), 1, size, size)
        mark = 0.5 + 0.25 * cameras.forward[:, :, None, None]
        rgb = disc * self.colour[:, None, None] * mark + (1 - disc) * background[:, :, None, None]
        images = {"rgb": rgb, "opacity": disc, "depth": 3 * disc, "normal": -cameras.forward[:, :, None, None] * disc}
        changed = type(self).change(images, cameras)
        return RenderOutput(**images) if changed is None else changed  # pyright: ignore[reportArgumentType]

    def learning_rates(self, progress: float) -> dict[str, float]:
        return {"colour": self.rate}

    def regularisers(self) -> dict[str, Any]:
        return {} if self.penalty is None else {"own": self.penalty}


@dataclass
class CardConfig:
    def build(self, generator: torch.Generator, device: torch.device) -> Representation:
        del generator
        return Card().to(device)


class OneColour:
    """Believes in grey."""

    schedule = NoiseSchedule.scaled_linear()
    device = torch.device("cpu")
    change: ClassVar[Callable[[Tensor], Any]] = staticmethod(lambda answer: NoisePrediction(answer, answer))

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

    def predict_noise(self, sample: NoisySample, condition: Any, *, unconditional: bool) -> Any:
        self.calls += 1
        torch.rand((), generator=self.generator)
        torch.rand(())
        self.norm(sample.noisy)
        self.seen += 1
        return type(self).change(sample.noisy / sample.sigma)


@dataclass
class OneColourConfig:
    def build(self, device: torch.device) -> Any:
        del device
        return OneColour()


class Halved(Residual):
    change: ClassVar[Callable[[Tensor], Any]] = staticmethod(lambda value: Estimate(value, value))

    def __call__(self, draw: Draw) -> Any:
        return type(self).change(draw.ask("prompt")[0] / 2)


@dataclass
class HalvedConfig(ResidualConfig):
    baseline: list[str] = field(default_factory=list)

    def residual(self) -> Residual:
        return Halved()


@pytest.fixture(autouse=True)
def registered(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setitem(REPRESENTATIONS, "card", CardConfig)
    monkeypatch.setitem(PRIORS, "one-colour", OneColourConfig)
    monkeypatch.setitem(METHODS, "halved", HalvedConfig)
    before = dict(BASELINES)
    yield
    BASELINES.clear()
    BASELINES.update(before)


def _first(*overrides: str, method: str = "sds", representation: str = "card", prior: str = "one-colour") -> Any:
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


PICTURES = {
    "batch 1": (_set(**dict.fromkeys(IMAGES, lambda x: x[:1])), "one picture per camera"),
    "0 to 255": (_set(rgb=lambda x: 255 * x), r"Card.render drew rgb from 2.* to 2.*divide by 255"),
    "below 0": (_set(rgb=lambda x: 2 * x - 1), r"rgb from -.*\[0, 1\]"),
    "opacity in percent": (_set(opacity=lambda x: 100 * x), "opacity from 0 to 100"),
    "float64": (_set(rgb=lambda x: x.double()), "torch.float64 on cpu; float32"),
    "NaN": (_set(depth=lambda x: x * math.nan), "depth with .* not finite"),
    "negative depth": (_set(depth=lambda x: -x), "a depth of -3"),
    "depth where empty": (_set(depth=lambda x: x + 1), "depth of 1 where the opacity is 0"),
    "normal where empty": (_set(normal=lambda x: x + 0.5), "normal of .* where the opacity is 0"),
    "long normals": (_set(normal=lambda x: 3 * x), "normals of length 3"),
    "normals away": (_set(normal=lambda x: -x), "face away"),
    "detached": (_set(rgb=lambda x: x.detach()), "does not depend on any parameter.*colour.*remove no_grad"),
    "mixed": (_mixed, "another rgb for a camera beside others"),
    "one camera for all": (_last_for_all, "another rgb for a camera beside others"),
    "random": (_random, "differently the second time"),
    "no RenderOutput": (lambda images, cameras: images["rgb"], "must return a RenderOutput, got a Tensor"),
    "raises": (lambda images, cameras: images["colour"], "Card.render raised KeyError: 'colour'"),
}  # fmt: skip


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("fault", PICTURES)
def test_pictures_that_break_the_contract(fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    change, message = PICTURES[fault]
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


def test_rates_parameters_and_penalties(monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(Card, "rate", math.nan)
        assert "gives nan for 'colour'" in _refused()
    with monkeypatch.context() as patch:
        patch.setattr(Card, "penalty", torch.zeros(2))
        assert "must be a tensor of shape (), got (2,)" in _refused()
    with monkeypatch.context() as patch:
        patch.setattr(Card, "penalty", torch.tensor(math.inf))
        assert "is inf before the first step" in _refused()
    with monkeypatch.context() as patch:
        patch.setattr(Card, "render_terms", ("thickness",))
        assert "no term 'thickness'" in _refused()
    with monkeypatch.context() as patch:
        patch.setattr(CardConfig, "build", lambda self, generator, device: nn.Linear(1, 1))
        assert "must return a Representation, got a Linear" in _refused()


ANSWERS = {
    "batch 1": (lambda noise: NoisePrediction(noise[:1], noise[:1]), r"shape \(2, 3, 16, 16\); got .*\(1, 3"),
    "smaller": (lambda noise: NoisePrediction(noise[..., :4], noise[..., :4]), r"got float32 of shape \(2, 3, 16, 4\)"),
    "bare": (lambda noise: noise, "must return a NoisePrediction, got float32 of shape"),
    "conditional only": (lambda noise: NoisePrediction(noise), "asked for the unconditional prediction and gave none"),
    "NaN": (lambda noise: NoisePrediction(noise * math.nan, noise), "predict_noise answered with 1536 of 1536 values"),
}  # fmt: skip


@pytest.mark.parametrize("fault", ANSWERS)
def test_answers_that_break_the_contract(fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    change, message = ANSWERS[fault]
    monkeypatch.setattr(OneColour, "change", staticmethod(change))
    with pytest.raises(UserError, match=message) as caught:
        _first()
    assert "OneColour" in str(caught.value) and "\n" not in str(caught.value)


ENCODERS = {
    "detached": (lambda self, image: image.detach() * 2, "OneColour.encode must be differentiable"),
    "batch 1": (lambda self, image: image[:1], r"OneColour.encode must return .*\(2, c, h, w\).*\(1, 3, 16, 16\)"),
    "flat": (lambda self, image: image.flatten(1), "OneColour.encode must return"),
    "NaN": (lambda self, image: image * math.nan, "OneColour.encode returned 1536 of 1536 values"),
    "raises": (lambda self, image: image.missing, "OneColour.* raised AttributeError"),
}  # fmt: skip


@pytest.mark.parametrize("fault", ENCODERS)
def test_encoders_that_break_the_contract(fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    encode, message = ENCODERS[fault]

    def wrapped(self: OneColour, image: Tensor) -> Any:
        return encode(self, image)

    monkeypatch.setattr(OneColour, "encode", wrapped)
    with pytest.raises(UserError, match=message):
        _first()


def test_what_is_no_prior(monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.delattr(OneColour, "condition")
        assert "OneColour, which is no prior: it lacks condition" in _refused()
    with monkeypatch.context() as patch:
        patch.setattr(OneColour, "device", "cpu")
        assert "OneColour.device must be a torch.device, got 'cpu'" in _refused()
    levels = NoiseSchedule.scaled_linear()
    with monkeypatch.context() as patch:
        patch.setattr(OneColour, "schedule", NoiseSchedule(levels.alphas.flip(0), levels.sigmas.flip(0)))
        assert "timestep 0 must be the least noisy" in _refused()
    with monkeypatch.context() as patch:
        patch.setattr(OneColour, "schedule", replace(levels, sigmas=levels.sigmas * math.nan))
        assert "not finite" in _refused()
    with monkeypatch.context() as patch:
        patch.setattr(OneColourConfig, "build", lambda self, device: {}["weights"])
        assert "raised KeyError: 'weights'" in _refused()


def test_classes_that_are_no_configurations(monkeypatch: pytest.MonkeyPatch) -> None:
    class Plain:
        def build(self, device: torch.device) -> Any:
            return OneColour()

    monkeypatch.setitem(PRIORS, "one-colour", Plain)
    assert "PRIORS['one-colour'] must be a dataclass with a method build, got the class Plain" in _refused()
    monkeypatch.setitem(METHODS, "sds", CardConfig)
    assert "METHODS['sds'] must be a dataclass that extends SDSConfig" in _refused(prior="world")
    monkeypatch.setitem(REPRESENTATIONS, "card", Card)
    assert "REPRESENTATIONS['card'] must be a dataclass" in _refused(prior="world", method="csd")


def _mean_of_all(noisy: Tensor, level: Any, guide: Any) -> Tensor:
    return -torch.sigmoid(noisy.mean()).expand(len(noisy))


def _centred(noisy: Tensor, level: Any, guide: Any) -> Tensor:
    return -torch.sigmoid((noisy - noisy.mean(0, keepdim=True)).square().mean((1, 2, 3)))


def _sees_all_guides(noisy: Tensor, level: Any, guide: Any) -> Tensor:
    return -torch.sigmoid(noisy.mean((1, 2, 3)) + guide.opacity.mean())


def _dropped(noisy: Tensor, level: Any, guide: Any) -> Tensor:
    return -torch.sigmoid(nn.functional.dropout(noisy, 0.5).mean((1, 2, 3)))


def _not_a_number(noisy: Tensor, level: Any, guide: Any) -> Tensor:
    return -noisy.mean((1, 2, 3)) / 0


def _scalar(noisy: Tensor, level: Any, guide: Any) -> Tensor:
    return -noisy.mean()


def _careless(noisy: Tensor, level: Any, guide: Any) -> Tensor:
    return guide.brightness


def test_baselines_that_break_the_contract() -> None:
    faults = {
        _mean_of_all: "'own' mixes the pictures of a batch",
        _centred: "'own' mixes the pictures of a batch",
        _sees_all_guides: "'own' mixes the pictures of a batch",
        _dropped: "'own' answers differently to the same pictures",
        _not_a_number: "'own' returned",
        _scalar: "baseline 'own' must answer with one number per picture",
        _careless: "_careless raised AttributeError",
    }
    for function, message in faults.items():
        BASELINES["own"] = BaselineEntry(lambda prior, estimator, function=function: function)
        assert message in _refused("method.baseline=[own]", method="ssd"), function


@pytest.mark.parametrize("name", ["noise", "spectral", "student", "low_rank", "depth", "", "two words", "a,b"])
def test_names_that_a_baseline_cannot_have(name: str) -> None:
    with pytest.raises(ValueError, match=r"choose another name|one word"):
        register_baseline(name)(_mean_of_all)


def test_a_built_in_term_is_never_used_in_place_of_a_registered_baseline() -> None:
    BASELINES["noise"] = BaselineEntry(lambda prior, estimator: _mean_of_all)
    assert "'noise' has the name of a built-in term" in _refused("method.baseline=[noise]", method="ssd")


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
        (lambda x: x - x.mean(0, keepdim=True), "Flat mixes the pictures of a batch"),
        (lambda x: x / 0, "Flat estimated disparity with"),
        (lambda x: x.expand(-1, 2, -1, -1), "Flat must estimate disparity of shape|Flat.forward raised"),
        (lambda x: x, ""),
    ],
)
def test_estimators_that_break_the_contract(change: Callable[[Tensor], Tensor], message: str) -> None:
    pipeline = Pipeline(load_config(None, representation="card", method="sds", prior="one-colour", overrides=TINY))
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
                patch.setattr(Rehearsal, "scene", lambda self, *given: None)
                patch.setattr(Rehearsal, "stage", lambda self, *given: None)
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
    def of_four(answer: Tensor) -> NoisePrediction:
        answer.reshape(-1, 4, *answer.shape[1:])
        return NoisePrediction(answer, answer)

    monkeypatch.setattr(OneColour, "change", staticmethod(of_four))
    assert "OneColour" in _refused("stages.coarse.views.per_step=2")
    assert not _first("stages.coarse.views.per_step=4").step().skipped


@pytest.mark.parametrize("change", [lambda answer: answer.half(), lambda answer: answer])
def test_what_keeps_the_contract_passes(change: Callable[[Tensor], Tensor], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        OneColour, "change", staticmethod(lambda answer: NoisePrediction(change(answer), change(answer)))
    )
    register_baseline("own")(lambda noisy, level, guide: -torch.sigmoid(noisy.mean((1, 2, 3))))
    assert not _first("method.baseline=[own, noise, spectral]", method="ssd").step().skipped


@pytest.mark.parametrize("representation", sorted(REPRESENTATIONS))
@pytest.mark.parametrize("method", sorted(METHODS))
def test_everything_registered_passes(representation: str, method: str) -> None:
    small = {"gaussians": ["count=200"], "nerf": ["samples=16", "radiance.hash_grid={levels: 2, log2_size: 10}"],
             "mesh": ["resolution=12", "colour.grid={levels: 2, log2_size: 10}"]}[representation]  # fmt: skip
    if representation != "gaussians" and method != "ssd":
        return  # what a method sees does not depend on who drew it
    prior = "tiny" if method == "vsd" else "world"
    words = {"bridge": ["negative_prompt=a blue mug", "method.target="], "nfsd": ["negative_prompt=a blue mug"]}
    baseline = ["method.baseline=[noise,spectral,student,low_rank,depth,normal]"] if method == "ssd" else []
    objects = [] if prior == "tiny" else ["prior.objects=1", "prior.unconditional_objects=1"]
    assert _first(
        *(f"representation.{each}" for each in small), *objects, *baseline, *words.get(method, []),
        representation=representation, method=method, prior=prior,
    )  # fmt: skip


def test_the_example_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    example = Path(__file__).parents[2] / "examples" / "voxels.py"
    monkeypatch.setitem(REPRESENTATIONS, "voxels", None)  # to be forgotten afterwards
    del REPRESENTATIONS["voxels"]
    runpy.run_path(str(example))
    assert _first("representation.samples=16", representation="voxels")


def test_a_fault_is_one_line_and_leaves_no_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(Card, "change", staticmethod(_mixed))
    names = ["--repr", "card", "--method", "sds", "--prior", "one-colour"]
    assert main(["--out", str(tmp_path / "run"), *names, *TINY]) == 1
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and "Card.render drew another rgb" in error and not (tmp_path / "run").exists()
