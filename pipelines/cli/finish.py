"""The command line of `python pipelines/finish.py` and `steindreamer finish`."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from pathlib import Path

from ..command import Parser, exit_status
from ..console import PROGRAM
from ..engines import ENGINES
from ..errors import SettingsError, UserError, nearest
from ..finishing.config import FinishConfig
from ..settings.composing import merged
from ..settings.layers import given_layers
from ..settings.validation import as_plain, read_settings
from ..streams import repair_streams

EPILOGUE = """\
settings (key=value):
  triangles=5000   texture_size=2048   lods=[1,0.5,0.25]   hulls=8   height_meters=0.3
  formats=[glb,obj,usdz]   compression=meshopt   images=webp
  docs/finish.md lists all of them.

examples:
  finish.py chair.obj --preset unreal
  finish.py runs/mug --preset godot --out game/assets/mug
  finish.py scan.glb --preset web triangles=20000 texture_size=1024
  finish.py hero.glb --preset unity --keep
"""


def parser(prog: str = "finish.py") -> argparse.ArgumentParser:
    """The argument parser of the command line."""
    out = Parser(
        prog=prog,
        description="Turn a mesh file into a package for an engine: repaired, reduced, unwrapped and baked anew, with "
        "levels of detail, colliders, lightmap coordinates and names.",
        epilog=EPILOGUE.replace("finish.py", prog),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    out.add_argument("file", type=Path, metavar="FILE|RUN", help="a mesh or splat file, or the folder of a run")
    out.add_argument("--preset", required=True, metavar="ENGINE", help=", ".join(ENGINES))
    out.add_argument("--out", type=Path, metavar="DIR", help="folder of the files (default: finished/<name>-<engine>)")
    out.add_argument(
        "--keep", action="store_true", help="keep triangles, texture coordinates, materials and names of the file"
    )
    out.add_argument("--overwrite", action="store_true", help="replace files of the folder")
    out.add_argument("--quiet", action="store_true", help="print only warnings and errors")
    out.add_argument("--debug", action="store_true", help="show the traceback of an error")
    out.add_argument("overrides", nargs="*", metavar="key=value", help="individual settings, see below")
    return out


def main(arguments: Sequence[str] | None = None, prog: str = "finish.py") -> int:
    """Run the command line. Returns the exit status: 0 done, 1 error, 2 usage error, 128 + a signal's number."""
    repair_streams()
    options = parser(prog).parse_intermixed_args(arguments)
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    return exit_status(
        lambda: _run(options),
        debug=options.debug,
        stopped="stopped; nothing was written that is incomplete",
        progress=None if options.quiet else PROGRAM,
    )


def _run(options: argparse.Namespace) -> None:
    if options.preset not in ENGINES:
        raise SettingsError(
            f"--preset is '{options.preset}'{nearest(options.preset, ENGINES)}; engines: {', '.join(ENGINES)}"
        )
    config = read_config([*options.overrides, *(["keep=true"] if options.keep else [])])
    if not options.file.exists():
        raise UserError(f"there is no file {options.file}; give a mesh file or the folder of a run")
    out = options.out or Path("finished") / f"{options.file.resolve().stem}-{options.preset}"

    from ..finishing.finish import finish

    finish(options.file, ENGINES[options.preset], out, config, overwrite=options.overwrite)


def read_config(overrides: Sequence[str]) -> FinishConfig:
    """The settings from `key=value` texts. Raises SettingsError for the first that is wrong."""
    return read_settings(FinishConfig, merged(as_plain(FinishConfig()), *given_layers(overrides, {})))
