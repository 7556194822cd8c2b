"""Wrong calls: one clear line, a non-zero exit, no traceback, and nothing on disk is lost."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from steindreamer.pipelines.cli.run import main

ROOT = Path(__file__).parents[3]
TINY = [
    "--quiet", "refine=false", "stages.coarse.steps=2", "stages.coarse.resolution=16",
    "stages.coarse.warmup_resolution=16", "representation.count=50",
]  # fmt: skip


MESH = "stages.geometry.representation"


def _nothing(folder: Path) -> None:
    del folder


def _file(name: str, content: str) -> Callable[[Path], None]:
    def make(folder: Path) -> None:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(content)

    return make


def _interrupted_run(folder: Path) -> None:
    """A run's folder with a configuration and a checkpoint that is damaged."""
    main(["--out", str(folder / "run"), "--settings", *TINY])
    import yaml

    from steindreamer.pipelines.config.run_config import load_config

    (folder / "run" / "checkpoints").mkdir(parents=True)
    config = load_config("cpu", overrides=TINY[1:])
    (folder / "run" / "config.yaml").write_text(yaml.safe_dump(config.to_plain()))
    (folder / "run" / "checkpoints" / "000001.json").write_text('{"step": 1, "sha256": "0"}')
    (folder / "run" / "checkpoints" / "000001.safetensors").write_bytes(b"damaged")


CASES: list[tuple[Sequence[str], str, Callable[[Path], None]]] = [
    (["--promt", "a mug"], "--promt", _nothing),
    (["--repr"], "--repr", _nothing),
    (["--repr", "gausians"], "did you mean 'gaussians'", _nothing),
    (["--method", "sdss"], "unknown method 'sdss'", _nothing),
    (["--prior", "stable"], "unknown prior 'stable'", _nothing),
    (["--preset", "gpu9"], "unknown preset 'gpu9'", _nothing),
    (["--preset", "missing.yaml"], "unknown preset 'missing.yaml'", _nothing),
    (["--preset", "list.yaml"], "must contain sections", _file("list.yaml", "- 1\n- 2\n")),
    (["--preset", "broken.yaml"], "cannot read broken.yaml", _file("broken.yaml", "stages: {coarse: {steps: 3\n")),
    (["--preset", "typo.yaml"], "did you mean 'steps'", _file("typo.yaml", "stages: {coarse: {stepps: 3}}\n")),
    (["--seed", "one"], "seed is 'one'", _nothing),
    (["--seed", "1_000"], "seed is '1_000'", _nothing),
    (["--seed", "-4"], "seed is -4", _nothing),
    (["stage.coarse.steps=3"], "did you mean 'stages'", _nothing),
    (["stages.steps=3"], "'stages.steps' is a section", _nothing),
    (["stages.coarze.steps=3"], "did you mean 'coarse'", _nothing),
    (["stages.extra.scene=mesh"], "was renamed to 'stages.extra.representation.name'", _nothing),
    (["stages.extra.representation.name=dmtett"], "did you mean 'dmtet'", _nothing),
    (["mesh.resolution=24"], "'mesh' was renamed to 'stages.geometry.representation'", _nothing),
    (["texture.size=64"], "'texture' was renamed to 'stages.texture.representation'", _nothing),
    (["stages.geometry.method.guidance=3"], "did you mean 'guidance_scale'", _nothing),
    (["stages.geometry.method.guidance_scale=much"], "stages.geometry.method.guidance_scale", _nothing),
    (["refine=true", "stages.geometry.regularizers.laplacien=1"], "did you mean 'laplacian'", _nothing),
    (["stages.coarse.regularizers.transparency=much"], "stages.coarse.regularizers.transparency", _nothing),
    (
        ["refine=true", "stages.geometry.representation.initial_mesh=cup.glb"],
        "stages.geometry.representation.initial_mesh is not used",
        _nothing,
    ),
    (["stages.coarse.normals=2"], "'stages.coarse.normals' was renamed to 'stages.coarse.modalities.normal'", _nothing),
    (["stages.coarse.modalities.normal=-2"], "stages.coarse.modalities.normal is -2", _nothing),
    (["stages.coarse.rates=0"], "stages.coarse.rates is 0; above 0 and up to 10000 is accepted", _nothing),
    (["stages.coarse.stepz=3"], "did you mean 'steps'", _nothing),
    (["stages.coarse.steps"], "is not an override", _nothing),
    (["stages.coarse.steps=many"], "stages.coarse.steps", _nothing),
    (["stages.coarse.steps=1.5"], "stages.coarse.steps", _nothing),
    (["stages.coarse.steps=0"], "no stage trains the first scene of the run; set stages.coarse.steps to 1", _nothing),
    (["stages.coarse.steps=-3"], "stages.coarse.steps is -3", _nothing),
    (["stages.coarse=3"], "is a section", _nothing),
    (["stages.coarse.resolution=0"], "stages.coarse.resolution is 0", _nothing),
    (["stages.coarse.views.per_step=0"], "per_step is 0", _nothing),
    (["stages.coarse.views.random_background=2"], "random_background is 2", _nothing),
    (["stages.coarse.regularisers.sparsity=0.01"], "multiply earlier weights by", _nothing),
    (["stages.coarse.regularizers.smoothnes=1"], "unknown regularizer", _nothing),
    (["method.guidance_scale=high"], "guidance_scale", _nothing),
    (["method.control_variates.terms=[dept]"], "dept", _nothing),
    (["method.timesteps.minimum=0.9"], "minimum", _nothing),
    (["representation.count=-5"], "count", _nothing),
    (["representation.backend=cuda"], "backend", _nothing),
    (["representation.backend=gsplat"], "gsplat", _nothing),
    (["representation.initial_ply=missing.ply"], "missing.ply", _nothing),
    (["representation.initial_ply=broken.ply"], "broken.ply", _file("broken.ply", "ply\nformat ascii 1.0\njunk\n")),
    (["export.texture_size=1000"], "texture_size", _nothing),
    (["export.face_budget=-1"], "face_budget", _nothing),
    (["--prompt", ""], "the prompt is empty", _nothing),
    (["--prompt", "   "], "the prompt is empty", _nothing),
    (["--prompt", "mug " * 2500], "10000 characters", _nothing),
    (["--prompt", "a\nmug"], "control characters", _nothing),
    (["--prompt", "../../etc/passwd"], "passwd", _nothing),
    (["--prompt", "a flux capacitor"], "capacitor", _nothing),
    (["--prompt", "a mug and a car", "prior.strict_words=true"], "'car'", _nothing),
    (["--out", "taken"], "is a file", _file("taken", "mine")),
    (["--out", "full"], "is not empty", _file("full/mine.txt", "mine")),
    (["--out", "full", "--overwrite"], "does not hold an earlier run", _file("full/mine.txt", "mine")),
    (["--out", "/dev/null/runs"], "cannot write", _nothing),
    (["export.face_budget=1000000"], "face_budget", _nothing),
    (["export.texture_size=1048576"], "texture_size", _nothing),
    (
        ["stages.coarse.views.overhead_fraction=0.7", "stages.coarse.views.below_fraction=0.7"],
        "overhead_fraction",
        _nothing,
    ),
    (["--resume", "--overwrite"], "no earlier run", _nothing),
    (["--resume"], "no earlier run", _nothing),
    (["--resume", "--out", "nowhere"], "nothing to resume", _nothing),
    (["--resume", "--out", "run", "--prompt", "a red mug"], "different settings (prompt)", _interrupted_run),
    (["--resume", "--out", "run"], "damaged", _interrupted_run),
]


def _contents(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@pytest.mark.parametrize(("arguments", "message", "prepare"), CASES, ids=[" ".join(c[0])[:40] for c in CASES])
def test_wrong_calls(
    arguments: Sequence[str],
    message: str,
    prepare: Callable[[Path], None],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    prepare(tmp_path)
    before = _contents(tmp_path)
    capsys.readouterr()
    tiny = TINY if "--resume" not in arguments else ["--quiet"]
    try:
        status = main([*tiny, *arguments])
    except SystemExit as stop:
        status = int(stop.code or 0)
    error = capsys.readouterr().err
    assert status not in (0, None)
    assert len(error.strip().splitlines()) == 1, error
    assert error.startswith("error: ") and message in error and "Traceback" not in error
    after = _contents(tmp_path)
    assert {name: after.get(name) for name in before} == before


def test_a_wrong_call_from_the_shell(tmp_path: Path) -> None:
    command = [sys.executable, str(ROOT / "pipelines" / "run.py"), "--repr", "gausians"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 2 and done.stdout == "" and len(done.stderr.splitlines()) == 1
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["representation.initial_yaw=30"], "representation: initial_yaw is 30.0, but needs an initial_ply"),
        (["refine=true", f"{MESH}.initial_yaw=30"], f"{MESH}.initial_yaw is not used"),
        (["representation.densify.start=0.9", "representation.densify.stop=0.1"], "densify.start <= densify.stop"),
        (
            ["refine=true", f"{MESH}.color.grid.coarsest=64", f"{MESH}.color.grid.finest=8"],
            f"{MESH}: finest must be at least",
        ),
        (["--method", "vsd"], "and WorldPrior has none"),
        (["refine=true", "stages.geometry.method={name: vsd}"], "and WorldPrior has none"),
        (["stages.coarse.regularizers.orientation=1"], "unknown regularizer regularizers.orientation"),
        (["export.source=mesh"], "export.source=mesh needs a mesh"),
    ],
)
def test_settings_that_contradict_each_other_are_wrong_calls(
    settings: Sequence[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Also those that only the component itself can see, when it is built."""
    world = ["--prior", "world", "prior.objects=1", "prior.unconditional_objects=1", "--prompt", "a red mug"]
    assert main(["--out", str(tmp_path / "run"), *TINY, *world, *settings]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and message in error and not (tmp_path / "run").exists()


def test_a_file_that_is_broken_is_an_error_of_the_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    broken = tmp_path / "broken.ply"
    broken.write_text("ply\nformat ascii 1.0\njunk\n")
    assert main(["--out", str(tmp_path / "run"), *TINY, f"representation.initial_ply={broken}"]) == 1
    assert "broken.ply" in capsys.readouterr().err
