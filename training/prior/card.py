"""The model card of a trained prior: every figure comes from the run's own records."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import Any

from ..world import KINDS
from .dataset import SIZE
from .evaluate import CONDITION_TIMESTEPS, TIMESTEPS
from .model import CameraConditionedPipeline
from .sample import OVERHEAD

_ROWS = 16
"""Of the table of the training's course, about."""

_CARD = """\
# Tiny world prior

A small diffusion model of pictures that is told a prompt and a camera, in diffusers' own format. `--prior tiny` distils
it, through the same class as Stable Diffusion.

- Network: a `UNet2DConditionModel` on patches of {patch} x {patch} pixels and a `CLIPTextModel` over {words} words;
  {parameters:,} parameters, {megabytes:.1f} MB in half precision.
- Input: {size} x {size} pixels of sRGB in [-1, 1] under noise, the timestep, the prompt, the camera and the
  background's colour (`distill/camera_features.py`). Output: the clean picture (`prediction_type="sample"`).
- Data: {pictures:,} views of {objects:,} objects of `training/world`: {kinds_count} kinds in {captions} pairs of kind
  and colour, azimuth all around, elevation {lowest:g} to {highest:g} degrees, {nearest:g} to {farthest:g} m away,
  {field_of_view:g} degrees of view; the captions in varied words. No other data or weights were used.
- Kinds: {kinds}.
- Held out of the training: {held_out}.
- Training: {steps:,} steps of {batch} pictures.
- Licence: that of the repository.

```python
import torch
from steindreamer.distill.camera_features import camera_features
from steindreamer.distill.diffusion.camera_pipeline import CameraConditionedPipeline
from steindreamer.representations import Cameras

pipeline = CameraConditionedPipeline.from_pretrained("assets/tiny_world_prior")
views = Cameras.orbit([0.0, 90.0, 180.0, 270.0], [15.0] * 4, height={size})
pictures = pipeline("{first}", camera_features(views, torch.ones(4, 3))).images
```

## Samples

![Samples](samples.png)

One row per prompt: from 0, 90, 180 and 270 degrees of azimuth, and from {overhead:g} degrees above. Every picture was
sampled by itself (DDIM, 25 steps, no guidance), none was chosen. The rows:
{prompts}.

## How it learned

Mean squared error of the estimated clean picture, in [-1, 1], for objects that training has not seen, by timestep.
CPU seconds are those of the training, without the rendering of the views, the evaluations, and what was lost or not
recorded between an evaluation and an interruption.

{course}

## What it listens to

The same after the last of these steps, told something else than the truth. "Held-out" pairs of kind and colour were
never in the training.

{conditions}

## Limits

- It knows the kinds above and their colours; `DiffusersPrior` refuses other words. `--prior world` has more.
- {size} x {size} pixels: what is finer comes from the representation's own smoothness, not from the model.
- One object in the middle of the picture, upright, at the distances and angles above, over one plain colour.
- It learned from the procedural world's renderings alone: it can draw nothing that they do not look like.
- Pixels saturate under classifier-free guidance. It heeds the prompt without: guidance 1.

## How it was made

    python -m steindreamer.training.prior.train --run FOLDER
    python -m steindreamer.training.prior.ship --run FOLDER

The second command wrote this card on {today}. Settings, as the run recorded them:

{settings}
"""


def read_records(path: Path) -> list[dict[str, Any]]:
    """Of the evaluations, with the CPU seconds of all processes that a run was interrupted into.

    What lies between the last evaluation and an interruption is not counted. Raises ValueError if there is none.
    """
    lines = path.read_text().splitlines() if path.exists() else []
    if not lines:
        raise ValueError(f"{path} holds no evaluation: train with --evaluate-every")
    records, before, last = [], 0, 0
    for record in map(json.loads, lines):
        if record["cpu_seconds"] < last:
            before += last
        last = record["cpu_seconds"]
        records.append({**record, "cpu_seconds": before + last})
    return records


def write_card(
    pipeline: CameraConditionedPipeline,
    settings: Mapping[str, Mapping[str, Any]],
    records: Sequence[Mapping[str, Any]],
    prompts: Sequence[str],
    megabytes: float,
) -> str:
    """In Markdown. `settings` and `records` are the run's; `prompts` those of the samples."""
    config, views = pipeline.config, settings["views"]
    held_out = {tuple(pair) for pair in config["held_out"]}
    captions = sum((kind, colour) not in held_out for kind in config["kinds"] for colour in KINDS[kind].colours)
    objects = captions * views["sets_per_caption"] * views["objects_per_set"]
    return _CARD.format(
        patch=config["patch_size"],
        words=len(pipeline.tokenizer),
        parameters=sum(p.numel() for part in (pipeline.unet, pipeline.text_encoder) for p in part.parameters()),
        megabytes=megabytes,
        size=SIZE,
        pictures=objects * views["cameras_per_set"],
        objects=objects,
        captions=captions,
        kinds_count=len(config["kinds"]),
        kinds=", ".join(sorted(config["kinds"])),
        lowest=views["elevation"][0],
        highest=views["overhead"][1],
        nearest=views["distance"][0],
        farthest=views["distance"][1],
        field_of_view=views["field_of_view"],
        held_out=", ".join(f"{colour} {kind}" for kind, colour in sorted(held_out)) or "nothing",
        steps=config["training_steps"],
        batch=settings["training"]["pictures"],
        first=prompts[0],
        overhead=OVERHEAD,
        prompts="; ".join(prompts),
        course=_course(records),
        conditions=_conditions(records[-1]),
        today=date.today(),
        settings=_settings(settings),
    )


def _course(records: Sequence[Mapping[str, Any]]) -> str:
    stride = -(-len(records) // _ROWS)
    kept = list(records[stride - 1 :: stride])
    kept += [records[-1]] if kept[-1] is not records[-1] else []
    rows = [
        [f"{each['step']:,}", f"{each['cpu_seconds']:,}", *(f"{each['right'][str(t)]:.4f}" for t in TIMESTEPS)]
        for each in kept
    ]
    return _table(["step", "CPU seconds", *(f"t = {t}" for t in TIMESTEPS)], rows)


def _conditions(record: Mapping[str, Any]) -> str:
    rows = []
    for name, errors in record.items():
        if isinstance(errors, Mapping):
            right = record["held-out pairs" if name.startswith("held-out") else "right"]
            rows.append([name, *(_compared(errors[str(t)], right[str(t)]) for t in CONDITION_TIMESTEPS)])
    return _table(["told", *(f"t = {t}" for t in CONDITION_TIMESTEPS)], rows)


def _compared(error: float, right: float) -> str:
    return f"{error:.4f}" + ("" if error == right else f" ({error / right - 1:+.0%})")


def _settings(settings: Mapping[str, Mapping[str, Any]]) -> str:
    rows = [[section, name, f"`{json.dumps(value)}`"] for section, name, value in _flat(settings)]
    return _table(["", "setting", "value"], rows)


def _flat(settings: Mapping[str, Mapping[str, Any]]) -> Iterator[tuple[str, str, Any]]:
    for section, values in settings.items():
        for name, value in values.items():
            if name not in ("kinds", "held_out"):  # listed above
                yield section, name, value


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    return "\n".join(f"| {' | '.join(cells)} |" for cells in [head, ["---"] * len(head), *rows])
