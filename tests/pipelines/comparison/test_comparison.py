"""Comparing methods: from names to a page, and what the numbers mean."""

from __future__ import annotations

import csv
import json
import math
import os
import re
import shlex
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from steindreamer.distill.variance.moments import Moments
from steindreamer.distill.variance.probe import EstimatorVariance
from steindreamer.pipelines.cli.compare import main as compare
from steindreamer.pipelines.cli.compare import parser as compare_parser
from steindreamer.pipelines.cli.probe import main as probe
from steindreamer.pipelines.cli.probe import parser as probe_parser
from steindreamer.pipelines.cli.probe import tables
from steindreamer.pipelines.comparison import comparison, trial
from steindreamer.pipelines.comparison.candidates import (
    Candidate,
    fixed_pairs,
    parse_candidate,
    parse_candidates,
    with_fixed_coefficients,
)
from steindreamer.pipelines.comparison.intervals import geometric_interval, mean_interval
from steindreamer.pipelines.comparison.probing import probe_run
from steindreamer.pipelines.comparison.results import Results, moment, psnr, relative, score
from steindreamer.pipelines.comparison.trial import Measurement, Record, Trial
from steindreamer.pipelines.errors import UserError
from steindreamer.pipelines.optimization.stage import Stage
from steindreamer.pipelines.runs.checkpoint_record import digest_of
from steindreamer.pipelines.runs.pipeline import Pipeline

ROOT = Path(__file__).parents[3]
SETTINGS = [
    "stages.coarse.steps=4", "stages.coarse.resolution=16", "stages.coarse.warmup_resolution=16",
    "representation.count=60", "output.image_size=16", "output.log_every=2",
]  # fmt: skip
TINY = [
    "--prior", "world", "--score", "psnr", "--prompts", "a red mug", "--seeds", "0", "--settings", *SETTINGS,
    "--measurements", "2", "--tuples", "8", "--views", "2", "--size", "16", "--jobs", "0",
]  # fmt: skip
METHODS = ["--methods", "sds", "pairs=sds:method.antithetic=true"]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("compare")
    assert compare([*METHODS, *TINY, "--out", str(out)]) == 0
    return out


def rows(path: Path) -> list[dict[str, str]]:
    with path.open() as file:
        return list(csv.DictReader(file))


def timeless(path: Path) -> list[dict[str, str]]:
    return [{name: value for name, value in row.items() if "seconds" not in name} for row in rows(path)]


def test_a_comparison_spends_equal_calls_and_measures_all_the_way(finished: Path) -> None:
    runs = {row["method"]: row for row in rows(finished / "runs.csv")}
    assert {name: (row["steps"], row["calls"]) for name, row in runs.items()} == {
        "sds": ("4", "4"),
        "pairs": ("2", "4"),
    }
    measured = rows(finished / "measurements.csv")
    assert [row["fraction"] for row in measured if row["method"] == "sds"] == ["0.0", "0.5", "1.0"]
    start = [row for row in measured if row["step"] == "0"]
    assert len({row["sds_noise"] for row in start}) == 1 and len({row["psnr"] for row in start}) == 1
    sds = [row for row in measured if row["method"] == "sds"]
    assert all(row["own_total"] == row["sds_total"] and float(row["own_total"]) > 0 for row in sds)
    assert all(float(row["chamfer"]) > 0 and 0 < float(row["normal_error"]) < 180 for row in measured)
    assert all(float(row["view_consistency"]) in (0, 0.5, 1) for row in measured), "of two views"


def test_methods_may_differ_in_the_views_per_step_and_spend_equal_calls(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    more = "more=sds:stages.coarse.views.per_step=2"
    assert compare(["--methods", "sds", more, *TINY, "--out", str(tmp_path)]) == 0
    runs = {row["method"]: (row["steps"], row["calls"]) for row in rows(tmp_path / "runs.csv")}
    assert runs == {"sds": ("4", "4"), "more": ("2", "4")}
    capsys.readouterr()
    other = "other=sds:stages.coarse.views.distance=[3,4]"
    assert compare(["--methods", "sds", other, *TINY, "--out", str(tmp_path / "other")]) == 1
    assert "'other' has other stages or cameras than the first method" in capsys.readouterr().err


def test_the_true_object_of_the_mixture_is_its_best_scene(tmp_path: Path) -> None:
    words = [{"world": "mixture", "4": "0"}.get(word, word) for word in TINY]
    assert compare(["--methods", "sds", *words, "--out", str(tmp_path)]) == 0
    measured = rows(tmp_path / "measurements.csv")
    assert len(measured) == 3 and all(5 < float(row["psnr"]) < 30 for row in measured)


def test_the_page_is_complete_in_itself_and_holds_the_tables(finished: Path) -> None:
    page = (finished / "compare.html").read_text()
    for heading in (
        "Variance over training",
        "Convergence",
        "Final quality",
        "Time",
        "Settings",
        "a red mug",
        "Chamfer",
        "normal error (deg",
        "correct side",
    ):
        assert heading in page
    assert "Learned versus fixed" not in page
    sources = re.findall(r'(?:src|href)="([^"]+)"', page)
    assert len(sources) == 4 and all(source.startswith("data:image/") for source in sources)
    final = next(row for row in rows(finished / "runs.csv") if row["method"] == "pairs")
    assert f"{float(final['score']):.4g}" in page
    for name in ("variance", "convergence"):
        assert (finished / "plots" / f"{name}.png").read_bytes().startswith(b"\x89PNG")


def test_what_is_finished_is_kept_and_what_was_interrupted_ends_the_same(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    step, steps = Stage.step, []

    def interrupted(self: Stage) -> Any:
        steps.append(self.total)
        if len(steps) == 4:  # in the middle of the first run, after its first checkpoint
            raise KeyboardInterrupt
        return step(self)

    monkeypatch.setattr(Stage, "step", interrupted)
    assert compare([*METHODS, *TINY, "--out", str(tmp_path)]) == 130
    assert "run the same command again" in capsys.readouterr().err
    monkeypatch.undo()
    monkeypatch.setattr(Stage, "step", lambda self: steps.append(self.total) or step(self))
    assert compare([*METHODS, *TINY, "--out", str(tmp_path)]) == 0
    assert steps == [0, 1, 2, 3, 2, 3, 0, 1], "the first run goes on from its checkpoint"
    for name in ("measurements.csv", "runs.csv"):
        assert timeless(tmp_path / name) == timeless(finished / name)
    assert compare([*METHODS, *TINY, "--out", str(tmp_path)]) == 0
    assert "2 runs, 2 already finished" in capsys.readouterr().out and len(steps) == 8
    assert compare([*METHODS, *TINY, "--out", str(tmp_path), "--views", "3"]) == 1
    assert "made with different settings" in capsys.readouterr().err


def test_a_run_in_a_process_of_its_own_and_its_failure(finished: Path, tmp_path: Path) -> None:
    (known, _) = (Record.read(path).trial for path in sorted((finished / "trials").glob("*.json")))
    broken = replace(known, settings=(*known.settings, "representation.opacity=2"))
    with pytest.raises(UserError, match="opacity"):
        comparison.run_all([broken], tmp_path, jobs=1)


def test_probe_measures_methods_at_a_runs_scene_and_leaves_it_alone(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = finished / "runs" / "pairs--a-red-mug--0"
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    found = tmp_path / "found.json"
    call = [
        "--method",
        "sds",
        "ssd:method.control_variates.bands=4",
        "--tuples",
        "8",
        "--learn",
        "2",
        "--json",
        str(found),
    ]
    assert probe([str(run), *call]) == 0
    text = capsys.readouterr().out
    assert (
        "after 2 steps" in text
        and "level" in text
        and "draws that pay" in text
        and "ssd-bands-4" in text
        and "0.88-1.00" in text
    )
    plain = json.loads(found.read_text())
    assert list(plain["methods"]) == ["sds", "ssd-bands-4"]
    # Guidance is the run's, so that one call is enough; the run itself pairs its noises, plain SDS does not.
    assert plain["methods"]["sds"]["calls"] == 1 and plain["methods"]["ssd-bands-4"]["calls"] == 1
    own = probe_run(run, tuples=8).variances
    assert list(own) == ["sds", "own"] and own["own"].calls == 2
    assert plain["modality"] == "normal"
    assert probe([str(run), "--modality", "depth", "--tuples", "8", "--json", str(found)]) == 0
    assert json.loads(found.read_text())["modality"] == "depth"
    depth = json.loads(found.read_text())["methods"]["sds"]["image_noise"]
    assert depth != plain["methods"]["sds"]["image_noise"], "the images are others"
    assert probe([str(run), "--modality", "color"]) == 1
    assert "'coarse' does not distill: use one of albedo, normal, depth" in capsys.readouterr().err
    assert probe([str(run), "--method", "sds=ssd"]) == 1 and "reserved for plain SDS" in capsys.readouterr().err
    assert before == {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    assert probe([str(tmp_path)]) == 1 and "no run to probe" in capsys.readouterr().err


def test_the_probes_table_charges_a_method_for_its_calls() -> None:
    """A pair that takes away nearly all of the noise's variance, but not what lies between the views."""

    def variance(within: float, calls: float) -> EstimatorVariance:
        moments = Moments(within, 0.0, 1.0, 0.0, 2.0, 0.0, 1.0, 1.0, 0.0)
        return EstimatorVariance(moments, moments, (1.0,), calls, 0.1)

    header, _, pairs = tables({"sds": variance(1.0, 2.0), "pairs": variance(0.1, 4.0)}).splitlines()[:3]
    columns = [part.strip() for part in header.split("  ") if part.strip()]
    found = dict(zip(columns[1:], pairs.split()[1:], strict=True))
    assert float(found["noise/SDS per call"]) == pytest.approx(0.2)
    assert float(found["total/SDS per call"]) == pytest.approx(1.55)


def test_a_probe_leaves_the_stage_as_it_was() -> None:
    stage = Pipeline(trial.run_config("ssd", "a red mug", 0, "", "world", "cpu", tuple(SETTINGS))).first()
    stage.step()
    before = {name: tensor.clone() for name, tensor in stage.tensors().items()}
    assert any("densifier" in name for name in before), "which counts what is drawn and differentiated"
    stage.probe({"own": stage.distiller}, 8, torch.Generator().manual_seed(0))
    after = stage.tensors()
    assert before.keys() == after.keys() and all(torch.equal(before[name], after[name]) for name in before)


def test_methods_are_parsed_with_labels_and_settings() -> None:
    assert parse_candidate("ssd") == Candidate("ssd", "ssd")
    settings = ("method.control_variates.terms=[depth]", "method.control_variates.bands=6")
    assert parse_candidate("x=ssd:method.control_variates.terms=[depth]:method.control_variates.bands=6") == Candidate(
        "x", "ssd", settings
    )
    assert parse_candidate("ssd:method.control_variates.terms=[depth,normal]").label == "ssd-terms-depth-normal"
    scheduled = "sds:stages.coarse.regularizers.opacity={from: 1, to: 2}"
    assert parse_candidate(scheduled).settings == ("stages.coarse.regularizers.opacity={from: 1, to: 2}",)
    with pytest.raises(UserError, match="did you mean 'ssd'"):
        parse_candidate("sssd")
    with pytest.raises(UserError, match="several methods are called ssd"):
        parse_candidates(["ssd", "ssd=sds"])


def test_twins_differ_in_nothing_but_the_coefficients() -> None:
    candidates = with_fixed_coefficients(
        parse_candidates(["sds", "ssd", "d=ssd:method.control_variates.terms=[depth]"])
    )
    assert [candidate.label for candidate in candidates] == ["sds", "ssd", "ssd-fixed", "d", "d-fixed"]
    assert [(a.label, b.label) for a, b in fixed_pairs(candidates)] == [("ssd", "ssd-fixed"), ("d", "d-fixed")]


def test_intervals_cover_as_often_as_they_say() -> None:
    generator = torch.Generator().manual_seed(0)
    hits = 0
    for _ in range(1000):
        interval = mean_interval((3 + 2 * torch.randn(3, generator=generator)).tolist())
        hits += interval.low <= 3 <= interval.high
    assert hits / 1000 == pytest.approx(0.95, abs=0.025)
    factors = geometric_interval([1.0, 100.0])
    assert factors.mean == pytest.approx(10.0) and factors.low < 1 and factors.high > 100
    one, none = mean_interval([2.0, math.nan]), mean_interval([])
    assert (one.mean, one.count) == (2.0, 1) and math.isnan(one.low) and math.isnan(none.mean)


def record(label: str, seed: int, scores: list[float], calls: int = 10, variance: float = 1.0) -> Record:
    one = Trial(label, "sds", (), "a red mug", seed, "", "", "cpu", 1, len(scores) - 1, 4, 2, 16, "psnr", "")
    variances: dict[str, dict[str, float | None]] = {
        "own": {"total": variance, "calls": 2.0},
        "sds": {"total": 4.0, "calls": 1.0},
    }
    measured = [
        Measurement(calls * i, i / (len(scores) - 1), calls * i, float(value), float(value), None, variances)
        for i, value in enumerate(scores)
    ]
    return Record(one, "PSNR", True, measured, 0.5, True)


def test_convergence_is_where_the_score_passes_the_worst_final_mean() -> None:
    records = [record("a", 0, [0, 10, 20]), record("a", 1, [0, 10, 16]), record("b", 0, [0, 20, 30])]
    results = Results([*records, record("b", 1, [0, 18, 24])])
    assert results.threshold("a red mug") == 18.0
    calls, ratio, there = results.convergence("b", {"a red mug": 18.0})
    assert (calls.mean, there) == (pytest.approx(9.5), 2)
    own = [results.calls_to(r, 18.0) for r in records[:2]]
    assert own == [pytest.approx(18.0), math.inf]
    calls, _, there = results.convergence("a", {"a red mug": 18.0})
    assert (calls.mean, there) == (pytest.approx(19.0), 1), "the run that never got there counts with its budget"
    assert ratio.mean == pytest.approx((9 / 18 + 10 / 20) / 2)
    assert results.gain("b", score).mean == pytest.approx((10 + 8) / 2)
    assert results.final("b", psnr).mean == pytest.approx(27.0)


def test_a_smaller_score_may_be_better_and_ratios_count_calls() -> None:
    records = [replace(record("a", 0, scores), larger_is_better=False) for scores in ([1.0, 0.8, 0.6], [1.0, 0.6, 0.4])]
    results = Results([records[0], replace(records[1], trial=replace(records[1].trial, label="b"))])
    assert results.threshold("a red mug") == 0.6
    assert results.calls_to(results.of("b")[0], 0.6) == pytest.approx(10.0)
    assert results.over_training("a", relative("total")).mean == pytest.approx(0.25)
    assert results.over_training("a", relative("total", per_call=True)).mean == pytest.approx(0.5)
    assert math.isnan(moment("noise")(records[0].measurements[0]))


@pytest.mark.parametrize(
    "damage",
    [
        lambda plain: None,
        lambda plain: [],
        lambda plain: {},
        lambda plain: {**plain, "trial": None},
        lambda plain: {**plain, "trial": {**plain["trial"], "views": "many"}},
        lambda plain: {**plain, "trial": {**plain["trial"], "settings": 3}},
        lambda plain: {**plain, "more": 1},
        lambda plain: {**plain, "measurements": 3},
        lambda plain: {**plain, "measurements": []},
        lambda plain: {**plain, "measurements": [None]},
        lambda plain: {**plain, "measurements": [{**plain["measurements"][0], "score": "high"}]},
        lambda plain: {**plain, "measurements": [{**plain["measurements"][0], "variance": {"own": 3}}]},
        lambda plain: {**plain, "measurements": [{"step": 1}]},
        lambda plain: {**plain, "finished": "perhaps"},
        lambda plain: {**plain, "seconds_per_step": float("nan")},
    ],
)
def test_a_damaged_record_is_one_line(damage: Callable[[Any], Any], finished: Path, tmp_path: Path) -> None:
    whole = next((finished / "trials").glob("*.json"))
    plain = json.loads(whole.read_text())
    assert trial.Record.read(whole).finished
    del plain[trial.DIGEST]
    damaged, path = damage(plain), tmp_path / "x.json"
    if isinstance(damaged, dict):  # with the digest that belongs to it
        damaged |= {trial.DIGEST: digest_of(damaged)}
    path.write_text(json.dumps(damaged))
    with pytest.raises(UserError, match=r"cannot read .*x\.json: .*; remove it to run this trial again"):
        trial.Record.read(path)


@pytest.mark.parametrize("bit", [1, 0x80])
def test_any_flipped_bit_of_a_record_is_noticed(bit: int, finished: Path, tmp_path: Path) -> None:
    """Or it changes nothing: another kind of space, a last digit that no double has."""
    whole = next((finished / "trials").glob("*.json"))
    content, record, path, noticed = whole.read_bytes(), trial.Record.read(whole), tmp_path / "x.json", 0
    for at in range(0, len(content), 7):
        path.write_bytes(content[:at] + bytes([content[at] ^ bit]) + content[at + 1 :])
        try:
            assert trial.Record.read(path) == record
        except UserError as error:
            noticed += 1
            assert "x.json: " in str(error) and "remove it" in str(error)
    assert noticed > 0.6 * len(range(0, len(content), 7))


def test_what_is_no_json_is_no_record(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    for content in (b"", b"{", b"\xff\xfe", b"[" * 100_000):
        path.write_bytes(content)
        with pytest.raises(UserError, match="remove it"):
            trial.Record.read(path)
    path.unlink()
    path.mkdir()
    with pytest.raises(UserError, match="remove it"):
        trial.Record.read(path)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (["--tuples", "3"], "multiples of 4"),
        (["--tuples", "1000000000"], "0 to 100000"),
        (["--views", "0"], "1 to 1024"),
        (["--seeds", "0", "99999999999999999999999"], "--seeds holds 99999999999999999999999"),
        (["--methods", "sdss"], "did you mean"),
        (["--methods", "ssd:method.control_variates.terms=[depth", "sds"], "method.control_variates.terms"),
        (["--methods", "sds:stages.coarse.stepz=1"], "did you mean 'steps'"),
        (["--methods", "sds", "ssd:method.draws=auto"], "set method.draws to a number"),
        (["--prompts", "a red mug", "a giraffe in space"], "unknown words"),
        (["--repr", "gausians"], "did you mean 'gaussians'"),
        (["--preset", "cpuu"], "did you mean 'cpu'"),
        (["--out", "/dev/null/x"], "/dev/null is not a folder"),
        (["--out", "/proc/x"], ""),
        (["--plugin", "missing.py"], "missing.py"),
    ],
)
def test_wrong_calls_of_compare_are_one_line_before_anything_is_done(
    wrong: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert compare([*METHODS, *TINY, "--out", str(out), *wrong]) in (1, 2)
    captured = capsys.readouterr()
    assert message in captured.err and len(captured.err.splitlines()) == 1 and captured.out == ""
    assert not out.exists()


def test_a_probe_looks_first_where_its_results_shall_go(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Stage, "probe", lambda *a, **k: pytest.fail("measured"))
    run = str(finished / "runs" / "pairs--a-red-mug--0")
    os.mkfifo(tmp_path / "pipe")
    for place in (tmp_path, tmp_path / "missing" / "x.json", Path("/dev/null/x.json"), tmp_path / "pipe"):
        assert probe([run, "--json", str(place)]) == 2
        captured = capsys.readouterr().err
        assert str(place) in captured and len(captured.splitlines()) == 1
    for wrong in (["--seed", "-1"], ["--seed", "99999999999999999999999"], ["--tuples", "6"], ["--learn", "-1"]):
        assert probe([run, *wrong]) == 2
        assert len(capsys.readouterr().err.splitlines()) == 1


@pytest.mark.parametrize("text", ["one", "1_000", "٣", "1e3", "7.0", "0x10", ""])
def test_numbers_of_the_command_lines_are_read_as_settings_are(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    calls = [(compare, [*METHODS, "--prompts", "a red mug", "--out", "nowhere", f"--{name}", text])
             for name in ("seeds", "jobs", "views")]  # fmt: skip
    calls += [(probe, ["nowhere", f"--{name}", text]) for name in ("seed", "tuples", "learn")]
    for main, arguments in calls:
        with pytest.raises(SystemExit) as stop:
            main(arguments)
        captured = capsys.readouterr().err
        assert stop.value.code == 2 and len(captured.splitlines()) == 1
        assert f"argument {arguments[-2]}: the value is '{text}'; a whole number, written in digits" in captured


def test_a_probe_tells_what_it_passed_over(finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = tmp_path / "run"
    shutil.copytree(finished / "runs" / "sds--a-red-mug--0", run)
    newest = max((run / "checkpoints").glob("*.safetensors"))
    newest.write_bytes(b"damaged")
    assert probe([str(run), "--method", "sds", "--tuples", "8"]) == 0, capsys.readouterr().err
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("skipped: checkpoint") and newest.stem in lines[0] and "after 2 steps" in lines[1]
    for path in (run / "checkpoints").glob("*.safetensors"):
        path.write_bytes(b"damaged")
    assert probe([str(run)]) == 1 and "damaged" in capsys.readouterr().err


def test_a_damaged_image_does_not_stop_the_page(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(finished, tmp_path, dirs_exist_ok=True)
    (tmp_path / "runs" / "sds--a-red-mug--0" / "previews" / "final.png").write_bytes(b"damaged")
    (tmp_path / "runs" / "pairs--a-red-mug--0" / "previews" / "final.png").unlink()
    assert compare([*METHODS, *TINY, "--out", str(tmp_path)]) == 0, capsys.readouterr().err
    assert "final.png is damaged" in (tmp_path / "compare.html").read_text()
    (tmp_path / "trials" / "sds--a-red-mug--0.json").write_text("{")
    assert compare([*METHODS, *TINY, "--out", str(tmp_path)]) == 1
    captured = capsys.readouterr().err
    assert "sds--a-red-mug--0.json" in captured and len(captured.splitlines()) == 1


def test_the_commands_of_the_docs_parse() -> None:
    text = (ROOT / "docs" / "compare.md").read_text()
    calls = re.findall(r"^python pipelines/(probe|compare)\.py (.*)$", text, re.M)
    assert {name for name, _ in calls} == {"probe", "compare"}
    for name, line in calls:
        options = (probe_parser() if name == "probe" else compare_parser()).parse_args(shlex.split(line))
        assert parse_candidates(options.method if name == "probe" else options.methods) is not None
