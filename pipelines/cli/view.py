"""The command line of `steindreamer view`, and the live view of `steindreamer run --view`."""

from __future__ import annotations

import argparse
import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ..command import PLUGIN_HELP, Parser, exit_status, whole_number
from ..config.plugins import check_plugin_files, load_plugins, refuse_missing_plugins
from ..errors import UserError
from ..streams import repair_streams

if TYPE_CHECKING:
    from ..live.view import LiveView

DEFAULT_PORT = 8080
PORT_HELP = f"port of the view on 127.0.0.1 (default: {DEFAULT_PORT}); if it is taken, the next free one is used"


def parser(prog: str = "steindreamer view") -> argparse.ArgumentParser:
    """The argument parser of the command line."""
    out = Parser(
        prog=prog,
        description="Show a scene in the browser: the stages and the asset of a run, which may still go on, a splat "
        "file (.ply, .glb) or a mesh file. Ctrl-C ends it.",
        allow_abbrev=False,
    )
    out.add_argument("scene", type=Path, metavar="RUN|FILE", help="the run's folder, or a file; it is not changed")
    out.add_argument("--port", type=whole_number, default=DEFAULT_PORT, metavar="N", help=PORT_HELP)
    out.add_argument("--plugin", type=Path, action="append", default=[], metavar="FILE.py", help=PLUGIN_HELP)
    out.add_argument("--debug", action="store_true", help="show the traceback of an error")
    return out


def main(arguments: Sequence[str] | None = None, prog: str = "steindreamer view") -> int:
    """Run the command line. Returns the exit status: 1 error, 2 usage error, 128 + a signal's number when it ends."""
    repair_streams()
    options = parser(prog).parse_args(arguments)
    return exit_status(lambda: _run(options), debug=options.debug, stopped="stopped; nothing was changed")


def _run(options: argparse.Namespace) -> None:
    check_view(options.port)
    check_plugin_files(options.plugin)
    load_plugins(options.plugin)

    from ..runs.resuming import readable_settings

    path = options.scene
    if path.is_dir():
        refuse_missing_plugins(readable_settings(path), options.plugin)

        from ..live.follower import Follower
        from ..live.run_folder import RunFolder

        with Follower(RunFolder(path), port=options.port) as follower:
            follower.follow()
        return

    from ..live.scenes import scene_of
    from ..live.view import Page

    scene, text = scene_of(path)
    with Page(path.name, port=options.port) as page:
        page.show([scene], text)


def check_view(port: int) -> None:
    """Raises UserError if viser is not installed, or for a port out of range."""
    if not 1 <= port <= 65535:
        raise UserError(f"--port is {port}; give a number from 1 to 65535")
    if importlib.util.find_spec("viser") is None:
        raise UserError("the view needs the package viser; to install it: pip install 'steindreamer[view]'")


def open_view(title: str, port: int, folder: Path) -> LiveView:
    """Start the live view of a run; the arguments are those of `LiveView`."""
    from ..live.view import LiveView

    return LiveView(title, port=port, folder=folder)
