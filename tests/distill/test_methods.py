"""Methods by name: configuration, errors, and a user's own baseline."""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path

import pytest
import torch
import yaml
from omegaconf import OmegaConf
from small_world import TwoModes
from torch import Tensor

from steindreamer.distill import (
    BASELINES,
    METHODS,
    BaselineEntry,
    ConstantBaseline,
    GeometryEstimator,
    Guide,
    NoiseLevel,
    SSDConfig,
    register_baseline,
)


@pytest.mark.parametrize("name", sorted({*METHODS} - {"vsd"}))
def test_methods_are_structured_configs(name: str, prior: TwoModes, guide: Guide, image: Tensor) -> None:
    config = OmegaConf.to_object(
        OmegaConf.merge(OmegaConf.structured(METHODS[name]), {"guidance_scale": 3.0, "timesteps": {"maximum": 0.9}})
    )
    assert isinstance(config, METHODS[name])
    assert not config.needs_estimator
    out = config.build(prior)(image, guide, None, progress=0.0, generator=torch.Generator())
    assert out.gradient.abs().max() > 0
    if name in ("sds", "ssd"):
        assert out.diagnostics["second_moment_vs_sds"] == pytest.approx(1.0, abs=1e-4)


@pytest.mark.parametrize("coefficients", ["regression", "second_moment", "fixed"])
def test_each_baseline_starts_as_sds_or_shares_it(
    coefficients: str, prior: TwoModes, estimator: GeometryEstimator
) -> None:
    def start(*names: str) -> list[float]:
        config = SSDConfig(baseline=list(names), coefficients=coefficients, bands=2)
        distiller = config.build(prior, estimator)
        return distiller.coefficients.value(torch.tensor([0]), 3)[:, 0, 0].tolist()

    assert start("noise") == [1]
    assert start("depth") == [1]
    assert start("depth", "normal") == [0.5, 0.5]
    assert start("depth", "noise") == [0, 1]
    assert start("noise", "depth", "spectral") == [0, 0, 1, 1]


def test_impossible_settings_are_refused(prior: TwoModes) -> None:
    assert SSDConfig(baseline=["spectral", "depth"]).needs_estimator
    with pytest.raises(ValueError, match="the 'depth' baseline needs a geometry estimator"):
        SSDConfig(baseline=["depth"]).build(prior)
    for wrong in (["dept"], ["noise", "noise"], []):
        with pytest.raises(
            ValueError, match="baseline must list some of noise, spectral, student, low_rank, depth, normal"
        ):
            SSDConfig(baseline=wrong).build(prior)
    with pytest.raises(ValueError, match="unknown Stein variant 'printed': use one of corrected, paper"):
        SSDConfig(variant="printed").build(prior)
    with pytest.raises(ValueError, match=r"variant 'paper' concerns Stein terms, and baseline=\['spectral'\] has none"):
        SSDConfig(variant="paper").build(prior)
    with pytest.raises(ValueError, match="unknown coefficients 'adam': use regression, second_moment or fixed"):
        SSDConfig(coefficients="adam").build(prior)
    with pytest.raises(ValueError, match="unknown weighting 'snr': use one of sigma_squared"):
        SSDConfig(weighting="snr").build(prior)


def test_a_users_baseline_takes_a_few_lines(
    prior: TwoModes, guide: Guide, image: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(BASELINES, "constant", BaselineEntry(lambda prior, estimator: ConstantBaseline()))

    @register_baseline("brightness")
    def brightness(noisy: Tensor, level: NoiseLevel, guide: Guide) -> Tensor:
        return -torch.sigmoid(noisy.mean((1, 2, 3)))

    try:
        distiller = SSDConfig(baseline=["brightness", "constant"]).build(prior)
    finally:
        del BASELINES["brightness"]
    generator = torch.Generator().manual_seed(0)
    out = distiller(image, guide, None, progress=0.0, generator=generator)
    distiller.update(out)
    assert {"mu/brightness", "mu/constant"} <= out.diagnostics.keys()


def test_the_docs_list_every_method_and_its_settings() -> None:
    text = (Path(__file__).parents[2] / "docs" / "methods.md").read_text(encoding="utf-8")
    overview, _, vsd, others, *_ = re.split(r"\n## .*\n", text)
    assert re.findall(r"^\| `(\w+)` \|", overview, re.M) == list(METHODS)
    settings = [("vsd", *row) for row in re.findall(r"^\| `(\w+)` \| (.*?) \|", vsd, re.M)]
    settings += re.findall(r"^\| `(\w+)` \| `(\w+)` \| (.*?) \|", others, re.M)
    shared = {field.name for field in fields(SSDConfig)}
    own = {(name, field.name) for name, method in METHODS.items() for field in fields(method)}
    assert {(name, key) for name, key, _ in settings} == {
        ("vsd", "baseline"), *((name, key) for name, key in own if key not in shared)
    }  # fmt: skip
    for name, key, value in settings:
        if value.startswith("`"):
            default = getattr(METHODS[name](), key)
            assert type(default)(yaml.safe_load(value.strip("`"))) == default, (name, key)
