"""What needs no torch to be refused is refused before torch is loaded, and only what the run would refuse too."""

from __future__ import annotations

import importlib.resources
import os
import random
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from every_setting import kinds_of

from steindreamer.pipelines.config.outline import FILE, outline
from steindreamer.pipelines.config.precheck import check_words
from steindreamer.pipelines.config.run_config import CHOICES, SCHEMA, load_config
from steindreamer.pipelines.config.settings_file import settings_file
from steindreamer.pipelines.errors import SettingsError, UserError
from steindreamer.pipelines.settings.composing import compose_as, to_plain
from steindreamer.pipelines.settings.layers import given_layers, preset_layers, presets
from steindreamer.pipelines.settings.schema import Schema
from steindreamer.representations import REPRESENTATIONS

SECONDS = 1.5
"""Of the processor, from the start of Python to the last line."""

PROGRAM = """
import os, sys, time
from importlib import import_module
status = import_module(sys.argv[1]).main(sys.argv[2:])
heavy = [name for name in ("torch", "numba", "diffusers", "transformers") if name in sys.modules]
print(status, round(time.process_time(), 2), *heavy)
"""
RUN, COMPARE, PROBE = (f"steindreamer.pipelines.{name}" for name in ("cli.run", "cli.compare", "cli.probe"))
COMPARED = ["--methods", "sds", "--prompts", "a red mug", "--out", "new"]


@pytest.mark.parametrize(
    ("command", "arguments", "status", "message"),
    [
        (RUN, ["stages.coarze.steps=3"], 2, "did you mean 'coarse'"),
        (RUN, ["--repr", "gausians"], 2, "did you mean 'gaussians'"),
        (RUN, ["stages.coarse.steps=many"], 2, "stages.coarse.steps is 'many'"),
        (RUN, ["export.texture_size=9999999"], 2, "export.texture_size is 9999999"),
        (RUN, ["representation.initial_ply=missing.ply"], 1, "missing.ply"),
        (RUN, ["--repr", "mesh", "representation.initial_mesh=missing.glb"], 1, "missing.glb"),
        (RUN, ["--preset", "missing.yaml"], 2, "missing.yaml"),
        (RUN, ["--prior", "./missing"], 2, "unknown prior './missing'"),
        (RUN, ["--resume", "--out", "missing"], 1, "missing/config.yaml"),
        (RUN, ["--out", "taken"], 1, "taken is not empty"),
        (RUN, ["--prompt", "a giraffe"], 1, "'giraffe'"),
        (RUN, ["--prior", "world", "--prompt", "a giraffe in space"], 1, "'giraffe'"),
        (RUN, ["--list"], 0, ""),
        (COMPARE, [*COMPARED, "--methods", "sdss"], 2, "did you mean 'sds'"),
        (COMPARE, [*COMPARED, "--prompts", "a giraffe"], 1, "'giraffe'"),
        (PROBE, ["missing"], 1, "missing/config.yaml"),
    ],
)
def test_errors_that_need_no_heavy_import_come_at_once(
    command: str, arguments: Sequence[str], status: int, message: str, tmp_path: Path
) -> None:
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "mine.txt").touch()
    call = [sys.executable, "-c", PROGRAM, command, *arguments]
    done = subprocess.run(call, cwd=tmp_path, capture_output=True, text=True, check=True)
    found, seconds, *heavy = done.stdout.splitlines()[-1].split()
    assert message in done.stderr and len(done.stderr.splitlines()) == (1 if message else 0)
    assert (int(found), heavy) == (status, []) and float(seconds) < SECONDS
    assert not (tmp_path / "new").exists()


def test_the_settings_file_is_of_this_program() -> None:
    content = (importlib.resources.files("steindreamer.configs") / FILE).read_text(encoding="utf-8")
    assert content == settings_file(), "write it anew: python -m steindreamer.pipelines.config.settings_file"


@pytest.mark.parametrize("preset", list(presets()))
def test_the_outline_composes_what_the_program_composes(preset: str) -> None:
    for representation in REPRESENTATIONS:
        light = compose_as(outline().schema, preset_layers(preset), {"representation": representation})
        assert to_plain(light) == load_config(preset, representation=representation).to_plain()


def refusal(schema: Schema, overrides: Sequence[str], chosen: dict[str, str]) -> str:
    try:
        compose_as(schema, [*preset_layers("cpu"), *given_layers(overrides, {})], chosen)
    except SettingsError as error:
        return str(error)
    return ""


@pytest.mark.parametrize(
    ("overrides", "chosen"),
    [
        (["stage.coarse.steps=3"], {}),
        (["names.method=x"], {}),
        (["stages.coarse.views.azimut=1"], {}),
        (["stages.coarse=3"], {}),
        (["stages=3"], {}),
        (["stages.new.steps=3"], {}),
        (["stages.new.scene=mesh"], {}),
        (["stages.new.representation.name=mush"], {}),
        (["stages.coarse.representation.count=3"], {}),
        (["stages.geometry.representation=3"], {}),
        (["stages.geometry.representation.samples=3"], {}),
        (["stages.geometry.representation={name: nerf, resolution: 3}"], {}),
        (["stages.coarse.steps=0"], {}),
        (["stages.coarse.steps=1.5"], {}),
        (["stages.coarse.warmup=2"], {}),
        (["stages.coarse.method.guidance=3"], {}),
        (["stages.coarse.method={name: sdd}"], {}),
        (["method.control_variates.bands=[1]"], {}),
        (["method.antithetic=perhaps"], {}),
        (["method.control_variates.bands=6"], {"method": "sds"}),
        (["export.height_meters=tall"], {}),
        (["export.enabled=false", "refine=true"], {}),
        (["seed=-1"], {}),
        (["prompt="], {}),
        (["mesh.resolution=24"], {}),
        (["stages.geometry.representation.initial_mesh=x.glb"], {}),
        (["stages.geometry.representation.resolution=1000", "refine=true"], {}),
        (["representation.initial_ply=x.ply", "stages.coarse.representation.name=nerf"], {}),
        ([], {"representation": "gausians"}),
        ([], {"method": "sdss"}),
        ([], {"prior": "tinny"}),
        (["representation.samples=3"], {"representation": "mesh"}),
        (["output.watchdog_seconds=-3"], {}),
        (["plugins=3"], {}),
    ],
)
def test_both_refuse_in_the_same_words(overrides: Sequence[str], chosen: dict[str, str]) -> None:
    message = refusal(outline().schema, overrides, chosen)
    assert message and message == refusal(SCHEMA, overrides, chosen)


def keys(section: type, path: str = "") -> Iterator[str]:
    for name, kind in kinds_of(section).items():
        yield f"{path}{name}"
        if hasattr(kind, "__dataclass_fields__"):
            yield from keys(kind, f"{path}{name}.")


def test_what_the_outline_refuses_the_program_refuses_in_the_same_words() -> None:
    chosen = {"representation": "nerf", "method": "ssd", "prior": "diffusers"}
    every = [key for section, name in chosen.items() for key in keys(CHOICES[section][name], f"{section}.")]
    every += [*keys(SCHEMA.stage, "stages.coarse."), *keys(SCHEMA.run)]
    values = ["x", "-1", "1e30", "[1, 2]", "{a: 1}", "", "null", "true", "0.5", "nan", "'", "[", "${x}", "???"]
    dice, refused = random.Random(0), 0
    for key in dice.sample(every, 120):
        override = f"{key}={dice.choice(values)}"
        message = refusal(outline().schema, [override], chosen)
        refused += bool(message)
        assert not message or message == refusal(SCHEMA, [override], chosen), override
    assert refused > 40


def test_shipped_priors_refuse_the_words_that_are_refused_at_once() -> None:
    prompts = ["a giraffe", "a red", "mug giraffe", "???", "rotes Haus", "a red mug", "a rocket ship", "two ducks!", ""]
    for name in ("tiny", "world", "mixture"):
        settings: Any = CHOICES["prior"][name]()
        prior = settings.build(torch.device("cpu"))
        refused = 0
        for prompt in prompts:
            # `mixture` takes no negative prompt.
            for texts in ((prompt, ""), ("a red mug", prompt))[: 1 if name == "mixture" else 2]:
                try:
                    check_words(name, settings, *texts)
                except UserError as error:
                    refused += 1
                    with pytest.raises(ValueError) as caught:
                        prior.embed(*texts)
                    assert str(caught.value) == str(error)
        assert refused >= 4


@pytest.mark.parametrize("name", ["tiny", "world", "mixture"])
def test_shipped_priors_ignore_words_that_they_do_not_know(name: str) -> None:
    kind: Any = CHOICES["prior"][name]
    prompt = "a hyperrealistic toadstool with white dots, side view"
    check_words(name, kind(), prompt)
    with pytest.raises(UserError, match="'hyperrealistic'"):
        check_words(name, kind(strict_words=True), prompt)
    prior = kind().build(torch.device("cpu"))
    assert prior.prompt_notes(prompt) == [
        "the prompt is read as 'a mushroom with a red cap'; ignored: 'hyperrealistic'"
    ]
    with pytest.raises(ValueError, match="'hyperrealistic'"):
        kind(strict_words=True).build(torch.device("cpu")).embed(prompt)


def test_the_tiny_prior_is_given_the_caption() -> None:
    settings: Any = CHOICES["prior"]["tiny"](cache_text=False)
    prior = settings.build(torch.device("cpu"))
    free, plain = prior.embed("An 8k render of a crimson cup", "scary ducks"), prior.embed("a red mug", "a yellow duck")
    for name in ("views", "negative", "null"):
        rows, others = getattr(free, name).tensors, getattr(plain, name).tensors
        assert all(torch.equal(rows[key], others[key]) for key in others)


def test_a_model_of_the_users_own_may_know_other_words(tmp_path: Path) -> None:
    check_words("tiny", CHOICES["prior"]["tiny"](model=str(tmp_path)), "a giraffe")
    check_words("diffusers", CHOICES["prior"]["diffusers"](), "a giraffe")


def test_the_script_itself_refuses_at_once(tmp_path: Path) -> None:
    """`python pipelines/run.py` as people call it, with what the shell brings."""
    script = Path(__file__).parents[3] / "pipelines" / "run.py"
    before = os.times().children_user + os.times().children_system
    done = subprocess.run([sys.executable, str(script), "--repr", "x"], cwd=tmp_path, capture_output=True, check=False)
    assert done.returncode == 2
    assert os.times().children_user + os.times().children_system - before < SECONDS
