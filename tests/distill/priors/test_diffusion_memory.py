"""The estimate of memory, which computes nothing, against real calls of models with random weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from predicted_noise import noise_pair
from tiny_diffusion_models import IMAGE_SIZE, PIPELINES, save_tiny_model
from torch import Tensor, nn

from steindreamer.distill.priors.diffusion import DiffusersPrior
from steindreamer.distill.priors.diffusion.families import FAMILIES
from steindreamer.distill.priors.diffusion.live_bytes import LiveBytes, counted, fused_attention, on_meta, weight_bytes
from steindreamer.distill.priors.diffusion.memory import MemoryEstimate, estimate_memory
from steindreamer.representations import Cameras

pytest.importorskip("diffusers")
pytest.importorskip("transformers")

VIEWS = 3
SETTINGS: list[dict[str, Any]] = [
    {"micro_batch": 1},
    {"micro_batch": 2},
    {"gradient_checkpointing": True},
    {"perp_neg": True},
    {"precision": "bfloat16"},
]


def _prior(folder: Path, pipeline: str, **settings: Any) -> DiffusersPrior:
    size = IMAGE_SIZE if FAMILIES[pipeline].autoencoder_class else 0
    return DiffusersPrior(str(folder), torch.device("cpu"), **{"image_size": size, "cache_text": False, **settings})


def _estimate(prior: DiffusersPrior) -> MemoryEstimate:
    return estimate_memory(prior, prior.embed("a mug"), VIEWS, prompts=("positive", "negative"), decodes=True)


def _measured(prior: DiffusersPrior) -> dict[str, int]:
    """Bytes alive during the parts of a real step."""
    size = prior.image_size
    cameras = Cameras.orbit([45.0] * VIEWS, [0.0] * VIEWS, height=size)
    condition = prior.condition(prior.embed("a mug"), cameras, torch.zeros(VIEWS, 3))
    image = torch.rand(VIEWS, 3, size, size, requires_grad=True)
    found: dict[str, int] = {}
    with LiveBytes() as live:

        def note(name: str) -> None:
            found[name], live.peak = live.peak, live.now

        encoded = prior.encode(image)
        note("encode")
        found["kept"] = live.now
        sample = prior.schedule.add_noise(encoded.detach(), torch.zeros_like(encoded), torch.full((VIEWS,), 500))
        noise_pair(prior, sample, condition)
        note("predict")
        latent = sample.noisy.requires_grad_()
        rendering = prior.decode(latent)
        rendering.backward(torch.zeros_like(rendering))
        note("decode")
        del latent, rendering
        live.peak = live.now
        encoded.backward(sample.noise)
        note("backward")
    return found


@pytest.mark.parametrize(
    ("pipeline", "settings"),
    [*((name, {}) for name in PIPELINES), *(("StableDiffusionPipeline", each) for each in SETTINGS)],
)
def test_estimated_is_what_a_real_step_takes(pipeline: str, settings: dict[str, Any], tmp_path: Path) -> None:
    prior = _prior(save_tiny_model(tmp_path, pipeline), pipeline, **settings)
    estimate, measured = _estimate(prior), _measured(prior)
    assert {name: getattr(estimate, name) for name in measured} == pytest.approx(measured, rel=0.01)
    assert estimate.kept == measured["kept"]


def test_kept_is_what_autograd_saves(tmp_path: Path) -> None:
    """An independent count: the tensors that operations hand to autograd."""
    prior = _prior(save_tiny_model(tmp_path), "StableDiffusionPipeline")
    image = torch.rand(VIEWS, 3, IMAGE_SIZE, IMAGE_SIZE, requires_grad=True)
    held = [image, *(p for part in prior.parts.values() for p in part.parameters())]
    saved: dict[int, Tensor] = {}

    def keep(tensor: Tensor) -> Tensor:
        saved[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        prior.encode(image)
    for tensor in held:
        saved.pop(tensor.untyped_storage().data_ptr(), None)
    total = sum(tensor.untyped_storage().nbytes() for tensor in saved.values())
    assert _estimate(prior).kept == pytest.approx(total, rel=0.01)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_weights_are_exact(precision: str, tmp_path: Path) -> None:
    pipeline = "StableDiffusion3Pipeline"
    made = PIPELINES[pipeline]()
    made.save_pretrained(tmp_path)
    prior = _prior(tmp_path, pipeline, precision=precision)
    estimate = _estimate(prior)
    half = 2 if precision == "bfloat16" else 1

    def size(part: nn.Module) -> int:
        return sum(tensor.nbytes for tensor in part.state_dict().values())

    assert estimate.weights["autoencoder"] == size(made.vae)
    assert estimate.weights["denoiser"] == size(made.transformer) // half
    clips = made.text_encoder.num_parameters() + made.text_encoder_2.num_parameters()
    positions = sum(b.nbytes for clip in (made.text_encoder, made.text_encoder_2) for b in clip.buffers())
    assert estimate.text_encoders == 4 * clips + positions + made.text_encoder_3.num_parameters() * 4 // half


def test_a_step_takes_what_its_worst_moment_takes() -> None:
    weights = {"denoiser": 100, "autoencoder": 10}
    assert MemoryEstimate(weights, 50, kept=1, encode=2, predict=30, decode=4, backward=5).step == 140
    assert MemoryEstimate(weights, 50, kept=1, encode=2, predict=30, decode=0, backward=60).step == 170
    assert MemoryEstimate(weights, 500, kept=1, encode=20, predict=3, decode=4, backward=5).step == 130


def test_live_bytes_counts_what_is_alive() -> None:
    given = torch.zeros(10)
    with LiveBytes() as live:
        view = given[2:]
        made = view + 1
        assert live.now == 8 * 4
        made += 1
        made.sum()
        assert (live.now, live.peak) == (8 * 4, 8 * 4 + 4)
        kept = made[:1]
        del made
        assert live.now == 8 * 4
        del kept
        assert live.now == 0


def test_meta_attention_never_holds_the_matrix() -> None:
    attention = torch.nn.functional.scaled_dot_product_attention
    query = torch.empty(1, 2, 64, 4, device="meta", requires_grad=True)
    with counted() as live:
        attention(query, query, query).backward(query)
        assert live.peak < 64 * 64 * 4
    with LiveBytes() as live:
        attention(query, query, query)
        assert live.peak > 64 * 64 * 4
    real = torch.rand(1, 2, 64, 4)
    torch.testing.assert_close(fused_attention(real, real, real), attention(real, real, real))


def test_the_meta_copy_shares_nothing_and_moves_no_weights(tmp_path: Path) -> None:
    prior = _prior(save_tiny_model(tmp_path), "StableDiffusionPipeline")
    meta = prior.on_meta()
    assert {str(p.device) for part in meta.parts.values() for p in part.parameters()} == {"meta"}
    assert {str(p.device) for part in prior.parts.values() for p in part.parameters()} == {"cpu"}
    assert [weight_bytes(part) for part in meta.parts.values()] == [weight_bytes(part) for part in prior.parts.values()]


def test_shared_weights_count_once() -> None:
    layer = nn.Linear(3, 2)
    both = nn.Sequential(layer, nn.Linear(3, 2))
    both[1].weight = layer.weight
    assert weight_bytes(both) == 4 * (3 * 2 + 2 + 2)
    assert weight_bytes(on_meta(both, [both])) == weight_bytes(both)
