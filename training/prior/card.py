"""Model card of a trained prior; every figure comes from the records of the run."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import Any

from steindreamer.world import KINDS

from .evaluate import TIMESTEPS
from .model import CameraConditionedPipeline
from .sample import OVERHEAD

_ROWS = 16
"""Approximate number of rows in the table of the training progress."""

_CARD = """\
# Tiny world prior

A small diffusion model of images conditioned on a prompt and a camera, in diffusers' own format. `--prior tiny`
distills it, through the same class as Stable Diffusion.

- Network: a `UNet2DConditionModel` on patches of {patch} x {patch} pixels and a `CLIPTextModel` over {words} words;
  {parameters:,} parameters, {megabytes:.1f} MB in half precision.
- Input: {size} x {size} pixels in [-1, 1] under noise, the timestep, the prompt, the camera, the background's color
  (`distill/priors/camera_features.py`) and the modality: {modalities} (`distill/priors/modalities.py`). Output: the
  clean image (`prediction_type="sample"`).
- Data: {images:,} views of {objects:,} objects of `world`: {kinds_count} kinds in {captions} pairs of kind
  and color, azimuth all around, elevation {lowest:g} to {highest:g} degrees, {nearest:g} to {farthest:g} m away,
  {field_of_view:g} degrees of view; the captions in varied words. No other data or weights were used.
- Kinds: {kinds}.
- Held out of the training: {held_out}.
- Training: {steps:,} steps of {batch} images.
- License: that of the repository.

```python
import torch
from steindreamer.distill.priors.diffusion.camera_pipeline import CameraConditionedPipeline
from steindreamer.representations import Cameras

pipeline = CameraConditionedPipeline.from_pretrained("assets/tiny_world_prior")
views = Cameras.orbit([0.0, 90.0, 180.0, 270.0], [15.0] * 4, height={size})
images = pipeline("{first}", pipeline.features(views, torch.ones(4, 3), "{modality}")).images
```

## Samples

![Samples](samples.jpg)

One row per prompt: from 0, 90, 180 and 270 degrees of azimuth, and from {overhead:g} degrees above, as {modalities}.
Every image was sampled by itself (DDIM, 25 steps, no guidance), none was chosen. The rows:
{prompts}.

## How it learned

Mean squared error of the estimated clean image ({modality}), in [-1, 1], for objects that training has not seen, by
timestep. CPU seconds are those of the training, without the rendering of the views, the evaluations, and what was lost
or not recorded between an evaluation and an interruption.

{course}

## What it listens to

The same after the last of these steps, with wrong conditioning. "Held-out" pairs of kind and color were
never in the training.

{conditions}

## Limits

- It knows the kinds above and their colors; `DiffusersPrior` refuses other words.
- {size} x {size} pixels: what is finer comes from the representation's own smoothness, not from the model.
- One object in the middle of the image, upright, at the distances and angles above, over one plain color.
- It learned from the procedural world's renderings alone: it can draw nothing that they do not look like.
- Pixels saturate under classifier-free guidance. It follows the prompt at guidance scale 1.

## How it was made

    python -m steindreamer.training.prior.train --run FOLDER
    python -m steindreamer.training.prior.ship --run FOLDER
{started}
The last command wrote this card on {today}. Settings, as the run recorded them:

{settings}
"""


def read_records(path: Path) -> list[dict[str, Any]]:
    """Read the evaluation records, with the CPU seconds summed over all processes of an interrupted run.

    The time between the last evaluation and an interruption is not counted. Raises ValueError if there are no records.
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
    """Return the model card in Markdown.

    Args:
        pipeline: Pipeline of the trained prior.
        settings: Settings of the run, by section.
        records: Evaluation records of the run.
        prompts: Prompts of the sample images.
        megabytes: Size of the weights.
    """
    config, views = pipeline.config, settings["views"]
    first = pipeline.modalities[0]
    held_out = {tuple(pair) for pair in config["held_out"]}
    captions = sum((kind, color) not in held_out for kind in config["kinds"] for color in KINDS[kind].colors)
    objects = captions * views["sets_per_caption"] * views["objects_per_set"]
    return _CARD.format(
        patch=config["patch_size"],
        words=len(pipeline.tokenizer),
        parameters=sum(p.numel() for part in (pipeline.unet, pipeline.text_encoder) for p in part.parameters()),
        megabytes=megabytes,
        size=pipeline.image_size,
        modalities=", ".join(pipeline.modalities),
        modality=first,
        images=objects * views["cameras_per_set"],
        objects=objects,
        captions=captions,
        kinds_count=len(config["kinds"]),
        kinds=", ".join(sorted(config["kinds"])),
        lowest=views["elevation"][0],
        highest=views["overhead"][1],
        nearest=views["distance"][0],
        farthest=views["distance"][1],
        field_of_view=views["field_of_view"],
        held_out=", ".join(f"{color} {kind}" for kind, color in sorted(held_out)) or "nothing",
        steps=config["training_steps"],
        batch=settings["training"]["images"],
        first=prompts[0],
        overhead=OVERHEAD,
        prompts="; ".join(prompts),
        course=_course(records, first),
        conditions="\n\n".join(_conditions(records[-1], modality) for modality in pipeline.modalities),
        started=_started(settings["training"]["warm_start"]),
        today=date.today(),
        settings=_settings(settings),
    )


def _started(warm_start: str) -> str:
    count = len(warm_start.split(",")) if warm_start else 0
    if not count:
        return ""
    return (
        f"\nThe first weights are those of {count} earlier networks (`--warm-start`); the help of the training command "
        "says how a\nnetwork of 64 pixels is trained in two runs.\n"
    )


def _course(records: Sequence[Mapping[str, Any]], modality: str) -> str:
    stride = -(-len(records) // _ROWS)
    kept = list(records[stride - 1 :: stride])
    kept += [records[-1]] if kept[-1] is not records[-1] else []
    rows = [
        [
            f"{each['step']:,}",
            f"{each['cpu_seconds']:,}",
            *(f"{each[modality]['right'][str(t)]:.4f}" for t in TIMESTEPS),
        ]
        for each in kept
    ]
    return _table(["step", "CPU seconds", *(f"t = {t}" for t in TIMESTEPS)], rows)


def _conditions(record: Mapping[str, Any], modality: str) -> str:
    rows = []
    for name, errors in record[modality].items():
        right = record[modality]["held-out pairs" if name.startswith("held-out") else "right"]
        known = [t for t in TIMESTEPS if str(t) in errors]
        cells = {t: _compared(errors[str(t)], right[str(t)] if str(t) in right else errors[str(t)]) for t in known}
        rows.append([name, *(cells.get(t, "") for t in TIMESTEPS)])
    return _table([modality, *(f"t = {t}" for t in TIMESTEPS)], rows)


def _compared(error: float, right: float) -> str:
    return f"{error:.4f}" + ("" if error == right else f" ({error / right - 1:+.0%})")


def _settings(settings: Mapping[str, Mapping[str, Any]]) -> str:
    rows = [[section, name, f"`{json.dumps(value)}`"] for section, name, value in _flat(settings)]
    return _table(["", "setting", "value"], rows)


def _flat(settings: Mapping[str, Mapping[str, Any]]) -> Iterator[tuple[str, str, Any]]:
    for section, values in settings.items():
        for name, value in values.items():
            if name not in ("kinds", "held_out", "warm_start"):  # listed above
                yield section, name, value


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    return "\n".join(f"| {' | '.join(cells)} |" for cells in [head, ["---"] * len(head), *rows])
