"""What README and docs promise can be run as written, and what they list is all there is."""

from __future__ import annotations

import re
import shlex
from dataclasses import MISSING, fields, is_dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from steindreamer.distill import CONTROL_VARIATES, ControlVariateConfig, SSDConfig
from steindreamer.pipelines.cli.batch import parser as batch_parser
from steindreamer.pipelines.cli.finish import parser as finish_parser
from steindreamer.pipelines.cli.finish import read_config
from steindreamer.pipelines.cli.retexture import parser as retexture_parser
from steindreamer.pipelines.cli.run import parser
from steindreamer.pipelines.cli.several import split_words
from steindreamer.pipelines.config import plugins
from steindreamer.pipelines.config.run_config import CHOICES, load_config
from steindreamer.pipelines.engines import ENGINES
from steindreamer.pipelines.finishing.config import FinishConfig
from steindreamer.pipelines.optimization.component_checks import blank_scene
from steindreamer.pipelines.optimization.estimated_geometry import ESTIMATED
from steindreamer.pipelines.optimization.optimizers import OptimizerConfig
from steindreamer.pipelines.optimization.regularizers import REGULARIZERS
from steindreamer.pipelines.optimization.shading import ShadingConfig
from steindreamer.pipelines.optimization.stage_config import StageConfig
from steindreamer.pipelines.optimization.views import ViewsConfig
from steindreamer.pipelines.runs.pipeline import Pipeline
from steindreamer.pipelines.settings.validation import as_plain
from steindreamer.representations import REPRESENTATIONS, Representation, RetextureConfig
from steindreamer.representations.mesh.canvas import FORMATS
from steindreamer.world import COLORS, KINDS

ROOT = Path(__file__).parents[1]
DOCUMENTS = {
    path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8")
    for path in (*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").glob("*.md")), ROOT / "examples" / "README.md")
}
MESH = "stages.geometry.representation"
README, STAGES = DOCUMENTS["README.md"], DOCUMENTS["docs/stages.md"]


def matches(pattern: str) -> list[tuple[str, str]]:
    """(document, what was found), each once."""
    return sorted({(name, found) for name, text in DOCUMENTS.items() for found in re.findall(pattern, text, re.M)})


def table(title: str) -> dict[str, list[str]]:
    """Of docs/stages.md: the cells behind the first one of every row of the first table after the heading."""
    section = STAGES.split(f"# {title}\n", 1)[1]
    (rows, *_) = re.findall(r"^\|---.*\n((?:\|.*\n)+)", section, re.M)
    lines = [[cell.strip() for cell in line.strip("|").split("|")] for line in rows.splitlines()]
    return {first.strip("`"): rest for first, *rest in lines}


def test_two_commands_of_one_line_come_first() -> None:
    blocks = re.findall(r"```bash\n(.*?)\n```", README, re.S)
    assert len(blocks) == 2 and not any("\n" in block for block in blocks)
    assert blocks[0].endswith("python pipelines/run.py --repr gaussians --method ssd")
    assert blocks[1].endswith("pytest")


@pytest.mark.parametrize(("document", "link"), matches(r"\]\(([^)#:]+)\)"))
def test_links_lead_somewhere(document: str, link: str) -> None:
    assert (ROOT / document).parent.joinpath(link).exists()


@pytest.mark.parametrize("line", sorted({line for _, line in matches(r"^python pipelines/run\.py (.*)$")}))
def test_commands_parse(line: str, monkeypatch: pytest.MonkeyPatch) -> None:
    options = parser().parse_intermixed_args(shlex.split(line, comments=True))
    if "examples/02_your_representation.py" in map(str, options.plugin):
        monkeypatch.setattr(plugins, "LOADED", {})
        plugins.load_plugins([ROOT / "examples" / "02_your_representation.py"])
    chosen = {name: getattr(options, name) for name in CHOICES}
    config = load_config(
        options.preset or "cpu",
        **chosen,
        prompt=options.prompt,
        refine=False if options.no_refine else None,
        overrides=options.overrides,
    )
    assert config.active_stages()


@pytest.mark.parametrize("representation", [None, "gaussians", "nerf", "dmtet"])
def test_the_preset_of_the_docs_can_begin(representation: str | None, tmp_path: Path) -> None:
    (text,) = re.findall(r"```yaml\n(.*?)```", STAGES, re.S)
    path = tmp_path / "carved.yaml"
    path.write_text(text, encoding="utf-8")
    stages = ["coarse", "geometry", "colors", "paint"]
    small = [f"stages.{stage}.{key}=32" for stage in stages for key in ("resolution", "warmup_resolution")]
    overrides = ["prior.objects=1", f"{MESH}.resolution=24", *small]
    config = load_config(path, representation=representation, overrides=overrides)
    assert list(config.active_stages()) == stages
    stage = Pipeline(config).first()  # sets up every stage
    assert ("orientation" in stage.config.regularizers) == (config.names["representation"] == "nerf")
    assert ("opacity" in stage.config.regularizers) == (representation == "gaussians")


@pytest.mark.parametrize(
    ("title", "config"),
    [
        ("The settings of a stage", StageConfig),
        ("`views`", ViewsConfig),
        ("`shading`", ShadingConfig),
        ("`optimizer`", OptimizerConfig),
    ],
)
def test_the_docs_list_every_setting_with_its_default(title: str, config: type) -> None:
    def default(name: str) -> Any:
        value = next(field for field in fields(config) if field.name == name)
        return value.default_factory() if value.default_factory is not MISSING else value.default

    listed = {name: yaml.safe_load(cells[0].strip("`")) for name, cells in table(title).items()}
    assert list(listed) == [field.name for field in fields(config)]
    for name, value in listed.items():
        assert value == "below" if is_dataclass(default(name)) else value == default(name), name


def test_the_docs_list_every_regularizer() -> None:
    def own(scene: Representation) -> set[str]:
        return {*scene.render_terms, *scene.regularizers()}

    expected = {"every image": {*REGULARIZERS, *ESTIMATED}}
    device = torch.device("cpu")
    expected |= {name: own(blank_scene(config(), device, name)) for name, config in REPRESENTATIONS.items()}
    listed: dict[str, set[str]] = {}
    for name, (where, _) in table("Regularizers and schedules").items():
        for representation in where.split(", "):
            listed.setdefault(representation, set()).add(name)
    assert listed == expected


def test_the_baseline_of_the_readme_works() -> None:
    (code,) = [
        block for block in re.findall(r"```python\n(.*?)```", README, re.S) if "register_control_variate" in block
    ]
    exec(code, {})
    assert "brightness" in CONTROL_VARIATES
    load_config("cpu", overrides=["method.control_variates.terms=[spectral,brightness]"])
    SSDConfig(control_variates=ControlVariateConfig(["spectral", "brightness"]))


def test_counts() -> None:
    assert f"{len(KINDS)} kinds" in README
    assert len(COLORS) == 11 and "eleven colors" in README


@pytest.mark.parametrize(("name", "config"), [("finish", FinishConfig), ("retexture", RetextureConfig)])
def test_the_docs_list_every_setting_of_a_command(name: str, config: type) -> None:
    text = DOCUMENTS[f"docs/{name}.md"]
    (rows,) = re.findall(r"^\| setting \|.*\n\|---.*\n((?:\|.*\n)+)", text, re.M)
    listed = {cells[1].strip(" `"): cells[2].strip(" `") for line in rows.splitlines() if (cells := line.split("|"))}
    settings = as_plain(config())
    assert list(listed) == list(settings)
    assert {name: yaml.safe_load(value) for name, value in listed.items()} == settings


@pytest.mark.parametrize("line", sorted({line for _, line in matches(r"^steindreamer finish (.*)$")}))
def test_commands_of_finishing_parse(line: str) -> None:
    options = finish_parser().parse_intermixed_args(shlex.split(line, comments=True))
    assert options.preset in ENGINES
    read_config(split_words(options.words)[1])


@pytest.mark.parametrize("line", sorted({line for _, line in matches(r"^steindreamer batch (.*)$")}))
def test_commands_of_batches_parse(line: str) -> None:
    options = batch_parser().parse_intermixed_args(shlex.split(line, comments=True))
    assert options.prompts.suffix in (".txt", ".csv", ".jsonl")
    assert load_config(options.preset or "cpu", overrides=options.overrides).active_stages()


@pytest.mark.parametrize("line", sorted({line for _, line in matches(r"^steindreamer retexture (.*)$")}))
def test_commands_of_retexturing_parse(line: str) -> None:
    options = retexture_parser().parse_intermixed_args(shlex.split(line, comments=True))
    assert options.resume or (options.prompt and Path(options.file).suffix in FORMATS)
