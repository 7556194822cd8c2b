"""A key that is called otherwise now is refused, wherever it is given, with its new name."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from every_setting import every_setting

from steindreamer.distill import SSDConfig, register_method
from steindreamer.pipelines.config.run_config import load_config
from steindreamer.pipelines.errors import SettingsError
from steindreamer.pipelines.settings import renamed_settings
from steindreamer.pipelines.settings.renamed_settings import RENAMED, RENAMED_IN_METHOD, refuse_renamed

TABLE = {
    "output.thumbnail_size": "output.image_size",
    "stages.*.weights": "stages.*.regularizers",
    "stages.*.views.looks": "stages.*.views.look",
    "asset": "export",
    "*.*.moved": "*.here.*",
}


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("output.thumbnail_size=64", "'output.thumbnail_size' was renamed to 'output.image_size'; use the new name"),
        ("output={thumbnail_size: 64}", "'output.thumbnail_size' was renamed to 'output.image_size'; use the new name"),
        ("stages.texture.weights={opaque: 1}", "'stages.texture.weights' was renamed to 'stages.texture.regularizers'"),
        (
            "stages.coarse.views={looks: around}",
            "'stages.coarse.views.looks' was renamed to 'stages.coarse.views.look'",
        ),
        ("asset.face_budget=500", "'asset' was renamed to 'export'; use the new name"),
    ],
)
def test_an_old_key_is_refused_with_the_new_one(
    override: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(renamed_settings, "RENAMED", TABLE)
    with pytest.raises(SettingsError) as caught:
        load_config("cpu", overrides=[override])
    assert str(caught.value).startswith(message) and "\n" not in str(caught.value)
    key, _, value = override.partition("=")
    for part in reversed(key.split(".")):
        value = f"{{{part}: {value}}}"
    for text in (value, f"when: {{tiny: {value}}}"):
        (tmp_path / "mine.yaml").write_text(text)
        with pytest.raises(SettingsError) as caught:
            load_config(tmp_path / "mine.yaml")
        assert str(caught.value).startswith(message)


def test_only_the_old_keys_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(renamed_settings, "RENAMED", TABLE)
    with pytest.raises(SettingsError, match=r"unknown key 'export\.thumbnail_size'"):
        load_config(None, overrides=["export.thumbnail_size=64"])
    assert load_config(None, overrides=["output.image_size=64"]).output.image_size == 64


def test_what_stands_for_names_keeps_its_order() -> None:
    tree: dict[str, Any] = {"a": {"b": {"moved": 1}}}
    with pytest.raises(SettingsError, match=r"'a\.b\.moved' was renamed to 'a\.here\.b'"):
        refuse_renamed(tree, TABLE)


def test_new_names_exist_and_old_ones_are_gone() -> None:
    keys = {setting.key.replace("stages.coarse.", "stages.*.") for setting in every_setting()}
    known = {".".join(key.split(".")[:end]) for key in keys for end in range(1, key.count(".") + 2)}
    known |= {"stages.*.regularizers", "stages.*.representation.name", "stages.*.modalities.normal"}
    known |= {
        new for new in RENAMED.values() if new.startswith("stages.*.representation.")
    }  # sections with keys of the user's own
    for old, new in RENAMED.items():
        new = re.sub(r"^stages\.\w+\.", "stages.*.", new)
        assert new in known and old not in known, old


@pytest.mark.parametrize("old", RENAMED_IN_METHOD)
@pytest.mark.parametrize(
    ("override", "path"),
    [
        ("method.{}=1", "method"),
        ("stages.texture.method.{}=1", "stages.texture.method"),
        ("stages.coarse.method={{name: csd, {}: 1}}", "stages.coarse.method"),
    ],
)
@pytest.mark.parametrize("method", ["ssd", "vsd", "csd"])
def test_renamed_settings_of_methods_are_refused_where_they_were(
    method: str, override: str, path: str, old: str
) -> None:
    new = f"{path}.{RENAMED_IN_METHOD[old]}"
    with pytest.raises(SettingsError, match=re.escape(f"'{path}.{old}' was renamed to '{new}'; use the new name")):
        load_config(None, method=method, overrides=[override.format(old)])
    stage = load_config(None, method=method).methods["texture"]
    owner = RENAMED_IN_METHOD[old].split(".")[0]
    assert not hasattr(stage, old) and hasattr(stage, owner) is (method == "vsd" or owner == "control_variates")


def test_a_method_without_control_variates_never_had_their_settings() -> None:
    for override in ("method.bands=3", "stages.coarse.method.bands=3"):
        with pytest.raises(SettingsError, match=r"unknown key '.*method\.bands'"):
            load_config(None, method="sds", overrides=[override])


def test_a_method_may_have_settings_of_these_names() -> None:
    @register_method("own")
    @dataclass
    class OwnConfig(SSDConfig):
        """With a rate of its own."""

        learning_rate: float = 0.5

    config: Any = load_config(None, method="own", overrides=["method.learning_rate=2"])
    assert config.method.learning_rate == 2
    with pytest.raises(SettingsError, match=r"'method\.decay' was renamed to 'method\.control_variates\.decay'"):
        load_config(None, method="own", overrides=["method.decay=1"])
