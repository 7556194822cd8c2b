"""The list of all choices by name, with a summary and the settings of each."""

from __future__ import annotations

import dataclasses
import shutil
import textwrap
from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase
from pathlib import Path

from ..command import PLUGIN_HELP, Parser, exit_status
from ..config.outline import outline, summary_of
from ..config.plugins import check_plugin_files, installed_plugins, load_plugins
from ..settings.layers import presets
from ..streams import put, repair_streams


def main(arguments: Sequence[str], prog: str) -> int:
    """Run the command line of `steindreamer list`. Returns the exit status."""
    repair_streams()
    parser = Parser(prog=prog, description="List representations, methods, priors and presets.", allow_abbrev=False)
    parser.add_argument(
        "pattern", nargs="?", default="*", metavar="PATTERN", help="list only names that match, such as 's*'"
    )
    parser.add_argument("--plugin", type=Path, action="append", default=[], metavar="FILE.py", help=PLUGIN_HELP)
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    options = parser.parse_args(arguments)
    return exit_status(lambda: print_choices(options.plugin, options.pattern), debug=options.debug, stopped="stopped")


def print_choices(plugins: Sequence[Path], pattern: str = "*") -> None:
    """Print the representations, methods, priors and presets whose names match the pattern; plugins are run first."""
    check_plugin_files(plugins)
    choices, summaries = outline().schema.choices, outline().summaries
    if plugins or installed_plugins():
        load_plugins(plugins)

        from ..config.run_config import CHOICES

        choices = CHOICES
    for section, known in choices.items():
        put(f"{section}:")
        for name in _matching(known, pattern):
            config = known[name]
            settings = ", ".join(field.name for field in dataclasses.fields(config))
            _print_entry(name, summaries[section].get(name) or summary_of(config), f"settings: {settings}")
    put("preset:")
    shipped = presets()
    for name in _matching(shipped, pattern):
        _print_entry(name, shipped[name].read_text(encoding="utf-8").splitlines()[0].lstrip("# "))


def _matching(names: Iterable[str], pattern: str) -> list[str]:
    return [name for name in names if fnmatchcase(name, pattern)]


def _print_entry(name: str, *paragraphs: str) -> None:
    width = max(40, min(shutil.get_terminal_size().columns, 120))
    put(f"  {name}")
    for text in paragraphs:
        put(textwrap.fill(text, width, initial_indent=" " * 6, subsequent_indent=" " * 8))
