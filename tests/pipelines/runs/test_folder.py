"""A run's folder is verified before it is used, and files of others in it are never lost."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save

from steindreamer.pipelines.cli.run import main
from steindreamer.pipelines.config.run_config import read_config
from steindreamer.pipelines.files import append_text, read_regular, write_atomically
from steindreamer.pipelines.runs import runner
from steindreamer.pipelines.runs.checkpoint import read_newest_checkpoint
from steindreamer.pipelines.runs.checkpoint_record import checkpoint_steps, new_record
from steindreamer.pipelines.runs.pipeline import Pipeline

TINY = [
    "--prompt", "a red mug", "--no-refine", "--prior", "world", "prior.objects=1", "stages.coarse.steps=4",
    "stages.coarse.resolution=16", "stages.coarse.warmup_resolution=16", "representation.count=100",
    "representation.opacity=0.5", "output.checkpoint_every=1", "output.image_size=16", "output.turntable_frames=0",
    "output.log_every=1", "export.resolution=24", "export.view_size=32", "export.cameras=8", "export.texture_size=64",
    "export.lods=[1]", "export.hulls=0",
    "--quiet",
]  # fmt: skip


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run") / "mug"
    assert main(["--out", str(folder), *TINY]) == 0
    return folder


@pytest.fixture
def run(finished: Path, tmp_path: Path) -> Path:
    """A finished run of the test's own."""
    return Path(shutil.copytree(finished, tmp_path / "run"))


@pytest.fixture
def reached(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Steps of the scenes that were to be optimized further; those runs end there, as if interrupted."""
    steps: list[int] = []

    def stop(self: Any, stage: Any) -> None:
        steps.append(stage.total)
        raise KeyboardInterrupt

    monkeypatch.setattr("steindreamer.pipelines.runs.runner._Run._optimize", stop)
    return steps


@pytest.fixture(scope="module")
def pipeline(finished: Path) -> Pipeline:
    """Of that run's settings, its components tried."""
    out = Pipeline(read_config(finished / "config.yaml"))
    out.first()
    return out


@pytest.fixture
def known(pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    """Resuming neither loads the prior nor tries the components again."""
    monkeypatch.setattr(runner, "Pipeline", lambda config, prior, ranks: pipeline)
    monkeypatch.setattr(pipeline, "_rehearse", lambda stage: None)


def _contents(folder: Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not path.is_symlink()
    }


def _refused(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """The one line."""
    capsys.readouterr()
    assert main(arguments) in (1, 2)
    captured = capsys.readouterr().err
    assert len(captured.splitlines()) == 1 and captured.startswith("error: ") and "Traceback" not in captured
    return captured


# Settings


@pytest.mark.parametrize("damage", ["empty", "cut", "lost", "list", "not yaml"])
def test_lost_settings_are_those_of_the_checkpoint(
    run: Path, damage: str, reached: list[int], capsys: pytest.CaptureFixture[str]
) -> None:
    path = run / "config.yaml"
    before = path.read_text()
    {
        "empty": lambda: path.write_text(""),
        "cut": lambda: path.write_text(before[: before.index("refine:")]),
        "lost": path.unlink,
        "list": lambda: path.write_text("- 1\n"),
        "not yaml": lambda: path.write_text("prompt: [a"),
    }[damage]()
    assert main(["--resume", "--out", str(run)]) == 130
    captured = capsys.readouterr()
    assert "config.yaml" in captured.err and "using the settings saved with checkpoint 000004" in captured.err
    assert "'a red mug'" in captured.out and reached == [4]
    for half in (run / "checkpoints").glob("*.json"):
        half.unlink()
    expected = "nothing to resume" if damage == "lost" else "no checkpoint has a copy"
    assert expected in _refused(["--resume", "--out", str(run)], capsys)
    assert damage == "lost" or path.read_text() != before, "a damaged file is not repaired by guessing"


def test_a_resumed_run_that_gets_on_mends_its_settings(run: Path) -> None:
    before = (run / "config.yaml").read_text()
    (run / "config.yaml").write_text("")
    assert main(["--quiet", "--resume", "--out", str(run)]) == 0
    assert (run / "config.yaml").read_text() == before


def test_settings_that_differ_from_the_checkpoints_are_refused(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = run / "config.yaml"
    path.write_text(path.read_text().replace("prompt: a red mug", "prompt: a blue mug"))
    before = _contents(run)
    assert "different settings (prompt) than checkpoint 000004" in _refused(["--resume", "--out", str(run)], capsys)
    assert _contents(run) == before


def test_settings_are_written_only_when_something_has_succeeded(
    run: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    before = (run / "config.yaml").read_text()

    def fail(*_: object, **__: object) -> None:
        raise ValueError("as if")

    monkeypatch.setattr(runner, "export_asset", fail)
    arguments = ["--quiet", "--resume", "--out", str(run), "--overwrite", "export.face_budget=100"]
    assert "cannot export the asset: as if" in _refused(arguments, capsys)
    assert (run / "config.yaml").read_text() == before


def test_an_asset_of_other_settings_stays_also_where_the_manifest_is_lost(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asset = (run / "asset" / "asset.glb").read_bytes()
    for _ in range(2):
        captured = _refused(
            ["--quiet", "--resume", "--out", str(run), "export.texture_size=128", "export.lods=[1]", "export.hulls=0"],
            capsys,
        )
        assert "export.texture_size" in captured and "--overwrite" in captured
        (run / ".files.json").unlink(missing_ok=True)
    assert (run / "asset" / "asset.glb").read_bytes() == asset


# Checkpoints


def _sealed(change: dict[str, Any]) -> Callable[[Path, int], None]:
    """A record of somebody who knows the format: its digest is right, what it says is not."""

    def make(folder: Path, step: int) -> None:
        path = folder / f"{step:06d}.json"
        record = {**json.loads(path.read_text()), **change}
        fixed = {key: record.pop(key) for key in ("step", "sha256")}
        for key in ("digest", "format", "finite"):
            record.pop(key)
        kept = {key: value for key, value in record.items() if value is not ...}
        path.write_bytes(new_record(fixed["step"], fixed["sha256"], kept))

    return make


def _written(content: str) -> Callable[[Path, int], None]:
    return lambda folder, step: (folder / f"{step:06d}.json").write_text(content)  # type: ignore[return-value]


def _tensors(change: Callable[[dict[str, torch.Tensor]], object]) -> Callable[[Path, int], None]:
    """Other tensors, with the checksums that belong to them."""

    def make(folder: Path, step: int) -> None:
        path = folder / f"{step:06d}.safetensors"
        tensors = load_file(path)
        change(tensors)
        path.write_bytes(save(tensors))
        _sealed({"sha256": hashlib.sha256(path.read_bytes()).hexdigest()})(folder, step)

    return make


def _pipe(folder: Path, step: int) -> None:
    (folder / f"{step:06d}.json").unlink()
    os.mkfifo(folder / f"{step:06d}.json")


RECORDS: dict[str, Callable[[Path, int], None]] = {
    "null": _written("null"),
    "list": _written("[]"),
    "number": _written("3"),
    "text": _written('"step"'),
    "deep": _written("[" * 100_000),
    "deep inside": _written('{"step": 4, "x": ' + "[" * 900 + "]" * 900 + "}"),
    "no format": _written('{"step": null, "sha256": "0"}'),
    "large number": _written('{"format": 2, "step": ' + "9" * 5000 + "}"),
    "infinite step": _written('{"format": 2, "step": Infinity}'),
    "not text": lambda folder, step: (folder / f"{step:06d}.json").write_bytes(b"\xff\xfe\x00"),  # type: ignore[dict-item]
    "edited": lambda folder, step: (folder / f"{step:06d}.json").write_text(  # type: ignore[dict-item]
        (folder / f"{step:06d}.json").read_text().replace("a red mug", "a blue mug")
    ),
    "pipe": _pipe,
}
"""Of the JSON."""

STATES: dict[str, Callable[[Path, int], None]] = {
    "step": _sealed({"step": 3}),
    "no stage": _sealed({"stage": ...}),
    "stage a list": _sealed({"stage": ["coarse"]}),
    "settings a list": _sealed({"settings": []}),
    "no seconds": _sealed({"seconds": None}),
    "not finite": _tensors(lambda t: t["representation.means"].fill_(torch.nan)),
    "infinite moments": _tensors(lambda t: t["optimizer.means.exp_avg"].fill_(torch.inf)),
    "fewer colors": _tensors(lambda t: t.update({"representation.color_logits": torch.zeros(99, 3)})),
    "wider": _tensors(lambda t: t.update({"representation.means": torch.zeros(100, 4)})),
    "whole numbers": _tensors(lambda t: t.update({"representation.means": torch.zeros(100, 3, dtype=torch.int64)})),
    "other moments": _tensors(lambda t: t.update({"optimizer.means.exp_avg": torch.zeros(7, 3)})),
    "a tensor less": _tensors(lambda t: t.pop("representation.means")),
    "a tensor more": _tensors(lambda t: t.update({"representation.tail": torch.zeros(1)})),
    "two counters": _tensors(lambda t: t.update({"counters": torch.tensor([4, 0])})),
    "counters of a later step": _tensors(lambda t: t.update({"counters": torch.tensor([9, 0, 0])})),
    "counters of an earlier step": _tensors(lambda t: t.update({"counters": torch.tensor([1, 0, 0])})),
    "no counters": _tensors(lambda t: t.pop("counters")),
    "another generator": _tensors(lambda t: t.update({"generator": torch.zeros(3)})),
}
"""Of what is written with the right checksums."""


@pytest.mark.parametrize("damage", RECORDS)
def test_a_damaged_record_is_passed_over_with_a_line(finished: Path, tmp_path: Path, damage: str) -> None:
    folder = Path(shutil.copytree(finished / "checkpoints", tmp_path / "checkpoints"))
    RECORDS[damage](folder, 4)
    checkpoint, lines = read_newest_checkpoint(folder)
    assert checkpoint is not None and checkpoint.step == 3
    assert len(lines) == 1 and "000004 is damaged" in lines[0] and len(lines[0]) < 400


@pytest.mark.parametrize("damage", STATES)
def test_a_state_that_fits_nothing_is_passed_over_with_a_line(
    run: Path, damage: str, known: None, reached: list[int], capsys: pytest.CaptureFixture[str]
) -> None:
    """Though its checksums are right; also with --quiet."""
    STATES[damage](run / "checkpoints", 4)
    capsys.readouterr()
    assert main(["--quiet", "--resume", "--out", str(run)]) == 130
    lines = [line for line in capsys.readouterr().err.splitlines() if "000004" in line]
    assert len(lines) == 1 and "damaged" in lines[0] and reached == [3]


def test_an_earlier_format_is_named(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for path in (run / "checkpoints").glob("*.json"):
        old = {key: value for key, value in json.loads(path.read_text()).items() if key in ("step", "sha256", "stage")}
        path.write_text(json.dumps(old))
    captured = _refused(["--quiet", "--resume", "--out", str(run)], capsys)
    assert "has format 1, which an earlier version wrote" in captured
    assert checkpoint_steps(run / "checkpoints"), "nothing is thrown away"


# One bit


def _flip(path: Path, place: float) -> None:
    content = bytearray(path.read_bytes())
    content[int(place * (len(content) - 1))] ^= 0x80
    path.write_bytes(content)


@pytest.mark.parametrize("place", [0, 0.5])
@pytest.mark.parametrize(
    ("name", "step", "message"),
    [
        ("config.yaml", 4, "config.yaml is damaged"),
        ("checkpoints/000004.json", 3, "000004 is damaged"),
        ("checkpoints/000004.safetensors", 3, "000004 is damaged"),
        ("metrics.jsonl", 4, "metrics.jsonl: 1 damaged line skipped"),
        (".files.json", 4, ""),
    ],
)
def test_a_flipped_bit_of_what_is_read_is_told(
    run: Path,
    name: str,
    step: int,
    message: str,
    place: float,
    known: None,
    reached: list[int],
    capsys: pytest.CaptureFixture[str],
) -> None:
    """But of the list of files, which is only needed where names are unusual."""
    _flip(run / name, place)
    capsys.readouterr()
    assert main(["--resume", "--out", str(run)]) == 130 and reached == [step]
    heard = capsys.readouterr()
    assert message in heard.err + heard.out and "Traceback" not in heard.err


def test_flipped_bits_of_what_is_written_are_repaired(run: Path) -> None:
    before = _contents(run)
    written = [name for name in before if name.startswith(("asset/", "previews/"))] + ["report.html", "summary.json"]
    assert len(written) >= 6
    for name in written:
        _flip(run / name, 0.5)
    assert main(["--quiet", "--resume", "--out", str(run)]) == 0
    after = _contents(run)
    same = {name for name in before if after[name] == before[name]}
    assert same >= before.keys() - {"report.html", "summary.json"}, "those two say the seconds"
    assert json.loads((run / "summary.json").read_text())["exports"] and (run / "report.html").read_text("utf-8")


# Links


@pytest.mark.parametrize("name", ["checkpoints", "previews", "asset", "metrics.jsonl", "config.yaml", "watchdog.txt"])
@pytest.mark.parametrize("resume", [True, False])
def test_a_link_is_refused_and_not_followed(
    run: Path, tmp_path: Path, name: str, resume: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    elsewhere = tmp_path / "elsewhere"
    if (run / name).exists():
        (run / name).rename(elsewhere)
    else:
        elsewhere.write_text("mine")
    (run / name).symlink_to(elsewhere)
    before = _contents(tmp_path)
    arguments = ["--resume", "--quiet"] if resume else ["--overwrite", *TINY]
    assert f"{run / name} is a link" in _refused(["--out", str(run), *arguments], capsys)
    assert _contents(tmp_path) == before


def test_files_are_written_and_read_as_such_only(tmp_path: Path) -> None:
    """Links in the place of a file or of the temporary one, a second name, pipes."""
    victim, link, pipe = (tmp_path / name for name in ("victim", "link", "pipe"))
    victim.write_text("mine")
    (tmp_path / ".link.partial").symlink_to(victim)
    link.symlink_to(victim)
    with pytest.raises(OSError):
        append_text(link, "x")
    write_atomically(link, b"new")
    assert link.read_bytes() == b"new" and not link.is_symlink() and victim.read_text() == "mine"
    link.unlink()
    os.link(victim, link)
    with pytest.raises(OSError, match="another hard link"):
        append_text(link, "x")
    os.mkfifo(pipe)
    for call in (lambda: append_text(pipe, "x"), lambda: read_regular(pipe), lambda: read_regular(victim, 3)):
        with pytest.raises(OSError):
            call()
    assert victim.read_text() == "mine"
    with pytest.raises(OSError) as error:
        write_atomically(tmp_path / "no" / "file", b"")
    assert error.value.filename == str(tmp_path / "no" / "file")


# --overwrite


@pytest.mark.parametrize(
    "name",
    ["notes.txt", "asset/my_edit.blend", "asset/asset.blend1", "asset/sub/x.png", "previews/mine.png",
     "checkpoints/best.safetensors", "checkpoints/000004.txt", "asset/particle_2/edit.glb"],
)  # fmt: skip
def test_what_a_run_did_not_write_is_not_removed(run: Path, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    (run / name).parent.mkdir(parents=True, exist_ok=True)
    (run / name).write_text("mine")
    before = _contents(run)
    assert f"also contains {name}; move these files away" in _refused(["--out", str(run), "--overwrite", *TINY], capsys)
    assert _contents(run) == before


@pytest.mark.parametrize(
    "state", ["whole", "no config.yaml", "half removed", "no manifest", "leftovers", "old leftovers"]
)
def test_overwriting_ends_in_a_new_run(run: Path, state: str, reached: list[int]) -> None:
    """Also where it was interrupted itself."""
    if state == "no config.yaml":
        (run / "config.yaml").unlink()
    if state == "half removed":
        shutil.rmtree(run / "asset")
        (run / "metrics.jsonl").unlink()
    if state == "no manifest":
        (run / ".files.json").unlink()
    for name in {
        "leftovers": (".steindreamer-0123456789abcdef.partial", "asset/.steindreamer-0123456789abcdef.partial"),
        "old leftovers": (".config.yaml.partial", "checkpoints/.000004.json.partial"),
    }.get(state, ()):
        (run / name).write_text("half")
    assert main(["--out", str(run), "--overwrite", *TINY, "--seed", "5"]) == 130 and reached == [0]
    assert (
        sorted(path.name for path in run.iterdir()) == ["config.yaml"]
        and "seed: 5" in (run / "config.yaml").read_text()
    )


def test_a_kill_in_the_first_write_leaves_an_empty_folder(tmp_path: Path, reached: list[int]) -> None:
    (tmp_path / "run").mkdir()
    for name in (".config.yaml.partial", ".steindreamer-0123456789abcdef.partial", ".lock"):
        (tmp_path / "run" / name).write_text("")
    assert main(["--out", str(tmp_path / "run"), *TINY]) == 130 and reached == [0]
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["config.yaml"]


def test_what_a_scene_of_ones_own_writes_is_the_runs(run: Path, reached: list[int]) -> None:
    """Its names are not known beforehand."""
    manifest = runner.Manifest(run)
    with manifest.noting():
        (run / "asset" / "voxels.vox").write_text("x")
    assert main(["--out", str(run), "--overwrite", *TINY]) == 130 and reached == [0]
    assert not (run / "asset").exists()
