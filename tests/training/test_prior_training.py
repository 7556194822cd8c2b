"""The small prior's data, wording, training and files: laws, and that a resumed run is the same run."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from steindreamer.distill import noise_from_output
from steindreamer.distill.camera_features import CAMERA_FEATURES, camera_features
from steindreamer.distill.diffusion import DiffusersPrior
from steindreamer.distill.schedule import NoiseSchedule
from steindreamer.representations import Cameras
from steindreamer.training.prior import sample as sampling
from steindreamer.training.prior import ship as shipping
from steindreamer.training.prior import train as training
from steindreamer.training.prior.card import read_records
from steindreamer.training.prior.dataset import SIZE, ViewCache, ViewSettings, draw_batch, render_set
from steindreamer.training.prior.evaluate import Examples, evaluate
from steindreamer.training.prior.model import (
    PriorShape,
    TinyPrior,
    load_pipeline,
    load_tiny_prior,
    save_tiny_prior,
    tokenize,
)
from steindreamer.training.prior.ship import ship
from steindreamer.training.prior.train import Trainer, TrainingSettings, posterior_mean, train
from steindreamer.training.prior.wording import MAX_TOKENS, build_tokenizer, reworded, vocabulary
from steindreamer.training.world import KINDS, caption_of, parse_caption, sample_object
from steindreamer.training.world.views import render_all, shade

FEW = ViewSettings(
    kinds=("apple", "mug"),
    held_out=(("mug", "green"), ("apple", "pink")),
    sets_per_caption=1,
    objects_per_set=2,
    cameras_per_set=2,
)
SMALL = PriorShape(patch=8, channels=(32, 32), text_width=16, text_layers=1)
SETTINGS = TrainingSettings(pictures=4, warm_up=5)


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Nothing here is large enough for two."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def cache() -> ViewCache:
    return ViewCache.render(FEW)


def small_model(seed: int = 0) -> TinyPrior:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return TinyPrior(SMALL, build_tokenizer(vocabulary(FEW.kinds))).eval()


def features_at(azimuth: list[float], elevation: float = 20.0, distance: float = 3.2) -> torch.Tensor:
    cameras = Cameras.orbit(azimuth, [elevation] * len(azimuth), distance=distance, height=SIZE)
    return camera_features(cameras, torch.ones(len(azimuth), 3))


def test_camera_features_are_continuous_around_the_back() -> None:
    before, after, front = features_at([179.99, -179.99, 0.0])
    torch.testing.assert_close(before, after, atol=2e-3, rtol=0)
    assert (before - front).abs().max() > 1


def test_camera_features_hold_what_they_are_named_after() -> None:
    cameras = Cameras.orbit([30.0], [50.0], distance=3.2, field_of_view=40.0, height=77)
    values = camera_features(cameras, torch.tensor([[0.0, 0.5, 1.0]]))
    assert values.shape == (1, len(CAMERA_FEATURES))
    named = dict(zip(CAMERA_FEATURES, values[0].tolist(), strict=True))
    assert named["sin azimuth"] == pytest.approx(0.5, abs=1e-5)
    assert named["cos 3 azimuth"] == pytest.approx(0.0, abs=1e-5)
    assert named["sin 2 elevation"] == pytest.approx(np.sin(np.radians(100)), abs=1e-5)
    assert named["zoom"] == pytest.approx(0.0, abs=1e-3)
    assert [named[f"background {name}"] for name in ("red", "green", "blue")] == [-1.0, 0.0, 1.0]


def test_zoom_is_the_relative_size_whatever_makes_it() -> None:
    nearer = features_at([0.0], distance=3.2 / 1.05)[0, 10]
    narrower = 2 * np.degrees(np.arctan(np.tan(np.radians(20)) / 1.05))
    zoomed = camera_features(Cameras.orbit([0.0], [20.0], field_of_view=narrower, height=64), torch.ones(1, 3))[0, 10]
    assert nearer == pytest.approx(0.5, abs=1e-3) and zoomed == pytest.approx(0.5, abs=1e-3)


def test_pairs_held_out_are_never_drawn() -> None:
    settings = ViewSettings()
    drawn = {(caption.kind, caption.colour) for caption in map(settings.caption_of_set, range(settings.sets))}
    assert not drawn & set(settings.held_out)
    everything = {(kind, colour) for kind in settings.kinds for colour in KINDS[kind].colours}
    assert drawn == everything - set(settings.held_out)
    assert ("tulip", "blue") in drawn


def test_settings_that_leave_nothing_or_name_the_unknown_are_refused() -> None:
    with pytest.raises(ValueError, match="unknown kinds unicorn"):
        ViewSettings(kinds=("unicorn",), held_out=())
    with pytest.raises(ValueError, match="do not come in"):
        ViewSettings(kinds=("mug",), held_out=(("duck", "blue"),))
    with pytest.raises(ValueError, match="no caption is left"):
        ViewSettings(kinds=(), held_out=())


def test_views_depend_on_the_seed_and_the_set_only(cache: ViewCache) -> None:
    again = render_set(FEW, 3)
    stored = cache.views(torch.tensor([6, 7]))
    torch.testing.assert_close(again, stored, atol=0.51 / 255, rtol=0)
    assert not torch.equal(render_set(replace(FEW, seed=1), 3), again)


def test_views_are_the_worlds_own_pictures_over_any_background() -> None:
    """Colour pre-multiplied by opacity: composing it equals drawing over that background."""
    rng = np.random.default_rng([FEW.seed, 1, 1])
    objects = [shade(sample_object(FEW.caption_of_set(1), rng)) for _ in range(FEW.objects_per_set)]
    background = torch.tensor([[0.2, 0.5, 0.9]]).expand(FEW.cameras_per_set, 3)
    expected = render_all(objects, FEW.cameras_of_set(1), background, supersample=3)
    views = render_set(FEW, 1)
    composed = views[:, :, :3] + (1 - views[:, :, 3:]) * background[:, None, :, None, None]
    torch.testing.assert_close(composed, expected, atol=1e-5, rtol=0)


def test_the_cache_on_disk_is_the_one_in_memory(cache: ViewCache, tmp_path: Path) -> None:
    stored = ViewCache.open_or_render(tmp_path, FEW)
    assert np.array_equal(stored.foreground, cache.foreground) and len(stored) == len(cache)
    with pytest.raises(ValueError, match="choose another folder"):
        ViewCache.open_or_render(tmp_path, replace(FEW, seed=1))


def test_batches_belong_together(cache: ViewCache) -> None:
    batch = draw_batch(cache, 64, (0, 1), dropped=0.25)
    again = draw_batch(cache, 64, (0, 1), dropped=0.25)
    assert torch.equal(batch.pictures, again.pictures) and batch.texts == again.texts
    assert 4 <= batch.texts.count("") <= 30
    assert 16 <= (batch.background == 1).all(1).sum() <= 48
    # Corners show nothing but the background.
    corner = batch.pictures[:, :, :, 0, 0]
    assert (corner - (2 * batch.background - 1)[:, None]).abs().max() < 1e-5
    for i, text in enumerate(batch.texts):
        caption = parse_caption(text) if text else None
        assert caption is None or (caption.kind, caption.colour) not in FEW.held_out
        pose = batch.cameras.camera_to_world[i]
        groups = (cache.cameras.camera_to_world == pose).flatten(1).all(1).nonzero().flatten().tolist()
        assert caption is None or caption in [cache.caption(group) for group in groups]


def test_rewordings_mean_the_same_and_their_words_are_known() -> None:
    rng, known = np.random.default_rng(0), set(vocabulary(tuple(KINDS)))
    wordings = set()
    for kind in KINDS:
        for colour in KINDS[kind].colours:
            caption = caption_of(kind, colour)
            for text in {reworded(caption, rng) for _ in range(20)}:
                assert parse_caption(text) == caption, text
                assert known.issuperset(text.split()), text
                wordings.add(text)
    assert len(wordings) > 2000


def test_the_tokenizer_ignores_case_and_punctuation() -> None:
    tokenizer = build_tokenizer(vocabulary(FEW.kinds))
    tokens = tokenize(tokenizer, ["A red, MUG!", "a red mug", "a red zeppelin", ""])
    assert tokens.shape == (4, MAX_TOKENS)
    assert torch.equal(tokens[0], tokens[1])
    assert tokens[2, 3] == tokenizer.unk_token_id and (tokens[:2] != tokenizer.unk_token_id).all()
    assert tokens[3, :3].tolist() == [tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id]


def test_the_posterior_mean_is_the_picture_without_noise_and_the_mean_under_all_of_it(
    generator: torch.Generator,
) -> None:
    pictures = torch.rand(2, 4, 3, 8, 8, generator=generator) * 2 - 1
    noise = torch.randn(2, 3, 8, 8, generator=generator)
    schedule = NoiseSchedule(torch.tensor([1.0, 0.0]), torch.tensor([1e-3, 1.0]))
    sample = schedule.add_noise(pictures[:, 0], noise, torch.tensor([0, 1]))
    mean = posterior_mean(sample, pictures)
    torch.testing.assert_close(mean[0], pictures[0, 0])
    torch.testing.assert_close(mean[1], pictures[1].mean(0))


def test_the_posterior_mean_is_unbiased(generator: torch.Generator) -> None:
    """Regressed on anything the noisy picture tells, it gives what the single picture gives, with less variance."""
    count = 20000
    pictures = torch.randn(count, 4, 3, 1, 1, generator=generator)
    sample = NoiseSchedule(torch.tensor([0.6]), torch.tensor([0.8])).add_noise(
        pictures[:, 0], torch.randn(count, 3, 1, 1, generator=generator), torch.zeros(count, dtype=torch.long)
    )
    mean, noisy = posterior_mean(sample, pictures), sample.noisy
    slope = (mean * noisy).mean() / noisy.square().mean()
    assert slope == pytest.approx(0.6, abs=0.015)  # E[x | noisy] = alpha * noisy for unit variances
    assert (mean - 0.6 * noisy).var() < 0.8 * (pictures[:, 0] - 0.6 * noisy).var()


def test_a_resumed_run_is_the_same_run(cache: ViewCache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def run(name: str) -> None:
        train(tmp_path / name, 4, SETTINGS, SMALL, cache, save_every=2, evaluate_every=0)

    run("whole")
    step = Trainer.step

    def interrupted(trainer: Trainer) -> tuple[float, float]:
        if trainer.steps_done == 3:
            raise KeyboardInterrupt
        return step(trainer)

    monkeypatch.setattr(Trainer, "step", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run("halves")
    monkeypatch.undo()
    run("halves")
    whole, halves = (load_file(tmp_path / name / "checkpoint.safetensors") for name in ("whole", "halves"))
    assert whole.keys() == halves.keys() and whole["steps_done"] == 4
    for name, value in whole.items():
        assert torch.equal(value, halves[name]), name


def test_a_folder_of_another_run_is_refused(cache: ViewCache, tmp_path: Path) -> None:
    train(tmp_path, 1, SETTINGS, SMALL, cache, evaluate_every=0)
    with pytest.raises(ValueError, match="choose another folder"):
        train(tmp_path, 2, replace(SETTINGS, pictures=5), SMALL, cache, evaluate_every=0)


def test_training_lowers_the_loss(cache: ViewCache) -> None:
    trainer = Trainer(SETTINGS, SMALL, cache, 100)
    history = [trainer.step()[0] for _ in range(30)]
    assert sum(history[-5:]) < 0.5 * sum(history[:5])


def test_the_saved_folder_loads_in_the_libraries_and_predicts_the_same(
    tmp_path: Path, generator: torch.Generator
) -> None:
    model, tokenizer = small_model(), build_tokenizer(vocabulary(FEW.kinds))
    save_tiny_prior(tmp_path, model, tokenizer, FEW.kinds)
    assert not list(tmp_path.rglob("*.bin")) and len(list(tmp_path.rglob("*.safetensors"))) == 2
    loaded, words = load_tiny_prior(tmp_path)
    noisy, timestep = torch.randn(2, 3, SIZE, SIZE, generator=generator), torch.tensor([10, 900])
    features = features_at([10.0, 200.0])
    tokens = tokenize(tokenizer, ["a red mug", ""])
    assert torch.equal(tokenize(words, ["a red mug", ""]), tokens)
    with torch.no_grad():
        expected, actual = model(noisy, timestep, tokens, features), loaded(noisy, timestep, tokens, features)
        torch.testing.assert_close(actual, expected, atol=0.01, rtol=0.01)  # half precision on disk
        otherwise = [
            loaded(noisy, timestep, tokens, features_at([190.0, 20.0])),
            loaded(noisy, timestep, tokens.flip(0), features),
        ]
    assert all((other - actual).abs().max() > 1e-4 for other in otherwise)


def test_a_camera_described_otherwise_is_refused(tmp_path: Path) -> None:
    save_tiny_prior(tmp_path, small_model(), build_tokenizer(vocabulary(FEW.kinds)), FEW.kinds)
    index = tmp_path / "model_index.json"
    index.write_text(index.read_text().replace('"zoom"', '"roll"'))
    with pytest.raises(ValueError, match="wants the camera as"):
        load_pipeline(tmp_path)


def test_scores_cover_every_condition(cache: ViewCache) -> None:
    model, tokenizer = small_model(), build_tokenizer(vocabulary(FEW.kinds))
    examples = Examples.render(FEW, count=8)
    assert examples.held_out is not None
    assert {parse_caption(text).colour for text in examples.held_out.texts} == {"green", "pink"}
    scores = evaluate(model, tokenizer, examples)
    assert scores == evaluate(model, tokenizer, examples)
    assert scores["right"]["950"] > 0.05 and set(scores) >= {"turned by 180 degrees", "wrong words", "held-out pairs"}


def test_the_command_lines_train_go_on_and_draw(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    rendered = ViewCache.render(replace(ViewSettings(kinds=("apple",), held_out=()), sets_per_caption=1))
    monkeypatch.setattr(ViewCache, "open_or_render", lambda folder, settings, processes: rendered)
    run, sheet = tmp_path / "run", tmp_path / "sheet.png"
    shape = ["--patch", "8", "--channels", "32,32", "--evaluate-every", "0"]
    arguments = ["--run", str(run), "--kinds", "apple", "--sets", "1", "--pictures", "1", *shape]
    training.main([*arguments, "--steps", "1"])
    assert "going on" not in capsys.readouterr().out
    training.main([*arguments, "--steps", "2"])
    assert "going on from step 1" in capsys.readouterr().out
    sampling.main(["--model", str(run / "prior"), "--out", str(sheet), "--azimuths", "2", "--prompt", "a red apple"])
    with Image.open(sheet) as picture:
        assert picture.size == (3 * SIZE * 2, SIZE * 2)
    assert "row 1: a red apple" in capsys.readouterr().out


def test_the_denoiser_that_is_distilled_is_the_one_that_was_trained(tmp_path: Path, generator: torch.Generator) -> None:
    tokenizer = build_tokenizer(vocabulary(FEW.kinds))
    save_tiny_prior(tmp_path, small_model(), tokenizer, FEW.kinds)
    model, _ = load_tiny_prior(tmp_path)
    prior = DiffusersPrior(str(tmp_path), torch.device("cpu"), cache_text=False)
    assert prior.picture_size == SIZE
    cameras, background = Cameras.orbit([10.0, 200.0], [20.0, 60.0], height=SIZE), torch.tensor([[1.0] * 3, [0.2] * 3])
    clean, noise = (torch.randn(2, 3, SIZE, SIZE, generator=generator) for _ in range(2))
    sample = prior.schedule.add_noise(clean, noise, torch.tensor([100, 900]))
    torch.testing.assert_close(
        sample.noisy, NoiseSchedule.scaled_linear().add_noise(clean, noise, sample.timestep).noisy
    )
    condition = prior.condition(prior.embed("A green mug"), cameras, background)
    predicted = prior.predict_noise(sample, condition, unconditional=True)
    features = camera_features(cameras, background)
    for text, actual in (("a green mug", predicted.conditional), ("", predicted.unconditional)):
        estimate = model(sample.noisy, sample.timestep, tokenize(tokenizer, [text] * 2), features)
        assert actual is not None
        torch.testing.assert_close(actual, noise_from_output(estimate, "sample", sample), rtol=1e-4, atol=1e-4)


@pytest.fixture
def few_examples(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Examples, "render", partial(Examples.render, count=8))


def run_of(folder: Path, cache: ViewCache, seconds: list[int]) -> Path:
    """A run that took these CPU seconds, by its own records."""
    train(folder, 2, SETTINGS, SMALL, cache, evaluate_every=1)
    path = folder / "evaluation.jsonl"
    record = json.loads(path.read_text().splitlines()[0])
    records = [{**record, "step": 10 * (i + 1), "cpu_seconds": spent} for i, spent in enumerate(seconds)]
    path.write_text("".join(f"{json.dumps(each)}\n" for each in records))
    return folder


@pytest.mark.usefixtures("few_examples")
def test_the_card_holds_the_runs_own_records(
    cache: ViewCache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run, out = run_of(tmp_path / "run", cache, [7, 15, 6, 13]), tmp_path / "shipped"
    shipping.main(["--run", str(run), "--out", str(out)])
    assert str(out) in capsys.readouterr().out
    card, record = (out / "README.md").read_text(), read_records(run / "evaluation.jsonl")[-1]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in card.splitlines() if line.startswith("|")]
    # The third process began anew: 15 + 13.
    assert ["10", "7"] in [row[:2] for row in rows] and ["40", "28"] in [row[:2] for row in rows]
    assert f"{record['right']['200']:.4f}" in next(row for row in rows if row[0] == "40")
    (turned,) = [row for row in rows if row[0] == "turned by 90 degrees"]
    assert turned[1].startswith(f"{record['turned by 90 degrees']['800']:.4f} (") and turned[1].endswith("%)")
    assert "green mug" in card and f"{sum(p.numel() for p in small_model().parameters()):,} parameters" in card
    assert str(2 * len(FEW.captions) * FEW.objects_per_set) + " views" in card
    assert ["training", "pictures", "`4`"] in rows and "2 steps of 4 pictures" in card
    weights, trained = (
        load_file(folder / "unet/diffusion_pytorch_model.safetensors") for folder in (out, run / "prior")
    )
    assert all(torch.equal(weights[name], trained[name]) for name in trained)
    assert {weight.dtype for weight in weights.values()} == {torch.float16}
    with Image.open(out / "samples.png") as picture:
        assert picture.size == (5 * SIZE * 2, (len(FEW.kinds) + len(FEW.held_out)) * SIZE * 2)

    monkeypatch.setattr(shipping, "LARGEST_MEGABYTES", 0.01)
    with pytest.raises(ValueError, match="train a smaller network"):
        ship(run, out)
    (run / "evaluation.jsonl").unlink()
    with pytest.raises(ValueError, match="holds no evaluation"):
        ship(run, out)


@pytest.mark.usefixtures("few_examples")
def test_training_stops_when_its_seconds_are_spent(cache: ViewCache, tmp_path: Path) -> None:
    train(tmp_path, 10**6, SETTINGS, SMALL, cache, evaluate_every=10**6, cpu_seconds=0.5)
    (record,) = read_records(tmp_path / "evaluation.jsonl")
    assert 1 <= record["step"] < 10**4 and (tmp_path / "prior" / "model_index.json").exists()
