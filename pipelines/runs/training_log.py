"""Training log of a run: metrics.jsonl for programs, log lines for people."""

from __future__ import annotations

import json
import logging
import math
import time
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..files import append_text, read_regular, write_atomically
from ..optimization.stage import StepInfo
from ..progress import Progress
from .time_left import ExpectedStage, TimeLeft

logger = logging.getLogger(__name__)


class TrainingLog:
    """Collects the values of each step and writes their averages every `every` steps."""

    def __init__(self, path: Path, stages: Mapping[str, ExpectedStage], every: int) -> None:
        self.path = path
        self.total = sum(stage.steps for stage in stages.values())
        self._stages = stages
        self.every = every
        self._pending: list[StepInfo] = []
        self._left = TimeLeft(stages)
        self._clock = time.perf_counter()

    def rewind(self, step: int) -> None:
        """Drop the lines after `step`, which a resumed run writes again, and tell of those that are damaged."""
        if not self.path.exists():
            return
        lines = [(_step_of(line), line) for line in self.path.read_bytes().splitlines()]
        kept = [line for number, line in lines if number is not None and number <= step]
        if damaged := sum(number is None for number, _ in lines):
            logger.info(f"{self.path}: {damaged} damaged line{'s' if damaged > 1 else ''} skipped")
        write_atomically(self.path, b"".join(line + b"\n" for line in kept))

    def record(self, info: StepInfo) -> None:
        """Add the values of a step, and write the averages if `every` steps are collected."""
        now = time.perf_counter()
        self._left.record(info.stage, now - self._clock)
        self._clock = now
        for note in info.notes:
            logger.info(f"step {info.step}: {note}")
        if info.skipped:
            logger.info(f"step {info.step}: skipped, {info.skipped}")
        self._pending.append(info)
        if info.step % self.every == 0 or info.step == self.total:
            self.flush()

    def restart_clock(self) -> None:
        """Exclude the time since the last step, such as previews and checkpoints, from the timing."""
        self._clock = time.perf_counter()

    def flush(self) -> None:
        """Write the averages of the steps since the last line.

        It is called before a checkpoint, so that a resumed run averages the same steps.
        """
        if not self._pending:
            return
        taken = [info for info in self._pending if not info.skipped]
        line: dict[str, Any] = {"step": self._pending[-1].step, "stage": self._pending[-1].stage}
        if taken:
            line["loss"] = sum(info.loss for info in taken) / len(taken)
            line["modalities"] = dict(Counter(info.modality for info in taken))
            for name in sorted({name for info in taken for name in info.values}):
                values = [info.values[name] for info in taken if name in info.values]
                line[name] = sum(values) / len(values)
        line["skipped"] = len(self._pending) - len(taken)
        seconds = sum(self._left.step_seconds) / len(self._left.step_seconds)
        line["seconds_per_step"] = round(seconds, 4)
        self._pending = []
        append_text(self.path, json.dumps(line) + "\n")
        progress = self._progress(line["stage"], line["step"])
        width = len(str(progress.steps))
        logger.info(
            f"{progress.stage}: step {progress.step:>{width}} of {progress.steps}  {progress.left:>5} left",
            extra={"progress": progress},
        )
        logger.debug(_details(line, seconds))

    def _progress(self, stage: str, step: int) -> Progress:
        """The progress after a step, which is counted over all stages."""
        place = list(self._stages).index(stage)
        before = sum(each.steps for each in list(self._stages.values())[:place])
        steps = self._stages[stage].steps
        name = f"stage {place + 1} of {len(self._stages)}, {stage}"
        return Progress(name, step - before, steps, _duration(self._left.after(step)))


def _details(line: Mapping[str, Any], seconds: float) -> str:
    """Loss, residual and gradient variance of a line of metrics.jsonl."""
    text = f"  {seconds:.3f} s/step  loss {line.get('loss', math.nan):.4g}"
    if "residual_rms" in line:
        text += f"  residual {line['residual_rms']:.3g} (root mean square)"
    if "variance" in line:
        text += f"  gradient variance {line['variance']:.2e}"
        if line["variance_sds"] and line["variance"] != line["variance_sds"]:
            text += f" ({line['variance'] / line['variance_sds']:.0%} of SDS)"
    return text


def read_records(path: Path) -> list[dict[str, float]]:
    """The numeric values of each line of a metrics.jsonl; lines that are not records are skipped."""
    if not path.exists():
        return []
    found = []
    for line in read_regular(path).decode("utf-8", "replace").splitlines():
        try:
            record = json.loads(line)
            values = {key: float(value) for key, value in record.items() if isinstance(value, int | float)}
        except (ValueError, AttributeError, OverflowError, RecursionError):
            continue
        if math.isfinite(values.get("step", math.nan)):
            found.append({key: value for key, value in values.items() if math.isfinite(value)})
    return found


def _step_of(line: bytes) -> int | None:
    """The step of a line; None for an invalid line, such as the incomplete one of a killed process.

    Bytes that are not UTF-8 make a line invalid wherever they are, also within a name.
    """
    try:
        return int(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError):
        return None


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}:{rest:02d}"
