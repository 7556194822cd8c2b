"""Weight files, checked before use: complete, floating-point and finite."""

from __future__ import annotations

import errno
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import load, save
from torch import Tensor, nn

from ..third_party.errors import foreign_errors
from .json_files import read_json_object

_FLOATS = ("F64", "F32", "F16", "BF16")
_TABLES = ("position_ids", "relative_position_index", "num_batches_tracked")
"""Name suffixes of integer tensors that are no weights: tables that a network builds itself, and counters."""
_POINTER = b"version https://git-lfs"


def tensor_files(paths: Iterable[Path]) -> dict[str, Path]:
    """The safetensors file that holds each tensor, from the files' headers alone.

    Raises ValueError, naming file and tensor, for a file that is damaged or holds weights that are not floating-point.
    """
    found: dict[str, Path] = {}
    for path in paths:
        if not path.is_file():
            raise FileNotFoundError(errno.ENOENT, "no such file, or not a regular one", str(path))
        with path.open("rb") as file:
            if file.read(len(_POINTER)) == _POINTER:
                raise ValueError(f"{path} is a pointer of Git LFS, not the weights: run git lfs pull, or hf download")
        with foreign_errors(f"{path} is damaged"), safe_open(path, "pt") as weights:
            kinds: dict[str, str] = {name: weights.get_slice(name).get_dtype() for name in weights.keys()}
        for name, kind in kinds.items():
            if kind not in _FLOATS and not name.endswith(_TABLES):
                raise ValueError(
                    f"{path} stores '{name}' as {kind}; only weights as {', '.join(_FLOATS)} are accepted, not "
                    "quantized ones"
                )
            found[name] = path
    return found


def check_shard_index(index: Path, shards: Collection[str]) -> None:
    """Check an index of shards. Raises ValueError unless it assigns every tensor to one of the files `shards`."""
    listed = read_json_object(index).get("weight_map")
    if not isinstance(listed, dict) or not listed:
        raise ValueError(f"{index} has no weight_map that says which file holds which tensor")
    strange = next((f"{name!r} is in {file!r}" for name, file in listed.items() if file not in set(shards)), None)
    if strange:
        raise ValueError(f"{index} says that {strange}, which is not one of {', '.join(sorted(shards))}")


def check_report(where: object, report: Mapping[str, Any], harmless: Collection[str] = ()) -> None:
    """Check the loading report of a library.

    Args:
        harmless: name prefixes of tensors that may be left over.

    Raises ValueError naming the tensors that were missing, of another shape, or left over.
    """
    left = [
        name
        for name in report["unexpected_keys"]
        if not name.endswith(_TABLES) and not name.startswith(tuple(harmless))
    ]
    missing = sorted(report["missing_keys"])
    if missing:
        raise ValueError(
            f"{where} lacks {_some(missing)}: it is incomplete or belongs to another model; download it again"
        )
    mismatched = sorted(str(each[0]) if isinstance(each, tuple) else str(each) for each in report["mismatched_keys"])
    if mismatched:
        raise ValueError(f"{where} has {_some(mismatched)} in a different shape than config.json specifies")
    if left:
        raise ValueError(f"{where} contains {_some(sorted(left))}, which the model of its config.json does not have")


def fill(model: nn.Module, content: bytes, where: Path, what: str) -> None:
    """Load weights of a safetensors file, already read, into one of this package's networks, cast to float32.

    Args:
        where: the file, for messages.
        what: the kind of network, for messages.

    Raises ValueError naming the file unless it holds exactly the network's tensors and all their numbers are finite.
    """
    with foreign_errors(f"{where} is damaged, or is not a {what}"):
        tensors = load(content)
        model.load_state_dict({k: v.float() if v.is_floating_point() else v for k, v in tensors.items()})
    check_finite(model.state_dict().items(), where)


def in_half_precision(state: Mapping[str, Tensor]) -> bytes:
    """The content of a weight file in half precision; running statistics, which may exceed its range, stay float32."""

    def stored(name: str, value: Tensor) -> Tensor:
        half = value.is_floating_point() and "running_" not in name
        return (value.half() if half else value).contiguous().cpu()

    return save({name: stored(name, value) for name, value in state.items()})


def check_finite(tensors: Iterable[tuple[str, Tensor]], where: Mapping[str, Path] | Path) -> None:
    """Check that all numbers are finite. Raises ValueError naming file and tensor of a NaN or infinity.

    Args:
        where: the file, or the file of each tensor; names there may have the model's own as prefix.
    """
    for name, tensor in tensors:
        if not tensor.is_floating_point() or tensor.is_meta or not tensor.numel():
            continue
        least, most = torch.aminmax(tensor.detach())
        if not (torch.isfinite(least) and torch.isfinite(most)):
            path = where if isinstance(where, Path) else _file_of(name, where)
            half = " in float16; try another precision" if tensor.dtype == torch.float16 else ""
            raise ValueError(f"{path} has values in '{name}' that are not finite{half}")


def _file_of(name: str, files: Mapping[str, Path]) -> Path:
    """The file of a tensor by its name; libraries change the prefixes of names."""
    paths = [path for known, path in files.items() if known.endswith(name) or name.endswith(known)]
    return paths[0] if paths else next(iter(files.values()))


def _some(names: list[str]) -> str:
    if len(names) == 1:
        return f"the tensor '{names[0]}'"
    return f"{len(names)} tensors such as '{names[0]}'"
