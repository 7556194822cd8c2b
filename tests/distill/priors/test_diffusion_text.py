"""Text rows, the text encoders' short lives, and the embeddings kept on disk."""

from __future__ import annotations

import gc
import importlib.util
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_diffusion_models import edit_json, save_tiny_model
from torch import Tensor

from steindreamer.distill.priors.diffusion import FAMILIES, DiffusersPrior, TextRows
from steindreamer.distill.priors.diffusion.text_cache import cache_folder, cache_key, read_cached, write_cached
from steindreamer.representations import Cameras

pytest.importorskip("diffusers")
transformers: Any = pytest.importorskip("transformers")

CPU = torch.device("cpu")
NAMES = ["StableDiffusionPipeline", "StableDiffusion3Pipeline", "PixArtSigmaPipeline"]
ENCODERS = ("CLIPTextModel", "CLIPTextModelWithProjection", "T5EncoderModel")


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return {name: save_tiny_model(tmp_path_factory.mktemp(name), name) for name in NAMES}


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("STEINDREAMER_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "text"


@pytest.fixture
def loaded(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Weak references to every text encoder that is loaded."""
    references: list[Any] = []

    def watch(load: Callable[..., Any]) -> Callable[..., Any]:
        def watched(*arguments: Any, **options: Any) -> Any:
            model, report = load(*arguments, **options)
            references.append(weakref.ref(model))
            return model, report

        return watched

    for name in ENCODERS:
        model = getattr(transformers, name)
        monkeypatch.setattr(model, "from_pretrained", watch(model.from_pretrained))
    return references


def _prior(folder: Path, **options: Any) -> DiffusersPrior:
    return DiffusersPrior(str(folder), CPU, image_size=64, **options)


def _equal(one: TextRows, other: TextRows) -> bool:
    return one.tensors.keys() == other.tensors.keys() and all(
        torch.equal(one.tensors[name], other.tensors[name]) for name in one.tensors
    )


@pytest.mark.parametrize("name", NAMES)
def test_the_text_encoders_are_gone_before_the_denoiser_comes(
    name: str, folders: dict[str, Path], loaded: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    prior = _prior(folders[name])
    alive: list[int] = []
    load = prior._denoiser_class.from_pretrained

    def watched(*arguments: Any, **options: Any) -> Any:
        gc.collect()
        alive.append(sum(reference() is not None for reference in loaded))
        return load(*arguments, **options)

    monkeypatch.setattr(prior._denoiser_class, "from_pretrained", watched)
    embedding = prior.embed("a mug")
    assert alive == [0] and len(loaded) == len(FAMILIES[name].text_encoders)
    assert not any(tensor.requires_grad for tensor in embedding.views.tensors.values())


@pytest.mark.parametrize("name", NAMES)
def test_what_was_embedded_once_is_read_again(
    name: str, folders: dict[str, Path], loaded: list[Any], cache: Path
) -> None:
    first = _prior(folders[name]).embed("a mug", "blurry")
    count = len(loaded)
    assert count and len(list(cache.iterdir())) == 2, "with the negative prompt, and with none"
    again = _prior(folders[name]).embed("a mug", "blurry")
    assert len(loaded) == count, "no text encoder is loaded"
    assert _equal(first.views, again.views) and _equal(first.negative, again.negative)
    assert not list(cache.glob("*.part"))


def test_a_missing_sentencepiece_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = save_tiny_model(tmp_path, "PixArtSigmaPipeline")
    (folder / "tokenizer" / "tokenizer.json").rename(folder / "tokenizer" / "spiece.model")
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *rest: None if name == "sentencepiece" else find_spec(name, *rest)
    )
    with pytest.raises(
        ImportError, match=r"needs the package 'sentencepiece': pip install 'steindreamer\[diffusion\]'"
    ):
        _prior(folder).embed("a mug")


def test_what_differs_is_embedded_anew(folders: dict[str, Path], loaded: list[Any], cache: Path) -> None:
    folder = folders["StableDiffusionPipeline"]
    cases: list[tuple[int, dict[str, Any], tuple[str, str]]] = [
        (1, {}, ("a mug", "")),
        (2, {}, ("a cup", "")),
        (4, {}, ("a mug", "blurry")),  # and with no negative prompt
        (5, {"view_dependent": False}, ("a mug", "")),
        (6, {"precision": "bfloat16"}, ("a mug", "")),
    ]
    for count, options, prompts in cases:
        _prior(folder, **options).embed(*prompts)
        assert len(list(cache.iterdir())) == len(loaded) == count


def test_other_weights_in_the_same_folder_are_noticed(tmp_path: Path, loaded: list[Any]) -> None:
    folder = save_tiny_model(tmp_path / "model")
    first = _prior(folder).embed("a mug").views
    path = folder / "text_encoder" / "model.safetensors"
    save_file({name: 1.5 * tensor for name, tensor in load_file(path).items()}, path, {"format": "pt"})
    assert not _equal(_prior(folder).embed("a mug").views, first)
    assert len(loaded) == 2


@pytest.mark.parametrize(
    "damage", [lambda content: content[: len(content) // 2], lambda content: b"", lambda content: b"x" * 99]
)
def test_a_damaged_file_is_replaced(
    damage: Callable[[bytes], bytes], folders: dict[str, Path], loaded: list[Any], cache: Path
) -> None:
    folder = folders["StableDiffusionPipeline"]
    first = _prior(folder).embed("a mug").views
    (path,) = cache.iterdir()
    whole = path.read_bytes()
    path.write_bytes(damage(whole))
    assert _equal(_prior(folder).embed("a mug").views, first)
    assert len(loaded) == 2 and path.read_bytes() == whole


def test_what_was_put_there_under_another_name_is_not_trusted(
    folders: dict[str, Path], loaded: list[Any], cache: Path, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    """Nor a file whose tensors were changed, nor what a link leads to."""
    folder = folders["StableDiffusionPipeline"]
    _prior(folder).embed("a cup")
    (other,) = cache.iterdir()
    foreign = other.read_bytes()
    other.unlink()
    first = _prior(folder).embed("a mug").views
    (path,) = cache.iterdir()
    whole = path.read_bytes()
    changed = tmp_path / "changed.safetensors"
    changed.write_bytes(whole)
    save_file({name: 2 * tensor for name, tensor in load_file(changed).items()}, changed)
    for content in (foreign, changed.read_bytes(), whole[:-1] + bytes([whole[-1] ^ 1])):
        path.write_bytes(content)
        caplog.clear()
        assert _equal(_prior(folder).embed("a mug").views, first)
        assert "damaged or belongs to another prompt" in caplog.text and path.read_bytes() == whole
    path.unlink()
    victim = tmp_path / "victim"
    victim.write_bytes(foreign)
    path.symlink_to(victim)
    assert _equal(_prior(folder).embed("a mug").views, first)
    assert victim.read_bytes() == foreign and path.read_bytes() == whole and not path.is_symlink()


def test_the_cache_can_be_left_out(folders: dict[str, Path], loaded: list[Any], cache: Path) -> None:
    for _ in range(2):
        _prior(folders["StableDiffusionPipeline"], cache_text=False).embed("a mug")
    assert len(loaded) == 2 and not cache.exists()


def test_a_cache_that_cannot_be_written_is_no_error(
    folders: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("STEINDREAMER_CACHE", str(tmp_path / "file"))
    with pytest.warns(UserWarning, match="text embeddings are not cached"):
        _prior(folders["StableDiffusionPipeline"]).embed("a mug")


def test_where_the_cache_is(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert cache_folder() == tmp_path / "cache" / "text"
    monkeypatch.delenv("STEINDREAMER_CACHE")
    assert cache_folder() == Path.home() / ".cache" / "steindreamer" / "text"


def test_cached_tensors_keep_their_types() -> None:
    tensors = {"rows": torch.randn(2, 3).bfloat16(), "mask": torch.tensor([[True, False]])}
    key = cache_key({"prompt": "a mug"})
    assert key != cache_key({"prompt": "a cup"}) and read_cached(key) is None
    write_cached(key, tensors)
    back = read_cached(key)
    assert back is not None
    for name, tensor in tensors.items():
        assert back[name].dtype == tensor.dtype and torch.equal(back[name], tensor)


def test_a_prompt_is_refused_only_if_nothing_reads_it(folders: dict[str, Path]) -> None:
    """CLIP reads 77 tokens, the T5 of Stable Diffusion 3 reads 256."""
    prompt = "a mug " * 20
    with pytest.raises(ValueError, match=r"has \d+ tokens .* reads 77; shorten"):
        _prior(folders["StableDiffusionPipeline"]).embed(prompt)
    prior = _prior(folders["StableDiffusion3Pipeline"])
    prior.embed(prompt)
    with pytest.raises(ValueError, match="reads 256; shorten"):
        prior.embed(prompt * 4)


def _rows() -> TextRows:
    mask = torch.tensor([[True, True, False], [True, False, False]])
    return TextRows({"rows": torch.arange(12.0).reshape(2, 3, 2), "pooled": torch.eye(2), "mask": mask})


def test_blends_are_linear_and_masks_unite() -> None:
    weights = torch.tensor([[1.0, 0.0], [0.25, 0.75], [0.0, 1.0]])
    blended = _rows().blend(weights)
    rows, mask = _rows().tensors["rows"], _rows().tensors["mask"]
    torch.testing.assert_close(
        blended.tensors["rows"], torch.stack([rows[0], 0.25 * rows[0] + 0.75 * rows[1], rows[1]])
    )
    torch.testing.assert_close(blended.tensors["pooled"], weights)
    assert torch.equal(blended.tensors["mask"], torch.stack([mask[0], mask[0] | mask[1], mask[1]]))


def test_rows_are_counted_cut_repeated_and_joined() -> None:
    rows = _rows()
    assert len(rows) == 2 and len(rows[:1]) == 1 and len(rows[1:].expand(3)) == 3
    assert _equal(TextRows.concatenate([rows[:1], rows[1:]]), rows)
    halved = rows.to(CPU, torch.bfloat16).tensors
    assert (halved["rows"].dtype, halved["mask"].dtype) == (torch.bfloat16, torch.bool)


def test_masks_of_views_of_different_length_unite(folders: dict[str, Path]) -> None:
    prior = _prior(folders["PixArtSigmaPipeline"])
    embedding = prior.embed("a mug")

    def length(rows: TextRows) -> Tensor:
        return rows.tensors["encoder_attention_mask"].sum(1)

    front, side, _, _ = length(embedding.views).tolist()
    around = Cameras.orbit([0.0, 45.0, 90.0], [0.0, 0.0, 0.0], height=8)
    assert front > side
    assert length(prior.condition(embedding, around, torch.ones(3, 3)).positive).tolist() == [front, front, side]


def test_an_optional_text_encoder_is_not_asked_for(tmp_path: Path, loaded: list[Any]) -> None:
    folder = save_tiny_model(tmp_path, "StableDiffusion3Pipeline", with_t5=False)
    edit_json(folder / "model_index.json", text_encoder_3=[None, None], tokenizer_3=[None, None])
    rows = _prior(folder).embed("a mug").views.tensors["encoder_hidden_states"]
    assert len(loaded) == 2 and rows.shape == (4, 77 + 256, 32)
    assert rows[:, 77:].abs().max() == 0 and rows[:, :77].abs().max() > 0
