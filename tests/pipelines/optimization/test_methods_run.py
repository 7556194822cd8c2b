"""Every method takes steps on the exact prior, or says in one line why not."""

from __future__ import annotations

from pathlib import Path

import pytest

from steindreamer.distill import METHODS
from steindreamer.pipelines import main
from steindreamer.pipelines.config.run_config import load_config
from steindreamer.pipelines.optimization.stage import Stage
from steindreamer.pipelines.runs.pipeline import Pipeline

SETTINGS = [
    "representation.count=100", "stages.coarse.steps=4", "stages.coarse.resolution=16",
    "stages.coarse.warmup_resolution=16", "stages.coarse.probe_every=2", "prior.name=world",
    "prior.objects=1",
    "prior.unconditional_objects=2", "prior.supersample=1", "export.enabled=false",
]  # fmt: skip
WORDS = {
    "csd": ["negative_prompt=a blue mug"],
    "nfsd": ["negative_prompt=a blue mug"],
    "bridge": ["negative_prompt=a blue mug", "method.target="],
}
SAMPLERS = {
    "csd": ["method.timesteps.stratified=true", "method.timesteps.importance=true", "method.draws=2"],
    "nfsd": ["method.timesteps.order=dreamtime"],
    "asd": ["method.control_variates.terms=[spectral]", "method.antithetic=true", "method.draws=auto"],
    "bridge": ["stages.coarse.views.azimuths=antipodal", "stages.coarse.views.per_step=2"],
}


def first_stage(method: str, *overrides: str) -> Stage:
    config = load_config(
        "cpu", method=method, prompt="a red mug", refine=False,
        overrides=[*SETTINGS, "stages.coarse.method.guidance_scale=3", *overrides],
    )  # fmt: skip
    return Pipeline(config).first()


@pytest.mark.parametrize("method", sorted({*METHODS} - {"vsd"}))
def test_methods_take_steps(method: str) -> None:
    stage = first_stage(method, *WORDS.get(method, []), *SAMPLERS.get(method, []))
    steps = [stage.step() for _ in range(2)]
    assert all(not each.skipped and each.loss > 0 for each in steps)
    assert steps[1].values["variance_sds"] > 0


def test_a_saved_sampler_goes_on_as_it_was() -> None:
    only_color = "stages.coarse.modalities={color: 1, albedo: 0, normal: 0, depth: 0}"
    overrides = [*WORDS["csd"], *SAMPLERS["csd"], only_color]
    stage, again = (first_stage("csd", *overrides) for _ in range(2))
    stage.step()
    again.load_tensors({name: tensor.detach().clone() for name, tensor in stage.tensors().items()})
    assert stage.tensors()["distiller.color.sampler.square"].sum() > 0
    for each in (stage, again):
        each.step()
    assert stage.tensors()["distiller.color.sampler.square"].equal(again.tensors()["distiller.color.sampler.square"])


@pytest.mark.parametrize(("method", "word"), [("nfsd", "unrealistic"), ("bridge", "detailed")])
def test_words_that_the_prior_does_not_know_are_refused_in_one_line(
    method: str, word: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = ["--method", method, "--prompt", "a red mug", "--no-refine", "--quiet", *SETTINGS]
    assert main(["--out", str(tmp_path / "run"), *settings]) == 1
    message = capsys.readouterr().err
    assert message.count("\n") == 1 and word in message
    assert "the method of stage 'coarse' uses the prompt" in message and "docs/methods.md" in message
    assert not (tmp_path / "run").exists()
