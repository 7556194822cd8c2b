"""Races between seeds: who goes on, what is written, and that the winner equals a run of its own."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
import trimesh
from small_batch import WORDS, glb_files, small_config, small_images

from steindreamer.pipelines import generate
from steindreamer.pipelines.batches import worker
from steindreamer.pipelines.batches.judging import Judge, view_consistency
from steindreamer.pipelines.batches.races import Candidate, Race, Round, rounds_of, winner_of
from steindreamer.pipelines.batches.settings import folder_name
from steindreamer.pipelines.cli.main import main
from steindreamer.pipelines.errors import UserError
from steindreamer.representations import Gaussians

FIVE = [Candidate(seed, f"run-{seed}") for seed in range(5)]


@pytest.mark.parametrize(
    ("seeds", "rounds"),
    [
        (2, [Round(50, 2), Round(100, 1)]),
        (4, [Round(25, 4), Round(50, 2), Round(100, 1)]),
        (5, [Round(12, 5), Round(25, 3), Round(50, 2), Round(100, 1)]),
    ],
)
def test_every_round_doubles_the_steps_and_halves_the_runs(seeds: int, rounds: list[Round]) -> None:
    assert rounds_of(100, seeds) == rounds


class Scripted:
    """Runs with given scores per round and audits; counts what is asked of them."""

    def __init__(self, scores: Mapping[int, Sequence[float | None]], errors: dict[int, int] | None = None) -> None:
        self.scores, self.errors = scores, errors or {}
        self.judged: list[tuple[int, int]] = []
        self.completed: list[int] = []

    def judge(self, candidate: Candidate, steps: int) -> dict[str, Any]:
        rounds = [each.steps for each in rounds_of(100, len(self.scores))]
        self.judged.append((candidate.seed, steps))
        score = self.scores[candidate.seed][rounds.index(steps)]
        if score is None:
            raise UserError("it diverged")
        return {"score": score}

    def complete(self, candidate: Candidate) -> dict[str, Any]:
        self.completed.append(candidate.seed)
        errors = self.errors.get(candidate.seed, 0)
        return {"passed": not errors, "errors": errors}


def hold(path: Path, runs: Scripted) -> Candidate:
    count = len(runs.scores)
    return Race(path, "a mug", FIVE[:count], rounds_of(100, count)).hold(runs.judge, runs.complete)


def test_the_better_half_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "race.json"
    runs = Scripted({0: [0.1], 1: [0.4, 0.2], 2: [0.3, 0.9], 3: [0.3]})
    assert hold(path, runs) == FIVE[2] == winner_of(path)
    assert runs.judged == [(0, 25), (1, 25), (2, 25), (3, 25), (1, 50), (2, 50)] and runs.completed == [2]
    first, second, last = json.loads(path.read_text())["rounds"]
    assert [entry["kept"] for entry in first["runs"]] == [False, True, True, False]  # of equal ones, the lower seed
    assert first["runs"][0]["reason"] == "rank 4 of 4 by score; 2 go on"
    assert [entry["kept"] for entry in second["runs"]] == [False, True]
    assert last["runs"] == [{"seed": 2, "folder": "run-2", "reason": "the audit has no errors"}]


def test_failures_and_audits(tmp_path: Path) -> None:
    runs = Scripted({0: [None], 1: [0.4, 0.8], 2: [0.3, 0.7], 3: [0.2]}, errors={1: 3})
    assert hold(tmp_path / "a.json", runs) == FIVE[2] and runs.completed == [1, 2]
    assert "it diverged" in json.loads((tmp_path / "a.json").read_text())["rounds"][0]["runs"][0]["reason"]
    runs = Scripted({0: [0.5], 1: [0.4]}, errors={0: 1, 1: 1})
    assert hold(tmp_path / "b.json", runs) == FIVE[0] and runs.completed == [0, 1]
    with pytest.raises(UserError, match="all 2 seeds failed: failed: it diverged"):
        hold(tmp_path / "c.json", Scripted({0: [None], 1: [None]}))


def test_an_error_of_the_machine_ends_the_race_and_drops_no_seed(tmp_path: Path) -> None:
    class Full(Scripted):
        def judge(self, candidate: Candidate, steps: int) -> dict[str, Any]:
            if candidate.seed == 1:
                raise UserError("cannot write") from OSError(28, "No space left on device")
            return super().judge(candidate, steps)

    scores = {0: [0.1], 1: [0.4]}
    with pytest.raises(UserError, match="cannot write"):
        hold(tmp_path / "race.json", Full(scores))
    assert hold(tmp_path / "race.json", Scripted(scores)) == FIVE[1]


def test_an_interrupted_race_goes_on_with_its_scores(tmp_path: Path) -> None:
    path, scores = tmp_path / "race.json", {0: [0.1], 1: [0.4, 0.2], 2: [0.3, 0.9], 3: [0.2]}
    whole = tmp_path / "whole.json"
    hold(whole, Scripted(scores))

    class Stopping(Scripted):
        def judge(self, candidate: Candidate, steps: int) -> dict[str, Any]:
            if (candidate.seed, steps) == (2, 50):
                raise KeyboardInterrupt
            return super().judge(candidate, steps)

    with pytest.raises(KeyboardInterrupt):
        hold(path, Stopping(scores))
    assert winner_of(path) is None
    again = Scripted(scores)
    assert hold(path, again) == FIVE[2] and again.judged == [(2, 50)]
    assert path.read_text() == whole.read_text()


def splats(points: torch.Tensor) -> Gaussians:
    """Small opaque Gaussians at these points."""
    count = len(points)
    turns = torch.tensor([1.0, 0, 0, 0]).repeat(count, 1)
    return Gaussians(points, torch.full((count, 3), -3.0), turns, torch.full((count,), 6.0), torch.zeros(count, 3))


def test_views_of_a_solid_agree_and_those_of_dust_do_not() -> None:
    sphere = torch.from_numpy(trimesh.creation.icosphere(subdivisions=4, radius=0.7).vertices).float()
    dust = (torch.rand(120, 3, generator=torch.Generator().manual_seed(1)) - 0.5) * 1.2
    assert view_consistency(splats(sphere)) > 0.85 > 0.75 > view_consistency(splats(dust))
    assert view_consistency(splats(sphere + 50)) == 0.0


def test_the_winner_equals_a_run_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two seeds; the judge is scripted to prefer the second, and the real one scores within its range."""
    small_images(monkeypatch)
    scores = []

    class Reversed(Judge):
        def __call__(self, scene: Any) -> Any:
            judgement = super().__call__(scene)
            scores.append(judgement)
            return type(judgement)(None, len(scores) / 2)

    monkeypatch.setattr(worker, "Judge", Reversed)
    prompts, out, single = tmp_path / "p.txt", tmp_path / "out", tmp_path / "single"
    prompts.write_text("a red mug")
    assert main(["batch", str(prompts), "--out", str(out), "--best-of", "2", *WORDS]) == 0
    config = small_config("a red mug", seed=1)
    generate(config, single / "runs" / folder_name(config))
    assert glb_files(out) == glb_files(single)  # the loser has none
    (record,) = map(json.loads, (out / "batch.jsonl").read_text().splitlines())
    assert record["seed"] == 1 and record["folder"] == f"runs/{folder_name(config)}"
    (race,) = (json.loads(path.read_text()) for path in (out / "races").iterdir())
    first = race["rounds"][0]["runs"]
    assert [entry["steps"] for entry in first] == [3, 3] and first[0]["prior_calls"] == first[1]["prior_calls"] > 0
    assert all(0 <= each.consistency <= 1 and 0 < each.probability < 1 for each in scores)
    assert main(["batch", str(prompts), "--out", str(out), "--best-of", "2", *WORDS]) == 0
    assert len(scores) == 2
