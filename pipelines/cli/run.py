"""The command line of `python pipelines/run.py` and `steindreamer run`."""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from steindreamer.passive_waiting import spin_if_alone

from ..command import PLUGIN_HELP, Parser, exit_status, whole_number
from ..config.plugins import check_plugin_files, load_plugins, refuse_missing_plugins
from ..config.precheck import check_named_files, check_words, refused_early
from ..console import PROGRAM
from ..runs.folder import check_folder, choose_folder
from ..runs.launching import joined, launched_rank
from ..runs.resuming import readable_settings, resumed_config
from ..settings.composing import compose_as, to_plain
from ..settings.layers import DEFAULT_PRESET, given_layers, preset_layers
from ..settings.schema import Schema
from ..settings.yaml_text import write_yaml
from ..streams import complain, put, repair_streams
from .listing import print_choices
from .view import DEFAULT_PORT, PORT_HELP, check_view, open_view

logger = logging.getLogger(__name__)

EPILOGUE = """\
settings:
  Every setting of config.yaml can be given as section.key=value, for example
    stages.coarse.steps=400   method.guidance_scale=7.5  export.face_budget=5000
    stages.texture.steps=0    method.control_variates.terms=[depth,normal]
    representation.count=8000 prior.objects=4            export.height_meters=0.3
  --list shows the available names, --settings all settings with their values.

examples:
  run.py --repr gaussians --method ssd
  run.py --prompt "a red mug" --out runs/mug
  run.py --prompt "a wooden chair" --method sds --seed 3 --no-refine
  run.py --resume --out runs/mug          after Ctrl-C, a crash or a power cut
  run.py --resume --overwrite --out runs/mug export.face_budget=5000
                                          the same scene, exported with other settings

A run's folder holds asset/asset.glb, turntable.webp, report.html, previews/,
metrics.jsonl, summary.json, checkpoints/ and config.yaml. Existing files
are not replaced without --overwrite.
"""


def parser(prog: str = "run.py") -> argparse.ArgumentParser:
    """The argument parser of the command line."""
    out = Parser(
        prog=prog,
        description="Text-to-3D: a game-ready textured mesh from a prompt, by score distillation.",
        epilog=EPILOGUE.replace("run.py", prog),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    out.add_argument("--prompt", help='what to make (default: "a yellow rubber duck")')
    out.add_argument("--repr", dest="representation", metavar="NAME", help="3D representation (default: gaussians)")
    out.add_argument("--no-refine", action="store_true", help="stop after the coarse stage and export its scene")
    out.add_argument("--list", action="store_true", help="list representations, methods, priors and presets")
    add_options(out)
    out.add_argument("overrides", nargs="*", metavar="section.key=value", help="individual settings, see below")
    return out


def add_options(out: argparse.ArgumentParser) -> None:
    """Add the options that all commands which start a run have."""
    out.add_argument("--method", metavar="NAME", help="distillation method (default: ssd)")
    out.add_argument(
        "--prior", metavar="NAME|MODEL", help="2D prior, or the folder or hub id of a model (default: tiny)"
    )
    out.add_argument("--preset", default=None, metavar="NAME|FILE", help="settings to start from (default: cpu)")
    out.add_argument("--out", type=Path, metavar="DIR", help="the run's folder (default: runs/<words of the prompt>)")
    out.add_argument("--seed", help="random seed; the same seed on the same machine gives the same result (default: 0)")
    out.add_argument("--resume", action="store_true", help="continue an interrupted run from its last checkpoint")
    out.add_argument(
        "--overwrite", action="store_true", help="replace the earlier run in the folder; with --resume, only its asset"
    )
    out.add_argument("--plugin", type=Path, action="append", default=[], metavar="FILE.py", help=PLUGIN_HELP)
    out.add_argument("--view", action="store_true", help="show and control the run in the browser (docs/watch.md)")
    out.add_argument("--port", type=whole_number, default=DEFAULT_PORT, metavar="N", help=PORT_HELP)
    out.add_argument("--quiet", action="store_true", help="print only errors")
    out.add_argument("--verbose", action="store_true", help="print loss, residuals and gradient variance too")
    out.add_argument("--settings", action="store_true", help="print all settings with their final values, and exit")
    out.add_argument("--debug", action="store_true", help="show the traceback of an error")
    out.set_defaults(no_refine=False, list=False, representation=None, base=(), named={})


def main(arguments: Sequence[str] | None = None, prog: str = "run.py") -> int:
    """Run the command line. Returns the exit status: 0 done, 1 error, 2 usage error, 128 + a signal's number."""
    repair_streams()
    return started(parser(prog).parse_intermixed_args(arguments))


def started(options: argparse.Namespace) -> int:
    """Start or resume a run. Returns the exit status.

    Args:
        options: those of `add_options`, and `base`: layers of settings over the preset, for a new run only; `named`:
            further top-level settings.
    """
    spin_if_alone()
    return exit_status(
        lambda: _dispatch(options),
        debug=options.debug,
        stopped="stopped; continue from the last checkpoint with --resume",
        progress=None if options.quiet else PROGRAM,
        verbose=options.verbose,
    )


def _dispatch(options: argparse.Namespace) -> None:
    check_plugin_files(options.plugin)
    rank, count = launched_rank()
    if rank:
        if not (options.list or options.settings):
            _follow(options, rank, count)
        return
    if options.list:
        print_choices(options.plugin)
        return
    if options.view:
        check_view(options.port)
    with refused_early(options.plugin) as known:
        _check_early(options, known)
    plugins = load_plugins(options.plugin)

    from steindreamer.distill.ranks import Ranks

    from ..config.run_config import SCHEMA
    from ..runs.runner import generate

    config, folder = _asked_for(options, SCHEMA, plugins, complain)
    if options.settings:
        put(_as_yaml(config), end="")
        return
    with ExitStack() as held:
        held.enter_context(joined(rank, count))
        ranks = Ranks(rank, count)
        ranks.from_leader(to_plain(config))
        watch = None
        if options.view:
            watch = held.enter_context(open_view(config.prompt, options.port, folder))
        generate(config, folder, resume=options.resume, overwrite=options.overwrite, watch=watch, ranks=ranks)


def _follow(options: argparse.Namespace, rank: int, count: int) -> None:
    """Take part in the run of the leader, whose settings it sends."""
    load_plugins(options.plugin)

    from steindreamer.distill.ranks import Ranks

    from ..config.run_config import SCHEMA
    from ..runs.following import follow

    with joined(rank, count):
        ranks = Ranks(rank, count)
        follow(compose_as(SCHEMA, [ranks.from_leader(None)]), ranks)


def _asked_for(
    options: argparse.Namespace, schema: Schema, plugins: Sequence[str], tell: Callable[[str], None]
) -> tuple[Any, Path]:
    """The settings (a `schema.run`) and the run's folder; notes for the user are passed to `tell`. Raises UserError."""
    refine = False if options.no_refine else None
    texts = {"prompt": options.prompt, "seed": options.seed, "refine": refine, "plugins": list(plugins) or None}
    given = given_layers(options.overrides, texts | options.named)
    chosen = {name: getattr(options, name) for name in schema.choices if getattr(options, name) is not None}
    if options.resume:
        prompt = options.prompt
        if prompt is None:
            prompt = compose_as(schema, preset_layers(options.preset or DEFAULT_PRESET)).prompt
        folder = choose_folder(prompt, options.out, existing=True)
        layers = [*(preset_layers(options.preset) if options.preset else []), *given]
        refuse_missing_plugins([*readable_settings(folder), *layers], options.plugin)
        config = resumed_config(folder, layers, chosen, schema, tell)
    else:
        layers = [*preset_layers(options.preset or DEFAULT_PRESET), *options.base, *given]
        refuse_missing_plugins(layers, options.plugin)
        config = compose_as(schema, layers, chosen)
        folder = choose_folder(config.prompt, options.out, existing=options.overwrite)
    refuse_missing_plugins([{"plugins": config.plugins}], options.plugin)
    return config, folder


def _check_early(options: argparse.Namespace, schema: Schema) -> None:
    """Raises UserError for errors that are found without importing torch."""
    config, folder = _asked_for(options, schema, [str(path) for path in options.plugin], lambda line: None)
    if not options.settings:
        if not options.resume:  # a checkpoint contains what was read from the file
            check_folder(folder, overwrite=options.overwrite)
            check_named_files(config)
        check_words(config.names["prior"], config.prior, config.prompt, config.negative_prompt)
        logger.info(f"'{config.prompt}': loading")


def _as_yaml(config: Any) -> str:
    """The configuration as YAML; characters that standard output cannot encode are escaped."""
    letters = (getattr(sys.stdout, "encoding", None) or "utf-8").lower().replace("-", "") == "utf8"
    return write_yaml(to_plain(config), letters=letters)
