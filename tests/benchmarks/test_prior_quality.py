"""The benchmark of learned priors: what it groups, chooses and draws, and that the whole of it runs on a tiny prior."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

pytest.importorskip("diffusers")
pytest.importorskip("transformers")

from steindreamer.representations import TriangleMesh
from steindreamer.training.prior.model import PriorShape, TinyPrior, save_tiny_prior
from steindreamer.training.prior.wording import build_tokenizer, vocabulary
from steindreamer.training.scorer.evaluate import RealViews, real_views
from steindreamer.world import Caption, caption_of, sample_object
from steindreamer.world.scorer import Accuracy, ScorerConfig, WorldScorer, save_scorer

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
KINDS = ("apple", "mug")
RED, GREEN, BLUE = (caption_of("mug", color) for color in ("red", "green", "blue"))


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Nothing here is large enough for two."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    monkeypatch.syspath_prepend(BENCHMARKS)
    for name in ("glb", "prior_quality"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    yield importlib.import_module("prior_quality")
    for name in ("glb", "prior_quality"):
        sys.modules.pop(name, None)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An untrained prior of two kinds that never saw a green mug, and an untrained scorer beside it."""
    out, tokenizer = tmp_path_factory.mktemp("prior"), build_tokenizer(vocabulary(KINDS))
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = TinyPrior(PriorShape(8, (32, 32), text_width=16, text_layers=1), tokenizer)
        config = ScorerConfig((8,), (0,), 8)
        save_scorer(out / "scorer", config, WorldScorer(config).state_dict())
    save_tiny_prior(out, model, tokenizer, KINDS, [("mug", "green")])
    return out


class Counting(WorldScorer):
    """Remembers what it was asked, and returns how much that was."""

    def accuracy(self, images: torch.Tensor, captions: Any, **_: Any) -> Accuracy:
        return Accuracy(len(images) / 100, 0.5, 0.25)


def test_a_prior_that_is_not_there_is_refused(script: Any, tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="no prior in"):
        script.find_prior(str(tmp_path))


def test_prompts_are_kinds_then_held_out_pairs_or_those_given(script: Any, folder: Path) -> None:
    prior = script.find_prior(str(folder))
    assert prior.kinds == KINDS and prior.knows(RED) and not prior.knows(GREEN)
    assert prior.arguments == ("--prior", "tiny", f"prior.model={folder}")
    assert [caption.text for caption in script.choose_prompts((), prior)] == ["a red apple", "a white mug", GREEN.text]
    assert script.choose_prompts(["1"], prior) == [caption_of("apple", "red")]
    assert script.choose_prompts(["a crimson cup"], prior) == [RED]


def test_held_out_pairs_and_elevations_are_counted_on_their_own(script: Any, folder: Path) -> None:
    """Three captions from two of the elevations; the seen ones are two."""
    prior, elevations = script.find_prior(str(folder)), torch.tensor([0.0, 60.0] * 3)
    captions = tuple(caption for caption in (RED, GREEN, BLUE) for _ in range(2))
    table = script.recognized(Counting(), prior, {"views": RealViews(torch.zeros(6, 3, 8, 8), captions, elevations)})
    rows = {cells[1].strip(): cells[2:4] for cells in (line.split("|") for line in table.splitlines()[2:])}
    assert {name: int(number) for name, (number, _) in rows.items()} == {
        "views": 4, "views, held-out pairs": 2, "views, 0° up": 2, "views, 60° up": 2,
    }  # fmt: skip
    assert rows["views"][1].strip() == "4.0 %"  # of as many images as counted


def test_assets_are_placed_like_the_worlds_objects(script: Any) -> None:
    mesh = sample_object(RED, np.random.default_rng(0))
    moved = TriangleMesh(3 * mesh.vertices + torch.tensor([1.0, 2.0, 3.0]), mesh.faces, colors=mesh.colors)
    torch.testing.assert_close(script.placed(moved).vertices, mesh.vertices, atol=1e-5, rtol=0)


def test_assets_are_read_or_made_or_left_out(script: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    commands: list[list[str]] = []

    class Done:
        returncode = 0

    monkeypatch.setattr(script.subprocess, "run", lambda command, check: commands.append(command) or Done())
    assert script.asset(tmp_path, "a red mug", ("--prior", "world"), (), make=False) is None and not commands
    path = script.asset(tmp_path, "a red mug", ("--prior", "world"), ("--no-refine",), make=True)
    assert path == tmp_path / "a-red-mug" / "asset" / "asset.glb"
    (command,) = commands
    assert command[-3:] == ["--prior", "world", "--no-refine"] and "a red mug" in command
    path.parent.mkdir(parents=True)
    path.touch()
    assert script.asset(tmp_path, "a red mug", (), (), make=True) == path and len(commands) == 1


def test_the_whole_report(script: Any, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With views of true objects in place of assets: no run, no GLB file."""

    def views_of(path: Path, caption: Caption) -> RealViews:
        return real_views([caption], elevations=script.ELEVATIONS, azimuths=len(script.AZIMUTHS))

    monkeypatch.setattr(script, "asset", lambda *_: Path("asset.glb"))
    monkeypatch.setattr(script, "asset_views", views_of)
    monkeypatch.setattr(script, "SAMPLING_STEPS", 1)
    options = ["--prior", str(folder), "--scorer", str(folder / "scorer"), "--results", str(tmp_path)]
    script.main([*options, "--examples", "4", "--captions", "4", "--prompts", "a red apple", GREEN.text])
    text = (tmp_path / "prior_quality.md").read_text()
    for heading in ("## Denoising", "## Images", "## Assets", "| color: right |", "| samples |", "| real renders |"):
        assert heading in text
    assert f"| tiny | {GREEN.text} (held out) |" in text and "| world | a red apple |" in text
    assert "**mean, held-out pairs, 1 assets**" in text
    with Image.open(tmp_path / "prior_quality.png") as image:
        assert image.size == (script.TILE * (3 + 2 * len(script.AZIMUTHS)), script.TILE * 2)
    script.main([*options, "--only-assets", "--name", "assets_alone", "--prompts", "a red apple"])
    alone = (tmp_path / "assets_alone.md").read_text()
    assert "## Assets" in alone and "## Denoising" not in alone and (tmp_path / "assets_alone.png").is_file()
