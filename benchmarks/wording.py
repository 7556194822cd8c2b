"""How prompts as people write them are read: kind, color and parts against what was meant.

    python benchmarks/wording.py [--prior tiny] [--no-samples] [--name wording]

`plain_prompts.json` holds what was meant, written down before the reading was programmed. A prompt counts as right if
its object, color and parts are; parts and colors that the world does not draw count as right if they are named as
ignored, prompts without an object of the world if they are refused. By default, samples of the exact prior for the
caption that was read are then judged by the world's scorer against the caption that was meant. With `--prior tiny`,
only the words are judged, for the kinds that this model knows. Writes NAME.md to benchmarks/results.
"""

from __future__ import annotations

import argparse
import json
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from importlib import resources
from itertools import pairwise
from pathlib import Path

import steindreamer.passive_waiting  # noqa: F401 isort:skip

import torch
from jaxtyping import Float
from torch import Tensor

from steindreamer import assets
from steindreamer.representations import Cameras
from steindreamer.world import KINDS, Caption, Reading, UnknownPromptError, Wording, caption_of
from steindreamer.world.prior import WorldPrior, WorldPriorConfig
from steindreamer.world.scorer import SIZE, WorldScorer
from steindreamer.world.wording import model_wording

FOLDER = Path(__file__).parent
PROMPTS = FOLDER / "plain_prompts.json"
AZIMUTHS, ELEVATION, DISTANCE = (20.0, 200.0), 20.0, 3.2
SAMPLING_STEPS = 25
OBJECTS = 4
"""Objects of a caption in the exact prior."""


@dataclass(frozen=True)
class Meant:
    """A prompt and what its writer meant."""

    prompt: str
    kind: str | None
    """Key of `KINDS`; None if the world has no such object."""
    color: str | None
    """Color of the object, if the prompt says one."""
    parts: Mapping[str, str | None]
    """Parts in the writer's words, with their colors if the prompt says them."""

    def caption(self) -> Caption | None:
        """Return the caption that comes closest; None if the world has none."""
        if self.kind is None:
            return None
        kind = KINDS[self.kind]
        named = [color for part, color in self.parts.items() if color and _part(self.kind, part) in kind.colored]
        color = next(iter(named), self.color or kind.default)
        return caption_of(self.kind, color) if color in kind.colors else None


def read_list() -> list[Meant]:
    """Read the list of prompts."""
    return [Meant(**row) for row in json.loads(PROMPTS.read_text(encoding="utf-8"))]


def faults(meant: Meant, reading: Reading | None) -> list[str]:
    """List what a reading got wrong; `reading` is None if the prompt was refused."""
    if reading is None or meant.kind is None:
        return [] if reading is None and meant.kind is None else ["refused" if reading is None else "not refused"]
    caption = reading.caption
    if caption.kind != meant.kind:
        return [f"a {caption.kind}, not a {meant.kind}"]
    out = []
    wanted = meant.caption()
    if wanted is None or caption.color != wanted.color:
        out.append(f"{caption.color}, not {wanted.color if wanted else meant.color}")
    for part, color in meant.parts.items():
        known = _part(meant.kind, part)
        if known is None:
            if not any(part.split()[-1] in ignored for ignored in reading.ignored):
                out.append(f"{part} not named")
        elif known not in reading.parts:
            out.append(f"no {part}")
        elif color and reading.parts[known] != color:
            out.append(f"{part} {reading.parts[known] or 'of no color'}, not {color}")
    return out


def _part(kind: str, part: str) -> str | None:
    """Return the world's word for a part of a kind; None if the kind has no such part."""
    return next(iter(Wording().read(f"a {kind} with a {part}").parts), None)


def read_all(wording: Wording, prompts: Sequence[Meant]) -> list[Reading | None]:
    """Read all prompts; None where one is refused."""

    def read(prompt: str) -> Reading | None:
        try:
            return wording.read(prompt)
        except UnknownPromptError:
            return None

    return [read(meant.prompt) for meant in prompts]


def samples(prior: WorldPrior, prompt: str, generator: torch.Generator) -> Float[Tensor, "v 3 h w"]:
    """Sample an image of the prompt at every azimuth, by DDIM, over white; sRGB in [0, 1]."""
    cameras = Cameras.orbit(AZIMUTHS, [ELEVATION] * len(AZIMUTHS), distance=DISTANCE, height=SIZE)
    condition = prior.condition(prior.embed(prompt), cameras, torch.ones(len(AZIMUTHS), 3))
    noisy = torch.randn(len(AZIMUTHS), 3, SIZE, SIZE, generator=generator)
    clean = noisy
    for now, after in pairwise(torch.linspace(999, 0, SAMPLING_STEPS).long()):
        (alpha, sigma), (alpha_after, sigma_after) = (prior.schedule.at(t.expand(len(noisy))) for t in (now, after))
        noise = condition.positive.predict_noise(noisy, alpha, sigma)
        clean = (noisy - sigma * noise) / alpha
        noisy = alpha_after * clean + sigma_after * noise
    return prior.decode(clean).clamp(0, 1)


@torch.no_grad()
def judged(prompts: Sequence[Meant], readings: Sequence[Reading | None]) -> dict[str, str]:
    """Return the caption that the scorer finds in the samples of every prompt that was read; alike ones share them."""
    scorer, prior = WorldScorer.load(), WorldPrior(WorldPriorConfig(objects=OBJECTS, unconditional_objects=1))
    generator, found = torch.Generator().manual_seed(0), dict[str, str]()
    for reading in readings:
        if reading is not None and reading.caption.text not in found:
            logits = scorer.score(samples(prior, reading.text, generator), scorer.known)
            found[reading.caption.text] = scorer.known[int(logits.log_softmax(1).mean(0).argmax())].text
    pairs = zip(prompts, readings, strict=True)
    return {meant.prompt: found[reading.caption.text] for meant, reading in pairs if reading is not None}


def page(name: str, prompts: Sequence[Meant], readings: Sequence[Reading | None], seen: Mapping[str, str]) -> str:
    """Write the result as Markdown."""
    wrong = {m.prompt: found for m, r in zip(prompts, readings, strict=True) if (found := faults(m, r))}
    objects = [meant for meant in prompts if meant.kind]
    accepted = sum(reading is not None for meant, reading in zip(prompts, readings, strict=True) if meant.kind)
    meant_captions = {m.prompt: c.text for m in objects if (c := m.caption())}
    right = sum(seen[prompt] == text for prompt, text in meant_captions.items() if prompt in seen)
    lines = [
        "# Prompts as people write them",
        "",
        f"{date.today()}, {platform.machine()}, torch {torch.__version__}; prior `{name}`; {len(prompts)} prompts of "
        "`benchmarks/plain_prompts.json`",
        "",
        f"- right object, color and parts, or rightly refused: **{len(prompts) - len(wrong)} of {len(prompts)}** "
        f"({(len(prompts) - len(wrong)) / len(prompts):.1%})",
        f"- accepted: {accepted} of the {len(objects)} with an object of the world",
    ]
    if seen:
        lines.append(
            f"- samples of the exact prior ({len(AZIMUTHS)} views, {SAMPLING_STEPS} DDIM steps, {SIZE} px): the scorer "
            f"finds the caption that was meant, among {sum(len(k.colors) for k in KINDS.values())}, for {right} of "
            f"{len(objects)}"
        )
    lines += ["", "| prompt | read as | ignored | wrong |" + (" samples |" if seen else "")]
    lines.append("|---|---|---|---|" + ("---|" if seen else ""))
    for meant, reading in zip(prompts, readings, strict=True):
        cells = [meant.prompt, reading.caption.text if reading else "(refused)"]
        cells += [", ".join(reading.ignored) if reading else "", "; ".join(wrong.get(meant.prompt, []))]
        if seen:
            cells.append(seen.get(meant.prompt, ""))
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prior", choices=("world", "tiny"), default="world")
    parser.add_argument("--no-samples", action="store_true")
    parser.add_argument("--name", default="wording")
    options = parser.parse_args()
    prompts, wording = read_list(), Wording()
    if options.prior == "tiny":
        known = model_wording(resources.files(assets) / "tiny_world_prior")
        if known is None:
            raise SystemExit("the shipped model does not say which kinds it knows")
        wording, prompts = known, [meant for meant in prompts if meant.kind is None or meant.kind in known.colors]
    readings = read_all(wording, prompts)
    seen = {} if options.no_samples or options.prior == "tiny" else judged(prompts, readings)
    text = page(options.prior, prompts, readings, seen)
    (FOLDER / "results" / f"{options.name}.md").write_text(text, encoding="utf-8")
    print("\n".join(text.splitlines()[:8]))


if __name__ == "__main__":
    main()
