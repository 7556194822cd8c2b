"""Milliseconds and memory of a step of SDS, SSD and VSD with full-size text-to-image models on a GPU, offline.

    python benchmarks/diffusion.py [--device cuda] [--models ...] [--batches 1 4] [--compile] [--work DIR]
    python benchmarks/diffusion.py --size tiny --device cpu --out FILE    # does the script still run?

Models of the published sizes with random weights (see models/random_weights.py) are written once to `--work` (11 GB)
and then loaded by the product's own code: U-Net in bfloat16, autoencoder and estimators in float32. A step is that of
the preset `stable_diffusion` at full resolution: `--batches` views of Gaussians, guidance 7.5, so two rows of the U-Net
per view; without densification and without probes of the variance. The model sees the views at its own size unless
`--image-size` says another. SDS runs first and last: the two tell how far the machine drifted, and the ratios are to
their mean.

Times are medians over `--steps` steps after `--warmup` others, on CUDA between its own events without waiting in
between: where the GPU is faster than the host can ask, they are the host's. Writes benchmarks/results/diffusion.md, or
diffusion_compiled.md; runs on the CPU or with tiny models may not write there.
"""

from __future__ import annotations

import argparse
import gc
import shlex
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import wraps
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from statistics import mean, median
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import steindreamer.passive_waiting  # noqa: F401 isort:skip

import numpy as np
import torch
from models.published import DEPTH_MODELS
from models.random_weights import SIZES, WITH_RANDOM_WEIGHTS, depth_model, small_decoder, text_to_image
from splatting import hardware

from steindreamer.pipelines.config.run_config import RunConfig, compose, preset_layers
from steindreamer.pipelines.geometry_models import SHIPPED, load_estimator
from steindreamer.pipelines.optimization.stage import Stage, StepInfo
from steindreamer.representations import Buildable

RESULTS = Path(__file__).parent / "results"
TINY = {"batches": [1], "pixels": 32, "count": 200, "warmup": 1, "steps": 3}
"""Defaults at the tiny size."""
STEP, REST = "step", "rest"
PARTS = ("render", "encode", "score", "terms", "backward", "optimizer", "coefficients")
HEADING = f"""\
| model | method | views | ms per step | quartiles | of SDS | {" | ".join((*PARTS, REST))} | peak GB |
|{"---|" * (len(PARTS) + 8)}"""
EXPLANATION = """\
Of a step: drawing the scene; `encode`, the autoencoder; `score`, the U-Net; `terms`, the control variates (for depth:
decoding, estimator and its gradient); `backward` through autoencoder and scene; `optimizer`, Adam; `coefficients`, what
they learn, and VSD's copy; the rest is cameras, their upload and what is logged. Peak: the most that torch had
allocated, weights included."""
VSD_LEAST = 1.4
"""Expected of a step of VSD, in steps of SSD (SteinDreamer, Tab. 2: 1.42)."""
FASTEST_MS = 40.0
"""Target of an SSD step of one view with Stable Diffusion 2.1-base on an H200-class GPU."""


@dataclass(frozen=True)
class Method:
    label: str
    name: str
    """Of `METHODS`."""
    settings: dict[str, Any] = field(default_factory=dict)
    most: float | None = None
    """Target: so many times SDS."""


SDS = Method("SDS", "sds")
SPECTRAL = Method("SSD, spectral", "ssd", {"method": {"control_variates": {"terms": ["spectral"]}}}, 1.02)
VSD = Method("VSD", "vsd")


def with_depth(name: str, folder: Path | str) -> Method:
    """The paper's baseline beside the term that is SDS, judged by this estimator."""
    settings = {"method": {"control_variates": {"terms": ["noise", "depth"]}}, "estimator": {"model": str(folder)}}
    return Method(f"SSD, depth by {name}", "ssd", settings, 1.05)


@dataclass(frozen=True)
class Row:
    model: str
    method: Method
    views: int
    milliseconds: dict[str, float]
    """Medians of the step and its parts."""
    quartiles: tuple[float, float]
    """First and third, of the step's milliseconds."""
    gigabytes: float | None
    """None on the CPU."""


class Stopwatch:
    """Spans of time by name and step; on CUDA between events, read when all is over."""

    def __init__(self, device: torch.device) -> None:
        self._cuda = device.type == "cuda"
        self._steps: list[list[tuple[str, Any, Any]]] = []
        self._inside = False

    @contextmanager
    def step(self) -> Iterator[None]:
        self._steps.append([])
        with self._span(STEP):
            yield

    def timed(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """What it calls in its turn (VSD's learning has a backward of its own) counts for it alone."""

        @wraps(function)
        def measured(*arguments: Any, **options: Any) -> Any:
            if self._inside:
                return function(*arguments, **options)
            self._inside = True
            try:
                with self._span(name):
                    return function(*arguments, **options)
            finally:
                self._inside = False

        return measured

    def milliseconds(self) -> dict[str, list[float]]:
        """Per step: of the whole, of every part, and of what no part covers."""
        if self._cuda:
            torch.cuda.synchronize()
        steps = [self._sums(spans) for spans in self._steps]
        return {name: [step[name] for step in steps] for name in (STEP, *PARTS, REST)}

    @contextmanager
    def _span(self, name: str) -> Iterator[None]:
        start = self._mark()
        yield
        self._steps[-1].append((name, start, self._mark()))

    def _mark(self) -> Any:
        if not self._cuda:
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event

    def _sums(self, spans: list[tuple[str, Any, Any]]) -> dict[str, float]:
        sums: dict[str, float] = {name: 0.0 for name in (STEP, *PARTS)}
        for name, start, end in spans:
            sums[name] += start.elapsed_time(end) if self._cuda else 1e3 * (end - start)
        return sums | {REST: sums[STEP] - sum(sums[part] for part in PARTS)}


@contextmanager
def watched(stage: Stage, watch: Stopwatch) -> Iterator[None]:
    """The calls that make up a step report to the stopwatch."""
    distiller = stage.distiller
    variates = tuple(
        SimpleNamespace(names=each.names, initial=each.initial, terms=watch.timed("terms", each.terms))
        for each in distiller.control_variates
    )
    calls = [
        (stage.representation, "render", "render"),
        (stage.prior, "encode", "encode"),
        (stage.prior, "predict_noise", "score"),
        (torch.Tensor, "backward", "backward"),
        (distiller, "update", "coefficients"),
        (stage.optimizer, "step", "optimizer"),
    ]
    if hasattr(stage.prior, "predict_lora"):  # of VSD's learned score
        calls.append((stage.prior, "predict_lora", "score"))
    with ExitStack() as stack:
        stack.enter_context(patch.object(distiller, "control_variates", variates))
        for owner, name, part in calls:
            stack.enter_context(patch.object(owner, name, watch.timed(part, getattr(owner, name))))
        yield


def configuration(arguments: argparse.Namespace, folder: Path, decoder: Path, method: Method, views: int) -> RunConfig:
    """The preset without what does not happen in every step."""
    settings = {
        "prompt": "a wooden treasure chest",
        "representation": {"count": arguments.count, "densify": {"interval": 0}},
        "stages": {
            "coarse": {
                "resolution": arguments.pixels,
                "warmup": 0,
                "views": {"per_step": views},
                "probe_every": 0,
            }
        },
        "method": {"guidance_scale": 7.5},
        "prior": {
            "precision": arguments.precision,
            "compile": arguments.compile,
            "image_size": arguments.image_size,
            "decoder": str(decoder),
            "cache_text": False,
        },
    }
    chosen = {"representation": "gaussians", "prior": str(folder), "method": method.name}
    return compose([*preset_layers("stable_diffusion"), settings, method.settings], chosen)


def start(config: RunConfig, prior: Any, embedding: Any) -> Stage:
    """The coarse stage with a prior that is loaded already."""
    generator, method = torch.Generator().manual_seed(config.seed), config.methods["coarse"]
    estimator = load_estimator(config.estimator, prior.device) if method.needs_estimator else None
    distiller = method.build(prior, estimator).to(prior.device)
    assert isinstance(config.representation, Buildable)
    scene = config.representation.build(generator, prior.device)
    return Stage(scene, distiller, prior, embedding, config.stages["coarse"], generator)


def measure(stage: Stage, warmup: int, steps: int) -> tuple[dict[str, float], tuple[float, float], float | None]:
    """Median milliseconds by part, the quartiles of the step's, and the peak of the memory in GB."""
    device, watch = stage.prior.device, Stopwatch(stage.prior.device)
    for _ in range(warmup):
        _check(stage.step())
    if device.type == "cuda":
        gc.collect()  # the scene and the estimator of the row before
        torch.cuda.reset_peak_memory_stats()
    with watched(stage, watch):
        for _ in range(steps):
            with watch.step():
                info = stage.step()
            _check(info)
    times = watch.milliseconds()
    first, third = np.quantile(times[STEP], [0.25, 0.75])
    return {name: median(values) for name, values in times.items()}, (float(first), float(third)), _peak(device)


def _check(info: StepInfo) -> None:
    """Only steps like the others are worth timing: taken, and not in portions for want of memory."""
    if info.skipped or info.notes:
        raise RuntimeError("; ".join([info.skipped, *info.notes]).strip("; "))


def _peak(device: torch.device) -> float | None:
    return torch.cuda.max_memory_allocated() / 1e9 if device.type == "cuda" else None


def rows(arguments: argparse.Namespace, model: str, views: int) -> Iterator[Row]:
    """SDS, SSD, VSD, and SDS again."""
    work, size, device = arguments.work, arguments.size, arguments.device
    folder, decoder = text_to_image(work, model, size, device), small_decoder(work, size, device)
    depth = [
        with_depth(name, SHIPPED if name == "shipped" else depth_model(work, name, size, device))
        for name in arguments.estimators
    ]
    torch.compiler.reset()  # or the second number of views would be compiled for any number
    base = configuration(arguments, folder, decoder, SDS, views)
    prior = base.prior.build(torch.device(device))
    embedding = prior.embed(base.prompt)
    for method in (SDS, SPECTRAL, *depth, VSD, SDS):
        config = configuration(arguments, folder, decoder, method, views)
        stage = start(config, prior, embedding)
        yield Row(model, method, views, *measure(stage, arguments.warmup, arguments.steps))


def ratio(row: Row, among: Sequence[Row], method: Method = SDS) -> float:
    """Its step's time to that of `method` with the same model and number of views."""
    same = [each for each in among if (each.model, each.views, each.method) == (row.model, row.views, method)]
    return row.milliseconds[STEP] / mean(each.milliseconds[STEP] for each in same)


def cells(row: Row, among: Sequence[Row]) -> str:
    times = " | ".join(f"{row.milliseconds[part]:.2f}" for part in (*PARTS, REST))
    memory = "-" if row.gigabytes is None else f"{row.gigabytes:.2f}"
    first, third = row.quartiles
    whole = f"{row.milliseconds[STEP]:.1f} | {first:.1f} to {third:.1f} | {ratio(row, among):.3f}"
    return f"| {row.model} | {row.method.label} | {row.views} | {whole} | {times} | {memory} |"


def verdicts(among: Sequence[Row]) -> Iterator[str]:
    """One line per target and row that it is about."""
    for row in among:
        subject = f"- {row.model}, {row.method.label}, views per step {row.views}"
        if row.method == VSD:
            times = ratio(row, among, SPECTRAL)
            met = "met" if times >= VSD_LEAST else "missed"
            yield f"{subject}: {times:.3f} times SSD, at least {VSD_LEAST:g}: {met}"
        if row.method.most is None:
            continue
        times = ratio(row, among)
        yield f"{subject}: {times:.3f} times SDS, at most {row.method.most:g}: {_met(times, row.method.most)}"
        if (row.model, row.views) == ("stable-diffusion-2-1-base", 1):
            whole = row.milliseconds[STEP]
            yield f"{subject}: {whole:.1f} ms, at most {FASTEST_MS:g}: {_met(whole, FASTEST_MS)}"


def _met(value: float, most: float) -> str:
    return "met" if value <= most else "missed"


def document(arguments: argparse.Namespace, machine: str, among: Sequence[Row]) -> str:
    date = datetime.now(UTC).date().isoformat()
    settings = (
        f"{arguments.count} Gaussians at {arguments.pixels} px, backend {_backend(arguments.device)}; the model sees "
        f"{f'{arguments.image_size} px' if arguments.image_size else 'its own size'}; U-Net in "
        f"{arguments.precision}; {arguments.steps} steps after {arguments.warmup}. Random weights."
    )
    judged = arguments.size == "full" and arguments.device == "cuda"
    targets = [*verdicts(among)] if judged else ["- not judged: they are for models of full size on a GPU"]
    return "\n".join(
        [
            "# A step of SDS, SSD and VSD with text-to-image models",
            "",
            f"{date}; {machine}; `{arguments.command}`.",
            "",
            settings,
            "",
            HEADING,
            *(cells(row, among) for row in among),
            "",
            EXPLANATION,
            "",
            f"Targets ({FASTEST_MS:g} ms is meant for an H200-class GPU):",
            "",
            *targets,
            "",
        ]
    )


def _backend(device: str) -> str:
    """What `backend=auto` draws Gaussians with."""
    if device == "cpu":
        return "cpu"
    return f"gsplat {version('gsplat')}" if find_spec("gsplat") else "torch (gsplat is not installed)"


def parse(given: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda")
    parser.add_argument("--size", choices=SIZES, default="full")
    parser.add_argument("--models", nargs="+", choices=WITH_RANDOM_WEIGHTS, default=list(WITH_RANDOM_WEIGHTS))
    estimators = [*DEPTH_MODELS, "shipped"]
    parser.add_argument("--estimators", nargs="*", choices=estimators, default=estimators)
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 4], help="views per step")
    parser.add_argument("--count", type=int, default=5000, help="Gaussians")
    parser.add_argument("--pixels", type=int, default=512, help="of a drawn view")
    parser.add_argument("--image-size", type=int, default=0, help="pixels that the model sees; 0: its own size")
    parser.add_argument("--precision", choices=["bfloat16", "float16", "float32"], default="bfloat16")
    parser.add_argument("--compile", action="store_true", help="torch.compile the U-Net")
    parser.add_argument("--warmup", type=int, default=10)
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--work", type=Path, default=Path(tempfile.gettempdir()) / "steindreamer-random-models")
    parser.add_argument("--out", type=Path, help="default: benchmarks/results/diffusion.md")
    arguments = parser.parse_args(given)
    if arguments.size == "tiny":
        parser.set_defaults(**TINY)
        arguments = parser.parse_args(given)
    if arguments.device == "cuda" and not torch.cuda.is_available():
        parser.error("torch finds no CUDA device; to see that the script runs: --size tiny --device cpu --out FILE")
    arguments.out = arguments.out or RESULTS / ("diffusion_compiled.md" if arguments.compile else "diffusion.md")
    if arguments.out.resolve().parent == RESULTS.resolve() and (arguments.size, arguments.device) != ("full", "cuda"):
        parser.error("only models of full size on a GPU make a result: say where else to write with --out")
    arguments.command = shlex.join(["python", "benchmarks/diffusion.py", *(sys.argv[1:] if given is None else given)])
    return arguments


def main(given: Sequence[str] | None = None) -> None:
    arguments = parse(given)
    machine = hardware()
    if arguments.device == "cuda":
        machine = f"{torch.cuda.get_device_name()}, CUDA {torch.version.cuda}; {machine}"
    print(HEADING)
    found: list[Row] = []
    for model in arguments.models:
        for views in arguments.batches:
            for row in rows(arguments, model, views):
                found.append(row)
                print(cells(row, found), flush=True)
                arguments.out.parent.mkdir(parents=True, exist_ok=True)
                # After every row: whoever has the GPU for some minutes only keeps what was measured.
                arguments.out.write_text(document(arguments, machine, found))


if __name__ == "__main__":
    main()
