"""The small prior's data, wording, training and files: laws, and that a resumed run is the same run."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from importlib import resources
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from predicted_noise import noise_pair
from safetensors.torch import load_file

from steindreamer import assets
from steindreamer.distill.noise.parameterization import noise_from_output
from steindreamer.distill.noise.schedule import NoiseSchedule
from steindreamer.distill.priors.camera_features import CAMERA_FEATURES, camera_features
from steindreamer.distill.priors.diffusion import DiffusersPrior
from steindreamer.distill.priors.diffusion.families.camera_conditioned import named_kinds
from steindreamer.distill.priors.modalities import MODALITIES, encode, view_feature_names, view_features
from steindreamer.representations import Cameras
from steindreamer.training.prior import dataset
from steindreamer.training.prior import sample as sampling
from steindreamer.training.prior import ship as shipping
from steindreamer.training.prior import train as training
from steindreamer.training.prior.card import read_records
from steindreamer.training.prior.dataset import ViewCache, ViewSettings, draw_batch, render_rounds, render_set
from steindreamer.training.prior.evaluate import Examples, evaluate
from steindreamer.training.prior.model import (
    CameraConditionedPipeline,
    PriorShape,
    TinyPrior,
    load_pipeline,
    load_tiny_prior,
    save_tiny_prior,
    schedule_of,
    tokenize,
)
from steindreamer.training.prior.ship import ship
from steindreamer.training.prior.train import Trainer, TrainingSettings, posterior_mean, train
from steindreamer.training.prior.warm_start import warm_start
from steindreamer.training.prior.wording import MAX_TOKENS, build_tokenizer, nouns, reworded, vocabulary
from steindreamer.world import KINDS, caption_of, parse_caption, sample_object
from steindreamer.world.views import Light, random_light, render_mesh, shade

FEW = ViewSettings(
    kinds=("apple", "mug"),
    held_out=(("mug", "green"), ("apple", "pink")),
    sets_per_caption=1,
    objects_per_set=2,
    cameras_per_set=2,
    size=32,
)
SIZE = FEW.size
SMALL = PriorShape(patch=8, channels=(32, 32), text_width=16, text_layers=1, size=SIZE)
SHIPPED = Path(str(resources.files(assets).joinpath("tiny_world_prior")))
SETTINGS = TrainingSettings(images=4, warm_up=5)


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


def conditions_at(azimuth: list[float], modality: str = "color") -> torch.Tensor:
    cameras = Cameras.orbit(azimuth, [20.0] * len(azimuth), height=SIZE)
    return view_features(view_feature_names(MODALITIES), cameras, torch.ones(len(azimuth), 3), modality)


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
    drawn = {(caption.kind, caption.color) for caption in map(settings.caption_of_set, range(settings.sets))}
    assert not drawn & set(settings.held_out)
    everything = {(kind, color) for kind in settings.kinds for color in KINDS[kind].colors}
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
    assert set(again) == {*MODALITIES, "opacity"}
    for name, layer in again.items():
        stored = torch.stack([torch.from_numpy(cache.layer(name, group)) for group in (6, 7)]) / 255
        torch.testing.assert_close(layer, stored, atol=0.51 / 255, rtol=0)
        assert not torch.equal(render_set(replace(FEW, seed=1), 3)[name], layer)


@pytest.mark.parametrize("varied", [False, True])
def test_views_are_the_worlds_own_images(varied: bool) -> None:
    """Of every modality: what `render_mesh` draws of the same objects under the same light."""
    settings = replace(FEW, varied_light=varied)
    rng, lights = (np.random.default_rng([FEW.seed, 1, stream]) for stream in (1, 2))
    cameras, views = FEW.cameras_of_set(1), render_set(settings, 1)
    black = torch.zeros(len(cameras), 3)
    for i in range(FEW.objects_per_set):
        mesh = sample_object(FEW.caption_of_set(1), rng)
        light = random_light(lights) if varied else Light()
        lit = render_mesh(shade(mesh, light), cameras, black, supersample=3)
        unlit = render_mesh(mesh, cameras, black, supersample=3)
        for name in MODALITIES:
            expected = encode(
                name,
                rgb=lit.rgb,
                albedo=unlit.rgb,
                normal=lit.normal,
                depth=lit.depth,
                opacity=lit.opacity,
                cameras=cameras,
            )
            stored = views[name][:, i].expand(-1, 3, -1, -1)
            torch.testing.assert_close(stored, expected, atol=2e-5, rtol=0)
        torch.testing.assert_close(views["opacity"][:, i], lit.opacity, atol=1e-6, rtol=0)


def test_varied_light_sets_color_apart_from_albedo(cache: ViewCache) -> None:
    plain = render_set(replace(FEW, varied_light=False), 0)

    def distance(views: dict[str, torch.Tensor]) -> float:
        return (views["color"] - views["albedo"]).abs().sum().item() / views["opacity"].sum().item()

    assert distance(render_set(FEW, 0)) > 1.5 * distance(plain)


def test_the_cache_on_disk_is_the_one_in_memory(cache: ViewCache, tmp_path: Path) -> None:
    stored = ViewCache.open_or_render(tmp_path, FEW)
    assert len(stored) == len(cache)
    for name in FEW.layers:
        for group in range(len(cache)):
            assert np.array_equal(stored.layer(name, group), cache.layer(name, group))
    with pytest.raises(ValueError, match="choose another folder"):
        ViewCache.open_or_render(tmp_path, replace(FEW, seed=1))


def test_rounds_that_come_later_are_found(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The first ones stay as they were, and count no more rounds than were asked for."""
    with pytest.raises(ValueError, match="holds no views"):
        ViewCache.open(tmp_path, FEW)
    render_rounds(tmp_path, FEW)
    twice = replace(FEW, sets_per_caption=2)
    once, growing = ViewCache.open(tmp_path, FEW), ViewCache.open(tmp_path, twice)
    assert len(once) == len(growing)
    kinds = ["--kinds", "apple,mug"]
    monkeypatch = pytest.MonkeyPatch()
    with monkeypatch.context() as patched:
        patched.setattr(dataset, "view_settings", lambda given: twice)
        dataset.main(["--views", str(tmp_path), *kinds])
    assert "objects" in capsys.readouterr().out
    once.refresh()
    growing.refresh()
    assert len(growing) == 2 * len(once)
    whole, last = ViewCache.render(twice), len(growing) - 1
    for group in (0, last):
        assert np.array_equal(growing.layer("normal", group), whole.layer("normal", group))
    assert growing.caption(last) == whole.caption(last)
    poses = (each.cameras(torch.tensor([0, last])).camera_to_world for each in (growing, whole))
    assert torch.equal(*poses)


def test_batches_belong_together(cache: ViewCache) -> None:
    batch = draw_batch(cache, 64, (0, 1), dropped=0.25)
    again = draw_batch(cache, 64, (0, 1), dropped=0.25)
    assert torch.equal(batch.images, again.images) and batch.texts == again.texts
    assert {name: batch.modalities.count(name) for name in MODALITIES} == dict.fromkeys(MODALITIES, 16)
    assert 4 <= batch.texts.count("") <= 30
    geometry = torch.tensor([name in ("normal", "depth") for name in batch.modalities])
    assert (batch.background[geometry] == 0).all()
    assert 8 <= (batch.background[~geometry] == 1).all(1).sum() <= 24
    # Corners show nothing but the background.
    corner = batch.images[:, :, :, 0, 0]
    assert (corner - (2 * batch.background - 1)[:, None]).abs().max() < 1e-5
    for i, text in enumerate(batch.texts):
        caption = parse_caption(text) if text else None
        assert caption is None or (caption.kind, caption.color) not in FEW.held_out
        pose, poses = batch.cameras.camera_to_world[i], cache.cameras(torch.arange(len(cache))).camera_to_world
        groups = (poses == pose).flatten(1).all(1).nonzero().flatten().tolist()
        assert caption is None or caption in [cache.caption(group) for group in groups]


def test_a_batch_of_one_modality_shows_it_over_its_background(cache: ViewCache) -> None:
    """Of two modalities by the same seed everything but the images and the background is the same."""
    albedo, depth = (draw_batch(cache, 8, (0, 2), modality=name) for name in ("albedo", "depth"))
    assert albedo.texts == depth.texts
    assert torch.equal(albedo.cameras.camera_to_world, depth.cameras.camera_to_world)
    assert torch.equal(depth.images[:, :, 0], depth.images[:, :, 2])
    groups = [cache.layer("opacity", group) for group in range(len(cache))]
    assert depth.images.shape == (8, FEW.objects_per_set, 3, SIZE, SIZE) and len(groups) == len(cache)
    names = view_feature_names(MODALITIES)
    assert depth.features(names)[:, -4:].tolist() == [[0.0, 0.0, 0.0, 1.0]] * 8
    assert (depth.features(names)[:, 11:14] == -1).all()
    torch.testing.assert_close(albedo.features(names)[:, :14], camera_features(albedo.cameras, albedo.background))


def test_rewordings_mean_the_same_and_their_words_are_known() -> None:
    rng, known = np.random.default_rng(0), set(vocabulary(tuple(KINDS)))
    wordings = set()
    for kind in KINDS:
        for color in KINDS[kind].colors:
            caption = caption_of(kind, color)
            for text in {reworded(caption, rng) for _ in range(20)}:
                assert parse_caption(text) == caption, text
                assert known.issuperset(text.split()) and len(text.split()) <= MAX_TOKENS - 2, text
                assert named_kinds(text, {name: nouns(name) for name in KINDS}) == [kind], text
                wordings.add(text)
    assert len(wordings) > 3000
    rewordings = {reworded(caption_of("mug", "red"), rng) for _ in range(2000)}
    assert {"red mugs", "a mug in red", "a mug that is red", "the red mug", "a red mug with a handle"} <= rewordings


def test_the_tokenizer_ignores_case_and_punctuation() -> None:
    tokenizer = build_tokenizer(vocabulary(FEW.kinds))
    tokens = tokenize(tokenizer, ["A red, MUG!", "a red mug", "a red zeppelin", ""])
    assert tokens.shape == (4, MAX_TOKENS)
    assert torch.equal(tokens[0], tokens[1])
    assert tokens[2, 3] == tokenizer.unk_token_id and (tokens[:2] != tokenizer.unk_token_id).all()
    assert tokens[3, :3].tolist() == [tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id]


def test_the_posterior_mean_is_the_image_without_noise_and_the_mean_under_all_of_it(
    generator: torch.Generator,
) -> None:
    images = torch.rand(2, 4, 3, 8, 8, generator=generator) * 2 - 1
    noise = torch.randn(2, 3, 8, 8, generator=generator)
    schedule = NoiseSchedule(torch.tensor([1.0, 0.0]), torch.tensor([1e-3, 1.0]))
    sample = schedule.add_noise(images[:, 0], noise, torch.tensor([0, 1]))
    mean = posterior_mean(sample, images)
    torch.testing.assert_close(mean[0], images[0, 0])
    torch.testing.assert_close(mean[1], images[1].mean(0))


def test_the_posterior_mean_is_unbiased(generator: torch.Generator) -> None:
    """Regressed on anything the noisy image tells, it gives what the single image gives, with less variance."""
    count = 20000
    images = torch.randn(count, 4, 3, 1, 1, generator=generator)
    sample = NoiseSchedule(torch.tensor([0.6]), torch.tensor([0.8])).add_noise(
        images[:, 0], torch.randn(count, 3, 1, 1, generator=generator), torch.zeros(count, dtype=torch.long)
    )
    mean, noisy = posterior_mean(sample, images), sample.noisy
    slope = (mean * noisy).mean() / noisy.square().mean()
    assert slope == pytest.approx(0.6, abs=0.015)  # E[x | noisy] = alpha * noisy for unit variances
    assert (mean - 0.6 * noisy).var() < 0.8 * (images[:, 0] - 0.6 * noisy).var()


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
        train(tmp_path, 2, replace(SETTINGS, images=5), SMALL, cache, evaluate_every=0)


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
    features = conditions_at([10.0, 200.0])
    tokens = tokenize(tokenizer, ["a red mug", ""])
    assert torch.equal(tokenize(words, ["a red mug", ""]), tokens)
    with torch.no_grad():
        expected, actual = model(noisy, timestep, tokens, features), loaded(noisy, timestep, tokens, features)
        torch.testing.assert_close(actual, expected, atol=0.01, rtol=0.01)  # half precision on disk
        otherwise = [
            loaded(noisy, timestep, tokens, conditions_at([190.0, 20.0])),
            loaded(noisy, timestep, tokens, conditions_at([10.0, 200.0], "depth")),
            loaded(noisy, timestep, tokens.flip(0), features),
        ]
    assert all((other - actual).abs().max() > 1e-4 for other in otherwise)


def test_a_camera_described_otherwise_is_refused(tmp_path: Path) -> None:
    save_tiny_prior(tmp_path, small_model(), build_tokenizer(vocabulary(FEW.kinds)), FEW.kinds)
    index = tmp_path / "model_index.json"
    index.write_text(index.read_text().replace('"zoom"', '"roll"'))
    with pytest.raises(ValueError, match="expects the camera as"):
        load_pipeline(tmp_path)


def test_scores_cover_every_modality_and_condition(cache: ViewCache) -> None:
    model, tokenizer = small_model(), build_tokenizer(vocabulary(FEW.kinds))
    examples = Examples.render(FEW, count=8)
    assert {parse_caption(text).color for text in examples.held_out["depth"].texts} == {"green", "pink"}
    scores = evaluate(model, tokenizer, examples)
    assert scores == evaluate(model, tokenizer, examples)
    assert tuple(scores) == MODALITIES
    for name, conditions in scores.items():
        assert conditions["right"]["950"] > 0.05
        assert set(conditions) >= {"turned by 180 degrees", "wrong words", "held-out pairs"}
        assert {name for name in conditions if name.startswith("as ")} == {
            f"as {it}" for it in MODALITIES if it != name
        }


def test_the_command_lines_train_go_on_and_draw(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    rendered = ViewCache.render(ViewSettings(("apple",), (), 1, objects_per_set=2, cameras_per_set=2, size=SIZE))
    monkeypatch.setattr(ViewCache, "open", lambda folder, settings: rendered)
    run, sheet = tmp_path / "run", tmp_path / "sheet.png"
    shape = ["--patch", "8", "--channels", "32,32", "--evaluate-every", "0"]
    arguments = ["--run", str(run), "--kinds", "apple", "--sets", "1", "--images", "1", *shape]
    arguments += ["--size", str(SIZE), "--rendered-elsewhere", "--warm-start", str(SHIPPED)]
    training.main([*arguments, "--steps", "1"])
    printed = capsys.readouterr().out
    assert "going on" not in printed and "of the weights from" in printed
    training.main([*arguments, "--steps", "2"])
    assert "going on from step 1" in capsys.readouterr().out
    sampling.main(["--model", str(run / "prior"), "--out", str(sheet), "--azimuths", "2", "--prompt", "a red apple"])
    with Image.open(sheet) as image:
        assert image.size == (3 * len(MODALITIES) * SIZE * 2, SIZE * 2)
    assert "row 1: a red apple" in capsys.readouterr().out


def test_the_denoiser_that_is_distilled_is_the_one_that_was_trained(tmp_path: Path, generator: torch.Generator) -> None:
    tokenizer = build_tokenizer(vocabulary(FEW.kinds))
    save_tiny_prior(tmp_path, small_model(), tokenizer, FEW.kinds)
    model, _ = load_tiny_prior(tmp_path)
    prior = DiffusersPrior(str(tmp_path), torch.device("cpu"), cache_text=False)
    assert prior.image_size == SIZE
    cameras, background = Cameras.orbit([10.0, 200.0], [20.0, 60.0], height=SIZE), torch.tensor([[1.0] * 3, [0.2] * 3])
    clean, noise = (torch.randn(2, 3, SIZE, SIZE, generator=generator) for _ in range(2))
    sample = prior.schedule.add_noise(clean, noise, torch.tensor([100, 900]))
    torch.testing.assert_close(sample.noisy, model.schedule.add_noise(clean, noise, sample.timestep).noisy)
    condition = prior.condition(prior.embed("A green mug"), cameras, background)
    positive, negative = noise_pair(prior, sample, condition)
    features = view_features(model.features, cameras, background)
    for text, actual in (("a green mug", positive), ("", negative)):
        estimate = model(sample.noisy, sample.timestep, tokenize(tokenizer, [text] * 2), features)
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
    assert f"{record['color']['right']['200']:.4f}" in next(row for row in rows if row[0] == "40")
    turned = next(row for row in rows if row[0] == "turned by 90 degrees")
    assert turned[5].startswith(f"{record['color']['turned by 90 degrees']['800']:.4f} (") and turned[5].endswith("%)")
    assert "green mug" in card and f"{sum(p.numel() for p in small_model().parameters()):,} parameters" in card
    assert str(2 * len(FEW.captions) * FEW.objects_per_set) + " views" in card
    assert ["training", "images", "`4`"] in rows and "2 steps of 4 images" in card
    weights, trained = (
        load_file(folder / "unet/diffusion_pytorch_model.safetensors") for folder in (out, run / "prior")
    )
    assert all(torch.equal(weights[name], trained[name]) for name in trained)
    assert {weight.dtype for weight in weights.values()} == {torch.float16}
    with Image.open(out / "samples.jpg") as image:
        assert image.size == (5 * len(MODALITIES) * SIZE, (len(FEW.kinds) + len(FEW.held_out)) * SIZE)

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


def test_more_pixels_get_more_noise_so_that_the_same_timestep_hides_as_much() -> None:
    """About a quarter of the signal-to-noise ratio, for four times the pixels; at 32 px Stable Diffusion's."""
    small, large = schedule_of(32), schedule_of(64)
    assert torch.equal(small.alphas, NoiseSchedule.scaled_linear().alphas)
    ratio = ((large.alphas / large.sigmas) / (small.alphas / small.sigmas)).square()
    assert ratio[:500].sub(0.25).abs().max() < 0.04 and ((ratio > 0.14) & (ratio < 0.27)).all()


def test_views_must_be_the_networks(cache: ViewCache) -> None:
    for shape in (replace(SMALL, size=64), replace(SMALL, modalities=("color",))):
        with pytest.raises(ValueError, match="make them agree"):
            Trainer(SETTINGS, shape, cache, 1)


def test_views_of_parts_of_the_image(cache: ViewCache) -> None:
    """They show what the enlarged image shows there, and only a network conditioned on it is trained on them."""
    parts = replace(FEW, crop_fraction=0.5, cameras_per_set=20, varied_light=False)
    cameras = parts.cameras_of_set(0)
    cropped = cameras.intrinsics[:, 0, 0] > 1.1 * cameras.intrinsics[:, 0, 0].min()
    assert 4 < cropped.sum() < 16
    assert torch.equal(cameras.camera_to_world, replace(parts, crop_fraction=0.0).cameras_of_set(0).camera_to_world)
    drawn = draw_batch(ViewCache.render(parts), 8, (0,))
    assert drawn.features(view_feature_names(MODALITIES, crops=True)).shape == (8, 14 + 9 + 4)
    with pytest.raises(ValueError, match="set crops=True"):
        Trainer(SETTINGS, SMALL, ViewCache(parts, []), 1)


def test_the_distilled_network_is_conditioned_on_the_part(tmp_path: Path) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = TinyPrior(replace(SMALL, crops=True), build_tokenizer(vocabulary(FEW.kinds))).eval()
    save_tiny_prior(tmp_path, model, build_tokenizer(vocabulary(FEW.kinds)), FEW.kinds)
    prior = DiffusersPrior(str(tmp_path), torch.device("cpu"), cache_text=False)
    whole = Cameras.orbit([0.0], [20.0], height=SIZE)
    part = whole.cropped(*(torch.tensor([value]) for value in (0.5, 0.25, 0.5)))
    assert prior.crops
    sample = prior.schedule.add_noise(torch.zeros(1, 3, SIZE, SIZE), torch.ones(1, 3, SIZE, SIZE), torch.tensor([500]))
    embedding = prior.embed("a green mug")
    seen = [
        noise_pair(prior, sample, prior.condition(embedding, views, torch.ones(1, 3)))[0] for views in (whole, part)
    ]
    assert (seen[0] - seen[1]).abs().max() > 1e-4


def test_a_network_for_larger_patches_begins_as_the_smaller_one_on_averages(generator: torch.Generator) -> None:
    """At twice the size and patch it answers what the source answers to the averaged image, repeated."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        words = vocabulary(("apple", "mug", "duck"))
        model = TinyPrior(replace(SMALL, size=64, patch=16), build_tokenizer(words)).eval()
        source = TinyPrior(replace(SMALL, modalities=("color",)), build_tokenizer(vocabulary(FEW.kinds))).eval()
    assert warm_start(model, build_tokenizer(words), pipeline_of(source)) == 1.0
    noisy, timestep = torch.randn(2, 3, 64, 64, generator=generator), torch.tensor([10, 900])
    features = conditions_at([10.0, 200.0])
    texts = ["a red mug", ""]
    with torch.no_grad():
        tokens = (tokenize(build_tokenizer(each), texts) for each in (words, vocabulary(FEW.kinds)))
        actual = model(noisy, timestep, next(tokens), features)
        expected = source(F.avg_pool2d(noisy, 2), timestep, next(tokens), features[:, :14])
    torch.testing.assert_close(actual, F.interpolate(expected, scale_factor=2), atol=1e-4, rtol=1e-4)


def test_levels_correspond_from_the_coarsest_on() -> None:
    """A network with a new finest level takes all the others over; with other channels, what fits."""
    words = build_tokenizer(vocabulary(FEW.kinds))
    with torch.random.fork_rng():
        torch.manual_seed(0)
        source = TinyPrior(replace(SMALL, channels=(64, 96)), words)
        grown = TinyPrior(replace(SMALL, channels=(32, 64, 96)), words)
        other = TinyPrior(replace(SMALL, channels=(64, 32)), words)
    for model in (grown, other):
        assert 0 < warm_start(model, words, pipeline_of(source)) < 1
    taken, had = grown.unet.state_dict(), source.unet.state_dict()
    for to, origin in (("down_blocks.2", "down_blocks.1"), ("up_blocks.0", "up_blocks.0"), ("mid_block", "mid_block")):
        names = [name.removeprefix(origin) for name in had if name.startswith(f"{origin}.resnets.0.")]
        assert names and all(torch.equal(taken[to + name], had[origin + name]) for name in names)
    # Its own finest level sees patches of the same size: a good start for the new one, unless its channels differ.
    name = "down_blocks.0.resnets.0.conv1.weight"
    assert not torch.equal(taken["conv_in.weight"], had["conv_in.weight"])
    with torch.random.fork_rng():
        torch.manual_seed(0)
        finer = TinyPrior(replace(SMALL, channels=(64, 64, 96)), words)
        coarse = TinyPrior(replace(SMALL, channels=(64, 64, 96), patch=4), words)
    for model, same in ((finer, True), (coarse, False)):
        had_not = model.unet.state_dict()[name].clone()
        warm_start(model, words, pipeline_of(source))
        assert torch.equal(model.unet.state_dict()[name], had[name] if same else had_not)
    assert torch.equal(other.unet.state_dict()[name], had[name])


def pipeline_of(model: TinyPrior) -> CameraConditionedPipeline:
    with tempfile.TemporaryDirectory() as folder:
        tokenizer = build_tokenizer(vocabulary(FEW.kinds))
        save_tiny_prior(Path(folder), model, tokenizer, FEW.kinds)
        pipeline = load_pipeline(Path(folder))
    # Half precision on disk.
    pipeline.unet.load_state_dict(model.unet.state_dict())
    pipeline.text_encoder.load_state_dict(model.text_encoder.state_dict())
    return pipeline


def test_the_shipped_weights_know_every_kind_and_modality() -> None:
    """They know all kinds and modalities at 64 pixels."""
    pipeline = load_pipeline(SHIPPED)
    assert pipeline.modalities == MODALITIES and set(pipeline.config["kinds"]) == set(KINDS)
    assert "/" not in json.loads((SHIPPED / "unet" / "config.json").read_text()).get("_name_or_path", "")
    model, tokenizer = load_tiny_prior(SHIPPED)
    assert tokenize(tokenizer, ["a red mug"]).shape == (1, 20) and model.size == 64
    assert model.modalities == MODALITIES
