"""Folders of models that are not whole: the right answer, or one line that says what is wrong, and nothing else."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from tiny_diffusion_models import edit_json, save_tiny_model
from torch import Tensor

from steindreamer.distill.priors.diffusion import FAMILIES, DiffusersPrior, ViewEmbedding
from steindreamer.distill.priors.diffusion.model_sources import find_model
from steindreamer.distill.third_party.errors import foreign_errors

diffusers: Any = pytest.importorskip("diffusers")
transformers: Any = pytest.importorskip("transformers")

CPU = torch.device("cpu")
SD, XL, SD3, CAMERA, PIXART = (
    "StableDiffusionPipeline",
    "StableDiffusionXLPipeline",
    "StableDiffusion3Pipeline",
    "CameraConditionedPipeline",
    "PixArtSigmaPipeline",
)
NAMES = (SD, XL, SD3, CAMERA, PIXART)
UNET, TEXT, VAE = (
    "unet/diffusion_pytorch_model.safetensors",
    "text_encoder/model.safetensors",
    "vae/diffusion_pytorch_model.safetensors",
)
TOKENIZER = "tokenizer/tokenizer.json"
BOUNDED = settings(
    max_examples=25,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return {name: save_tiny_model(tmp_path_factory.mktemp(name), name) for name in NAMES}


@pytest.fixture(scope="module")
def answers(folders: dict[str, Path]) -> dict[str, Tensor]:
    """Of the whole models."""
    return {name: _answer(folder) for name, folder in folders.items()}


def _load(folder: Path) -> tuple[DiffusersPrior, ViewEmbedding]:
    prior = DiffusersPrior(str(folder), CPU, cache_text=False)
    return prior, prior.embed("a mug")


def _answer(folder: Path) -> Tensor:
    """The schedule, the text's rows, and what the denoiser says."""
    prior, embedding = _load(folder)
    clean = torch.linspace(-1, 1, prior.channels * prior.family.multiple**2)
    clean = clean.reshape(1, prior.channels, prior.family.multiple, -1)
    noise = clean.flip(-1)
    sample = prior.schedule.add_noise(clean, noise, torch.tensor([300]))
    rows = next(iter(embedding.views.tensors.values()))
    text = {name: tensor[:1] for name, tensor in embedding.views.tensors.items()}
    camera = torch.zeros(1, 14)
    camera_input = {"class_labels": camera} if prior.family.camera_conditioned else {}
    with torch.no_grad():
        said = prior.family.call(prior.denoiser, sample.noisy, prior.family.time(sample), {**text, **camera_input}, 64)
        seen = prior.encode(torch.full((1, 3, 16, 16), 0.3))
    return torch.cat([prior.schedule.alphas, rows.flatten(), said.flatten(), seen.flatten()])


def _refused(folder: Path) -> str:
    """The line that it is refused with."""
    with pytest.raises((ValueError, OSError, ImportError)) as error:
        _load(folder)
    return _line(error.value)


def _line(error: BaseException) -> str:
    text = str(error)
    assert text and "\n" not in text and len(text) < 1200, text
    return text


def _right_or_refused(folder: Path, right: Tensor) -> str | None:
    """The line, or None if the answer is that of the whole model."""
    try:
        answer = _answer(folder)
    except (ValueError, OSError, ImportError) as error:
        return _line(error)
    assert answer.shape == right.shape and torch.equal(answer, right), "another answer, without a word"
    return None


@pytest.fixture
def copy(folders: dict[str, Path], tmp_path: Path) -> Callable[[str], Path]:
    def copied(name: str = SD) -> Path:
        shutil.rmtree(tmp_path / "copy", ignore_errors=True)
        return shutil.copytree(folders[name], tmp_path / "copy")

    return copied


def _change(path: Path, change: Callable[[dict[str, Tensor]], object]) -> None:
    tensors = load_file(path)
    change(tensors)
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, path, {"format": "pt"})


def _files(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


@pytest.mark.parametrize("name", NAMES)
def test_without_any_of_its_files(
    name: str, folders: dict[str, Path], answers: dict[str, Tensor], copy: Callable[[str], Path]
) -> None:
    """Only the index can be done without, where the parts tell the family; and what T5 does not need."""
    spared = {"model_index.json": (SD, XL, SD3)}
    for file in _files(folders[name]):
        folder = copy(name)
        (folder / file).unlink()
        line = _right_or_refused(folder, answers[name])
        may = name in spared.get(file, ()) or (name in (PIXART, SD3) and file.endswith("tokenizer_config.json"))
        assert line is not None or may, file


@pytest.mark.parametrize("damage", ["half", "text", "pointer", "pipe"])
def test_with_any_of_its_files_damaged(damage: str, folders: dict[str, Path], copy: Callable[[str], Path]) -> None:
    folder = copy(SD)
    for file in _files(folders[SD]):
        content = (folder / file).read_bytes()
        (folder / file).unlink()
        if damage == "pipe":
            os.mkfifo(folder / file)
        else:
            pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n"
            damaged = {"half": content[: len(content) // 2], "text": b"\xff\xfe\0", "pointer": pointer}
            (folder / file).write_bytes(damaged[damage])
        line = _refused(folder)
        assert file.partition("/")[0] in line, (file, line)
        assert damage != "pointer" or not file.endswith(".safetensors") or "pointer of Git LFS" in line
        (folder / file).unlink()
        (folder / file).write_bytes(content)
    _load(folder)


@BOUNDED
@given(data=st.data())
def test_with_two_files_swapped(
    data: st.DataObject, folders: dict[str, Path], answers: dict[str, Tensor], copy: Callable[[str], Path]
) -> None:
    name = data.draw(st.sampled_from(NAMES))
    first, second = data.draw(st.permutations(_files(folders[name])))[:2]
    folder = copy(name)
    for one, other in ((first, second), (second, first)):
        shutil.copyfile(folders[name] / one, folder / other)
    _right_or_refused(folder, answers[name])


@pytest.mark.parametrize("file", [UNET, TEXT, VAE])
def test_with_any_tensor_missing_spoilt_or_of_another_shape(
    file: str, folders: dict[str, Path], copy: Callable[[str], Path]
) -> None:
    names = sorted(load_file(folders[SD] / file))

    @settings(BOUNDED, max_examples=12)
    @given(st.sampled_from(names), st.sampled_from(["missing", "nan", "-inf", "larger", "whole numbers", "renamed"]))
    def check(name: str, damage: str) -> None:
        folder = copy(SD)

        def change(tensors: dict[str, Tensor]) -> None:
            tensor = tensors.pop(name)
            spoilt = tensor.clone()
            spoilt.view(-1)[-1] = float(damage) if damage in ("nan", "-inf") else 0
            changed = {
                "missing": {},
                "larger": {name: torch.cat([tensor, tensor])},
                "whole numbers": {name: tensor.to(torch.int8)},
                "renamed": {f"x.{name}": tensor},
            }
            tensors.update(changed.get(damage, {name: spoilt}))

        _change(folder / file, change)
        line = _refused(folder)
        assert str(folder / file) in line
        last = name.rpartition(".")[0].rpartition(".")[2]
        assert last in line, "names the tensor"

    check()


@BOUNDED
@given(data=st.data())
def test_settings_of_any_kind(data: st.DataObject, folders: dict[str, Path], copy: Callable[[str], Path]) -> None:
    """What a setting means may change, but it either makes a model or is refused in one line."""
    name = data.draw(st.sampled_from((SD, XL, CAMERA)))
    file = data.draw(st.sampled_from([path for path in _files(folders[name]) if path.endswith("config.json")]))
    key = data.draw(st.sampled_from(sorted(json.loads((folders[name] / file).read_text()))))
    values = [None, True, -1, 0, 10**9, 1e10, float("nan"), "x", [], [1, 2], {"a": 1}, 10**30]
    folder = copy(name)
    edit_json(folder / file, **{key: data.draw(st.sampled_from(values))})
    try:
        _load(folder)
    except (ValueError, OSError, ImportError) as error:
        _line(error)


@pytest.mark.parametrize(
    ("name", "file", "values", "said"),
    [
        (SD, "model_index.json", {"_class_name": ["pipeline", "OwnPipeline"]}, "it is a ['pipeline', 'OwnPipeline']"),
        (SD, "model_index.json", {"_class_name": {"a": 1}}, "it is a {'a': 1}"),
        (SD, "unet/config.json", {"sample_size": [8, 16]}, "sample_size=[8, 16]"),
        (SD, "unet/config.json", {"sample_size": None}, "or set prior.image_size"),
        (SD, "unet/config.json", {"sample_size": 10**9}, "sample_size=1000000000"),
        (SD, "unet/config.json", {"block_out_channels": 16}, "block_out_channels=16"),
        (SD, "unet/config.json", {"block_out_channels": [10**6, 10**6]}, "more memory than is available"),
        (SD, "vae/config.json", {"scaling_factor": float("nan")}, "scaling_factor=nan"),
        (SD, "vae/config.json", {"scaling_factor": 0}, "scaling_factor=0"),
        (SD, "text_encoder/config.json", {"vocab_size": 200}, "in a different shape than config.json specifies"),
        (SD, "text_encoder/config.json", {"vocab_size": 10**12}, "more memory than is available"),
        (XL, "text_encoder_2/config.json", {"eos_token_id": 3}, "eos_token_id=3"),
        (XL, "model_index.json", {"force_zeros_for_empty_prompt": "no"}, "force_zeros_for_empty_prompt='no'"),
        (SD, "tokenizer/tokenizer_config.json", {"model_max_length": 10**30}, "the text encoder reads 77 tokens"),
        (CAMERA, "model_index.json", {"patch_size": None}, "patch_size=None"),
        (CAMERA, "model_index.json", {"patch_size": 0}, "patch_size=0"),
        (CAMERA, "model_index.json", {"kinds": ["mug"]}, "kinds=['mug']"),
        (CAMERA, "model_index.json", {"kinds": {"mug": [1]}}, "kinds={'mug': [1]}"),
        (CAMERA, "model_index.json", {"camera_features": 3}, "expects the camera as ['3']"),
        (PIXART, "transformer/config.json", {"patch_size": [2]}, "patch_size=[2]"),
    ],
)
def test_settings_that_cannot_be_meant(
    name: str, file: str, values: dict[str, Any], said: str, copy: Callable[[str], Path]
) -> None:
    folder = copy(name)
    edit_json(folder / file, **values)
    line = _refused(folder)
    assert said in line and str(folder) in line


def test_a_square_given_twice_is_a_square(answers: dict[str, Tensor], copy: Callable[[str], Path]) -> None:
    folder = copy(SD)
    edit_json(folder / "unet/config.json", sample_size=[8, 8])
    assert _right_or_refused(folder, answers[SD]) is None


@pytest.mark.parametrize("file", ["model_index.json", "unet/config.json", "scheduler/scheduler_config.json", TOKENIZER])
@pytest.mark.parametrize("content", ["[" * 100_000, '{"a":' * 100_000, "[1]", "null"])
def test_json_that_is_no_settings(file: str, content: str, copy: Callable[[str], Path]) -> None:
    folder = copy(SD)
    (folder / file).write_text(content)
    assert file.partition("/")[0] in _refused(folder)


def _without_letters(model: dict[str, Any]) -> None:
    for token in [token for token in model["vocab"] if token.removesuffix("</w>") in "aeiou"]:
        model["vocab"].pop(token)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda model: model.update(vocab={"a": 0}), "cannot be loaded as CLIPTokenizer"),
        (lambda model: model["vocab"].update({"z</w>": 190}), "its text encoder has 190"),
        (_without_letters, "has 180 tokens with IDs up to 189, but its text encoder has 190"),
    ],
)
def test_another_vocabulary_is_not_read(
    change: Callable[[dict[str, Any]], None], said: str, copy: Callable[[str], Path]
) -> None:
    folder = copy(SD)
    whole = json.loads((folder / TOKENIZER).read_text())
    change(whole["model"])
    (folder / TOKENIZER).write_text(json.dumps(whole))
    assert said in _refused(folder)


def test_a_vocabulary_without_its_merges_is_not_read(copy: Callable[[str], Path]) -> None:
    """Words would be spelt letter by letter, without a word about it."""
    folder = copy(SD)
    whole = json.loads((folder / TOKENIZER).read_text())
    vocabulary: dict[str, int] = whole["model"]["vocab"]
    for old, new in (("#</w>", "mu"), ("%</w>", "mug</w>")):
        vocabulary[new] = vocabulary.pop(old)
    (folder / TOKENIZER).write_text(json.dumps(whole))
    assert "0 merges for 2 tokens of several letters" in _refused(folder)


def test_a_lone_configuration_is_no_tokenizer(copy: Callable[[str], Path]) -> None:
    for name in NAMES:
        folder = copy(name)
        for path in folder.glob("tokenizer*/*"):
            if path.name != "tokenizer_config.json":
                path.unlink()
        assert "missing tokenizer/tokenizer.json" in _refused(folder)


def test_the_files_of_old_tokenizers_will_do(answers: dict[str, Tensor], copy: Callable[[str], Path]) -> None:
    """vocab.json and merges.txt, as the hub's models have them; neither alone."""
    folder = copy(SD)
    model = json.loads((folder / TOKENIZER).read_text())["model"]
    (folder / TOKENIZER).unlink()
    (folder / "tokenizer/vocab.json").write_text(json.dumps(model["vocab"]))
    assert "merges.txt" in _refused(folder)
    (folder / "tokenizer/merges.txt").write_text("#version: 0.2\n")
    assert _right_or_refused(folder, answers[SD]) is None
    (folder / "tokenizer/vocab.json").unlink()
    assert "vocab.json" in _refused(folder)


def test_words_that_cannot_be_spelt_are_named(folders: dict[str, Path]) -> None:
    prior = DiffusersPrior(str(folders[PIXART]), CPU, cache_text=False)
    with pytest.raises(ValueError, match="no tokens for '7', '杯'"):
        prior.embed("7 杯 mugs")


def test_left_overs_of_whole_clips_do_no_harm(answers: dict[str, Tensor], copy: Callable[[str], Path]) -> None:
    folder = copy(SD)
    harmless = {
        "text_model.embeddings.position_ids": torch.arange(77)[None],
        "vision_model.pre_layrnorm.weight": torch.ones(3),
        "logit_scale": torch.ones(()),
        "text_projection.weight": torch.ones(2, 2),
    }
    _change(folder / TEXT, lambda tensors: tensors.update(harmless))
    assert _right_or_refused(folder, answers[SD]) is None
    _change(folder / TEXT, lambda tensors: tensors.update({"text_model.more.weight": torch.ones(1)}))
    assert "contains the tensor 'more.weight', which" in _refused(folder)


def test_the_text_encoder_of_another_model_does_not_fit(folders: dict[str, Path], copy: Callable[[str], Path]) -> None:
    folder = copy(SD)
    _change(folder / UNET, lambda tensors: None)
    wide = save_tiny_model(folder.parent / "wide", SD)
    for part in ("text_encoder",):
        config = transformers.CLIPTextConfig.from_pretrained(wide / part)
        config.hidden_size = 32
        transformers.CLIPTextModel(config).save_pretrained(folder / part)
    assert "do not fit together" in _refused(folder)


def _sharded(folder: Path) -> dict[str, Any]:
    tensors = load_file(folder / UNET)
    (folder / UNET).unlink()
    halves = [dict(list(tensors.items())[part::2]) for part in (0, 1)]
    names = [f"diffusion_pytorch_model-{k:05}-of-00002.safetensors" for k in (1, 2)]
    for name, half in zip(names, halves, strict=True):
        save_file(half, folder / "unet" / name, {"format": "pt"})
    index = {
        "metadata": {},
        "weight_map": {tensor: name for name, half in zip(names, halves, strict=True) for tensor in half},
    }
    (folder / f"{UNET}.index.json").write_text(json.dumps(index))
    return index


def test_shards_are_taken_whole_or_not_at_all(answers: dict[str, Tensor], copy: Callable[[str], Path]) -> None:
    folder = copy(SD)
    index = _sharded(folder)
    assert _right_or_refused(folder, answers[SD]) is None
    path, shard = folder / f"{UNET}.index.json", folder / "unet/diffusion_pytorch_model-00002-of-00002.safetensors"
    for wrong in ({}, {"weight_map": []}, {"weight_map": {**index["weight_map"], "conv_in.bias": "../../evil"}}):
        path.write_text(json.dumps(wrong))
        assert str(path) in _refused(folder)
    path.write_text(json.dumps(index))
    content = shard.read_bytes()
    shard.write_bytes(content[:-1])
    assert f"{shard} is damaged" in _refused(folder)
    shard.unlink()
    assert "unet/diffusion_pytorch_model-*-of-00002.safetensors (2)" in _refused(folder)
    shard.write_bytes(content)
    path.unlink()
    assert f"missing {UNET}.index.json" in _refused(folder)


OTHER_FORMS = {
    "model.safetensors": "from_single_file",
    "v1-5.ckpt": "from_single_file",
    "flux-Q4.gguf": "quantized weights",
    "unet/model.onnx": "ONNX models have no gradient",
    "pytorch_lora_weights.safetensors": "fuse_lora",
    "adapter_config.json": "fuse_lora",
}


@pytest.mark.parametrize("file", OTHER_FORMS)
def test_other_forms_come_with_the_way_out(file: str, tmp_path: Path) -> None:
    (tmp_path / file).parent.mkdir(exist_ok=True)
    (tmp_path / file).write_text("{}")
    with pytest.raises(ValueError, match=OTHER_FORMS[file]) as error:
        find_model(str(tmp_path))
    assert _line(error.value) and str(tmp_path) in str(error.value)
    if file != "adapter_config.json":
        with pytest.raises(ValueError, match=r"fuse_lora|is a single file; a model is a folder") as error:
            find_model(str(tmp_path / file))
        assert _line(error.value) and file in str(error.value)


@pytest.mark.parametrize("name", ["nowhere.safetensors", "folder/x.ckpt", "a\0b", "x" * 5000, "~nobody/model"])
def test_files_that_are_not_there(name: str) -> None:
    with pytest.raises(
        ValueError, match=r"there is no file|is neither a folder nor a known model|could not be fetched"
    ) as error:
        find_model(name)
    assert "\n" not in str(error.value)


def test_pickles_come_with_the_way_out(copy: Callable[[str], Path]) -> None:
    for ending in (".bin", ".pt"):
        folder = copy(SD)
        (folder / UNET).rename(folder / f"unet/diffusion_pytorch_model{ending}")
        assert "is pickled and could run arbitrary code" in _refused(folder) and "save_pretrained" in _refused(folder)


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (KeyError("a"), "it: KeyError: 'a'"),
        (RecursionError("deep"), "it: is nested too deeply"),
        (MemoryError(), r"it: needs more memory than is available \(MemoryError\)"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory"), "it: needs more memory than is available"),
        (AttributeError("no\n  such"), "it: AttributeError: no such"),
        (NotImplementedError(), "it: NotImplementedError$"),
        (PermissionError(13, "Permission denied", "file"), "it: Permission denied"),
        (Exception("x" * 5000), r"it: Exception: x{300}$"),
    ],
)
def test_what_others_raise_is_one_line(error: Exception, said: str) -> None:
    with pytest.raises(ValueError, match=said) as raised, foreign_errors("it"):
        raise error
    assert "\n" not in str(raised.value) and raised.value.__cause__ is error
    with pytest.raises(ImportError, match="a package"), foreign_errors("it"):
        raise ImportError("a package")
    with pytest.raises(type(error)), foreign_errors("it", type(error)):
        raise error


def test_every_tokenizer_class_is_known() -> None:
    from steindreamer.distill.priors.diffusion.model_sources import TOKENIZER_FILES

    wanted = {encoder.tokenizer for family in FAMILIES.values() for encoder in family.text_encoders.values()}
    assert wanted == set(TOKENIZER_FILES)


@pytest.mark.parametrize("file", ["vae/config.json", "unet/config.json", "text_encoder/config.json"])
def test_settings_that_are_no_object_are_told_by_file(file: str, copy: Callable[[str], Path]) -> None:
    folder = copy(SD)
    (folder / file).write_text("[1, 2]")
    with pytest.raises(ValueError, match=rf"{file} must contain a JSON object, got \[1, 2\]"):
        _load(folder)
