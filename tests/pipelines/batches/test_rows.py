"""Files of prompts: what is read from them, and what is refused with its line and column."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from steindreamer.pipelines.batches.batch import check_rows
from steindreamer.pipelines.batches.rows import read_rows
from steindreamer.pipelines.batches.settings import BatchSettings, Configurations, folder_name
from steindreamer.pipelines.batches.shard import Shard, read_shard
from steindreamer.pipelines.config.run_config import SCHEMA, load_config
from steindreamer.pipelines.errors import SettingsError


def written(tmp_path: Path, name: str, text: str) -> Path:
    path = tmp_path / name
    path.write_text(text, encoding="utf-8")
    return path


def test_the_three_formats_give_the_same_configurations(tmp_path: Path) -> None:
    table = "prompt,seed,method,stages.coarse.steps,height\na red mug,3,sds,40,0.2\n\na blue chair,,,,\n"
    objects = [
        {"prompt": "a red mug", "seed": 3, "method": "sds", "stages.coarse.steps": 40, "height": 0.2},
        {"prompt": "a blue chair"},
    ]
    configurations = Configurations(BatchSettings(), SCHEMA)
    read = [
        read_rows(written(tmp_path, "p.csv", "\ufeff" + table)),
        read_rows(written(tmp_path, "p.jsonl", "\n".join(map(json.dumps, objects)))),
    ]
    for first, second in read:
        config = configurations.of(first)
        expected = load_config(
            prompt="a red mug",
            seed=3,
            method="sds",
            overrides=["stages.coarse.steps=40", "export.height_meters=0.2"],
        )
        assert config == expected
        assert configurations.of(second) == load_config(prompt="a blue chair")
    assert [row.line for row in read[0]] == [2, 4]
    plain = read_rows(written(tmp_path, "p.txt", "# objects\n\n a blue chair \n"))
    assert [(row.line, row.prompt) for row in plain] == [(3, "a blue chair")]
    assert configurations.of(plain[0]) == load_config(prompt="a blue chair")


def test_settings_of_a_row_win_over_those_of_the_batch(tmp_path: Path) -> None:
    settings = BatchSettings(preset="scene", overrides=("stages.coarse.steps=7",), chosen={"method": "sds"})
    path = written(tmp_path, "p.csv", "prompt,preset,method,stages.coarse.steps\na cup,,,\na mug,cpu,ssd,9\n")
    common, own = map(Configurations(settings, SCHEMA).of, read_rows(path))
    assert (common.stages["coarse"].steps, own.stages["coarse"].steps) == (7, 9)
    assert (common.names["method"], own.names["method"]) == ("sds", "ssd")
    assert common == load_config("scene", prompt="a cup", method="sds", overrides=["stages.coarse.steps=7"])


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("p.csv", "prompt,sead\na,1\n", "unknown column 'sead' (did you mean 'seed'?)"),
        ("p.csv", "seed\n1\n", "there is no column 'prompt'"),
        ("p.csv", "prompt,prompt\na,b\n", "the column 'prompt' occurs twice"),
        ("p.csv", "prompt,seed\na, b,1\n", "line 2: 3 cells for 2 columns; quote a cell"),
        ("p.csv", "prompt\n", "has no prompts"),
        ("p.jsonl", '{"prompt": "a"}\n{"prompt": "b", "sead": 1}', "line 2: unknown column 'sead'"),
        ("p.jsonl", '{"prompt": "a"}\n{"seed": 1}', "line 2: there is no column 'prompt'"),
        ("p.jsonl", '{"prompt": 3}', "line 1: prompt is 3; text is accepted"),
        ("p.jsonl", '["a"]', "line 1: got ['a']"),
        ("p.jsonl", "{", "line 1: Expecting property name"),
        ("p.txt", "# nothing\n", "has no prompts"),
        ("p.yaml", "a", "a .txt, .csv or .jsonl file is accepted"),
    ],
)
def test_files_are_refused_in_one_line(tmp_path: Path, name: str, text: str, message: str) -> None:
    with pytest.raises(SettingsError) as refused:
        read_rows(written(tmp_path, name, text))
    assert message in str(refused.value)


def test_all_rows_are_checked_before_any_is_run(tmp_path: Path) -> None:
    text = (
        'prompt,seed,export.face_budgt,stages.coarse.steps\n"a red mug",,,\na red mug,,,\na xylophone,,,\n'
        "a red mug,-1,,\na red mug,1,9,\na red mug,,,many\na red mug,1,,\n"
    )
    jobs, failures = check_rows(read_rows(written(tmp_path, "p.csv", text)), Configurations(BatchSettings(), SCHEMA))
    assert [(job.row.line, job.candidates[0].seed) for job in jobs] == [(2, 0), (8, 1)]
    assert [failure.line for failure in failures] == [3, 4, 5, 6, 7]
    parts = (
        "seed (0) as in line 2",
        "'a xylophone' names no object",
        "seed is -1",
        "did you mean 'face_budget'",
        "is 'many'",
    )
    assert all(part in failure.message for part, failure in zip(parts, failures, strict=True))


def test_a_folder_is_named_after_prompt_and_settings() -> None:
    one = folder_name(load_config(prompt="A red mug!"))
    assert one.startswith("a-red-mug-") and one == folder_name(load_config(prompt="A red mug!"))
    others = [
        load_config(prompt="a red mug"),
        load_config(prompt="A red mug!", seed=1),
        load_config(prompt="A red mug!", overrides=["export.face_budget=99"]),
    ]
    assert len({one, *map(folder_name, others)}) == 4
    assert one == folder_name(load_config(prompt="A red mug!", overrides=["output.log_every=3"]))


def test_shards_cover_all_rows_once() -> None:
    parts = [Shard(number, 3).of(range(8)) for number in (1, 2, 3)]
    assert sorted(row for part in parts for row in part) == list(range(8)) and parts[1] == [1, 4, 7]
    assert read_shard("2/3") == Shard(2, 3)
    for text in ("0/3", "4/3", "1", "a/b", "1/0"):
        with pytest.raises(SettingsError, match="number/count"):
            read_shard(text)
