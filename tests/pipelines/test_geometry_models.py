"""The estimator of a run: the shipped one, one of the user's choice, and a clear word when it cannot be loaded."""

from __future__ import annotations

from importlib import resources
from pathlib import Path

import pytest
import torch

from steindreamer import assets
from steindreamer.distill.geometry.base import GeometryEstimator
from steindreamer.distill.geometry.files import CONFIG_FILE, WEIGHTS_FILE
from steindreamer.distill.geometry.tiny_estimator import TinyEstimatorConfig, TinyGeometryEstimator, save_tiny_estimator
from steindreamer.pipelines.config.run_config import load_config
from steindreamer.pipelines.errors import UserError
from steindreamer.pipelines.geometry_models import FOLDER, EstimatorConfig, load_estimator
from steindreamer.pipelines.runs.pipeline import Pipeline

CPU = torch.device("cpu")


def test_the_estimator_ships() -> None:
    assert isinstance(load_estimator(EstimatorConfig(), CPU), GeometryEstimator)


def test_a_missing_estimator_is_the_users_to_fix(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(resources, "files", lambda package: tmp_path)
    with pytest.raises(UserError, match=r"cannot be loaded.*reinstall steindreamer"):
        load_estimator(EstimatorConfig(), CPU)


def test_a_damaged_estimator_is_the_users_to_fix(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    shipped = resources.files(assets).joinpath(FOLDER)
    folder = tmp_path / FOLDER
    folder.mkdir()
    (folder / CONFIG_FILE).write_bytes(shipped.joinpath(CONFIG_FILE).read_bytes())
    (folder / WEIGHTS_FILE).write_bytes(shipped.joinpath(WEIGHTS_FILE).read_bytes()[:1000])
    monkeypatch.setattr(resources, "files", lambda package: tmp_path)
    with pytest.raises(UserError, match=r"cannot be loaded.*reinstall steindreamer"):
        load_estimator(EstimatorConfig(), CPU)


@pytest.fixture
def own(tmp_path: Path) -> Path:
    config = TinyEstimatorConfig(channels=(8, 8), head_channels=8, embedding_channels=8)
    save_tiny_estimator(tmp_path / "own", config, TinyGeometryEstimator(config).state_dict())
    return tmp_path / "own"


def test_a_run_takes_the_estimator_of_its_settings(own: Path) -> None:
    overrides = [
        "method.control_variates.terms=[depth]",
        "prior.name=world",
        "prior.objects=1",
        f"estimator.model={own}",
    ]
    pipeline = Pipeline(load_config("cpu", refine=False, overrides=overrides))
    assert isinstance(pipeline._estimator, TinyGeometryEstimator)
    assert pipeline._estimator.config.channels == (8, 8)


def test_it_is_not_even_looked_for_unless_a_baseline_asks() -> None:
    overrides = [
        "method.control_variates.terms=[spectral]",
        "prior.name=world",
        "prior.objects=1",
        "estimator.model=/no/such/folder",
    ]
    assert Pipeline(load_config("cpu", refine=False, overrides=overrides))._estimator is None


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("estimator.model=", "estimator.model is empty; give tiny, a hub id or a folder"),
        ("estimator.predicts=distance", "estimator.predicts is 'distance'; accepted: auto, disparity, depth"),
        ("estimator.modle=tiny", "did you mean 'model'"),
    ],
)
def test_bad_settings_are_refused(override: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        load_config(None, overrides=[override])


def test_what_cannot_be_loaded_is_told_with_the_setting(tmp_path: Path) -> None:
    with pytest.raises(
        UserError, match=r"^estimator\.model=/no/such/folder: '/no/such/folder' is neither a folder nor the hub id"
    ):
        load_estimator(EstimatorConfig(model="/no/such/folder"), CPU)
    with pytest.raises(UserError, match=r"is not a geometry estimator: missing config\.json") as error:
        load_estimator(EstimatorConfig(model=str(tmp_path)), CPU)
    assert "\n" not in str(error.value)
