"""The scorer: its answers are those of a softmax over captions, its images and its training are reproducible."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from steindreamer.training.estimator import dataset
from steindreamer.training.estimator.dataset import ViewCache, ViewSettings, render_views
from steindreamer.training.scorer import train as training
from steindreamer.training.scorer.dataset import Augmentation, LabeledViews, augmented
from steindreamer.training.scorer.evaluate import captions_of, real_views
from steindreamer.training.scorer.evaluate import main as evaluate_main
from steindreamer.training.scorer.train import Trainer, TrainingSettings, train
from steindreamer.world import Caption, UnknownPromptError, caption_of
from steindreamer.world.scorer import SIZE, ScorerConfig, WorldScorer, save_scorer

FEW = ViewSettings(objects=6, views_per_object=2)
SMALL = ScorerConfig(channels=(8, 8), blocks=(1, 0), width=8)
SETTINGS = TrainingSettings(images=8, warm_up=1)
STILL = Augmentation(
    size=(1.0, 1.0),
    shift=0.0,
    roll=0.0,
    tint=0.0,
    brightness=(1.0, 1.0),
    haze=0.0,
    coarsest=SIZE - 1,
    noise=0.0,
    blotches=0.0,
)


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Nothing here is large enough for two."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> ViewCache:
    """Rendered by this process: another one takes seconds to start."""

    def in_turn(function: Callable[..., None], jobs: Sequence[tuple[object, ...]], *_: object) -> None:
        for job in jobs:
            function(*job)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(dataset, "run_in_processes", in_turn)
        return ViewCache.open_or_render(tmp_path_factory.mktemp("run") / "views", FEW)


def small_scorer(config: ScorerConfig = SMALL) -> WorldScorer:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return WorldScorer(config).eval()


class Oracle(WorldScorer):
    """Logits from a table: row i for any image of brightness i / 10."""

    def __init__(self, logits: torch.Tensor) -> None:
        super().__init__(SMALL)
        self.logits = logits

    def score(self, images: torch.Tensor, captions: object) -> torch.Tensor:
        return self.logits[(10 * images[:, 0, 0, 0]).round().long()]


def test_every_caption_of_the_world_is_known_once() -> None:
    known = small_scorer().known
    assert len({(caption.kind, caption.color) for caption in known}) == len(known) > 400
    assert caption_of("apple", "red") in known


def test_wordings_of_one_caption_score_alike(generator: torch.Generator) -> None:
    scorer, images = small_scorer(), torch.rand(2, 3, SIZE, SIZE, generator=generator)
    logits = scorer.score(images, ["a red mug", "a photo of a crimson coffee cup", "a blue mug", "a red chair"])
    assert logits.shape == (2, 4)
    torch.testing.assert_close(logits[:, 0], logits[:, 1])
    assert (logits[:, :1] != logits[:, 2:]).all()


def test_unknown_words_are_refused() -> None:
    with pytest.raises(UnknownPromptError, match="dragon"):
        small_scorer().score(torch.rand(1, 3, SIZE, SIZE), ["a dragon"])
    few = small_scorer(ScorerConfig((8,), (0,), 8, kinds=("mug",)))
    with pytest.raises(ValueError, match="red chair; known: mug"):
        few.score(torch.rand(1, 3, SIZE, SIZE), ["a red chair"])


def test_images_are_judged_one_by_one_at_any_size(generator: torch.Generator) -> None:
    scorer = small_scorer()
    images = torch.rand(3, 3, 96, 80, generator=generator)
    together = scorer.score(images, ["a red mug"])
    alone = torch.cat([scorer.score(image[None], ["a red mug"]) for image in images])
    torch.testing.assert_close(together, alone)


def test_scores_have_a_gradient_in_the_image(generator: torch.Generator) -> None:
    images = torch.rand(1, 3, SIZE, SIZE, generator=generator).requires_grad_()
    small_scorer().score(images, ["a red mug"]).sum().backward()
    assert images.grad is not None and images.grad.abs().max() > 0


def test_accuracy_counts_kinds_colors_and_captions() -> None:
    """Four images: right; right kind in a wrong color; wrong kind; kind right only as a sum over its colors."""
    known = [c for c in small_scorer().known if c.kind in ("mug", "apple")]
    at = {(c.kind, c.color): i for i, c in enumerate(known)}
    logits = torch.full((4, len(known)), -9.0)
    logits[0, at["mug", "red"]] = 9.0
    logits[1, at["mug", "blue"]] = 9.0
    logits[2, at["apple", "red"]] = 9.0
    logits[2, at["mug", "red"]] = 0.0
    for color in ("red", "blue", "green"):
        logits[3, at["mug", color]] = 2.0
    logits[3, at["mug", "red"]] = 2.1
    logits[3, at["apple", "red"]] = 2.2
    images = (torch.arange(4.0) / 10)[:, None, None, None].expand(4, 3, SIZE, SIZE)
    found = Oracle(logits).accuracy(images, ["a red mug"] * 4, kinds=("mug", "apple"))
    assert (found.kind, found.color, found.caption) == (0.75, 0.75, 0.25)


def test_accuracy_wants_one_known_caption_per_image() -> None:
    scorer, images = small_scorer(), torch.rand(2, 3, SIZE, SIZE)
    with pytest.raises(ValueError, match="one known caption for each of 2 images; 1 captions"):
        scorer.accuracy(images, ["a red mug"])
    with pytest.raises(ValueError, match="not among the known captions: a red chair"):
        scorer.accuracy(images, ["a red mug", "a red chair"], kinds=("mug",))


def test_a_saved_scorer_answers_alike(tmp_path: Path, generator: torch.Generator) -> None:
    scorer, images = small_scorer(), torch.rand(2, 3, SIZE, SIZE, generator=generator)
    save_scorer(tmp_path, SMALL, scorer.state_dict())
    loaded = WorldScorer.load(tmp_path)
    assert not loaded.training and not any(value.requires_grad for value in loaded.parameters())
    torch.testing.assert_close(
        loaded.score(images, loaded.known), scorer.score(images, scorer.known), atol=0.05, rtol=0
    )


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"kinds": ["dragon"]}, "no dragon"),
        ({"width": 16}, "is not a scorer"),
        ({"depth": 3}, "does not contain a scorer"),
    ],
)
def test_a_damaged_folder_is_refused(tmp_path: Path, change: dict[str, object], said: str) -> None:
    save_scorer(tmp_path, SMALL, small_scorer().state_dict())
    path = tmp_path / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(ValueError, match=said):
        WorldScorer.load(tmp_path)


def test_labels_say_what_the_views_show(cache: ViewCache) -> None:
    """The object of each view, drawn again from its caption alone, has the caption's color somewhere."""
    views = LabeledViews(cache, small_scorer().known)
    shown = [views.captions[label] for label in views.labels.tolist()]
    assert shown == [cache.caption(row) for row in range(FEW.views)]
    assert shown[0] == shown[1] and len(set(shown)) > 3
    again = render_views(FEW, 2, 3).foreground
    torch.testing.assert_close(cache.views(torch.tensor([4, 5])).foreground, again, atol=0.51 / 255, rtol=0)


def test_views_that_cannot_be_named_are_refused(cache: ViewCache) -> None:
    with pytest.raises(ValueError, match="cannot name"):
        _ = LabeledViews(cache, (caption_of("apple", "red"),)).labels


def test_without_augmentation_only_mirror_and_background_change(cache: ViewCache, generator: torch.Generator) -> None:
    foreground = cache.views(torch.arange(8)).foreground
    images = augmented(foreground, STILL, generator)
    # The second half of a batch is resampled.
    for image, view in zip(images[:4], torch.nn.functional.avg_pool2d(foreground, 2)[:4], strict=True):
        solid, empty, color = view[3] == 1, view[3] == 0, view[:3]
        upright, mirrored = ((side[:, solid] - color[:, solid]).abs().max() for side in (image, image.flip(2)))
        assert min(upright, mirrored) < 1e-4
        assert (image if upright < mirrored else image.flip(2))[:, empty].std(1).max() < 1e-4  # one color behind


def test_augmentation_keeps_the_range_and_the_seed(cache: ViewCache) -> None:
    foreground = cache.views(torch.arange(12)).foreground
    first, again, other = (
        augmented(foreground, Augmentation(), torch.Generator().manual_seed(seed)) for seed in (0, 0, 1)
    )
    assert torch.equal(first, again) and not torch.equal(first, other)
    assert first.shape == (12, 3, SIZE, SIZE) and first.min() >= 0 and first.max() <= 1


def test_a_resumed_run_is_the_same_run(cache: ViewCache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    train(tmp_path / "whole", 4, SETTINGS, SMALL, cache)
    step = Trainer.step

    def interrupted(trainer: Trainer) -> dict[str, float]:
        if trainer.steps_done == 3:
            raise KeyboardInterrupt
        return step(trainer)

    monkeypatch.setattr(Trainer, "step", interrupted)
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "halves", 4, SETTINGS, SMALL, cache, save_every=2)
    monkeypatch.undo()
    train(tmp_path / "halves", 4, SETTINGS, SMALL, cache, save_every=2)
    whole, halves = (load_file(tmp_path / name / "checkpoint.safetensors") for name in ("whole", "halves"))
    assert whole.keys() == halves.keys() and whole["steps_done"] == 4
    for name, value in whole.items():
        assert torch.equal(value, halves[name]), name


def test_a_few_steps_learn_the_training_set(cache: ViewCache) -> None:
    trainer = Trainer(TrainingSettings(images=12, warm_up=1), SMALL, cache, 60)
    trainer.augmentation = STILL
    history = [trainer.step()["loss"] for _ in range(40)]
    assert sum(history[-5:]) < 0.7 * sum(history[:5])


def test_the_command_line_trains_and_evaluates(
    cache: ViewCache, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    views = ["--views", str(cache.folder), "--objects", "6"]
    monkeypatch.setattr(training, "ViewSettings", partial(ViewSettings, views_per_object=2))
    monkeypatch.setattr(training, "ScorerConfig", lambda: SMALL)
    training.main(["--run", str(tmp_path), *views, "--images", "2", "--steps", "1"])
    training.main(["--run", str(tmp_path), *views, "--images", "2", "--steps", "2"])
    assert "going on from step 1" in capsys.readouterr().out
    assert len((tmp_path / "training.jsonl").read_text().splitlines()) == 2
    monkeypatch.setattr("steindreamer.training.scorer.evaluate.captions_of", lambda kinds: [caption_of("mug", "red")])
    evaluate_main(["--model", str(tmp_path / "scorer")])
    assert "elevation 75°" in capsys.readouterr().out


def test_real_views_are_the_same_objects_whatever_the_background() -> None:
    captions: list[Caption] = [caption_of("apple", "red"), caption_of("mug", "blue")]
    white, gray = (real_views(captions, elevations=(0.0, 60.0), background=value, size=32) for value in (1.0, 0.5))
    assert white.images.shape == (4, 3, 32, 32) and white.captions == (captions[0],) * 2 + (captions[1],) * 2
    assert (white.images[:, :, 0, 0] == 1).all() and (gray.images[:, :, 0, 0] == 0.5).all()
    same = (white.images - gray.images).abs().amax(1) < 1e-6
    assert (same.float().mean((1, 2)) > 0.1).all()
    assert len(white.at(60.0).captions) == 2
    assert len(captions_of(("apple",))) == 6
