"""The notebooks of the manual run as they stand."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

NOTEBOOKS = Path(__file__).parents[1] / "docs" / "notebooks"
PROGRAM = """
import ast, json, sys
names = {}
for cell in json.loads(open(sys.argv[1], encoding="utf-8").read()):
    tree = ast.parse(cell)
    # A notebook shows the value of the last expression.
    shown = ast.Expression(tree.body.pop().value) if isinstance(tree.body[-1], ast.Expr) else None
    exec(compile(tree, "cell", "exec"), names)
    if shown is not None:
        value = eval(compile(shown, "cell", "eval"), names)
        html = getattr(value, "_repr_html_", None)
        print(repr(value), "html:", len(html()) if html else 0)
"""


def run(name: str, folder: Path) -> str:
    """Run the code cells of a notebook in a process of its own; returns what they print and show."""
    cells = json.loads((NOTEBOOKS / name).read_text(encoding="utf-8"))["cells"]
    code = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    assert code and all(not cell.get("outputs") for cell in cells)
    (folder / "cells.json").write_text(json.dumps(code), encoding="utf-8")
    (folder / "program.py").write_text(PROGRAM, encoding="utf-8")
    command = [sys.executable, str(folder / "program.py"), str(folder / "cells.json")]
    environment = {**os.environ, "MPLBACKEND": "Agg"}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_every_notebook_is_tested() -> None:
    assert sorted(path.name for path in NOTEBOOKS.iterdir()) == ["control_variate.ipynb", "first_asset.ipynb"]


@pytest.mark.slow
def test_a_first_asset(tmp_path: Path) -> None:
    printed = run("first_asset.ipynb", tmp_path)
    assert "asset.glb" in printed and "levels of detail: [" in printed
    shown = next(line for line in printed.splitlines() if line.startswith("Result(") and "html: " in line)
    assert int(shown.rpartition(" ")[2]) > 1000


def test_a_control_variate_in_two_dimensions(tmp_path: Path) -> None:
    """The fitted coefficient has the smallest variance, and only the printed form of Stein's term has a mean."""
    rows = {
        line.split("  ")[0].split(" (")[0].strip(): line for line in run("control_variate.ipynb", tmp_path).splitlines()
    }
    variance = {name: float(rows[name].rpartition(" ")[2]) for name in ("eps_hat", "SDS", "fitted")}
    assert variance["fitted"] < 0.5 * min(variance["eps_hat"], variance["SDS"])

    def errors(name: str) -> list[float]:
        return json.loads(rows[name].partition("in standard errors ")[2])

    assert max(map(abs, errors("corrected"))) < 4 and max(map(abs, errors("paper"))) > 20
