"""The log's lines about memory."""

from __future__ import annotations

import pytest
import torch
from tiny_diffusion_models import save_tiny_model

from steindreamer.distill.priors.diffusion import DiffusersPrior
from steindreamer.pipelines.config.run_config import compose, preset_layers
from steindreamer.pipelines.runs import memory_report
from steindreamer.pipelines.runs.memory_report import free_bytes, memory_lines
from steindreamer.pipelines.runs.pipeline import Pipeline

pytest.importorskip("diffusers")


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory: pytest.TempPathFactory) -> Pipeline:
    settings = {"prior": {"model": str(save_tiny_model(tmp_path_factory.mktemp("tiny"))), "cache_text": False}}
    return Pipeline(compose([*preset_layers("cpu"), settings], {"prior": "diffusers"}))


def test_one_line_if_nothing_is_known_of_the_gpu(pipeline: Pipeline) -> None:
    (line,) = memory_lines(pipeline)
    assert line.startswith("estimated memory: ") and "denoiser 0.00, autoencoder 0.00" in line
    assert free_bytes(torch.device("cpu")) is None


@pytest.mark.parametrize(
    ("micro_batch", "checkpointing", "advice"),
    [
        (0, False, "set prior.micro_batch=1"),
        (1, False, "set prior.gradient_checkpointing=true"),
        (1, True, "lower prior.image_size or choose a smaller model"),
    ],
)
def test_too_much_names_the_next_setting(
    pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch, micro_batch: int, checkpointing: bool, advice: str
) -> None:
    prior = pipeline.prior
    assert isinstance(prior, DiffusersPrior)
    monkeypatch.setattr(prior, "micro_batch", micro_batch)
    if checkpointing:
        prior.parts["autoencoder"].enable_gradient_checkpointing()
    monkeypatch.setattr(memory_report, "free_bytes", lambda device: 10_000_000_000)
    assert len(memory_lines(pipeline)) == 1
    monkeypatch.setattr(memory_report, "free_bytes", lambda device: 1000)
    assert memory_lines(pipeline)[1] == f"that is more than the 0.00 GB available on the GPU: {advice}"
    prior.parts["autoencoder"].disable_gradient_checkpointing()


def test_an_unknown_operation_does_not_stop_the_run(pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: object, **settings: object) -> None:
        raise NotImplementedError("no\nshapes")

    monkeypatch.setattr(memory_report, "estimate_memory", fail)
    assert memory_lines(pipeline) == ["memory: cannot be estimated (no shapes)"]


def test_other_priors_say_nothing() -> None:
    pipeline = Pipeline.__new__(Pipeline)
    pipeline.prior = object()  # pyright: ignore[reportAttributeAccessIssue]
    assert memory_lines(pipeline) == []
