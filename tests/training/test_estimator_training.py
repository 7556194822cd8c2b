"""The estimator's data, losses, training and scores: closed forms, and that a resumed run is the same run."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import trimesh
from safetensors.torch import load_file

from steindreamer.distill.geometry.base import GeometryEstimate
from steindreamer.distill.geometry.files import EstimatorConfig
from steindreamer.distill.geometry.loading import load_monocular_estimator
from steindreamer.distill.geometry.timm_estimator import TimmEstimatorConfig, TimmGeometryEstimator
from steindreamer.distill.geometry.tiny_estimator import TinyEstimatorConfig, load_tiny_estimator
from steindreamer.representations import Cameras, TriangleMesh
from steindreamer.training.estimator import train as training
from steindreamer.training.estimator.dataset import (
    SIZE,
    ViewCache,
    Views,
    ViewSettings,
    augmented,
    noisy_batch,
    render_views,
    views_from_render,
)
from steindreamer.training.estimator.evaluate import mean_score, silhouette_score
from steindreamer.training.estimator.train import (
    Trainer,
    TrainingSettings,
    build_estimator,
    gradient_difference,
    losses,
    train,
)
from steindreamer.world.views import render_objects

FEW = ViewSettings(objects=2)
SMALL = TinyEstimatorConfig(channels=(8, 8), head_channels=8, embedding_channels=8)
# With BatchNorm, whose running statistics a resumed run must have, too.
SMALL_TIMM = TimmEstimatorConfig("test_resnet", decoder_channels=8, head_channels=8, embedding_channels=8)
SETTINGS = TrainingSettings(images=4, full_size_share=0.5)


@pytest.fixture(scope="module")
def views() -> Views:
    return render_views(FEW, 0, FEW.objects)


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> ViewCache:
    """Rendered by a process of its own."""
    return ViewCache.open_or_render(tmp_path_factory.mktemp("run") / "views", FEW)


def clean(views: Views, size: int, generator: torch.Generator) -> training.Batch:
    count = len(views.foreground)
    return noisy_batch(views, size, torch.ones(count), torch.zeros(count), generator)


def test_a_sphere_has_the_geometry_of_a_sphere() -> None:
    radius, distance = 0.8, 3.3
    sphere = trimesh.creation.icosphere(subdivisions=5, radius=radius)
    vertices = torch.from_numpy(sphere.vertices).float()
    mesh = TriangleMesh(vertices, torch.from_numpy(sphere.faces.copy()).long(), colors=torch.ones_like(vertices))
    cameras = Cameras.orbit([70.0], [40.0], distance=distance, height=65)
    views = views_from_render(render_objects([mesh], cameras, torch.zeros(1, 3)), cameras)
    near, far = 1 / (distance - 1), 1 / (distance + 1)
    assert views.disparity[0, 0, 32, 32] == pytest.approx((1 / (distance - radius) - far) / (near - far), abs=1e-3)
    assert views.disparity[0, 0, 0, 0] == 0 and not views.normal[0, :, 0, 0].any()
    torch.testing.assert_close(views.normal[0, :, 32, 32], torch.tensor([0.0, 0.0, -1.0]), atol=0.02, rtol=0)
    assert views.normal[0, 0, 32, 40] > 0.2 and views.normal[0, 1, 40, 32] > 0.2  # x right, y down


def test_views_depend_on_the_seed_and_the_object_only(views: Views) -> None:
    again = render_views(FEW, 1, 2)
    assert torch.equal(again.foreground, views[4:8].foreground) and torch.equal(again.normal, views[4:8].normal)
    other = render_views(ViewSettings(objects=2, seed=1), 1, 2)
    assert not torch.equal(other.foreground, again.foreground)


def test_the_cache_holds_the_views(cache: ViewCache, views: Views) -> None:
    assert len(cache) == FEW.views
    stored = cache.views(torch.tensor([5, 0]))
    for name, steps in (("foreground", 255), ("disparity", 65535), ("normal", 127)):
        expected = getattr(views, name)[[5, 0]]
        torch.testing.assert_close(getattr(stored, name), expected, atol=0.51 / steps, rtol=0)


def test_a_cache_of_other_views_is_refused(cache: ViewCache) -> None:
    with pytest.raises(ValueError, match="choose another folder"):
        ViewCache.open_or_render(cache.folder, ViewSettings(objects=3))


def test_noise_is_the_schedules(generator: torch.Generator) -> None:
    """On the sRGB scale 0.5 + 0.5 * (alpha * (2 * clean - 1) + sigma * noise); half of the backgrounds are white."""
    nothing = Views(torch.zeros(100, 4, 32, 32), torch.zeros(100, 1, 32, 32), torch.zeros(100, 3, 32, 32))
    batch = noisy_batch(nothing, 32, torch.full((100,), 0.6), torch.full((100,), 0.8), generator)
    noisy = 2 * batch.image - 1
    background = noisy.mean((2, 3)) / 0.6
    assert noisy.std((2, 3)).mean() == pytest.approx(0.8, rel=0.01)
    assert (background > -1.2).all() and (background < 1.2).all()
    assert 35 <= ((background - 1).abs() < 0.2).all(1).sum() <= 65
    assert torch.equal(batch.noise_level, torch.full((100,), 0.8))
    assert not batch.mask.any()


def test_clean_images_show_the_object_over_one_color(views: Views, generator: torch.Generator) -> None:
    batch = clean(views, SIZE, generator)
    empty = views.foreground[:, 3:] == 0
    corner = batch.image[:, :, :1, :1]
    assert torch.where(empty, batch.image - corner, 0.0).abs().max() < 1e-6
    full = views.foreground[:, 3:] == 1
    assert torch.where(full, batch.image - views.foreground[:, :3], 0.0).abs().max() < 1e-6


def test_halving_averages_geometry_over_the_object_only(generator: torch.Generator) -> None:
    """A block with one covered pixel of four has that pixel's geometry, not a quarter of it."""
    foreground, disparity, normal = torch.zeros(1, 4, 2, 2), torch.zeros(1, 1, 2, 2), torch.zeros(1, 3, 2, 2)
    foreground[..., 0, 0], disparity[..., 0, 0] = 1.0, 0.6
    normal[0, :, 0, 0] = torch.tensor([0.6, 0.0, -0.8])
    batch = clean(Views(foreground, disparity, normal), 1, generator)
    assert batch.disparity.item() == pytest.approx(0.6)
    torch.testing.assert_close(batch.normal.flatten(), torch.tensor([0.6, 0.0, -0.8]))
    assert not batch.mask.any()


def test_augmentation_mirrors_geometry_and_shuffles_colors(views: Views, generator: torch.Generator) -> None:
    changed, mirrored = augmented(views, generator), 0
    for index in range(FEW.views):
        before, after = views[index : index + 1], changed[index : index + 1]
        if not torch.equal(before.disparity, after.disparity):
            mirrored += 1
            flipped = before.normal.flip(3)
            before = Views(
                before.foreground.flip(3),
                before.disparity.flip(3),
                flipped * flipped.new_tensor([[[-1]], [[1]], [[1]]]),
            )
        assert torch.equal(before.disparity, after.disparity) and torch.equal(before.normal, after.normal)
        assert torch.equal(before.foreground[:, 3], after.foreground[:, 3])
        assert torch.equal(before.foreground[:, :3].sort(1).values, after.foreground[:, :3].sort(1).values)
    assert 0 < mirrored < FEW.views


def test_losses_vanish_at_the_truth_only(views: Views, generator: torch.Generator) -> None:
    batch = clean(views, SIZE // 2, generator)
    right = losses(GeometryEstimate(batch.disparity, batch.normal), batch)
    assert all(value < 1e-3 for value in right.values())
    inverted = losses(GeometryEstimate(-batch.disparity, -batch.normal), batch)
    assert inverted["object"] > 1.9 and inverted["image"] > 0.9 and inverted["normal"] > 1.9
    assert inverted["detail"] > 0.05 and inverted["disparity"] > 0.1


def test_slopes_ignore_a_shift(views: Views, generator: torch.Generator) -> None:
    batch = clean(views, SIZE // 2, generator)
    mask = batch.mask.float()
    assert gradient_difference(batch.disparity + 3.0, batch.disparity, mask) < 1e-4
    assert gradient_difference(batch.disparity * 3.0, batch.disparity, mask) > 0.05


def test_a_ramp_has_the_closed_form_slope_difference() -> None:
    """d = x over [0, 7]: slopes at spacing k differ by k, in units of the ramp's deviation; half vertical."""
    target = torch.arange(8.0).expand(1, 1, 8, 8).clone()
    relief = target.std(correction=0)
    value = gradient_difference(2 * target, target, torch.ones(1, 1, 8, 8))
    assert value == pytest.approx(float((1 + 2 + 4) / relief / 8), rel=1e-5)


@pytest.mark.parametrize("config", [SMALL, SMALL_TIMM], ids=("tiny", "timm"))
def test_a_resumed_run_is_the_same_run(
    cache: ViewCache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, config: EstimatorConfig
) -> None:
    train(tmp_path / "whole", 4, SETTINGS, config, cache)
    step = Trainer.step

    def interrupted(trainer: Trainer) -> dict[str, float]:
        if trainer.steps_done == 3:
            raise KeyboardInterrupt
        return step(trainer)

    monkeypatch.setattr(Trainer, "step", interrupted)
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "halves", 4, SETTINGS, config, cache, save_every=2)
    monkeypatch.undo()
    train(tmp_path / "halves", 4, SETTINGS, config, cache, save_every=2)
    whole, halves = (load_file(tmp_path / name / "checkpoint.safetensors") for name in ("whole", "halves"))
    assert whole.keys() == halves.keys() and whole["steps_done"] == 4
    for name, value in whole.items():
        assert torch.equal(value, halves[name]), name


def test_a_folder_of_another_run_is_refused(cache: ViewCache, tmp_path: Path) -> None:
    train(tmp_path, 1, SETTINGS, SMALL, cache)
    with pytest.raises(ValueError, match="choose another folder"):
        train(tmp_path, 2, TrainingSettings(images=5), SMALL, cache)


def test_a_training_starts_with_the_weights_of_an_estimator(cache: ViewCache, tmp_path: Path) -> None:
    started = train(tmp_path / "first", 2, SETTINGS, SMALL, cache)
    weights = load_tiny_estimator(started).state_dict()
    for name, value in Trainer(SETTINGS, SMALL, cache, 1, start=started).model.state_dict().items():
        assert torch.equal(value, weights[name]), name
    train(tmp_path / "second", 1, SETTINGS, SMALL, cache, start=started)
    with pytest.raises(ValueError, match="choose another folder"):
        train(tmp_path / "second", 2, SETTINGS, SMALL, cache)
    other = TinyEstimatorConfig(channels=(8, 16), head_channels=8, embedding_channels=8)
    with pytest.raises(ValueError, match="choose another to start with"):
        Trainer(SETTINGS, other, cache, 1, start=started)


def test_a_few_steps_learn_the_silhouette(cache: ViewCache) -> None:
    trainer = Trainer(TrainingSettings(images=4, full_size_share=0.0, warm_up=1, clean_share=1.0), SMALL, cache, 100)
    history = [trainer.step()["image"] for _ in range(20)]
    assert sum(history[-5:]) < 0.75 * sum(history[:5])


def test_the_command_line_trains_and_goes_on(
    cache: ViewCache, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    views = ["--views", str(cache.folder), "--objects", str(FEW.objects)]
    arguments = ["--run", str(tmp_path), *views, "--images", "1", "--threads", str(torch.get_num_threads())]
    training.main([*arguments, "--steps", "1"])
    assert "going on" not in capsys.readouterr().out
    training.main([*arguments, "--steps", "2"])
    assert "going on from step 1" in capsys.readouterr().out
    with pytest.raises(ValueError, match="choose another folder"):
        training.main([*arguments, "--steps", "2", "--start", str(tmp_path / "estimator")])
    load_tiny_estimator(tmp_path / "estimator")


def test_the_command_line_trains_a_head_on_a_timm_backbone(
    cache: ViewCache, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    views = ["--views", str(cache.folder), "--objects", str(FEW.objects)]
    arguments = ["--run", str(tmp_path), *views, "--images", "1", "--threads", str(torch.get_num_threads())]
    training.main([*arguments, "--network", "timm", "--backbone", "test_resnet", "--steps", "1"])
    estimator = load_monocular_estimator(str(tmp_path / "estimator"))
    assert isinstance(estimator, TimmGeometryEstimator) and estimator.config.backbone == "test_resnet"
    with pytest.raises(ValueError, match="choose another folder"):
        training.main([*arguments, "--network", "tiny", "--steps", "2"])


def test_a_config_without_a_network_is_refused() -> None:
    with pytest.raises(ValueError, match="no network for a EstimatorConfig; there are tiny, timm"):
        build_estimator(EstimatorConfig())


def test_scores_of_the_truth_and_of_the_silhouette(views: Views, generator: torch.Generator) -> None:
    batch = clean(views, SIZE, generator)
    truth = mean_score([(GeometryEstimate(batch.disparity, batch.normal), batch)])
    assert truth.image > 0.999 and truth.object > 0.999 and truth.degrees < 0.1 and truth.error == 0
    nearer = mean_score([(GeometryEstimate(batch.disparity + 0.25, batch.normal), batch)])
    assert nearer.object > 0.999 and nearer.error == pytest.approx(0.25, abs=1e-5)
    flat = silhouette_score(views, SIZE)
    assert abs(flat.object) < 1e-3 and flat.image > 0.8 and flat.degrees > 20
