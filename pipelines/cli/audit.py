"""The command line of `steindreamer audit`."""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Sequence
from pathlib import Path

from ..command import DONE, ERROR, Parser, exit_status
from ..engines import ENGINES
from ..errors import SettingsError
from ..streams import put, repair_streams

EPILOGUE = """\
exit status: 0 no errors (there may be warnings), 1 errors were found, 2 the file cannot be read or an option is wrong

examples:
  steindreamer audit mug.glb
  steindreamer audit mug.glb --preset unity --html audit.html --json audit.json
"""


def parser(prog: str = "steindreamer audit") -> argparse.ArgumentParser:
    """The argument parser of the command line."""
    out = Parser(
        prog=prog,
        description="Check whether a 3D asset file is ready for an engine.",
        epilog=EPILOGUE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    out.add_argument("file", type=Path, metavar="FILE", help="a .glb, .gltf, .obj, .stl or .ply file")
    out.add_argument(
        "--preset",
        default=None,
        metavar="ENGINE",
        choices=list(ENGINES),
        help=f"conventions and budgets of {', '.join(ENGINES)} (default: limits that hold everywhere)",
    )
    out.add_argument("--json", type=Path, metavar="OUT", help="also write all rows as JSON")
    out.add_argument("--html", type=Path, metavar="OUT", help="also write a page with images of the asset")
    out.add_argument("--debug", action="store_true", help="show the traceback of an error")
    return out


def main(arguments: Sequence[str], prog: str) -> int:
    """Run the command line. Returns the exit status: 0 no errors, 1 errors found, 2 unreadable file or usage error."""
    repair_streams()
    options = parser(prog).parse_args(arguments)
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    passed: list[bool] = []
    status = exit_status(lambda: passed.append(_run(options)), debug=options.debug, stopped="stopped")
    return status or (DONE if passed[0] else ERROR)


def _run(options: argparse.Namespace) -> bool:
    """Audit the file and write the reports; returns whether it passed."""
    for path in (options.json, options.html):
        if path is not None and path.exists() and path.samefile(options.file):
            raise SettingsError(f"the report {path} would replace the audited file; give another name")

    from ..auditing import audit
    from ..auditing.html_report import write_html_report
    from ..auditing.text_report import text_report
    from ..files import write_atomically

    try:
        result = audit(options.file, options.preset)
    except OSError as error:
        raise SettingsError(f"cannot read {options.file}: {error.strerror}" if error.strerror else error) from error
    except ValueError as error:
        raise SettingsError(error) from error
    put(text_report(result))
    if options.json is not None:
        write_atomically(options.json, (json.dumps(result.to_plain(), indent=1, allow_nan=False) + "\n").encode())
    if options.html is not None:
        write_html_report(result, options.html)
    return result.passed
