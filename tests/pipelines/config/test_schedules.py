"""Values over a stage: closed forms between, constants outside, and every wrong writing refused by name."""

import itertools
import math
from dataclasses import dataclass, field
from typing import Any

import pytest

from steindreamer.pipelines.errors import UserError
from steindreamer.pipelines.settings.schedules import SHAPES, parse_schedule
from steindreamer.pipelines.settings.validation import read_settings
from steindreamer.pipelines.settings.yaml_text import parse_yaml


@pytest.mark.parametrize("value", [3, 0, -0.5, 1e9, "1e-3"])
def test_a_number_is_constant(value: float | str) -> None:
    schedule = parse_schedule(value, "weight")
    assert {schedule.value_at(p) for p in (0.0, 0.3, 1.0)} == {float(value)}


def test_linear_between_and_constant_outside() -> None:
    schedule = parse_schedule({"from": 10, "to": 1000, "begin": 0.1, "end": 0.5}, "weight")
    assert [schedule.value_at(p) for p in (0.0, 0.1, 0.5, 0.9)] == [10, 10, 1000, 1000]
    assert schedule.value_at(0.3) == pytest.approx(505)


def test_begin_and_end_default_to_the_whole_stage() -> None:
    schedule = parse_schedule({"from": 1, "to": 3}, "weight")
    assert [schedule.value_at(p) for p in (0.0, 0.25, 1.0)] == pytest.approx([1, 1.5, 3])


def test_shapes() -> None:
    plain: dict[str, Any] = {"from": 1.0, "to": 100.0, "begin": 0.2, "end": 0.6}
    middle = {shape: parse_schedule(plain | {"shape": shape}, "w").value_at(0.4) for shape in SHAPES}
    assert middle == pytest.approx({"linear": 50.5, "exponential": 10.0, "sqrt": 1 + 99 * math.sqrt(0.5)})


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("ends", [(2.0, 5.0), (5.0, 2.0), (-1.0, -3.0)])
def test_every_shape_is_monotone_and_joins_its_ends(shape: str, ends: tuple[float, float]) -> None:
    schedule = parse_schedule({"from": ends[0], "to": ends[1], "begin": 0.25, "end": 0.75, "shape": shape}, "w")
    values = [schedule.value_at(i / 1000) for i in range(1001)]
    steps = [b - a for a, b in itertools.pairwise(values)]
    assert values[0] == ends[0] and values[-1] == ends[1]
    assert all(step * (ends[1] - ends[0]) >= 0 for step in steps)
    assert max(map(abs, steps)) < 0.15, "a jump"


def test_equal_begin_and_end_is_a_jump() -> None:
    schedule = parse_schedule({"from": 64, "to": 512, "begin": 0.2, "end": 0.2}, "resolution")
    assert [schedule.value_at(p) for p in (0.0, 0.199, 0.2, 1.0)] == [64, 64, 512, 512]
    assert parse_schedule({"from": 1, "to": 2, "begin": 0, "end": 0}, "w").value_at(0.0) == 2


@dataclass
class _Section:
    weights: dict[str, Any] = field(default_factory=dict)


def test_values_as_the_configuration_gives_them() -> None:
    text = "weights: {a: 2, b: {from: 1e-3, to: 1, begin: 0.5, shape: exponential}}"
    section = read_settings(_Section, parse_yaml(text))
    schedules = {name: parse_schedule(value, name) for name, value in section.weights.items()}
    assert schedules["a"].value_at(0.7) == 2
    assert schedules["b"].value_at(0.0) == 1e-3
    assert schedules["b"].value_at(0.75) == pytest.approx(1e-3**0.5)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (True, "w is True"),
        (None, "w is None"),
        ("fast", "w is 'fast'"),
        ([1, 2], r"w is \[1, 2\]"),
        (math.nan, "w is nan"),
        (math.inf, "w is inf"),
        (10**400, "finite number"),
        ({}, "lacks 'from'"),
        ({"from": 1}, "lacks 'to'"),
        ({"from": 1, "to": 2, "befin": 0.1}, r"w\.befin.*did you mean 'begin'"),
        ({"from": 1, "to": 2, 3: 4}, r"w\.3 is not a key of a schedule"),
        ({"from": False, "to": 2}, r"w\.from is False"),
        ({"from": 1, "to": "inf"}, r"w\.to is 'inf'"),
        ({"from": 1, "to": 2, "begin": 0.6, "end": 0.5}, "begin must not exceed end"),
        ({"from": 1, "to": 2, "begin": 0.6, "end": 500}, r"w\.end is 500; a fraction"),
        ({"from": 1, "to": 2, "begin": -0.1}, r"w\.begin is -0\.1; a fraction"),
        ({"from": 1, "to": 2, "begin": True}, r"w\.begin is True"),
        ({"from": 1, "to": 2, "shape": "liner"}, r"w\.shape is 'liner'.*did you mean 'linear'"),
        ({"from": 1, "to": 2, "shape": ["linear"]}, r"w\.shape is \['linear'\]"),
        ({"from": 0, "to": 2, "shape": "exponential"}, "use shape: linear"),
        ({"from": -1, "to": 2, "shape": "exponential"}, "use shape: linear"),
    ],
)
def test_wrong_writings_are_refused_by_name(value: Any, message: str) -> None:
    with pytest.raises(UserError, match=message):
        parse_schedule(value, "w")
