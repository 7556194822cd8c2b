"""The command line of `python pipelines/run.py` and `steindreamer`."""

from __future__ import annotations

import argparse
import dataclasses
import os
import shutil
import sys
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from .errors import Interrupted, UserError

EPILOGUE = """\
settings:
  Every setting of config.yaml can be given as section.key=value, for example
    stages.coarse.steps=400   method.guidance_scale=7.5  export.face_budget=5000
    stages.texture.steps=0    method.baseline=[depth,normal]
    representation.count=8000 prior.objects=4            export.height_metres=0.3
  --list shows what can be chosen, --settings all settings with their values.

examples:
  run.py --repr gaussians --method ssd
  run.py --prompt "a red mug" --out runs/mug
  run.py --prompt "a wooden chair" --method sds --seed 3 --no-refine
  run.py --resume --out runs/mug          after Ctrl-C, a crash or a power cut
  run.py --resume --out runs/mug export.face_budget=5000
                                          the same scene as another asset

A run's folder holds asset/asset.glb, turntable.webp, report.html, previews/,
metrics.jsonl, summary.json, checkpoints/ and config.yaml. Nothing that exists
is replaced without --overwrite.
"""


class _Parser(argparse.ArgumentParser):
    """Reports a wrong call in one line."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"error: {message}; see --help\n")


def parser() -> argparse.ArgumentParser:
    """The options of the command line."""
    out = _Parser(
        prog="run.py",
        description="Text to a game-ready textured mesh by score distillation.",
        epilog=EPILOGUE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    out.add_argument("--prompt", help='what to make (default: "a yellow rubber duck")')
    out.add_argument("--repr", dest="representation", metavar="NAME", help="3D representation (default: gaussians)")
    out.add_argument("--method", metavar="NAME", help="distillation method (default: ssd)")
    out.add_argument("--prior", metavar="NAME|MODEL", help="2D prior, or a model: folder or hub id (default: tiny)")
    out.add_argument("--preset", default=None, metavar="NAME|FILE", help="settings to start from (default: cpu)")
    out.add_argument("--no-refine", action="store_true", help="stop after the coarse stage and export that")
    out.add_argument("--out", type=Path, metavar="DIR", help="the run's folder (default: runs/<words of the prompt>)")
    out.add_argument("--seed", type=int, help="same seed, same machine: the same result (default: 0)")
    earlier = out.add_mutually_exclusive_group()
    earlier.add_argument("--resume", action="store_true", help="continue an interrupted run exactly where it was saved")
    earlier.add_argument("--overwrite", action="store_true", help="replace the earlier run in the folder")
    out.add_argument("--quiet", action="store_true", help="print only errors")
    out.add_argument("--list", action="store_true", help="list representations, methods, priors and presets")
    out.add_argument("--settings", action="store_true", help="print all settings as they would be used, and stop")
    out.add_argument("--debug", action="store_true", help="show the traceback of an error")
    out.add_argument("overrides", nargs="*", metavar="section.key=value", help="single settings, see below")
    return out


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status (0 done, 1 error, 2 usage, 130 interrupted)."""
    options = parser().parse_intermixed_args(arguments)
    # Spinning OpenMP barriers are ruinous on a busy machine; must be set before torch is imported.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    try:
        return _dispatch(options)
    except UserError as error:
        if options.debug:
            raise
        print(f"error: {error}", file=sys.stderr)
        return 1
    except Interrupted as stop:
        print(stop, file=sys.stderr)
        return 130
    except KeyboardInterrupt:
        print("stopped; continue from the last checkpoint with --resume", file=sys.stderr)
        return 130


def _dispatch(options: argparse.Namespace) -> int:
    from .config import CHOICES, DEFAULT_PRESET, compose, given_layers, load_config, preset_layers
    from .run_folder import choose_folder, resumed_config
    from .runner import generate
    from .yaml_text import write_yaml

    if options.list:
        _print_choices()
        return 0
    refine = False if options.no_refine else None
    given = given_layers(options.overrides, {"prompt": options.prompt, "seed": options.seed, "refine": refine})
    chosen = {name: getattr(options, name) for name in CHOICES if getattr(options, name) is not None}
    if options.resume:
        prompt = options.prompt if options.prompt is not None else load_config(options.preset or DEFAULT_PRESET).prompt
        folder = choose_folder(prompt, options.out, existing=True)
        layers = [*(preset_layers(options.preset) if options.preset else []), *given]
        config = resumed_config(folder, layers, chosen)
    else:
        config = compose([*preset_layers(options.preset or DEFAULT_PRESET), *given], chosen)
        folder = choose_folder(config.prompt, options.out, existing=options.overwrite)
    if options.settings:
        print(write_yaml(config.to_plain()), end="")
        return 0
    generate(config, folder, resume=options.resume, overwrite=options.overwrite, quiet=options.quiet)
    return 0


def _print_choices() -> None:
    from .config import CHOICES, presets

    for section, choices in CHOICES.items():
        print(f"{section}:")
        for name, config in choices.items():
            settings = ", ".join(field.name for field in dataclasses.fields(config))
            _print_entry(name, _first_paragraph(config), f"settings: {settings}")
    print("preset:")
    for name, path in presets().items():
        _print_entry(name, path.read_text(encoding="utf-8").splitlines()[0].lstrip("# "))


def _print_entry(name: str, *paragraphs: str) -> None:
    width = max(40, min(shutil.get_terminal_size().columns, 120))
    print(f"  {name}")
    for text in paragraphs:
        print(textwrap.fill(text, width, initial_indent=" " * 6, subsequent_indent=" " * 8))


def _first_paragraph(config: type) -> str:
    return " ".join((config.__doc__ or "").split("\n\n")[0].split())
