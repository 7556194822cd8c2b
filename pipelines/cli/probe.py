"""The command line of `python pipelines/probe.py`."""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ..command import PLUGIN_HELP, Parser, exit_status, whole_number
from ..comparison.candidates import parse_candidates, shared_settings
from ..comparison.output_paths import check_output_file
from ..comparison.text_table import table
from ..config.plugins import check_plugin_files, load_plugins, refuse_missing_plugins
from ..config.precheck import refused_early
from ..errors import SettingsError, UserError
from ..settings.composing import compose_as, to_plain
from ..settings.layers import given_layers, read_layer
from ..settings.schema import Schema
from ..streams import put, repair_streams

if TYPE_CHECKING:
    from steindreamer.distill.variance.probe import EstimatorVariance

MAX_SEED = 2**63 - 1
"""Largest seed of torch's generators."""
MAX_DRAWS = 100_000

EPILOGUE = """\
examples:
  probe.py runs/mug
  probe.py runs/mug --method ssd ssd-depth=ssd:method.control_variates.terms=[depth] sds:method.antithetic=true
"""


def parser(prog: str = "probe.py") -> argparse.ArgumentParser:
    """The argument parser of the command line."""
    out = Parser(
        prog=prog,
        description="Measure the gradient variance of several methods on the latest scene of a run.",
        epilog=EPILOGUE.replace("probe.py", prog),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    out.add_argument("run", type=Path, metavar="RUN", help="the run's folder; it is not changed")
    out.add_argument(
        "--method", nargs="+", default=[], metavar="METHOD",
        help="NAME, NAME:section.key=value or LABEL=NAME:... (default: the run's own); SDS is always measured",
    )  # fmt: skip
    out.add_argument(
        "--tuples",
        type=whole_number,
        default=120,
        metavar="N",
        help="draws of noise level, camera and noise (default: 120)",
    )
    out.add_argument(
        "--seed", type=whole_number, default=0, metavar="N", help="random seed of these draws (default: 0)"
    )
    out.add_argument(
        "--learn", type=whole_number, default=100, metavar="N",
        help="warm-up draws on this scene for the methods other than the run's own (default: 100)",
    )  # fmt: skip
    out.add_argument(
        "--modality", default="", metavar="NAME",
        help="measure images of this modality of the stage, such as normal (default: its most frequent one)",
    )  # fmt: skip
    out.add_argument("--json", type=Path, metavar="FILE", help="write the results as JSON")
    out.add_argument("--plugin", type=Path, action="append", default=[], metavar="FILE.py", help=PLUGIN_HELP)
    out.add_argument("--debug", action="store_true", help="show the traceback of an error")
    return out


def main(arguments: Sequence[str] | None = None, prog: str = "probe.py") -> int:
    """Run the command line. Returns the exit status: 0 done, 1 error, 2 usage error, 128 + a signal's number."""
    repair_streams()
    options = parser(prog).parse_args(arguments)
    return exit_status(lambda: _run(options), debug=options.debug, stopped="stopped; nothing was changed")


def _run(options: argparse.Namespace) -> None:
    _check(options)
    with refused_early(options.plugin) as known:
        _check_early(options, known)
    load_plugins(options.plugin)

    from ..comparison.probing import probe_run
    from ..comparison.trial import plain_variance
    from ..files import write_atomically

    candidates = parse_candidates(options.method)
    probe = probe_run(
        options.run,
        candidates,
        tuples=options.tuples,
        seed=options.seed,
        learn=options.learn,
        modality=options.modality,
    )
    for line in probe.damage:
        put(f"skipped: {line}")
    put(
        f"{options.run}: stage '{probe.stage}' after {probe.step} steps, {probe.modality}; {options.tuples} tuples, "
        f"seed {options.seed}"
    )
    put(tables(probe.variances))
    if options.json is not None:
        plain = {
            "run": str(options.run), "stage": probe.stage, "step": probe.step, "modality": probe.modality,
            "tuples": options.tuples, "seed": options.seed, "learn": options.learn,
            "methods": {name: plain_variance(variance) for name, variance in probe.variances.items()},
        }  # fmt: skip
        write_atomically(options.json, json.dumps(plain, indent=1, allow_nan=False).encode())


def _check(options: argparse.Namespace) -> None:
    check_plugin_files(options.plugin)
    if not 8 <= options.tuples <= MAX_DRAWS or options.tuples % 4:
        raise SettingsError(f"--tuples is {options.tuples}; multiples of 4 from 8 to {MAX_DRAWS} are accepted")
    if not 0 <= options.learn <= MAX_DRAWS:
        raise SettingsError(f"--learn is {options.learn}; 0 to {MAX_DRAWS} is accepted")
    if not 0 <= options.seed <= MAX_SEED:
        raise SettingsError(f"--seed is {options.seed}; 0 to {MAX_SEED} is accepted")
    if options.json is not None:
        check_output_file(options.json, "--json")
    if not (options.run / "config.yaml").is_file():
        raise UserError(f"no run to probe: {options.run / 'config.yaml'} does not exist; give a run's folder")


def _check_early(options: argparse.Namespace, known: Schema) -> None:
    """Raises UserError for errors that are found without importing torch."""
    saved = read_layer(options.run / "config.yaml")
    refuse_missing_plugins([saved], options.plugin)
    config = compose_as(known, [saved])
    for candidate in parse_candidates(options.method, known.choices["method"]):
        layers = [to_plain(config), shared_settings(config, known.choices["method"])]
        compose_as(known, [*layers, *given_layers(candidate.settings, {})], {"method": candidate.method})


def tables(variances: Mapping[str, EstimatorVariance]) -> str:
    """Tables of the moments in the scene's parameters and in the image, then costs and fractions by noise level."""
    from steindreamer.distill.variance.probe import REFERENCE

    sds = variances[REFERENCE]
    out = []
    for title, space in (("in the scene's parameters", "parameters"), ("in the image (or latent)", "image")):
        header = [
            title, "noise", "level", "camera", "total", "noise/SDS", "total/SDS", "noise/signal", "cosine", "bias",
            "noise/SDS per call", "total/SDS per call",
        ]  # fmt: skip
        rows, base = [], getattr(sds, space)
        for name, variance in variances.items():
            m = getattr(variance, space)
            noise, total = _ratio(m.noise, base.noise), _ratio(m.total, base.total)
            cost = _ratio(variance.calls, sds.calls)
            values = (m.noise, m.level, m.camera, m.total, noise, total, m.noise_to_signal, m.cosine, m.bias)
            rows.append([name, *map(_number, (*values, noise * cost, total * cost))])
        out.append(table(header, rows))
    header = [
        "cost of a gradient", "draws", "calls", "seconds", "seconds to render and encode", "GFLOP", "draws that pay",
        "gain",
    ]  # fmt: skip
    out.append(table(header, [[name, *_costs(v)] for name, v in variances.items()]))
    bins = len(sds.fractions)
    levels = [f"{i / bins:.2f}-{(i + 1) / bins:.2f}" for i in range(bins)]
    rows = [[name, *(f"{fraction:.0%}" for fraction in v.fractions)] for name, v in variances.items()]
    out.append(table(["variance over the noise, by noise level", *levels], rows))
    return "\n\n".join(out)


def _costs(variance: EstimatorVariance) -> list[str]:
    """Cells of the table of costs; the last two are the best number of draws per view and its gain over one."""
    from steindreamer.distill.methods.base import MAX_DRAWS as MAX_VIEW_DRAWS

    cost = variance.cost
    best = cost.best(MAX_VIEW_DRAWS) if math.isfinite(cost.view_seconds) else 1
    return [
        str(variance.draws), f"{variance.calls:g}", f"{variance.seconds:.4f}", f"{variance.view_seconds:.4f}",
        f"{variance.flops / 1e9:.3g}" if variance.flops else "-", str(best), f"{_number(cost.gain(best))}x",
    ]  # fmt: skip


def _ratio(value: float, base: float) -> float:
    return value / base if base > 0 else math.nan


def _number(value: float) -> str:
    return f"{value:.3g}" if math.isfinite(value) else "-"
