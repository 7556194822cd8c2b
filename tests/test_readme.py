"""What the README promises can be run as written."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from steindreamer.distill import BASELINES, SSDConfig
from steindreamer.pipelines.cli import parser
from steindreamer.pipelines.config import CHOICES, load_config
from steindreamer.training.world import COLOURS, KINDS

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_two_commands_of_one_line_come_first() -> None:
    blocks = re.findall(r"```bash\n(.*?)\n```", README, re.S)
    assert len(blocks) == 2 and not any("\n" in block for block in blocks)
    assert blocks[0].endswith("python pipelines/run.py --repr gaussians --method ssd")
    assert blocks[1].endswith("pytest")


@pytest.mark.parametrize("link", sorted(set(re.findall(r"\]\(([^)#:]+)\)", README))))
def test_links_lead_somewhere(link: str) -> None:
    assert (ROOT / link).exists()


@pytest.mark.parametrize("line", re.findall(r"^python pipelines/run\.py (.*)$", README, re.M))
def test_commands_parse(line: str) -> None:
    words = [a or b for a, b in re.findall(r'"([^"]*)"|(\S+)', line.partition("#")[0])]
    options = parser().parse_intermixed_args(words)
    chosen = {name: getattr(options, name) for name in CHOICES}
    load_config(options.preset or "cpu", **chosen, prompt=options.prompt, overrides=options.overrides)


def test_the_baseline_of_the_readme_works() -> None:
    (code,) = [block for block in re.findall(r"```python\n(.*?)```", README, re.S) if "register_baseline" in block]
    try:
        exec(code, {})
        assert "brightness" in BASELINES
        load_config("cpu", overrides=["method.baseline=[spectral,brightness]"])
        SSDConfig(baseline=["spectral", "brightness"])
    finally:
        BASELINES.pop("brightness", None)


def test_counts() -> None:
    assert f"{len(KINDS)} kinds" in README
    assert len(COLOURS) == 11 and "eleven colours" in README
