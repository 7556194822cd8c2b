"""Methods by name: configuration, errors, and a user's own baseline."""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from pydantic import TypeAdapter
from small_world import TwoModes
from torch import Tensor

from steindreamer.distill import (
    CONTROL_VARIATES,
    METHODS,
    ControlVariateConfig,
    GeometryBuffers,
    GeometryEstimator,
    NoiseLevel,
    NoisySample,
    SSDConfig,
    register_control_variate,
    stein_entry,
)
from steindreamer.distill.control_variates.baselines import ConstantBaseline


@pytest.mark.parametrize("name", sorted({*METHODS} - {"vsd"}))
def test_methods_are_built_from_plain_settings(
    name: str, prior: TwoModes, geometry: GeometryBuffers, image: Tensor
) -> None:
    config = TypeAdapter(METHODS[name]).validate_python({"guidance_scale": 3.0, "timesteps": {"maximum": 0.9}})
    assert type(config) is METHODS[name] and config.timesteps.maximum == 0.9
    assert not config.needs_estimator
    out = config.build(prior)(image, geometry, None, progress=0.0, generator=torch.Generator())
    assert out.gradient.abs().max() > 0
    if name in ("sds", "ssd"):
        assert out.diagnostics["second_moment_vs_sds"] == pytest.approx(1.0, abs=1e-4)


@pytest.mark.parametrize("coefficients", ["regression", "second_moment", "fixed"])
def test_each_baseline_starts_as_sds_or_shares_it(
    coefficients: Any, prior: TwoModes, estimator: GeometryEstimator
) -> None:
    def start(*names: str) -> list[float]:
        config = SSDConfig(control_variates=ControlVariateConfig(list(names), coefficients, bands=2))
        distiller = config.build(prior, estimator)
        return distiller.coefficients.value(torch.tensor([0]), 3)[:, 0, 0].tolist()

    assert start("noise") == [1]
    assert start("depth") == [1]
    assert start("depth", "normal") == [0.5, 0.5]
    assert start("depth", "noise") == [0, 1]
    assert start("noise", "depth", "spectral") == [0, 0, 1, 1]


def _unchecked(**settings: str) -> SSDConfig:
    """With values that the annotations exclude: nobody checks them in a plain dataclass."""
    config = SSDConfig()
    for name, value in settings.items():
        setattr(config if hasattr(config, name) else config.control_variates, name, value)
    return config


def test_impossible_settings_are_refused(prior: TwoModes) -> None:
    assert SSDConfig(control_variates=ControlVariateConfig(["spectral", "depth"])).needs_estimator
    with pytest.raises(ValueError, match="the control variate 'depth' needs a geometry estimator"):
        SSDConfig(control_variates=ControlVariateConfig(["depth"])).build(prior)
    for wrong in (["dept"], ["noise", "noise"], []):
        with pytest.raises(
            ValueError, match="terms must list some of spectral, noise, learned, low_rank, depth, normal"
        ):
            SSDConfig(control_variates=ControlVariateConfig(wrong)).build(prior)
    with pytest.raises(ValueError, match="unknown Stein variant 'printed': use one of corrected, paper"):
        _unchecked(variant="printed").build(prior)
    with pytest.raises(ValueError, match=r"variant 'paper' applies to Stein terms, but terms=\['spectral'\] has none"):
        ControlVariateConfig(variant="paper")
    with pytest.raises(ValueError, match="unknown coefficients 'adam': use regression, second_moment or fixed"):
        _unchecked(coefficients="adam").build(prior)
    with pytest.raises(ValueError, match="unknown weighting 'snr': use one of sigma_squared"):
        _unchecked(weighting="snr").build(prior)


def test_a_users_control_variate_takes_a_few_lines(prior: TwoModes, geometry: GeometryBuffers, image: Tensor) -> None:
    register_control_variate("constant", stein_entry("constant", lambda context: ConstantBaseline()))

    @register_control_variate("brightness")
    def brightness(noisy: Tensor, level: NoiseLevel, geometry: GeometryBuffers) -> Tensor:
        return -torch.sigmoid(noisy.mean((1, 2, 3)))

    @register_control_variate("shifted")
    class Shifted:
        """The noise of the neighboring pixel."""

        names = ("shifted",)
        initial = (0.0,)

        def terms(self, sample: NoisySample, geometry: GeometryBuffers) -> Tensor:
            return -sample.noise.roll(1, -1)[None]

    distiller = SSDConfig(control_variates=ControlVariateConfig(["brightness", "constant", "shifted"])).build(prior)
    generator = torch.Generator().manual_seed(0)
    out = distiller(image, geometry, None, progress=0.0, generator=generator)
    distiller.update(out)
    assert {"mu/brightness", "mu/constant", "mu/shifted"} <= out.diagnostics.keys()


@pytest.mark.parametrize("wrong", [3, int, "spectral"])
def test_what_is_no_control_variate_is_refused(wrong: object) -> None:
    with pytest.raises(ValueError, match="control variate 'wrong' must be a function of"):
        CONTROL_VARIATES.register("wrong", wrong)  # pyright: ignore[reportCallIssue, reportArgumentType]
    assert "wrong" not in CONTROL_VARIATES


def test_the_docs_list_every_method_and_its_settings() -> None:
    text = (Path(__file__).parents[2] / "docs" / "methods.md").read_text(encoding="utf-8")
    overview, _, vsd, others, control_variates, *_ = re.split(r"\n## .*\n", text)
    assert re.findall(r"^\| `(\w+)` \|", overview, re.M) == list(METHODS)
    settings = [("vsd", *row) for row in re.findall(r"^\| `(\w+)` \| (.*?) \|", vsd, re.M)]
    settings += re.findall(r"^\| `(\w+)` \| `(\w+)` \| (.*?) \|", others, re.M)
    shared = {field.name for field in fields(SSDConfig)}
    own = {(name, field.name) for name, method in METHODS.items() for field in fields(method)}
    assert {(name, key) for name, key, _ in settings} == {(name, key) for name, key in own if key not in shared}
    variates = re.findall(r"^\| `(\w+)` \| (.*?) \|", control_variates, re.M)
    assert [key for key, _ in variates] == [field.name for field in fields(ControlVariateConfig)]
    defaults = [(getattr(METHODS[name](), key), value) for name, key, value in settings]
    defaults += [(getattr(ControlVariateConfig(), key), value) for key, value in variates[1:]]
    for default, value in defaults:
        if value.startswith("`"):
            assert type(default)(yaml.safe_load(value.strip("`"))) == default, value
