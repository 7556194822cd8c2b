"""The benchmark of the text-to-image priors: its models have the published sizes, and the script runs."""

from __future__ import annotations

import importlib
import math
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

pytest.importorskip("diffusers")
pytest.importorskip("transformers")

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], Any]]:
    """Imports a script of the folder by name; none of them stays loaded."""
    before = set(sys.modules)
    monkeypatch.syspath_prepend(BENCHMARKS)
    yield importlib.import_module
    for name in set(sys.modules) - before:
        origin = getattr(sys.modules[name], "__file__", None)
        if origin and BENCHMARKS in Path(origin).parents:
            del sys.modules[name]


def _parameters(make: Any) -> int:
    with torch.device("meta"):
        return sum(value.numel() for value in make().parameters())


@pytest.mark.parametrize(
    ("name", "unet", "texts"),
    [
        ("stable-diffusion-2-1-base", 865_910_724, [340_387_840]),
        ("stable-diffusion-xl", 2_567_463_684, [123_060_480, 694_659_840]),
    ],
)
def test_models_have_as_many_weights_as_the_published_ones(
    name: str, unet: int, texts: list[int], script: Callable[[str], Any]
) -> None:
    random_weights = script("models.random_weights")
    shape = random_weights.TEXT_TO_IMAGE[name]
    assert _parameters(partial(random_weights.denoiser, shape)) == unet
    assert _parameters(partial(random_weights.autoencoder, shape)) == 83_653_863
    found = [_parameters(partial(random_weights.text_encoder, shape, index)) for index in range(len(shape.texts))]
    assert found == texts


@pytest.mark.parametrize(("name", "millions"), [("dpt-hybrid-midas", 123), ("depth-anything-v2-small", 24.8)])
def test_depth_models_are_as_large_as_the_published_ones(
    name: str, millions: float, script: Callable[[str], Any]
) -> None:
    """In the millions that their authors' pages say."""
    random_weights = script("models.random_weights")
    shape = random_weights.DEPTH_MODELS[name]
    assert _parameters(partial(random_weights.depth_estimator, shape)) / 1e6 == pytest.approx(millions, rel=0.01)


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def test_the_script_runs(
    device: str, tmp_path: Path, script: Callable[[str], Any], capsys: pytest.CaptureFixture[str]
) -> None:
    diffusion, out, model = script("diffusion"), tmp_path / "results" / "tiny.md", "stable-diffusion-xl"
    options = ["--models", model, "--warmup", "0", "--steps", "1"]
    diffusion.main(
        ["--size", "tiny", "--device", device, "--work", str(tmp_path / "models"), "--out", str(out), *options]
    )
    text = out.read_text()
    header, _, *lines = [line for line in text.splitlines() if line.startswith("|")]
    names = [cell.strip() for cell in header.strip("|").split("|")]
    found = [dict(zip(names, (cell.strip() for cell in line.strip("|").split("|")), strict=True)) for line in lines]
    depth = [f"SSD, depth by {name}" for name in ("dpt-hybrid-midas", "depth-anything-v2-small", "shipped")]
    assert [row["method"] for row in found] == ["SDS", "SSD, spectral", *depth, "VSD", "SDS"]
    assert all(row["model"] == model and row["views"] == "1" for row in found)
    for row in found:
        times = {name: float(row[name]) for name in (*diffusion.PARTS, "rest")}
        assert all(value > 0 for name, value in times.items() if name not in ("terms", "coefficients")), row
        assert sum(times.values()) == pytest.approx(float(row["ms per step"]), abs=0.1)
        assert row["peak GB"] == "-" if device == "cpu" else float(row["peak GB"]) > 0
        assert row["quartiles"] == " to ".join([row["ms per step"]] * 2)  # of a single step
        if row["method"] != "SDS":
            assert times["coefficients"] > 0 and (times["terms"] > 0 or row["method"] == "VSD")
    assert math.isclose(sum(float(row["of SDS"]) for row in found if row["method"] == "SDS") / 2, 1, abs_tol=2e-3)
    assert "not judged" in text
    assert f"`python benchmarks/diffusion.py --size tiny --device {device} --work {tmp_path / 'models'}" in text
    assert "SSD, depth by shipped" in capsys.readouterr().out


def test_targets_are_judged_against_the_mean_of_both_sds(script: Callable[[str], Any]) -> None:
    diffusion = script("diffusion")
    sds, spectral, depth = diffusion.SDS, diffusion.SPECTRAL, diffusion.with_depth("x", "folder")

    def row(method: Any, milliseconds: float, views: int = 1) -> Any:
        return diffusion.Row(
            "stable-diffusion-2-1-base", method, views, {diffusion.STEP: milliseconds}, (1.0, 2.0), 10.0
        )

    one = [row(sds, 39.0), row(spectral, 40.0), row(depth, 44.0), row(diffusion.VSD, 60.0), row(sds, 41.0)]
    among = [*one, row(sds, 9.0, 4), row(depth, 9.0, 4)]
    assert [diffusion.ratio(each, among) for each in among] == [0.975, 1.0, 1.1, 1.5, 1.025, 1.0, 1.0]
    assert [line.rsplit(": ", 2)[1:] for line in diffusion.verdicts(among)] == [
        ["1.000 times SDS, at most 1.02", "met"],
        ["40.0 ms, at most 40", "met"],
        ["1.100 times SDS, at most 1.05", "missed"],
        ["44.0 ms, at most 40", "missed"],
        ["1.500 times SSD, at least 1.4", "met"],
        ["1.000 times SDS, at most 1.05", "met"],
    ]


def test_the_spread_is_of_the_steps(script: Callable[[str], Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """By a clock that only a step of a stand-in moves."""
    diffusion, clock, step = script("diffusion"), [0.0], iter([9.0, 1.0, 5.0, 2.0, 4.0, 3.0])

    class Part:
        device = torch.device("cpu")
        control_variates: tuple[Any, ...] = ()

        def __getattr__(self, name: str) -> Any:
            return lambda *_: None

    class Stand:
        representation, prior, distiller, optimizer = Part(), Part(), Part(), Part()

        def step(self) -> Any:
            clock[0] += next(step)
            return SimpleNamespace(skipped="", notes=())

    monkeypatch.setattr(diffusion.time, "perf_counter", lambda: clock[0])
    medians, quartiles, _ = diffusion.measure(Stand(), 1, 5)
    assert (medians[diffusion.STEP], medians[diffusion.REST], quartiles) == (3e3, 3e3, (2e3, 4e3))


@pytest.mark.parametrize(("warmup", "steps"), [(1, 0), (0, 1)])
def test_steps_that_ran_out_of_memory_are_not_timed(warmup: int, steps: int, script: Callable[[str], Any]) -> None:
    diffusion, part = script("diffusion"), SimpleNamespace(**dict.fromkeys(("render", "encode", "predict_noise")))
    part.device, part.update, part.step, part.control_variates = torch.device("cpu"), None, None, ()
    stage = SimpleNamespace(**dict.fromkeys(("representation", "prior", "distiller", "optimizer"), part))
    stage.step = lambda: SimpleNamespace(skipped="", notes=("out of memory: 1 view at a time",))
    with pytest.raises(RuntimeError, match=r"^out of memory: 1 view at a time$"):
        diffusion.measure(stage, warmup, steps)


@pytest.mark.parametrize("size", ["tiny", "full"])
@pytest.mark.parametrize("out", [[], ["--out", str(BENCHMARKS / "results" / "diffusion.md")]])
def test_a_cpu_leaves_no_result(
    size: str, out: list[str], script: Callable[[str], Any], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        script("diffusion").parse(["--size", size, "--device", "cpu", *out])
    assert "--out" in capsys.readouterr().err


def test_tiny_models_leave_no_result(
    script: Callable[[str], Any], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    diffusion = script("diffusion")
    assert diffusion.parse([]).out.name == "diffusion.md"
    with pytest.raises(SystemExit):
        diffusion.parse(["--size", "tiny"])
    assert "--out" in capsys.readouterr().err
