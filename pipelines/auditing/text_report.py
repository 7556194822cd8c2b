"""Audit as a table for the terminal."""

from __future__ import annotations

import shutil
import textwrap

from ..plain_text import on_one_line
from .audit import Audit
from .finding import Finding

MARKS = {"ok": "ok", "info": "-", "warning": "warning", "error": "ERROR"}
"""First column, by severity."""
INDENT = 35
"""Column of the values."""


def text_report(audit: Audit) -> str:
    """All rows by subject with the remedies of findings, and the summary at the end."""
    width = max(60, min(shutil.get_terminal_size().columns, 120))
    lines: list[str] = []
    for section, rows in audit.sections.items():
        if rows:
            lines += ["", section, *(line for row in rows for line in _lines(row, width))]
    return "\n".join([*lines[1:], "", on_one_line(f"{audit.subject.file.path}: {audit.summary}")])


def _lines(row: Finding, width: int) -> list[str]:
    detail = f"{row.text} ({row.limit})" if row.limit else f"{row.text}: {row.remedy}" if row.remedy else row.text
    head = f"  {MARKS[row.severity]:<8}{row.check}"
    first, *rest = textwrap.wrap(on_one_line(detail), width - INDENT) or [""]
    lines = [f"{head:<{INDENT}}{first}", *rest]
    if row.severity in ("warning", "error"):
        lines += textwrap.wrap(on_one_line(f"{row.where}: {row.remedy}" if row.where else row.remedy), width - INDENT)
    return [lines[0], *(" " * INDENT + line for line in lines[1:])]
