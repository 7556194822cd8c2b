"""The benchmark of learned priors: what it groups, chooses and draws, and that the whole of it runs on a tiny prior."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

pytest.importorskip("diffusers")
pytest.importorskip("transformers")

from steindreamer.training.prior.model import PriorShape, TinyPrior, save_tiny_prior
from steindreamer.training.prior.wording import build_tokenizer, vocabulary
from steindreamer.training.scorer.evaluate import RealViews
from steindreamer.world import caption_of
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
    monkeypatch.delitem(sys.modules, "prior_quality", raising=False)
    yield importlib.import_module("prior_quality")
    sys.modules.pop("prior_quality", None)


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


def test_the_whole_report(script: Any, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(script, "SAMPLING_STEPS", 1)
    options = ["--prior", str(folder), "--scorer", str(folder / "scorer"), "--results", str(tmp_path)]
    script.main([*options, "--examples", "4", "--captions", "4", "--prompts", "a red apple", GREEN.text])
    text = (tmp_path / "prior_quality.md").read_text()
    for heading in ("## Denoising", "## Images", "| color: right |", "| samples |", "| real renders |"):
        assert heading in text
    with Image.open(tmp_path / "prior_quality.png") as image:
        assert image.size == (script.TILE * 5, script.TILE * 2)
