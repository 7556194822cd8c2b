"""The command line of `steindreamer audit`."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..command import DONE, ERROR, Parser, exit_status
from ..engines import ENGINES
from ..errors import SettingsError
from ..files import write_atomically
from ..streams import put, repair_streams
from .several import ASSET, files_of, run_each

if TYPE_CHECKING:
    from ..auditing.audit import Audit

EPILOGUE = """\
exit status: 0 no errors (there may be warnings), 1 errors were found, 2 the file cannot be read or an option is wrong

examples:
  steindreamer audit mug.glb
  steindreamer audit mug.glb --preset unity --html audit.html --json audit.json
  steindreamer audit out/assets --preset unity        every file of a folder, as a table
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
    out.add_argument(
        "files",
        type=Path,
        nargs="+",
        metavar="FILE|RUN|DIR",
        help=".glb, .gltf, .obj, .stl or .ply files, folders of runs, or folders with either",
    )
    out.add_argument(
        "--preset",
        default=None,
        metavar="ENGINE",
        choices=list(ENGINES),
        help=f"conventions and budgets of {', '.join(ENGINES)} (default: limits that hold everywhere)",
    )
    out.add_argument("--json", type=Path, metavar="OUT", help="also write all rows as JSON; of several files, a list")
    out.add_argument("--html", type=Path, metavar="OUT", help="also write a page with images of a single asset")
    out.add_argument("--debug", action="store_true", help="show the traceback of an error")
    return out


def main(arguments: Sequence[str], prog: str) -> int:
    """Run the command line. Returns the exit status: 0 no errors, 1 errors found, 2 unreadable file or usage error."""
    repair_streams()
    options = parser(prog).parse_args(arguments)
    passed: list[bool] = []
    status = exit_status(lambda: passed.append(_run(options)), debug=options.debug, stopped="stopped")
    return status or (DONE if passed[0] else ERROR)


def _run(options: argparse.Namespace) -> bool:
    """Audit the files and write the reports; returns whether all passed."""
    from ..auditing.reading.read import FORMATS

    files = [file / ASSET if (file / ASSET).is_file() else file for file in files_of(options.files, tuple(FORMATS))]
    for path in (options.json, options.html):
        if path is not None and path.exists() and any(file.exists() and path.samefile(file) for file in files):
            raise SettingsError(f"the report {path} would replace the audited file; give another name")
    if len(files) > 1:
        return _audit_all(files, options)

    from ..auditing.html_report import write_html_report
    from ..auditing.text_report import text_report

    result = _audited(files[0], options.preset)
    put(text_report(result))
    if options.json is not None:
        _write_json(options.json, result.to_plain())
    if options.html is not None:
        write_html_report(result, options.html)
    return result.passed


def _audit_all(files: Sequence[Path], options: argparse.Namespace) -> bool:
    """Audit several files and print a table; returns whether all passed. Raises SettingsError for unreadable ones."""
    if options.html is not None:
        raise SettingsError(f"--html is for a single file; got {len(files)}")
    results: list[dict[str, Any]] = []

    def work(file: Path) -> list[str]:
        result = _audited(file, options.preset)
        plain = result.to_plain()
        results.append(plain)
        worst = result.findings[0].check if result.findings else ""
        return ["ready" if result.passed else "not ready", str(plain["errors"]), str(plain["warnings"]), worst]

    unreadable = run_each(files, ["result", "errors", "warnings", "first finding"], work)
    if options.json is not None:
        _write_json(options.json, results)
    if unreadable:
        raise SettingsError(f"{unreadable} of {len(files)} files cannot be read, see above")
    return all(result["passed"] for result in results)


def _audited(file: Path, preset: str | None) -> Audit:
    """The audit of a file. Raises SettingsError if it cannot be read."""
    from ..auditing import audit

    try:
        return audit(file, preset)
    except OSError as error:
        raise SettingsError(f"cannot read {file}: {error.strerror}" if error.strerror else error) from error
    except ValueError as error:
        raise SettingsError(error) from error


def _write_json(path: Path, content: Any) -> None:
    write_atomically(path, (json.dumps(content, indent=1, allow_nan=False) + "\n").encode())
