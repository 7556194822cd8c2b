"""Checkpoints survive kills, notice damage and keep exact bits."""

from pathlib import Path

import pytest
import torch

from steindreamer.pipelines.errors import UserError
from steindreamer.pipelines.files import write_atomically
from steindreamer.pipelines.runs.checkpoint import (
    read_newest_checkpoint,
    write_checkpoint,
)
from steindreamer.pipelines.runs.checkpoint_record import checkpoint_steps


def _tensors(value: float) -> dict[str, torch.Tensor]:
    return {"a.b": torch.full((2, 3), value), "n": torch.tensor([3, 1]), "empty": torch.zeros(0, 3)}


def test_round_trip_keeps_bits_dtypes_and_shapes(tmp_path: Path, generator: torch.Generator) -> None:
    tensors = {"x": torch.randn(7, generator=generator), "state": generator.get_state(), "scalar": torch.tensor(2.5)}
    write_checkpoint(tmp_path, 5, tensors, {"note": "n"})
    checkpoint, damage = read_newest_checkpoint(tmp_path)
    assert checkpoint is not None and not damage
    assert checkpoint.step == 5 and checkpoint.metadata["note"] == "n"
    for name, tensor in tensors.items():
        assert torch.equal(checkpoint.tensors[name], tensor) and checkpoint.tensors[name].dtype == tensor.dtype


def test_the_newest_and_older_ones_are_kept(tmp_path: Path) -> None:
    """Whenever a run turns out to have gone wrong, there is a state of at most half of its steps."""
    for step in range(10, 410, 10):
        write_checkpoint(tmp_path, step, _tensors(step), {})
        kept = checkpoint_steps(tmp_path)
        assert kept[-2:] == [step - 10, step][-len(kept) :] and len(kept) <= 4
        assert step < 40 or (step / 8 <= kept[0] <= step / 2)
    assert {path.stem for path in tmp_path.iterdir()} == {f"{step:06d}" for step in checkpoint_steps(tmp_path)}
    write_checkpoint(tmp_path, 100, _tensors(100), {})
    assert checkpoint_steps(tmp_path)[-1] == 100, "those of a future that was passed over are gone"


def test_a_checkpoint_without_its_record_does_not_exist(tmp_path: Path) -> None:
    write_checkpoint(tmp_path, 10, _tensors(1), {})
    write_checkpoint(tmp_path, 20, _tensors(2), {})
    (tmp_path / "000020.json").unlink()  # killed between the two files
    checkpoint, damage = read_newest_checkpoint(tmp_path)
    assert checkpoint is not None and checkpoint.step == 10 and not damage


@pytest.mark.parametrize("damage", ["flip", "truncate", "empty", "json"])
def test_damage_is_noticed_and_the_one_before_is_used(tmp_path: Path, damage: str) -> None:
    write_checkpoint(tmp_path, 10, _tensors(1), {})
    write_checkpoint(tmp_path, 20, _tensors(2), {})
    path = tmp_path / ("000020.json" if damage == "json" else "000020.safetensors")
    content = bytearray(path.read_bytes())
    content[-1] ^= 1 if damage == "flip" else 0
    path.write_bytes({"truncate": bytes(content[:-9]), "empty": b"", "json": b"{"}.get(damage, bytes(content)))
    checkpoint, lines = read_newest_checkpoint(tmp_path)
    assert checkpoint is not None and checkpoint.step == 10
    assert len(lines) == 1 and "damaged" in lines[0]
    for left in tmp_path.glob("000010.*"):
        left.write_bytes(b"")
    with pytest.raises(UserError, match="damaged"):
        read_newest_checkpoint(tmp_path)


def test_a_failed_write_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file"
    write_atomically(path, b"old")

    def fail(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", fail)
    with pytest.raises(OSError):
        write_atomically(path, b"new")
    assert path.read_bytes() == b"old"
