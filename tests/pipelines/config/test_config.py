"""Configuration: layers, names, and refusals with the nearest match."""

from collections.abc import Iterator, Mapping
from dataclasses import FrozenInstanceError
from pathlib import Path
from typing import Any

import pytest
import yaml

from steindreamer.distill import SDSConfig, SSDConfig
from steindreamer.distill.methods.csd import CSDConfig
from steindreamer.pipelines.config.run_config import RunConfig, compose, load_config, presets, read_config
from steindreamer.pipelines.errors import UserError, nearest
from steindreamer.pipelines.priors import PRIORS
from steindreamer.representations import REPRESENTATIONS, DmtetConfig, NerfConfig
from steindreamer.world.prior import WorldPriorConfig


def test_later_layers_win() -> None:
    config: Any = load_config(
        None,
        prompt="a red mug",
        overrides=["stages.coarse.steps=7", "stages.coarse.steps=9", "method.control_variates.bands=6"],
    )
    assert (
        config.prompt == "a red mug"
        and config.stages["coarse"].steps == 9
        and config.method.control_variates.bands == 6
    )


def test_names_choose_the_dataclasses() -> None:
    sds, ssd = load_config(None, method="sds"), load_config(None, method="ssd")
    assert type(sds.method) is not type(ssd.method)
    assert sds.names == {"representation": "gaussians", "method": "sds", "prior": "tiny"}


def test_a_model_may_stand_in_the_place_of_the_priors_name(tmp_path: Path) -> None:
    for model in (str(tmp_path), "someone/model@abc", "flux-1-dev"):
        config: Any = load_config("stable_diffusion", prior=model, overrides=["prior.precision=float32"])
        assert config.names["prior"] == "diffusers"
        assert (config.prior.model, config.prior.precision) == (model, "float32")
        path = tmp_path / "config.yaml"
        path.write_text(yaml.safe_dump(config.to_plain()), encoding="utf-8")
        assert read_config(path) == config
    for unknown in (str(tmp_path / "absent"), "stable"):
        with pytest.raises(UserError, match=r"unknown prior .* a folder that exists, or a hub id owner/name"):
            load_config(None, prior=unknown)


def test_a_presets_options_for_another_choice_are_dropped(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("method: {name: ssd, control_variates: {bands: 5}}\nstages: {coarse: {steps: 3}}\n")
    own: Any = load_config(path).method
    assert own.control_variates.bands == 5
    config = load_config(path, method="sds")
    assert config.names["method"] == "sds" and config.stages["coarse"].steps == 3


def test_plain_form_round_trips(tmp_path: Path) -> None:
    config = load_config(None, prompt="ein Krug: ä", overrides=["stages.coarse.views.elevation=[-5, 5]"])
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(config.to_plain(), allow_unicode=True), encoding="utf-8")
    again = read_config(path)
    assert again == config and again.stages["coarse"].views.elevation == [-5.0, 5.0]


@pytest.mark.parametrize("name", list(presets()))
def test_every_preset_loads_for_every_representation(name: str) -> None:
    for representation in REPRESENTATIONS:
        assert load_config(name, representation=representation).to_plain()


@pytest.mark.parametrize("name", list(presets()))
def test_presets_only_say_what_differs_from_the_defaults(name: str) -> None:
    plain = yaml.safe_load(presets()[name].read_text())
    special = plain.pop("when", {})
    for representation in REPRESENTATIONS:
        default = load_config(None, representation=representation, method=plain.get("method", {}).get("name"))
        _check_it_differs(name, plain, default)
        general = [
            compose(
                [plain, {"when": {prior: special.get(prior, {})}}], {"representation": representation, "prior": prior}
            )
            for prior in PRIORS
        ]
        _check_it_differs(name, special.get(representation, {}), *general)
    for prior in PRIORS:
        _check_it_differs(name, special.get(prior, {}), compose([plain], {"prior": prior}))


def _check_it_differs(name: str, layer: Mapping[str, Any], *below: RunConfig) -> None:
    """Every setting of the layer changes one of the configurations."""
    for key, value in _leaves(layer):
        if key[-1] != "name" and not {"regularizers", "method"} & set(key[2:3]):
            changed = any(_at(config.to_plain(), key) != value for config in below)
            assert changed, f"{name}: {'.'.join(key)} changes nothing"


def _leaves(tree: Mapping[str, Any], path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    for key, value in tree.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, (*path, key))
        else:
            yield (*path, key), value


def _at(tree: Any, path: tuple[str, ...]) -> Any:
    for key in path:
        tree = tree.get(key, {}) if isinstance(tree, Mapping) else {}
    return tree


def test_settings_for_another_representation_or_prior_are_dropped(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("refine: true\nwhen: {gaussians: {refine: false, representation: {count: 7}}}\n")
    assert load_config(path, representation="nerf").refine
    config: Any = load_config(path, representation="gaussians")
    assert not config.refine and config.representation.count == 7
    path.write_text("when: {tiny: {seed: 1, prompt: a mug}, nerf: {seed: 2}}\n")
    assert load_config(path, prior="world", representation="mesh").seed == 0
    both = load_config(path, prior="tiny", representation="nerf")
    assert (both.seed, both.prompt) == (2, "a mug")
    path.write_text("when: {gausians: {refine: false}}\n")
    with pytest.raises(UserError, match="did you mean 'gaussians'"):
        load_config(path)


@pytest.mark.parametrize(
    ("overrides", "applies"),
    [
        ([], False),
        (["representation.initial_ply=a.ply"], True),
        (["representation={initial_ply: a.ply}"], True),
        (["representation.initial_ply=a.ply", "representation.initial_ply="], False),
        (["stages.coarse.representation={name: dmtet, initial_mesh: a.glb}"], True),
    ],
)
def test_settings_for_scenes_from_a_file(tmp_path: Path, overrides: list[str], applies: bool) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("stages: {coarse: {rates: 6}}\nwhen: {initial_file: {stages: {coarse: {rates: null}}}}\n")
    assert load_config(path, overrides=overrides).stages["coarse"].rates == (None if applies else 6)
    given = load_config(path, overrides=[*overrides, "stages.coarse.rates=2"])
    assert given.stages["coarse"].rates == 2


def test_stages_keep_their_order_and_may_be_added() -> None:
    config = load_config(None, overrides=["stages.polish.representation=null", "stages.polish.steps=5"])
    assert list(config.active_stages()) == ["coarse", "geometry", "texture", "polish"]
    assert list(load_config(None, overrides=["stages.geometry.steps=0"]).active_stages()) == ["coarse", "texture"]
    assert list(load_config(None, refine=False).active_stages()) == ["coarse"]


def test_a_configuration_is_typed_as_a_whole_and_frozen() -> None:
    more = ["stages.a.representation.name=textured_mesh"]
    config = load_config("cpu", representation="nerf", method="csd", prior="world", overrides=more)
    assert type(config.representation) is NerfConfig and type(config.prior) is WorldPriorConfig
    assert list(config.methods) == list(config.stages) == ["coarse", "geometry", "texture", "a"]
    assert {type(method) for method in (config.method, *config.methods.values())} == {CSDConfig}
    with pytest.raises(FrozenInstanceError):
        config.seed = 1  # pyright: ignore[reportAttributeAccessIssue]


def test_a_stage_has_its_own_representation(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("stages: {geometry: {representation: {name: dmtet, resolution: 20}}, more: {representation: null}}")

    def trained(*overrides: str) -> dict[str, tuple[str, str]]:
        config = load_config(path, overrides=overrides)
        chosen = {name: config.representation_of(name) for name in config.active_stages()}
        assert compose([config.to_plain()]) == config
        return {name: (each.path, each.name) for name, each in chosen.items()}

    geometry, texture = "stages.geometry.representation", "stages.texture.representation"
    first, last = ("representation", "gaussians"), (texture, "textured_mesh")
    assert trained() == {"coarse": first, "geometry": (geometry, "dmtet"), "texture": last, "more": last}
    assert load_config(path).representation_of("geometry").config == DmtetConfig(resolution=20)
    assert trained("stages.texture.steps=0")["more"] == (geometry, "dmtet")
    assert trained(f"{geometry}=null")["geometry"] == first
    assert trained("representation.name=mesh")["coarse"] == ("representation", "dmtet")
    assert trained("stages.coarse.representation.name=nerf")["coarse"] == ("stages.coarse.representation", "nerf")
    assert trained("refine=false") == {"coarse": first}
    config = load_config(path, overrides=[f"{geometry}={{name: nerf, samples: 9}}"])
    assert config.representation_of("geometry").config == NerfConfig(samples=9), "what is said of dmtet is left out"
    regularizers = [
        load_config("cpu", overrides=each).stages["geometry"].regularizers for each in ([], [f"{geometry}=null"])
    ]
    assert regularizers[0] and not regularizers[1], "what is left out takes its regularizers along"
    with pytest.raises(UserError, match=rf"'{geometry[:6]}.coarse.representation' has no name"):
        load_config(path, overrides=["stages.coarse.representation.count=3"])
    with pytest.raises(UserError, match=rf"unknown key '{geometry}.count'"):
        load_config(path, overrides=[f"{geometry}.count=3"])


def test_a_stage_has_its_own_method() -> None:
    config = load_config(
        None,
        overrides=[
            "method.control_variates.bands=6",
            "stages.texture.method={guidance_scale: 3, timesteps: {maximum: 0.6}}",
        ],
    )
    own, other = config.methods["texture"], config.methods["coarse"]
    assert isinstance(own, SSDConfig)
    assert (own.guidance_scale, own.timesteps.maximum, own.control_variates.bands) == (3.0, 0.6, 6)
    assert other == config.method


def test_a_stage_may_name_another_method() -> None:
    named = ["method.guidance_scale=9", "stages.coarse.method={name: sds, weighting: uniform}"]
    config = load_config(None, overrides=[*named, "stages.texture.method={name: ssd, control_variates: {bands: 3}}"])
    coarse, geometry, texture = (config.methods[name] for name in ("coarse", "geometry", "texture"))
    assert (type(coarse), coarse.weighting, coarse.guidance_scale) == (SDSConfig, "uniform", 7.5)
    assert geometry == config.method
    assert isinstance(texture, SSDConfig) and (texture.control_variates.bands, texture.guidance_scale) == (3, 9)
    assert compose([config.to_plain()]).methods["coarse"] == coarse
    with pytest.raises(UserError, match=r"stages.coarse.method.name is 'sdd' .*; known: sds, ssd"):
        load_config(None, overrides=["stages.coarse.method={name: sdd}"])
    with pytest.raises(UserError, match=r"unknown key 'stages.coarse.method.bands'"):
        load_config(None, overrides=["stages.coarse.method={name: sds, bands: 3}"])


def test_nearest_names_only_what_is_near() -> None:
    assert nearest("gausians", ["gaussians", "nerf"]) == " (did you mean 'gaussians'?)"
    assert nearest("zzz", ["gaussians"]) == ""


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        ({"promt": "x"}, "unknown key 'promt' (did you mean 'prompt'?)"),
        ({"stages": {"coarse": {"stepps": 3}}}, "unknown key 'stages.coarse.stepps' (did you mean 'steps'?)"),
        ({"stages": {"coarse": {"views": {"azimut": 1}}}}, "unknown key 'stages.coarse.views.azimut'"),
        ({"stages": 3}, "'stages' is a section, got 3"),
        ({"stages": {"coarse": {"steps": "many"}}}, "stages.coarse.steps"),
        ({"stages": {"coarse": {"steps": 1.5}}}, "stages.coarse.steps"),
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
