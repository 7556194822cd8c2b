"""Initialization from the weights of another prior, which may differ in size, patch, vocabulary or modalities."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from .model import CameraConditionedPipeline, TinyPrior


@torch.no_grad()
def warm_start(model: TinyPrior, tokenizer: Any, source: CameraConditionedPipeline) -> float:
    """Copy all weights of the source that fit; returns the fraction of the network's parameters that was copied.

    Patches that are larger by an integer factor use averages of the source's patches. Conditions that the source did
    not have start without effect. Words are matched by spelling; new ones stay random. Levels are matched from the
    coarsest one if their channels agree; an additional finer level takes the weights of the source's finest level if
    the patch sizes are equal. Otherwise levels are matched from the finest one, and levels beyond those of the source
    take the weights of its next coarser level with the same shapes.
    """
    weights = {name: value.float() for name, value in source.unet.state_dict().items()}
    channels = tuple(source.unet.config.block_out_channels), tuple(model.unet.config.block_out_channels)
    same_patch = model.patch == source.config["patch_size"]
    taken = 0
    for name, target in model.unet.state_dict().items():
        if name == "conv_in.weight":
            value = _repeated(weights[name].transpose(0, 1), model.patch, source.config["patch_size"], mean=True)
            value = None if value is None else value.transpose(0, 1)
        elif name in ("conv_out.weight", "conv_out.bias"):
            value = _repeated(weights[name], model.patch, source.config["patch_size"], mean=False)
        elif name == "class_embedding.linear_1.weight":
            value = _by_name(weights[name].T, source.config["camera_features"], model.features, 0 * target.T).T
        else:
            value = _first_that_fits(weights, _candidates(name, *channels, same_patch), target)
        taken += _fill(target, value)
    words = {name: value.float() for name, value in source.text_encoder.state_dict().items()}
    for name, target in model.text_encoder.state_dict().items():
        value = words.get(name)
        if name.endswith("token_embedding.weight") and value is not None:
            known = (_words(source.tokenizer), _words(tokenizer))
            value = _by_name(value, *known, target)
        elif name.endswith("position_embedding.weight") and value is not None:
            # Positions beyond the length of the source are initialized like its padding.
            beyond = value[-1:].expand(max(len(target) - len(value), 0), -1)
            value = torch.cat([value, beyond])[: len(target)]
        taken += _fill(target, value)
    return taken / sum(parameter.numel() for parameter in model.parameters())


def _fill(target: Tensor, value: Tensor | None) -> int:
    if value is None or value.shape != target.shape:
        return 0
    target.copy_(value)
    return target.numel()


def _repeated(
    weight: Float[Tensor, "channels ..."], patch: int, source_patch: int, *, mean: bool
) -> Float[Tensor, "wider ..."] | None:
    """Repeat the weights per channel of an unshuffled image for patches that are larger by an integer factor."""
    factor = patch // source_patch
    if patch % source_patch:
        return None
    pixels = weight.unflatten(0, (-1, source_patch, source_patch))
    pixels = pixels.repeat_interleave(factor, 1).repeat_interleave(factor, 2)
    return pixels.flatten(0, 2) / (factor**2 if mean else 1)


def _by_name(
    rows: Float[Tensor, "n c"], names: Sequence[str], wanted: Sequence[str], otherwise: Float[Tensor, "m c"]
) -> Float[Tensor, "m c"]:
    """Return one row per wanted name, from `rows` if the name is known and the widths agree, else from `otherwise`."""
    if rows.shape[1] != otherwise.shape[1]:
        return otherwise
    places = {name: i for i, name in enumerate(names)}
    return torch.stack([rows[places[name]] if name in places else otherwise[i] for i, name in enumerate(wanted)])


def _words(tokenizer: Any) -> list[str]:
    vocabulary = tokenizer.get_vocab()
    return sorted(vocabulary, key=vocabulary.__getitem__)


def _candidates(name: str, source: tuple[int, ...], channels: tuple[int, ...], same_patch: bool) -> Iterator[str]:
    """Yield names of the source's tensors that may initialize the tensor `name`, best first."""
    block, _, rest = name.partition(".")
    if block not in ("down_blocks", "up_blocks"):
        yield name
        return
    number, _, inner = rest.partition(".")
    level = int(number) if block == "down_blocks" else len(channels) - 1 - int(number)
    last = len(source) - 1
    if channels[-len(source) :] == source:
        same_size = level - len(channels) + len(source)
        levels = [same_size] if same_size >= 0 else [0] * same_patch
    else:
        first = last if level == len(channels) - 1 else min(level, last)
        levels = list(range(first, len(source)))
    for other in levels:
        yield f"{block}.{other if block == 'down_blocks' else last - other}.{inner}"


def _first_that_fits(weights: Mapping[str, Tensor], names: Iterator[str], target: Tensor) -> Tensor | None:
    found = (weights[name] for name in names if name in weights)
    return next((value for value in found if value.shape == target.shape), None)
