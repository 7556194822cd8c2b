"""Finding an estimator: folders, the cache, the hub asked once, and what is said when there is nothing to use."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from steindreamer.distill.geometry.loading import load_monocular_estimator
from steindreamer.distill.geometry.sources import EXAMPLE, choose_files, find_estimator

hub = pytest.importorskip("huggingface_hub")
constants = pytest.importorskip("huggingface_hub.constants")
errors = pytest.importorskip("huggingface_hub.errors")

FILES = ["README.md", "config.json", "model.safetensors", "preprocessor_config.json", "pytorch_model.bin"]


def _write(folder: Path, files: list[str]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name in files:
        (folder / name).touch()
    return folder


@pytest.fixture(autouse=True)
def empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Also keeps the tests off the network."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    return tmp_path / "cache"


class FakeHub:
    """Some repositories and what they hold; notes who was asked and what was fetched."""

    def __init__(self, folder: Path) -> None:
        self.repositories: dict[str, list[str]] = {}
        self.folder = folder
        self.asked: list[tuple[str, str | None]] = []
        self.fetched: list[str] = []

    def model_info(self, repository: str, *, revision: str | None, timeout: float) -> Any:
        self.asked.append((repository, revision))
        if repository not in self.repositories:
            response: Any = SimpleNamespace(status_code=404, headers={}, request=None)
            raise errors.RepositoryNotFoundError("not found", response=response)
        siblings = [SimpleNamespace(rfilename=name) for name in self.repositories[repository]]
        return SimpleNamespace(siblings=siblings, sha=revision or "c0ffee")

    def snapshot_download(self, repository: str, *, revision: str, allow_patterns: list[str]) -> str:
        self.fetched = allow_patterns
        return str(_write(self.folder, allow_patterns))


@pytest.fixture
def fake_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeHub:
    fake = FakeHub(tmp_path / "download")
    monkeypatch.setattr(hub, "HfApi", lambda: fake)
    monkeypatch.setattr(hub, "snapshot_download", fake.snapshot_download)
    return fake


def test_a_folder_is_used_as_it_is(tmp_path: Path) -> None:
    assert find_estimator(str(_write(tmp_path / "model", FILES))) == tmp_path / "model"


def test_only_json_and_safetensors_are_fetched(fake_hub: FakeHub) -> None:
    fake_hub.repositories["someone/model"] = FILES
    assert find_estimator("someone/model@abc") == fake_hub.folder
    assert fake_hub.asked == [("someone/model", "abc")]
    assert sorted(fake_hub.fetched) == ["config.json", "model.safetensors", "preprocessor_config.json"]


def test_a_complete_cached_copy_needs_no_hub(empty_cache: Path) -> None:
    repository = empty_cache / "models--someone--model"
    snapshot = _write(repository / "snapshots" / "abc123", FILES)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("abc123")
    assert find_estimator("someone/model") == snapshot
    (snapshot / "model.safetensors").unlink()
    with pytest.raises(ValueError, match="the hub does not respond"):
        find_estimator("someone/model")


def test_pickled_weights_are_refused_and_not_fetched(tmp_path: Path, fake_hub: FakeHub) -> None:
    pickled = [name for name in FILES if not name.endswith(".safetensors")]
    message = r"pytorch_model\.bin is pickled .* only safetensors are accepted"
    with pytest.raises(ValueError, match=message):
        find_estimator(str(_write(tmp_path / "model", pickled)))
    fake_hub.repositories["someone/model"] = pickled
    with pytest.raises(ValueError, match=message):
        find_estimator("someone/model")
    assert fake_hub.fetched == []


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(
        ValueError, match=r"model is not a geometry estimator: missing config\.json, model\.safetensors$"
    ):
        find_estimator(str(_write(tmp_path / "model", ["README.md"])))
    assert choose_files(FILES[:3]) == ["config.json", "model.safetensors"]


@pytest.mark.parametrize("name", ["teeny", "./nowhere", "/no/such/model", "~/none", "", "a/b/c"])
def test_an_unknown_name_says_what_is_accepted(name: str) -> None:
    with pytest.raises(
        ValueError, match=rf"is neither a folder nor the hub id .* 'tiny', a hub id such as {EXAMPLE}"
    ) as error:
        find_estimator(name)
    assert "\n" not in str(error.value)


def test_a_model_that_is_nowhere_comes_with_the_command(fake_hub: FakeHub, empty_cache: Path) -> None:
    with pytest.raises(ValueError, match=r"not found, or not public \(status 404\)") as error:
        find_estimator("someone/model")
    text = str(error.value)
    assert "\n" not in text and str(empty_cache) in text
    assert "hf download someone/model --include '*.json' --include '*.safetensors' --local-dir model" in text
    assert len(fake_hub.asked) == 1


@pytest.mark.parametrize("reason", ["offline mode", "closed port"])
def test_a_silent_hub_is_asked_once(reason: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if reason == "closed port":
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(ValueError, match="the hub does not respond") as error:
        find_estimator(EXAMPLE)
    assert str(error.value).count("does not respond") == 1 and "\n" not in str(error.value)
    assert f"hf download {EXAMPLE}" in str(error.value)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ("", "is not JSON"),
        ("[1]", "must contain a JSON object"),
        (json.dumps({"model_type": "glpn"}), "holds glpn; known depth models: DPTForDepthEstimation"),
        (json.dumps({"something": 1}), "expected a JSON object with the keys channels"),
    ],
)
def test_files_of_other_kinds_are_told(config: str, message: str, tmp_path: Path) -> None:
    (_write(tmp_path, ["model.safetensors"]) / "config.json").write_text(config)
    with pytest.raises(ValueError, match=message):
        load_monocular_estimator(str(tmp_path))
