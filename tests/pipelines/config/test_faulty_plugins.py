"""Components of a plugin that break their contract, or fail late, are named in one line.

They run in a process of their own, without the assertions of annotations that the tests otherwise have, which would
find some of the faults first.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

SOUND = Path(__file__).parents[2] / "support" / "sound_plugin.py"
SETTINGS = ["--no-refine", "--quiet", "--prompt", "a red mug", "--prior", "gray", "representation.count=30",
            "stages.coarse.steps=8", "stages.coarse.resolution=16", "stages.coarse.warmup_resolution=16",
            "output.turntable_frames=0", "output.image_size=16", "export.enabled=false"]  # fmt: skip
PRIOR, METHOD, BASELINE = (
    ["--method", "sds"],
    ["--method", "half"],
    ["--method", "ssd", "method.control_variates.terms=[own]"],
)
KINDS = {"prior": PRIOR, "method": METHOD, "baseline": BASELINE}
SHAPE = r"\(2, 3, 16, 16\) on cpu"


def _prior(line: str) -> str:
    return f"class Gray(Gray):\n    {line}\n"


def _method(line: str) -> str:
    return f"class Half(Half):\n    {line}\n"


def _baseline(line: str) -> str:
    return f"def own(noisy, level, geometry):\n    {line}\n"


LATE = "\n    ".join(
    ["def answer(self, noise):", "    if self.calls > 4:", "        {}", "    return super().answer(noise)"]
)
LATE_HALF = LATE.replace("answer", "estimate")
HERE = r" \(\S+mine\.py, line \d+\)"
FAULTS = {
    "prior: sound": ("", ""),
    "prior: shape": (_prior("def answer(self, noise): return noise[:1]"),
                     rf"Gray\.predict_noise must return .* {SHAPE[:-7]}; got float32 of shape \(1, 3"),
    "prior: whole numbers": (_prior("def answer(self, noise): return noise.int()"),
                             r"Gray\.predict_noise must return .* got int32"),
    "prior: an array": (_prior("def answer(self, noise): return noise.numpy()"),
                        r"Gray\.predict_noise must return .* got a ndarray"),
    "prior: NaN": (_prior("def answer(self, noise): return noise / 0 * 0"),
                   r"Gray\.predict_noise returned 1536 of 1536 values that are not finite"),
    "prior: nothing": (_prior("def answer(self, noise): return None"), r"Gray\.predict_noise must return .* got None"),
    "prior: raises": (_prior("def answer(self, noise): return self.weights"), r"Gray\.answer raised AttributeError: "),
    "prior: encodes whole numbers": (_prior("def encode(self, image): return (255 * image).int()"),
                                     r"Gray\.encode must return floating-point .* got int32"),
    "prior: a word as its device": (_prior("device = 'gpu0'"), r"Gray\.device must be a torch\.device, got 'gpu0'"),
    "prior: a device without numbers": (_prior("device = torch.device('meta')"), r"Gray\.device is meta, which holds"),
    "prior: a device that is not there": (_prior("device = torch.device('cuda', 63)"),
                                          r"Gray\.device is cuda:63, which cannot be used here: "),
    "prior: a schedule that raises": (_prior("schedule = property(lambda self: {}['levels'])"),
                                      rf"Gray\.<lambda>{HERE} raised KeyError: 'levels'"),
    "prior: another signature": (_prior("def predict_noise(self, requests): ..."),
                                 r"Gray\.predict_noise\(requests\) cannot be called "),
    "prior: embed raises": (_prior("def embed(self, prompt, negative_prompt=''): return {}[prompt]"),
                            rf"Gray\.embed{HERE} raised KeyError: 'a red mug'"),
    "prior: KeyError in a step": (_prior(LATE.format("{}['weights']")), rf"Gray\.answer{HERE} raised KeyError: 'weig"),
    "prior: RuntimeError in a step": (_prior(LATE.format("noise @ torch.zeros(3, 7, 7)")),
                                      rf"Gray\.answer{HERE} raised RuntimeError: "),
    "prior: ValueError in a step": (_prior(LATE.format("raise ValueError('too hot')")),
                                    rf"step \d, in stage 'coarse': Gray\.answer{HERE}: too hot"),
    "prior: sys.exit in a step": (_prior(LATE.format("raise SystemExit(3)")), rf"Gray\.answer{HERE} called sys\.exit"),
    "method: sound": ("", ""),
    "method: shape": (_method("def estimate(self, value): return Estimate(value[:1], None)"),
                      rf"Half's Estimate\.value must hold .* {SHAPE}, got float32 of shape \(1, 3"),
    "method: whole numbers": (_method("def estimate(self, value): return Estimate(value.int(), None)"),
                              rf"Half's Estimate\.value must hold floating-point numbers of shape {SHAPE}, got int32"),
    "method: truth values": (_method("def estimate(self, value): return Estimate(value, value > 0)"),
                             r"Half's Estimate\.guided must hold .* got bool"),
    "method: another device": (_method("def estimate(self, value): return Estimate(value.to('meta'), None)"),
                               r"Half's Estimate\.value must hold .* on meta"),
    "method: NaN": (_method("def estimate(self, value): return Estimate(value / 0 * 0, None)"), "residual Half is nan"),
    "method: raises": (_method("def estimate(self, value): return self.value"), r"Half\.estimate raised AttributeErr"),
    "method: asks for what is not there": (_method("def __call__(self, draw): return draw.predict('promt')"),
                                           r"Half\.__call__: unknown prompt 'promt'"),
    "method: no residual": ("class HalfConfig(HalfConfig):\n    def residual(self): return None\n"
                            "del METHODS['half']\nMETHODS['half'] = dataclass(HalfConfig)\n",
                            r"must return a Residual, got a NoneType"),
    "method: no texts": ("HalfConfig.texts = lambda self, prompt, negative: None\n",
                         r"HalfConfig\.texts must return prompt and negative prompt, got None"),
    "method: AttributeError in a step": (_method(LATE_HALF.format("self.scale")),
                                         rf"Half\.estimate{HERE} raised AttributeError: "),
    "baseline: sound": ("", ""),
    "baseline: shape": (_baseline("return -noisy.mean((2, 3))"), r"baseline 'own' must return .* got .*\(2, 3\)"),
    "baseline: whole numbers": (_baseline("return noisy.mean((1, 2, 3)).int()"), r"'own' must return .* got int32"),
    "baseline: a number": (_baseline("return 1.0"), r"'own' must return one floating-point number .* got a float"),
    "baseline: another device": (_baseline("return -noisy.mean((1, 2, 3)).to('meta')"), r"'own' must return .* meta"),
    "baseline: NaN": (_baseline("return noisy.mean((1, 2, 3)) * math.nan"), r"'own' returned 1536 of 1536 values"),
    "baseline: raises": (_baseline("return geometry.brightness"), r"current raised AttributeError: "),
    "baseline: KeyError in a step": (
        "calls = []\ndef own(noisy, level, geometry):\n    calls.append(0)\n    return -noisy.mean((1, 2, 3)).tanh() "
        "if len(calls) < 7 else {}['late']\n", rf"own{HERE} raised KeyError: 'late'"),
}  # fmt: skip

CHILD = """
import contextlib, io, json, sys
from pathlib import Path
from steindreamer.distill import CONTROL_VARIATES, METHODS
from steindreamer.pipelines.config import plugins
from steindreamer.pipelines.cli.run import main
from steindreamer.pipelines.priors import PRIORS

folder, outcomes = Path(sys.argv[1]), {}
registries = (CONTROL_VARIATES, METHODS, PRIORS, plugins.LOADED)
before = [dict(registry) for registry in registries]
for number, (name, (source, arguments)) in enumerate(json.load(sys.stdin).items()):
    place = folder / str(number)
    place.mkdir()
    (place / "mine.py").write_text(source)
    captured = io.StringIO()
    with contextlib.redirect_stderr(captured):
        status = main(["--plugin", str(place / "mine.py"), "--out", str(place / "run"), *arguments])
    outcomes[name] = [status, captured.getvalue()]
    for registry, content in zip(registries, before):
        registry.clear()
        registry.update(content)
json.dump(outcomes, sys.stdout)
"""


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[int, str]]:
    extra = "\nimport math\nfrom steindreamer.distill import METHODS\n\n"
    runs = {
        name: (SOUND.read_text() + extra + fault, [*SETTINGS, *KINDS[name.partition(":")[0]]])
        for name, (fault, _) in FAULTS.items()
    }
    command = [sys.executable, "-c", CHILD, str(tmp_path_factory.mktemp("plugins"))]
    done = subprocess.run(command, input=json.dumps(runs), capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_one_line_that_names_the_component(fault: str, outcomes: dict[str, tuple[int, str]]) -> None:
    (status, captured), message = outcomes[fault], FAULTS[fault][1]
    if not message:
        assert (status, captured) == (0, "")
        return
    assert status == 1 and captured.count("\n") == 1 and re.search(message, captured), captured
    assert "bug in steindreamer" not in captured
