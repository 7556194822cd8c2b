"""How runs end that cannot go on well: values that are not finite, memory that is not enough, steps that never end."""

from __future__ import annotations

import errno
import faulthandler
import os
import resource
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from steindreamer.pipelines import UserError, generate, load_config
from steindreamer.pipelines.cli.run import main
from steindreamer.pipelines.optimization.out_of_memory import is_out_of_memory
from steindreamer.pipelines.optimization.stage import Stage
from steindreamer.pipelines.runs.checkpoint import write_checkpoint
from steindreamer.pipelines.runs.checkpoint_record import checkpoint_steps
from steindreamer.pipelines.runs.watchdog import watched
from steindreamer.representations import Gaussians

ROOT = Path(__file__).parents[3]
SETTINGS = [
    "stages.coarse.steps=6", "stages.coarse.resolution=16", "stages.coarse.warmup_resolution=16",
    "representation.count=60", "output.checkpoint_every=2", "output.image_size=16", "output.turntable_frames=0",
    "output.preview_every=0", "prior.objects=1", "export.enabled=false",
]  # fmt: skip
TINY = ["--prompt", "a red mug", "--no-refine", "--prior", "world", "--quiet", *SETTINGS]


def _spoiling(at: int) -> Any:
    """What an overflow would do to the scene after a step."""

    def watch(stage: Stage) -> None:
        if stage.total == at:
            with torch.no_grad():
                stage.representation.get_parameter("means").fill_(torch.nan)

    return watch


@pytest.mark.parametrize("at", [4, 5])
def test_a_scene_that_is_not_finite_is_never_saved(tmp_path: Path, at: int) -> None:
    """At a step after which a checkpoint is due, and at another one."""
    config = load_config("cpu", prompt="a red mug", prior="world", refine=False, overrides=SETTINGS)
    with pytest.raises(UserError, match=r"'representation.means' is not finite .*after step \d, in stage 'coarse'"):
        generate(config, tmp_path / "run", watch=_spoiling(at))
    assert checkpoint_steps(tmp_path / "run" / "checkpoints") == ([2] if at == 4 else [2, 4])
    generate(config, tmp_path / "run", resume=True)
    assert checkpoint_steps(tmp_path / "run" / "checkpoints")[-1] == 6


def test_a_scene_that_draws_what_is_not_finite_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its parameters are finite, and its later steps are skipped, but there is nothing to show."""
    honest = Gaussians.render

    def watch(stage: Stage) -> None:
        if stage.total == 3:
            monkeypatch.setattr(
                Gaussians, "render", lambda *given: replace(out := honest(*given), rgb=out.rgb * np.nan)
            )

    config = load_config("cpu", prompt="a red mug", prior="world", refine=False, overrides=SETTINGS)
    with pytest.raises(UserError, match="the scene rendered an image that is not finite"):
        generate(config, tmp_path / "run", watch=watch)
    assert not (tmp_path / "run" / "previews" / "final.png").exists()


def test_moments_count_too_and_buffers_may_be_infinite() -> None:
    from steindreamer.pipelines.runs.pipeline import Pipeline

    config = load_config(
        "cpu", representation="nerf", prompt="a red mug", prior="world", refine=False,
        overrides=["stages.coarse.resolution=16", "stages.coarse.warmup_resolution=16", "prior.objects=1",
                   "representation.samples=16", "representation.radiance.hash_grid={levels: 2, log2_size: 8}"],
    )  # fmt: skip
    stage = Pipeline(config).first()
    assert any(bool(tensor.isinf().any()) for tensor in stage.tensors().values()), "what is not known yet"
    stage.check_finite()
    stage.step()
    name = next(name for name in stage.tensors() if name.endswith("exp_avg"))
    stage.tensors()[name].view(-1)[0] = torch.inf
    with pytest.raises(UserError, match=name):
        stage.check_finite()


def test_a_gradient_whose_square_is_not_finite_is_skipped(monkeypatch: pytest.MonkeyPatch) -> None:
    """Adam would keep the infinity for ever."""
    from steindreamer.pipelines.runs.pipeline import Pipeline

    config = load_config("cpu", prompt="a red mug", prior="world", refine=False, overrides=SETTINGS)
    stage = Pipeline(config).first()
    opacity = stage.representation.get_parameter("opacity_logits")
    hook = opacity.register_hook(lambda gradient: torch.full_like(gradient, 1e30))
    assert "gradient of 'opacity_logits'" in stage.step().skipped
    hook.remove()
    assert not stage.step().skipped
    stage.check_finite()


def test_nan_is_refused_where_it_would_be_written(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="b contains NaN"):
        write_checkpoint(tmp_path, 1, {"a": torch.zeros(2), "b": torch.tensor([torch.nan])}, {})
    assert not list(tmp_path.iterdir())


def test_rates_that_are_none_are_refused_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Values of a user's scene do not come from a setting."""
    monkeypatch.setattr(Gaussians, "learning_rates", lambda self, progress: dict.fromkeys(
        (name for name, _ in self.named_parameters()), torch.nan))  # fmt: skip
    assert main(["--out", str(tmp_path / "run"), *TINY]) in (1, 2)
    captured = capsys.readouterr().err
    assert "means" in captured and "nan" in captured and len(captured.splitlines()) == 1
    assert not (tmp_path / "run").exists()


def test_a_run_that_took_no_step_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Fewer than those that end a run by themselves; also when it is resumed."""
    folder = tmp_path / "run"
    monkeypatch.setattr("steindreamer.pipelines.optimization.stage.not_finite_step", lambda *_: "loss 'as if'")
    assert main(["--out", str(folder), *TINY]) == 1
    captured = capsys.readouterr().err
    assert "all 6 steps of stage 'coarse' were skipped" in captured and len(captured.splitlines()) == 1
    assert not (folder / "summary.json").exists()
    monkeypatch.undo()
    assert main(["--quiet", "--resume", "--out", str(folder)]) == 1


# Memory


def _raised(error: Exception, cause: Exception | None = None) -> Exception:
    try:
        raise error from cause
    except Exception as caught:
        return caught


def test_every_library_says_it_in_its_own_way() -> None:
    def of(call: Any) -> Exception:
        with pytest.raises(Exception) as caught:
            call()
        return caught.value

    errors = [
        of(lambda: torch.empty(10**15)),
        of(lambda: torch.empty(2**62, 8)),
        of(lambda: np.empty(10**15)),
        of(lambda: np.empty((2**40, 2**40))),
        of(lambda: bytearray(10**15)),
        RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: not enough memory: you tried to allocate"),
        RuntimeError("std::bad_alloc"),
        torch.OutOfMemoryError("CUDA out of memory"),
        OSError(errno.ENOMEM, "Cannot allocate memory"),
        _raised(ValueError("the model cannot be loaded"), MemoryError()),
    ]
    assert [error for error in errors if not is_out_of_memory(error)] == []
    others = [RuntimeError("sizes do not match"), ValueError("memory"), OSError(errno.ENOSPC, "disk"), KeyError("x")]
    assert [error for error in others if is_out_of_memory(error)] == []


@pytest.mark.parametrize(
    "where", ["runs.pipeline.Pipeline.first", "optimization.stage.Stage._backward", "runs.runner.save_contact_sheet",
              "priors.WorldPriorConfig.build"],
)  # fmt: skip
def test_it_is_one_line_wherever_it_happens(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], where: str
) -> None:
    monkeypatch.setattr(f"steindreamer.pipelines.{where}", lambda *_, **__: torch.empty(10**15))
    assert main(["--out", str(tmp_path / "run"), *TINY]) == 1
    captured = capsys.readouterr().err
    assert "out of memory" in captured and "lower" in captured and len(captured.splitlines()) == 1


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="other systems do not keep to the limit")
def test_a_process_with_too_little_memory_says_so(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, str(ROOT / "pipelines" / "run.py"), "--out", str(tmp_path / "run"), *TINY,
         "stages.coarse.resolution=4096", "stages.coarse.warmup=0"],
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (4_096_000_000, 4_096_000_000)),
        capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 1 and "out of memory" in done.stderr and len(done.stderr.splitlines()) == 1, done.stderr


# Time


def test_what_takes_too_long_is_written_down_and_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    step = Stage.step

    def stall_in_the_third(self: Stage) -> Any:
        if self.done == 2:
            time.sleep(2.5)
        return step(self)

    monkeypatch.setattr(Stage, "step", stall_in_the_third)
    folder = tmp_path / "run"
    assert main(["--out", str(folder), *TINY, "output.watchdog_seconds=1"]) == 0
    assert "stall_in_the_third" in (folder / "watchdog.txt").read_text()
    assert "step 3 is taking more than 1 s" in capfd.readouterr().err


def test_a_watchdog_that_saw_nothing_leaves_nothing(tmp_path: Path) -> None:
    with watched(tmp_path, 1000.0) as watchdog:
        watchdog.feed("all")
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(not hasattr(faulthandler, "register"), reason="no such signal here")
def test_where_it_stands_can_be_asked(tmp_path: Path) -> None:
    with watched(tmp_path, 0.0):
        os.kill(os.getpid(), signal.SIGUSR1)
    assert "test_where_it_stands_can_be_asked" in (tmp_path / "watchdog.txt").read_text()
