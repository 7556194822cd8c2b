"""Detection of models in other formats than diffusers' folder layout, with advice on converting each."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

SINGLE_FILES = (".safetensors", ".ckpt", ".pt", ".pth", ".bin")
OTHER_FILES = (*SINGLE_FILES, ".gguf", ".onnx")
"""Name suffixes of files that hold a model, or a part of one."""
_CONVERT = (
    "convert it to a folder with diffusers: StableDiffusionPipeline.from_single_file('{file}')"
    ".save_pretrained('FOLDER') (StableDiffusionXLPipeline and so on for other families), and give FOLDER"
)
_GGUF = "GGUF holds quantized weights, which are not supported; give the model's folder with safetensors"
_ONNX = "ONNX models have no gradient here; give the model's folder with safetensors"
_LORA = (
    "holds LoRA weights, which are not supported by themselves; merge them into their model with diffusers "
    "(pipeline.load_lora_weights(...), pipeline.fuse_lora(), pipeline.unload_lora_weights(), "
    "pipeline.save_pretrained('FOLDER')) and give FOLDER"
)
_LORA_FILES = ("adapter_config.json", "adapter_model.safetensors", "pytorch_lora_weights.safetensors")


def refuse_file(name: str, path: Path | None) -> None:
    """Refuse a model given as a single file. Raises ValueError with advice; `path` is the file, if it exists."""
    ending = Path(name).suffix.lower()
    if path is None and ending not in OTHER_FILES:
        return
    if path is None:
        raise ValueError(f"there is no file '{name}'; a model is a folder in diffusers' layout")
    if "lora" in path.name.lower():
        raise ValueError(f"{path} {_LORA}")
    out = {".gguf": _GGUF, ".onnx": _ONNX}.get(ending, _CONVERT.format(file=path))
    raise ValueError(f"{path} is a single file; a model is a folder in diffusers' layout: {out}")


def refuse_other_layouts(available: Collection[str], pipeline: str) -> None:
    """Refuse a folder in another known layout. Raises ValueError with advice.

    Args:
        available: paths of the folder's files and subfolders.
        pipeline: the pipeline named by its model_index.json, or "".
    """
    lora = sorted(path for path in available if path.rpartition("/")[2] in _LORA_FILES)
    if not pipeline and lora:
        raise ValueError(f"{lora[0]} {_LORA}")
    if pipeline.startswith("Onnx") or (not pipeline and _ending(available, ".onnx")):
        raise ValueError(_ONNX)
    if pipeline or any(path.endswith("/config.json") for path in available):
        return
    gguf, single = _ending(available, ".gguf"), _ending(available, *SINGLE_FILES)
    if gguf:
        raise ValueError(f"{gguf}: {_GGUF}")
    if single and "/" not in single:
        raise ValueError(f"{single} is a model in a single file: {_CONVERT.format(file=single)}")


def _ending(available: Collection[str], *endings: str) -> str | None:
    """The first path with this suffix, top-level ones first."""
    found = sorted((path.count("/"), path) for path in available if path.lower().endswith(endings))
    return found[0][1] if found else None
