"""Steps that several processes share, against the same steps of one process."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable

import pytest
import shared_steps
import torch
from safetensors.torch import load_file
from torch import Tensor

from steindreamer.distill.ranks import Ranks
from steindreamer.pipelines.config.run_config import load_config
from steindreamer.pipelines.errors import SettingsError
from steindreamer.pipelines.runs.pipeline import Pipeline

GRADIENT, STATE = 1e-4, 0.1
"""Relative differences of the first gradients, whose sums are taken in another order, and of the states after four
steps, since Adam divides small gradients by their own size."""

States = Callable[[str], tuple[dict[str, Tensor], dict[str, Tensor]]]


@pytest.fixture(scope="module")
def states(tmp_path_factory: pytest.TempPathFactory) -> States:
    """The states of a case after its steps, of one process and of two."""
    folder = tmp_path_factory.mktemp("states")
    environment = os.environ | {
        "OMP_NUM_THREADS": "1",
        "NUMBA_NUM_THREADS": "1",
        "PYTHONPATH": os.pathsep.join(sys.path),
    }
    command = [sys.executable, shared_steps.__file__, str(folder)]
    program = subprocess.run(command, env=environment, capture_output=True, timeout=600)
    assert program.returncode == 0, program.stderr.decode()[-2000:]

    def of(case: str) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        one, two = (load_file(folder / count / f"{case}.safetensors") for count in "12")
        return one, two

    return of


@pytest.mark.slow
@pytest.mark.parametrize("case", shared_steps.CASES)
def test_two_processes_give_the_result_of_one(states: States, case: str) -> None:
    one, two = states(case)
    assert one.keys() == two.keys()
    for exact in ("generator", "counters"):
        assert one[exact].equal(two[exact])
    for name, expected in one.items():
        assert two[name].shape == expected.shape, name
        if expected.is_floating_point() and not name.startswith("optimizer."):
            difference = (two[name].double() - expected.double()).norm()
            tolerance = GRADIENT if name.startswith("gradient.") else STATE
            assert difference <= tolerance * expected.double().norm().clamp(min=1e-6), (name, float(difference))
    torch.testing.assert_close(two["losses"], one["losses"], rtol=1e-3, atol=0.0)
    assert any(float(tensor.norm()) > 0 for name, tensor in one.items() if name.startswith("gradient."))


@pytest.mark.slow
def test_the_learned_score_is_trained_on_the_views_of_both(states: States) -> None:
    _, two = states("gaussians-vsd")
    learned = [name for name in two if ".learned_score.lora." in name]
    assert any(float(two[name].abs().max()) > 0 for name in learned)


def test_views_that_the_processes_cannot_share_are_refused() -> None:
    settings = [*shared_steps.SMALL, *shared_steps.CASES["gaussians-sds"], "stages.coarse.views.per_step=3"]
    pipeline = Pipeline(load_config("cpu", prior="world", overrides=settings), ranks=Ranks(0, 2))
    with pytest.raises(SettingsError, match=r"stages.coarse.views.per_step is 3, .*a multiple of 2"):
        pipeline.first()


def test_the_only_process_gets_its_own_tensors_back() -> None:
    rows, flags = torch.arange(6.0).reshape(3, 2), [True, False]
    ranks = Ranks()
    assert ranks.own(rows) is rows and ranks.gather(rows) is rows and ranks.gather_around(rows) is rows
    assert ranks.anywhere(flags, rows.device) == flags and ranks.means({"a": 1.0}) == {"a": 1.0}
    assert ranks.from_leader({"a": 1}) == {"a": 1}


@pytest.mark.parametrize(("rank", "count"), [(2, 2), (-1, 1), (0, 0)])
def test_impossible_ranks_are_refused(rank: int, count: int) -> None:
    with pytest.raises(ValueError, match="need 0 <= rank < count"):
        Ranks(rank, count)
