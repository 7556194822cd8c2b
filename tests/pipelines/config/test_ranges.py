"""Every number of a configuration is finite and has a range; outside of it there is one line with all it takes."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal, get_args, get_origin

import pytest
from annotated_types import Interval
from every_setting import Setting, bare, every_setting, intervals

from steindreamer.pipelines.config.run_config import compose, load_config
from steindreamer.pipelines.errors import SettingsError, UserError
from steindreamer.pipelines.settings.validation import accepted, as_plain, read_settings


def _numeric(kind: Any) -> bool:
    kinds = [bare(kind), *(bare(part) for part in getattr(bare(kind), "__args__", ()))]
    return int in kinds or float in kinds


NUMERIC = [setting for setting in every_setting() if _numeric(setting.kind)]


def test_every_number_has_a_smallest_and_a_largest_value() -> None:
    assert len(NUMERIC) > 150
    for setting in NUMERIC:
        found = intervals(setting.kind)
        assert len(found) == 1, f"{setting.key} has no Interval"
        interval = found[0]
        for ends in ((interval.ge, interval.gt), (interval.le, interval.lt)):
            given: Any = [end for end in ends if end is not None]
            assert len(given) == 1 and math.isfinite(given[0]), setting.key


def test_choices_are_literals() -> None:
    """What else stands in `Annotated` is read by nobody."""
    words = [setting for setting in every_setting() if get_origin(bare(setting.kind)) is Literal]
    assert {"export.source", "method.weighting", "representation.backend"} <= {word.key for word in words}
    for setting in every_setting():
        marks = get_args(setting.kind)[1:] if get_origin(setting.kind) is Annotated else ()
        assert all(isinstance(mark, Interval) for mark in marks), setting.key


@pytest.mark.parametrize(
    "value",
    [math.nan, -math.inf, 10**30, -(10**30), 10**5000],
    ids=["nan", "-inf", "1e30", "-1e30", "1e5000"],
)
def test_absurd_numbers_are_refused_by_name(value: float) -> None:
    for setting in _each_key_once():
        several = bare(setting.kind) is not float and bare(setting.kind) is not int and _is_list(setting)
        with pytest.raises(SettingsError) as caught:
            compose([setting.layer([value, value] if several else value)], dict(setting.chosen))
        message = str(caught.value)
        assert message.startswith(setting.key), (setting, message)
        assert "accepted" in message and len(message) < 400 and "\n" not in message


def _is_list(setting: Setting) -> bool:
    return getattr(bare(setting.kind), "__origin__", None) is list


def _each_key_once() -> list[Setting]:
    return list({setting.key: setting for setting in NUMERIC}.values())


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("stages.coarse.resolution=1000000", "stages.coarse.resolution is 1000000; 16 to 4096 is accepted"),
        ("output.image_size=10000000", "output.image_size is 10000000; 16 to 2048 is accepted"),
        (
            "method.control_variates.bands=100000000",
            "method.control_variates.bands is 100000000; 1 to 1024 is accepted",
        ),
        ("representation.count=1000000000000", "representation.count is 1000000000000; 1 to 5000000 is accepted"),
        ("representation.means_rate=nan", "representation.means_rate is 'nan'; a finite number is accepted"),
        ("method.guidance_scale=nan", "method.guidance_scale is 'nan'; a finite number is accepted"),
        ("method.guidance_scale=1e999", "method.guidance_scale is '1e999'; a finite number is accepted"),
        ("stages.geometry.method.guidance_scale=.inf", "stages.geometry.method.guidance_scale is '.inf'"),
        ("seed=99999999999999999999999", "seed is 99999999999999999999999; 0 to 9223372036854775807 is accepted"),
        ("seed=9223372036854775808", "seed is 9223372036854775808; 0 to"),
        ("particles=1000000", "particles is 1000000; 1 to 64 is accepted"),
        ("stages.coarse.reuse=0", "stages.coarse.reuse is 0; 1 to 1000 is accepted"),
        ("stages.coarse.reuse=1.5", "stages.coarse.reuse is '1.5'; a whole number"),
        ("stages.texture.ema=1", "stages.texture.ema is 1.0; at least 0 and below 1 is accepted"),
        ("stages.coarse.rates=0", "stages.coarse.rates is 0; above 0 and up to 10000 is accepted"),
        ("stages.coarse.rates={from: 6, to: 0}", "stages.coarse.rates.to is 0; above 0 and up to 10000 is accepted"),
        ("stages.coarse.rates={from: 6}", "stages.coarse.rates lacks 'to'"),
        ("stages.coarse.rates=[6, 1]", "stages.coarse.rates is [6, 1]; a finite number is accepted"),
        ("export.face_budget=100000000", "export.face_budget is 100000000; 12 to"),
        ("export.cameras=1000000", "export.cameras is 1000000; 8 to 1024 is accepted"),
        ("export.texture_size=65536", "export.texture_size is 65536; 16 to 8192 is accepted"),
        (
            "stages.texture.representation.size=65536",
            "stages.texture.representation.size is 65536; 0 to 8192 is accepted",
        ),
        (
            "stages.geometry.representation.resolution=4096",
            "stages.geometry.representation.resolution is 4096; 4 to 256 is accepted",
        ),
        ("stages.coarse.regularizers.sparsity=nan", "stages.coarse.regularizers.sparsity is 'nan'"),
        ("stages.coarse.regularizers.sparsity={from: 0, to: .inf}", "stages.coarse.regularizers.sparsity.to is '.inf'"),
        ("stages.coarse.regularizers.sparsity=1e200", "stages.coarse.regularizers.sparsity is 1e+200; -1e+12 to"),
        ("stages.coarse.views.field_of_view=[0, 40]", "stages.coarse.views.field_of_view[0] is 0.0; above 0 and below"),
        ("method.weighting=unifrom", "method.weighting is 'unifrom' (did you mean 'uniform'?); accepted: sigma"),
    ],
)
def test_the_message_names_key_value_and_range(override: str, message: str) -> None:
    with pytest.raises(UserError) as caught:
        load_config(None, overrides=[override])
    assert str(caught.value).startswith(message)


def test_the_ends_of_a_range_are_accepted_as_it_says() -> None:
    assert load_config(None, seed=2**63 - 1).seed == 2**63 - 1
    assert load_config(None, overrides=["stages.coarse.resolution=16"]).stages["coarse"].resolution == 16
    assert load_config(None, overrides=["stages.coarse.resolution=4096"]).stages["coarse"].resolution == 4096
    for edge in ("0", "1"):
        with pytest.raises(SettingsError, match=r"representation.opacity is .*; above 0 and below 1 is accepted"):
            load_config(None, overrides=[f"representation.opacity={edge}"])


def test_what_is_switched_off_is_judged_too() -> None:
    """A run can be resumed with refinement, and what was saved cannot be changed then."""
    for off in ("refine=false", "stages.geometry.steps=0"):
        for wrong, message in (
            ("stages.geometry.stepz=3", "did you mean 'steps'"),
            ("stages.geometry.representation.name=dmtett", "did you mean 'dmtet'"),
            ("stages.geometry.rates=fast", "stages.geometry.rates is 'fast'"),
            ("stages.geometry.resolution=5", "stages.geometry.resolution is 5; 16 to 4096"),
            ("stages.geometry.views.elevation=[3]", "stages.geometry.views.elevation is [3.0]; give"),
            ("stages.geometry.regularizers.sparsity={from: 1, to: -1, shape: exponential}",
             "stages.geometry.regularizers.sparsity runs from 1 to -1"),
            ("stages.geometry.method.guidance=3", "did you mean 'guidance_scale'"),
            ("stages.geometry.method.timesteps.maximum=7", "stages.geometry.method.timesteps.maximum is 7.0; 0 to 1"),
            ("stages.geometry.method.timesteps.maximum=0.1", "stages.geometry.method.timesteps: timesteps need 0 <="),
            ("stages.geometry.representation.resolution=100000", "representation.resolution is 100000; 4 to 256"),
            ("stages.texture.representation.size=1000", "stages.texture.representation.size is 1000; powers of two"),
        ):  # fmt: skip
            with pytest.raises(SettingsError) as caught:
                load_config(None, overrides=[off, wrong])
            assert message in str(caught.value)


@dataclass
class _Inner:
    size: Annotated[int, Interval(ge=1, lt=8)] = 1


@dataclass
class _Outer:
    fraction: Annotated[float, Interval(gt=0, le=1)] | None = None
    pair: list[Annotated[float, Interval(ge=0)]] = field(default_factory=list)
    by_name: dict[str, Annotated[int, Interval(le=3)]] = field(default_factory=dict)
    word: Literal["one", "two"] = "one"
    inner: _Inner = field(default_factory=_Inner)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"fraction": 0.0}, "x.fraction is 0.0; above 0 and up to 1 is accepted"),
        ({"fraction": math.nan}, "x.fraction is nan"),
        ({"pair": [1.0, -1.0]}, "x.pair[1] is -1.0; at least 0 is accepted"),
        ({"by_name": {"a": 9}}, "x.by_name.a is 9; up to 3 is accepted"),
        ({"word": "tow"}, "x.word is 'tow' (did you mean 'two'?); accepted: one, two"),
        ({"inner": {"size": 8}}, "x.inner.size is 8; at least 1 and below 8 is accepted"),
    ],
)
def test_ranges_stand_anywhere_in_an_annotation(settings: dict[str, Any], message: str) -> None:
    fine = _Outer(fraction=1.0, pair=[0.0], by_name={"a": 3}, word="two", inner=_Inner(7))
    assert read_settings(_Outer, as_plain(fine), "x") == fine
    with pytest.raises(SettingsError) as caught:
        read_settings(_Outer, settings, "x")
    assert str(caught.value).startswith(message)


def test_ranges_in_words() -> None:
    assert accepted({"ge": 1, "le": 10}) == "1 to 10"
    assert accepted({"gt": 0, "lt": 180}) == "above 0 and below 180"
    assert accepted({"le": 0.5}) == "up to 0.5"
