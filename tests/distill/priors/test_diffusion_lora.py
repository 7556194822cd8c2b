"""The LoRA denoiser of every family: exact while off, peft's while on, trained by Eq. 3's denoising loss."""

from __future__ import annotations

import copy
import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load, save, save_file
from tiny_diffusion_models import IMAGE_SIZE, PIPELINES, save_tiny_model
from torch import Tensor, nn

from steindreamer.distill.noise.parameterization import noise_from_output
from steindreamer.distill.priors.diffusion import DiffusersPrior
from steindreamer.distill.priors.diffusion.lora import LoRADenoiser
from steindreamer.representations import Cameras

pytest.importorskip("diffusers")
pytest.importorskip("transformers")

CPU = torch.device("cpu")
CAMERAS = Cameras.orbit([0.0, 130.0], [10.0, -20.0], height=8)
FAMILY = "StableDiffusionPipeline"


class Call:
    """One call of a family's denoiser, always of the same images."""

    def __init__(self, folder: Path, precision: str = "float32") -> None:
        size = 16 if folder.name in ("IFPipeline", "CameraConditionedPipeline") else IMAGE_SIZE
        self.prior = DiffusersPrior(str(folder), CPU, image_size=size, precision=precision)
        self.dtype = getattr(torch, precision)
        generator = torch.Generator().manual_seed(4)
        self.clean = self.prior.encode(torch.rand(2, 3, size, size, generator=generator)).detach()
        self.noise = torch.randn(self.clean.shape, generator=generator)
        self.sample = self.prior.schedule.add_noise(self.clean, self.noise, torch.tensor([150, 600]))
        embedding = self.prior.embed("a red mug")
        condition = self.prior.condition(embedding, CAMERAS, torch.ones(2, 3))
        self.text = (condition.positive | condition.camera).to(CPU, self.dtype).tensors

    @property
    def denoiser(self) -> Any:
        return self.prior.denoiser

    def __call__(self) -> Tensor:
        family, sample, size = self.prior.family, self.sample, self.prior.image_size
        return family.call(self.denoiser, sample.noisy.to(self.dtype), family.time(sample), self.text, size)

    def noise_error(self) -> Tensor:
        """Eq. 3's loss at these images, timesteps and noises."""
        output = self()[:, : self.clean.shape[1]]
        return (noise_from_output(output, self.prior._prediction_type, self.sample) - self.noise).square().mean()


@pytest.fixture(scope="module")
def folder_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    made: dict[str, Path] = {}

    def folder(pipeline: str) -> Path:
        if pipeline not in made:
            made[pipeline] = save_tiny_model(tmp_path_factory.mktemp("tiny") / pipeline, pipeline)
        return made[pipeline]

    return folder


@pytest.fixture(scope="module")
def call(folder_of: Callable[[str], Path]) -> Call:
    return Call(folder_of(FAMILY))


def low_rank_of(call: Call, seed: int = 0, **options: Any) -> LoRADenoiser:
    return LoRADenoiser(call.denoiser, generator=torch.Generator().manual_seed(seed), **options)


def disturb(module: nn.Module) -> None:
    """As if it had been trained."""
    generator = torch.Generator().manual_seed(9)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter += 0.3 * torch.randn(parameter.shape, generator=generator)


@torch.no_grad()
def answer(call: Call, low_rank: LoRADenoiser, camera: Tensor | None = None) -> Tensor:
    with low_rank.active(camera):
        return call()


@pytest.mark.parametrize("pipeline", PIPELINES)
def test_every_family_has_a_copy_and_stays_what_it_was(pipeline: str, folder_of: Callable[[str], Path]) -> None:
    call, pose = Call(folder_of(pipeline)), CAMERAS.camera_to_world
    weights = {name: tensor.clone() for name, tensor in call.denoiser.state_dict().items()}
    with torch.no_grad():
        before = call()
    low_rank = low_rank_of(call)
    assert torch.equal(answer(call, low_rank, pose), before)

    with low_rank.active(pose):
        loss = call.noise_error()
    loss.backward()
    trained = {name for name, p in low_rank.named_parameters() if p.grad is not None and p.grad.abs().max() > 0}
    last = {name for name, _ in low_rank.named_parameters() if "lora_B" in name or name.startswith("camera.2")}
    assert trained <= last, "what is multiplied by zero has no gradient yet"
    # The last layer of Stable Diffusion 3 has no use for what the text asks.
    assert all("transformer_blocks.1.attn.add_q_proj" in name for name in last - trained)
    assert not any(p.requires_grad or p.grad is not None for p in call.denoiser.parameters())

    disturb(low_rank)
    shown, turned, hidden = (answer(call, low_rank, matrix) for matrix in (pose, pose.flip(0), None))
    with torch.no_grad():
        assert torch.equal(call(), before)
    differences = [(shown - before), (shown - turned), (shown - hidden), (turned - hidden)]
    assert min(float(difference.abs().amax((1, 2, 3)).min()) for difference in differences) > 1e-4
    assert torch.equal(hidden, answer(call, low_rank, torch.zeros(2, 4, 4)))
    after = call.denoiser.state_dict()
    assert after.keys() == weights.keys() and all(torch.equal(after[name], weights[name]) for name in weights)


@pytest.mark.parametrize("pipeline", PIPELINES)
def test_without_cameras_it_is_pefts(pipeline: str, folder_of: Callable[[str], Path]) -> None:
    peft = pytest.importorskip("peft")
    call = Call(folder_of(pipeline))
    low_rank = low_rank_of(call, rank=3, camera=False)
    disturb(low_rank)
    state = {name.removeprefix("layers."): tensor for name, tensor in low_rank.state_dict().items()}
    projections = sorted({name.rsplit(".lora_", 1)[0] for name in state})
    config = peft.LoraConfig(r=3, lora_alpha=3, target_modules=projections)
    mine, theirs = answer(call, low_rank), copy.deepcopy(call.denoiser)
    peft.inject_adapter_in_model(config, theirs)
    loaded = peft.set_peft_model_state_dict(theirs, state)
    assert not loaded.unexpected_keys
    call.prior._denoiser = theirs
    with torch.no_grad():
        torch.testing.assert_close(call(), mine, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("pipeline", [FAMILY, "StableDiffusion3Pipeline", "FluxPipeline"])
def test_diffusers_loads_the_file(pipeline: str, folder_of: Callable[[str], Path], tmp_path: Path) -> None:
    """By its own `load_lora_adapter`, from a file that holds other things too."""
    pytest.importorskip("peft")
    call = Call(folder_of(pipeline))
    low_rank = low_rank_of(call, rank=3, camera=False)
    disturb(low_rank)
    mine = answer(call, low_rank)
    state = {f"score.{name}": tensor for name, tensor in low_rank.state_dict().items()}
    save_file({**state, "score.loss": torch.ones(())}, tmp_path / "state.safetensors")
    call.denoiser.load_lora_adapter(str(tmp_path), weight_name="state.safetensors", prefix="score.layers")
    with torch.no_grad():
        torch.testing.assert_close(call(), mine, rtol=1e-4, atol=1e-5)


def test_all_attention_is_adapted(call: Call, folder_of: Callable[[str], Path]) -> None:
    """Four projections per attention; joint attention of two streams has eight, of which the last layer keeps fewer."""
    unet = [name for name in low_rank_of(call).state_dict() if name.endswith("lora_A.weight")]
    attentions = [m for name, m in call.denoiser.named_modules() if name.rpartition(".")[2] in ("attn1", "attn2")]
    assert len(unet) == 4 * len(attentions) > 0
    joint = Call(folder_of("FluxPipeline"))
    names = [name for name in low_rank_of(joint).state_dict() if name.endswith("lora_A.weight")]
    assert sum("single" in name for name in names) == 3 and len(names) == 8 + 3


def test_denoising_one_view_teaches_the_copy(call: Call) -> None:
    """Eq. 3: the loss falls at noises that were not trained on too, and the camera comes to matter."""
    low_rank, pose = low_rank_of(call), CAMERAS.camera_to_world
    optimizer = torch.optim.AdamW(low_rank.parameters(), lr=2e-2)
    generator, known = torch.Generator().manual_seed(7), call.sample

    def loss() -> float:
        with torch.no_grad(), low_rank.active(pose):
            return float(call.noise_error())

    before, noise = loss(), call.noise
    for _ in range(40):
        call.noise = torch.randn(call.clean.shape, generator=generator)
        timestep = torch.randint(20, 980, (2,), generator=generator)
        call.sample = call.prior.schedule.add_noise(call.clean, call.noise, timestep)
        with low_rank.active(pose):
            error = call.noise_error()
        optimizer.zero_grad()
        error.backward()
        optimizer.step()
    call.sample, call.noise = known, noise
    assert loss() < before - 0.05
    assert (answer(call, low_rank, pose) - answer(call, low_rank, pose.flip(0))).abs().max() > 1e-3


def test_the_state_is_its_own_and_comes_back(call: Call) -> None:
    low_rank, pose = low_rank_of(call), CAMERAS.camera_to_world
    disturb(low_rank)
    state = low_rank.state_dict()
    assert set(state) == {name for name, _ in low_rank.named_parameters()}
    assert {name.split(".")[0] for name in state} == {"layers", "camera"}
    other = low_rank_of(call, seed=1)
    assert not torch.equal(answer(call, other, pose), answer(call, low_rank, pose))
    other.load_state_dict(load(save(state)))
    assert torch.equal(answer(call, other, pose), answer(call, low_rank, pose))


def test_copies_of_one_denoiser_do_not_meet(call: Call) -> None:
    first, second = low_rank_of(call), low_rank_of(call, seed=1)
    disturb(first)
    disturb(second)
    alone = answer(call, first), answer(call, second)
    with pytest.raises(RuntimeError, match="interrupted"), first.active():
        raise RuntimeError("interrupted")
    assert torch.equal(answer(call, second), alone[1]) and torch.equal(answer(call, first), alone[0])
    assert not torch.equal(*alone)


def test_the_generator_decides_everything(call: Call) -> None:
    torch.manual_seed(1)
    first, state = low_rank_of(call).state_dict(), torch.get_rng_state()
    second = low_rank_of(call).state_dict()
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("pipeline", [FAMILY, "StableDiffusion3Pipeline", "PixArtAlphaPipeline"])
def test_half_precision_denoisers_have_full_precision_updates(pipeline: str, folder_of: Callable[[str], Path]) -> None:
    full, half = (Call(folder_of(pipeline), precision) for precision in ("float32", "bfloat16"))
    pose = CAMERAS.camera_to_world
    expected, low_rank = low_rank_of(full), low_rank_of(half)
    disturb(expected)
    disturb(low_rank)
    with torch.no_grad():
        before = half()
    out = answer(half, low_rank, pose)
    assert out.dtype == torch.bfloat16
    change, rounding = (answer(full, expected, pose) - full()).abs().mean(), (out - answer(full, expected, pose)).abs()
    assert rounding.mean() < 0.2 * change
    with low_rank.active(pose):
        half.noise_error().backward()
    gradients = [(p.dtype, p.grad) for p in low_rank.parameters()]
    assert all(dtype == torch.float32 and g is not None and bool(g.isfinite().all()) for dtype, g in gradients)
    with torch.no_grad():
        assert torch.equal(half(), before)


class Attention(nn.Module):
    """The least that has a copy: it compiles in no time."""

    def __init__(self) -> None:
        super().__init__()
        self.time_embedding = importlib.import_module("diffusers.models.embeddings").TimestepEmbedding(4, 8)
        self.to_q = nn.Linear(8, 8)

    def forward(self, x: Tensor) -> Tensor:
        return self.to_q(self.time_embedding(x))


@torch.no_grad()
def test_a_compiled_denoiser_has_a_copy_too() -> None:
    denoiser, x = Attention(), torch.randn(2, 4)
    low_rank = LoRADenoiser(denoiser, generator=torch.Generator().manual_seed(0))
    disturb(low_rank)
    before = denoiser(x)
    with low_rank.active():
        expected = denoiser(x)
    denoiser.compile(backend="eager")
    for _ in range(2):
        assert torch.equal(denoiser(x), before)
        with low_rank.active():
            assert torch.equal(denoiser(x), expected)
    assert not torch.equal(before, expected)


def test_what_cannot_be_is_refused(call: Call) -> None:
    generator, pose = torch.Generator(), CAMERAS.camera_to_world
    with pytest.raises(ValueError, match="needs rank >= 1, got 0"):
        low_rank_of(call, rank=0)
    with pytest.raises(ValueError, match="Linear has no attention projections to_q"):
        LoRADenoiser(nn.Linear(3, 3), generator=generator)
    with pytest.raises(ValueError, match="has 0 of time_embedding, timestep_embedder; one is needed"):
        LoRADenoiser(nn.ModuleDict({"to_q": nn.Linear(3, 3)}), generator=generator)
    with pytest.raises(ValueError, match="made with camera=False and is not camera-conditioned"):
        answer(call, low_rank_of(call, camera=False), pose)
    with pytest.raises(ValueError, match="called with 2 rows, and there are 3 cameras"):
        answer(call, low_rank_of(call), torch.zeros(3, 4, 4))
