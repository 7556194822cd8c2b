"""The command line of `python pipelines/batch.py` and `steindreamer batch`."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ..batches.rows import read_rows
from ..batches.settings import BatchSettings
from ..batches.shard import read_shard
from ..command import PLUGIN_HELP, Parser, exit_status, whole_number
from ..config.plugins import check_plugin_files, load_plugins
from ..config.precheck import refused_early
from ..console import PROGRAM
from ..errors import SettingsError, UserError
from ..settings.composing import compose_as
from ..settings.layers import DEFAULT_PRESET, given_layers, preset_layers
from ..streams import repair_streams

if TYPE_CHECKING:
    from ..batches.batch import Engine

EPILOGUE = """\
prompts:
  .txt    a prompt per line; lines that start with # are skipped
  .csv    a header with the column prompt, and any of: preset, representation, method, prior, negative_prompt,
          seed, particles, refine, height, and the dotted key of any setting, such as export.face_budget
  .jsonl  an object per line with the same names

examples:
  batch.py prompts.txt --out out
  batch.py prompts.csv --out out --preset cpu export.face_budget=5000
  batch.py prompts.jsonl --out out --shard 3/8        the rows 3, 11, 19, ..., without the overview
  batch.py prompts.jsonl --out out --collect          the overview of what all shards have finished

The same command again continues an interrupted batch: finished runs are kept, unfinished ones are resumed.
DIR holds runs/ (a folder per run), assets/ (all GLB files), contact_sheet.png, index.html, batch.jsonl (a line per
finished row), failed.jsonl (a line per failed row) and batch.log.
"""


MAX_SEEDS = 64
"""Largest number of seeds that race."""
WORKERS_HELP = "simultaneous runs (default: 1, or as many as fit with --address); more than 1 need Ray"


def parser(prog: str = "batch.py") -> argparse.ArgumentParser:
    """The argument parser of the command line."""
    out = Parser(
        prog=prog,
        description="Make an asset for every prompt of a file.",
        epilog=EPILOGUE.replace("batch.py", prog),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    out.add_argument("prompts", type=Path, metavar="PROMPTS", help="a .txt, .csv or .jsonl file")
    out.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder of the batch")
    out.add_argument("--repr", dest="representation", metavar="NAME", help="3D representation (default: gaussians)")
    out.add_argument("--method", metavar="NAME", help="distillation method (default: ssd)")
    out.add_argument("--prior", metavar="NAME|MODEL", help="2D prior, or a model (default: tiny)")
    out.add_argument("--preset", metavar="NAME|FILE", help="settings to start from (default: cpu)")
    out.add_argument("--workers", type=whole_number, metavar="N", help=WORKERS_HELP)
    out.add_argument("--address", metavar="auto|HOST:PORT", help="a running Ray cluster; --out must be shared by it")
    out.add_argument(
        "--cpus-per-run", type=whole_number, metavar="N", help="CPUs of a run (default: the cores over --workers)"
    )
    out.add_argument("--gpus-per-run", type=float, default=0.0, metavar="F", help="GPUs of a run, such as 0.25 or 1")
    out.add_argument(
        "--best-of",
        type=whole_number,
        default=1,
        metavar="N",
        help="race N seeds per prompt; after equal numbers of steps the better half goes on (races/)",
    )
    out.add_argument("--shard", metavar="I/N", help="run only the rows I, I + N, ... without the overview")
    out.add_argument("--collect", action="store_true", help="run nothing; write the overview of what is finished")
    out.add_argument("--plugin", type=Path, action="append", default=[], metavar="FILE.py", help=PLUGIN_HELP)
    out.add_argument("--quiet", action="store_true", help="print only warnings and errors")
    out.add_argument("--verbose", action="store_true", help="print the progress of each run too")
    out.add_argument("--debug", action="store_true", help="show the traceback of an error")
    out.add_argument("overrides", nargs="*", metavar="section.key=value", help="settings of all rows")
    return out


def main(arguments: Sequence[str] | None = None, prog: str = "batch.py") -> int:
    """Run the command line. Returns the exit status: 0 all rows are finished, 1 error or failed rows, 2 usage error,
    128 + a signal's number.
    """
    repair_streams()
    options = parser(prog).parse_intermixed_args(arguments)
    progress = PROGRAM if options.verbose else f"{PROGRAM}.pipelines.batches"
    return exit_status(
        lambda: _run(options),
        debug=options.debug,
        stopped="stopped; run the same command again to continue",
        progress=None if options.quiet else progress,
    )


def _run(options: argparse.Namespace) -> None:
    check_plugin_files(options.plugin)
    shard = read_shard(options.shard) if options.shard else None
    if shard and options.collect:
        raise UserError("--collect is for the whole batch; leave out --shard")
    if not 1 <= options.best_of <= MAX_SEEDS:
        raise SettingsError(f"--best-of is {options.best_of}; 1 to {MAX_SEEDS} is accepted")
    chosen = {name: getattr(options, name) for name in ("representation", "method", "prior")}
    chosen = {section: name for section, name in chosen.items() if name is not None}
    overrides = tuple(options.overrides)
    read_rows(options.prompts)
    with refused_early(options.plugin) as known:
        compose_as(known, [*preset_layers(options.preset or DEFAULT_PRESET), *given_layers(overrides, {})], chosen)
    plugins = tuple(load_plugins(options.plugin))
    settings = BatchSettings(options.preset, overrides, chosen, plugins, options.best_of)

    from ..batches.batch import run_batch
    from ..config.run_config import SCHEMA

    engine = None if options.collect else _engine(options, settings)
    tally = run_batch(options.prompts, options.out, settings, SCHEMA, engine, shard)
    if tally.finished < tally.rows and not options.collect:
        raise UserError(
            f"{tally.failed} of {tally.rows} prompts failed: {options.out / 'failed.jsonl'} has the reasons; "
            "the same command tries them again"
        )


def _engine(options: argparse.Namespace, settings: BatchSettings) -> Callable[[], Engine]:
    """The function that starts the engine. Raises UserError."""
    from ..batches.cluster import RayEngine, Resources, ray_module
    from ..batches.local import LocalEngine
    from ..batches.worker import Worker

    workers, address = options.workers, options.address
    if workers is not None and workers < 1:
        raise SettingsError(f"--workers is {workers}; 1 or more is accepted")
    if address is not None or (workers or 1) > 1:
        cores = 1 if address else max(1, (os.cpu_count() or 1) // (workers or 1))
        resources = Resources(options.cpus_per_run or cores, options.gpus_per_run, workers if address else workers or 1)
        ray_module()
        return lambda: RayEngine(settings, options.out / "runs", resources, address)
    if options.gpus_per_run or options.cpus_per_run is not None:
        raise SettingsError("--cpus-per-run and --gpus-per-run need --workers 2 or more, or --address")
    return lambda: LocalEngine(Worker(settings, options.out / "runs"))
