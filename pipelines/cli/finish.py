"""The command line of `python pipelines/finish.py` and `steindreamer finish`."""

from __future__ import annotations

import argparse
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
from .several import check_distinct, files_of, run_each, split_words

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
  finish.py out/assets --preset unity --out game/assets
                                          every file of a folder, each in a folder of its own; finished ones are kept
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
    out.add_argument(
        "words",
        nargs="+",
        metavar="FILE|RUN|DIR|key=value",
        help="mesh or splat files, folders of runs, folders with either, and settings, see below",
    )
    out.add_argument("--preset", required=True, metavar="ENGINE", help=", ".join(ENGINES))
    out.add_argument(
        "--out",
        type=Path,
        metavar="DIR",
        help="folder of the files (default: finished/<name>-<engine>); of several files, the folder of their folders",
    )
    out.add_argument(
        "--keep", action="store_true", help="keep triangles, texture coordinates, materials and names of the file"
    )
    out.add_argument("--overwrite", action="store_true", help="replace files of the folder")
    out.add_argument("--quiet", action="store_true", help="print only warnings and errors")
    out.add_argument("--debug", action="store_true", help="show the traceback of an error")
    return out


def main(arguments: Sequence[str] | None = None, prog: str = "finish.py") -> int:
    """Run the command line. Returns the exit status: 0 done, 1 error, 2 usage error, 128 + a signal's number."""
    repair_streams()
    options = parser(prog).parse_intermixed_args(arguments)
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
    files, overrides = split_words(options.words)
    config = read_config([*overrides, *(["keep=true"] if options.keep else [])])
    if not files:
        raise SettingsError("no file is given; give a mesh file or the folder of a run")
    for file in files:
        if not file.exists():
            raise UserError(f"there is no file {file}; give a mesh file or the folder of a run")

    from steindreamer.representations.mesh.file import FORMATS

    several = files_of(files, FORMATS)
    if several == files and len(files) == 1:
        out = options.out or Path("finished") / f"{files[0].resolve().stem}-{options.preset}"
        from ..finishing.finish import finish

        finish(files[0], ENGINES[options.preset], out, config, overwrite=options.overwrite)
        return
    _finish_all(several, options, config)


def _finish_all(files: Sequence[Path], options: argparse.Namespace, config: FinishConfig) -> None:
    """Finish several files, each into a folder of its own. Raises UserError at the end if some failed."""
    from ..finishing.finish import finish
    from ..finishing.report import FILE_NAME

    names = [f"{file.resolve().stem}-{options.preset}" for file in files]
    check_distinct(names, files)
    folders = {file: (options.out or Path("finished")) / name for file, name in zip(files, names, strict=True)}

    def work(file: Path) -> list[str]:
        folder = folders[file]
        if (folder / FILE_NAME).is_file() and not options.overwrite:
            return ["kept", "", "", str(folder)]
        report = finish(file, ENGINES[options.preset], folder, config, overwrite=options.overwrite)
        kind = "over budget" if report.over_budget else "finished"
        return [kind, f"{report.levels[0].triangles:,}", f"{report.file_bytes / 2**10:,.0f} KiB", str(folder)]

    if failed := run_each(files, ["result", "triangles", "size", "folder"], work):
        raise UserError(f"{failed} of {len(files)} files failed, see above; the same command tries them again")


def read_config(overrides: Sequence[str]) -> FinishConfig:
    """The settings from `key=value` texts. Raises SettingsError for the first that is wrong."""
    return read_settings(FinishConfig, merged(as_plain(FinishConfig()), *given_layers(overrides, {})))
