"""The command line of `python pipelines/probe.py`."""

from __future__ import annotations

import argparse
import json
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from .terminal import Parser, report_errors, table

if TYPE_CHECKING:
    from ...distill.variance_probe import EstimatorVariance

EPILOGUE = """\
examples:
  probe.py runs/mug
  probe.py runs/mug --method ssd ssd-depth=ssd:method.baseline=[depth] sds:method.antithetic=true
"""


def parser() -> argparse.ArgumentParser:
    """The options of the command line."""
    out = Parser(
        prog="probe.py",
        description="Measure the variance of the gradients of several methods at a run's newest scene.",
        epilog=EPILOGUE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    out.add_argument("run", type=Path, metavar="RUN", help="the run's folder; it is not changed")
    out.add_argument(
        "--method", nargs="+", default=[], metavar="METHOD",
        help="NAME, NAME:section.key=value or LABEL=NAME:... (default: the run's own); SDS is always measured",
    )  # fmt: skip
    out.add_argument("--tuples", type=int, default=120, metavar="N", help="noise level, camera, noise (default: 120)")
    out.add_argument("--seed", type=int, default=0, metavar="N", help="of the tuples (default: 0)")
    out.add_argument(
        "--learn", type=int, default=100, metavar="N",
        help="draws on which methods other than the run's own learn first, at this scene (default: 100)",
    )  # fmt: skip
    out.add_argument("--json", type=Path, metavar="FILE", help="write what was found")
    return out


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status (0 done, 1 error, 2 usage, 130 interrupted)."""
    options = parser().parse_args(arguments)
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    return report_errors(lambda: _run(options))


def _run(options: argparse.Namespace) -> None:
    from ..errors import UserError
    from ..files import write_atomically
    from .contenders import parse_contenders
    from .probing import probe_run
    from .trial import plain_variance

    if options.tuples < 4 or options.tuples % 2:
        raise UserError(f"--tuples is {options.tuples}; even numbers from 4 on are accepted")
    if options.learn < 0:
        raise UserError(f"--learn is {options.learn}; at least 0 is accepted")
    contenders = parse_contenders(options.method)
    probe = probe_run(options.run, contenders, tuples=options.tuples, seed=options.seed, learn=options.learn)
    print(
        f"{options.run}: stage '{probe.stage}' after {probe.step} steps; {options.tuples} tuples, seed {options.seed}"
    )
    print(tables(probe.variances))
    if options.json is not None:
        plain = {
            "run": str(options.run), "stage": probe.stage, "step": probe.step, "tuples": options.tuples,
            "seed": options.seed, "learn": options.learn,
            "methods": {name: plain_variance(variance) for name, variance in probe.variances.items()},
        }  # fmt: skip
        write_atomically(options.json, json.dumps(plain, indent=1, allow_nan=False).encode())


def tables(variances: Mapping[str, EstimatorVariance]) -> str:
    """Moments in the scene's parameters and in the picture, then costs and shares by noise level."""
    from ...distill.variance_probe import REFERENCE

    sds = variances[REFERENCE]
    out = []
    for title, space in (("in the scene's parameters", "parameters"), ("in the picture (or latent)", "picture")):
        header = [
            title, "within noise", "between", "total", "within/SDS", "total/SDS", "noise/signal", "cosine", "bias",
            "within/SDS per call", "total/SDS per call",
        ]  # fmt: skip
        rows, base = [], getattr(sds, space)
        for name, variance in variances.items():
            m = getattr(variance, space)
            within, total = _ratio(m.within, base.within), _ratio(m.total, base.total)
            cost = _ratio(variance.calls, sds.calls)
            values = (m.within, m.between, m.total, within, total, m.noise_to_signal, m.cosine, m.bias)
            rows.append([name, *map(_number, (*values, within * cost, total * cost))])
        out.append(table(header, rows))
    rows = [[name, f"{v.calls:g}", f"{v.seconds:.4f}"] for name, v in variances.items()]
    out.append(table(["cost of a gradient", "calls", "seconds"], rows))
    bins = len(sds.shares)
    levels = [f"{i / bins:.2f}-{(i + 1) / bins:.2f}" for i in range(bins)]
    rows = [[name, *(f"{share:.0%}" for share in v.shares)] for name, v in variances.items()]
    out.append(table(["variance within noise, by noise level", *levels], rows))
    return "\n\n".join(out)


def _ratio(value: float, base: float) -> float:
    return value / base if base > 0 else math.nan


def _number(value: float) -> str:
    return f"{value:.3g}" if math.isfinite(value) else "-"
