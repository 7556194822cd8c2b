"""One run of a comparison: one method, prompt and seed, measured during training.

It is started as `python -m` with the path of its record file. The record (JSON) is written after every measurement, and
the run has an ordinary run folder, so an interrupted trial continues from its last checkpoint.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import torch

from steindreamer.distill.variance.probe import EstimatorVariance
from steindreamer.representations import Representation, TriangleMesh, particles_of
from steindreamer.world.mixture_prior import SceneMixtureEmbedding
from steindreamer.world.prior import WorldEmbedding
from steindreamer.world.truth import chamfer_millimeters, held_out_psnr, mean_normal_error, view_consistency
from steindreamer.world.views import shade

from ..command import Parser, exit_status
from ..config.plugins import load_plugins
from ..config.run_config import SCHEMA, RunConfig
from ..errors import UserError, in_one_line
from ..files import write_atomically
from ..optimization.stage import Stage
from ..runs.checkpoint_record import digest_of
from ..runs.folder import slug
from ..runs.resuming import resumed_config
from ..runs.runner import generate
from ..settings.validation import read_settings
from ..streams import repair_streams
from .children import FOLLOW, follow_parent
from .scores import Score, clip_score, psnr_score, world_score
from .trial_settings import trial_settings

OWN = "own"
"""Label of the run's own method among the estimators of a measurement."""
SCORES = ("psnr", "world", "clip")
DIGEST = "digest"
"""Key of the digest in the JSON of a record."""


@dataclass(frozen=True)
class Trial:
    """Settings that determine one run and its measurements."""

    label: str
    method: str
    settings: tuple[str, ...]
    """Settings, each `section.key=value`: those of the comparison, of the method, and the steps of its budget."""
    prompt: str
    seed: int
    representation: str
    prior: str
    preset: str
    calls_per_step: int
    """Prior evaluations per step."""
    measurements: int
    """Number of measurements at equal distances during the run, plus one before the first step."""
    tuples: int
    """Number of tuples of the variance probe in each measurement; 0 disables the probe."""
    views: int
    """Number of held-out images per measurement."""
    size: int
    """Size of a held-out image, in pixels per side."""
    score: str
    """Name of the score, one of `SCORES`."""
    clip: str
    """Folder or hub id of the model of the score "clip"."""
    plugins: tuple[str, ...] = ()
    """Plugin files loaded with --plugin."""

    @property
    def name(self) -> str:
        """Name of the trial's folder."""
        return f"{self.label}--{slug(self.prompt)}--{self.seed}"

    def config(self) -> RunConfig:
        """Configuration with coarse stages only, which writes only what resuming needs. Raises UserError."""
        config = run_config(
            self.method,
            self.prompt,
            self.seed,
            self.representation,
            self.prior,
            self.preset,
            self.settings,
            self.plugins,
        )
        every = max(1, sum(stage.steps for stage in config.active_stages().values()) // max(1, self.measurements))
        return replace(config, output=replace(config.output, checkpoint_every=every))


def run_config(
    method: str,
    prompt: str,
    seed: int,
    representation: str,
    prior: str,
    preset: str,
    settings: Sequence[str],
    plugins: Sequence[str] = (),
) -> RunConfig:
    """Return the configuration of a run in a comparison; see `trial_settings`."""
    config = trial_settings(SCHEMA, method, prompt, seed, representation, prior, preset, settings, plugins)
    assert isinstance(config, RunConfig)
    return config


@dataclass(frozen=True)
class Measurement:
    """Measurements of a scene after `step` steps; None for values that do not apply or are unknown."""

    step: int
    fraction: float
    """Fraction of the run that is done, 0 to 1."""
    calls: int
    """Prior evaluations so far, without those of probes."""
    score: float | None
    psnr: float | None = None
    """PSNR against the true object, in dB."""
    chamfer: float | None = None
    """Chamfer distance to the true object, in millimeters."""
    variance: dict[str, dict[str, float | None]] = field(default_factory=dict)
    """Results of `plain_variance` by estimator, "own" and "sds", at the same tuples."""
    normal_error: float | None = None
    """Mean angle to the true object's normals, in degrees."""
    view_consistency: float | None = None
    """Fraction of the views that show the correct side, 0 to 1."""


@dataclass
class Record:
    """Record of a trial and its measurements."""

    trial: Trial
    score_name: str = ""
    larger_is_better: bool = True
    measurements: list[Measurement] = field(default_factory=list)
    seconds_per_step: float | None = None
    finished: bool = False

    def write(self, path: Path) -> None:
        """Write the record as JSON with its digest, atomically."""
        plain = json.loads(json.dumps(asdict(self), allow_nan=False))
        write_atomically(path, json.dumps({**plain, DIGEST: digest_of(plain)}, indent=1).encode())

    @classmethod
    def read(cls, path: Path) -> Record:
        """Raises UserError for what is no record, or not as it was written."""
        try:
            plain = json.loads(path.read_text(encoding="utf-8"))
            if isinstance(plain, dict) and plain.pop(DIGEST, None) != digest_of(plain):
                raise ValueError("it does not match its own digest")
            record = read_settings(cls, plain)
            if record.finished and not record.measurements:
                raise ValueError("it is marked as finished but has no measurement")
            return record
        except (OSError, ValueError, RecursionError) as error:
            raise UserError(f"cannot read {path}: {in_one_line(error)}; remove it to run this trial again") from None


def run_trial(record_path: Path, folder: Path) -> Record:
    """Run or resume the trial that `record_path` describes, in `folder`. Raises UserError, Interrupted."""
    record = Record.read(record_path)
    if record.finished:
        return record
    trial = record.trial
    config = trial.config()
    steps = sum(stage.steps for stage in config.active_stages().values())
    due = {round(steps * i / trial.measurements) for i in range(trial.measurements + 1)}
    measure = _Measuring(trial, steps)

    def watch(stage: Stage) -> None:
        known = {measurement.step for measurement in record.measurements}
        if stage.total not in due - known:
            return
        record.measurements.append(measure(stage))
        record.score_name, record.larger_is_better = measure.score(stage).name, measure.score(stage).larger_is_better
        record.write(record_path)

    resume = (folder / "config.yaml").is_file()
    if resume:
        resumed_config(folder, [config.to_plain()], {}, SCHEMA)  # rejects a folder with other settings
    generate(config, folder, resume=resume, watch=watch)
    record.seconds_per_step = _seconds_per_step(folder / "metrics.jsonl")
    record.finished = True
    record.write(record_path)
    return record


def plain_variance(variance: EstimatorVariance) -> dict[str, float | None]:
    """Return the variance of one estimator as JSON data.

    The keys are the moments of the parameter gradient, those of the image gradient with the prefix `image_`, and the
    cost.
    """
    found: dict[str, float] = {
        name: getattr(variance, name) for name in ("draws", "calls", "seconds", "view_seconds", "flops")
    }
    for prefix, moments in (("", variance.parameters), ("image_", variance.image)):
        found |= {f"{prefix}{name}": value for name, value in asdict(moments).items()}
        found |= {f"{prefix}total": moments.total, f"{prefix}noise_to_signal": moments.noise_to_signal}
    found |= {f"fraction_{i}": fraction for i, fraction in enumerate(variance.fractions)}
    return {name: _finite(value) for name, value in found.items()}


class _Measuring:
    """Takes the measurements of one trial."""

    def __init__(self, trial: Trial, steps: int) -> None:
        self.trial, self.steps = trial, steps
        self._score: Score | None = None

    def __call__(self, stage: Stage) -> Measurement:
        # Of several particles only the first is scored, since the run's main asset is made from it.
        trial, scene, truth = self.trial, particles_of(stage.representation)[0], _truth(stage)
        distances = {} if truth is None else _distances(scene, truth, trial)
        score = distances[trial.score] if trial.score in distances else _finite(self.score(stage).of(scene))
        variance = {}
        if trial.tuples:
            # All methods use the same timesteps, cameras and noise after the same number of steps.
            generator = torch.Generator().manual_seed(stage.total)
            variance = stage.probe({OWN: stage.distiller}, trial.tuples, generator)
        return Measurement(
            stage.total,
            stage.total / self.steps,
            stage.total * trial.calls_per_step,
            score,
            variance={name: plain_variance(each) for name, each in variance.items()},
            **distances,
        )

    def score(self, stage: Stage) -> Score:
        """Score of the trial, built at its first use. Raises UserError."""
        if self._score is None:
            self._score = _build_score(self.trial, stage)
        return self._score


def _build_score(trial: Trial, stage: Stage) -> Score:
    if trial.score == "world":
        return world_score(trial.prompt, trial.views, trial.size)
    if trial.score == "clip":
        return clip_score(trial.clip, trial.prompt, trial.views, trial.size)
    truth = _truth(stage)
    if truth is None:
        raise UserError(
            "the score psnr needs the ground-truth object: use --prior world with prior.objects=1, or --prior mixture, "
            "or choose --score world, or --clip with a model"
        )
    return psnr_score(truth, trial.views, trial.size)


def _distances(scene: Representation, truth: TriangleMesh, trial: Trial) -> dict[str, float | None]:
    """Return the distances to the true object, by field of `Measurement`."""
    seen = {"views": trial.views, "size": trial.size}
    found = {
        "psnr": held_out_psnr(scene, truth, **seen),
        "chamfer": chamfer_millimeters(scene, truth, size=trial.size),
        "normal_error": mean_normal_error(scene, truth, **seen),
        "view_consistency": view_consistency(scene, truth, **seen),
    }
    return {name: _finite(value) for name, value in found.items()}


def _truth(stage: Stage) -> TriangleMesh | None:
    """Return the object of the prior if it holds exactly one, else None; for the prior `mixture` the best scene.

    It is lit as in the prior's color images if the stage distills those, otherwise it has the colors of the surface.
    """
    embedding = stage.embedding
    if isinstance(embedding, SceneMixtureEmbedding):
        return embedding.base
    if isinstance(embedding, WorldEmbedding) and len(embedding.objects) == 1:
        (only,) = embedding.objects
        return shade(only) if "color" in stage.config.fractions else only
    return None


def _seconds_per_step(training_log: Path) -> float | None:
    """Return the mean over the lines of the training_log; None if there are none."""
    seconds = list(
        filter(None, map(_seconds_of, training_log.read_text(encoding="utf-8", errors="replace").splitlines()))
    )
    return sum(seconds) / len(seconds) if seconds else None


def _seconds_of(line: str) -> float | None:
    """Parse the seconds per step from a line of the training_log; None if the line is invalid."""
    try:
        return float(json.loads(line)["seconds_per_step"])
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError):
        return None


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one trial in this process, as started by the comparison; returns the exit status."""
    repair_streams()
    words = list(sys.argv[1:] if arguments is None else arguments)
    follow_parent(words)
    options = Parser(prog="trial")
    options.add_argument("record", type=Path)
    options.add_argument("folder", type=Path)
    options.add_argument("--plugin", type=Path, action="append", default=[])
    options.add_argument(FOLLOW, action="store_true", help="see `follow_parent`")
    given = options.parse_args(words)

    def work() -> None:
        load_plugins(given.plugin)
        run_trial(given.record, given.folder)

    return exit_status(work, debug=False, stopped="stopped; run the same command again to continue", progress=None)


if __name__ == "__main__":
    sys.exit(main())
