"""The command line of `python pipelines/compare.py`."""

from __future__ import annotations

import argparse
import os
import platform
import shlex
import sys
from collections.abc import Sequence
from datetime import date
from pathlib import Path

from ..command import PLUGIN_HELP, Parser, exit_status, whole_number
from ..comparison.candidates import parse_candidates, with_fixed_coefficients
from ..comparison.output_paths import check_output_folder
from ..comparison.trial_settings import trial_settings
from ..config.plugins import check_plugin_files, load_plugins
from ..config.precheck import check_named_files, check_words, refused_early
from ..console import PROGRAM
from ..errors import SettingsError
from ..settings.schema import Schema
from ..streams import put, repair_streams

LIMITS = {
    "measurements": (1, 1000),
    "views": (1, 1024),
    "size": (16, 4096),
    "jobs": (0, 1024),
    "calls": (0, 10**12),
    "tuples": (0, 100_000),
}
"""Smallest and largest accepted value, by option."""
MAX_SEED = 2**63 - 1
"""Largest seed of torch's generators."""

EPILOGUE = """\
methods:
  NAME, NAME:section.key=value[:section.key=value...] or LABEL=NAME:..., for example
    ssd   ssd-depth=ssd:method.control_variates.terms=[depth]   sds-pairs=sds:method.antithetic=true

examples:
  compare.py --methods sds ssd --prompts "a red mug" "a wooden chair" --out runs/compare
  compare.py --methods sds ssd-depth=ssd:method.control_variates.terms=[depth] --with-fixed-coefficients
             --prompts "a red mug" --seeds 0 1 2 --out runs/mu
Run the same command again to continue an interrupted comparison; finished runs are kept.
DIR holds compare.html, plots/, measurements.csv, runs.csv, trials/ and runs/.
"""


def parser(prog: str = "compare.py") -> argparse.ArgumentParser:
    """The argument parser of the command line."""
    out = Parser(
        prog=prog,
        description="Compare distillation methods: variance, convergence, quality and time over prompts and seeds.",
        epilog=EPILOGUE.replace("compare.py", prog),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    out.add_argument(
        "--methods", nargs="+", required=True, metavar="METHOD", help="see below; the first is the baseline"
    )
    out.add_argument("--prompts", nargs="+", required=True, metavar="TEXT")
    out.add_argument("--seeds", nargs="+", type=whole_number, default=[0, 1, 2], metavar="N", help="default: 0 1 2")
    out.add_argument("--out", type=Path, required=True, metavar="DIR")
    out.add_argument("--repr", dest="representation", default="", metavar="NAME", help="3D representation")
    out.add_argument("--prior", default="", metavar="NAME|MODEL", help="2D prior")
    out.add_argument("--preset", default="cpu", metavar="NAME|FILE", help="settings to start from (default: cpu)")
    out.add_argument("--settings", nargs="+", default=[], metavar="section.key=value", help="settings for all methods")
    out.add_argument(
        "--calls",
        type=whole_number,
        default=0,
        help="prior calls per run (default: as many as the steps of the first method need)",
    )
    out.add_argument(
        "--with-fixed-coefficients", action="store_true", help="also run every SSD method with fixed coefficients"
    )
    out.add_argument(
        "--measurements", type=whole_number, default=10, metavar="N", help="measurements during a run (default: 10)"
    )
    out.add_argument(
        "--tuples",
        type=whole_number,
        default=120,
        metavar="N",
        help="draws per variance probe (default: 120); 0: no probes",
    )
    out.add_argument(
        "--score", choices=["world", "psnr"], default="world", help="score for convergence and quality (default: world)"
    )
    out.add_argument("--clip", default="", metavar="PATH|ID", help="score with the CLIP distance of this model instead")
    out.add_argument(
        "--views", type=whole_number, default=12, metavar="N", help="number of held-out images (default: 12)"
    )
    out.add_argument(
        "--size", type=whole_number, default=128, metavar="PIXELS", help="size of a held-out image (default: 128)"
    )
    out.add_argument(
        "--jobs",
        type=whole_number,
        default=1,
        metavar="N",
        help="parallel processes (default: 1); 0: run everything in this process",
    )
    out.add_argument("--plugin", type=Path, action="append", default=[], metavar="FILE.py", help=PLUGIN_HELP)
    out.add_argument("--debug", action="store_true", help="show the traceback of an error")
    return out


def main(arguments: Sequence[str] | None = None, prog: str = "compare.py") -> int:
    """Run the command line. Returns the exit status: 0 done, 1 error, 2 usage error, 128 + a signal's number."""
    repair_streams()
    options = parser(prog).parse_args(arguments)
    words = sys.argv[1:] if arguments is None else arguments
    called = ["python", f"pipelines/{prog}"] if prog == "compare.py" else prog.split()
    command = shlex.join([*called, *words])
    return exit_status(
        lambda: _run(options, command),
        debug=options.debug,
        stopped="stopped; run the same command again to continue",
        progress=f"{PROGRAM}.pipelines.comparison",
    )


def _run(options: argparse.Namespace, command: str) -> None:
    _check(options)
    with refused_early(options.plugin) as known:
        _check_early(options, known)
    plugins = load_plugins(options.plugin)

    from ..comparison.comparison import Comparison, plan, run_all
    from ..comparison.html_report import write_report
    from ..comparison.plots import check_matplotlib
    from ..comparison.results import Results, write_csv

    check_matplotlib()
    candidates = parse_candidates(options.methods)
    if options.with_fixed_coefficients:
        candidates = with_fixed_coefficients(candidates)
    comparison = Comparison(
        candidates=candidates,
        prompts=tuple(dict.fromkeys(options.prompts)),
        seeds=tuple(dict.fromkeys(options.seeds)),
        settings=tuple(options.settings),
        representation=options.representation,
        prior=options.prior,
        preset=options.preset,
        calls=options.calls,
        measurements=options.measurements,
        tuples=options.tuples,
        views=options.views,
        size=options.size,
        score="clip" if options.clip else options.score,
        clip=options.clip,
        plugins=tuple(plugins),
    )
    results = Results(run_all(plan(comparison), options.out, options.jobs))
    write_csv(results, options.out)
    machine = f"{date.today().isoformat()}, {platform.machine()}, {os.cpu_count()} cores, jobs {options.jobs}"
    put(str(write_report(results, candidates, options.out, command, machine)))


def _check(options: argparse.Namespace) -> None:
    check_plugin_files(options.plugin)
    check_output_folder(options.out, "--out")
    for name, (least, most) in LIMITS.items():
        if not least <= getattr(options, name) <= most:
            raise SettingsError(f"--{name} is {getattr(options, name)}; {least} to {most} is accepted")
    for seed in options.seeds:
        if not 0 <= seed <= MAX_SEED:
            raise SettingsError(f"--seeds holds {seed}; 0 to {MAX_SEED} is accepted")
    if options.tuples % 4 or options.tuples == 4:
        raise SettingsError(f"--tuples is {options.tuples}; 0 and multiples of 4 from 8 are accepted")


def _check_early(options: argparse.Namespace, known: Schema) -> None:
    """Raises UserError for errors that are found without importing torch."""
    candidates = parse_candidates(options.methods, known.choices["method"])
    for candidate in candidates:
        for prompt in options.prompts if candidate is candidates[0] else options.prompts[:1]:
            config = trial_settings(
                known,
                candidate.method,
                prompt,
                options.seeds[0],
                options.representation,
                options.prior,
                options.preset,
                [*options.settings, *candidate.settings],
            )
            check_named_files(config)
            check_words(config.names["prior"], config.prior, prompt, config.negative_prompt)
