"""The scorer: its answers are those of a softmax over captions, its images and its training are reproducible."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from steindreamer.training.prior import dataset
from steindreamer.training.prior.dataset import ViewCache, render_set
from steindreamer.training.scorer import train as training
from steindreamer.training.scorer.dataset import VIEWS, Augmentation, Batch, LabeledViews, augmented
from steindreamer.training.scorer.evaluate import captions_of, real_views
from steindreamer.training.scorer.evaluate import main as evaluate_main
from steindreamer.training.scorer.lighting import Lighting, Lights, lit, random_lights, uneven
from steindreamer.training.scorer.train import Trainer, TrainingSettings, caption_loss, train
from steindreamer.world import Caption, UnknownPromptError, caption_of
from steindreamer.world.scorer import SIZE, ScorerConfig, WorldScorer, kind_indices, kind_logits, save_scorer

FEW = replace(VIEWS, kinds=("apple", "snowman"), sets_per_caption=1, cameras_per_set=2)
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
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("run") / "views"


@pytest.fixture(scope="module")
def cache(folder: Path) -> ViewCache:
    """Rendered by this process: another one takes seconds to start."""

    def in_turn(function: Callable[..., None], jobs: Sequence[tuple[object, ...]], *_: object) -> None:
        for job in jobs:
            function(*job)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(dataset, "run_in_processes", in_turn)
        return ViewCache.open_or_render(folder, FEW)


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


def foreground_of(cache: ViewCache, count: int) -> torch.Tensor:
    """Unlit color and opacity of the first objects of the first groups."""
    layers = [torch.tensor(cache.layer(name, group)[0]) for group in range(count) for name in ("albedo", "opacity")]
    return torch.stack([torch.cat(layers[i : i + 2]) for i in range(0, 2 * count, 2)]).float() / 255


def test_labels_say_what_the_views_show(cache: ViewCache) -> None:
    views = LabeledViews(cache, small_scorer().known)
    shown = [views.captions[label] for label in views.labels.tolist()]
    assert shown == [cache.caption(group) for group in range(len(cache))]
    assert shown[0] == shown[1] and len(set(shown)) == len(FEW.captions)
    again = render_set(FEW, 2)["albedo"][1]  # a later set, by its second camera
    torch.testing.assert_close(torch.tensor(cache.layer("albedo", 5)).float() / 255, again, atol=0.51 / 255, rtol=0)


def test_views_that_cannot_be_named_are_refused(cache: ViewCache) -> None:
    with pytest.raises(ValueError, match="cannot name"):
        _ = LabeledViews(cache, (caption_of("apple", "red"),)).labels


def test_drawn_images_are_unlit_lit_or_gray(cache: ViewCache) -> None:
    """Red apples and their stalks: gray ones have no color, and only lit ones differ from the albedo."""
    views = LabeledViews(cache, small_scorer().known)

    def drawn(gray: float, unlit: float) -> Batch:
        lighting = Lighting(gray=gray, unlit=unlit, gloss=0.0)
        return views.draw(24, lighting, STILL, torch.Generator().manual_seed(3))

    unlit, colored, gray = drawn(0.0, 1.0), drawn(0.0, 0.0), drawn(1.0, 0.0)
    assert torch.equal(unlit.labels, gray.labels) and torch.equal(unlit.labels, colored.labels)
    assert unlit.colored.all() and colored.colored.all() and not gray.colored.any()
    middle = slice(28, 36)  # the object covers it
    spread = [(batch.images.amax(1) - batch.images.amin(1))[:, middle, middle].mean() for batch in (unlit, gray)]
    assert spread[0] > 0.1 and spread[1] < 1e-3
    change = (unlit.images - colored.images).abs().amax((1, 2, 3))
    assert (change > 0.05).float().mean() > 0.9
    mixed = drawn(0.5, 0.5)
    assert 0 < mixed.colored.sum() < 24
    torch.testing.assert_close(mixed.images[mixed.colored], unlit.images[mixed.colored])


def up_down_and_front(size: int = 4) -> torch.Tensor:
    """Three images of one normal each: up, down, toward the viewer."""
    normals = torch.tensor([[0.0, 1.0, 0.0], [0.0, -1.0, 0.0], [0.0, 0.0, 1.0]])
    return normals[:, :, None, None].expand(3, 3, size, size)


def test_light_follows_the_closed_form() -> None:
    """Light from above: display values scale with the power 1 / 2.2 of the linear factor, also pre-multiplied ones."""
    up, each = torch.tensor([[0.0, 1.0, 0.0]]).expand(3, 3), torch.full((3,), 1.0)
    lights = Lights(up, up, 0.2 * each, 0.3 * each, 0.5 * each, wrap=0 * each, gloss=0 * each)
    color, opacity = torch.full((3, 3, 4, 4), 0.3), torch.full((3, 1, 4, 4), 0.5)
    shaded = lit(color, 7 * up_down_and_front(), opacity, lights)
    expected = 0.3 * torch.tensor([1.0, 0.2, 0.2 + 0.15]) ** (1 / 2.2)
    torch.testing.assert_close(shaded, expected[:, None, None, None].expand_as(shaded))
    wrapped = lit(color, up_down_and_front(), opacity, replace(lights, wrap=each))
    torch.testing.assert_close(wrapped[2, 0, 0, 0], 0.3 * torch.tensor(0.2 + 0.15 + 0.25) ** (1 / 2.2))


def test_highlights_are_where_the_viewer_sees_the_reflected_light_and_stay_in_range() -> None:
    toward, each = torch.tensor([[0.0, 0.0, 1.0]]).expand(3, 3), torch.full((3,), 1.0)
    lights = Lights(toward, toward, 1.5 * each, 0 * each, 0 * each, wrap=each, gloss=0.2 * each)
    black, white = (torch.full((3, 3, 4, 4), value) for value in (0.0, 0.5))
    opacity = torch.full((3, 1, 4, 4), 0.5)
    assert lit(black, up_down_and_front(), opacity, lights).amax((1, 2, 3)).tolist() == pytest.approx([0, 0, 0.1])
    assert lit(white, up_down_and_front(), opacity, lights).max() == 0.5


def test_random_lights_span_their_ranges(generator: torch.Generator) -> None:
    lights = random_lights(2000, Lighting(), generator)
    torch.testing.assert_close(lights.key.norm(dim=1), torch.ones(2000))
    torch.testing.assert_close(lights.up.norm(dim=1), torch.ones(2000))
    brightest = lights.darkest + lights.sky + lights.direct
    for values, limits in ((lights.darkest, (0.1, 0.75)), (brightest, (0.95, 1.35))):
        assert limits[0] <= values.min() < limits[0] + 0.01 and limits[1] - 0.01 < values.max() <= limits[1] + 1e-6
    assert 0.85 < (lights.key[:, 1] > 0).float().mean() < 0.97
    assert 0.4 < (lights.gloss > 0).float().mean() < 0.6 and lights.gloss.max() <= 0.25


def test_uneven_normals_leave_the_background_and_half_of_the_images(generator: torch.Generator) -> None:
    normal = up_down_and_front(64)[:1].expand(64, 3, 64, 64) * (torch.arange(64) < 32)
    changed = uneven(normal, Lighting(), generator) - normal
    assert (changed[..., 32:] == 0).all()
    moved = (changed != 0).any(dim=3).any(dim=2).any(dim=1).float().mean()
    assert 0.25 < moved < 0.75 and changed.std() < 0.3


def test_kinds_are_sums_over_their_colors(generator: torch.Generator) -> None:
    known = [caption for caption in small_scorer().known if caption.kind in ("mug", "apple")]
    logits, kinds = torch.randn(3, len(known), generator=generator), kind_indices(known)
    assert kinds.tolist() == sorted(kinds.tolist()) and kinds.unique().tolist() == [0, 1]
    summed = torch.zeros(3, 2).index_add(1, kinds, logits.softmax(1))
    torch.testing.assert_close(kind_logits(logits, known).softmax(1), summed)


def test_gray_images_are_trained_on_their_kind_alone(generator: torch.Generator) -> None:
    known = [caption for caption in small_scorer().known if caption.kind in ("mug", "apple")]
    logits, kinds = torch.randn(2, len(known), generator=generator), kind_indices(known)

    def loss(labels: list[int], colored: bool) -> torch.Tensor:
        return caption_loss(
            logits, Batch(torch.zeros(2, 3, 8, 8), torch.tensor(labels), torch.tensor([colored] * 2)), known, 0.0
        )

    torch.testing.assert_close(loss([0, 3], True), torch.nn.functional.cross_entropy(logits, torch.tensor([0, 3])))
    right = logits.softmax(1)[:, kinds == kinds[0]].sum(1)
    torch.testing.assert_close(loss([0, 1], False), -right.log().mean())
    assert loss([0, 1], False) == loss([1, 2], False) != loss([0, len(known) - 1], False)


def test_without_augmentation_only_mirror_and_background_change(cache: ViewCache, generator: torch.Generator) -> None:
    foreground = foreground_of(cache, 8)
    images = augmented(foreground, STILL, generator)
    # The second half of a batch is resampled.
    for image, view in zip(images[:4], foreground[:4], strict=True):
        solid, empty, color = view[3] == 1, view[3] == 0, view[:3]
        upright, mirrored = ((side[:, solid] - color[:, solid]).abs().max() for side in (image, image.flip(2)))
        assert min(upright, mirrored) < 1e-4
        assert (image if upright < mirrored else image.flip(2))[:, empty].std(1).max() < 1e-4  # one color behind


def test_augmentation_keeps_the_range_and_the_seed(cache: ViewCache) -> None:
    foreground = foreground_of(cache, 12)
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


def test_a_training_can_start_from_a_scorer(cache: ViewCache, tmp_path: Path) -> None:
    save_scorer(tmp_path, SMALL, small_scorer().state_dict())
    start = WorldScorer.load(tmp_path).state_dict()
    trainer = Trainer(replace(SETTINGS, seed=5, start=str(tmp_path)), SMALL, cache, 4)
    assert all(torch.equal(value, start[name]) for name, value in trainer.model.state_dict().items())
    trainer.step()
    assert any(not torch.equal(value, start[name]) for name, value in trainer.model.state_dict().items())


def test_a_few_steps_learn_the_training_set(cache: ViewCache) -> None:
    trainer = Trainer(TrainingSettings(images=12, warm_up=1), SMALL, cache, 60)
    trainer.augmentation = STILL
    history = [trainer.step()["loss"] for _ in range(40)]
    assert sum(history[-5:]) < 0.7 * sum(history[:5])


def test_the_command_line_trains_and_evaluates(
    folder: Path, cache: ViewCache, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    views = ["--views", str(folder), "--sets", "1"]
    monkeypatch.setattr(training, "VIEWS", FEW)
    monkeypatch.setattr(training, "ScorerConfig", lambda: SMALL)
    for steps in ("1", "2"):
        training.main(["--run", str(tmp_path), *views, "--images", "2", "--steps", steps])
    assert "going on from step 1" in capsys.readouterr().out
    assert len((tmp_path / "training.jsonl").read_text().splitlines()) == 2
    monkeypatch.setattr("steindreamer.training.scorer.evaluate.captions_of", lambda kinds: [caption_of("mug", "red")])
    evaluate_main(["--model", str(tmp_path / "scorer")])
    printed = capsys.readouterr().out
    for row in ("| mild light, 0° to 60° | 5 |", "| unlit, 75° | 1 |", "| gray, key light, -10° | 1 |"):
        assert row in printed


def test_real_views_are_the_same_objects_whatever_the_background() -> None:
    captions: list[Caption] = [caption_of("apple", "red"), caption_of("mug", "blue")]
    white, gray = (real_views(captions, elevations=(0.0, 60.0), background=value, size=32) for value in (1.0, 0.5))
    assert white.images.shape == (4, 3, 32, 32) and white.captions == (captions[0],) * 2 + (captions[1],) * 2
    assert (white.images[:, :, 0, 0] == 1).all() and (gray.images[:, :, 0, 0] == 0.5).all()
    same = (white.images - gray.images).abs().amax(1) < 1e-6
    assert (same.float().mean((1, 2)) > 0.1).all()
    assert len(white.at(60.0).captions) == 2
    assert len(captions_of(("apple",))) == 6


def test_real_views_have_the_same_shapes_under_any_light() -> None:
    """The key light leaves sides in the dark that the default light does not; gray has no color."""
    red = [caption_of("apple", "red")]
    mild, unlit, hard, gray = (
        real_views(red, elevations=(0.0, 30.0), azimuths=4, look=look).images
        for look in ("mild", "unlit", "lit", "gray")
    )
    object_ = (unlit != 1).any(1)
    assert object_.float().mean() > 0.1
    for images in (mild, hard, gray):
        assert (((images != 1).any(1)) == object_).float().mean() > 0.99
    darkest = [(images.mean(1) / unlit.mean(1))[object_].min() for images in (mild, hard)]
    assert darkest[0] > 0.65 and darkest[1] < 0.6
    assert (gray.amax(1) - gray.amin(1)).max() < 1e-5 < (hard.amax(1) - hard.amin(1)).max()
