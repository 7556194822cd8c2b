"""Configuration: layers, names, and refusals with the nearest match."""

from pathlib import Path

import pytest
import yaml

from steindreamer.pipelines.config import compose, load_config, presets, read_config
from steindreamer.pipelines.errors import UserError, nearest


def test_later_layers_win() -> None:
    config = load_config(None, prompt="a red mug", overrides=["stage.steps=7", "stage.steps=9", "method.bands=6"])
    assert config.prompt == "a red mug" and config.stage.steps == 9 and config.method.bands == 6


def test_names_choose_the_dataclasses() -> None:
    sds, ssd = load_config(None, method="sds"), load_config(None, method="ssd")
    assert type(sds.method) is not type(ssd.method)
    assert sds.names == {"representation": "gaussians", "method": "sds", "prior": "world"}


def test_a_presets_options_for_another_choice_are_dropped(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("method: {name: ssd, bands: 5}\nstage: {steps: 3}\n")
    assert load_config(path).method.bands == 5
    config = load_config(path, method="sds")
    assert config.names["method"] == "sds" and config.stage.steps == 3


def test_plain_form_round_trips(tmp_path: Path) -> None:
    config = load_config(None, prompt="ein Krug: ä", overrides=["stage.views.elevation=[-5, 5]"])
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(config.to_plain(), allow_unicode=True), encoding="utf-8")
    again = read_config(path)
    assert again == config and again.stage.views.elevation == [-5.0, 5.0]


@pytest.mark.parametrize("name", list(presets()))
def test_every_preset_loads(name: str) -> None:
    assert load_config(name).to_plain()


def test_presets_only_say_what_differs_from_the_defaults() -> None:
    for name, path in presets().items():
        plain, default = yaml.safe_load(path.read_text()), load_config(None).to_plain()
        for section, values in plain.items():
            for key, value in values.items() if isinstance(values, dict) else ():
                if key != "name":
                    assert default[section][key] != value, f"{name}: {section}.{key} is the default"


def test_nearest_names_only_what_is_near() -> None:
    assert nearest("gausians", ["gaussians", "nerf"]) == " (did you mean 'gaussians'?)"
    assert nearest("zzz", ["gaussians"]) == ""


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        ({"promt": "x"}, "unknown key 'promt' (did you mean 'prompt'?)"),
        ({"stage": {"stepps": 3}}, "unknown key 'stage.stepps' (did you mean 'steps'?)"),
        ({"stage": {"views": {"azimut": 1}}}, "unknown key 'stage.views.azimut'"),
        ({"stage": 3}, "'stage' is a section, got 3"),
        ({"stage": {"steps": "many"}}, "stage.steps"),
        ({"stage": {"steps": 1.5}}, "stage.steps"),
        ({"seed": -1}, "seed is -1"),
        ({"method": {"name": "sds2"}}, "unknown method 'sds2' (did you mean 'sds'?)"),
        ({"method": {"timesteps": {"minimum": 0.9}}}, "minimum"),
        ({"names": {"method": "x"}}, "names"),
    ],
)
def test_refusals(layer: dict[str, object], message: str) -> None:
    with pytest.raises(UserError) as caught:
        compose([layer])
    assert message in str(caught.value) and "\n" not in str(caught.value)


def test_nothing_is_interpolated() -> None:
    prompt = "a ${oc.env:HOME} ${seed} mug"
    config = load_config(None, prompt=prompt, overrides=["negative_prompt=${prompt}"])
    assert config.prompt == prompt and config.negative_prompt == "${prompt}"
    assert compose([config.to_plain()]) == config
