"""The command `steindreamer finish`: settings and errors in one line, before torch is imported."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from steindreamer.pipelines.cli.finish import read_config
from steindreamer.pipelines.cli.main import main
from steindreamer.pipelines.errors import SettingsError


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--preset", "unrael"], "--preset is 'unrael' (did you mean 'unreal'?); engines: unity, unreal, godot"),
        (["--preset", "web", "lod=3"], "unknown key 'lod' (did you mean 'lods'?)"),
        (["--preset", "web", "lods=[1,2]"], "lods[1] is 2.0; above 0 and up to 1 is accepted"),
        (["--preset", "web", "lods=[1,0.5,0.5]"], "each must be smaller than the one before it"),
        (["--preset", "web", "texture_size=1000"], "texture_size is 1000; 0 and powers of two from 16"),
        (["--preset", "web", "repair=close"], "repair is 'close'"),
        (["--preset", "web", "--keep", "yaw=90"], "keep does not change the scene"),
        (["--preset", "web"], "there is no file nowhere.obj"),
    ],
)
def test_errors_are_one_line(words: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["finish", "nowhere.obj", *words]) in (1, 2)
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ") and message in line


def test_a_folder_without_an_asset_and_a_foreign_format(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "note.txt").write_text("x")
    for path, message in ((tmp_path, "a folder without asset/asset.glb"), (tmp_path / "note.txt", "supported formats")):
        assert main(["finish", str(path), "--preset", "web", "--out", str(tmp_path / "out")]) == 1
        (line,) = capsys.readouterr().err.splitlines()
        assert message in line
    assert not (tmp_path / "out").exists()


def test_settings_are_read_from_text() -> None:
    config = read_config(["lods=[1,0.3]", "triangles=500", "height_meters=0.2", "lightmap=never"])
    assert config.lods == [1.0, 0.3] and config.triangles == 500 and config.height_meters == 0.2
    with pytest.raises(SettingsError, match="triangles is 'many'"):
        read_config(["triangles=many"])


def test_a_wrong_setting_is_found_without_torch() -> None:
    code = (
        "import sys; from steindreamer.pipelines.cli.main import main\n"
        "main(['finish', 'x.obj', '--preset', 'web', 'lod=1']); print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False" and "unknown key 'lod'" in done.stderr
