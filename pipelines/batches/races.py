"""Races between seeds by successive halving: after equal numbers of steps, the better half goes on."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import UserError
from ..files import read_regular, write_atomically
from ..optimization.out_of_memory import is_out_of_memory
from ..runs.lock import FolderInUse

FAILED = "failed"
_LARGEST = 16 << 20


@dataclass(frozen=True)
class Round:
    """A round of a race."""

    steps: int
    """Steps that every run has taken at its end."""
    runs: int
    """Number of runs that take part."""


def rounds_of(steps: int, seeds: int) -> list[Round]:
    """The rounds of a race; the last one takes all steps, and each halves the runs of the one before.

    Args:
        steps: Steps of a whole run.
        seeds: Number of runs at the start.
    """
    halvings = math.ceil(math.log2(seeds))
    return [
        Round(max(1, round(steps / 2 ** (halvings - index))), math.ceil(seeds / 2**index))
        for index in range(halvings + 1)
    ]


@dataclass(frozen=True)
class Candidate:
    """A run of a race."""

    seed: int
    folder: str
    """Name of its folder."""


class Race:
    """A race of one prompt. Its file has the scores of every round, so that an interrupted race goes on."""

    def __init__(self, path: Path, prompt: str, candidates: Sequence[Candidate], rounds: Sequence[Round]) -> None:
        """Read the file of an interrupted race, if there is one for the same candidates and rounds.

        Args:
            path: The file.
            prompt: The prompt.
            candidates: The runs, in the order of their seeds.
            rounds: See `rounds_of`.
        """
        self._path, self._candidates, self._rounds = path, list(candidates), list(rounds)
        self._table: dict[str, Any] = {
            "prompt": prompt,
            "candidates": [{"seed": each.seed, "folder": each.folder} for each in candidates],
            "rounds": [{"steps": each.steps, "runs": []} for each in rounds],
            "winner": None,
        }
        found = read_race(path)
        if found and all(found.get(key) == self._table[key] for key in ("prompt", "candidates")):
            steps = [each["steps"] for each in found["rounds"]]
            if steps == [each.steps for each in rounds]:
                self._table = found

    def hold(
        self,
        judge: Callable[[Candidate, int], dict[str, Any]],
        complete: Callable[[Candidate], dict[str, Any]],
    ) -> Candidate:
        """Hold the race; returns the winner.

        Args:
            judge: Takes the run to a number of steps; returns its scores, with the key `score`. A UserError ends the
                run's part in the race, unless it is about the machine.
            complete: Takes the run to its end; returns its audit, with the key `passed`.

        Raises:
            UserError: All runs failed, or there was an error of the machine, such as a full disk.
        """
        runners = ranked = list(self._candidates)
        for index in range(len(self._rounds) - 1):
            entries = [self._judged(index, runner, judge) for runner in runners]
            following = self._rounds[index + 1].runs
            order = sorted(range(len(runners)), key=lambda place: (-_score(entries[place]), runners[place].seed))
            for rank, place in enumerate(order):
                entry = entries[place]
                entry["kept"] = rank < following and entry["score"] is not None
                if entry["score"] is not None:
                    entry["reason"] = f"rank {rank + 1} of {len(runners)} by score; {following} go on"
            runners = [runners[place] for place in order if entries[place]["score"] is not None]
            if not runners:
                raise UserError(f"all {len(self._candidates)} seeds failed: {entries[0]['reason']}")
            self._write()
            ranked, runners = runners, runners[:following]
        return self._decided(ranked, complete)

    def _judged(
        self, index: int, runner: Candidate, judge: Callable[[Candidate, int], dict[str, Any]]
    ) -> dict[str, Any]:
        """The entry of a run in a round, from the file or by running it."""
        entries = self._table["rounds"][index]["runs"]
        known = next((entry for entry in entries if entry["seed"] == runner.seed), None)
        if known is not None:
            return known
        entry: dict[str, Any] = {"seed": runner.seed, "folder": runner.folder}
        try:
            entry |= judge(runner, self._rounds[index].steps)
        except UserError as error:
            if _is_of_the_machine(error):
                raise
            entry |= {"score": None, "kept": False, "reason": f"{FAILED}: {error}"}
        entries.append(entry)
        self._write()
        return entry

    def _decided(self, ranked: Sequence[Candidate], complete: Callable[[Candidate], dict[str, Any]]) -> Candidate:
        """Complete the best run; if its audit finds errors, the next one, up to all of the last comparison.

        The first without errors wins, else the best one.
        """
        entries: list[dict[str, Any]] = []
        failures: list[UserError] = []
        self._table["rounds"][-1]["runs"] = entries
        chosen = None
        for runner in ranked:
            try:
                found = complete(runner)
            except UserError as error:
                if _is_of_the_machine(error):
                    raise
                failures.append(error)
                entries.append({"seed": runner.seed, "folder": runner.folder, "reason": f"{FAILED}: {error}"})
                continue
            verdict = "the audit has no errors" if found["passed"] else f"the audit has {found['errors']} errors"
            entries.append({"seed": runner.seed, "folder": runner.folder, "reason": verdict})
            chosen = runner if chosen is None or found["passed"] else chosen
            if found["passed"]:
                break
        if chosen is None:
            raise UserError(f"all seeds of the last round failed: {failures[0]}") from failures[0]
        self._table["winner"] = {"seed": chosen.seed, "folder": chosen.folder}
        self._write()
        return chosen

    def _write(self) -> None:
        write_atomically(self._path, (json.dumps(self._table, indent=1) + "\n").encode())


def read_race(path: Path) -> dict[str, Any]:
    """The table of a race; empty if there is none that can be read."""
    try:
        found = json.loads(read_regular(path, _LARGEST))
        rounds = [{"steps": int(each["steps"]), "runs": list(each["runs"])} for each in found["rounds"]]
        return {**found, "rounds": rounds}
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return {}


def winner_of(path: Path) -> Candidate | None:
    """The winner of a race that has ended; None otherwise."""
    winner = read_race(path).get("winner")
    return Candidate(int(winner["seed"]), str(winner["folder"])) if winner else None


def _is_of_the_machine(error: UserError) -> bool:
    """Whether another try on another machine may succeed, so that the error says nothing about a seed."""
    return isinstance(error, FolderInUse) or isinstance(error.__cause__, OSError) or is_out_of_memory(error)


def _score(entry: dict[str, Any]) -> float:
    return -math.inf if entry["score"] is None else float(entry["score"])
